"""A headless Firefox that a test drives through WebDriver BiDi."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import websockets
from remote_page import RemotePage

# A microphone that hums, nobody to ask for it, and addresses that a server without mDNS can reach.
_PREFERENCES = {
    "media.navigator.permission.disabled": True,
    "media.navigator.streams.fake": True,
    "media.peerconnection.ice.obfuscate_host_addresses": False,
    "media.peerconnection.ice.loopback": True,
    "media.autoplay.default": 0,
    "datareporting.policy.dataSubmissionEnabled": False,
    "app.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
}


def firefox() -> str | None:
    """The browser's program, if there is one."""
    return shutil.which("firefox-esr") or shutil.which("firefox")


class Firefox(RemotePage):
    """One page of a Firefox. Use it as an asynchronous context manager."""

    async def __aenter__(self) -> Firefox:
        self.folder = Path(tempfile.mkdtemp(prefix="rtsr-firefox-"))
        lines = [f'user_pref("{k}", {json.dumps(v)});' for k, v in _PREFERENCES.items()]
        (self.folder / "user.js").write_text("\n".join(lines) + "\n")
        program = firefox()
        assert program is not None
        with (self.folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                [program, "--headless", "--no-remote", "--remote-debugging-port", "0",
                 "--profile", str(self.folder), "about:blank"],
                stdout=log, stderr=log,
            )  # fmt: skip
        found = None
        for _ in range(600):
            found = re.search(r"BiDi listening on (ws://\S+)", self._words())
            if found:
                break
            await asyncio.sleep(0.1)
        assert found is not None, self._words()
        self.socket = await websockets.connect(found[1] + "/session", max_size=2**26)
        await self.send("session.new", capabilities={})
        tree = await self.send("browsingContext.getTree")
        self._context = tree["contexts"][0]["context"]
        return self

    async def open(self, address: str) -> None:
        """Go to a page and wait until it is there."""
        await self.send(
            "browsingContext.navigate", context=self._context, url=address, wait="complete"
        )

    async def run(self, script: str) -> Any:
        """The value of an expression: a number, a text or a boolean."""
        answer = await self.send(
            "script.evaluate", expression=script, awaitPromise=True,
            target={"context": self._context},
        )  # fmt: skip
        assert answer["type"] == "success", answer
        return answer["result"].get("value")

    def _words(self) -> str:
        return (self.folder / "log").read_text(errors="replace")
