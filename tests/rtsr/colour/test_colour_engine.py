"""A colour in the engine: its gains, its fades, a stream of a batch like one alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from rtsr import ArgumentError, BatchUpsampler, Colour, Upsampler, enhance_file
from rtsr.engine.hop_engine import HopEngine

MakeColour = Callable[..., Colour]
MakeSound = Callable[..., np.ndarray]

HOP = 480


def _enhance(model: Any, sound: np.ndarray, colour: Colour | None, **settings: Any) -> np.ndarray:
    with Upsampler(8000, model=model, colour=colour, limiter=False, **settings) as upsampler:
        return np.concatenate([upsampler.process(sound), upsampler.flush()])


@pytest.fixture
def sound(make_sound: MakeSound) -> np.ndarray:
    return make_sound(8000, 0.6, cutoff=3600)[:, 0]


def test_a_gain_of_6_db_doubles_the_new_band_and_nothing_else(
    model: str, make_colour: MakeColour, sound: np.ndarray
) -> None:
    dry = _enhance(model, sound, None, wet=0.0)
    plain = _enhance(model, sound, None) - dry
    colour = make_colour(20 * np.log10(2.0), model)
    coloured = _enhance(model, sound, colour) - dry
    # The first hop fades.
    np.testing.assert_allclose(coloured[3 * HOP :], 2.0 * plain[3 * HOP :], atol=1e-5)
    assert np.abs(plain[3 * HOP :]).max() > 1e-3


def test_a_colour_changes_no_latency_and_no_low_band(
    stand_in: Path, make_colour: MakeColour, sound: np.ndarray
) -> None:
    colour = make_colour(np.linspace(-12, 12, 24), stand_in)
    with Upsampler(8000, model=stand_in) as plain:
        expected = plain.latency
    with Upsampler(8000, model=stand_in, colour=colour) as coloured:
        assert coloured.latency == expected
    dry = _enhance(stand_in, sound, None, wet=0.0)
    window = np.hanning(len(dry) - 4 * HOP)
    hz = np.fft.rfftfreq(len(window), 1 / 48000)
    low = [
        np.sum(
            np.abs(np.fft.rfft((_enhance(stand_in, sound, one) - dry)[4 * HOP :] * window))[
                hz < 3300
            ]
        )
        for one in (colour, None)
    ]
    # What the high-pass leaves there gets the gain of the lowest band.
    assert low[0] < 0.3 * low[1]


def test_taking_the_colour_away_leaves_nothing_of_it(
    stand_in: Path, make_colour: MakeColour, sound: np.ndarray
) -> None:
    colour = make_colour(9.0, stand_in)
    with (
        Upsampler(8000, model=stand_in, cutoff=4000.0) as changed,
        Upsampler(8000, model=stand_in, cutoff=4000.0) as plain,
    ):
        parts = [[one.process(sound[:800]) for one in (changed, plain)]]
        changed.colour = colour
        assert changed.colour == colour
        parts.append([one.process(sound[800:1600]) for one in (changed, plain)])
        changed.colour = None
        parts.append([one.process(sound[1600:1680]) for one in (changed, plain)])
        parts.append([one.process(sound[1680:]) for one in (changed, plain)])
    np.testing.assert_array_equal(*parts[0])
    assert (parts[1][0] != parts[1][1]).any()
    # What the high-pass still holds dies away within a few hops.
    np.testing.assert_allclose(*(part[4 * HOP :] for part in parts[3]), atol=1e-6)


def test_a_colour_that_comes_and_goes_ramps_over_a_hop(
    stand_in: Path, make_colour: MakeColour, make_sound: MakeSound
) -> None:
    sound = make_sound(48000, 0.3, cutoff=3600)[:, 0]
    outs: dict[str, np.ndarray] = {}
    gain = np.ones(len(sound))
    for name, wet in (("coloured", 1.0), ("plain", 1.0), ("dry", 0.0)):
        blocks = []
        with Upsampler(
            48000, model=stand_in, wet=wet, cutoff=4000.0, limiter=False, blocks_are_hops=True
        ) as upsampler:
            before = 1.0
            for hop, start in enumerate(range(0, len(sound), HOP)):
                if name == "coloured":
                    after = 3.0 if hop // 5 % 2 else 1.0
                    upsampler.colour = (
                        make_colour(20 * np.log10(3.0), stand_in) if after > 1 else None
                    )
                    ramp = np.arange(1, HOP + 1) / HOP
                    gain[start : start + HOP] = before + (after - before) * ramp
                    before = after
                blocks.append(upsampler.process(sound[start : start + HOP]))
        outs[name] = np.concatenate(blocks)
    band, plain = outs["coloured"] - outs["dry"], outs["plain"] - outs["dry"]
    # Off by what a high-pass of a ramp is not the ramp of a high-pass.
    assert np.std(band - gain * plain) < 0.03 * np.std(gain * plain)


@pytest.mark.parametrize("hops", [1, 4])
def test_streams_of_a_batch_have_each_their_own(
    stand_in: Path, make_colour: MakeColour, make_sound: MakeSound, hops: int
) -> None:
    colours = [None, make_colour(6.0, stand_in), make_colour(np.linspace(9, -9, 24), stand_in)]
    sounds = [make_sound(8000, 0.48, cutoff=3600, channels=2, seed=seed) for seed in range(3)]
    with BatchUpsampler(
        6, model=stand_in, hops_per_step=hops, buffer_ms=1000, overload="wait"
    ) as batch:
        streams = [batch.open(8000, channels=2, colour=colour) for colour in colours]
        parts: list[list[np.ndarray]] = [[], [], []]
        for start in range(0, len(sounds[0]), 320):
            for stream, one in zip(streams, sounds, strict=True):
                stream.push(one[start : start + 320])
            if start == 1920:
                streams[0].colour, streams[1].colour = colours[2], None
            while batch.step():
                pass
            for stream, got in zip(streams, parts, strict=True):
                got.append(stream.pull())
        assert [stream.colour for stream in streams] == [colours[2], None, colours[2]]
    for number, one in enumerate(sounds):
        with Upsampler(
            8000, model=stand_in, hops_per_step=hops, channels=2, colour=colours[number]
        ) as alone:
            expected = []
            for start in range(0, len(one), 320):
                if start == 1920 and number < 2:
                    alone.colour = colours[2] if number == 0 else None
                expected.append(alone.process(one[start : start + 320]))
        got = np.concatenate(parts[number])
        wanted = np.concatenate(expected)[HOP * hops :]
        np.testing.assert_allclose(got[: len(wanted)], wanted, atol=1e-5)


def test_a_place_in_a_batch_keeps_no_colour_of_who_had_it_before(
    stand_in: Path, make_colour: MakeColour, sound: np.ndarray
) -> None:
    expected = _enhance(stand_in, sound, None)
    with BatchUpsampler(1, model=stand_in, buffer_ms=1000, overload="wait") as batch:
        for colour in (make_colour(12.0, stand_in), None):
            stream = batch.open(8000, colour=colour, limiter=False)
            stream.push(sound)
            while batch.step():
                pass
            got = stream.pull()
            stream.close()
    np.testing.assert_allclose(got, expected[HOP:][: len(got)], atol=1e-5)


def test_a_narrower_cutoff_brings_its_own_gains(
    stand_in: Path, make_colour: MakeColour, make_sound: MakeSound
) -> None:
    flat = make_colour(0.0, stand_in)
    rows = ((6.0,) * 24, (6.0,) * 24, (-6.0,) * 24, (-6.0,) * 24)
    colour = Colour(flat.model, flat.weights_sha256, 10.0, rows)
    wide = make_sound(48000, 0.4, cutoff=3600)[:, 0]
    outs = []
    for given in (colour, None):
        with Upsampler(
            48000, model=stand_in, colour=given, cutoff=8000.0, limiter=False
        ) as upsampler:
            first = upsampler.process(wide[:9600])
            upsampler.cutoff = 4000.0
            outs.append(np.concatenate([first, upsampler.process(wide[9600:])]))
    dry = np.concatenate([np.zeros(600, np.float32), wide])[: len(wide)]
    ratios = [
        np.sqrt(np.mean((outs[0] - dry)[part] ** 2) / np.mean((outs[1] - dry)[part] ** 2))
        for part in (slice(3 * HOP, 9600), slice(9600 + 3 * HOP, None))
    ]
    assert 20 * np.log10(ratios) == pytest.approx([-6.0, 6.0], abs=0.3)


def test_files_take_a_colour(
    stand_in: Path, make_colour: MakeColour, sound: np.ndarray, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "in.wav", sound, 8000, "FLOAT")
    results = []
    for gain in (0.0, 12.0):
        path = tmp_path / f"{gain}.wav"
        enhance_file(tmp_path / "in.wav", path, model=stand_in, colour=make_colour(gain, stand_in))
        results.append(soundfile.read(path)[0])
    high = [np.abs(np.fft.rfft(one))[len(one) // 8 :] for one in results]
    assert high[1].sum() > 2.0 * high[0].sum()
    with pytest.raises(ArgumentError, match="not for model"):
        enhance_file(
            tmp_path / "in.wav", tmp_path / "no.wav", model=stand_in, colour=make_colour(3.0)
        )
    assert not (tmp_path / "no.wav").exists()


def test_a_band_that_another_model_makes_is_not_coloured(
    stand_in: Path, make_colour: MakeColour
) -> None:
    colour = make_colour(12.0, stand_in)
    engine = HopEngine(2, 2, 1, 120, 1)
    for row in range(2):
        engine.join(
            row,
            [row],
            native_hz=4000.0,
            f_target=22000.0,
            cutoff=4000.0,
            colour=colour if row == 0 else None,
        )
    rows = np.arange(2)
    random = np.random.default_rng(0)
    levels = []
    for step in range(40):
        # What is said of one row leaves the other alone.
        engine.set_coloured(rows, np.array([not 10 <= step < 30, step % 2 == 0]))
        if step == 15:
            engine.set_cutoff(0, 3900.0)
            engine.set_cutoff(1, 3900.0)
        audio = np.repeat(random.normal(0.0, 0.1, (1, HOP)), 2, axis=0).astype(np.float32)
        band = np.repeat(random.normal(0.0, 0.1, (1, HOP)), 2, axis=0).astype(np.float32)
        out = np.empty_like(audio)
        dry = np.concatenate([np.zeros(120), audio[0, :-120]])
        engine.begin_rows(rows, audio)
        engine.finish_rows(rows, audio, band, out)
        levels.append(np.std(out[0, 120:] - dry[120:]) / np.std(out[1, 120:] - dry[120:]))
    expected = np.full(40, 10 ** (12 / 20))
    expected[10:30] = 1.0
    steady = np.ones(40, np.bool_)
    # A hop fades, and the high-pass has a memory.
    steady[[0, 1, 10, 11, 12, 30, 31]] = False
    np.testing.assert_allclose(np.array(levels)[steady], expected[steady], rtol=0.02)


def test_hops_that_a_batch_takes_two_at_once_are_coloured_as_in_a_stream_alone(
    make_colour: MakeColour, make_sound: MakeSound
) -> None:
    """What is heard in the second hop counts from the second hop on."""
    colour = make_colour(9.0, "small", (0.0, 6.0, 5.0, 4.0, 0.0, -3.0, -3.0, -3.0, -3.0, -3.0))
    sound = make_sound(48000, 1.2, cutoff=3500, level=0.2)[:, 0]
    shares = []
    with BatchUpsampler(1, buffer_ms=500, overload="wait") as batch:
        stream = batch.open(48000, cutoff=3600.0, colour=colour)
        parts = []
        # One hop ahead, so that a comparison falls on the second of two.
        for start, end in [(0, 480), *((at, at + 960) for at in range(480, len(sound), 960))]:
            stream.push(sound[start:end])
            assert batch.step() == 1
            parts.append(stream.pull())
            shares.append(stream.colour_share)
        result = np.concatenate(parts)
    assert len(set(shares)) > 3, "the share moves"
    with Upsampler(48000, cutoff=3600.0, colour=colour) as upsampler:
        expected = np.concatenate([upsampler.process(sound), upsampler.flush()])[480:]
    assert np.abs(result - expected[: len(result)]).max() <= 1e-5
