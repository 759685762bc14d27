"""Calls from real WebRTC clients, and everything that should not get in."""

from __future__ import annotations

import asyncio
import fractions
import inspect
import json
import re
import shutil
import signal
import socket
import struct
import threading
import time
from types import SimpleNamespace

import av
import numpy as np
import pytest
import websockets
from desk import Desk, midi_server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from network import TICK, packets, sent, speech
from server import BEARER, TOKEN, running_server

pytest.importorskip("aiortc")

from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCDtlsTransport,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCRtpSender,
    RTCSessionDescription,
    VideoStreamTrack,
)
from aiortc.jitterbuffer import JitterBuffer
from aiortc.mediastreams import MediaStreamError

from rtsr.call import engine as engine_module
from rtsr.call.call_stream import CallStream
from rtsr.call.decoders import open_decoder
from rtsr.call.engine import CallEngine
from rtsr.call.formats import OPUS, PCMU, Packet
from rtsr.call.monitor import Monitor
from rtsr.call.path import MediaPath
from rtsr.call.receiver import Receiver
from rtsr.call.sender import Sender
from rtsr.call.web import UpsampledTrack
from rtsr.call.web import peer as peer_module
from rtsr.call.web.received_packets import take_packets
from rtsr.call.web.server import CallServer
from rtsr.call.web.view import CallSubject, latency_parts, nothing_added
from rtsr.cli.app import app
from rtsr.colour.colour import Colour
from rtsr.errors import ArgumentError
from rtsr.page.access import Access
from rtsr.runtime.models import find_model


@pytest.fixture(scope="module")
def server():
    with running_server("--calls", "1") as server:
        yield server


class Voice(MediaStreamTrack):
    """Sound in packets of PCMU, one every 20 ms."""

    kind = "audio"

    def __init__(self, sound):
        super().__init__()
        self._packets = packets(sound)
        self._index = 0

    async def recv(self):
        if self._index == 0:
            self._start = asyncio.get_running_loop().time()
        wait = self._start + 0.02 * self._index - asyncio.get_running_loop().time()
        await asyncio.sleep(max(0.0, wait))
        payload = self._packets[self._index % len(self._packets)].payload
        packet = av.Packet(payload)
        packet.pts, packet.time_base = 160 * self._index, fractions.Fraction(1, 8000)
        self._index += 1
        return packet


class Client:
    """A caller with aiortc: PCMU out on one transceiver, Opus in on another."""

    def __init__(self, seconds=3.0, hears="opus", sound=None):
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.heard = []
        voice = Voice(speech(8000, seconds) if sound is None else sound)
        self._speaks = self.peer.addTransceiver(voice, direction="sendonly")
        self._hears = self.peer.addTransceiver("audio", direction="recvonly")
        for transceiver, name in ((self._speaks, "PCMU"), (self._hears, hears)):
            codecs = RTCRtpReceiver.getCapabilities("audio").codecs
            transceiver.setCodecPreferences([c for c in codecs if c.name == name])
        take_packets(self._hears.receiver, self.heard.append)

    async def offer(self):
        await self.peer.setLocalDescription(await self.peer.createOffer())
        return {"type": "offer", "sdp": self.peer.localDescription.sdp}

    async def call(self, server, **more):
        offer = {**await self.offer(), **more}
        status, _, body = await asyncio.to_thread(server.ask, "POST", "/calls", offer)
        answer = json.loads(body)
        assert status == 200, answer
        await self.peer.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))
        return answer["call"]

    async def close(self):
        await self.peer.close()

    def sound(self):
        """What was heard, ``(samples,)``, decoded in the order of sending."""
        ordered = sorted(self.heard, key=lambda p: (p.timestamp - self.heard[0].timestamp) % 2**32)
        decoder = open_decoder(OPUS)
        return np.concatenate([decoder.decode(packet.payload)[:, 0] for packet in ordered])


def band_db(sound, low, high, rate=48000):
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)))) ** 2
    frequency = np.fft.rfftfreq(len(sound), 1 / rate)
    return 10 * np.log10(spectrum[(frequency >= low) & (frequency < high)].sum() + 1e-12)


def test_aiortc_still_has_what_is_replaced_in_it():
    import aiortc

    assert aiortc.__version__ == "1.16.0"
    peer = _new_peer()
    receiver = peer.getTransceivers()[0].receiver
    assert isinstance(receiver._RTCRtpReceiver__jitter_buffer, JitterBuffer)
    assert list(inspect.signature(JitterBuffer.add).parameters) == ["self", "packet"]
    code = inspect.getsource(RTCRtpReceiver._handle_rtp_packet)
    assert "pli_flag, encoded_frame = self.__jitter_buffer.add(packet)" in code
    assert "if encoded_frame is not None" in code
    assert list(inspect.signature(RTCRtpSender._handle_rtcp_packet).parameters) == [
        "self",
        "packet",
    ]
    code = inspect.getsource(RTCDtlsTransport._handle_rtcp_data)
    assert "await recipient._handle_rtcp_packet(packet)" in code
    # Telephone events are added to what one transceiver has agreed to, behind its codecs.
    code = inspect.getsource(RTCPeerConnection.setRemoteDescription)
    assert "transceiver._codecs = common" in code
    code = inspect.getsource(RTCPeerConnection._RTCPeerConnection__remoteRtp)
    assert "codecs=transceiver._codecs," in code
    code = inspect.getsource(RTCRtpSender.send)
    assert "self._run_rtp(parameters.codecs[0])" in code


def test_telephone_events_of_an_offer_are_accepted_beside_its_codecs(server):
    async def run():
        client = Client()
        offer = await client.offer()
        speaks, _ = re.split(r"(?=m=audio)", offer["sdp"])[1:]
        # As of Chromium, which offers everything; and an event with a clock that nothing here has.
        events = "a=rtpmap:110 telephone-event/48000\r\na=rtpmap:126 telephone-event/8000\r\n"
        events += "a=rtpmap:113 telephone-event/16000\r\na=rtpmap:112 opus/48000/2\r\n"
        with_events = speaks.replace("SAVPF 0", "SAVPF 0 112 110 113 126").replace(
            "a=rtpmap:0 ", events + "a=rtpmap:0 "
        )
        assert with_events != speaks
        answers = []
        for kept in (with_events, with_events.replace("a=rtpmap:112 opus/48000/2\r\n", "")):
            sdp = offer["sdp"].replace(speaks, kept)
            status, _, body = await asyncio.to_thread(
                server.ask, "POST", "/calls", {"type": "offer", "sdp": sdp}
            )
            answer = json.loads(body)
            assert status == 200, answer
            answers.append(re.split(r"(?=m=audio)", answer["sdp"])[1:])
            await asyncio.to_thread(server.ask, "DELETE", f"/calls/{answer['call']}")
        await client.close()
        return answers

    both, without_opus = asyncio.run(run())
    assert re.findall(r"a=rtpmap:(\d+ \S+)", both[0])[2:] == [
        "110 telephone-event/48000",
        "126 telephone-event/8000",
    ]
    assert re.findall(r"a=rtpmap:(\d+ \S+)", without_opus[0]) == [
        "0 PCMU/8000",
        "126 telephone-event/8000",
    ]
    # What only goes to the browser has none, as none are sent there.
    assert "telephone-event" not in both[1] + without_opus[1]


def _new_peer():
    async def make():
        peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        peer.addTransceiver("audio")
        return peer

    return asyncio.run(make())


@pytest.mark.clocked
def test_pcmu_goes_in_and_full_band_opus_comes_out(server):
    reports = [f"rtsr_{name}_seconds_count" for name in ("far_jitter", "round_trip")]
    before = [server.metric(name) for name in reports]

    async def run():
        client = Client()
        name = await client.call(server)
        try:
            await asyncio.sleep(4.0)
            assert await asyncio.to_thread(server.metric, "rtsr_calls") == 1.0
        finally:
            status, *_ = await asyncio.to_thread(server.ask, "DELETE", f"/calls/{name}")
            await client.close()
        assert status == 204
        assert {packet.payload_type for packet in client.heard} <= set(range(96, 128))
        return client.sound()

    got = asyncio.run(run())
    assert len(got) > 2.5 * 48000
    assert band_db(got, 4500, 8000) > band_db(got, 300, 3000) - 40
    assert server.metric("rtsr_calls") == 0.0
    assert server.metric("rtsr_packets_received_total") > 100
    # What the client has reported of our sound.
    assert all(server.metric(name) > was for name, was in zip(reports, before, strict=True))
    assert server.metric("rtsr_round_trip_seconds_sum") < 10.0


def _hidden(sdp):
    """The offer of a browser that gives names in place of its addresses."""
    return re.sub(r"(a=candidate:\S+ \d udp \d+) \S+ ", r"\1 2f0c1c4e-0b27.local ", sdp)


def _elsewhere(sdp):
    """The offer of a browser none of whose addresses, of the other IP version, can be tried."""
    return re.sub(r"(a=candidate:\S+ \d udp \d+) \S+ ", r"\1 2001:db8::7 ", sdp)


def _unsaid(sdp):
    """The offer of a browser that says of no address."""
    return re.sub(r"a=candidate:.*\r\n", "", sdp)


@pytest.mark.parametrize("seen", [_hidden, _elsewhere, _unsaid])
def test_a_browser_whose_addresses_cannot_be_reached_reaches_us(server, seen):
    async def call():
        client = Client()
        try:
            offer = await client.offer()
            assert "a=end-of-candidates" in offer["sdp"]
            offer["sdp"] = seen(offer["sdp"])
            status, _, body = await asyncio.to_thread(server.ask, "POST", "/calls", offer)
            answer = json.loads(body)
            assert status == 200, answer
            assert "a=candidate:" in answer["sdp"]
            await client.peer.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))
            end = time.monotonic() + 15.0
            while len(client.heard) < 10:
                assert time.monotonic() < end, "nothing is heard"
                await asyncio.sleep(0.05)
            await asyncio.to_thread(server.ask, "DELETE", f"/calls/{answer['call']}")
        finally:
            await client.close()

    asyncio.run(call())


def test_a_full_server_says_so_and_a_call_that_ends_makes_room(server):
    async def run():
        first, second = Client(), Client()
        name = await first.call(server)
        status, headers, body = await asyncio.to_thread(
            server.ask, "POST", "/calls", await second.offer()
        )
        assert status == 503
        assert "Retry-After" in headers or "retry-after" in headers
        assert json.loads(body) == {"error": "All 1 lines are busy; try again later."}
        await asyncio.to_thread(server.ask, "DELETE", f"/calls/{name}")
        name = await second.call(server)
        await asyncio.to_thread(server.ask, "DELETE", f"/calls/{name}")
        assert (await asyncio.to_thread(server.ask, "DELETE", f"/calls/{name}"))[0] == 404
        await first.close()
        await second.close()

    asyncio.run(run())


def test_a_client_that_hangs_up_by_itself_makes_room(server):
    async def run():
        client = Client()
        await client.call(server)
        await asyncio.sleep(1.0)
        await client.close()
        for _ in range(100):
            calls = await asyncio.to_thread(server.metric, "rtsr_calls")
            if calls == 0.0:
                break
            await asyncio.sleep(0.1)
        assert calls == 0.0

    asyncio.run(run())


@pytest.mark.clocked
def test_a_client_that_vanishes_without_a_word_makes_room(stand_in, monkeypatch):
    class Gone(Voice):
        async def recv(self):
            if self._index == 50:
                await asyncio.Event().wait()
            return await super().recv()

    async def run():
        async with CallEngine(1, model=str(stand_in), provider="cpu", deadline_ms=200) as engine:
            client = Client()
            client._speaks.sender.replaceTrack(Gone(speech(8000, 1.0)))
            sdp = (await client.offer())["sdp"]
            ended = []
            call, answer = await peer_module.WebCall.answer(engine, "a", sdp, ended.append)
            await client.peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
            async with asyncio.timeout(20):
                while not client.heard:
                    await asyncio.sleep(0.05)
            assert engine.calls == 1
            monkeypatch.setattr(engine_module, "SILENT_SECONDS", 0.5)
            async with asyncio.timeout(10):
                while engine.calls:
                    await asyncio.sleep(0.05)
            assert ended == [call]
            assert engine.batch.free == 1
            await client.close()

    asyncio.run(run())


@pytest.mark.clocked
@pytest.mark.parametrize("asks", [True, False], ids=["asks", "does not ask"])
def test_a_caller_who_asks_for_dtx_is_not_sent_silence(server, asks):
    def unsent():
        return server.metric("rtsr_dtx_seconds_total")

    async def run():
        client = Client(sound=np.zeros(16000, np.float32))
        offer = await client.offer()
        assert "usedtx" not in offer["sdp"]
        if asks:
            found, asked = r"(a=rtpmap:(\d+) opus.*)", r"\1\na=fmtp:\2 minptime=10; usedtx=1"
            offer["sdp"] = re.sub(found, asked, offer["sdp"])
        name = await client.call(server, **offer)
        while len(client.heard) < 13:
            await asyncio.sleep(0.05)
        await asyncio.to_thread(server.ask, "DELETE", f"/calls/{name}")
        await client.close()
        return client.heard

    before = unsent()
    payloads = [packet.payload for packet in asyncio.run(run())]
    assert any(len(payload) == 1 for payload in payloads) is asks
    assert (unsent() > before) is asks


@pytest.mark.clocked
def test_nothing_is_sent_that_nobody_would_read(server):
    """A camera's picture and a second microphone would be decoded, and kept."""

    async def run():
        client = Client()
        client.peer.addTrack(VideoStreamTrack())
        client.peer.addTransceiver(Voice(speech(8000, 1.0)), direction="sendonly")
        name = await client.call(server)
        await asyncio.to_thread(server.ask, "DELETE", f"/calls/{name}")
        agreed = [each.currentDirection for each in client.peer.getTransceivers()]
        await client.close()
        return agreed

    # As the client has it: what is not read has no direction.
    assert asyncio.run(run()) == ["sendonly", "recvonly", "inactive", "inactive"]


@pytest.mark.clocked
def test_a_browser_is_sent_no_more_bits_than_it_asks_for(server):
    async def run():
        client = Client()
        offer = await client.offer()
        lines = offer["sdp"].split("\r\n")
        at = next(i for i, line in enumerate(lines) if "opus/48000" in line)
        payload_type = lines[at].split(":")[1].split()[0]
        lines.insert(at + 1, f"a=fmtp:{payload_type} maxaveragebitrate=16000")
        offer["sdp"] = "\r\n".join(lines)
        _, _, body = await asyncio.to_thread(server.ask, "POST", "/calls", offer)
        answer = json.loads(body)
        description = RTCSessionDescription(answer["sdp"], "answer")
        await client.peer.setRemoteDescription(description)
        while len(client.heard) < 75:
            await asyncio.sleep(0.05)
        await asyncio.to_thread(server.ask, "DELETE", f"/calls/{answer['call']}")
        await client.close()
        return client.heard

    heard = asyncio.run(run())
    rate = sum(8 * len(packet.payload) for packet in heard) / (0.02 * len(heard))
    # Of speech, which takes more than its share at times.
    assert rate < 24_000


def _wishes(sdp):
    """Of Opus, ``a=fmtp`` of each section of a description that has it."""
    numbers = re.findall(r"a=rtpmap:(\d+) opus", sdp)
    return [re.findall(rf"a=fmtp:{number} (.*)", sdp) for number in dict.fromkeys(numbers)]


@pytest.mark.parametrize("channels", [1, 2])
def test_who_hears_two_channels_is_told(stand_in, channels):
    async def run(server):
        client = Client()
        client._speaks.setCodecPreferences([])
        name = await client.call(server)
        while len(client.heard) < 5:
            await asyncio.sleep(0.05)
        await asyncio.to_thread(server.ask, "DELETE", f"/calls/{name}")
        described = client.peer.remoteDescription.sdp
        await client.close()
        return described, client.heard

    options = ("--channels", str(channels), "--calls", "1", "--model", str(stand_in))
    with running_server(*options) as server:
        described, heard = asyncio.run(run(server))
    (wishes,) = _wishes(described)
    # One for each of the two media.
    assert [wish.strip() for wish in wishes] == 2 * (channels - 1) * ["stereo=1;sprop-stereo=1"]
    # RFC 6716, 3.1: a bit of the first byte says that there are two channels.
    assert {bool(packet.payload[0] & 4) for packet in heard} == {channels == 2}


def test_a_page_counts_each_packet_in_one_line_and_says_how_long_packets_are(batch):
    path = MediaPath(Receiver({0: PCMU}), CallStream(batch, 8000), None, print)
    call = SimpleNamespace(
        line=SimpleNamespace(path=path), seconds=1.0, sending=OPUS, has_ended=False, colour=None
    )
    subject = CallSubject(call, SimpleNamespace(batch=batch, calls=1, capacity=2))
    assert subject.now()["latency_ms"]["packet"] == 0.0
    payloads = [each.payload for each in packets(speech(8000, 0.2))]
    for index in range(3):
        payload = b"".join(payloads[3 * index : 3 * index + 3])
        path.receive(Packet(0, index, 480 * index, payload, ssrc=7), 100.0 + 0.06 * index)
    path.receiver.counts.received, path.receiver.counts.lost = 980, 146
    path.receiver.counts.late = 126
    now = subject.now()
    path.close()
    assert now["latency_ms"]["packet"] == 60.0
    assert (now["lost"], now["late"]) == (20, 126)
    assert now["lost_share"] == 0.02


def test_a_page_shows_the_spectrum_before_and_after(batch):
    path = MediaPath(Receiver({0: PCMU}), CallStream(batch), None, print)
    path.stream.monitor = Monitor(1)
    call = SimpleNamespace(
        line=SimpleNamespace(path=path), seconds=1.0, sending=OPUS, has_ended=False, colour=None
    )
    subject = CallSubject(call, SimpleNamespace(batch=batch, calls=1, capacity=2))
    noise = 0.1 * np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    for now, packet in sent(packets(noise)):
        path.receive(packet, now)
        while batch.step():
            pass
        path.deliver(now)
    shown, hz = subject.now(), np.array(subject.about()["bands_hz"])
    path.close()
    before, after = np.array(shown["before_db"]), np.array(shown["after_db"])
    new = (hz > 5000) & (hz < 12000)
    assert (after[new] > before[new] + 20.0).all()
    old = (hz > 300) & (hz < 3400)
    assert before[old] == pytest.approx(after[old], abs=0.5)
    assert before[old].min() > -60.0


def test_a_page_may_load_and_be_framed_by_nothing_foreign(server):
    for path in ("/", "/page/call.js", "/metrics"):
        status, headers, _ = server.ask("GET", path)
        assert status == 200
        policy = dict(
            rule.strip().split(" ", 1) for rule in headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
        assert policy["script-src"] == policy["connect-src"] == "'self'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("half", [False, True], ids=["whole packets", "half of one"])
@pytest.mark.parametrize("computing", [0.0, 0.006])
@pytest.mark.parametrize("jitter", [0.0, 0.03])
def test_the_parts_of_the_delay_add_up_to_what_a_click_takes(batch, jitter, computing, half):
    class Kept(Sender):
        sound = ()

        def push(self, sound):
            self.sound = np.append(self.sound, sound[:, 0])
            return super().push(sound)

    # Noise, so that there is no pause in which what waits would be cut out.
    sound = 0.05 * np.random.default_rng(0).standard_normal(6 * 8000).astype(np.float32)
    click = 4 * 8000
    sound[click] = 0.95
    stream = packets(np.clip(sound, -0.95, 0.95))
    arrivals = sent(stream, start=100.0, jitter=lambda chance: jitter * chance.random())
    if half:
        first = stream[0]
        arrivals.insert(0, (99.99, Packet(
            0, first.sequence_number - 1, first.timestamp - 80, first.payload[:80], ssrc=7
        )))  # fmt: skip
    left, sender = [], Kept(OPUS, 96)
    path = MediaPath(
        Receiver({0: PCMU}),
        CallStream(batch),
        sender,
        lambda packet: left.append((now, latency_parts(path))),
    )
    now, steps_at = arrivals[0][0], None
    while arrivals:
        while arrivals and arrivals[0][0] <= now:
            path.receive(arrivals.pop(0)[1], now)
        path.advance(now)
        if path.stream.is_due and steps_at is None:
            steps_at = now + computing - 1e-6
        if steps_at is not None and now >= steps_at:
            steps_at = None
            while batch.step():
                pass
            path.deliver(now)
        now += TICK
    path.close()
    index = int(np.argmax(np.abs(sender.sound)))
    sent_at, parts = left[index // 960]
    # The first sample of a packet was spoken when the one before it was sent.
    spoken = 100.0 - 0.02 + click / 8000
    took_ms = 1000.0 * (sent_at + index % 960 / 48000 - spoken)
    # The clock is looked at every millisecond.
    assert parts["total"] == pytest.approx(took_ms, abs=1.5)
    assert parts["computing"] == pytest.approx(1000.0 * computing, abs=0.1)
    assert (parts["jitter buffer"] > 20.0) is bool(jitter)


@pytest.mark.parametrize("given", ["none", "auto", "file"])
def test_a_page_shows_the_callers_colour(stand_in, tmp_path, given):
    facts = find_model(stand_in).metadata
    known = Colour(facts.name, facts.weights_sha256, 12.0, ((3.0,) * 24,) * 4)
    known.save(tmp_path / "me.json")

    async def run(server):
        client = Client()
        name = await client.call(server)
        while len(client.heard) < 20:
            await asyncio.sleep(0.05)
        address = f"ws://{server.netloc}/calls/{name}/view"
        async with websockets.connect(address, additional_headers=BEARER) as view:
            while True:
                message = json.loads(await asyncio.wait_for(view.recv(), 20))
                if message["kind"] == "now":
                    break
        await asyncio.to_thread(server.ask, "DELETE", f"/calls/{name}")
        await client.close()
        return message["colour"]

    colour = {
        "none": (),
        "auto": ("--colour", "auto"),
        "file": ("--colour", str(tmp_path / "me.json")),
    }
    with running_server("--calls", "1", "--model", str(stand_in), *colour[given]) as server:
        shown = asyncio.run(run(server))
    nothing = {"text": "nothing learnt yet", "gains_db": [], "bands_hz": []}
    if given == "file":
        assert shown["text"] == "12.0 s learnt, 100 % used"
        assert shown["gains_db"] == [3.0] * 24
        assert (shown["bands_hz"][0], shown["bands_hz"][-1]) == (4000, 24000)
    else:
        assert shown == (nothing if given == "auto" else None)


@pytest.mark.clocked
def test_midi_knobs_of_the_machine_turn_the_call_that_a_page_shows(tmp_path):
    pytest.importorskip("rtmidi", reason="python-rtmidi is not installed")
    if shutil.which("jackd") is None:
        pytest.skip("jackd is not installed (Debian: jackd2)")
    midi_map = tmp_path / "map.toml"

    async def until(view, condition):
        while True:
            message = json.loads(await asyncio.wait_for(view.recv(), 20))
            if condition(message):
                return message

    async def run(server, desk):
        client = Client()
        name = await client.call(server)
        address = f"ws://{server.netloc}/calls/{name}/view"
        for learnt in (False, True):
            # The page is opened anew, and the map is still known.
            async with websockets.connect(address, additional_headers=BEARER) as view:
                about = await until(view, lambda m: m["kind"] == "about")
                names = [control["name"] for control in about["controls"]]
                assert about["learns"]
                assert "seed" in names
                assert "model" not in names
                if not learnt:
                    await view.send('{"learn": "model"}')
                    await until(view, lambda m: "no control 'model' here" in m.get("error", ""))
                    await view.send('{"learn": "wet"}')
                    await until(view, lambda m: m.get("learning") == "wet")
                    desk.send(0xB2, 30, 64)
                    await until(view, lambda m: m.get("kind") == "learnt")
                await until(view, lambda m: m.get("midi") == {"wet": "CC 30"})
                desk.send(0xB2, 30, 0 if learnt else 127)
                wanted = {"wet": 0.0 if learnt else 1.0}
                await until(view, lambda m, w=wanted: w.items() <= m.get("controls", {}).items())
                await view.send('{"set": {"wet": 0.5, "seed": 7}}')
                await until(view, lambda m: m.get("controls", {}).get("seed") == 7.0)
        await asyncio.to_thread(server.ask, "DELETE", f"/calls/{name}")
        await client.close()

    with midi_server():
        desk = Desk("desk")
        with running_server("--midi", "desk", "--midi-map", str(midi_map)) as server:
            asyncio.run(run(server, desk))
        desk.put_away()
    assert 'name = "wet"' in midi_map.read_text()


def test_a_page_says_why_no_new_band_is_added(monkeypatch):
    path = MediaPath(Receiver({0: PCMU}), CallStream(None), None, lambda packet: None)
    assert nothing_added(path) == "Nothing is added: nothing has come in yet."
    path.receive(packets(speech(seconds=0.02))[0], 1.0)
    path.advance(1.0)
    assert nothing_added(path) is None
    monkeypatch.setattr(CallStream, "cutoff_hz", 24000.0)
    assert nothing_added(path) == "Nothing is added: what comes in leaves nothing above it."
    for name, value, sentence in (
        ("wet", 0.0, "Nothing is added: Amount is 0 %."),
        ("bypass", 1.0, "Nothing is added: bypass is on."),
    ):
        path.stream.controls.set(name, value)
        assert nothing_added(path) == sentence
    path.stream.left_out = True
    assert nothing_added(path) == "Nothing is added: the machine did not keep up."


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {}, 401),
        ("GET", "/metrics", {}, 401),
        ("GET", "/metrics", {"Authorization": "Bearer wrong"}, 401),
        ("GET", "/metrics", {"Cookie": "wrong"}, 401),
        ("GET", "/metrics", {"Cookie": TOKEN}, 200),
        ("POST", "/calls", {}, 401),
        ("POST", "/calls", {"Cookie": TOKEN}, 403),
        ("POST", "/calls", {"Cookie": TOKEN, "Origin": "http://evil.example"}, 403),
        ("POST", "/calls", {"Cookie": TOKEN, "Origin": "null"}, 403),
        ("GET", "/", {**BEARER, "Host": "evil.example"}, 421),
        ("POST", "/calls", {**BEARER, "Host": "evil.example"}, 421),
        ("GET", "/", BEARER, 200),
        ("GET", "/page/call.js", {}, 200),
        ("GET", "/page/../server.py", {}, 404),
        ("GET", "/?token=wrong", {}, 401),
    ],
)
def test_who_gets_in(server, method, path, headers, status):
    if "Cookie" in headers:
        headers = {**headers, "Cookie": f"rtsr_token_{server.port}={headers['Cookie']}"}
    got, _, body = server.ask(method, path, headers=headers)
    assert got == status
    assert b"Traceback" not in body


def test_the_token_in_the_address_becomes_a_cookie(server):
    status, headers, _ = server.ask("GET", f"/?token={TOKEN}", headers={})
    assert status == 303
    cookie = {name.lower(): value for name, value in headers.items()}["set-cookie"]
    assert cookie.startswith(f"rtsr_token_{server.port}={TOKEN}")
    assert "HttpOnly" in cookie
    # A strict one would not be there after the redirection from a link on another site.
    assert "samesite=lax" in cookie.lower()


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "one JSON object"),
        (b"[]", "one JSON object"),
        (b"[" * 50_000, "one JSON object"),
        (b"\xff\xfe", "one JSON object"),
        ({"type": "offer"}, "begins with an offer"),
        ({"type": "answer", "sdp": ""}, "begins with an offer"),
        ({"type": "offer", "sdp": ""}, "no sound"),
        ({"type": "offer", "sdp": "v=0\r\nm=audio x\r\n"}, "no SDP"),
        ({"type": "offer", "sdp": "v=0\r\n" + "m=audio 9 x 0\r\n" * 17}, "at most 16 media"),
        ({"type": "offer", "sdp": "v=0", "bitrate": "much"}, "whole number of bits"),
        ({"type": "offer", "sdp": "v=0", "bitrate": 5}, "6000 to 510000"),
        (b"x" * 200_000, "at most"),
    ],
)
def test_a_request_that_is_none_gets_one_sentence(server, body, sentence):
    status, _, answer = server.ask("POST", "/calls", body)
    assert status == 400
    assert sentence in json.loads(answer)["error"]
    assert server.metric("rtsr_calls") == 0.0


async def _offer():
    client = Client()
    try:
        return (await client.offer())["sdp"]
    finally:
        await client.close()


OFFER = asyncio.run(_offer())


@st.composite
def spoilt_offers(draw):
    lines = OFFER.split("\r\n")
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        how = draw(st.sampled_from(["drop", "double", "cut", "swap", "noise", "number"]))
        if how == "drop":
            del lines[at]
        elif how == "double":
            lines.insert(at, lines[at])
        elif how == "cut":
            lines[at] = lines[at][: draw(st.integers(0, 30))]
        elif how == "swap":
            other = draw(st.integers(0, len(lines) - 1))
            lines[at], lines[other] = lines[other], lines[at]
        elif how == "noise":
            lines[at] = draw(st.text(max_size=40))
        else:
            lines[at] = "".join("9" * 12 if c.isdigit() else c for c in lines[at])
        lines = lines or [""]
    return "\r\n".join(lines)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(spoilt_offers())
def test_spoilt_offers_are_answered_or_refused_and_take_no_place(server, sdp):
    status, _, body = server.ask("POST", "/calls", {"type": "offer", "sdp": sdp})
    answer = json.loads(body)
    if status == 200:
        server.ask("DELETE", f"/calls/{answer['call']}")
    else:
        assert status == 400, (status, answer)
        assert answer["error"].endswith(".")
    assert server.metric("rtsr_calls") == 0.0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_hangs_up_and_ends_in_order(number, stand_in):
    async def run():
        # That it ends with 0 is looked at there, and for SIGTERM by every other test.
        with running_server("--model", str(stand_in), number=number) as server:
            client = Client()
            await client.call(server)
            async with asyncio.timeout(20):
                while not client.heard:
                    await asyncio.sleep(0.05)
        async with asyncio.timeout(20):
            while client.peer.connectionState == "connected":
                await asyncio.sleep(0.05)
        await client.close()

    asyncio.run(run())


def test_a_browser_asks_whether_a_script_is_still_the_same(server):
    status, headers, _ = server.ask("GET", "/page/call.js", headers={})
    assert (status, headers["cache-control"]) == (200, "no-cache")
    again = {"If-None-Match": headers["etag"]}
    assert server.ask("GET", "/page/call.js", headers=again)[0] == 304


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--listen", "nowhere"], "write HOST:PORT"),
        (["--listen", "127.0.0.1:0", "--stun", "127.0.0.1:0"], "has a port from 1 to 65535"),
        (["--listen", "127.0.0.1:99999"], "write HOST:PORT"),
        (["--listen", "203.0.113.9:80"], "Cannot listen on 203.0.113.9:80"),
        (["--bitrate", "1"], "6000 to 510000"),
        (["--certificate", "x.pem"], "A certificate and its key go together"),
        (["--stun", "[::1]:3478"], "host name or an IPv4 address"),
        (["--stun", "nowhere"], "write HOST:PORT"),
        (["--listen", "127.0.0.1:0", "--calls", "0"], "1 to 256 calls"),
        (["--listen", "127.0.0.1:0", "--channels", "3"], "1 or 2 channels"),
        (["--listen", "127.0.0.1:0", "--deadline-ms", "1"], "5 to 200 ms"),
        (["--listen", "127.0.0.1:0", "--model", "none"], "none"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(options, sentence, capsys):
    with pytest.raises(SystemExit) as ended:
        app(["call", "web", *options])
    assert ended.value.code == 2
    errors = capsys.readouterr().err
    assert errors.startswith("rtsr: ")
    assert sentence in errors


def test_a_port_in_use_is_one_sentence(server, capsys):
    with pytest.raises(SystemExit) as ended:
        app(["call", "web", "--listen", server.netloc])
    assert ended.value.code == 2
    errors = capsys.readouterr().err
    assert errors.startswith("rtsr: ")
    assert "Address already in use" in errors


class Frames(MediaStreamTrack):
    """Speech in frames of 20 ms, as aiortc's decoders give them."""

    kind = "audio"

    def __init__(self, rate, form="s16", layout="mono"):
        super().__init__()
        self._sound, self._rate = speech(rate, 2.0), rate
        self._form, self._layout = form, layout
        self._at = 0

    async def recv(self):
        if self._at >= len(self._sound):
            self.stop()
            raise MediaStreamError
        size = self._rate // 50
        part = self._sound[self._at : self._at + size].astype(np.float64)[None]
        if self._layout == "stereo":
            # Half of what is on the left is on the right.
            part = np.concatenate([part, part / 2])
        kind, offset, scale = {
            "u8": (np.uint8, 128, 127), "s16": (np.int16, 0, 32767),
            "s32": (np.int32, 0, 2**31 - 1), "flt": (np.float32, 0, 1), "dbl": (np.float64, 0, 1),
        }[self._form.removesuffix("p")]  # fmt: skip
        part = (part * scale + offset).astype(kind)
        part = part if self._form.endswith("p") else part.T.reshape(1, -1)
        part = np.ascontiguousarray(part)
        frame = av.AudioFrame.from_ndarray(part, format=self._form, layout=self._layout)
        frame.sample_rate, frame.pts = self._rate, self._at
        frame.time_base = fractions.Fraction(1, self._rate)
        self._at += size
        return frame


def passed_on(source, rate, count, model):
    """The first frames of a track that nothing is added to, of a source of a rate in Hz."""

    async def run():
        options = {"model": str(model), "provider": "cpu", "deadline_ms": 200}
        async with CallEngine(1, **options) as engine:
            track = UpsampledTrack(source, await engine.open_sound(rate, wet=0.0))
            frames = [await track.recv() for _ in range(count)]
            track.stop()
        return frames

    return asyncio.run(run())


# A browser sends Opus if nothing else is agreed, which is decoded at 48 kHz whatever was expected.
@pytest.mark.parametrize("rate", [8000, 48000])
def test_upsampled_track_is_a_track_for_any_application(rate):
    async def run():
        async with CallEngine(1, provider="cpu", deadline_ms=200) as engine:
            track = UpsampledTrack(Frames(rate), await engine.open_sound(8000))
            frames = [await track.recv() for _ in range(100)]
            with pytest.raises(MediaStreamError):
                await track.recv()
            assert engine.calls == 0
            assert track.readyState == "ended"
        return frames

    frames = asyncio.run(run())
    assert len(frames) == 100
    assert {(f.sample_rate, f.samples, f.format.name) for f in frames} == {(48000, 960, "s16")}
    assert [f.pts for f in frames] == list(range(0, 96000, 960))
    sound = np.concatenate([f.to_ndarray()[0] for f in frames]) / 32768
    assert band_db(sound, 4500, 8000) > band_db(sound, 300, 3000) - 40
    assert PCMU.sample_rate == 8000


@pytest.mark.parametrize("layout", ["mono", "stereo"])
@pytest.mark.parametrize("form", ["u8", "s16", "s16p", "s32", "flt", "fltp", "dblp"])
def test_an_upsampled_track_takes_every_kind_of_sample(form, layout, stand_in):
    frames = passed_on(Frames(48000, form, layout), 48000, 50, stand_in)
    heard = np.concatenate([frame.to_ndarray()[0] for frame in frames])[185:] / 32768
    said = speech(48000, 2.0)[: len(heard)] * (0.75 if layout == "stereo" else 1.0)
    # Of 8 bits there are 256 steps.
    assert np.abs(heard - said).max() < (0.02 if form == "u8" else 1e-3)


@pytest.mark.parametrize("missing", [160, 400, 8000])
def test_an_upsampled_track_leaves_out_what_its_source_leaves_out(missing, stand_in):
    class Pausing(Frames):
        async def recv(self):
            if self._at == 1600:
                self._at += missing
            return await super().recv()

    assert [frame.pts for frame in passed_on(Pausing(8000), 8000, 40, stand_in)] == [
        960 * index + (6 * missing if index >= 10 else 0) for index in range(40)
    ]


def test_an_upsampled_track_fills_a_frame_that_a_pause_ends(stand_in):
    class Halves(Frames):
        """The first half of a frame, a second of nothing, and whole frames."""

        async def recv(self):
            begun = self._at
            frame = await super().recv()
            if begun == 0:
                half = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(frame.to_ndarray()[:, :80]), format="s16", layout="mono"
                )
                half.sample_rate, half.pts, half.time_base = 8000, 0, frame.time_base
                self._at = 8000
                return half
            return frame

    frames = passed_on(Halves(8000), 8000, 10, stand_in)
    assert [frame.pts for frame in frames] == [0, *range(48000, 48000 + 9 * 960, 960)]
    assert not frames[0].to_ndarray()[0, 480:].any()


def test_an_upsampled_track_does_not_follow_timestamps_that_waver(stand_in):
    class Wavering(Frames):
        async def recv(self):
            frame = await super().recv()
            frame.pts += 100 * (frame.pts // 160 % 2)
            return frame

    frames = passed_on(Wavering(8000), 8000, 50, stand_in)
    assert [frame.pts for frame in frames] == [960 * index for index in range(50)]


def test_an_upsampled_track_that_is_given_up_once_goes_on_in_time():
    class Line:
        """An engine that stands still once, and keeps what it was given."""

        channels, rate, is_closed = 1, 8000, False

        def __init__(self):
            self.waiting, self.stands_still = [], False
            self.stands = asyncio.Event()

        async def enhance(self, sound):
            self.waiting.append(np.repeat(sound, 6, axis=0))
            if self.stands_still:
                self.stands_still = False
                self.stands.set()
                await asyncio.sleep(60)
            given, self.waiting = np.concatenate(self.waiting), []
            return given

        def close(self):
            pass

    async def run():
        line = Line()
        track = UpsampledTrack(Frames(8000), line)
        frames = [await track.recv() for _ in range(10)]
        line.stands_still = True
        given_up = asyncio.ensure_future(track.recv())
        # Its sound is in the engine by now, whatever the machine does beside.
        await line.stands.wait()
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        return [*frames, *[await track.recv() for _ in range(30)]]

    frames = asyncio.run(run())
    assert [frame.pts for frame in frames] == [960 * index for index in range(40)]
    heard = np.concatenate([frame.to_ndarray()[0] for frame in frames])[::6] / 32768
    assert np.abs(heard - speech(8000, 2.0)[: len(heard)]).max() < 1e-3


def test_an_upsampled_track_of_no_sound_is_refused_and_costs_no_place(stand_in):
    async def run():
        async with CallEngine(1, model=str(stand_in), provider="cpu") as engine:
            line = await engine.open_sound(8000)
            with pytest.raises(ArgumentError, match="kind 'audio', not 'video'"):
                UpsampledTrack(VideoStreamTrack(), line)
            assert engine.batch.free == 1

    asyncio.run(run())


def test_an_upsampled_track_ends_with_its_engine(stand_in):
    async def run():
        async with CallEngine(1, model=str(stand_in), provider="cpu") as engine:
            track = UpsampledTrack(Frames(8000), await engine.open_sound(8000))
            await track.recv()
        with pytest.raises(MediaStreamError):
            await track.recv()
        assert track.readyState == "ended"

    asyncio.run(run())


def test_nobody_is_asked_for_our_address_unless_named(monkeypatch):
    made = []
    monkeypatch.setattr(peer_module, "RTCPeerConnection", made.append)
    for stun in (None, ("stun.example.org", 3478)):
        peer_module.WebCall("a", 64000, None, print, stun)
    assert [[each.urls for each in one.iceServers] for one in made] == [
        [],
        ["stun:stun.example.org:3478"],
    ]


def test_who_goes_before_the_answer_leaves_no_call_behind(stand_in):
    offer = json.dumps({"type": "offer", "sdp": OFFER}).encode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stun:
        # A server that says nothing holds the answer up.
        stun.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{stun.getsockname()[1]}"
        with running_server("--model", str(stand_in), "--stun", address) as server:
            with socket.create_connection(("127.0.0.1", server.port)) as page:
                page.sendall(
                    f"POST /calls HTTP/1.1\r\nHost: {server.netloc}\r\n"
                    f"Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
                    f"Content-Length: {len(offer)}\r\n\r\n".encode()
                    + offer
                )
                end = time.monotonic() + 4.0
                while server.metric("rtsr_calls") != 1.0:
                    assert time.monotonic() < end, "the call was not begun"
                    time.sleep(0.05)
            # By itself it would be ended 30 s after the answer.
            end = time.monotonic() + 15.0
            while server.metric("rtsr_calls") != 0.0:
                assert time.monotonic() < end, "its place is still taken"
                time.sleep(0.1)


def test_a_call_that_ends_while_it_is_answered_is_not_kept(monkeypatch):
    class Over:
        has_ended = True

        async def close(self):
            pass

    async def answer(*given, **more):
        return Over(), "v=0"

    async def ask(server):
        data = json.dumps({"sdp": "v=0"}).encode()
        waits = [{"type": "http.request", "body": data}]
        said = []

        async def receive():
            return waits.pop() if waits else await asyncio.sleep(60)

        async def send(message):
            said.append(message)

        headers = [(b"host", b"127.0.0.1"), (b"authorization", f"Bearer {TOKEN}".encode())]
        scope = {"type": "http", "method": "POST", "path": "/calls", "headers": headers}
        await server.app({**scope, "scheme": "http", "query_string": b""}, receive, send)
        return said[0]["status"]

    monkeypatch.setattr(peer_module.WebCall, "answer", answer)
    server = CallServer(None, Access(("127.0.0.1",), TOKEN))
    assert asyncio.run(ask(server)) == 503
    assert not server._calls


def test_a_stun_server_says_under_which_address_we_are_seen():
    """One that answers as RFC 8489 has it, in a thread: 203.0.113.7:40000, whoever asks."""
    seen, magic = [], b"\x21\x12\xa4\x42"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stun:
        stun.bind(("127.0.0.1", 0))

        def answer():
            while True:
                try:
                    data, source = stun.recvfrom(2048)
                except OSError:
                    return
                seen.append(data[:2])
                address = socket.inet_aton("203.0.113.7")
                mapped = bytes(a ^ b for a, b in zip(address, magic, strict=True))
                port = struct.pack("!H", 40000 ^ 0x2112)
                attribute = b"\x00\x20\x00\x08\x00\x01" + port + mapped
                stun.sendto(b"\x01\x01\x00\x0c" + data[4:20] + attribute, source)

        threading.Thread(target=answer, daemon=True).start()

        async def call(server):
            client = Client()
            try:
                offer = await client.offer()
                return await asyncio.to_thread(server.ask, "POST", "/calls", offer)
            finally:
                await client.close()

        with running_server("--stun", f"127.0.0.1:{stun.getsockname()[1]}") as server:
            status, _, body = asyncio.run(call(server))
    assert status == 200
    assert seen
    assert set(seen) == {b"\x00\x01"}
    assert "203.0.113.7 40000 typ srflx" in json.loads(body)["sdp"]
