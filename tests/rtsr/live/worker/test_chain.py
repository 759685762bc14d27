"""The chain against the engine behind `rtsr enhance`, its changes of level, and its controls."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from rtsr.engine.statistics import Statistics
from rtsr.errors import ArgumentError
from rtsr.live.controls.board import ControlBoard
from rtsr.live.worker.chain import LiveChain
from rtsr.timing import OVERLAP

HOP = 480
LEVELS = ("base", "small", "dry")


class ToneSource:
    """A source whose high band is one sine: any break in it can be seen and measured."""

    hops = 1
    overlap = OVERLAP

    def __init__(self, name: str, hz: float, channels: int = 1, amplitude: float = 0.1) -> None:
        self.name = name
        self.channels = channels
        self.seed = -1
        self._hz = hz
        self._amplitude = amplitude
        self._out = np.zeros((HOP, channels), np.float32)
        self.calls: list[int] = []
        self.f_targets: list[float] = []
        self.resets = 0
        self.frame = 0

    def reset(self) -> None:
        self.frame = 0
        self.resets += 1

    def resume(self, frame: int) -> None:
        self.frame = frame

    def generate(self, audio: np.ndarray, f_prior: np.ndarray, f_target: float) -> np.ndarray:
        time = HOP * self.frame + np.arange(HOP)
        self._out[:] = (self._amplitude * np.sin(2 * np.pi * self._hz * time / 48000))[:, None]
        self.calls.append(self.frame)
        self.f_targets.append(f_target)
        self.frame += 1
        return self._out


class Rig:
    """A chain on synthetic levels, at a cutoff of 4 kHz, with a low sine as input."""

    def __init__(self, channels: int = 1, **options) -> None:
        self.base = ToneSource("base", 12000.0, channels)
        self.small = ToneSource("small", 9000.0, channels)
        self.board = ControlBoard(fallback_levels=LEVELS)
        self.board.set("cutoff_hz", 4000.0)
        self.statistics = Statistics()
        self.chain = LiveChain(
            {"base": self.base, "small": self.small},
            self.board,
            channels,
            24000.0,
            self.statistics,
            **options,
        )
        for source in (self.base, self.small):
            source.calls.clear()
            source.f_targets.clear()
        self.channels = channels
        self.hops = 0

    def run(self, hops: int, level: str = "base", peak: float = 0.25) -> np.ndarray:
        """Output of so many hops, less the dry signal: what was added to it."""
        added = np.zeros((hops * HOP, self.channels), np.float32)
        for hop in range(hops):
            out = np.empty((HOP, self.channels), np.float32)
            self.chain.step(self.dry(self.hops, peak), out, level)
            start = self.hops * HOP - OVERLAP
            expected = self.sound(np.arange(start, start + HOP), peak)
            if self.hops == 0:
                expected[:OVERLAP] = 0.0
            added[hop * HOP : (hop + 1) * HOP] = out - expected
            self.hops += 1
        return added

    def dry(self, hop: int, peak: float = 0.25) -> np.ndarray:
        return self.sound(np.arange(hop * HOP, (hop + 1) * HOP), peak)

    def sound(self, time: np.ndarray, peak: float) -> np.ndarray:
        wave = peak * np.sin(2 * np.pi * 700.0 * time / 48000)
        return np.repeat(wave[:, None], self.channels, axis=1).astype(np.float32)


def amplitude(signal: np.ndarray, hz: float) -> float:
    time = np.arange(len(signal))
    return float(2 * np.abs(np.mean(signal[:, 0] * np.exp(-2j * np.pi * hz * time / 48000))))


def splatter_db(signal: np.ndarray, below_hz: float = 3000.0) -> float:
    """Strongest short trace below a frequency, in dB of the sines' amplitude."""
    window = np.blackman(256)
    frames = np.lib.stride_tricks.sliding_window_view(signal[:, 0], 256)[::16] * window
    low = np.fft.rfftfreq(256, 1 / 48000) < below_hz
    spectra = np.abs(np.fft.rfft(frames, axis=1))[:, low] / (0.05 * window.sum())
    return float(20 * np.log10(spectra.max() + 1e-12))


# --- the same samples as everywhere else ---


@pytest.mark.parametrize("channels", [1, 2])
def test_defaults_give_the_bits_of_the_engine(
    model: str, make_sound: Callable[..., np.ndarray], channels: int
):
    from rtsr.engine.sources import ModelSource
    from rtsr.runtime.models import find_model
    from rtsr.runtime.session import OnnxStep
    from rtsr.upsampler import Upsampler

    sound = make_sound(48000, 2.0, cutoff=4000.0, channels=channels)
    expected = Upsampler(48000, model=model, channels=channels, seed=7).process(sound)

    statistics = Statistics()
    board = ControlBoard()
    board.set("seed", 7)
    source = ModelSource(OnnxStep(model, batch=channels), 0, statistics)
    f_target = find_model(model).metadata.f_target_default
    chain = LiveChain({"base": source}, board, channels, 24000.0, statistics, f_target=f_target)
    out = np.empty_like(sound)
    for start in range(0, len(sound), HOP):
        chain.step(sound[start : start + HOP], out[start : start + HOP], "base")
    # `process` hands a hop out when the next one comes.
    assert np.array_equal(out[:-HOP], expected[HOP:])
    assert statistics.steps == len(sound) // HOP
    assert np.abs(out[OVERLAP:] - sound[:-OVERLAP]).max() > 0.0


def test_replicate_level_gives_the_bits_of_the_engine(make_sound: Callable[..., np.ndarray]):
    replicate = pytest.importorskip("rtsr.engine.replicate")
    from rtsr.upsampler import Upsampler

    sound = make_sound(48000, 1.0, cutoff=4000.0)
    expected = Upsampler(48000, model="replicate", cutoff=4000.0).process(sound)
    board = ControlBoard()
    board.set("cutoff_hz", 4000.0)
    source = replicate.ReplicateSource(1, seed=0)
    chain = LiveChain({"replicate": source}, board, 1, 24000.0, Statistics())
    out = np.empty_like(sound)
    for start in range(0, len(sound), HOP):
        chain.step(sound[start : start + HOP], out[start : start + HOP], "replicate")
    assert np.array_equal(out[:-HOP], expected[HOP:])
    assert np.abs(out[OVERLAP:] - sound[:-OVERLAP]).max() > 0.0


@pytest.mark.parametrize("how", ["dry level", "bypass", "wet 0"])
def test_dry_signal_passes_every_bit(how):
    rig = Rig(channels=2)
    if how == "bypass":
        rig.board.set("bypass", True)
    if how == "wet 0":
        rig.board.set("wet", 0.0)
    added = rig.run(20, "dry" if how == "dry level" else "base")
    assert not added.any()


def test_same_controls_give_the_same_bits_after_a_reset():
    rig = Rig()
    first = rig.run(10)
    rig.chain.reset()
    rig.hops = 0
    assert np.array_equal(rig.run(10), first)


# --- levels ---


def test_change_of_level_is_a_cross_fade_of_ten_milliseconds():
    rig = Rig(replay_hops=3)
    rig.run(20)
    added = rig.run(20, "small")
    # Down: the new one has taken in its past at once, and is faded in within this hop.
    assert amplitude(added[HOP : 20 * HOP], 9000.0) == pytest.approx(0.1, abs=0.003)
    assert amplitude(added[2 * HOP :], 12000.0) < 0.001
    assert amplitude(added[:HOP], 12000.0) > 0.03
    assert rig.chain.level == "small"
    assert splatter_db(added) < -55.0


def test_way_up_feeds_the_new_level_first():
    rig = Rig(preroll_hops=3)
    rig.run(20, "small")
    rig.base.calls.clear()
    rig.small.calls.clear()
    added = rig.run(20, "base")
    assert rig.base.calls == list(range(20, 40))
    assert rig.small.calls == list(range(20, 24))
    assert amplitude(added[: 3 * HOP], 9000.0) == pytest.approx(0.1, abs=0.003)
    assert amplitude(added[: 3 * HOP], 12000.0) < 0.001
    assert amplitude(added[4 * HOP :], 12000.0) == pytest.approx(0.1, abs=0.003)
    assert splatter_db(added) < -55.0


def test_way_down_replays_the_past_at_once():
    rig = Rig(replay_hops=3)
    rig.run(20)
    resets = rig.small.resets
    rig.run(5, "small")
    assert rig.small.resets == resets + 1
    assert rig.small.calls == list(range(17, 25))
    # The expensive one runs for the fade and no longer.
    assert rig.base.calls == list(range(21))


def test_way_down_at_the_beginning_replays_what_there_was():
    rig = Rig(replay_hops=3)
    rig.run(1)
    rig.run(2, "small")
    assert rig.small.calls == [0, 1, 2]


def test_dry_level_fades_and_then_adds_nothing_and_runs_nothing():
    rig = Rig(preroll_hops=4)
    rig.run(20)
    added = rig.run(10, "dry")
    assert not added[3 * HOP :].any()
    assert rig.base.calls == list(range(21))
    assert splatter_db(added) < -55.0
    again = rig.run(20, "base")
    assert amplitude(again[8 * HOP :], 12000.0) == pytest.approx(0.1, abs=0.003)
    assert splatter_db(again) < -55.0


def test_change_that_is_taken_back_is_not_heard():
    rig = Rig(preroll_hops=3)
    rig.run(10, "small")
    rig.run(2, "base")
    added = rig.run(10, "small")
    assert amplitude(added, 12000.0) < 0.001
    assert amplitude(added, 9000.0) == pytest.approx(0.1, abs=0.003)


def test_levels_in_quick_succession_do_not_click():
    rig = Rig(preroll_hops=1)
    rng = np.random.default_rng(5)
    added = np.concatenate([rig.run(1, str(rng.choice(LEVELS))) for _ in range(300)])
    assert np.abs(added).max() < 0.2
    assert splatter_db(added) < -55.0


def test_noise_belongs_to_the_hop_whatever_level_ran_before():
    rig = Rig()
    rig.chain.resume(1000, np.zeros((OVERLAP, 1), np.float32))
    out = np.empty((HOP, 1), np.float32)
    for level in ("base", "small", "small", "small"):
        rig.chain.step(rig.dry(0), out, level)
    assert rig.base.calls[0] == 1000
    assert rig.small.calls == [1000, 1001, 1002, 1003]
    assert rig.chain.hop == 1004


def test_resuming_takes_the_dry_signal_from_what_was_before():
    rig = Rig()
    rig.board.set("wet", 0.0)
    rig.run(3)
    rig.hops = 10
    start = 10 * HOP
    rig.chain.resume(10, rig.sound(np.arange(start - OVERLAP, start), 0.25))
    assert not rig.run(3).any()


def test_unknown_level_is_refused():
    rig = Rig()
    with pytest.raises(
        ArgumentError, match="no fallback level 'large'; there are base, small, dry"
    ):
        rig.run(1, "large")


@pytest.mark.parametrize("attribute", ["channels", "hops", "overlap"])
def test_source_with_other_timing_is_refused(attribute):
    source = ToneSource("base", 9000.0)
    setattr(source, attribute, 2)
    with pytest.raises(ArgumentError, match="'base' has 2"):
        LiveChain({"base": source}, ControlBoard(), 1, 24000.0, Statistics())


# --- controls ---


@pytest.mark.parametrize(
    ("name", "value", "gain"),
    [
        ("wet", 0.5, 0.5),
        ("wet", 0.0, 0.0),
        ("level_db", -12.0, 10 ** (-12 / 20)),
        ("level_db", 12.0, 10 ** (12 / 20)),
        ("tilt_db", -6.0, 10 ** (-6 * np.log2(3.0) / 20)),
        ("ceiling_hz", 8000.0, 0.0),
        ("bypass", 1.0, 0.0),
        ("gate_dbfs", -30.0, 1.0),
    ],
)
def test_control_moves_the_high_band_without_a_click(name, value, gain):
    rig = Rig()
    rig.run(20)
    rig.board.set(name, value)
    moved = rig.run(20)
    rig.board.reset()
    rig.board.set("cutoff_hz", 4000.0)
    back = rig.run(20)
    assert amplitude(moved[6 * HOP :], 12000.0) == pytest.approx(0.1 * gain, abs=0.004)
    assert amplitude(back[6 * HOP :], 12000.0) == pytest.approx(0.1, abs=0.002)
    assert splatter_db(np.concatenate([moved, back])) < -55.0


def test_another_cutoff_is_faded_to_while_it_runs():
    rig = Rig()
    rig.run(20)
    rig.board.set("cutoff_hz", 18000.0)
    moved = rig.run(20)
    assert rig.chain.cutoff_hz == 18000.0
    assert amplitude(moved[6 * HOP :], 12000.0) < 1e-3
    rig.board.set("cutoff_hz", 5000.0)
    back = rig.run(20)
    assert rig.chain.cutoff_hz == 5000.0
    assert amplitude(back[6 * HOP :], 12000.0) == pytest.approx(0.1, abs=0.002)
    assert splatter_db(np.concatenate([moved, back])) < -55.0


def test_a_cutoff_may_be_given_and_then_measured(make_sound):
    board = ControlBoard()
    board.set("cutoff_hz", 9000.0)
    chain = LiveChain({}, board, 1, 24000.0, Statistics())
    sound, out = make_sound(48000, 3.0, cutoff=4000.0), np.empty((HOP, 1), np.float32)
    heard = []
    for start in range(0, len(sound), HOP):
        if start == 48000:
            board.set("cutoff_hz", 24000.0)
        chain.step(sound[start : start + HOP], out, "dry")
        heard.append(chain.cutoff_hz)
    assert set(heard[:100]) == {9000.0}
    assert heard[-1] == pytest.approx(4000.0, rel=0.05)


def test_gate_closes_over_quiet_input_only():
    rig = Rig()
    rig.board.set("gate_dbfs", -50.0)
    assert amplitude(rig.run(60)[6 * HOP :], 12000.0) == pytest.approx(0.1, abs=0.002)
    quiet = rig.run(60, peak=0.001)
    assert not quiet[40 * HOP :].any()
    assert amplitude(rig.run(10)[HOP:], 12000.0) == pytest.approx(0.1, abs=0.002)


def test_ceiling_is_told_to_the_model_and_below_the_cutoff_nothing_is_added():
    rig = Rig(f_target=20000.0)
    rig.run(3)
    rig.board.set("ceiling_hz", 9000.0)
    rig.run(10)
    assert rig.base.f_targets[:3] == [20000.0] * 3
    assert rig.base.f_targets[-1] == 9000.0
    rig.board.set("cutoff_hz", 10000.0)
    full = LiveChain({"base": ToneSource("base", 12000.0)}, rig.board, 1, 24000.0, Statistics())
    out = np.empty((HOP, 1), np.float32)
    for hop in range(4):
        full.step(rig.dry(hop), out, "base")
    assert np.array_equal(out[OVERLAP:], rig.dry(3)[:-OVERLAP])


def test_seed_reaches_every_level():
    rig = Rig()
    rig.run(1)
    assert (rig.base.seed, rig.small.seed) == (0, 0)
    rig.board.set("seed", 42)
    rig.run(1)
    assert (rig.base.seed, rig.small.seed) == (42, 42)


def test_degraded_hops_are_counted_and_the_sound_goes_on(failing_model, make_sound):
    from rtsr.engine.sources import ModelSource
    from rtsr.runtime.session import OnnxStep

    statistics = Statistics()
    source = ModelSource(OnnxStep(failing_model), 0, statistics)
    board = ControlBoard()
    board.set("cutoff_hz", 4000.0)
    chain = LiveChain({"base": source}, board, 1, 24000.0, statistics)
    sound = make_sound(48000, 0.2, cutoff=4000.0)
    out = np.empty_like(sound)
    for start in range(0, len(sound), HOP):
        chain.step(sound[start : start + HOP], out[start : start + HOP], "base")
    assert statistics.degraded_blocks > 10
    assert np.array_equal(out[OVERLAP:], sound[:-OVERLAP])


def test_nothing_rings_into_a_degraded_hop():
    class Failing(ToneSource):
        """Its sixth hop from a reset is unusable, and silent."""

        def generate(self, audio: np.ndarray, f_prior: np.ndarray, f_target: float) -> np.ndarray:
            out = super().generate(audio, f_prior, f_target)
            if self.frame == 6:
                out.fill(0.0)
                statistics.degraded_blocks += 1
            return out

    statistics = Statistics()
    board = ControlBoard()
    board.set("cutoff_hz", 4000.0)
    chain = LiveChain({"base": Failing("base", 9000.0)}, board, 1, 24000.0, statistics)
    audio = np.full((HOP, 1), 0.25, np.float32)
    outs = np.empty((8, HOP, 1), np.float32)
    for out in outs:
        chain.step(audio, out, "base")
    added = np.abs(outs - audio).max(axis=(1, 2))
    assert added[5] == 0.0
    assert min(added[4], added[6]) > 0.05


def test_native_rate_bounds_the_cutoff():
    chain = LiveChain({}, ControlBoard(), 1, 8000.0, Statistics())
    out = np.empty((HOP, 1), np.float32)
    chain.step(np.zeros((HOP, 1), np.float32), out, "dry")
    assert chain.cutoff_hz == 8000.0


def test_expected_cutoff_is_where_the_measurement_starts():
    chain = LiveChain({}, ControlBoard(), 1, 24000.0, Statistics(), expected_cutoff_hz=5500.0)
    out = np.empty((HOP, 1), np.float32)
    chain.step(np.zeros((HOP, 1), np.float32), out, "dry")
    assert chain.cutoff_hz == 5500.0


def test_a_hop_allocates_next_to_nothing():
    import tracemalloc

    rig = Rig(channels=2)
    rig.run(5)
    rig.board.set("level_db", 3.0)
    rig.board.set("tilt_db", -1.0)
    rig.board.set("ceiling_hz", 15000.0)
    rig.run(10)
    audio, out = rig.dry(0), np.empty((HOP, 2), np.float32)
    tracemalloc.start()
    # Until Python's and NumPy's own stocks of small memory are full.
    for _ in range(300):
        rig.chain.step(audio, out, "base")
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(100):
        rig.chain.step(audio, out, "base")
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The test's own source notes every hop, in some 50 bytes.
    assert now - before < 100 * 100
    # The test's own source makes a sine of one hop; the chain keeps within that.
    assert peak - before < 40_000
