"""The SIP bridge: telephones that others wrote, load, wrong messages, right refusals."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request

import numpy as np
import phones
import pytest
import soundfile
from authority import Authority
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from network import packets, speech
from resemblance import resemblance
from scipy.signal import fftconvolve, resample_poly
from sip_ends import SDP, Callee, Peer, Running, answered, between, hang_up, set_up, tag_of

pytest.importorskip("aiosipua")

from aiortc.rtp import RtcpPacket, RtcpReceiverInfo, RtcpRrPacket, RtpPacket
from aiosipua import SipDigestAuth, SipResponse, SipUAS, parse_sdp, serialize_sdp

from rtsr.call.formats import G722, OPUS, PCMA, PCMU, TELEPHONE_EVENT
from rtsr.call.metrics import exposition
from rtsr.call.metrics_server import MetricsServer
from rtsr.call.reports import FarReports
from rtsr.call.sip import agent as agent_module
from rtsr.call.sip import media_socket, run
from rtsr.call.sip.agent import Agent, Target
from rtsr.call.sip.bridge import BridgeSettings
from rtsr.call.sip.control import ReportWriter
from rtsr.call.sip.description import Session, Unacceptable, answer, offer, read_answer, read_offer
from rtsr.call.sip.media_socket import MediaSocket
from rtsr.call.sip.ports import PortRange
from rtsr.call.sip.udp import UdpTransport
from rtsr.cli.app import app
from rtsr.errors import RtsrError

pytestmark = pytest.mark.clocked

_REASON = phones.why_not()
needs_phones = pytest.mark.skipif(_REASON is not None, reason=_REASON or "")


def band_db(sound, low, high, rate=48000):
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)))) ** 2
    frequency = np.fft.rfftfreq(len(sound), 1 / rate)
    return 10 * np.log10(spectrum[(frequency >= low) & (frequency < high)].sum() + 1e-20)


def best_match(recording, reference):
    """The stretch of the reference that fits the recording, by the low band, to the sample."""
    narrow = [resample_poly(x, 1, 8) for x in (recording, reference)]
    match = fftconvolve(narrow[0], narrow[1][::-1])
    lag = 8 * (int(np.argmax(match)) - len(narrow[1]) + 1)
    start, stop = max(0, lag), min(len(recording), lag + len(reference))
    return recording[start:stop], reference[start - lag : stop - lag]


@pytest.mark.alone
@needs_phones
@pytest.mark.parametrize("way", ["RTP", "SRTP", "TLS"])
def test_one_baresip_calls_another_through_the_bridge(tmp_path, way):
    from rtsr import enhance_file

    voice = speech(8000, 14.0)
    soundfile.write(tmp_path / "8k.wav", voice, 8000, subtype="PCM_16")
    both = np.stack([speech(48000, 14.0)] * 2, axis=1)
    soundfile.write(tmp_path / "48k.wav", both, 48000, subtype="PCM_16")
    is_encrypted = way != "RTP"
    account = ";mediaenc=srtp-mand" if is_encrypted else ""
    seconds = 4.0 if is_encrypted else 12.0
    options, port, transport, more = [], 5060, "", ""
    if is_encrypted:
        options = ["--srtp"]
    if way == "TLS":
        authority = Authority(tmp_path)
        certificate, key = authority.certificate(phones.BRIDGE)
        options += ["--certificate", certificate, "--key", key, "--authorities", authority.file]
        own, own_key = authority.certificate(phones.CALLEE, phones.CALLER, name="phone")
        (tmp_path / "own.pem").write_bytes(own.read_bytes() + own_key.read_bytes())
        port, transport = 5061, ";transport=tls"
        more = f"sip_certificate {tmp_path / 'own.pem'}\nsip_cafile {authority.file}\n"
    with phones.cable() as (there, here), contextlib.ExitStack() as undo:
        target = f"sip:phone@{phones.CALLEE}:{port}{transport}"
        bridge = undo.enter_context(phones.running_bridge(here, *options, target=target))
        callee = phones.Phone(
            there, tmp_path / "callee", phones.CALLEE, tmp_path / "48k.wav",
            f"answermode=auto;audio_codecs=opus/48000/2{account}", more,
        )  # fmt: skip
        undo.callback(callee.close)
        caller = phones.Phone(
            there, tmp_path / "caller", phones.CALLER, tmp_path / "8k.wav",
            f"audio_codecs=pcmu{account}", more,
        )  # fmt: skip
        undo.callback(caller.close)
        caller.type(f"/dial sip:x@{phones.BRIDGE}:{port}{transport}")
        caller.wait_for("Call established")
        time.sleep(seconds)
        # The other end hangs up; both legs end.
        callee.type("/hangup")
        caller.wait_for("terminated")
        time.sleep(0.5)
    log = [json.loads(line) for line in bridge.log.splitlines()]
    assert [entry["event"] for entry in log] == ["sip call taken", "sip call over"]
    assert log[0]["codec"] == "PCMU opus"
    assert phones.CALLER not in bridge.log
    heard, rate = soundfile.read(callee.recording("dec"))
    heard = heard if heard.ndim == 1 else heard[:, 0]
    assert rate == 48000
    assert len(heard) > (seconds - 1.5) * rate
    enhance_file(tmp_path / "8k.wav", tmp_path / "wide.wav")
    wide, _ = soundfile.read(tmp_path / "wide.wav")
    got, expected = best_match(heard, wide)
    assert len(got) > 0.8 * (seconds - 1.5) * rate
    assert resemblance(got, expected) > 0.9
    assert abs(band_db(got, 300, 3000) - band_db(expected, 300, 3000)) < 2.0
    assert abs(band_db(got, 4000, 8000) - band_db(expected, 4000, 8000)) < 6.0
    back, rate = soundfile.read(caller.recording("dec"))
    assert rate == 8000
    assert band_db(back, 300, 3000, 8000) > 20.0


def test_a_call_is_answered_carries_sound_and_ends_on_both_legs(running, peer):
    before, ended = len(running.callee.heard), len(running.callee.ended)
    status, text, to = set_up(peer)
    assert status == 200
    assert "m=audio" in text
    peer.send(peer.request("ACK", to=to))
    media = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    port = int(text.split("m=audio ")[1].split()[0])
    for packet in packets(speech(8000, 1.0)):
        rtp = RtpPacket(0, 0, packet.sequence_number, packet.timestamp, packet.ssrc, packet.payload)
        media.sendto(rtp.serialize(), ("127.0.0.1", port))
        time.sleep(0.02)
    running.until(lambda: len(running.callee.heard) - before >= 45)
    assert {rtp.payload_type for rtp in running.callee.heard[before:]} == {96}
    assert running.engine.calls == 1
    for garbage in (b"", b"\x80", bytes(3000), b"\xff" * 40):
        media.sendto(garbage, ("127.0.0.1", port))
    media.close()
    hang_up(peer, to)
    running.until(lambda: len(running.callee.ended) > ended)
    assert running.engine.calls == 0
    offered = serialize_sdp(running.callee.offers[-1])
    assert "a=rtpmap:96 opus/48000/2" in offered


def pair_of_ports():
    """Two UDP sockets on ports in a row."""
    while True:
        first, second = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        first.bind(("127.0.0.1", 0))
        port = first.getsockname()[1]
        with contextlib.suppress(OSError, OverflowError):
            second.bind(("127.0.0.1", port + 1))
            second.settimeout(5.0)
            return first, second, port
        first.close()
        second.close()


@pytest.mark.parametrize("shares_port", [False, True], ids=["next port", "same port"])
def test_both_ends_are_told_what_was_lost_and_tell_it(running, peer, monkeypatch, shares_port):
    monkeypatch.setattr(media_socket, "REPORT_SECONDS", 0.3)
    before = running.engine.totals()
    heard = len(running.callee.heard)
    media, control, port = pair_of_ports()
    media.settimeout(5.0)
    body = SDP.replace("40000", str(port)) + ("a=rtcp-mux\r\n" if shares_port else "")
    status, text, to = set_up(peer, body)
    assert status == 200
    assert ("a=rtcp-mux" in text) == shares_port
    peer.send(peer.request("ACK", to=to))
    bridge_port = int(text.split("m=audio ")[1].split()[0])
    for index, packet in enumerate(packets(speech(8000, 1.0))):
        rtp = RtpPacket(0, 0, packet.sequence_number, packet.timestamp, 77, packet.payload)
        if index % 5 != 3:
            media.sendto(rtp.serialize(), ("127.0.0.1", bridge_port))
        time.sleep(0.02)
    # What the bridge says of the caller's packets.
    reports = []
    while not reports or reports[0].packets_lost < 9:
        data = (media if shares_port else control).recv(2000)
        packet = RtcpPacket.parse(data)[0]
        reports = packet.reports
        assert [report.ssrc for report in reports] in ([], [77])
    assert reports[0].packets_lost <= 10
    assert 0 < reports[0].jitter < 8000
    # What the called end says of the bridge's packets.
    running.until(lambda: len(running.callee.heard) > heard)
    offered = serialize_sdp(running.callee.offers[-1])
    assert "a=rtcp-mux" in offered
    there = int(offered.split("a=rtcp:")[1].split()[0])
    ssrc = running.callee.heard[-1].ssrc
    for lost, jitter in ((3, 480), (12, 960)):
        report = RtcpReceiverInfo(ssrc, 64, lost, 100, jitter, 0, 0)
        other = RtcpReceiverInfo(ssrc ^ 1, 64, 500, 100, 0, 0, 0)
        media.sendto(bytes(RtcpRrPacket(5, [report, other])), ("127.0.0.1", there))
    for garbage in (b"\x81\xc9", b"\x80\xc8\x00\x01" + bytes(4), b"\xff\xc8" * 40):
        media.sendto(garbage, ("127.0.0.1", there))
        media.sendto(garbage, ("127.0.0.1", bridge_port))
    running.until(lambda: running.engine.totals().far_reports == before.far_reports + 2)
    running.until(lambda: running.engine.totals().malformed >= before.malformed + 6)
    hang_up(peer, to)
    media.close()
    control.close()
    running.until(lambda: running.engine.calls == 0)
    totals = running.engine.totals()
    assert totals.far_lost == before.far_lost + 12
    assert totals.received - before.received >= 40
    assert totals.far_jitter_seconds - before.far_jitter_seconds == pytest.approx(0.03)
    metrics = exposition(running.engine).decode()
    assert f"rtsr_far_packets_lost_total {float(totals.far_lost)}" in metrics
    assert f"rtsr_far_jitter_seconds_count {float(totals.far_reports)}" in metrics


@pytest.mark.parametrize(
    ("line", "control"),
    [
        ("", ("127.0.0.1", 40001)),
        ("a=rtcp:5", ("127.0.0.1", 5)),
        ("a=rtcp:5 IN IP4 10.0.0.1", ("10.0.0.1", 5)),
        ("a=rtcp:5 IN IP4 no.address", ("127.0.0.1", 5)),
        ("a=rtcp:99999", ("127.0.0.1", 40001)),
        ("a=rtcp:", ("127.0.0.1", 40001)),
    ],
)
def test_where_reports_go(line, control):
    assert read_offer(parse_sdp(SDP + line + "\r\n")).control == control


def test_reports_between_two_writers_tell_loss_and_the_round_trip():
    seen, unseen = FarReports(), FarReports()
    sender, receiver = ReportWriter(seen), ReportWriter(unseen)
    sender.formats = receiver.formats = {0: PCMU}
    for number in range(100):
        rtp = RtpPacket(0, 0, (65500 + number) % 2**16, 160 * number, 9, bytes(160))
        sender.sent(rtp)
        if number % 4:
            receiver.received(rtp)
    receiver.read(sender.write())
    time.sleep(0.05)
    sender.read(receiver.write())
    # The last packet that came was the last; the first that came was the second.
    assert seen.lost == 24
    assert seen.loss_share == pytest.approx(24 / 99, abs=1 / 256)
    assert seen.round_trips == 1
    # The time that the report lay there is not part of the way.
    assert seen.round_trip_seconds < 0.04
    assert unseen.count == 0
    # Nothing was sent since: no report of a sender any more.
    assert isinstance(RtcpPacket.parse(sender.write())[0], RtcpRrPacket)


def _packet(number, stamp, payload_type=0):
    return RtpPacket(payload_type, 0, number % 2**16, stamp % 2**32, 9, bytes(160))


def test_keys_and_new_starts_are_neither_jitter_nor_loss(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("rtsr.call.sip.control.time.monotonic", lambda: now[0])
    seen = FarReports()
    sender, receiver = ReportWriter(seen), ReportWriter(FarReports())
    sender.formats = receiver.formats = {0: PCMU, 101: TELEPHONE_EVENT}
    sound = [(number, 160 * number, 0) for number in range(50)]
    # A key that is held: its timestamp stands still. Then the sender's numbers begin anew.
    key = [(number, 160 * 50, 101) for number in range(50, 70)]
    after = [(number, 160 * number, 0) for number in range(70, 90)]
    anew = [(30000 + number, 2**31 + 160 * number, 0) for number in range(50)]
    for number, stamp, kind in [*sound, *key, *after, *anew]:
        packet = _packet(number, stamp, kind)
        sender.sent(packet)
        receiver.received(packet)
        now[0] += 0.02
    sender.read(receiver.write())
    assert seen.count == 1
    assert seen.lost == 0
    assert seen.loss_share == 0.0
    assert seen.newest_jitter < 0.001


def test_losses_that_were_counted_stay_counted():
    far = FarReports()
    far.add(10, 20, 0.1, 0.0, None)
    far.add(2, 20, 0.0, 0.0, None)
    assert far.lost == 10


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=120))
def test_reports_that_are_none_change_nothing(noise):
    far = FarReports()
    writer = ReportWriter(far)
    for data in (noise, writer.write()[:1] + noise, writer.write() + noise):
        with contextlib.suppress(ValueError, struct.error, IndexError, KeyError):
            writer.read(data)
    assert far == FarReports()


def test_ports_of_a_leg():
    async def run():
        def take(packet):
            return None

        def open_socket(ports):
            return MediaSocket.open("127.0.0.1", take, ReportWriter(FarReports()), ports)

        anywhere = await open_socket(None)
        assert anywhere.control_port == anywhere.address[1] + 1
        anywhere.close()
        first = anywhere.address[1]
        await asyncio.sleep(0.1)
        three = PortRange(range(first, first + 3))
        pair, alone = await open_socket(three), await open_socket(three)
        assert (pair.address[1], pair.control_port) == (first, first + 1)
        # With one port left, reports share it.
        assert (alone.address[1], alone.control_port) == (first + 2, None)
        with pytest.raises(OSError, match="no port"):
            await open_socket(three)
        pair.close()
        alone.close()

    asyncio.run(run())


def test_a_copy_of_an_invite_makes_no_second_call(running, peer):
    before = len(running.callee.calls)
    invite = peer.request("INVITE", body=SDP)
    for _ in range(3):
        peer.send(invite)
        time.sleep(0.05)
    _, text = peer.final()
    tag = next(line for line in text.splitlines() if line.startswith("To:")).partition(";tag=")[2]
    hang_up(peer, f";tag={tag}")
    assert len(running.callee.calls) == before + 1


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        (
            SDP.replace("PCMU/8000", "GSM/8000").replace(" 0 101", " 3 101"),
            488,
            "No codec fits; PCMU, PCMA, G722 and opus do.",
        ),
        (SDP.replace("m=audio 40000", "m=video 40000"), 488, "There is no audio."),
        (SDP.replace("m=audio 40000", "m=audio 0"), 488, "There is no audio."),
        (
            SDP.replace("RTP/AVP", "RTP/SAVP"),
            488,
            "Encrypted sound needs a key for AES_CM_128_HMAC_SHA1_80.",
        ),
        (
            SDP.replace("RTP/AVP", 'RTP/"\\é'),
            488,
            "Sound comes as RTP/AVP or RTP/SAVP, not RTP/???.",
        ),
        (
            SDP.replace("m=audio 40000", "m=audio many"),
            400,
            "The description of sound (SDP) cannot be read.",
        ),
    ],
    ids=["codec", "video", "port 0", "no key", "quotes", "no number"],
)
def test_an_offer_that_cannot_be_met_is_refused_and_told_why(running, peer, body, status, why):
    got, text, to = set_up(peer, body)
    peer.send(peer.request("ACK", to=to))
    assert got == status
    assert f'\r\nWarning: 399 rtsr "{why}"\r\n' in text


def test_a_full_bridge_says_503(running, peer):
    tags = {}
    for call in ("c1", "c2"):
        status, _, tags[call] = set_up(peer, call=call)
        assert status == 200
    status, text, _ = set_up(peer, call="c3")
    assert status == 503
    assert "Retry-After: 10" in text
    for call, to in tags.items():
        hang_up(peer, to, call)


def test_nothing_stays_of_calls_that_are_over(stand_in, monkeypatch):
    monkeypatch.setattr(agent_module, "TIMER_H", 0.2)
    with Running(str(stand_in), calls=1) as running:
        peer = Peer(running.port)
        for number in range(5):
            call = f"over{number}"
            status, _, to = set_up(peer, call=call)
            assert status == 200
            assert set_up(peer, call=f"refused{number}")[0] == 503
            if number % 2:
                hang_up(peer, to, call)
            else:  # we hang up
                peer.send(peer.request("ACK", to=to, call=call))
                for each in running.bridge.open_calls:
                    running.loop.call_soon_threadsafe(each.end, "the test is over")
                running.until(lambda: running.bridge.calls == 0)
                assert peer._socket.recv(65535).startswith(b"BYE")
        agents = running.bridge.agent.agents
        running.until(lambda: not any(each._calls or each.uac._calls for each in agents))
        running.until(lambda: running.engine.batch.free == 1)
        peer.close()


@pytest.mark.parametrize(
    ("method", "status"), [("BYE", 481), ("CANCEL", 481), ("PUBLISH", 405), ("OPTIONS", 200)]
)
def test_requests_outside_a_call(peer, method, status):
    peer.send(peer.request(method))
    assert peer.final()[0] == status


def test_what_may_be_asked_of_us_is_named(running, peer):
    methods = "INVITE, ACK, CANCEL, BYE, OPTIONS, PRACK, UPDATE"

    def said(text, name):
        return [line for line in text.split("\r\n") if line.startswith(f"{name}: ")]

    peer.send(peer.request("OPTIONS"))
    text = peer.final()[1]
    assert said(text, "Allow") == [f"Allow: {methods}"]
    assert said(text, "Accept") == ["Accept: application/sdp"]
    _, text, to = set_up(peer)
    assert said(text, "Allow") == [f"Allow: {methods}"]
    assert said(text, "Supported") == ["Supported: 100rel, timer"]
    invite = running.callee.calls[-1].invite
    assert ", ".join(invite.headers.get("allow")) == methods
    assert ", ".join(invite.headers.get("supported")) == "timer"
    # What is not there is refused with what is (RFC 3261, 8.2.1), and the call goes on.
    for number, method in enumerate(("INFO", "REFER", "NOTIFY", "MESSAGE"), 2):
        peer.send(
            peer.request(method, to=to, number=number, more="Refer-To: <sip:y@127.0.0.1>\r\n")
        )
        status, text = peer.final()
        assert status == 405
        assert said(text, "Allow") == [f"Allow: {methods}"]
    hang_up(peer, to, number=9)


def test_who_is_not_there_is_said_so(stand_in):
    for refusal, status in ((486, 486), (603, 603), (401, 502)):
        with Running(str(stand_in), callee=Callee(refuse=refusal)) as running:
            peer = Peer(running.port)
            assert set_up(peer)[0] == status
            running.until(lambda running=running: running.bridge.calls == 0)
            peer.close()


def test_a_caller_who_gives_up_stops_the_ringing(stand_in):
    with Running(str(stand_in), callee=Callee(silent=True)) as running:
        peer = Peer(running.port)
        invite = peer.request("INVITE", body=SDP, branch="z9hG4bKone")
        peer.send(invite)
        running.until(lambda: running.callee.calls)
        peer.send(peer.request("CANCEL", branch="z9hG4bKone"))
        statuses = {peer.final()[0], peer.final()[0]}
        assert statuses == {200, 487}
        running.until(lambda: running.callee.ended == ["cancel"])
        assert running.bridge.calls == 0
        peer.close()


def test_who_does_not_answer_is_given_up(stand_in):
    with Running(str(stand_in), callee=Callee(silent=True), ring_seconds=1.0) as running:
        peer = Peer(running.port)
        assert set_up(peer)[0] == 480
        running.until(lambda: running.callee.ended == ["cancel"])
        peer.close()


def test_the_codec_changes_within_a_call(running, peer):
    before = len(running.callee.heard)
    status, _, to = set_up(peer)
    assert status == 200
    peer.send(peer.request("ACK", to=to))
    wide = SDP.replace("RTP/AVP 0 101", "RTP/AVP 9 101").replace("0 PCMU/8000", "9 G722/8000")
    peer.send(peer.request("INVITE", body=wide, to=to, number=2))
    status, text = peer.final()
    assert status == 200
    assert "G722/8000" in text
    peer.send(peer.request("ACK", to=to, number=2))
    media = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    port = int(text.split("m=audio ")[1].split()[0])
    for packet in packets(speech(16000, 1.0), G722, 9):
        rtp = RtpPacket(9, 0, packet.sequence_number, packet.timestamp, packet.ssrc, packet.payload)
        media.sendto(rtp.serialize(), ("127.0.0.1", port))
        time.sleep(0.02)
    media.close()
    running.until(lambda: len(running.callee.heard) - before >= 45)
    assert running.engine.lines[0].path.receiver.format is G722
    hang_up(peer, to, number=3)


def test_calls_over_tcp(running):
    with socket.create_connection(("127.0.0.1", running.port), 5) as connection:

        def request(method, to="", number=1, body=""):
            kind = "Content-Type: application/sdp\r\n" if body else ""
            return (
                f"{method} sip:x@127.0.0.1 SIP/2.0\r\n"
                f"Via: SIP/2.0/TCP 127.0.0.1:9;branch=z9hG4bKt{number}{method};rport\r\n"
                f"From: <sip:me@127.0.0.1>;tag=t\r\nTo: <sip:x@127.0.0.1>{to}\r\n"
                f"Call-ID: tcp\r\nCSeq: {number} {method}\r\nMax-Forwards: 70\r\n"
                f"Contact: <sip:me@127.0.0.1:9;transport=tcp>\r\n{kind}"
                f"Content-Length: {len(body)}\r\n\r\n{body}"
            ).encode()  # fmt: skip

        def final():
            text = ""
            while True:
                text += connection.recv(65536).decode()
                for part in text.split("SIP/2.0 ")[1:]:
                    if int(part[:3]) >= 200 and "\r\n\r\n" in part:
                        return int(part[:3]), part

        connection.settimeout(10)
        connection.sendall(request("INVITE", body=SDP))
        status, text = final()
        assert status == 200
        to = tag_of(text)
        connection.sendall(request("ACK", to))
        connection.sendall(request("BYE", to, 2))
        assert final()[0] == 200
    running.until(lambda: running.bridge.calls == 0)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_messages_that_are_none_harm_nobody(running, data):
    peer = Peer(running.port)
    whole = peer.request("INVITE", body=SDP)
    how = data.draw(st.sampled_from(["noise", "cut", "line", "digits"]))
    if how == "noise":
        message = data.draw(st.binary(max_size=600))
    elif how == "cut":
        message = whole[: data.draw(st.integers(0, len(whole)))]
    else:
        lines = whole.split(b"\r\n")
        at = data.draw(st.integers(0, len(lines) - 1))
        noise = data.draw(st.binary(max_size=50))
        lines[at] = noise if how == "line" else lines[at].replace(b"0", b"9" * 30)
        message = b"\r\n".join(lines)
    peer.send(message)
    with contextlib.suppress(TimeoutError):
        while True:
            status, text = peer.hear(0.02)
            assert "Traceback" not in text
            if status == 200:
                tag = text.split("To: ")[1].split("\r\n")[0].partition(";tag=")[2]
                peer.send(peer.request("ACK", to=f";tag={tag}"))
                peer.send(peer.request("BYE", to=f";tag={tag}", number=2))
    peer.close()
    for call in running.bridge.open_calls:
        running.loop.call_soon_threadsafe(call.end, "the test is over")
    running.until(lambda: running.bridge.calls == 0)
    well = Peer(running.port)
    well.send(well.request("OPTIONS"))
    assert well.final()[0] == 200
    well.close()


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300), st.integers(0, len(SDP)), st.integers(0, 80))
def test_descriptions_that_are_none_are_unacceptable_or_no_sdp(noise, at, length):
    try:
        sdp = parse_sdp(SDP[:at] + noise + SDP[at + length :])
    except ValueError:
        return
    with contextlib.suppress(Unacceptable):
        media = read_offer(sdp)
        assert media.form in (PCMU, PCMA, G722, OPUS)
        serialize_sdp(answer(("127.0.0.1", 9), media, 64_000, Session()))


def test_an_offer_and_its_answer_fit(stand_in):
    key = bytes(range(30))
    made = offer(("192.0.2.1", 4000), [OPUS, G722, PCMU], key, 64_000, Session())
    text = serialize_sdp(made)
    assert "m=audio 4000 RTP/SAVP 96 9 0 101 102" in text
    assert "a=rtpmap:96 opus/48000/2" in text
    assert "a=rtpmap:101 telephone-event/48000" in text
    assert "a=rtpmap:102 telephone-event/8000" in text
    theirs = read_offer(parse_sdp(text))
    assert theirs.their_key == key
    answered = answer(("192.0.2.2", 5000), theirs, 64_000, Session())
    ours = read_answer(parse_sdp(serialize_sdp(answered)), key, made)
    assert ours.address == ("192.0.2.2", 5000)
    assert (ours.form, ours.event_type, ours.event_rate) == (OPUS, 101, 48000)
    assert ours.their_key == theirs.our_key != key
    with pytest.raises(Unacceptable, match="Only one end"):
        read_answer(parse_sdp(serialize_sdp(made)), None, None)


def answer_of(forms, **names):
    """Return what is read of an answer to an offer of these forms, of payload types by number."""
    made = offer(("a.name.example", 4000), forms, None, 64_000, Session())
    numbers = " ".join(name.removeprefix("of_") for name in names)
    lines = [f"a=rtpmap:{name.removeprefix('of_')} {form}" for name, form in names.items()]
    head = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "c=IN IP4 127.0.0.1", "t=0 0"]
    text = "\r\n".join([*head, f"m=audio 5000 RTP/AVP {numbers}", *lines, ""])
    return read_answer(parse_sdp(text), None, made)


def test_who_answers_with_other_payload_types_is_heard_under_ours_too():
    ours = answer_of(
        [OPUS, PCMU],
        of_111="opus/48000/2",
        of_110="telephone-event/48000",
        of_102="telephone-event/16000",
    )
    # What we send goes by theirs alone.
    assert (ours.payload_type, ours.event_type) == (111, 110)
    assert list(ours.formats) == [111, 110, 102]
    event = TELEPHONE_EVENT
    expected = {111: OPUS, 96: OPUS, 0: PCMU, 110: event, 101: event, 102: event}
    assert ours.incoming_formats == expected
    # What they say themselves of a number of ours counts.
    assert ours.incoming_event_rates == {110: 48000, 101: 48000, 102: 16000}


def test_numbers_that_an_answer_swaps_mean_what_we_have_offered():
    media = answer_of([OPUS], of_101="opus/48000/2", of_96="telephone-event/48000")
    assert (media.payload_type, media.event_type) == (101, 96)
    assert media.incoming_formats == {96: OPUS, 101: TELEPHONE_EVENT}
    assert media.incoming_event_rates[101] == 48000


async def registered(
    statuses, expires=60, seconds=0.0, then=lambda registration: None, kept=None, first=()
):
    """Register at a registrar that answers so, one after another; what it saw, ``Expires`` last.

    ``kept`` makes the headers of a success, Contact and Expires, of our Contact; ``first`` are
    challenges before its own.
    """
    transport = UdpTransport(local_addr=("127.0.0.1", 0))
    agent, seen, left = SipUAS(transport), [], list(statuses)

    def on_register(request, address):
        authorization = request.get_header("authorization")
        seen.append((authorization, request.get_header("expires")))
        status = 401 if authorization is None else (left.pop(0) if left else 200)
        response = SipResponse(status_code=status, reason_phrase="whatever")
        for value in request.headers.get("via"):
            response.headers.append("Via", value)
        for name in ("From", "To", "Call-ID", "CSeq", "Contact", "Expires"):
            response.headers.set_single(name, request.headers.get_first(name))
        if status == 401:
            challenge = 'Digest realm="here", nonce="n", qop="auth", algorithm=MD5'
            for each in (*first, challenge):
                response.headers.append("WWW-Authenticate", each)
        if status == 200 and kept is not None and request.get_header("expires") != "0":
            response.headers.remove("Contact")
            response.headers.remove("Expires")
            for name, value in kept(request.get_header("contact")):
                response.headers.append(name, value)
        transport.send_reply(response)

    agent._handlers["REGISTER"] = on_register
    await agent.start()
    ours = Agent("127.0.0.1", 0)
    await ours.start({})
    target = Target.parse(f"sip:alice@127.0.0.1:{transport.local_addr[1]}")
    try:
        then(await ours.register(target, SipDigestAuth("alice", "secret"), expires))
        await asyncio.sleep(seconds)
    finally:
        await ours.stop()
        await agent.stop()
    return seen


def test_registers_with_a_password_and_takes_it_back_at_the_end():
    seen = asyncio.run(registered([200]))
    assert seen[0][0] is None
    assert 'username="alice"' in seen[1][0]
    assert "secret" not in seen[1][0]
    assert [expires for _, expires in seen] == ["60", "60", "0", "0"]
    assert 'username="alice"' in seen[3][0]


@pytest.mark.parametrize(
    "first",
    [
        'Digest realm="here", nonce="m", qop="auth", algorithm=SHA-512-256',
        'Digest realm="here", nonce="m", qop="auth-int", algorithm=MD5',
        "Negotiate bm90aGluZw==",
        "",
    ],
)
def test_of_several_challenges_one_that_we_know_is_answered(first):
    seen = asyncio.run(registered([200], first=(first, first)))
    assert seen[0][0] is None
    assert 'nonce="n"' in seen[1][0]


def test_a_registrar_that_refuses_is_an_error():
    with pytest.raises(RtsrError, match=r"127\.0\.0\.1 does not take us: 403"):
        asyncio.run(registered([403]))


@pytest.mark.parametrize(
    ("kept", "seconds"),
    [
        (lambda ours: [("Contact", f"<sip:other@192.0.2.9>;expires=5, {ours};expires=45")], 45),
        (lambda ours: [("Contact", f"<sip:a@192.0.2.9>;expires=0, {ours};expires=50")], 50),
        # Behind an address translator a registrar may write another one; the shorter time is safe.
        (lambda ours: [("Contact", f"{ours};expires={'9' * 400}")], 60),
        (lambda _: [("Contact", "<sip:a@192.0.2.8>;expires=70, <sip:b@192.0.2.9>;expires=40")], 40),
        (lambda ours: [("Contact", ours), ("Expires", "30")], 30),
        (lambda ours: [("Expires", "30")], 30),
        (lambda ours: [("Expires", "soon")], 60),
        (lambda ours: [("Contact", f"{ours};expires=later"), ("Expires", "9" * 400)], 60),
        (lambda ours: [], 60),
    ],
)  # fmt: skip
def test_a_registration_lasts_as_long_as_our_own_contact(kept, seconds):
    found = []
    asyncio.run(registered([200], kept=kept, then=lambda each: found.append(each.granted_expires)))
    assert found == [seconds]


@pytest.mark.parametrize(
    "kept",
    [lambda ours: [("Expires", "0")], lambda ours: [("Contact", f"{ours};expires=0")]],
)
def test_a_registrar_that_keeps_nothing_refuses(kept):
    with pytest.raises(RtsrError, match="does not take us: 200 whatever, but only for 0 s"):
        asyncio.run(registered([200], kept=kept))


def test_a_registrar_that_was_away_is_asked_again(monkeypatch, caplog):
    caplog.set_level("INFO", "rtsr.call")
    monkeypatch.setattr(agent_module, "REGISTER_AGAIN_SECONDS", 0.1)
    seen = asyncio.run(registered([200, 503, 503, 200], expires=1, seconds=1.6))
    # Twice for each answer, as it asks for the password.
    assert len([1 for _, expires in seen if expires == "1"]) >= 8
    told = [each.getMessage() for each in caplog.records if "registered" in each.getMessage()]
    lost = told.index("registered again")
    assert lost > 0
    assert set(told[:lost]) == {"not registered any more"}


def test_a_registration_that_fails_twice_at_once_is_asked_again_once(monkeypatch):
    monkeypatch.setattr(agent_module, "REGISTER_AGAIN_SECONDS", 0.1)

    def fail(registration):
        registration.on_expired(registration)
        registration.on_failed(registration, 503, "Service Unavailable")

    seen = asyncio.run(registered([200], seconds=0.6, then=fail))
    # Twice each time, as it asks for the password.
    assert [expires for _, expires in seen].count("60") == 4


def test_a_registrar_that_has_moved_is_asked_where_it_is_now(monkeypatch):
    monkeypatch.setattr(agent_module, "REGISTER_AGAIN_SECONDS", 0.1)

    def move(registration):
        # Its name led there before.
        registration.registrar = ("127.0.0.1", 9)
        registration.on_failed(registration, 408, "Request Timeout")

    seen = asyncio.run(registered([200], seconds=0.6, then=move))
    assert [expires for _, expires in seen].count("60") == 4


def has_ipv6():
    """Whether this machine reaches itself by IPv6."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def free_ports(host, count):
    """Ports that nobody has at the moment, all of them different."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.ExitStack() as probes:
        found = []
        for _ in range(count):
            probe = probes.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            probe.bind((host, 0))
            found.append(str(probe.getsockname()[1]))
    return found


@pytest.mark.skipif(shutil.which("sipp") is None, reason="there is no sipp here")
@pytest.mark.parametrize(
    ("host", "calls"),
    [
        ("127.0.0.1", 100),
        pytest.param(
            "::1", 5, marks=pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6 here")
        ),
    ],
)
def test_sipp_makes_many_calls(stand_in, tmp_path, host, calls):
    port, media_port, own_port, own_media_port = free_ports(host, 4)
    taker = subprocess.Popen(
        ["sipp", "-sn", "uas", "-i", host, "-p", port, "-mp", media_port, "-nostdin"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path,
    )  # fmt: skip
    shown = f"[{host}]" if ":" in host else host
    try:
        target = Target.parse(f"sip:service@{shown}:{port}")
        options = {"calls": 16, "target": target, "forms": (PCMU,), "host": host}
        with Running(str(stand_in), **options) as running:
            finished = subprocess.run(
                ["sipp", "-sn", "uac", f"{shown}:{running.port}", "-i", host,
                 "-p", own_port, "-mp", own_media_port, "-m", str(calls), "-r", "20",
                 "-d", "300", "-l", "12", "-nostdin", "-timeout", "60"],
                capture_output=True, text=True, cwd=tmp_path,
            )  # fmt: skip
            assert finished.returncode == 0, finished.stdout[-3000:]
            running.until(lambda: running.bridge.calls == 0)
            assert running.engine.batch.free == 16
            assert running.engine.taken == calls
    finally:
        taker.terminate()
        taker.wait(10)


def our_address(towards):
    """Our address as another machine sees it, also where there is no network."""
    return "127.0.0.1" if towards.startswith("127.") else "198.51.100.1"


def without_a_name_server(host, *details, find=socket.getaddrinfo, **more):
    """What is known of a host where nobody is asked."""
    if host == "unknown.example":
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return find("192.0.2.8" if host == "calls.example" else host, *details, **more)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--to", "nobody"], "is no SIP address"),
        (["--to", "sips:x@127.0.0.1;transport=udp"], "is no SIP address"),
        (["--to", "sip:x@127.0.0.1;transport=ws"], "is no SIP address"),
        (["--to", "sip:x@127.0.0.1", "--certificate", "c.pem"], "and its key go together"),
        (
            ["--to", "sip:x@127.0.0.1", "--certificate", "c.pem", "--key", "k.pem"],
            "There is no file 'c.pem'",
        ),
        (["--to", "sip:x@127.0.0.1", "--tls-port", "5061"], "needs a certificate"),
        (["--to", "sip:x@127.0.0.1", "--authorities", "no.pem"], "'no.pem' cannot be used"),
        (["--to", "sip:x@127.0.0.1:99999"], "is no SIP address"),
        (["--to", "sip:x@example..com"], "is no SIP address"),
        (["--to", "sip:x@exa mple"], "is no SIP address"),
        (["--to", "sip:x y@127.0.0.1"], "is no SIP address"),
        (["--to", "sip:x@[::1"], "is no SIP address"),
        (["--to", "sip:x@[127.0.0.1]"], "is no SIP address"),
        (["--to", "sip:x@::1"], "is no SIP address"),
        (["--to", f"sip:x@{70 * 'a'}.example"], "is no SIP address"),
        (["--to", "sip:x@127.0.0.1", "--register", "sip:x@example..com"], "is no SIP address"),
        (["--to", "sip:x@127.0.0.1", "--listen", "127.0.0..1:0"], "is no address"),
        (["--to", "sip:x@127.0.0.1", "--listen", "exa mple:0"], "is no address"),
        (["--to", "sip:x@127.0.0.1", "--listen", f"127.0.0.1:{6000 * '9'}"], "is no address"),
        (["--to", "sip:x@127.0.0.1", "--metrics", "127.0.0..1:0"], "is no address"),
        (["--to", "sip:x@198.51.100.2"], "only this machine is heard"),
        (
            ["--to", "sip:x@127.0.0.1", "--register", "sip:x@198.51.100.2"],
            "198.51.100.2 is another",
        ),
        (["--to", "sip:x@127.0.0.1", "--codecs", "mp3"], "There is no codec 'mp3'"),
        (["--to", "sip:x@127.0.0.1", "--ports", "5"], "write FIRST-LAST"),
        (["--to", "sip:x@127.0.0.1", "--ring-seconds", "0"], "1 to 600 s"),
        (["--to", "sip:x@127.0.0.1", "--user", "me"], "RTSR_SIP_PASSWORD"),
        (["--to", "sip:x@127.0.0.1", "--bitrate", "3"], "6000 to 510000"),
        (["--to", "sip:x@127.0.0.1", "--listen", "203.0.113.9:5060"], "Cannot listen on"),
        (["--to", "sip:x@127.0.0.1", "--listen", "unknown.example:0"], "'unknown.example' is not"),
        (["--to", "sip:x@127.0.0.1", "--advertise", "bad host name"], "'bad host name' is not"),
        (["--to", "sip:x@127.0.0.1", "--advertise", "::1"], "the other version of IP"),
    ],
)
def test_what_cannot_be_bridged_is_one_sentence(options, sentence, capsys, monkeypatch):
    monkeypatch.delenv("RTSR_SIP_PASSWORD", raising=False)
    monkeypatch.setattr(agent_module, "own_address", our_address)
    monkeypatch.setattr(socket, "getaddrinfo", without_a_name_server)
    with pytest.raises(SystemExit) as ended:
        app(["call", "sip", *options])
    assert ended.value.code == 2
    errors = capsys.readouterr().err
    assert errors.startswith("rtsr: ")
    assert sentence in errors


@pytest.mark.parametrize(
    ("listen", "advertise", "expected"),
    [
        ("192.0.2.7", None, ("192.0.2.7", "192.0.2.7", "192.0.2.7")),
        ("calls.example", None, ("calls.example", "192.0.2.8", "192.0.2.8")),
        ("192.0.2.7", "calls.example", ("calls.example", "192.0.2.7", "192.0.2.8")),
        ("0.0.0.0", "calls.example", ("calls.example", "0.0.0.0", "192.0.2.8")),
        ("::1", "2001:db8::7", ("2001:db8::7", "::1", "2001:db8::7")),
        ("0.0.0.0", None, ("127.0.0.1", "0.0.0.0", "127.0.0.1")),
    ],
)
def test_names_stand_in_messages_and_their_addresses_in_descriptions(
    monkeypatch, listen, advertise, expected
):
    begun = []

    async def begin(open_engine, agent, settings, *others):
        begun.append((agent.host, settings.bind, settings.shown))

    monkeypatch.setattr(run, "_run", begin)
    monkeypatch.setattr(socket, "getaddrinfo", without_a_name_server)
    monkeypatch.setattr(run, "check_reach", lambda *places: None)
    bridged = BridgeSettings(Target.parse("sip:x@127.0.0.1"))
    run.serve(None, (listen, 0), bridged, advertise=advertise, announce=print)
    assert begun == [expected]


def test_descriptions_have_the_address_that_is_to_be_shown(stand_in):
    with between(stand_in, shown="127.0.0.9") as (peer, _, called):
        invite, text, to = answered(peer, called)
        for message in (invite, text):
            assert "\r\nc=IN IP4 127.0.0.9\r\n" in message
            assert "\r\nContact: <sip:127.0.0.1:" in message
        peer.send(peer.request("BYE", to=to, number=2))
        assert peer.final()[0] == 200
        called.answer(called.hear("BYE"), 200)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("sip:x@[2001:db8::7]:5070", "2001:db8::7", 5070),
        ("sip:x@example.com.", "example.com.", 5060),
        ("sip:x@m\u00fcller.example", "m\u00fcller.example", 5060),
        ("sip:192.0.2.7", "192.0.2.7", 5060),
    ],
)
def test_hosts_that_can_be_called(text, host, port):
    target = Target.parse(text)
    assert (target.host, target.port) == (host, port)


def test_a_port_in_use_is_one_sentence(running):
    async def start():
        await Agent("127.0.0.1", running.port).start({})

    sentence = r"Cannot listen on 127\.0\.0\.1:\d+: Address already in use\.$"
    with pytest.raises(RtsrError, match=sentence):
        asyncio.run(start())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_that_is_in_use_over_tcp_alone_is_the_same_sentence(host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as taken:
        port = taken.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        for server in (Agent(host, port).start({}), MetricsServer(None).start(host, port)):
            with pytest.raises(RtsrError) as refused:
                asyncio.run(server)
            expected = f"Cannot listen on {shown}:{port}: Address already in use."
            assert str(refused.value) == expected


def udp_takes(monkeypatch, port, times):
    """Have the system give the next UDP transports that take any port this one."""
    start, left = UdpTransport.start, [port] * times

    async def takes(transport):
        if transport.local_addr[1] == 0 and left:
            transport.local_addr = (transport.local_addr[0], left.pop())
        await start(transport)

    monkeypatch.setattr(UdpTransport, "start", takes)


def test_a_free_port_is_free_over_udp_and_tcp(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        udp_takes(monkeypatch, port, 2)

        async def start():
            agent = Agent("127.0.0.1", 0)
            await agent.start({})
            try:
                assert agent.port != port
                ports = [each.transport.local_addr[1] for each in (agent.udp, agent.tcp)]
                assert ports == [agent.port] * 2
                assert all(each.uac.advertised_addr[1] == agent.port for each in agent.agents)
                # What was tried in vain is not kept.
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                    probe.bind(("127.0.0.1", port))
            finally:
                await agent.stop()

        asyncio.run(start())


def test_who_finds_no_port_that_is_free_over_both_gives_up(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        udp_takes(monkeypatch, taken.getsockname()[1], 1000)
        with pytest.raises(RtsrError, match="in use"):
            asyncio.run(Agent("127.0.0.1", 0).start({}))


def test_the_addresses_that_were_found_are_said(stand_in):
    command = [sys.executable, "-m", "rtsr", "call", "sip", "--to", "sip:x@127.0.0.1"]
    command += ["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--model", str(stand_in)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            sip, metrics = process.stdout.readline(), process.stdout.readline()
            assert sip.startswith("rtsr call sip: sip:127.0.0.1:")
            assert not sip.startswith("rtsr call sip: sip:127.0.0.1:0 ")
            name, address = metrics.split()
            assert name == "metrics:"
            with urllib.request.urlopen(address, timeout=20) as response:
                assert b"rtsr_calls 0.0" in response.read()
        finally:
            process.terminate()
    assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_bridge_whose_registrar_is_silent_ends_at_once(number, stand_in):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as registrar:
        registrar.bind(("127.0.0.1", 0))
        registrar.settimeout(60)
        command = [sys.executable, "-m", "rtsr", "call", "sip", "--to", "sip:x@127.0.0.1"]
        command += ["--listen", "127.0.0.1:0", "--model", str(stand_in)]
        command += ["--register", f"sip:me@127.0.0.1:{registrar.getsockname()[1]}"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert registrar.recv(65535).startswith(b"REGISTER")
            finally:
                process.send_signal(number)
            # It waits for the registrar's first answer for 35 s, and to be taken back for one.
            _, errors = process.communicate(timeout=20)
    assert "Traceback" not in errors
    assert process.returncode == 0
