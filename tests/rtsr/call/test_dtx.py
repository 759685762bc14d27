"""Silence that is not sent: which packets go out, and what real decoders make of them."""

from __future__ import annotations

import contextlib
import subprocess
import time

import numpy as np
import pytest
import soundfile

# Telephones come with the extra `call`, all of which needs Python 3.11.
pytest.importorskip("aiosipua")

import phones
from aiosipua import parse_sdp
from network import heard, sound_of
from turns import beginning_db, db, in_turns, spoken

from rtsr.call.decoders import is_opus_silence, open_decoder
from rtsr.call.dtx import SILENCE_DBFS
from rtsr.call.formats import OPUS, PCMU
from rtsr.call.receiver import Origin, Receiver
from rtsr.call.sender import Sender
from rtsr.call.sip.agent import Target
from rtsr.call.sip.bridge import BridgeSettings
from rtsr.call.sip.description import read_offer

BITRATES = pytest.mark.parametrize("bitrate", [64_000, 24_000])


def noise(seconds, dbfs, seed=0):
    """Noise of a room, darker towards high frequencies."""
    from scipy.signal import lfilter

    white = np.random.default_rng(seed).standard_normal(round(48000 * seconds))
    dark = lfilter([1.0], [1.0, -0.9], white)
    return (10 ** (dbfs / 20) * dark / np.sqrt(np.mean(dark**2))).astype(np.float32)


def pushed(sound, bitrate=64_000, dtx=True, form=OPUS):
    """The packets of a sound, each with the index of the frame that it came with."""
    sender = Sender(form, 96, 1, bitrate, dtx=dtx)
    frames = [sound[start : start + 960, None] for start in range(0, len(sound) - 959, 960)]
    packets = [(i, packet) for i, frame in enumerate(frames) for packet in sender.push(frame)]
    return packets, sender


def played(packets, frames):
    """What libopus plays: the packets, and its own continuation where there is none."""
    decoder, by_frame = open_decoder(OPUS), dict(packets)
    parts = [
        decoder.decode(by_frame[i].payload) if i in by_frame else decoder.conceal(960)
        for i in range(frames)
    ]
    return np.concatenate(parts)[:, 0]


def test_silence_of_200_ms_is_sent_and_then_a_byte_every_400_ms():
    voice = spoken()
    sound = np.concatenate([voice, np.zeros(48000 * 2, np.float32), voice])
    got, sender = pushed(sound)
    first, again = len(voice) // 960, (len(voice) + 96000) // 960
    empty = [i for i, packet in got if len(packet.payload) == 1]
    assert empty == [first + 10, first + 30, first + 50, first + 70, first + 90]
    sound_frames = [i for i, packet in got if len(packet.payload) > 1]
    assert sound_frames == [*range(first + 10), *range(again, again + first)]
    assert sender.sent == len(got)
    assert sender.unsent_seconds == pytest.approx(0.02 * (100 - 10 - 5))
    # Nothing looks lost, and time goes on.
    numbers = [packet.sequence_number for _, packet in got]
    assert np.all(np.diff(numbers) % 2**16 == 1)
    start = got[0][1].timestamp
    assert all((p.timestamp - start) % 2**32 == 960 * i for i, p in got)
    assert [i for i, packet in got if packet.marker] == [0, again]


def test_the_empty_packets_name_the_configuration_of_the_sound():
    got, _ = pushed(noise(1.0, SILENCE_DBFS - 6))
    configurations = {packet.payload[0] & 0xFC for _, packet in got}
    assert len(configurations) == 1
    assert all(is_opus_silence(p.payload) == (len(p.payload) == 1) for _, p in got)


@pytest.mark.parametrize(("above_db", "all_sent"), [(3.0, True), (-3.0, False)])
def test_what_is_louder_than_the_stated_level_is_sent(above_db, all_sent):
    got, _ = pushed(noise(2.0, SILENCE_DBFS + above_db))
    assert (len(got) == 100) is all_sent


@pytest.mark.parametrize("at", [0, 100, 700, 959])
def test_five_ms_of_sound_are_enough_to_be_sent(at):
    sound = np.zeros(48000, np.float32)
    sound[30 * 960 + at] = 0.05
    got, _ = pushed(sound)
    assert 30 in [i for i, packet in got if len(packet.payload) > 1]


def test_without_dtx_and_without_opus_all_is_sent():
    silence = np.zeros(48000, np.float32)
    assert len(pushed(silence, dtx=False)[0]) == 50
    got, sender = pushed(silence, form=PCMU)
    assert len(got) == 50
    assert not sender.dtx


def test_a_change_of_codec_keeps_to_what_was_agreed():
    sender = Sender(OPUS, 96, dtx=True)
    silence = np.zeros((48000, 1), np.float32)
    assert len(sender.push(silence)) == 12
    sender.change(PCMU, 0, dtx=True)
    assert len(sender.push(silence)) == 50
    sender.change(OPUS, 97, dtx=False)
    assert {p.payload_type for p in sender.push(silence)} == {97}
    assert sender.unsent_seconds == pytest.approx(0.76)
    # The same codec goes on with the same encoder.
    sender.change(OPUS, 97, dtx=True)
    assert len(sender.push(silence)) == 12


def test_a_pause_counts_as_silence_that_was_not_sent():
    sender = Sender(OPUS, 96, dtx=True)
    silence = np.zeros((960, 1), np.float32)
    before = [len(sender.push(silence)) for _ in range(13)]
    assert before == [1] * 11 + [0] * 2
    sender.pause(0.36)
    (packet,) = sender.push(silence)
    assert len(packet.payload) == 1
    assert not packet.marker


def test_pauses_shorter_than_a_frame_add_up():
    sender = Sender(OPUS, 96, dtx=True)
    silence = np.zeros((960, 1), np.float32)
    assert [len(sender.push(silence)) for _ in range(12)] == [1] * 11 + [0]
    for _ in range(19):
        sender.pause(0.019)
    # 20 + 19 * 19 + 20 ms: 401 ms without a packet.
    assert len(sender.push(silence)) == 1
    for _ in range(18):
        sender.pause(0.019)
    # 18 * 19 ms, and 58 that are missing: three frames.
    assert [len(sender.push(silence)) for _ in range(3)] == [0, 0, 1]


@BITRATES
def test_the_far_decoder_plays_the_room_on(bitrate):
    room = noise(4.0, -66)
    got, _ = pushed(room, bitrate)
    sound = played(got, 200)
    assert len(got) < 25
    levels = [db(sound[i : i + 4800]) for i in range(48000, len(sound) - 4800, 4800)]
    # As even as the room, and at most 9 dB quieter.
    assert np.ptp(levels) < 2.5
    assert -9 < np.mean(levels) - db(room) < 2


@BITRATES
@pytest.mark.parametrize("at", [0, 240, 700])
def test_the_first_sound_comes_whole_and_without_a_click(bitrate, at):
    sound = np.concatenate([noise(2.0, -70), np.zeros(19200, np.float32)])
    start = 96000 + at
    voice = spoken()[: len(sound) - start]
    sound[start : start + len(voice)] += voice
    with_dtx, without = (played(pushed(sound, bitrate, dtx)[0], 120) for dtx in (True, False))
    near = slice(96000 - 480, 96000 + 2880)
    error = with_dtx[near] - without[near]
    assert db(error) < db(without[near]) - (20 if bitrate == 64_000 else 8)
    steps = [np.abs(np.diff(x[near])).max() for x in (with_dtx, without)]
    assert steps[0] < 1.1 * steps[1]
    loudest = [np.abs(x[near]).max() for x in (with_dtx, without)]
    assert loudest[0] == pytest.approx(loudest[1], rel=0.1)


def test_our_own_receiver_takes_dtx_for_silence_and_not_for_loss():
    voice = spoken()
    sound = np.concatenate([voice, noise(3.0, -66), voice])
    got, _ = pushed(sound)
    receiver = Receiver({96: OPUS})
    chunks = heard(receiver, [(100.0 + 0.02 * i, packet) for i, packet in got], after=0.0)
    assert receiver.counts.lost == receiver.counts.late == 0
    assert receiver.counts.concealed_seconds == 0.0
    assert len(sound_of(chunks)) == pytest.approx(len(sound), abs=960)
    quiet = [chunk for _, chunk in chunks if chunk.origin is Origin.COMFORT]
    assert 2.0 < sum(len(chunk.sound) for chunk in quiet) / 48000 < 2.8
    assert -9 < db(np.concatenate([chunk.sound for chunk in quiet])) + 66 < 2
    assert not any(chunk.pause for _, chunk in chunks)


def test_a_far_end_that_vanishes_in_dtx_is_played_on_for_ten_seconds():
    got, _ = pushed(noise(0.6, -66))
    receiver = Receiver({96: OPUS})
    arrivals = [(100.0 + 0.02 * i, packet) for i, packet in got]
    chunks = heard(receiver, arrivals, after=12.0)
    assert len(sound_of(chunks)) / 48000 == pytest.approx(10.2, abs=0.1)


OFFER = (
    "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n"
    "m=audio 4000 RTP/AVP 0 96\r\na=rtpmap:96 opus/48000/2\r\n{}a=sendrecv\r\n"
)


@pytest.mark.parametrize(
    ("parameters", "asks"),
    [
        ("", False),
        ("a=fmtp:96 usedtx=1\r\n", True),
        ("a=fmtp:96 minptime=10; usedtx = 1;useinbandfec=1\r\n", True),
        ("a=fmtp:96 usedtx=0\r\n", False),
        ("a=fmtp:96 usedtx\r\n", False),
        ("a=fmtp:0 usedtx=1\r\n", False),
    ],
)
@pytest.mark.parametrize("option", [None, True, False])
def test_an_end_gets_dtx_if_it_asks_or_if_the_option_says_so(parameters, asks, option):
    media = read_offer(parse_sdp(OFFER.format(parameters)), (OPUS,))
    settings = BridgeSettings(Target.parse("sip:x@192.0.2.2"), dtx=option)
    assert settings.sends_dtx(media) is (asks if option is None else option)
    # Another codec that was preferred has no DTX to ask for.
    assert not read_offer(parse_sdp(OFFER.format(parameters)), (PCMU,)).wants_dtx


@pytest.mark.skipif(phones.why_not() is not None, reason=phones.why_not() or "")
def test_a_baresip_that_asks_is_not_sent_silence_and_hears_every_word_begin(tmp_path):
    soundfile.write(tmp_path / "8k.wav", in_turns(8000, 14.0), 8000, subtype="PCM_16")
    both = np.zeros((48000 * 14, 2), np.float32)
    soundfile.write(tmp_path / "48k.wav", both, 48000, subtype="PCM_16")
    with phones.cable() as (there, here), contextlib.ExitStack() as undo:
        metrics = f"{phones.BRIDGE}:9100"
        undo.enter_context(phones.running_bridge(here, "--metrics", metrics))
        callee = phones.Phone(
            there, tmp_path / "callee", phones.CALLEE, tmp_path / "48k.wav",
            "answermode=auto;audio_codecs=opus/48000/2", "opus_dtx yes\n",
        )  # fmt: skip
        undo.callback(callee.close)
        caller = phones.Phone(
            there, tmp_path / "caller", phones.CALLER, tmp_path / "8k.wav", "audio_codecs=pcmu"
        )
        undo.callback(caller.close)
        caller.type(f"/dial sip:x@{phones.BRIDGE}:5060")
        caller.wait_for("Call established")
        time.sleep(12.0)
        fetched = subprocess.run(
            ["ip", "netns", "exec", here, "curl", "-s", f"http://{metrics}/metrics"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        callee.type("/hangup")
        caller.wait_for("terminated")
        time.sleep(0.5)
    lines = dict(line.rsplit(" ", 1) for line in fetched.stdout.splitlines() if line[:1] != "#")
    assert 5.0 < float(lines["rtsr_dtx_seconds_total"]) < 9.5
    assert float(lines["rtsr_far_packets_lost_total"]) == 0.0
    heard, rate = soundfile.read(callee.recording("dec"))
    heard = heard if heard.ndim == 1 else heard[:, 0]
    # It records what it decodes: words, the 200 ms behind them, an empty frame every 400 ms.
    assert 2.5 < len(heard) / rate < 7.0
    level, words = beginning_db(heard)
    expected, _ = beginning_db(in_turns(48000, 4.0)[24000:])
    assert words >= 4
    assert level == pytest.approx(expected, abs=2.0)
