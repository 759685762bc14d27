"""Codecs: known values, delays, and payloads that are none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network import speech

from rtsr.call.decoders import is_opus_silence, open_decoder, opus_bandwidth_hz, opus_duration
from rtsr.call.encoders import open_encoder
from rtsr.call.formats import COMFORT_NOISE, G722, LONGEST_PACKET_MS, OPUS, PCMA, PCMU
from rtsr.call.sender import Sender
from rtsr.errors import ArgumentError, AudioFormatError

CODECS = pytest.mark.parametrize("form", [PCMU, PCMA, G722, OPUS], ids=lambda form: form.name)


def there_and_back(form, sound, channels=1, bitrate=64_000):
    encoder, decoder = open_encoder(form, channels, bitrate), open_decoder(form, channels)
    size = encoder.frame_samples
    payloads = [encoder.encode(sound[i : i + size]) for i in range(0, len(sound) - size + 1, size)]
    return np.concatenate([decoder.decode(payload) for payload in payloads]), encoder


def test_g711_has_the_values_of_the_standard():
    # G.711, tables 1a and 2a: first and last code of each law, as 16-bit samples.
    codes = bytes([0x00, 0x7F, 0x80, 0xFF, 0xD5])
    mu, a = (open_decoder(form).decode(codes) for form in (PCMU, PCMA))
    assert (mu[:4, 0] * 32768).tolist() == [-32124.0, 0.0, 32124.0, 0.0]
    assert a[4, 0] * 32768 == 8.0


@CODECS
def test_sound_comes_back_as_late_as_the_encoder_says(form):
    click = np.zeros((form.sample_rate, 1), np.float32)
    click[form.sample_rate // 2] = 0.9
    got, encoder = there_and_back(form, click)
    at = int(np.argmax(np.abs(got[:, 0])))
    assert at - form.sample_rate // 2 == pytest.approx(encoder.delay_samples, abs=1)


def test_opus_carries_two_channels():
    left = speech(48000, 1.0)
    sound = np.stack([left, np.zeros_like(left)], axis=1)
    got, _ = there_and_back(OPUS, sound, channels=2, bitrate=96_000)
    assert np.abs(got[:, 0]).max() > 10 * np.abs(got[:, 1]).max()


def test_the_bitrate_of_opus_is_what_was_asked_for():
    sound = speech(48000, 5.0)[:, None]
    for bitrate in (24_000, 64_000):
        encoder = open_encoder(OPUS, 1, bitrate)
        size = sum(len(encoder.encode(sound[i : i + 960])) for i in range(0, len(sound), 960))
        assert size * 8 / 5.0 == pytest.approx(bitrate, rel=0.25)


def test_a_change_that_is_refused_changes_nothing_and_another_bitrate_loses_no_sound():
    sender = Sender(OPUS, 96, 2, 16_000)
    sound = np.repeat(speech(48000, 2.0)[:, None], 2, axis=1)
    with pytest.raises(AudioFormatError):
        sender.change(PCMU, 0, bitrate=64_000)
    assert sum(len(packet.payload) for packet in sender.push(sound)) * 4 < 24_000
    sender.push(sound[:500])
    waiting = sender.waiting
    sender.change(OPUS, 96, bitrate=64_000)
    assert sender.waiting == waiting > 0
    assert sum(len(packet.payload) for packet in sender.push(sound)) * 4 > 48_000


def test_opus_goes_on_by_itself_where_a_packet_is_lost():
    time = np.arange(48000) / 48000
    sound = (0.3 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)[:, None]
    encoder, decoder = open_encoder(OPUS), open_decoder(OPUS)
    for start in range(0, 24000, 960):
        decoder.decode(encoder.encode(sound[start : start + 960]))
    made_up = decoder.conceal(decoder.concealment_samples)
    assert made_up.shape == (960, 1)
    assert np.sqrt(np.mean(made_up**2)) > 0.1


@pytest.mark.parametrize(
    ("payload", "samples", "hz"),
    [
        (b"", 0, 0),
        (bytes([0 << 3, 1]), 480, 4000),  # SILK, narrow band, 10 ms
        (bytes([1 << 3 | 1, 1]), 1920, 4000),  # two frames of 20 ms
        (bytes([31 << 3 | 3, 6]), 5760, 20000),  # CELT, full band, six of 20 ms: 120 ms
        (bytes([31 << 3 | 3, 7]), 0, 20000),  # 140 ms
        (bytes([31 << 3 | 3]), 0, 20000),
    ],
)
def test_reads_what_an_opus_packet_says_of_itself(payload, samples, hz):
    assert (opus_duration(payload), opus_bandwidth_hz(payload)) == (samples, hz)


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"", False),
        (b"\x78", True),
        (b"\x78\x00", True),
        (b"\x78\x00\x00", False),
        (b"\x79\x00", False),
        (b"\x7b\x01", False),
    ],
    ids=["empty", "no frame", "a byte", "two bytes", "two frames", "a counted frame"],
)
def test_one_frame_of_a_byte_at_most_is_silence(payload, expected):
    assert is_opus_silence(payload) == expected


@pytest.mark.parametrize(("form", "bytes_per_ms"), [(PCMU, 8), (PCMA, 8), (G722, 8)])
def test_the_longest_packet_is_decoded_and_a_longer_one_is_not(form, bytes_per_ms):
    decoder = open_decoder(form)
    longest = LONGEST_PACKET_MS * bytes_per_ms
    assert len(decoder.decode(bytes(longest))) == LONGEST_PACKET_MS * form.sample_rate // 1000
    for length in (longest + 1, 0):
        with pytest.raises(AudioFormatError):
            decoder.decode(bytes(length))


def test_refuses_what_no_codec_does():
    with pytest.raises(AudioFormatError, match="no decoder for CN"):
        open_decoder(COMFORT_NOISE)
    with pytest.raises(AudioFormatError, match="PCMU does not carry 2 channels"):
        open_encoder(PCMU, 2)
    with pytest.raises(ArgumentError, match="6000 to 510000 bits per second, not 5"):
        open_encoder(OPUS, 1, 5)


@CODECS
@settings(max_examples=60, deadline=None)
@given(payload=st.binary(max_size=1300))
def test_a_payload_is_decoded_or_refused_and_never_anything_else(form, payload):
    try:
        sound = open_decoder(form).decode(payload)
    except AudioFormatError:
        return
    assert np.isfinite(sound).all()
    assert len(sound) <= form.sample_rate * 0.12
