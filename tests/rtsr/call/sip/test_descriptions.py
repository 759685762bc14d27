"""Offers of sound (SDP) as telephones and exchanges write them, and what we answer."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from sip_ends import OPUS_SDP, SDP, answered, between, hang_up

pytest.importorskip("aiosipua")

from aiosipua import parse_sdp, serialize_sdp

from rtsr.call.formats import OPUS, PCMA, PCMU
from rtsr.call.sip.description import Session, Unacceptable, answer, read_answer, read_offer

KEY = base64.b64encode(bytes(range(30))).decode()
SAVP = "m=audio 40000 RTP/SAVP 0"
SUITE = "AES_CM_128_HMAC_SHA1_80"


def described(*lines, session=()):
    head = ("v=0", "o=- 1 1 IN IP4 192.0.2.1", "s=-", "c=IN IP4 192.0.2.1", "t=0 0", *session)
    return parse_sdp("".join(f"{line}\r\n" for line in (*head, *lines)))


@pytest.mark.parametrize(
    ("session", "media", "direction"),
    [
        ("a=sendonly", (), "sendonly"),
        ("a=inactive", (), "inactive"),
        ("a=sendonly", ("a=sendrecv",), "sendrecv"),
        ("a=sendrecv", ("a=inactive",), "inactive"),
        ("a=tool:x", (), "sendrecv"),
    ],
)
def test_a_direction_of_the_whole_session_counts(session, media, direction):
    sdp = described("m=audio 40000 RTP/AVP 0", *media, session=(session,))
    found = read_offer(sdp)
    assert found.direction == direction
    assert found.hears == (direction in ("sendrecv", "recvonly"))
    assert read_answer(sdp, None, None).direction == direction


@pytest.mark.parametrize(
    "first",
    [
        (SAVP, f"a=crypto:1 AES_256_CM_HMAC_SHA1_80 inline:{KEY}"),
        ("m=audio 40000 RTP/SAVPF 0", "a=fingerprint:sha-256 00:11"),
        ("m=audio 40000 RTP/AVP 18",),
        ("m=audio 0 RTP/AVP 0",),
    ],
)
def test_of_two_kinds_of_audio_the_one_that_fits_is_taken(first):
    media = read_offer(described(*first, "m=audio 40002 RTP/AVP 8", "m=video 40004 RTP/AVP 99"))
    assert media.address == ("192.0.2.1", 40002)
    assert list(media.formats.values()) == [PCMA]
    said = parse_sdp(serialize_sdp(answer(("192.0.2.2", 50000), media, 64000, Session())))
    assert [each.port for each in said.media] == [0, 50000, 0]
    assert said.media[0].proto == first[0].split()[2]


def test_where_no_audio_fits_the_first_says_why():
    with pytest.raises(Unacceptable, match="not RTP/SAVPF"):
        read_offer(described("m=audio 40000 RTP/SAVPF 0", "m=audio 40002 RTP/AVP 18"))
    with pytest.raises(Unacceptable, match="no audio"):
        read_offer(described("m=audio 0 RTP/AVP 0", "m=video 40004 RTP/AVP 99"))


@pytest.mark.parametrize(
    ("passed_over", "taken"),
    [
        (f"inline:{KEY}|2^31|1:1", f"inline:{KEY}|2^31"),
        (f"inline:{KEY}|1:4", f"inline:{KEY}|1048576"),
        (f"inline:{KEY}|2^20|1:4;inline:{KEY}|2^20|2:4", f"inline:{KEY}"),
        (f"inline:{KEY} UNENCRYPTED_SRTP", f"inline:{KEY} WSH=128"),
        (f"inline:{KEY} KDR=1", f"inline:{KEY} -KDR=1"),
        (f"inline:{KEY} WSH=64 UNAUTHENTICATED_SRTP", f"inline:{KEY}|2^20 WSH=64"),
    ],
)
def test_keys_that_change_packets_are_passed_over(passed_over, taken):
    lines = (f"a=crypto:1 {SUITE} {passed_over}", f"a=crypto:2 {SUITE} {taken}")
    media = read_offer(described(SAVP, *lines))
    assert (media.crypto_tag, media.their_key) == ("2", bytes(range(30)))
    with pytest.raises(Unacceptable, match="needs a key"):
        read_offer(described(SAVP, lines[0]))


def test_g711_in_stereo_is_another_codec():
    sdp = described("m=audio 40000 RTP/AVP 97 0", "a=rtpmap:97 PCMA/8000/2")
    assert read_offer(sdp).formats == {0: PCMU}


@pytest.mark.parametrize(
    ("parameters", "bitrate"),
    [
        ("maxaveragebitrate=20000", 20000),
        ("minptime=10; MaxAverageBitrate = 6000 ;useinbandfec=1", 6000),
        ("maxaveragebitrate=510000", 64000),
        # What is out of range counts as absent (RFC 7587, 6.1), as what is no number.
        ("maxaveragebitrate=5999", 64000),
        ("maxaveragebitrate=0", 64000),
        ("maxaveragebitrate=510001", 64000),
        ("maxaveragebitrate=20000k", 64000),
        ("x-maxaveragebitrate=20000", 64000),
        ("maxaveragebitrate", 64000),
    ],
)
def test_how_much_opus_the_other_end_takes(parameters, bitrate):
    lines = ("a=rtpmap:96 opus/48000/2", f"a=fmtp:96 {parameters}")
    assert read_offer(described("m=audio 40000 RTP/AVP 96", *lines)).bitrate(64000) == bitrate
    # Another codec than the one that is sent says nothing.
    media = read_offer(described("m=audio 40000 RTP/AVP 97 96", "a=rtpmap:97 opus/48000/2", *lines))
    assert media.bitrate(64000) == 64000


def test_an_end_is_sent_no_more_opus_than_it_takes(stand_in):
    def bits_per_second(running):
        (call,) = running.bridge.open_calls
        noise = np.random.default_rng(0).uniform(-0.3, 0.3, (48000, 1)).astype(np.float32)
        packets = call.caller.line.path.sender.push(noise)
        return 8 * sum(len(packet.payload) for packet in packets)

    limit = OPUS_SDP + "a=fmtp:96 maxaveragebitrate={}\r\n"
    with between(stand_in) as (peer, running, called):
        invite, _, to = answered(peer, called, SDP, limit.format(16000))
        assert bits_per_second(running) < 18000
        # It says something else within the call.
        called.request(invite, "INVITE", 1, limit.format(40000))
        called.hear("SIP/2.0 200")
        assert 36000 < bits_per_second(running) < 44000
        hang_up(peer, to)
        called.answer(called.hear("BYE"), 200)


@pytest.mark.parametrize(
    ("channels", "body", "target", "to_caller"),
    [
        (1, OPUS_SDP, OPUS_SDP, None),
        (2, OPUS_SDP, OPUS_SDP, "stereo=1"),
        (2, OPUS_SDP, SDP, "sprop-stereo=1"),
        (2, SDP, OPUS_SDP, None),
    ],
    ids=["mono", "opus to opus", "opus to pcmu", "pcmu to opus"],
)
def test_who_hears_or_sends_two_channels_is_told(stand_in, channels, body, target, to_caller):
    def said(text):
        wishes = [line for line in text.splitlines() if "maxplaybackrate" in line]
        assert len(wishes) <= 1
        parts = wishes[0].split(";") if wishes else []
        return next((part for part in parts if "stereo" in part), None)

    forms = (OPUS,) if target == OPUS_SDP else (PCMU,)
    with between(stand_in, channels=channels, forms=forms) as (peer, running, called):
        invite, text, to = answered(peer, called, body, target)
        is_sent = channels == 2 and target == OPUS_SDP
        assert said(invite) == ("sprop-stereo=1" if is_sent else None)
        assert said(text) == to_caller
        (enhanced,) = running.engine.lines
        noise = np.random.default_rng(0).uniform(-0.3, 0.3, (4800, channels)).astype(np.float32)
        payloads = [packet.payload for packet in enhanced.path.sender.push(noise)]
        # RFC 6716, 3.1: a bit of the first byte says that there are two channels.
        assert {bool(payload[0] & 4) for payload in payloads} == {channels == 2}
        hang_up(peer, to)
        called.answer(called.hear("BYE"), 200)


def test_an_address_that_packets_do_not_reach_is_refused_and_the_call_goes_on(stand_in):
    elsewhere = SDP.replace("c=IN IP4 127.0.0.1", "c=IN IP6 ::1")
    with between(stand_in) as (peer, running, called):
        peer.send(peer.request("INVITE", body=elsewhere, call="c0"))
        assert peer.final()[0] == 488
        peer.send(peer.request("ACK", call="c0"))
        _, _, to = answered(peer, called)
        (call,) = running.bridge.open_calls
        before = call.caller.media
        peer.send(peer.request("INVITE", to=to, number=2, body=elsewhere))
        assert peer.final()[0] == 488
        peer.send(peer.request("ACK", to=to, number=2))
        assert call.caller.media is before
        assert call.callee.line.path.sender.format.name == "PCMU"
        # An end that holds may say that it is nowhere, in either version.
        nowhere = SDP.replace("c=IN IP4 127.0.0.1", "c=IN IP6 ::")
        peer.send(peer.request("INVITE", to=to, number=3, body=nowhere))
        assert peer.final()[0] == 200
        hang_up(peer, to, number=4)
        called.answer(called.hear("BYE"), 200)
