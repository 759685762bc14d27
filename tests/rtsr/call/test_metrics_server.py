"""Who asks the port of ``/metrics`` for nothing, or for too much, is not waited for."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from rtsr.call import metrics_server
from rtsr.call.metrics_server import MetricsServer


def answer_to(data, patience, monkeypatch, *later):
    """What comes back until the server closes the connection, and after how many seconds.

    What is sent later is sent piece by piece.
    """
    monkeypatch.setattr(metrics_server, "PATIENCE", patience)

    async def run():
        # Only a request for /metrics asks the engine.
        server = MetricsServer(None)
        await server.start("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.address)
        began = time.monotonic()
        writer.write(data)
        try:
            for more in later:
                await writer.drain()
                await asyncio.sleep(0.1)
                writer.write(more)
            answer = await asyncio.wait_for(reader.read(), 15.0)
        except ConnectionResetError:
            # What it has not read is thrown away.
            answer = b""
        took = time.monotonic() - began
        writer.close()
        await server.stop()
        return answer, took

    return asyncio.run(run())


@pytest.mark.parametrize("data", [b"", b"GET /metr"])
def test_who_does_not_finish_a_request_is_waited_for_a_while(monkeypatch, data):
    answer, took = answer_to(data, 0.3, monkeypatch)
    assert answer == b""
    assert 0.2 < took < 10.0


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.0\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n", b"\r\nGET / HTTP/1.1\r\n\r\n"],
    ids=["no headers", "headers without an end", "an empty line before"],
)
def test_what_is_asked_for_is_answered_however_it_is_asked(monkeypatch, data):
    answer, took = answer_to(data, 0.3, monkeypatch)
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert took < 10.0


def test_long_headers_are_read(monkeypatch):
    cookie = b"Cookie: a=" + b"b" * 12_000
    answer, _ = answer_to(b"GET / HTTP/1.1\r\n" + cookie + b"\r\n\r\n", 20.0, monkeypatch)
    assert answer.startswith(b"HTTP/1.1 404 ")


def test_a_line_without_an_end_is_not_kept(monkeypatch):
    answer, took = answer_to(b"GET /" + b"a" * 20_000, 60.0, monkeypatch)
    assert answer == b""
    assert took < 10.0


def test_connections_that_ask_for_nothing_make_room_and_end_with_the_server(caplog):
    async def run():
        server = MetricsServer(None)
        await server.start("127.0.0.1", 0)
        most = metrics_server.MOST_CONNECTIONS
        idle = [await asyncio.open_connection(*server.address) for _ in range(most + 3)]
        # The oldest have made room.
        for reader, _ in idle[:3]:
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.wait_for(reader.read(), 2.0) == b""
        assert len(server._open) == most
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 2.0)).startswith(b"HTTP/1.1 404 ")
        await asyncio.wait_for(server.stop(), 2.0)
        assert not server._open
        for each in (writer, *(writer for _, writer in idle)):
            each.close()

    asyncio.run(run())
    assert "Error" not in caplog.text


def test_other_pages_are_not_there(monkeypatch):
    answer, _ = answer_to(b"GET / HTTP/1.1\r\n\r\n", 60.0, monkeypatch)
    assert answer.startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/metrics", "/metrics?name=a&name=b"])
def test_metrics_are_there_however_they_are_asked_for(monkeypatch, method, path):
    monkeypatch.setattr(metrics_server, "exposition", lambda engine: b"calls 1\n")
    head = f"{method} {path} HTTP/1.1\r\n".encode()
    answer, _ = answer_to(head, 60.0, monkeypatch, b"Host: a\r\n", b"Accept: */*\r\n\r\n")
    headers, _, body = answer.partition(b"\r\n\r\n")
    assert headers.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Length: 8\r\n" in headers
    assert body == (b"calls 1\n" if method == "GET" else b"")
