"""``/metrics`` on a port of its own, for servers that speak no HTTP otherwise."""

from __future__ import annotations

import asyncio
import contextlib

from rtsr.call.engine import CallEngine
from rtsr.call.metrics import CONTENT_TYPE, exposition
from rtsr.listening import cannot_listen

__all__ = ["MetricsServer"]

_LONGEST_LINE = 16384
PATIENCE = 5.0
# Who asks for counters is answered at once; connections beyond these take files from the calls.
MOST_CONNECTIONS = 16


class MetricsServer:
    """Answers ``GET`` and ``HEAD`` of ``/metrics`` and nothing else, one request a connection.

    Of too many connections the oldest goes.

    Attributes:
        address: host and port that it listens on, from :meth:`start` on.
    """

    def __init__(self, engine: CallEngine) -> None:
        self.address = ("", 0)
        self._engine = engine
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0 takes a free one.

        Raises:
            RtsrError: the address is not available.
        """
        try:
            self._server = await asyncio.start_server(self._serve, host, port, limit=_LONGEST_LINE)
        except OSError as error:
            raise cannot_listen(host, port, error) from None
        found = self._server.sockets[0].getsockname()
        self.address = (str(found[0]), int(found[1]))

    async def stop(self) -> None:
        """Close the port, and what is open on it."""
        if self._server is not None:
            self._server.close()
        serving = list(self._open.values())
        for writer in self._open:
            writer.transport.abort()
        if serving:
            await asyncio.wait(serving)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= MOST_CONNECTIONS:
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.transport.abort()
        serving = asyncio.current_task()
        assert serving is not None
        self._open[writer] = serving
        try:
            await self._answer(reader, writer)
        finally:
            self._open.pop(writer, None)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await asyncio.wait_for(_request(reader), PATIENCE)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(_headers(reader), PATIENCE)
            method, path, *_ = [*line.split(), b"", b""]
            if method in (b"GET", b"HEAD") and path.partition(b"?")[0] == b"/metrics":
                body = exposition(self._engine)
                head = f"HTTP/1.1 200 OK\r\nContent-Type: {CONTENT_TYPE}\r\n"
            else:
                body, head = b"", "HTTP/1.1 404 Not Found\r\n"
            head = f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + (b"" if method == b"HEAD" else body))
            await writer.drain()
        except (OSError, ValueError, asyncio.TimeoutError):
            pass
        finally:
            writer.close()


async def _request(reader: asyncio.StreamReader) -> bytes:
    """Return the first line of a request, behind an empty one if there is any (RFC 9112, 2.2)."""
    return (await reader.readline()).strip() or await reader.readline()


async def _headers(reader: asyncio.StreamReader) -> None:
    """Read what is not needed: closed with something unread, a connection loses the answer."""
    while (await reader.readline()).strip():
        pass
