"""Ends of SIP calls for tests: a caller who may be wrong, a callee, and a bridge in between."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

from aiortc.rtp import RtpPacket
from aiosipua import SipUAC, SipUAS, parse_sdp

from rtsr.call.engine import CallEngine
from rtsr.call.sip.agent import Agent, Target
from rtsr.call.sip.bridge import Bridge, BridgeSettings
from rtsr.call.sip.transports import UdpTransport


class Peer:
    """A UDP socket that speaks just enough SIP to be wrong."""

    def __init__(self, port):
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(5.0)
        self.port = self._socket.getsockname()[1]
        self._to = ("127.0.0.1", port)
        self._branch = 0

    def send(self, data):
        self._socket.sendto(data, self._to)

    def hear(self, seconds=5.0):
        """Status and text of the next response; a BYE that is repeated is none."""
        self._socket.settimeout(seconds)
        while not (text := self._socket.recv(65535).decode()).startswith("SIP/2.0"):
            pass
        return int(text.split()[1]), text

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

    def __init__(self, model, calls=2, callee=None, **options):
        self.callee = callee or Callee()
        self._options, self._calls, self._model = options, calls, model

    def __enter__(self):
        ready = threading.Event()

        async def main():
            self._stop = asyncio.Event()
            self.loop = asyncio.get_running_loop()
            port = await self.callee.start()
            options = {"target": Target.parse(f"sip:x@127.0.0.1:{port}"), **self._options}
            engine = CallEngine(self._calls, model=self._model, provider="cpu", deadline_ms=200)
            async with engine:
                self.engine = engine
                agent = Agent("127.0.0.1", 0)
                self.bridge = Bridge(agent, engine, BridgeSettings(**options))
                await self.bridge.start()
                self.port = agent.port
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

    def until(self, condition, seconds=5.0):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.02)


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
