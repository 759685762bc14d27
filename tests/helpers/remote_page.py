"""What every browser that a test drives over a WebSocket has in common."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any


class RemotePage(ABC):
    """One page of a browser of its own; leaving the context ends the browser.

    A subclass starts ``process`` with its files in ``folder`` and opens ``socket``.
    """

    folder: Path
    process: subprocess.Popen[bytes]
    socket: Any

    def __init__(self) -> None:
        self._next = 0

    @abstractmethod
    async def run(self, script: str) -> Any:
        """The value of an expression, a promise's once it is there."""

    async def __aexit__(self, *failure: object) -> None:
        with contextlib.suppress(Exception):
            await self.socket.close()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol; returns its result."""
        self._next += 1
        number = self._next
        await self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(await asyncio.wait_for(self.socket.recv(), 60))
            if message.get("id") == number:
                assert "error" not in message, message
                return dict(message["result"])

    async def until(self, condition: str, seconds: float = 30.0) -> None:
        """Wait for an expression to become true."""
        for _ in range(round(seconds / 0.1)):
            if await self.run(condition):
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"{condition} did not become true within {seconds} s")
