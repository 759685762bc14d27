"""Who gets in to a page, and where it is."""

from __future__ import annotations

import logging
import socket
from urllib.parse import parse_qs, urlsplit

import pytest

pytest.importorskip("uvicorn", reason="the extra page is not installed")

from rtsr.errors import ArgumentError, RtsrError
from rtsr.page.access import Access
from rtsr.page.serve import PageThread, access_for, address_of, bind


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "0.0.0.0"])
def test_the_printed_address_is_one_that_is_known(host: str) -> None:
    with bind(host, 0) as bound:
        access = access_for(host, bound)
        netloc = urlsplit(address_of(bound, access)).netloc
        assert access.knows_host({"host": netloc})
        assert not access.knows_host({"host": "elsewhere.example"})


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
