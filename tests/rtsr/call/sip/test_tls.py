"""Calls over TLS: who shows which certificate, who is believed, and what messages say of it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import threading
import time

import pytest
from authority import Authority
from sip_ends import (
    SDP,
    CalledEnd,
    Peer,
    Running,
    Stream,
    answered,
    between,
)

pytest.importorskip("aiosipua")

from aiosipua import SipMessage, SipRequest

from rtsr import listening
from rtsr.call.sip import tcp
from rtsr.call.sip.agent import Agent, Target, TlsSettings
from rtsr.call.sip.destinations import asks_for_sips, next_hop
from rtsr.call.sip.tls import trusting
from rtsr.certificate import ServerCertificate
from rtsr.errors import RtsrError


def over_tls(data):
    return data.replace(b"/UDP", b"/TLS").replace(b";rport", b"")


def encrypted(connection, authority, host="127.0.0.1"):
    context = ssl.create_default_context(cafile=authority.file)
    return context.wrap_socket(connection, server_hostname=host)


class TlsPeer(Peer):
    """A caller over TLS that believes one authority."""

    is_encrypted = True
    authority: Authority
    scheme = "sip"

    def __init__(self, port):
        self._to, self._branch = ("127.0.0.1", port), 0
        plain = socket.create_connection(self._to, 5.0)
        self.port = plain.getsockname()[1]
        self._socket = Stream(encrypted(plain, self.authority))

    def send(self, data):
        if self.scheme == "sips":
            data = data.replace(b"<sip:", b"<sips:").replace(b" sip:x", b" sips:x", 1)
        super().send(over_tls(data))


class TlsCalledEnd(CalledEnd):
    """The called end over TLS."""

    files: tuple
    address = "sip:x@127.0.0.1:{};transport=tls"

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(5.0)
        self.port = self.listener.getsockname()[1]
        self.target = Target.parse(self.address.format(self.port))
        self._to = None

    def accept(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.files)
        connection = self.listener.accept()[0]
        self._socket = Stream(context.wrap_socket(connection, server_side=True))

    def request(self, invite, method, number, body=""):
        send = self._socket.sendto
        self._socket.sendto = lambda data, to: send(over_tls(data), to)
        try:
            super().request(invite, method, number, body)
        finally:
            self._socket.sendto = send

    def close(self):
        with contextlib.suppress(AttributeError):
            self._socket.close()
        self.listener.close()


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def settings(authority, **more):
    """Of a bridge that shows a certificate of its own and believes the authority."""
    own = ServerCertificate(*authority.certificate("127.0.0.1", name="bridge"))
    return TlsSettings(own, 0, trusting(authority.file), **more)


def caller(authority, scheme="sip"):
    return type("Caller", (TlsPeer,), {"authority": authority, "scheme": scheme})


def called(files, address="sip:x@127.0.0.1:{};transport=tls"):
    return type("Called", (TlsCalledEnd,), {"files": files, "address": address})


def head(text, name):
    """A header of a message."""
    return text.split(f"\r\n{name}: ")[1].split("\r\n")[0]


def test_a_call_over_tls_on_both_sides(stand_in, authority):
    end = called(authority.certificate("127.0.0.1", name="called"))
    ends = {"caller": caller(authority), "called": end, "tls": settings(authority)}
    with between(stand_in, **ends) as (peer, running, far):
        ours = f"<sip:127.0.0.1:{running.tls_port};transport=tls>"
        invite, accepted, to = answered(peer, far)
        assert head(invite, "Via").startswith("SIP/2.0/TLS ")
        assert head(invite, "Contact") == ours
        assert head(accepted, "Contact") == ours
        # Each end asks within the call, and is asked there, on its own connection.
        far.request(invite, "UPDATE", 2)
        assert "200" in far.hear("SIP")
        peer.send(peer.request("BYE", to=to, number=2))
        assert peer.final()[0] == 200
        assert far.hear("BYE").startswith("BYE sip:x@127.0.0.1")


def test_who_is_called_by_a_sips_address_gives_one(stand_in, authority):
    end = called(authority.certificate("127.0.0.1", name="called"), "sips:x@127.0.0.1:{}")
    ends = {"caller": caller(authority, "sips"), "called": end, "tls": settings(authority)}
    with between(stand_in, **ends) as (peer, running, far):
        ours = f"<sips:127.0.0.1:{running.tls_port}>"
        invite, accepted, to = answered(peer, far)
        assert invite.startswith(f"INVITE sips:x@127.0.0.1:{far.port} ")
        assert head(invite, "From").startswith("<sips:")
        assert head(invite, "Contact") == head(accepted, "Contact") == ours
        peer.send(peer.request("BYE", to=to, number=2))
        assert peer.final()[0] == 200


@pytest.mark.parametrize("wrong", ["another name", "another authority", "no encryption"])
def test_a_target_that_is_not_believed_is_not_called(stand_in, authority, tmp_path, caplog, wrong):
    caplog.set_level("INFO")
    names = {"another name": ["example.org"]}.get(wrong, ["127.0.0.1"])
    signer = Authority(tmp_path, "other") if wrong == "another authority" else authority
    end = called(signer.certificate(*names, name="called"))
    ends = {"called": end, "tls": settings(authority)}
    with between(stand_in, **ends) as (peer, _, far):
        began = time.monotonic()
        peer.send(peer.request("INVITE", body=SDP))
        if wrong == "no encryption":
            connection = far.listener.accept()[0]
            connection.sendall(b"SIP/2.0 200 OK\r\n\r\n")
        else:
            hears_a_call = False
            with contextlib.suppress(ssl.SSLError, ConnectionError):
                far.accept()
                hears_a_call = bool(far.hear("INVITE", 2.0))
            assert not hears_a_call
        assert peer.final()[0] == 503
        # At once, not once nobody could answer any more.
        assert time.monotonic() - began < 15.0
    reasons = [each.reason for each in caplog.records if each.message == "no SIP connection"]
    assert len(reasons) == 1
    assert "127.0.0.1" not in reasons[0]


def test_a_target_is_believed_by_its_name_and_not_by_its_address(stand_in, authority):
    files = authority.certificate("localhost", name="called")
    named = called(files, "sip:x@localhost:{};transport=tls")
    with between(stand_in, called=named, tls=settings(authority)) as (peer, _, far):
        _, _, to = answered(peer, far)
        peer.send(peer.request("BYE", to=to, number=2))
        assert peer.final()[0] == 200


def test_without_a_certificate_calls_go_out_over_tls_and_none_come(stand_in, authority):
    end = called(authority.certificate("127.0.0.1", name="called"))
    tls = TlsSettings(trusted=trusting(authority.file))
    with between(stand_in, called=end, tls=tls) as (peer, running, far):
        assert running.tls_port is None
        invite, _, _ = answered(peer, far)
        # The called end hangs up on the connection that it was called on.
        far.request(invite, "BYE", 2)
        assert "200" in far.hear("SIP")
        peer.answer(peer.asked("BYE"), 200)


@pytest.mark.parametrize(("before", "after"), [("EC", "EC"), ("EC", "RSA"), ("RSA", "EC")])
def test_a_certificate_that_was_renewed_is_shown_and_half_of_one_is_not(
    stand_in, authority, monkeypatch, caplog, before, after
):
    monkeypatch.setattr(tcp, "SWEEP_SECONDS", 0.05)
    files = authority.certificate("127.0.0.1", name="bridge", kind=before)
    with Running(str(stand_in), tls=TlsSettings(ServerCertificate(*files), 0)) as running:
        port = running.tls_port

        def shown():
            context = ssl.create_default_context(cafile=authority.file)
            with context.wrap_socket(
                socket.create_connection(("127.0.0.1", port), 5.0), server_hostname="127.0.0.1"
            ) as connection:
                return connection.getpeercert()["serialNumber"]

        first = shown()
        newer = authority.certificate("127.0.0.1", name="newer", kind=after)
        second = ssl._ssl._test_decode_cert(str(newer[0]))["serialNumber"]
        shutil.copy(newer[0], files[0])
        running.until(lambda: "is not used" in caplog.text)
        assert shown() == first
        shutil.copy(newer[1], files[1])
        running.until(lambda: shown() == second)
        for file in files:
            file.unlink()
        time.sleep(0.2)
        assert shown() == second


def test_a_connection_counts_before_it_is_encrypted(stand_in, authority, monkeypatch):
    monkeypatch.setattr(listening, "MOST_CONNECTIONS", 2)
    with Running(str(stand_in), tls=settings(authority)) as running:
        address = "127.0.0.1", running.tls_port
        silent = [socket.create_connection(address, 5.0) for _ in range(4)]
        for each in silent[:2]:
            with contextlib.suppress(ConnectionError):
                assert each.recv(1) == b""
        # Who comes in order still finds room.
        with encrypted(socket.create_connection(address, 5.0), authority) as connection:
            connection.sendall(b"\r\n\r\n")
            assert connection.recv(2) == b"\r\n"
        for each in silent:
            each.close()


def test_a_target_that_refuses_once_the_connection_stands_is_said_at_once(
    stand_in, authority, caplog
):
    """One that wants a certificate of ours says so after the handshake (TLS 1.3)."""
    caplog.set_level("INFO")
    end = called(authority.certificate("127.0.0.1", name="called"))
    with between(stand_in, called=end, tls=settings(authority)) as (peer, _, far):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*end.files)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.file)
        peer.send(peer.request("INVITE", body=SDP))
        with contextlib.suppress(ssl.SSLError):
            context.wrap_socket(far.listener.accept()[0], server_side=True)
        began = time.monotonic()
        assert peer.final()[0] == 503
        assert time.monotonic() - began < 15.0
    assert "a SIP connection broke" in caplog.text


@pytest.mark.parametrize("uri", ["sips:x@127.0.0.1:9", "sip:x@127.0.0.1:9;transport=tls"])
def test_what_is_to_be_encrypted_goes_nowhere_in_the_clear(uri):
    request = SipRequest(method="BYE", uri=uri)
    assert next_hop(request, "tcp") is None
    assert next_hop(request, "tls") == ("127.0.0.1", 9)
    plain = SipRequest(method="BYE", uri="sip:x@127.0.0.1")
    assert next_hop(plain, "tcp") == ("127.0.0.1", 5060)


@pytest.mark.parametrize(
    ("uri", "more", "expected"),
    [
        ("sips:x@y", "", True),
        ("sip:x@y", "", False),
        ("sip:x@y", "Contact: <sips:me@z>\r\n", True),
        ("sip:x@y", "Contact: <sips:me@z>\r\nRecord-Route: <sip:p;lr>\r\n", False),
        ("sip:x@y", "Contact: <sip:me@z>\r\nRecord-Route: <sips:p;lr>\r\n", True),
    ],
)
def test_who_wants_a_sips_address_of_ours(uri, more, expected):
    text = f"INVITE {uri} SIP/2.0\r\nTo: <sip:x@y>\r\n{more}\r\n"
    assert asks_for_sips(SipMessage.parse(text.encode())) == expected


def test_certificates_that_cannot_be_used_are_one_sentence(authority, tmp_path):
    certificate, key = authority.certificate("a", name="one")
    _, other = authority.certificate("a", name="two")
    text = tmp_path / "text.pem"
    text.write_text("hello")
    locked = authority.certificate("a", name="three", password=b"secret")
    for files in ((certificate, other), (text, key), (certificate, text), locked):
        with pytest.raises(RtsrError, match=r"^The certificate cannot be used: [^\n]+\.$"):
            ServerCertificate(*files)
    with pytest.raises(RtsrError, match="has a password"):
        ServerCertificate(*locked)
    for file in (text, tmp_path / "none.pem"):
        with pytest.raises(RtsrError, match=r"cannot be used: [^\n]+\.$"):
            trusting(file)


@pytest.mark.parametrize(
    ("text", "port", "transport", "person"),
    [
        ("sip:a@b;transport=tls", 5061, "tls", "sip:a@b"),
        ("sip:a@b:5070;transport=TLS", 5070, "tls", "sip:a@b"),
        ("sips:a@b", 5061, "tls", "sips:a@b"),
        ("sips:a@b;transport=tcp", 5061, "tls", "sips:a@b"),
        ("sip:a@b;transport=tcp", 5060, "tcp", "sip:a@b"),
        ("sip:a@b", 5060, "udp", "sip:a@b"),
    ],
)
def test_what_an_address_says_of_its_transport(text, port, transport, person):
    target = Target.parse(text)
    assert (target.port, target.transport, target.person) == (port, transport, person)


@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_a_bridge_that_stops_leaves_no_connection_open(stand_in, authority, caplog, transport):
    with Running(str(stand_in), tls=settings(authority)) as running:
        port = running.port if transport == "tcp" else running.tls_port
        connection = socket.create_connection(("127.0.0.1", port), 5.0)
        if transport == "tls":
            connection = encrypted(connection, authority)
        stream = Stream(connection)
        stream.sendto(b"\r\n\r\n", None)
        assert connection.recv(2) == b"\r\n"
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        assert connection.recv(2) == b""
    connection.close()
    assert [each.message for each in caplog.records if each.levelname == "ERROR"] == []


def test_a_registrar_over_tls_is_told_the_person_and_the_way(authority):
    files = authority.certificate("127.0.0.1", name="registrar")
    end = called(files, "sip:me@127.0.0.1:{};transport=tls")()

    async def register():
        agent = Agent("127.0.0.1", 0, tls=settings(authority))
        await agent.start({})
        port = agent.tls_port
        try:
            await agent.register(end.target, None, 60)
        finally:
            await agent.stop()
        return port

    asked = []

    def serve():
        end.accept()
        for _ in range(2):
            request = end.hear("REGISTER")
            asked.append(request)
            contact = f"Contact: {head(request, 'Contact')}\r\nExpires: 60\r\n"
            end.answer(request, 200, more=contact)

    registrar = threading.Thread(target=serve)
    registrar.start()
    port = asyncio.run(register())
    registrar.join(20)
    end.close()
    assert [head(each, "Expires") for each in asked] == ["60", "0"]
    first = asked[0]
    assert first.startswith("REGISTER sip:127.0.0.1 ")
    assert head(first, "To") == "<sip:me@127.0.0.1>"
    assert head(first, "Contact") == f"<sip:me@127.0.0.1:{port};transport=tls>"


def test_a_port_of_tls_that_is_in_use_is_one_sentence(authority):
    async def start(port):
        own = ServerCertificate(*authority.certificate("127.0.0.1", name="bridge"))
        agent = Agent("127.0.0.1", 0, tls=TlsSettings(own, port))
        await agent.start({})

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RtsrError, match=f"^Cannot listen on 127.0.0.1:{port}: Address already"):
            asyncio.run(start(port))


@pytest.mark.parametrize("believed", ["localhost", "127.0.0.1"])
def test_two_names_of_one_machine_are_told_apart(authority, believed):
    files = authority.certificate(believed, name="machine")

    async def run():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        agent = Agent("127.0.0.1", 0, tls=settings(authority))
        await agent.start({})
        targets = {
            host: Target.parse(f"sip:x@{host}:{port};transport=tls")
            for host in ("localhost", "127.0.0.1")
        }
        # Both are known before either is called, as a registrar and a target are.
        found = {host: await agent.find(target) for host, target in targets.items()}
        transport = agent.by("tls").transport
        other = next(host for host in targets if host != believed)
        await transport.connect(found[believed])
        with pytest.raises(ssl.SSLCertVerificationError):
            await transport.connect(found[other])
        # Nor does what goes to the other take the connection that there is.
        assert transport._lives(found[believed])
        assert not transport._lives(found[other])
        await agent.stop()
        server.close()

    asyncio.run(run())


def test_a_target_whose_contact_is_not_believed_is_reached_by_its_name(stand_in, authority):
    files = authority.certificate("localhost", name="called")
    named = called(files, "sip:x@localhost:{};transport=tls")
    with between(stand_in, called=named, tls=settings(authority)) as (peer, _, far):
        _, _, to = answered(peer, far)
        # Its Contact has the address, for which there is no certificate.
        far._socket.close()
        time.sleep(0.3)
        peer.send(peer.request("BYE", to=to, number=2))
        assert peer.final()[0] == 200
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            far.accept()
            assert not far.hear("BYE")
        far.accept()
        assert far.hear("BYE").startswith("BYE sip:x@127.0.0.1")
