"""HTTPS of the page: handshakes, renewed certificates, WebSockets over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import ssl
import threading
import time

import pytest

pytest.importorskip("uvicorn", reason="the extra page is not installed")
pytest.importorskip("aiortc", reason="the extra call is not installed")

from authority import Authority
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from websockets.sync.client import connect

from rtsr import listening
from rtsr.certificate import ServerCertificate
from rtsr.page import serve
from rtsr.page.serve import bind, server_for


async def _answer(request):
    return PlainTextResponse(f"{request.url.scheme} {request.url.path}")


async def _echo(websocket):
    await websocket.accept()
    with contextlib.suppress(Exception):
        while True:
            await websocket.send_text(await websocket.receive_text())


class _Running:
    """A server in a thread of its own, with a certificate for 127.0.0.1."""

    def __init__(self, folder):
        self.authority = Authority(folder)
        self.files = self.authority.certificate("127.0.0.1")
        self.bound = bind("127.0.0.1", 0)
        self.address = self.bound.getsockname()[:2]
        self.trusted = ssl.create_default_context(cafile=self.authority.file)
        routes = [Route("/{path:path}", _answer), WebSocketRoute("/echo", _echo)]
        self.server = server_for(Starlette(routes=routes), ServerCertificate(*self.files))
        self.thread = threading.Thread(
            target=lambda: asyncio.run(self.server.serve(sockets=[self.bound]))
        )

    def ask(self, path="/"):
        """Body of the answer."""
        client = http.client.HTTPSConnection(*self.address, timeout=20, context=self.trusted)
        try:
            client.request("GET", path)
            return client.getresponse().read().decode()
        finally:
            client.close()

    def connect(self):
        """A connection on which nothing has been said."""
        return socket.create_connection(self.address, 20)


def assert_nothing_is_left(running):
    for _ in range(200):
        if not running.server.server_state.connections:
            return
        time.sleep(0.05)
    raise AssertionError("a connection is left")


@pytest.fixture
def running(tmp_path):
    """The server, until the test is over."""
    it = _Running(tmp_path)
    it.thread.start()
    yield it
    it.server.should_exit = True
    it.thread.join(20)
    it.bound.close()
    assert not it.thread.is_alive()


def test_it_answers_over_tls_and_knows_that_it_does(running):
    assert running.ask("/there") == "https /there"


def test_a_web_socket_runs_over_tls(running):
    host, port = running.address
    with connect(f"wss://{host}:{port}/echo", ssl=running.trusted, open_timeout=20) as there:
        for text in ("one", "two" * 10000):
            there.send(text)
            assert there.recv(20) == text


def test_a_request_that_comes_with_the_end_of_the_handshake_is_answered(running):
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = running.trusted.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with running.connect() as there:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                there.sendall(outgoing.read())
                incoming.write(there.recv(65536))
        tls.write(b"GET /early HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        there.sendall(outgoing.read())
        heard = b""
        while not heard.endswith(b"/early"):
            incoming.write(there.recv(65536))
            with contextlib.suppress(ssl.SSLWantReadError):
                while not heard.endswith(b"/early"):
                    heard += tls.read(65536)
    assert heard.endswith(b"https /early")


def test_who_never_shakes_hands_makes_room(running, monkeypatch):
    monkeypatch.setattr(listening, "MOST_CONNECTIONS", 8)
    with contextlib.ExitStack() as undo:
        silent = [undo.enter_context(running.connect()) for _ in range(40)]
        silent[0].settimeout(20)
        assert silent[0].recv(1) == b""
        assert running.ask() == "https /"
        # Who has come last may stay.
        silent[-1].setblocking(False)
        with pytest.raises(BlockingIOError):
            silent[-1].recv(1)
        assert len(running.server.server_state.connections) <= 9


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"])
def test_a_handshake_that_does_not_end_is_given_up(running, monkeypatch, said):
    monkeypatch.setattr(serve, "HANDSHAKE_SECONDS", 0.5)
    with running.connect() as there:
        there.sendall(said)
        there.settimeout(20)
        with contextlib.suppress(ConnectionResetError):
            # An alert may come before the end.
            while there.recv(100):
                pass
    assert running.ask() == "https /"
    assert_nothing_is_left(running)


def test_who_leaves_in_the_middle_of_a_handshake_leaves_nothing(running):
    for _ in range(5):
        with running.connect() as there:
            there.sendall(b"\x16\x03\x01")
    with pytest.raises(ssl.SSLError):
        ssl.create_default_context().wrap_socket(running.connect(), server_hostname="127.0.0.1")
    assert running.ask() == "https /"
    assert_nothing_is_left(running)
