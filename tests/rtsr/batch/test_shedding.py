"""Overload: when a batch does without its network, what comes out then, and when it comes back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtsr import BatchUpsampler
from rtsr.batch.shedding import (
    BEHIND_MS,
    DRY,
    NETWORK,
    PATIENCE_MS,
    REPLICATE,
    Plan,
    Shedding,
)

HOP = 480
ROW = np.zeros(1, np.int64)


def _run(
    shedding: Shedding,
    steps: int,
    waiting: float,
    took: float,
    channels: int = 10,
    step_ms: float = 10.0,
) -> list[Plan]:
    # Two hops are two steps of a stream, more are one step of the batch.
    hops, two = (1, 1) if step_ms == 20.0 else (round(step_ms / 10.0), 0)
    assert shedding._one_ms == 10.0 * hops
    plans = []
    for _ in range(steps):
        plans.append(shedding.plan(waiting, channels, ROW, two))
        shedding.record(took)
    return plans


def _overload(shedding: Shedding, channels: int = 10) -> list[Plan]:
    """Steps that take twice their length while much waits, until something is shed."""
    plans, level = [], shedding.level
    while shedding.level == level:
        plans += _run(shedding, 1, 100.0, 20.0, channels)
        assert len(plans) < 30
    return plans


def test_a_batch_that_keeps_up_keeps_its_network() -> None:
    plans = _run(Shedding(0.1, 1), 1000, 10.0, 9.0)
    assert set(plans) == {Plan(NETWORK, network=True)}


def test_much_at_once_is_no_overload() -> None:
    assert all(plan.level == NETWORK for plan in _run(Shedding(0.1, 1), 500, 5000.0, 9.0))


def test_slow_steps_are_none_while_nothing_waits() -> None:
    assert all(plan.level == NETWORK for plan in _run(Shedding(0.1, 1), 500, BEHIND_MS, 15.0))


def test_overload_goes_to_replication() -> None:
    shedding = Shedding(0.1, 1)
    plans = _overload(shedding)
    # The average needs some steps: one slow step is none.
    assert 3 <= len(plans) <= 8
    assert plans[-1] == Plan(REPLICATE, network=False)
    assert shedding.level == REPLICATE
    assert _run(shedding, 1, 10.0, 5.0) == [Plan(REPLICATE, network=False)]


def test_replication_that_would_not_fit_is_not_tried() -> None:
    assert _overload(Shedding(0.1, 1), channels=96)[-1] == Plan(DRY, network=False)
    assert _overload(Shedding(0.1, 1), channels=94)[-1].level == REPLICATE
    # A hop of a step of 40 ms takes four times as long and has four times the time.
    assert _overload_of_40_ms(96).level == DRY
    assert _overload_of_40_ms(94).level == REPLICATE


def _overload_of_40_ms(channels: int) -> Plan:
    shedding = Shedding(0.1, 1, 4)
    for _ in range(30):
        plan = shedding.plan(130.0, channels, ROW)
        shedding.record(80.0)
        if plan.level != NETWORK:
            return plan
    raise AssertionError("nothing was shed")


def test_replication_that_does_not_keep_up_goes_dry() -> None:
    shedding = Shedding(0.1, 1)
    _overload(shedding)
    assert _overload(shedding)[-1] == Plan(DRY, network=False)
    assert all(plan == Plan(DRY, network=False) for plan in _run(shedding, 200, 100.0, 20.0))


@pytest.mark.parametrize("step_ms", [10.0, 40.0, 160.0])
def test_network_comes_back_after_a_second_and_a_preroll(step_ms: float) -> None:
    shedding = Shedding(0.1, 1, round(step_ms / 10.0))
    for _ in range(30):
        # A step is worth so much sound, which waits in any case.
        if shedding.plan(step_ms + 90.0, 10, ROW).level != NETWORK:
            break
        shedding.record(2 * step_ms)
    plans = _run(shedding, 300, step_ms, 0.5 * step_ms, step_ms=step_ms)
    quiet = [plan for plan in plans if not plan.network]
    assert len(quiet) == -(-PATIENCE_MS // step_ms) - 1
    preroll = int(-(-200.0 // step_ms))
    fed = plans[len(quiet) : len(quiet) + preroll]
    assert set(fed) == {Plan(REPLICATE, network=True)}
    assert plans[len(quiet) + preroll] == Plan(NETWORK, network=True)
    assert plans[-1] == Plan(NETWORK, network=True)
    assert shedding.level == NETWORK


def test_arrears_begin_the_second_anew() -> None:
    shedding = Shedding(0.1, 1)
    _overload(shedding)
    _run(shedding, 90, 10.0, 5.0)
    _run(shedding, 1, 40.0, 5.0)
    plans = _run(shedding, 105, 10.0, 5.0)
    assert [plan.network for plan in plans] == [False] * 99 + [True] * 6


def test_patience_doubles_where_the_network_fails_again() -> None:
    shedding = Shedding(0.1, 1)
    waits = []
    for _ in range(7):
        _overload(shedding)
        plans = _run(shedding, 3200, 10.0, 5.0)
        waits.append([plan.network for plan in plans].index(True))
        # The overload is to find it right after the network has come back.
        shedding = _replayed(waits)
    assert waits[0] == 99
    assert waits[1] == 199
    assert waits[2] == 399
    assert waits[-1] == 2999


def _replayed(waits: list[int]) -> Shedding:
    """A policy that failed so many times already, each time right after it had come back."""
    shedding = Shedding(0.1, 1)
    for wait in waits:
        _overload(shedding)
        _run(shedding, wait + 21, 10.0, 5.0)
        assert shedding.level == NETWORK
    return shedding


def test_patience_is_forgotten_after_half_a_minute() -> None:
    shedding = _replayed([99, 199])
    _run(shedding, 3000, 10.0, 5.0)
    _overload(shedding)
    assert [plan.network for plan in _run(shedding, 120, 10.0, 5.0)].index(True) == 99


def test_a_preroll_that_is_too_much_is_given_up() -> None:
    shedding = Shedding(0.1, 1)
    _overload(shedding)
    _run(shedding, 105, 10.0, 5.0)
    assert _run(shedding, 1, 10.0, 5.0)[0].network
    tried = 0
    while _run(shedding, 1, 100.0, 20.0)[0].network:
        tried += 1
    assert 2 <= tried <= 8
    assert shedding.level == REPLICATE
    waits = [plan.network for plan in _run(shedding, 300, 10.0, 5.0)].index(True)
    assert 190 <= waits <= 200


def test_who_has_time_sheds_nothing() -> None:
    shedding = Shedding(0.1, 1, is_allowed=False)
    plans = _run(shedding, 200, 1e6, 1e6)
    assert set(plans) == {Plan(NETWORK, network=True)}


# --- a batch whose network takes too long ---


@pytest.fixture
def slow(stand_in: Path) -> Iterator[tuple[BatchUpsampler, dict[str, float]]]:
    """A batch, and a dictionary whose ``seconds`` every run of its network takes longer."""
    delay = {"seconds": 0.0}
    with BatchUpsampler(3, model=stand_in, buffer_ms=2000) as batch:
        run = batch._step.run

        def slowly(due: Any, held: Any, steps: int) -> None:
            # Each hop takes so long, however many a run has.
            time.sleep(steps * delay["seconds"])
            run(due, held, steps)

        batch._step.run = slowly
        yield batch, delay


def _tone(hops: int) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * 700.0 * np.arange(hops * HOP) / 48000)).astype(np.float32)


def test_an_overloaded_batch_sheds_and_comes_back(
    slow: tuple[BatchUpsampler, dict[str, float]],
) -> None:
    batch, delay = slow
    streams = [batch.open(48000, cutoff=4000.0), batch.open(48000, channels=2, cutoff=4000.0)]
    sound = _tone(260)
    levels: list[str] = []
    outs: list[list[np.ndarray]] = [[], []]

    def take(start: int, count: int) -> None:
        for stream in streams:
            block = sound[start * HOP : (start + count) * HOP, None]
            stream.push(np.repeat(block, stream.channels, axis=1))
        while batch.step():
            for out, stream in zip(outs, streams, strict=True):
                out.append(stream.pull())
            levels.extend([batch.level] * (len(outs[0][-1]) // HOP))

    for hop in range(10):
        take(hop, 1)
    delay["seconds"] = 0.02
    take(10, 30)
    delay["seconds"] = 0.0
    for hop in range(40, 260):
        take(hop, 1)

    assert levels[:10] == [NETWORK] * 10
    assert levels[-1] == NETWORK
    first = levels.index(REPLICATE)
    assert 12 <= first <= 20
    shed = levels.count(REPLICATE)
    assert levels.count(DRY) == 0
    # A second, counted from when nothing waited any more, and the network's way in.
    assert 120 <= shed <= 160
    for stream in streams:
        assert stream.statistics.replicate_hops == shed
        assert stream.statistics.dry_hops == 0
        assert stream.statistics.steps == 260
    late = np.concatenate([np.zeros(120, np.float32), sound])
    for out, stream in zip(outs, streams, strict=True):
        got = np.concatenate(out).reshape(-1, stream.channels)
        assert len(got) == 260 * HOP
        added = got - late[: len(got), None]
        # Nothing below the crossover: neither fade is a click.
        spectrum = np.abs(np.fft.rfft(added * np.hanning(len(added))[:, None], axis=0))
        low = spectrum[: int(3000 * len(added) / 48000)].max()
        dry = np.abs(np.fft.rfft(late[: len(got)] * np.hanning(len(got)))).max()
        assert low < 1e-3 * dry
        rms = np.sqrt(np.mean(added.reshape(260, -1) ** 2, axis=1))
        assert rms[5] > 0.0


def test_a_fade_of_levels_takes_one_hop(slow: tuple[BatchUpsampler, dict[str, float]]) -> None:
    """From the network to nothing: amplitudes, by a squared cosine, within 10 ms."""
    batch, _ = slow
    high = np.where(np.arange(HOP) % 2, -1.0, 1.0).astype(np.float32)
    replica = np.full((3, HOP), 2.0, np.float32)
    for part in batch._step.parts:
        part.high_band[:] = high

    class Replica:
        def run(self, rows: Any, f_prior: Any, number: int) -> np.ndarray:
            return replica

        def clear(self, slots: list[int]) -> None:
            pass

    batch.open(48000, cutoff=4000.0)
    batch._step.run = lambda due, held, steps: None
    bands = batch._high_bands
    bands.replicate = Replica()
    row, held = np.zeros(1, np.int64), np.zeros(0, np.int64)
    angle = np.pi / 2 * (np.arange(HOP) + 0.5) / HOP
    cutoffs = np.full((3, 1), 4000.0, np.float32)

    def generate(before: str, after: str) -> np.ndarray:
        bands.join(0, [0], before)
        bands._levels._run_up[0] = 0
        bands.prepare(Plan(after, network=NETWORK in (before, after)), row, cutoffs, 0)
        bands.run(row, held)
        return bands.finish(row, 0).audio[0]

    assert generate(NETWORK, DRY) == pytest.approx(high * np.cos(angle) ** 2, abs=1e-6)
    assert generate(DRY, NETWORK) == pytest.approx(high * np.sin(angle) ** 2, abs=1e-6)
    assert generate(NETWORK, REPLICATE) == pytest.approx(
        high * np.cos(angle) + 2.0 * np.sin(angle), abs=1e-6
    )
    assert np.array_equal(generate(REPLICATE, REPLICATE), replica[0])


def test_levels_change_alike_for_hops_that_come_alone_or_in_twos(
    slow: tuple[BatchUpsampler, dict[str, float]],
) -> None:
    batch, _ = slow
    levels = [NETWORK, REPLICATE, DRY, REPLICATE, NETWORK, DRY, NETWORK]
    sound = _tone(2 * len(levels))
    outs = []
    for hops in (1, 2):
        stream = batch.open(48000, cutoff=4000.0)
        for start in range(0, 2 * len(levels), hops):
            # The network runs all along, so that it need not begin anew.
            plan = Plan(levels[start // 2], network=True)
            batch._shedding.plan = lambda *_, plan=plan: plan
            stream.push(sound[start * HOP : (start + hops) * HOP])
            assert batch.step() == 1
            assert batch.step() == 0
        counted = stream.statistics
        assert (counted.replicate_hops, counted.dry_hops, counted.steps) == (4, 4, 14)
        outs.append(stream.pull())
        stream.close()
    assert len(outs[0]) == len(sound)
    assert np.abs(outs[0] - outs[1]).max() <= 1e-6
    added = outs[0][120:] - sound[:-120]
    assert np.abs(added[:HOP]).max() > 1e-3


def test_dry_streams_pass_bit_for_bit(slow: tuple[BatchUpsampler, dict[str, float]]) -> None:
    batch, _ = slow
    batch._shedding.level = DRY
    batch._shedding.plan = lambda *_: Plan(DRY, False)
    stream = batch.open(48000, cutoff=4000.0)
    sound = _tone(30)
    stream.push(sound)
    while batch.step():
        pass
    out = stream.pull()
    assert np.array_equal(out[120:], sound[: len(out) - 120])
    assert stream.statistics.dry_hops == 30


def test_noise_belongs_to_the_hop_also_where_the_network_was_left_out(
    stand_in: Path, make_sound: Callable[..., np.ndarray]
) -> None:
    sound = make_sound(48000, 0.6, cutoff=3500, level=0.2)[:, 0]
    outs = []
    for sheds in (False, True):
        with BatchUpsampler(1, model=stand_in, overload="wait", buffer_ms=1000) as batch:
            stream = batch.open(48000, cutoff=4000.0)
            for hop in range(60):
                plan = Plan(DRY, False) if sheds and hop < 20 else Plan(NETWORK, network=True)
                batch._shedding.plan = lambda *_, plan=plan: plan
                stream.push(sound[hop * HOP : (hop + 1) * HOP])
                batch.step()
            outs.append(stream.pull())
    assert not np.array_equal(outs[0][: 10 * HOP], outs[1][: 10 * HOP])
    # Only what the filter and the graph remember may differ, and that is soon gone.
    assert np.abs(outs[0][50 * HOP :] - outs[1][50 * HOP :]).max() < 1e-6


@pytest.mark.parametrize("level", [NETWORK, REPLICATE])
def test_a_slot_is_fresh_for_the_next_stream_at_every_level(
    slow: tuple[BatchUpsampler, dict[str, float]], level: str
) -> None:
    batch, _ = slow
    batch._shedding.level = level
    batch._shedding.plan = lambda *_: Plan(level, network=level == NETWORK)
    sound = _tone(6)
    outs = []
    for before in (False, True):
        if before:
            other = batch.open(48000, cutoff=4000.0)
            other.push(_tone(5)[::-1])
            while batch.step():
                pass
            other.close()
        stream = batch.open(48000, cutoff=4000.0)
        stream.push(sound)
        while batch.step():
            pass
        outs.append(stream.pull())
        # The last thing that its slot hears is loud.
        stream.close()
    assert np.array_equal(*outs)


def test_a_step_is_worth_the_mean_of_what_its_streams_take(
    slow: tuple[BatchUpsampler, dict[str, float]],
) -> None:
    batch, _ = slow
    packets, single = batch.open(48000), batch.open(48000)
    worth = []
    plan = batch._shedding.plan

    def note(waiting_ms: float, channels: int, rows: Any, two: int) -> Plan:
        made = plan(waiting_ms, channels, rows, two)
        worth.append((waiting_ms, channels, batch._shedding._step_ms))
        return made

    batch._shedding.plan = note
    for hops in ((1, 1), (2, 1), (2, 2), (0, 3), (0, 0)):
        for stream, count in zip((packets, single), hops, strict=True):
            stream.push(_tone(count))
        batch.step()
    assert worth == [
        (10.0, 2, 10.0), (20.0, 2, 15.0), (20.0, 2, 20.0), (30.0, 1, 20.0), (10.0, 1, 10.0)
    ]  # fmt: skip
    assert (packets.statistics.steps, single.statistics.steps) == (5, 7)
    assert (packets.held_steps, single.held_steps) == (2, 0)


def test_steps_of_two_hops_are_slow_beyond_their_own_20_ms() -> None:
    def last(took: float) -> str:
        return _run(Shedding(0.1, 1), 50, 100.0, took, step_ms=20.0)[-1].level

    assert last(18.0) == NETWORK
    assert last(22.0) != NETWORK


def test_a_network_that_is_tried_again_starts_from_nothing(
    slow: tuple[BatchUpsampler, dict[str, float]],
) -> None:
    batch, _ = slow
    stream = batch.open(48000, cutoff=4000.0)
    plans = [
        Plan(NETWORK, network=True),
        Plan(REPLICATE, network=False),
        Plan(REPLICATE, network=False),
        Plan(REPLICATE, network=True),
        Plan(REPLICATE, network=True),
    ]
    begins = []
    for plan in plans:
        batch._shedding.plan = lambda *_, plan=plan: plan
        stream.push(np.full(HOP, 0.3, np.float32))
        batch.step()
        begins.append(float(np.abs(batch._step.parts[0].high_band[0, 0, :120]).max()))
    assert begins[3] == 0.0
    assert begins[4] > 0.0


def test_time_is_that_of_the_stream_with_most_sound_however_many_step() -> None:
    shedding = Shedding(0.1, 16)
    shedding._move(REPLICATE)
    tried, back = [], []
    # Each stream by itself; the last one has begun to speak again halfway.
    for hop in range(200):
        for row in range(16 if hop >= 50 else 15):
            plan = shedding.plan(10.0, 1, np.array([row]))
            shedding.record(5.0)
            tried += [hop] if plan.network else []
            back += [hop] if plan.level == NETWORK else []
    assert tried[0] == 99
    assert back[0] == 118
    # Nor is the half minute, after which a return counts as a success, a sixteenth of one.
    for _ in range(2900):
        for row in range(16):
            shedding.plan(10.0, 1, np.array([row]))
    shedding._move(REPLICATE)
    assert shedding._patience_ms == 2000.0


class _Heard:
    """Streams of one sound, fed and stepped one by one, at levels that are set from outside."""

    def __init__(self, batch: BatchUpsampler, count: int = 2) -> None:
        self.batch = batch
        self.streams = [batch.open(48000, cutoff=4000.0) for _ in range(count)]
        self.outs: list[list[np.ndarray]] = [[] for _ in self.streams]
        self.sound = np.random.default_rng(0).standard_normal(200 * HOP).astype(np.float32)
        self.sound[:] = 0.1 * np.convolve(self.sound, np.hanning(24) / 12, "same")
        self.hops = [0] * count
        self.set(Plan(NETWORK, network=True))

    def set(self, plan: Plan) -> None:
        self.batch._shedding.plan = lambda *_: plan

    def step(self, index: int, count: int = 1) -> None:
        for _ in range(count):
            start = self.hops[index] * HOP
            self.streams[index].push(self.sound[start : start + HOP])
            assert self.batch.step() == 1
            self.outs[index].append(self.streams[index].pull())
            self.hops[index] += 1

    def heard(self, index: int) -> np.ndarray:
        return np.concatenate(self.outs[index])


@pytest.mark.parametrize("level", [REPLICATE, DRY])
def test_who_is_not_due_when_the_level_changes_fades_in_a_step_of_its_own(
    stand_in: Path, level: str
) -> None:
    with BatchUpsampler(2, model=stand_in) as batch:
        both = _Heard(batch)
        for _ in range(10):
            both.step(0)
            both.step(1)
        both.set(Plan(level, network=False))
        both.step(0, 3)
        both.step(1, 3)
        assert np.array_equal(both.heard(0), both.heard(1))
        low = [stream.statistics for stream in both.streams]
        assert {(each.replicate_hops, each.dry_hops) for each in low} == {
            (3, 0) if level == REPLICATE else (0, 3)
        }
        # Nor was the one that was due cut off.
        added = both.heard(0)[120:] - both.sound[: 13 * HOP - 120]
        loud = np.abs(added[9 * HOP : 10 * HOP]).max()
        first = slice(10 * HOP - 120, 10 * HOP - 72)
        assert np.abs(added[first]).max() > 0.2 * loud


def test_each_stream_has_a_run_up_of_the_network_of_its_own(stand_in: Path) -> None:
    with BatchUpsampler(3, model=stand_in) as batch:
        three = _Heard(batch, 3)
        for index in range(3):
            three.step(index, 5)
        three.set(Plan(REPLICATE, network=False))
        three.step(0, 30)
        three.step(1, 30)
        # The third one sits that out.
        three.set(Plan(REPLICATE, network=True))
        three.step(0, 20)
        three.set(Plan(NETWORK, network=True))
        three.step(0, 20)
        three.step(1, 40)
        three.step(2, 70)
        assert [each.statistics.replicate_hops for each in three.streams] == [50, 50, 0]
        assert np.array_equal(three.heard(0), three.heard(1))

    with BatchUpsampler(1, model=stand_in) as batch:
        alone = _Heard(batch, 1)
        alone.step(0, 75)
        # Who missed nothing goes on with what the network knows of it.
        assert np.array_equal(alone.heard(0), three.heard(2))


def test_a_run_up_that_is_broken_off_begins_anew(stand_in: Path) -> None:
    with BatchUpsampler(1, model=stand_in) as batch:
        one = _Heard(batch, 1)
        for plan, hops in (
            (Plan(DRY, network=False), 5),
            (Plan(DRY, network=True), 15),
            (Plan(DRY, network=False), 1),
            (Plan(NETWORK, network=True), 25),
        ):
            one.set(plan)
            one.step(0, hops)
        assert one.streams[0].statistics.dry_hops == 5 + 15 + 1 + 20


def test_who_joins_while_the_network_is_left_out_begins_at_that_level(stand_in: Path) -> None:
    with BatchUpsampler(1, model=stand_in) as batch:
        batch._shedding.level = DRY
        one = _Heard(batch, 1)
        one.set(Plan(DRY, network=False))
        one.step(0)
        assert np.array_equal(one.heard(0)[120:], one.sound[: HOP - 120])
        one.set(Plan(NETWORK, network=True))
        one.step(0, 21)
        assert one.streams[0].statistics.dry_hops == 21


def test_two_steps_at_once_may_end_a_run_up_between_them(stand_in: Path) -> None:
    outs = []
    for size in (1, 2):
        with BatchUpsampler(1, model=stand_in) as batch:
            one = _Heard(batch, 1)
            one.set(Plan(REPLICATE, network=False))
            one.step(0, 5)
            one.set(Plan(NETWORK, network=True))
            one.step(0)
            stream, out = one.streams[0], []
            for start in range(6 * HOP, 40 * HOP, size * HOP):
                stream.push(one.sound[start : start + size * HOP])
                assert batch.step() == 1
                out.append(stream.pull())
            assert stream.statistics.replicate_hops == 25
            outs.append(np.concatenate([one.heard(0), *out]))
    assert np.abs(outs[0] - outs[1]).max() < 1e-6


@pytest.mark.parametrize("step_ms", [10.0, 40.0, 160.0])
def test_a_slow_step_without_arrears_sheds_nothing(step_ms: float) -> None:
    plans = _run(Shedding(0.1, 1, round(step_ms / 10)), 50, step_ms, 1.5 * step_ms, step_ms=step_ms)
    assert all(plan == Plan(NETWORK, network=True) for plan in plans)
