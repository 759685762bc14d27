"""A headless Firefox that a test drives through WebDriver BiDi."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import websockets

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


class Firefox:
    """One page of a Firefox. Use it as an asynchronous context manager."""

    def __init__(self) -> None:
        self._next = 0

    async def __aenter__(self) -> Firefox:
        self._folder = Path(tempfile.mkdtemp(prefix="rtsr-firefox-"))
        lines = [f'user_pref("{k}", {json.dumps(v)});' for k, v in _PREFERENCES.items()]
        (self._folder / "user.js").write_text("\n".join(lines) + "\n")
        program = firefox()
        assert program is not None
        self._log = (self._folder / "log").open("w")
        self._process = subprocess.Popen(
            [program, "--headless", "--no-remote", "--remote-debugging-port", "0",
             "--profile", str(self._folder), "about:blank"],
            stdout=self._log, stderr=self._log,
        )  # fmt: skip
        found = None
        for _ in range(600):
            found = re.search(r"BiDi listening on (ws://\S+)", self._words())
            if found:
                break
            await asyncio.sleep(0.1)
        assert found is not None, self._words()
        self._socket = await websockets.connect(found[1] + "/session", max_size=2**26)
        await self.send("session.new", capabilities={})
        tree = await self.send("browsingContext.getTree")
        self._context = tree["contexts"][0]["context"]
        return self

    async def __aexit__(self, *failure: object) -> None:
        with contextlib.suppress(Exception):
            await self._socket.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol; returns its result."""
        self._next += 1
        number = self._next
        await self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(await asyncio.wait_for(self._socket.recv(), 60))
            if message.get("id") == number:
                assert message["type"] == "success", message
                return dict(message["result"])

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

    async def until(self, condition: str, seconds: float = 30.0) -> None:
        """Wait for an expression to become true."""
        for _ in range(round(seconds / 0.1)):
            if await self.run(condition):
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"{condition} did not become true within {seconds} s")

    def _words(self) -> str:
        return (self._folder / "log").read_text(errors="replace")
