"""Offers of sound (SDP) as telephones and exchanges write them, and what we answer."""

from __future__ import annotations

import base64

import pytest

pytest.importorskip("aiosipua")

from aiosipua import parse_sdp, serialize_sdp

from rtsr.call.formats import PCMA, PCMU
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
    assert read_answer(sdp, None).direction == direction


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
