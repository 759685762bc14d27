"""Who gets in to a page, and where it is."""

from __future__ import annotations

import contextlib
import http.client
import logging
import socket
import time
from urllib.parse import parse_qs, urlsplit

import pytest

pytest.importorskip("uvicorn", reason="the extra page is not installed")

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rtsr import listening
from rtsr.errors import ArgumentError, RtsrError
from rtsr.page.access import Access
from rtsr.page.application import Frame, PageApplication
from rtsr.page.messages import body_object
from rtsr.page.serve import PageThread, access_for, address_of, bind


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "0.0.0.0"])
def test_the_printed_address_is_one_that_is_known(host: str) -> None:
    with bind(host, 0) as bound:
        access = access_for(host, bound)
        netloc = urlsplit(address_of(bound, access)).netloc
        assert access.knows_host({"host": netloc})
        assert not access.knows_host({"host": "elsewhere.example"})


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [("http", "https://calls.example.org/"), ("https", "https://calls.example.org:{port}/")],
)
def test_a_name_without_a_certificate_of_ours_is_that_of_a_proxy(
    scheme: str, expected: str
) -> None:
    with bind("127.0.0.1", 0) as bound:
        access = access_for("127.0.0.1", bound, "secret", ("calls.example.org",))
        address = address_of(bound, access, scheme, "calls.example.org")
        assert address == expected.format(port=bound.getsockname()[1]) + "?token=secret"


@pytest.mark.parametrize("token", ["a+b/c==", "a&b", "a#b", "a%41"])
def test_the_printed_token_is_the_token(token: str) -> None:
    with bind("127.0.0.1", 0) as bound:
        address = address_of(bound, access_for("127.0.0.1", bound, token))
    assert parse_qs(urlsplit(address).query)["token"] == [token]


@pytest.mark.parametrize("token", ["€", "a\nb"])
def test_a_token_that_no_browser_can_send_is_refused(token: str) -> None:
    with pytest.raises(ArgumentError, match="printable ASCII"):
        Access(("localhost",), token)


def test_an_origin_that_is_no_address_is_another_one() -> None:
    headers = {"host": "localhost:80", "origin": "http://[::1"}
    assert not Access(("localhost",)).is_same_origin(headers)


def test_an_address_belongs_to_one_program_from_the_start() -> None:
    with bind("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        with pytest.raises(RtsrError, match=f"Cannot listen on 127.0.0.1:{port}"):
            bind("127.0.0.1", port)


def test_a_broken_request_writes_nothing_on_the_terminal(
    capfd: pytest.CaptureFixture[str],
) -> None:
    from starlette.applications import Starlette

    bound = bind("127.0.0.1", 0)
    with (
        PageThread(Starlette(), bound),
        socket.create_connection(bound.getsockname()[:2], 5) as client,
    ):
        client.sendall(b"garbage\r\n\r\n")
        assert client.recv(100)
    assert capfd.readouterr().err == ""
    assert logging.getLogger("uvicorn").handlers


def test_connections_that_ask_for_nothing_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "MOST_CONNECTIONS", 8)
    page = PageApplication(Frame("", "live.js", "", ""), Access(("127.0.0.1",), "secret"))
    bound = bind("127.0.0.1", 0)
    address = bound.getsockname()[:2]
    with PageThread(page.build([]), bound), contextlib.ExitStack() as undo:
        silent = [undo.enter_context(socket.create_connection(address, 20)) for _ in range(40)]
        silent[0].settimeout(20)
        assert silent[0].recv(1) == b""
        asking = http.client.HTTPConnection(*address, timeout=20)
        asking.request("GET", "/")
        assert asking.getresponse().status == 401
        asking.close()
        # Who has come last may stay.
        silent[-1].setblocking(False)
        with pytest.raises(BlockingIOError):
            silent[-1].recv(1)


def test_who_asks_and_does_not_read_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "MOST_CONNECTIONS", 4)
    page = PageApplication(Frame("", "live.js", "", ""), Access(("127.0.0.1",), "secret"))
    bound = bind("127.0.0.1", 0)
    host, port = bound.getsockname()[:2]
    question = f"GET /page/uPlot.min.js HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()
    with PageThread(page.build([]), bound), contextlib.ExitStack() as undo:
        for _ in range(6):
            deaf = undo.enter_context(socket.socket())
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect((host, port))
            deaf.sendall(400 * question)
        time.sleep(1.0)
        for _ in range(4):
            asking = http.client.HTTPConnection(host, port, timeout=20)
            asking.request("GET", "/")
            assert asking.getresponse().status == 401
            asking.close()


def test_a_request_that_breaks_off_is_no_error_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    began = []

    async def read(request: Request) -> Response:
        began.append(1)
        await body_object(request, 1000)
        return Response()

    page = PageApplication(Frame("", "live.js", "", ""), Access(("127.0.0.1",), "secret"))
    bound = bind("127.0.0.1", 0)
    with PageThread(page.build([Route("/read", page.guarded(read), methods=["POST"])]), bound):
        host, port = bound.getsockname()[:2]
        with socket.create_connection((host, port), 20) as client:
            client.sendall(
                f"POST /read HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 100\r\n"
                "Authorization: Bearer secret\r\n\r\n{".encode()
            )
            while not began:
                time.sleep(0.01)
    assert [record for record in caplog.records if record.name.startswith("rtsr")] == []
