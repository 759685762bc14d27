"""The crossover: known answers, the plain one to the bit, many streams as if each were alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType

import numpy as np
import pytest

from rtsr_kernels.crossover import (
    SILENCE_PEAK,
    clear_filters,
    crossover_scratch,
    crossover_state,
    find_new_cutoffs,
    finish_block,
    finish_rows,
    start_crossover,
)
from rtsr_kernels.highpass import highpass_sos

HOP = 480
OVERLAP = 120
ROW = np.zeros(1, np.int64)


class Crossover:
    """Streams in rows, each with its own slots, stepped as blocks or as rows."""

    def __init__(self, channels: list[int], hops: int = 1) -> None:
        self.hops = hops
        self.channels = channels
        self.state = crossover_state(len(channels), sum(channels), hops, OVERLAP)
        self.scratch = crossover_scratch(hops)
        self.rows = np.arange(len(channels))
        first = 0
        for row, count in enumerate(channels):
            self.state.values["channels"][row] = count
            self.state.slots[row, :count] = np.arange(first, first + count)
            self.state.values["wet"][row] = 1.0
            start_crossover(self.state, row)
            first += count

    def plan(self) -> None:
        is_new = np.zeros(len(self.channels), np.bool_)
        find_new_cutoffs(self.state, self.rows, is_new)
        for row in np.flatnonzero(is_new):
            for hop, hz in enumerate(self.state.hz[row]):
                if not np.isnan(hz):
                    self.state.sos[row, 1 + hop] = highpass_sos(float(hz))
            if self.state.hz[row, 0] == self.state.values["mixed_hz"][row]:
                self.state.sos[row, 0] = self.state.sos[row, 1]

    def block(self, audio: np.ndarray, high: np.ndarray, hz: float, wet: float = 1.0) -> np.ndarray:
        """One step ``(480 * hops, channels)`` of the only stream, at one cutoff."""
        self.state.hz[0] = hz
        self.state.values["wet"][0] = wet
        self.plan()
        out = np.full_like(audio, np.nan)
        finish_block(self.state, 0, audio, high, out, self.scratch)
        return out

    def rows_at_once(self, audio: np.ndarray, high: np.ndarray) -> np.ndarray:
        """One step of all streams ``(slots, 480 * hops)``; cutoffs and gains are in the state."""
        self.plan()
        out = np.full_like(audio, np.nan)
        finish_rows(self.state, self.rows, audio, high.copy(), out, self.scratch)
        return out


def added(
    cutoffs: list[float],
    wets: list[float] | None = None,
    levels: list[float] | None = None,
    tone_hz: float = 0.0,
) -> np.ndarray:
    """What one channel got beside its dry signal, a constant per hop; the high band is of size 1.

    ``tone_hz`` 0 stands for half of the sample rate, where the high-pass is flat.
    """
    hops = len(cutoffs)
    crossover = Crossover([1])
    time = np.arange(HOP * hops)
    tone = np.where(time % 2, -1.0, 1.0)
    if tone_hz:
        tone = np.sin(2 * np.pi * tone_hz * time / 48000)
    dry = np.repeat(levels or [0.25] * hops, HOP)
    parts = []
    for hop in range(hops):
        part = slice(hop * HOP, (hop + 1) * HOP)
        audio, high = (x[part, None].astype(np.float32) for x in (dry, tone))
        parts.append(crossover.block(audio, high, cutoffs[hop], wets[hop] if wets else 1.0))
    late = np.concatenate([np.zeros(OVERLAP), dry])[: len(dry)]
    return np.concatenate(parts)[:, 0] - late.astype(np.float32)


def size(signal: np.ndarray) -> np.ndarray:
    """Size of a signal at half of the sample rate, sample by sample."""
    return signal * np.where(np.arange(len(signal)) % 2, -1.0, 1.0)


# --- known answers ---


@pytest.mark.parametrize("cutoff", [1500.0, 3400.0, 7000.0, 12000.0])
def test_levels_below_and_above_the_cutoff(cutoff: float) -> None:
    def level_db(hz: float) -> float:
        steady = added([cutoff] * 30, tone_hz=hz)[15 * HOP :]
        time = np.arange(len(steady))
        weight = np.hanning(len(steady)) / np.hanning(len(steady)).sum()
        strength = 2 * abs(np.sum(weight * steady * np.exp(-2j * np.pi * hz * time / 48000)))
        return float(20 * np.log10(strength + 1e-12))

    assert level_db(0.85 * cutoff) < -51.0
    assert level_db(0.5 * cutoff) < -51.0
    for share in (0.95, 1.0, 1.3, 1.8):
        assert -0.12 < level_db(share * cutoff) < 0.02
    # Between the two edges it is on its way.
    assert -30.0 < level_db(0.9 * cutoff) < -1.0


def test_the_threshold_of_silence_is_half_of_a_16_bit_step() -> None:
    assert SILENCE_PEAK == 2.0**-16
    below, at = float(np.nextafter(np.float32(2**-16), np.float32(0))), 2.0**-16
    assert np.all(added([4000.0] * 4, levels=[below] * 4)[2 * HOP :] == 0.0)
    assert np.all(added([4000.0] * 4, levels=[-below] * 4)[2 * HOP :] == 0.0)
    for level in (at, -at):
        assert size(added([4000.0] * 4, levels=[level] * 4))[2 * HOP :] == pytest.approx(
            10 ** (-0.1 / 20), abs=2e-3
        )


def test_one_loud_sample_opens_the_gate() -> None:
    crossover = Crossover([1])
    high = np.where(np.arange(HOP) % 2, -1.0, 1.0).astype(np.float32)[:, None]
    for place in (0, 1, HOP - OVERLAP - 1):
        audio = np.zeros((HOP, 1), np.float32)
        crossover.block(audio, high, 4000.0)
        crossover.block(audio, high, 4000.0)
        audio[place] = -0.5
        assert np.abs(crossover.block(audio, high, 4000.0)).max() > 0.9


def test_the_gate_opens_over_64_samples() -> None:
    levels = [0.0, 0.0, 0.0, 0.25, 0.25, 0.25]
    got = size(added([4000.0] * 6, levels=levels))
    assert np.all(got[: 3 * HOP] == 0.0)
    steady = got[4 * HOP : 5 * HOP].mean()
    ramp = np.minimum(np.arange(1, HOP + 1) / 64.0, 1.0)
    assert got[3 * HOP : 4 * HOP] == pytest.approx(steady * ramp, abs=1e-4)


def test_the_gate_closes_over_one_hop() -> None:
    levels = [0.25, 0.25, 0.25, 0.0, 0.0, 0.0]
    got = size(added([4000.0] * 6, levels=levels))
    # The sound is heard an overlap later, so the hop after its last one still has some of it.
    steady = got[3 * HOP : 4 * HOP].mean()
    ramp = 1.0 - np.arange(1, HOP + 1) / HOP
    assert got[4 * HOP : 5 * HOP] == pytest.approx(steady * ramp, abs=1e-4)
    assert np.all(got[5 * HOP :] == 0.0)


def test_each_channel_has_its_own_gate() -> None:
    crossover = Crossover([2])
    high = np.ones((HOP, 2), np.float32) * np.where(np.arange(HOP) % 2, -1, 1)[:, None]
    audio = np.zeros((HOP, 2), np.float32)
    audio[:, 1] = 0.25
    for _ in range(3):
        out = crossover.block(audio, high.astype(np.float32), 4000.0)
    assert np.all(out[:, 0] == 0.0)
    assert np.abs(out[:, 1] - 0.25).min() > 0.9


def test_a_new_gain_is_faded_over_one_hop() -> None:
    got = size(added([4000.0] * 6, wets=[1.0, 1.0, 1.0, 0.5, 0.5, 0.0]))
    steady = got[2 * HOP : 3 * HOP].mean()
    rise = np.arange(1, HOP + 1) / HOP
    assert got[3 * HOP : 4 * HOP] == pytest.approx(steady * (1.0 - 0.5 * rise), abs=1e-4)
    assert got[4 * HOP : 5 * HOP] == pytest.approx(0.5 * steady, abs=1e-4)
    assert got[5 * HOP :] == pytest.approx(0.5 * steady * (1.0 - rise), abs=1e-4)


def test_nothing_missing_is_faded_over_one_hop() -> None:
    nan = float("nan")
    got = size(added([4000.0] * 3 + [nan] * 3 + [4000.0] * 2))
    steady = got[2 * HOP : 3 * HOP].mean()
    fall = 1.0 - (np.arange(HOP) + 0.5) / HOP
    assert got[3 * HOP : 4 * HOP] == pytest.approx(steady * fall, abs=1e-4)
    assert np.all(got[4 * HOP : 6 * HOP] == 0.0)
    # Coming back, the filter starts empty: no trace of what it held before.
    again = got[6 * HOP : 7 * HOP]
    assert np.abs(again[:20]).max() < 0.1
    assert got[7 * HOP :] == pytest.approx(steady, abs=2e-2)


def test_a_new_cutoff_is_faded_over_one_hop_by_a_filter_that_starts_empty() -> None:
    """A tone between two cutoffs: the way down lets it in, the way up takes it out, no click."""
    for cutoffs in ([7000.0] * 20 + [3000.0] * 20, [3000.0] * 20 + [7000.0] * 20):
        got = added(cutoffs, tone_hz=5000.0)
        before, fade, after = (
            np.abs(got[15 * HOP : 20 * HOP]).max(),
            got[20 * HOP : 21 * HOP],
            np.abs(got[25 * HOP :]).max(),
        )
        loud, quiet = max(before, after), min(before, after)
        assert loud == pytest.approx(1.0, abs=0.03)
        assert quiet < 0.003
        # Half way through, half of the tone is there; at the ends nearly none, or all.
        tops = [np.abs(fade[start : start + 48]).max() for start in range(0, HOP, 48)]
        assert tops == sorted(tops, reverse=bool(before > after))
        assert np.abs(fade[216:264]).max() == pytest.approx(0.5, abs=0.1)


def test_the_first_cutoff_applies_at_once() -> None:
    got = added([4000.0] * 2, levels=[0.25, 0.25])
    # Only the gate's ramp, no fade of 10 ms.
    assert size(got)[100:HOP] == pytest.approx(10 ** (-0.1 / 20), abs=2e-2)


def test_the_dry_signal_is_an_overlap_late_to_the_bit() -> None:
    sound = np.random.default_rng(3).standard_normal((8 * HOP, 3)).astype(np.float32)
    for hz, wet in ((float("nan"), 1.0), (4000.0, 0.0)):
        crossover = Crossover([3])
        parts = [
            crossover.block(sound[i : i + HOP], sound[i : i + HOP], hz, wet)
            for i in range(0, len(sound), HOP)
        ]
        out = np.concatenate(parts)
        assert np.all(out[:OVERLAP] == 0.0)
        assert np.array_equal(out[OVERLAP:], sound[:-OVERLAP])
        assert not crossover.state.values["adds"][0]


def test_clearing_leaves_no_trace_of_what_rang() -> None:
    loud = np.random.default_rng(4).standard_normal((HOP, 1)).astype(np.float32)
    silence, dry = np.zeros((HOP, 1), np.float32), np.full((HOP, 1), 0.25, np.float32)
    crossover = Crossover([1])
    for _ in range(3):
        crossover.block(dry, loud, 4000.0)
    rings = crossover.block(dry, silence, 4000.0)
    assert np.abs(rings - 0.25).max() > 0.01
    crossover.block(dry, loud, 4000.0)
    clear_filters(crossover.state, 0)
    assert np.all(crossover.block(dry, silence, 4000.0) == 0.25)


def test_clearing_one_stream_leaves_the_others() -> None:
    crossover = Crossover([1, 2, 1])
    crossover.state.filters[:] = 1.0
    clear_filters(crossover.state, 1)
    assert np.all(crossover.state.filters[[1, 2]] == 0.0)
    assert np.all(crossover.state.filters[[0, 3]] == 1.0)


def test_starting_again_forgets_everything() -> None:
    sound = np.random.default_rng(5).standard_normal((6 * HOP, 2)).astype(np.float32)
    crossover = Crossover([2])

    def run() -> np.ndarray:
        cutoffs = [4000.0, 4000.0, 6000.0, float("nan"), 5000.0, 5000.0]
        parts = [
            crossover.block(sound[i * HOP : i * HOP + HOP], sound[i * HOP : i * HOP + HOP], hz, 0.5)
            for i, hz in enumerate(cutoffs)
        ]
        return np.concatenate(parts)

    first = run()
    start_crossover(crossover.state, 0)
    assert np.array_equal(run(), first)


# --- against the plain one ---

CUTOFFS = [1500.0, 3400.0, 3400.0, 3400.0, 7000.0, 12000.0, float("nan")]


def random_steps(
    seed: int, streams: int, slots: int, hops: int, steps: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Cutoffs, gains, dry and high band of steps, with silences and changes of everything."""
    random = np.random.default_rng(seed)
    hz = np.full((streams, hops), 3400.0)
    wet = np.ones(streams)
    for _ in range(steps):
        for row in range(streams):
            for hop in range(hops):
                if random.random() < 0.3 / hops:
                    hz[row, hop:] = random.choice(CUTOFFS)
            if random.random() < 0.25:
                wet[row] = random.choice([0.0, 0.3, 1.0])
        audio = random.standard_normal((slots, HOP * hops)).astype(np.float32) * np.float32(0.2)
        high = random.standard_normal((slots, HOP * hops)).astype(np.float32) * np.float32(0.1)
        levels = random.choice([1.0, 1.0, 1.0, 0.0, 5e-5], (slots, hops))
        audio *= np.repeat(levels, HOP, axis=1).astype(np.float32)
        yield hz.copy(), wet.copy(), audio, high
        hz[:] = hz[:, -1:]


@pytest.mark.parametrize("at_once", [False, True])
def test_a_gain_that_is_set_within_a_step_waits_for_the_next_one(at_once: bool) -> None:
    """Another thread sets it: no channel may have it alone, and no fade may be left out."""
    random = np.random.default_rng(5)
    audio, high = random.standard_normal((2, 2 * HOP, 1)).astype(np.float32)
    crossover, undisturbed = Crossover([1], 2), Crossover([1], 2)
    wets = [(1.0, 1.0), (1.0, 0.0), (0.0, 0.4), (0.4, 0.4)]
    for before, within in wets:
        expected = undisturbed.block(audio, high, 3400.0, before)
        crossover.state.hz[0] = 3400.0
        crossover.state.values["wet"] = before
        crossover.plan()
        crossover.state.values["wet"] = within
        out = np.empty_like(audio)
        if at_once:
            rows = np.ascontiguousarray(audio.T), np.ascontiguousarray(high.T), out.reshape(1, -1)
            finish_rows(crossover.state, crossover.rows, *rows, crossover.scratch)
        else:
            finish_block(crossover.state, 0, audio, high, out, crossover.scratch)
        assert np.array_equal(out, expected)
        assert crossover.state.values["wet"][0] == within


@pytest.mark.parametrize(("hops", "channels", "seed"), [(1, 1, 0), (1, 3, 1), (2, 2, 2), (4, 1, 3)])
def test_blocks_and_rows_give_the_bits_of_the_plain_one(
    plain: ModuleType, hops: int, channels: int, seed: int
) -> None:
    blocks, rows = Crossover([channels], hops), Crossover([channels], hops)
    expected_of = [plain.PlainCrossover() for _ in range(channels)]
    kept = np.zeros((channels, OVERLAP), np.float32)
    for hz, wet, audio, high in random_steps(seed, 1, channels, hops, 16 // hops):
        late = np.concatenate([kept, audio], axis=1)
        expected, kept = late[:, : HOP * hops].copy(), late[:, HOP * hops :]
        for hop in range(hops):
            part = slice(hop * HOP, (hop + 1) * HOP)
            cutoff = None if np.isnan(hz[0, hop]) else float(hz[0, hop])
            for channel in range(channels):
                expected[channel, part] = expected_of[channel].add(
                    high[channel, part], expected[channel, part], cutoff, float(wet[0])
                )
        for crossover in (blocks, rows):
            crossover.state.hz[:] = hz
            crossover.state.values["wet"] = wet
        blocks.plan()
        out = np.empty((HOP * hops, channels), np.float32)
        contiguous = np.ascontiguousarray
        finish_block(blocks.state, 0, contiguous(audio.T), contiguous(high.T), out, blocks.scratch)
        assert np.array_equal(out.T, expected)
        assert np.array_equal(rows.rows_at_once(audio, high), expected)


def test_many_streams_side_by_side_equal_each_alone() -> None:
    """More channels than lanes, some steady, some moving, the last lanes not full."""
    channels = [1, 2, 3] * 13
    together = Crossover(channels)
    alone = [Crossover([count]) for count in channels]
    for hz, wet, audio, high in random_steps(9, len(channels), sum(channels), 1, 12):
        together.state.hz[:] = hz
        together.state.values["wet"] = wet
        got = together.rows_at_once(audio, high)
        first = 0
        for row, count in enumerate(channels):
            mine = slice(first, first + count)
            block = alone[row].block(
                np.ascontiguousarray(audio[mine].T),
                np.ascontiguousarray(high[mine].T),
                float(hz[row, 0]),
                float(wet[row]),
            )
            assert np.array_equal(got[mine], block.T)
            assert together.state.values["adds"][row] == alone[row].state.values["adds"][0]
            first += count


def test_streams_that_take_no_part_are_left_alone() -> None:
    crossover = Crossover([1, 2, 1])
    audio = np.random.default_rng(1).standard_normal((4, HOP)).astype(np.float32)
    crossover.state.hz[:] = 4000.0
    crossover.rows_at_once(audio, audio)
    before = crossover.state.filters.copy(), crossover.state.delayed.copy()
    crossover.rows = np.array([1])
    out = crossover.rows_at_once(audio, audio)
    assert np.all(np.isnan(out[[0, 3]]))
    assert np.array_equal(crossover.state.filters[[0, 3]], before[0][[0, 3]])
    assert np.array_equal(crossover.state.delayed[[0, 3]], before[1][[0, 3]])
    assert not np.array_equal(crossover.state.filters[[1, 2]], before[0][[1, 2]])


def test_a_step_allocates_nothing(count_allocations: Callable[[], tuple[int, int]]) -> None:
    crossover = Crossover([1, 2])
    audio = np.random.default_rng(1).standard_normal((3, HOP)).astype(np.float32)
    high, out = audio.copy(), np.empty_like(audio)
    is_new = np.zeros(2, np.bool_)
    crossover.state.hz[:] = 4000.0
    crossover.rows_at_once(audio, audio)

    def run(rows: np.ndarray) -> tuple[int, int]:
        before = count_allocations()
        for _ in range(1000):
            find_new_cutoffs(crossover.state, rows, is_new)
            finish_rows(crossover.state, rows, audio, high, out, crossover.scratch)
        after = count_allocations()
        return after[0] - before[0], after[1] - before[1]

    # A call for no stream at all passes the same arrays.
    assert run(crossover.rows) == run(crossover.rows[:0])
    assert run(crossover.rows)[1] == 0
