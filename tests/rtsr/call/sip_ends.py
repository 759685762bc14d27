"""Ends of SIP calls for tests: a caller who may be wrong, a callee, and a bridge in between."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time

import pytest

pytest.importorskip("aiosipua", reason='calls need the extra "call", and Python 3.11 or newer')

from aiortc.rtp import RtpPacket
from aiosipua import SipUAC, SipUAS, parse_sdp

from rtsr.call.engine import CallEngine
from rtsr.call.sip.agent import Agent, Target
from rtsr.call.sip.bridge import Bridge, BridgeSettings
from rtsr.call.sip.udp import UdpTransport


class Peer:
    """A UDP socket that speaks just enough SIP to be wrong."""

    is_encrypted = False
    acknowledges = True

    def __init__(self, port):
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(5.0)
        self.port = self._socket.getsockname()[1]
        self._to = ("127.0.0.1", port)
        self._branch = 0

    def send(self, data):
        self._socket.sendto(data, self._to)

    def hear(self, seconds=20.0):
        """Status and text of the next response; a BYE that is repeated is none.

        A refusal of a call is acknowledged, as a telephone would, or it would come again.
        """
        self._socket.settimeout(seconds)
        while not (text := self._socket.recv(65535).decode()).startswith("SIP/2.0"):
            pass
        status = int(text.split()[1])
        if status >= 300 and self.acknowledges and " INVITE\r\n" in text:
            self.send(acknowledgement(text))
        return status, text

    def asked(self, method, seconds=20.0):
        """The next request of that method that the bridge sends."""
        end = time.monotonic() + seconds
        while True:
            self._socket.settimeout(max(0.01, end - time.monotonic()))
            text = self._socket.recv(65535).decode()
            if text.startswith(method):
                return text

    def answer(self, request, status, body="", more=""):
        self.send(response(request, status, self.port, body, more))

    def stay(self):
        """Answer whoever has asked by now whether this end is there."""
        with contextlib.suppress(TimeoutError):
            while True:
                self.answer(self.asked("OPTIONS", 0.01), 200)

    def final(self):
        while True:
            status, text = self.hear()
            if status >= 200:
                return status, text

    def request(self, method, *, call="c1", number=1, body="", more="", branch=None, to=""):
        self._branch += 1
        branch = branch or f"z9hG4bK{self.port}-{self._branch}"
        kind = "Content-Type: application/sdp\r\n" if body else ""
        return (
            f"{method} sip:x@127.0.0.1 SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP 127.0.0.1:{self.port};branch={branch};rport\r\n"
            f"From: <sip:me@127.0.0.1>;tag=a{self.port}\r\nTo: <sip:x@127.0.0.1>{to}\r\n"
            f"Call-ID: {call}-{self.port}\r\nCSeq: {number} {method}\r\nMax-Forwards: 70\r\n"
            f"Contact: <sip:me@127.0.0.1:{self.port}>\r\n{more}{kind}"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        ).encode()

    def close(self):
        self._socket.close()


SDP = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=audio 40000 RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\n"
    "a=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n"
)


class Callee:
    """Takes calls on the event loop; answers with what it likes, and sends and hears packets."""

    def __init__(self, form="opus", refuse=0, silent=False):
        self._form, self._refuse, self._silent = form, refuse, silent
        self.calls, self.ended, self.heard, self.offers = [], [], [], []

    async def start(self):
        transport = UdpTransport(local_addr=("127.0.0.1", 0))
        self.agent = SipUAS(transport, uac=SipUAC(transport))
        self.agent.on_invite = self._take
        self.agent.on_bye = lambda call, request: self.ended.append("bye")
        self.agent.on_cancel = lambda request, address: self.ended.append("cancel")
        await self.agent.start()
        loop = asyncio.get_running_loop()
        callee = self

        class Media(asyncio.DatagramProtocol):
            def datagram_received(self, data, addr):
                callee.heard.append(RtpPacket.parse(data))

        self._media, _ = await loop.create_datagram_endpoint(Media, local_addr=("127.0.0.1", 0))
        self.port = self._media.get_extra_info("sockname")[1]
        return transport.local_addr[1]

    def _take(self, call):
        self.calls.append(call)
        self.offers.append(call.sdp_offer)
        if self._silent:
            return
        if self._refuse:
            call.reject(self._refuse)
            return
        call.ringing()
        audio = call.sdp_offer.audio
        chosen = next(c for c in audio.codecs if c.encoding_name.lower() == self._form.lower())
        call.accept(
            parse_sdp(
                f"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
                f"m=audio {self.port} RTP/AVP {chosen.payload_type}\r\n"
                f"a=rtpmap:{chosen.payload_type} {chosen.encoding_name}/{chosen.clock_rate}"
                f"{'/2' if chosen.channels == 2 else ''}\r\n"
            )
        )

    async def stop(self):
        self._media.close()
        await self.agent.stop()


class Running:
    """A bridge, its engine and a callee on an event loop of their own."""

    def __init__(
        self, model, calls=2, callee=None, host="127.0.0.1", tls=None, channels=1, **options
    ):
        self.callee, self._host, self._channels = callee or Callee(), host, channels
        self._options, self._calls, self._model, self._tls = options, calls, model, tls

    def __enter__(self):
        ready = threading.Event()

        async def main():
            self._stop = asyncio.Event()
            self.loop = asyncio.get_running_loop()
            port = await self.callee.start()
            options = {"target": Target.parse(f"sip:x@127.0.0.1:{port}"), **self._options}
            engine = CallEngine(
                self._calls,
                channels=self._channels,
                model=self._model,
                provider="cpu",
                deadline_ms=200,
            )
            async with engine:
                self.engine = engine
                agent = Agent(self._host, 0, tls=self._tls)
                self.bridge = Bridge(agent, engine, BridgeSettings(**options))
                await self.bridge.start()
                self.port, self.tls_port = agent.port, agent.tls_port
                ready.set()
                await self._stop.wait()
                await self.bridge.stop()
                await self.callee.stop()

        self._thread = threading.Thread(target=lambda: asyncio.run(main()))
        self._thread.start()
        assert ready.wait(60)
        return self

    def __exit__(self, *failure):
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive()

    def until(self, condition, seconds=20.0):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.02)


def ring(peer, called):
    """Have a peer call and the target ring; the target's INVITE, and the tag the peer was told."""
    peer.send(peer.request("INVITE", body=SDP))
    invite = called.hear("INVITE")
    called.answer(invite, 180)
    while (ringing := peer.hear())[0] < 180:
        pass
    return invite, tag_of(ringing[1])


def tag_of(text):
    """The tag of the other end in a message, as requests within the call carry it in To."""
    return ";tag=" + text.split("\r\nTo: ")[1].split("\r\n")[0].partition(";tag=")[2]


def set_up(peer, body=SDP, call="c1"):
    """Call; the final answer's status, text and the tag of the other end."""
    peer.send(peer.request("INVITE", body=body, call=call))
    status, text = peer.final()
    return status, text, tag_of(text)


def hang_up(peer, to, call="c1", number=2):
    peer.send(peer.request("ACK", to=to, call=call))
    peer.send(peer.request("BYE", to=to, number=number, call=call))
    status, _ = peer.final()
    assert status == 200


def response(request, status, port, body="", more="", tag="t", kind="application/sdp"):
    """An answer to a request, given as text, of an end at a port."""
    lines = [line for line in request.split("\r\n\r\n")[0].split("\r\n")[1:]
             if line.split(":")[0] in ("Via", "From", "To", "Call-ID", "CSeq")]  # fmt: skip
    lines = [f"{line};tag={tag}" if line.startswith("To:") and ";tag=" not in line else line
             for line in lines]  # fmt: skip
    kind = f"Content-Type: {kind}\r\n" if body else ""
    text = "\r\n".join(lines)
    return (
        f"SIP/2.0 {status} Whatever\r\n{text}\r\nContact: <sip:x@127.0.0.1:{port}>\r\n"
        f"{more}{kind}Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def acknowledgement(refusal):
    """The ACK of an INVITE's refusal, given as text (RFC 3261, 17.1.1.3)."""
    lines = [line for line in refusal.split("\r\n\r\n")[0].split("\r\n")[1:]
             if line.split(":")[0] in ("Via", "From", "To", "Call-ID", "CSeq")]  # fmt: skip
    text = "\r\n".join(lines).replace(" INVITE", " ACK")
    return f"ACK sip:x@127.0.0.1 SIP/2.0\r\n{text}\r\nContent-Length: 0\r\n\r\n".encode()


class CalledEnd:
    """The called end as a bare socket: hears requests, answers what a test likes."""

    def __init__(self):
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.target = Target.parse(f"sip:x@127.0.0.1:{self.port}")

    def accept(self):
        """Over UDP there is no connection to be taken."""

    def hear(self, method, seconds=20.0):
        """The next message that begins with a method, or with "SIP"; others are passed over."""
        end = time.monotonic() + seconds
        while True:
            self._socket.settimeout(max(0.01, end - time.monotonic()))
            data, self._to = self._socket.recvfrom(65535)
            text = data.decode()
            if text.startswith(method):
                return text

    def heard_nothing_but(self, method, seconds):
        """Whether nothing else comes for so long."""
        with contextlib.suppress(TimeoutError):
            while True:
                if not self.hear("", seconds).startswith(method):
                    return False
        return True

    def answer(self, request, status, body="", more="", tag="t", kind="application/sdp"):
        message = response(request, status, self.port, body, more, tag, kind)
        self._socket.sendto(message, self._to)

    def stay(self):
        """Answer whoever has asked by now whether this end is there."""
        with contextlib.suppress(TimeoutError):
            while True:
                self.answer(self.hear("OPTIONS", 0.01), 200)

    def request(self, invite, method, number, body="", more=""):
        """Send a request within the call that an INVITE has opened."""
        header = dict(line.split(": ", 1) for line in invite.split("\r\n\r\n")[0].split("\r\n")[1:])
        kind = "Content-Type: application/sdp\r\n" if body else ""
        message = (
            f"{method} sip:rtsr@127.0.0.1 SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP 127.0.0.1:{self.port};branch=z9hG4bK{self.port}{number}\r\n"
            f"From: {header['To']};tag=t\r\nTo: {header['From']}\r\n"
            f"Call-ID: {header['Call-ID']}\r\nCSeq: {number} {method}\r\nMax-Forwards: 70\r\n"
            f"Contact: <sip:x@127.0.0.1:{self.port}>\r\n{more}{kind}"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        )
        self._socket.sendto(message.encode(), self._to)

    def close(self):
        self._socket.close()


OPUS_SDP = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=audio 40002 RTP/AVP 96 101\r\na=rtpmap:96 opus/48000/2\r\n"
    "a=rtpmap:101 telephone-event/48000\r\n"
)


@contextlib.contextmanager
def between(stand_in, caller=Peer, called=CalledEnd, **options):
    """A caller, a bridge and a called end, each of which a test steers."""
    called = called()
    with Running(str(stand_in), target=called.target, **options) as running:
        peer = caller(running.tls_port if caller.is_encrypted else running.port)
        yield peer, running, called
        peer.close()
        running.until(lambda: running.bridge.calls == 0)
        assert running.engine.batch.free == running.engine.capacity * running.engine.channels
    called.close()


def answered(peer, called, body=SDP, answer=OPUS_SDP, asked="", said=""):
    """Set a call up; the called end's INVITE, the caller's 200 and the tag of the bridge.

    ``asked`` and ``said`` are more headers of the INVITE and of the called end's answer.
    """
    peer.send(peer.request("INVITE", body=body, more=asked))
    called.accept()
    invite = called.hear("INVITE")
    called.answer(invite, 200, answer, said)
    called.hear("ACK")
    status, text = peer.final()
    assert status == 200
    to = tag_of(text)
    peer.send(peer.request("ACK", to=to))
    return invite, text, to


class Stream:
    """A TCP connection that gives one message at a time, as a datagram socket does."""

    def __init__(self, connection):
        self._connection, self._rest = connection, b""

    def settimeout(self, seconds):
        self._connection.settimeout(seconds)

    def recv(self, _):
        while b"\r\n\r\n" not in self._rest or len(self._rest) < self._length():
            data = self._connection.recv(65535)
            if not data:
                raise ConnectionResetError("the other end has closed the connection")
            self._rest += data
        length = self._length()
        message, self._rest = self._rest[:length], self._rest[length:]
        return message

    def _length(self):
        head, _, _ = self._rest.partition(b"\r\n\r\n")
        return len(head) + 4 + int(head.lower().partition(b"content-length:")[2].split()[0])

    def recvfrom(self, size):
        return self.recv(size), None

    def sendto(self, data, _):
        self._connection.sendall(data)

    def close(self):
        self._connection.close()


def _over_tcp(data):
    return data.replace(b"/UDP", b"/TCP").replace(b";rport", b"")


class TcpPeer(Peer):
    """A caller over TCP; its connection has another port than its Contact, where it listens."""

    def __init__(self, port):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(5.0)
        self.port = self.listener.getsockname()[1]
        self._to = ("127.0.0.1", port)
        self._branch = 0
        self.connect()

    def connect(self):
        """Open another connection, and use it from now on."""
        self._socket = Stream(socket.create_connection(self._to, 5.0))

    def accept(self):
        """Use the next connection that the bridge opens."""
        self._socket = Stream(self.listener.accept()[0])

    def drop(self):
        """Close the connection."""
        self._socket.close()

    def send(self, data):
        super().send(_over_tcp(data))

    def close(self):
        self._socket.close()
        self.listener.close()


class TcpCalledEnd(CalledEnd):
    """The called end over TCP; it hears on the connection that it has opened or taken last."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(5.0)
        self.port = self.listener.getsockname()[1]
        self.target = Target.parse(f"sip:x@127.0.0.1:{self.port};transport=tcp")

    def accept(self):
        """Use the next connection that the bridge opens."""
        self._socket = Stream(self.listener.accept()[0])

    def connect(self, port):
        """Open another connection, and use it from now on."""
        self._socket = Stream(socket.create_connection(("127.0.0.1", port), 5.0))

    def drop(self):
        """Close the connection."""
        self._socket.close()

    def request(self, invite, method, number, body="", more=""):
        send, self._to = self._socket.sendto, None
        self._socket.sendto = lambda data, to: send(_over_tcp(data), to)
        try:
            super().request(invite, method, number, body)
        finally:
            self._socket.sendto = send

    def close(self):
        self._socket.close()
        self.listener.close()
