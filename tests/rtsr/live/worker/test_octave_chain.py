"""The chain beyond 48 kHz: what stays as it is, what is added, and what can be done without."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from rtsr.batch.shedding import PREROLL_HOPS
from rtsr.colour.colour import Colour
from rtsr.engine.replicate import ReplicateSource
from rtsr.engine.sources import HighBandSource
from rtsr.engine.statistics import Statistics
from rtsr.errors import ArgumentError
from rtsr.live.controls.board import ControlBoard
from rtsr.live.shared.timing import TimelineClock
from rtsr.live.worker.chain import LiveChain
from rtsr.live.worker.fallback_levels import build_octave_source, replicate_end_hz
from rtsr.live.worker.octave_chain import OctaveChain
from rtsr.live.worker.settings import WorkerSettings
from rtsr.live.worker.switched_source import SwitchedSource
from rtsr.timing import HOP, OVERLAP
from rtsr.upsampler import Upsampler

WITH_OCTAVE, WITHOUT, DRY = "replicate+octave", "replicate", "dry"


class Rig:
    """A chain of replication, and sound that goes through it hop by hop."""

    def __init__(
        self,
        rate: int = 96000,
        channels: int = 1,
        native_hz: float | None = None,
        source: HighBandSource | None = None,
        expected_cutoff_hz: float | None = None,
    ) -> None:
        self.clock = TimelineClock(rate)
        self.board = ControlBoard(None, (WITH_OCTAVE, WITHOUT, DRY), rate / 2)
        native_hz = rate / 2 if native_hz is None else native_hz
        self.statistics = Statistics()
        chain = LiveChain(
            {WITHOUT: ReplicateSource(channels, 0)},
            self.board,
            channels,
            min(native_hz, 24000.0),
            self.statistics,
            expected_cutoff_hz=expected_cutoff_hz,
            f_target=24000.0,
            ends_hz={WITHOUT: replicate_end_hz()},
            limiter=False,
            coloured_levels=(WITHOUT,),
        )
        self.chain = OctaveChain(
            chain,
            source or ReplicateSource(channels, 0),
            self.clock,
            native_hz,
            self.statistics,
            {WITH_OCTAVE: WITHOUT},
            expected_cutoff_hz,
        )

    def run(self, sound: np.ndarray, level: str = WITH_OCTAVE) -> np.ndarray:
        """What comes out, as long and as late as it is."""
        hop = self.clock.hop
        out = np.zeros_like(sound[: len(sound) // hop * hop])
        for start in range(0, len(out), hop):
            part = slice(start, start + hop)
            self.chain.step(sound[part], out[part], level)
        return out


def level_db(sound: np.ndarray, rate: int, low_hz: float, high_hz: float) -> float:
    power = np.square(np.abs(np.fft.rfft(sound[:, 0] * np.hanning(len(sound)))))
    hertz = np.fft.rfftfreq(len(sound), 1.0 / rate)
    band = power[(hertz >= low_hz) & (hertz < high_hz)].sum()
    return float(10.0 * np.log10(band / len(sound) ** 2 + 1e-20))


def noise(rate: int, seconds: float, channels: int = 1) -> np.ndarray:
    chance = np.random.default_rng(0)
    return chance.normal(0.0, 0.1, (round(rate * seconds), channels)).astype(np.float32)


@pytest.mark.parametrize("rate", [96000, 192000])
@pytest.mark.parametrize("level", [WITH_OCTAVE, WITHOUT, DRY])
def test_full_band_passes_bit_for_bit_after_the_stated_time(rate: int, level: str) -> None:
    rig = Rig(rate, channels=2)
    sound = noise(rate, 0.3, channels=2)
    out = rig.run(sound, level)
    lag = rig.clock.lag
    assert np.array_equal(out[lag:], sound[: len(out) - lag])
    assert not out[:lag].any()
    assert rig.chain.cutoff_hz == rate / 2


def test_what_is_stated_is_what_the_parts_take() -> None:
    # Down and up again 22 each, the overlap at 48 kHz 240, that of the octave 120.
    clock = TimelineClock(96000)
    assert (clock.lag, clock.overlap, clock.octaves) == (404, 240, 164)
    clock = TimelineClock(192000)
    assert (clock.lag, clock.overlap, clock.octaves) == (688, 480, 208)
    clock = TimelineClock(48000)
    assert (clock.lag, clock.overlap, clock.octaves) == (OVERLAP, OVERLAP, 0)


@pytest.mark.parametrize(
    ("rate", "octave_model"),
    [(96000, "replicate"), (192000, "replicate"), (96000, "octave"), (192000, "small")],
)
def test_what_is_added_is_as_loud_as_an_upsampler_s(
    rate: int, octave_model: str, make_sound: Callable[..., np.ndarray]
) -> None:
    sound = make_sound(48000, 1.0, cutoff=6000)
    # Replication remembers a beginning that is a step, and each of the two would see another one.
    sound[:9600] *= np.linspace(0.0, 1.0, 9600, dtype=np.float32)[:, None]
    with Upsampler(
        48000,
        model="replicate",
        octave_model=octave_model,
        output_rate=rate,
        cutoff=6000.0,
        limiter=False,
    ) as upsampler:
        expected = upsampler.process(sound)
    source = build_octave_source(
        WorkerSettings(channels=1, octave_model=octave_model), rate // 48000, Statistics()
    )
    rig = Rig(rate, native_hz=24000.0, source=source)
    rig.board.set("cutoff_hz", 6000.0)
    with Upsampler(48000, model="replicate", output_rate=rate, wet=0.0) as plain:
        # Silence first would be taken for the room's noise.
        wide = plain.process(sound)[plain.latency.algorithmic_samples :]
    out = rig.run(wide)
    dry = np.concatenate([np.zeros((rig.clock.lag, 1), np.float32), wide])[: len(out)]
    added = out - dry
    assert level_db(added, rate, 20, 5000) < level_db(dry, rate, 20, 5000) - 60.0
    steady = slice(rate // 2, None)
    edges = (6000.0, 12000.0, 24000.0, 48000.0, 96000.0)
    for low, high in pairwise(edges):
        if high <= rate / 2:
            found, wanted = (
                level_db(part[steady], rate, low, 0.9 * high) for part in (out, expected)
            )
            assert found == pytest.approx(wanted, abs=1.0)


@pytest.mark.parametrize(
    ("model", "factor", "made_by"),
    [("small", 2, "octave"), ("small", 4, "small"), ("replicate", 2, "replicate"),
     ("dry", 4, "replicate")],
)  # fmt: skip
def test_what_makes_the_octaves_unless_told_otherwise(
    model: str, factor: int, made_by: str
) -> None:
    source = build_octave_source(WorkerSettings(channels=2, model=model), factor, Statistics())
    assert (source.name, source.channels) == (made_by, 2)


def test_the_seed_counts_for_the_octave(make_sound: Callable[..., np.ndarray]) -> None:
    sound = make_sound(96000, 0.4, cutoff=23900)
    octaves = []
    for seed in (1, 1, 2):
        rig = Rig(native_hz=24000.0)
        rig.board.set("seed", seed)
        out = rig.run(sound)
        octaves.append(out[rig.clock.lag :] - sound[: len(out) - rig.clock.lag])
    assert np.array_equal(octaves[0], octaves[1])
    levels = [level_db(octave, 96000, 27000, 44000) for octave in octaves]
    # Another texture of the same level, part of which is no noise.
    difference = level_db(octaves[2] - octaves[0], 96000, 27000, 44000)
    assert levels[2] == pytest.approx(levels[0], abs=1.0)
    assert difference > levels[0] - 6.0


@pytest.mark.parametrize("known_hz", [4000.0, 26000.0])
def test_an_octave_is_there_at_once_where_the_content_is_known_to_end(
    make_sound: Callable[..., np.ndarray], known_hz: float
) -> None:
    sound = make_sound(96000, 0.2, cutoff=known_hz)
    levels = []
    for expected_hz in (None, known_hz):
        rig = Rig(expected_cutoff_hz=expected_hz)
        levels.append(level_db(rig.run(sound), 96000, 32000, 40000))
    assert levels[1] > levels[0] + 15.0
    assert rig.chain.cutoff_hz == pytest.approx(known_hz, rel=0.02)


def test_content_beyond_24_khz_is_kept_and_continued(
    make_sound: Callable[..., np.ndarray],
) -> None:
    sound = make_sound(96000, 2.0, cutoff=26000)
    sound += np.random.default_rng(1).normal(0, 1e-6, sound.shape).astype(np.float32)
    rig = Rig()
    out = rig.run(sound)
    assert rig.chain.cutoff_hz == pytest.approx(26000, rel=0.05)
    newest = slice(-96000 // 2, None)
    added = out[rig.clock.lag :] - sound[: len(out) - rig.clock.lag]
    below = level_db(sound[newest], 96000, 18000, 22000)
    assert level_db(added[newest], 96000, 18000, 22000) < below - 40.0
    assert level_db(out[newest], 96000, 28000, 40000) > below - 20.0


def test_the_octave_goes_and_comes_back_without_a_click(
    make_sound: Callable[..., np.ndarray],
) -> None:
    rig = Rig(native_hz=24000.0)
    sound = make_sound(96000, 1.2, cutoff=23900)
    part = 96000 * 2 // 5
    pieces = (
        rig.run(sound[:part]),
        rig.run(sound[part : 2 * part], WITHOUT),
        rig.run(sound[2 * part :]),
    )
    levels = [level_db(piece[part // 2 :], 96000, 27000, 44000) for piece in pieces]
    assert levels[1] < levels[0] - 40.0
    assert levels[2] == pytest.approx(levels[0], abs=3.0)
    out = np.concatenate(pieces)
    added = out[rig.clock.lag :] - sound[: len(out) - rig.clock.lag]
    # A click would be heard below.
    assert level_db(added, 96000, 20, 18000) < level_db(sound, 96000, 20, 18000) - 60.0


@pytest.mark.parametrize(
    ("control", "value", "from_hz"),
    [("wet", 0.0, 26000), ("bypass", 1.0, 26000), ("gate_dbfs", -30.0, 26000),
     ("ceiling_hz", 24000.0, 26000), ("ceiling_hz", 32000.0, 36000)],
)  # fmt: skip
def test_controls_count_beyond_48_khz(
    control: str, value: float, from_hz: float, make_sound: Callable[..., np.ndarray]
) -> None:
    sound = make_sound(96000, 0.8, cutoff=23900, level=0.01)
    rigs = Rig(native_hz=24000.0), Rig(native_hz=24000.0)
    rigs[1].board.set(control, value)
    levels = [level_db(rig.run(sound)[48000:], 96000, from_hz, 44000) for rig in rigs]
    assert levels[1] < levels[0] - 25.0


def test_the_octave_follows_what_a_colour_changes_below_it(
    make_sound: Callable[..., np.ndarray],
) -> None:
    sound = make_sound(96000, 1.0, cutoff=6000)
    rigs = Rig(native_hz=24000.0), Rig(native_hz=24000.0)
    rigs[1].chain.renew_colour(Colour("replicate", "0" * 64, 12.0, ((-6.0,) * 24,) * 4))
    outs = []
    for rig in rigs:
        rig.board.set("cutoff_hz", 6000.0)
        outs.append(rig.run(sound)[48000:])
    assert [rig.chain.colour_share for rig in rigs] == [0.0, 1.0]
    for low, high in ((8000, 18000), (28000, 40000)):
        plain, coloured = (level_db(out, 96000, low, high) for out in outs)
        assert coloured == pytest.approx(plain - 6.0, abs=0.5)


def test_after_a_gap_the_dry_sound_is_whole_at_once() -> None:
    rig = Rig()
    sound = noise(96000, 0.3)
    hop = rig.clock.hop
    rig.run(sound[: 5 * hop], DRY)
    rig.chain.resume(15, sound[15 * hop - rig.chain.past : 15 * hop])
    out = rig.run(sound[15 * hop :], DRY)
    start = 15 * hop - rig.clock.lag
    assert np.array_equal(out, sound[start : start + len(out)])


def test_loud_sound_stays_within_full_scale_only_where_something_is_added() -> None:
    rig = Rig(native_hz=24000.0)
    loud = np.sign(noise(96000, 0.2)) * np.float32(0.99)
    assert np.max(np.abs(rig.run(loud))) <= 1.0
    assert rig.statistics.limited_samples > 0
    rig = Rig()
    rig.run(loud)
    assert rig.statistics.limited_samples == 0


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ArgumentError, match="no fallback level 'large'; there are replicate, dry"):
        Rig().run(noise(96000, 0.01), "large")


class CountedSource:
    """A source of ones that says how often it was asked, and from where on."""

    name, channels, hops, overlap, seed = "ones", 1, 1, OVERLAP, 0

    def __init__(self) -> None:
        self.frame = self.steps = self.resets = 0

    def reset(self) -> None:
        self.frame = 0
        self.resets += 1

    def resume(self, frame: int) -> None:
        self.frame = frame

    def generate(self, audio: np.ndarray, f_prior: np.ndarray, f_target: float) -> np.ndarray:
        self.frame += 1
        self.steps += 1
        return np.ones((HOP, 1), np.float32)


def test_a_source_that_is_switched_off_takes_no_steps() -> None:
    source = CountedSource()
    switched = SwitchedSource(source)
    nothing, cutoff = np.zeros((HOP, 1), np.float32), np.zeros(1, np.float32)

    def step(is_wanted: bool) -> np.ndarray:
        switched.is_wanted = is_wanted
        return switched.generate(nothing, cutoff, 24000.0)[:, 0].copy()

    assert np.all(step(True) == 1.0)
    falling = step(False)
    assert np.all(np.diff(falling) < 0.0)
    assert falling[-1] == 0.0
    assert switched.sounds
    assert not any(step(False).any() for _ in range(5))
    assert (source.steps, switched.sounds) == (2, False)
    assert not any(step(True).any() for _ in range(PREROLL_HOPS))
    # It began anew, at the hop that it was at.
    assert (source.resets, source.frame) == (2, 7 + PREROLL_HOPS)
    rising = step(True)
    assert np.all(np.diff(rising) > 0.0)
    assert rising[-1] == 1.0
    assert np.all(step(True) == 1.0)
    # Given up while it is not heard yet.
    for wanted in (False, False, True, False):
        step(wanted)
    assert not switched.sounds


@pytest.mark.parametrize("attribute", ["channels", "hops", "overlap"])
def test_octaves_of_another_timing_are_refused(attribute: str) -> None:
    source = CountedSource()
    setattr(source, attribute, 2)
    with pytest.raises(ArgumentError, match=f"octaves' source 'ones' has 2 .*{attribute[:3]}"):
        Rig(source=source)


def test_a_source_may_begin_switched_off() -> None:
    switched = SwitchedSource(CountedSource())
    switched.is_wanted = False
    nothing = np.zeros((HOP, 1), np.float32)
    assert not switched.generate(nothing, np.zeros(1, np.float32), 24000.0).any()
