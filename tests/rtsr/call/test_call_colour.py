"""A caller's colour: on the new band of a call, through a change of its codec."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from network import packets, sent, speech

from rtsr import ArgumentError, AutoColour, BatchUpsampler, Colour
from rtsr.call.call_stream import CallStream
from rtsr.call.engine import CallEngine
from rtsr.call.formats import G722, OPUS, PCMU
from rtsr.call.metrics import exposition
from rtsr.call.path import MediaPath
from rtsr.call.receiver import Chunk, Origin, Receiver
from rtsr.colour.bands import colour_edges
from rtsr.colour.degrade import degrade
from rtsr.runtime.models import find_model

FORMATS = {0: PCMU, 9: G722, 96: OPUS}


class Ear:
    """Takes the place of a sender and keeps the sound as it is."""

    sent = waiting = excess = 0
    format = OPUS

    def __init__(self):
        self.parts = []

    def push(self, sound):
        self.parts.append(sound)
        return []

    def pause(self, seconds):
        raise AssertionError("nobody pauses")

    def close(self):
        pass


def hear(batch, arrivals, colour, is_given_later=False):
    ear = Ear()
    stream = CallStream(batch, colour=None if is_given_later else colour)
    if is_given_later:
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


@pytest.mark.parametrize("is_given_later", [False, True], ids=["at the start", "later"])
def test_a_caller_keeps_a_colour_when_the_codec_changes(batch, is_given_later):
    facts = batch.model.metadata
    colour = Colour(facts.name, facts.weights_sha256, 10.0, ((-9.0,) * 24,) * 4)
    first = packets(speech(8000, 1.0))
    second = packets(speech(16000, 1.0), G722, 9, first_number=65530 + 50,
                     first_time=2**32 - 1600 + 50 * 160)  # fmt: skip
    plain, coloured = (
        hear(batch, sent(first + second), one, is_given_later) for one in (None, colour)
    )
    for part, low in ((slice(9600, 48000), 4500), (slice(57600, 96000), 8500)):
        lower = level_db(plain[part], low, 16000) - level_db(coloured[part], low, 16000)
        assert lower == pytest.approx(9.0, abs=0.5)
        kept = level_db(plain[part], 100, 3200) - level_db(coloured[part], 100, 3200)
        assert kept == pytest.approx(0.0, abs=0.05)


def test_a_caller_keeps_what_was_learnt_when_the_call_falls_to_a_telephones_codec(stand_in):
    """Six seconds of full-band sound, as Opus brings it, then 8 kHz: another codec, narrow."""
    noise = 0.1 * np.random.default_rng(0).standard_normal((6 * 48000, 1)).astype(np.float32)
    wide = np.append(noise[:1], noise[1:] + 0.5 * noise[:-1])[:, None]
    narrow = degrade(wide[: 2 * 48000], 8000)
    outs = {}
    auto = AutoColour(waits=True)
    with BatchUpsampler(1, model=stand_in, provider="cpu", overload="wait") as batch:
        for name, colour in (("plain", None), ("auto", auto)):
            stream = CallStream(batch, colour=colour)
            parts = []
            for sound, rate, cutoff in ((wide, 48000, None), (narrow, 8000, 4000.0)):
                for start in range(0, len(sound), rate // 50):
                    part = sound[start : start + rate // 50]
                    stream.push(Chunk(part, rate, cutoff, Origin.DECODED))
                    while batch.step():
                        pass
                    parts.append(stream.take())
            assert stream.colour is colour
            stream.close()
            outs[name] = np.concatenate(parts)[:, 0]
    assert np.array_equal(outs["plain"][: 6 * 48000], outs["auto"][: 6 * 48000])
    assert auto.learnt is not None
    learnt_hops = auto.learnt_hops
    assert learnt_hops >= 240
    rest = slice(7 * 48000, 8 * 48000 - 960)
    gain = level_db(outs["auto"][rest], 6000, 12000) - level_db(outs["plain"][rest], 6000, 12000)
    inside = (colour_edges()[:-1] >= 6000.0) & (colour_edges()[1:] <= 12000.0)
    assert gain == pytest.approx(np.mean(auto.learnt.gains_at(4000.0)[inside]), abs=1.5)
    assert abs(gain) > 2.0


def test_an_engine_gives_each_call_a_colour_of_its_own(stand_in):
    facts = find_model(stand_in).metadata
    colour = Colour(facts.name, facts.weights_sha256, 10.0, ((-9.0,) * 24,) * 4)

    async def run():
        async with CallEngine(3, model=stand_in, provider="cpu", colour="auto") as engine:
            lines = [
                await engine.open(Receiver(FORMATS), None, print, colour=one)
                for one in (None, None, colour)
            ]
            first, second, third = (line.path.stream.colour for line in lines)
            assert isinstance(first, AutoColour)
            assert isinstance(second, AutoColour)
            assert first is not second
            assert third is colour
            first.learnt_hops, first.skipped_hops = 300, 120
            lines[0].close()
            assert b"rtsr_colour_learnt_seconds_total 3.0" in exposition(engine)
            assert b"rtsr_colour_skipped_seconds_total 1.2" in exposition(engine)
            with pytest.raises(ArgumentError, match="not for model"):
                await engine.open_sound(8000, colour=Colour("x", "1" * 64, 1.0, colour.gains_db))
            sound = await engine.open_sound(8000)
            assert isinstance(sound.colour, AutoColour)
            sound.colour = colour
            assert sound.colour is colour
            plain = engine.open_plain(Receiver(FORMATS), None, print)
            with pytest.raises(ArgumentError, match="only transcoded"):
                plain.path.stream.colour = colour

    asyncio.run(run())
    with pytest.raises(ArgumentError, match="one caller's"):
        CallEngine(1, model=stand_in, provider="cpu", colour=AutoColour())
    with pytest.raises(ArgumentError, match="not for model"):
        CallEngine(1, provider="cpu", colour=colour)


def test_who_is_enhanced_in_place_of_another_has_their_own_colour(stand_in):
    facts = find_model(stand_in).metadata
    first, second, all_others = (
        Colour(facts.name, facts.weights_sha256, 10.0, ((gain,) * 24,) * 4)
        for gain in (-9.0, -6.0, -3.0)
    )

    async def run():
        async with CallEngine(1, model=stand_in, provider="cpu", colour=all_others) as engine:
            one = await engine.open(Receiver(FORMATS), None, print, colour=first)
            other = engine.open_plain(Receiver(FORMATS), None, print)
            await engine.exchange(one, other, colour=second)
            assert engine.lines == (other,)
            assert other.path.stream.colour is second
            # For when the first is enhanced again.
            assert one.path.stream.colour is first
            await engine.exchange(other, one, colour=first)
            assert engine.lines == (one,)
            assert one.path.stream.colour is first
            await engine.exchange(one, other)
            assert other.path.stream.colour is all_others

    asyncio.run(run())


def test_a_colour_of_another_model_is_refused_at_once(batch):
    stream = CallStream(batch)
    try:
        with pytest.raises(ArgumentError, match="not for model"):
            stream.colour = Colour("other", "1" * 64, 10.0, ((1.0,) * 24,) * 4)
        assert stream.colour is None
    finally:
        stream.close()
