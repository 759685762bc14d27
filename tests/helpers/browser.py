"""A headless Chromium that a test drives through its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

import websockets
from remote_page import RemotePage


def chromium() -> str | None:
    """The browser's program, if there is one."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Browser(RemotePage):
    """One page of a Chromium whose microphone is a WAV file, over and over.

    Use it as an asynchronous context manager.
    """

    def __init__(self, microphone: Path | None, *options: str) -> None:
        self._microphone = microphone
        self._options = options
        super().__init__()

    async def __aenter__(self) -> Browser:
        self.folder = Path(tempfile.mkdtemp(prefix="rtsr-chromium-"))
        fake = []
        if self._microphone is not None:
            fake = [
                "--use-fake-device-for-media-stream",
                "--use-fake-ui-for-media-stream",
                f"--use-file-for-fake-audio-capture={self._microphone}",
            ]
        program = chromium()
        assert program is not None
        self.process = subprocess.Popen(
            [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             "--autoplay-policy=no-user-gesture-required", "--no-first-run", "--mute-audio",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             "--disable-features=WebRtcHideLocalIpsWithMdns",
             "--remote-debugging-port=0", f"--user-data-dir={self.folder}",
             "--window-size=1200,1400", *fake, *self._options, "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        port_file = self.folder / "DevToolsActivePort"
        for _ in range(600):
            if port_file.exists() and port_file.read_text().count("\n"):
                break
            await asyncio.sleep(0.1)
        port = port_file.read_text().split("\n")[0]
        pages = await asyncio.to_thread(
            lambda: json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json"))
        )
        address = next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
        self.socket = await websockets.connect(address, max_size=2**26)
        await self.send("Page.enable")
        return self

    async def open(self, address: str) -> None:
        """Go to a page and wait until its scripts have run."""
        await self.send("Page.navigate", url=address)
        await self.until("document.readyState === 'complete'")

    async def run(self, script: str) -> Any:
        """The value of an expression, a promise's once it is there."""
        result = await self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    async def key(self, key: str) -> None:
        """Press a key, as Enter or ArrowRight."""
        for kind in ("keyDown", "keyUp"):
            text = {"Enter": "\r", " ": " "}.get(key)
            more = {"text": text} if text and kind == "keyDown" else {}
            codes = {
                "Tab": 9,
                "Enter": 13,
                " ": 32,
                "ArrowLeft": 37,
                "ArrowRight": 39,
                "Home": 36,
                "End": 35,
            }
            await self.send(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key,
                windowsVirtualKeyCode=codes.get(key, 0), **more,
            )  # fmt: skip

    async def picture(self, path: Path) -> None:
        """A screenshot of the whole page."""
        result = await self.send("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(result["data"]))
