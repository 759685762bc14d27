"""`rtsr call web` over HTTPS for longer than its certificate is good for."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl

import pytest
from authority import Authority

pytest.importorskip("uvicorn", reason='pages need the extra "page"')
pytest.importorskip("aiortc", reason='calls need the extra "call"')

from starlette.applications import Starlette

from rtsr.certificate import ServerCertificate
from rtsr.cli.app import app
from rtsr.page.serve import bind, server_for


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.mark.parametrize("kinds", [("EC", "EC"), ("EC", "RSA"), ("RSA", "EC")])
@pytest.mark.parametrize("name", ["localhost", None])
def test_a_certificate_that_was_renewed_is_shown_and_half_of_one_is_not(
    authority, caplog, kinds, name
):
    files = authority.certificate("127.0.0.1", "localhost", name="site", kind=kinds[0])
    newer = authority.certificate("127.0.0.1", "localhost", name="newer", kind=kinds[1])
    bound = bind("127.0.0.1", 0)

    def shown():
        context = ssl.create_default_context(cafile=authority.file)
        context.check_hostname = name is not None
        plain = socket.create_connection(bound.getsockname(), 5.0)
        with context.wrap_socket(plain, server_hostname=name) as connection:
            connection.sendall(b"GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 404 ")
            return connection.getpeercert()["serialNumber"]

    async def run():
        server = server_for(Starlette(), ServerCertificate(*files))
        serving = asyncio.ensure_future(server.serve(sockets=[bound]))
        first = await asyncio.to_thread(shown)
        shutil.copy(newer[0], files[0])
        assert await asyncio.to_thread(shown) == first
        assert "the new certificate is not used" in caplog.text
        shutil.copy(newer[1], files[1])
        second = ssl._ssl._test_decode_cert(str(newer[0]))["serialNumber"]
        assert first != second == await asyncio.to_thread(shown)
        # Who renews may take them away for a moment.
        for file in files:
            file.unlink()
        assert await asyncio.to_thread(shown) == second
        server.should_exit = True
        await serving

    asyncio.run(run())


def test_a_key_with_a_password_is_refused_and_asked_for_nowhere(authority, capfd):
    certificate, key = authority.certificate("a", password=b"secret")
    with pytest.raises(SystemExit) as ended:
        app(["call", "web", "--certificate", str(certificate), "--key", str(key)])
    assert ended.value.code == 2
    said = capfd.readouterr()
    assert said.err == (
        "rtsr: The certificate cannot be used: its key has a password; write one without.\n"
    )
    assert said.out == ""
