"""A caller's colour: on the new band of a call, through a change of its codec."""

from __future__ import annotations

import numpy as np
import pytest
from network import packets, sent, speech

from rtsr import ArgumentError, Colour
from rtsr.call.call_stream import CallStream
from rtsr.call.formats import G722, OPUS, PCMU
from rtsr.call.path import MediaPath
from rtsr.call.receiver import Receiver

FORMATS = {0: PCMU, 9: G722, 96: OPUS}


class Ear:
    """Takes the place of a sender and keeps the sound as it is."""

    sent = 0

    def __init__(self):
        self.parts = []

    def push(self, sound):
        self.parts.append(sound)
        return []

    def pause(self, seconds):
        raise AssertionError("nobody pauses")


def hear(batch, arrivals, colour):
    ear = Ear()
    stream = CallStream(batch)
    stream.colour = colour
    path = MediaPath(Receiver(FORMATS), stream, ear, print)
    waiting = list(arrivals)
    now, end = waiting[0][0], waiting[-1][0] + 0.01
    while now < end:
        while waiting and waiting[0][0] <= now:
            path.receive(waiting.pop(0)[1], now)
        path.advance(now)
        while batch.step():
            pass
        path.deliver(now)
        now += 0.01
    path.close()
    assert stream.colour == colour
    return np.concatenate(ear.parts)[:, 0]


def level_db(sound, low, high):
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)))) ** 2
    frequency = np.fft.rfftfreq(len(sound), 1 / 48000)
    return 10 * np.log10(spectrum[(frequency >= low) & (frequency < high)].sum() + 1e-12)


def test_a_caller_keeps_a_colour_when_the_codec_changes(batch):
    facts = batch.model.metadata
    colour = Colour(facts.name, facts.weights_sha256, 10.0, ((-9.0,) * 24,) * 4)
    first = packets(speech(8000, 1.0))
    second = packets(speech(16000, 1.0), G722, 9, first_number=65530 + 50,
                     first_time=2**32 - 1600 + 50 * 160)  # fmt: skip
    plain, coloured = (hear(batch, sent(first + second), one) for one in (None, colour))
    for part, low in ((slice(9600, 48000), 4500), (slice(57600, 96000), 8500)):
        lower = level_db(plain[part], low, 16000) - level_db(coloured[part], low, 16000)
        assert lower == pytest.approx(9.0, abs=0.5)
        kept = level_db(plain[part], 100, 3200) - level_db(coloured[part], 100, 3200)
        assert kept == pytest.approx(0.0, abs=0.05)


def test_a_colour_of_another_model_is_refused_at_once(batch):
    stream = CallStream(batch)
    try:
        with pytest.raises(ArgumentError, match="not for model"):
            stream.colour = Colour("other", "1" * 64, 10.0, ((1.0,) * 24,) * 4)
        assert stream.colour is None
    finally:
        stream.close()
