"""Streams in a batch: each as if it were alone, whoever else comes, goes, stalls or fails."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import tracemalloc
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rtsr import (
    ArgumentError,
    AudioFormatError,
    BatchFullError,
    BatchStream,
    BatchUpsampler,
    ModelError,
    RtsrError,
    Upsampler,
)
from rtsr.colour.auto import AutoColour
from rtsr.engine import ports
from rtsr_kernels.resample import SUPPORTED_RATES

MakeSound = Callable[..., np.ndarray]

EXAMPLE = Path(__file__).parents[3] / "examples" / "many_calls.py"

# Matrix products round by the size of the batch.
TOLERANCE = 1e-5
CAPACITY = 5


def _alone(sound: np.ndarray, rate: int, hops: int, model: str | Path, **settings: Any) -> Any:
    """What an Upsampler gives, from the moment on that a batch does."""
    with Upsampler(rate, model=model, hops_per_step=hops, **settings) as upsampler:
        out = np.concatenate([upsampler.process(sound), upsampler.flush()])
        latency = upsampler.latency
    return out[latency.hop * latency.output_rate // 48000 :]


@dataclass
class _Call:
    """One stream of a random schedule."""

    join: int
    rate: int
    settings: dict[str, Any]
    sound: np.ndarray
    blocks: list[int]
    sent: int = 0
    stream: BatchStream | None = None
    parts: list[np.ndarray] = field(default_factory=list)
    over: bool = False

    def advance(self, batch: BatchUpsampler, now: int) -> None:
        """Join, push one block or finish; a block of nothing is a stall."""
        if self.stream is None:
            if now >= self.join and batch.free >= self.settings["channels"]:
                self.stream = batch.open(self.rate, **self.settings)
            return
        if self.sent < len(self.sound):
            length = min(self.blocks[now % len(self.blocks)] * self.rate // 1000, self.rate // 40)
            self.stream.push(self.sound[self.sent : self.sent + length])
            self.sent += length
        else:
            self.stream.finish()

    def collect(self) -> None:
        if self.stream is None or self.over:
            return
        self.parts.append(self.stream.pull().reshape(-1, self.stream.channels))
        if self.stream.is_done:
            self.over = True
            self.stream.close()


@st.composite
def _calls(draw: st.DrawFn, make_sound: MakeSound) -> list[_Call]:
    calls = []
    for index in range(draw(st.integers(1, 7))):
        rate = draw(st.sampled_from(SUPPORTED_RATES))
        channels = draw(st.sampled_from([1, 1, 2]))
        chosen = {
            "channels": channels,
            "seed": draw(st.integers(0, 3)),
            "wet": draw(st.sampled_from([1.0, 0.5, 0.0])),
            "cutoff": draw(st.sampled_from([None, 3600.0, 7000.0])),
            "ceiling": draw(st.sampled_from([None, 16000.0])),
            "output_rate": draw(st.sampled_from([48000, 48000, 44100])),
        }
        seconds = draw(st.sampled_from([0.0, 0.004, 0.05, 0.2]))
        sound = make_sound(rate, max(seconds, 0.01), cutoff=3500, channels=channels, seed=index)
        blocks = draw(st.lists(st.integers(0, 25), min_size=1, max_size=6))
        blocks.append(draw(st.integers(5, 25)))
        sound = sound[: round(seconds * rate)]
        calls.append(_Call(draw(st.integers(0, 30)), rate, chosen, sound, blocks))
    return calls


@pytest.mark.slow
@pytest.mark.parametrize("hops", [1, 2])
@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_streams_that_come_and_go_equal_streams_alone(
    hops: int, model: str, make_sound: MakeSound, data: st.DataObject
) -> None:
    calls = data.draw(_calls(make_sound))
    steps = data.draw(st.integers(1, 3))
    with BatchUpsampler(
        CAPACITY, model=model, hops_per_step=hops, buffer_ms=500, overload="wait"
    ) as batch:
        now = 0
        while not all(call.over for call in calls):
            for call in calls:
                if not call.over:
                    call.advance(batch, now)
            for _ in range(steps):
                batch.step()
            while any(stream.waiting_ms > 300 for stream in batch.streams):
                batch.step()
            for call in calls:
                call.collect()
            now += 1
            assert now < 2000
        assert batch.free == CAPACITY
    for call in calls:
        expected = _alone(call.sound, call.rate, hops, model, **call.settings)
        result = np.concatenate(call.parts)
        assert result.shape == expected.shape
        assert np.abs(result - expected).max(initial=0.0) <= TOLERANCE


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_packets_of_any_length_give_what_a_stream_gives_alone(
    model: str, make_sound: MakeSound, data: st.DataObject
) -> None:
    """Some have one hop waiting, some two, and which do changes from round to round."""
    count = data.draw(st.integers(2, 4))
    rates = [data.draw(st.sampled_from([8000, 16000, 48000])) for _ in range(count)]
    cutoffs = [data.draw(st.sampled_from([None, 3600.0])) for _ in range(count)]
    sounds = [
        make_sound(rate, 0.16, cutoff=3500, level=0.3, seed=index)[:, 0]
        for index, rate in enumerate(rates)
    ]
    # ms of each stream's packets in each round.
    lengths_ms = st.lists(st.sampled_from([0, 5, 10, 20, 20, 30]), min_size=4, max_size=4)
    rounds = data.draw(st.lists(lengths_ms, max_size=6))
    rounds += [[20, 10, 20, 15], [10, 20, 20, 20]]
    with BatchUpsampler(4, model=model, buffer_ms=500, overload="wait") as batch:
        streams = [
            batch.open(rate, cutoff=cutoff, seed=index)
            for index, (rate, cutoff) in enumerate(zip(rates, cutoffs, strict=True))
        ]
        parts: list[list[np.ndarray]] = [[] for _ in streams]
        sent = [0] * count
        now = 0
        while not all(stream.is_done for stream in streams):
            lengths = rounds[now % len(rounds)]
            for index, stream in enumerate(streams):
                length = lengths[index] * rates[index] // 1000
                if sent[index] < len(sounds[index]):
                    stream.push(sounds[index][sent[index] : sent[index] + length])
                    sent[index] += length
                else:
                    stream.finish()
            while any(stream.is_due for stream in streams):
                due = sum(stream.is_due for stream in streams)
                assert batch.step() == due
            assert batch.step() == 0
            # Nobody waits for a second hop.
            assert all(stream.is_done or stream.waiting_ms < 10.0 for stream in streams)
            for stream, part in zip(streams, parts, strict=True):
                part.append(stream.pull())
            now += 1
            assert now < 500
    for index, part in enumerate(parts):
        expected = _alone(sounds[index], rates[index], 1, model, cutoff=cutoffs[index], seed=index)
        result = np.concatenate(part)
        assert result.shape == expected.shape
        assert np.abs(result - expected).max() <= TOLERANCE


def test_a_packet_of_two_hops_is_one_run_of_the_network(
    stand_in: Path, make_sound: MakeSound
) -> None:
    sound = make_sound(48000, 0.06, cutoff=3500)[:, 0]
    runs: list[tuple[int, int]] = []
    with BatchUpsampler(4, model=stand_in, overload="wait") as batch:
        run = batch._step.run

        def noted(due: np.ndarray, held: np.ndarray, steps: int) -> None:
            runs.append((len(due), steps))
            run(due, held, steps)

        batch._step.run = noted
        stereo, *others = batch.open(48000, channels=2), batch.open(48000), batch.open(48000)
        stereo.push(np.repeat(sound[:960, None], 2, axis=1))
        others[0].push(sound[:480])
        others[1].push(sound[:1440])
        assert batch.step() == 3
        assert runs == [(3, 2), (1, 1)]
        assert [stream.ready for stream in batch.streams] == [960, 480, 960]
        assert [stream.statistics.steps for stream in batch.streams] == [2, 1, 2]
        assert batch.step() == 1
        assert batch.step() == 0
        assert runs[2:] == [(1, 1)]
        assert [stream.held_steps for stream in batch.streams] == [1, 1, 0]
        assert batch.statistics.steps == 2


def test_latency_is_that_of_one_hop_whether_or_not_hops_come_in_twos(stand_in: Path) -> None:
    click = np.zeros(960, np.float32)
    click[700] = 1.0
    with BatchUpsampler(1, model=stand_in, overload="wait") as batch:
        stream = batch.open(48000, wet=0.0)
        assert stream.latency.hop == 480
        stream.push(click)
        batch.step()
        out = stream.pull()
        assert len(out) == 960
        assert np.argmax(out) == 700 + stream.delay_samples


def test_a_stalled_stream_keeps_its_state(model: str, make_sound: MakeSound) -> None:
    sound = make_sound(48000, 0.4, cutoff=3500)[:, 0]
    with BatchUpsampler(3, model=model, buffer_ms=500, overload="wait") as batch:
        steady, stalled = (batch.open(48000, cutoff=3500.0) for _ in range(2))
        parts = []
        for hop in range(40):
            block = sound[hop * 480 : (hop + 1) * 480]
            if hop < 10:
                stalled.push(block)
            steady.push(block)
            assert batch.step() == (2 if hop < 10 else 1)
        parts.append(stalled.pull())
        assert stalled.held_steps == 30
        assert steady.held_steps == 0
        steady.close()
        for hop in range(10, 40):
            stalled.push(sound[hop * 480 : (hop + 1) * 480])
            batch.step()
        parts.append(stalled.pull())
    expected = _alone(sound, 48000, 1, model, cutoff=3500.0)
    result = np.concatenate(parts)
    assert len(result) == len(sound)
    assert np.abs(result[120:] - sound[:-120]).max() > 1e-3, "there is a high band to compare"
    assert np.abs(result - expected[: len(result)]).max() <= TOLERANCE


def test_a_slot_is_fresh_for_the_next_stream(model: str, make_sound: MakeSound) -> None:
    first = make_sound(8000, 0.3, seed=1)[:, 0]
    second = make_sound(8000, 0.2, cutoff=3000, seed=2)[:, 0]
    with BatchUpsampler(1, model=model, overload="wait") as batch:
        for sound in (first, second):
            stream = batch.open(8000)
            parts = []
            for start in range(0, len(sound), 80):
                stream.push(sound[start : start + 80])
                batch.step()
                parts.append(stream.pull())
            stream.close()
        assert batch.free == 1
    result = np.concatenate(parts)
    assert np.abs(result - _alone(second, 8000, 1, model)[: len(result)]).max() <= TOLERANCE


def test_a_failing_stream_does_not_disturb_others(
    failing_model: Path, make_sound: MakeSound
) -> None:
    sound = make_sound(48000, 0.2, cutoff=3500)[:, 0]
    good, bad = np.abs(sound), -np.abs(sound)
    with BatchUpsampler(2, model=failing_model, overload="wait") as batch:
        whole, broken = batch.open(48000, cutoff=4000.0), batch.open(48000, cutoff=4000.0)
        for start in range(0, len(sound), 480):
            whole.push(good[start : start + 480])
            broken.push(bad[start : start + 480])
            batch.step()
        assert broken.statistics.degraded_blocks > 0
        assert whole.statistics.degraded_blocks == 0
        result, dry = whole.pull(), broken.pull()
    expected = _alone(good, 48000, 1, failing_model, cutoff=4000.0)
    assert np.abs(result - expected[: len(result)]).max() <= TOLERANCE
    assert np.isfinite(dry).all()


def test_a_hop_behind_a_broken_one_is_made_without_it_also_where_both_come_at_once(
    failing_model: Path, make_sound: MakeSound
) -> None:
    sound = np.abs(make_sound(48000, 0.2, cutoff=3500)[:, 0])
    # The first of two hops is broken.
    sound[4 * 480 : 5 * 480] *= -1.0
    results = []
    with BatchUpsampler(2, model=failing_model, overload="wait") as batch:
        for size in (480, 960):
            stream, parts = batch.open(48000, cutoff=4000.0), []
            for start in range(0, len(sound), size):
                stream.push(sound[start : start + size])
                assert batch.step() == 1
                parts.append(stream.pull())
            assert stream.statistics.degraded_blocks == 1
            results.append(np.concatenate(parts))
    assert np.abs(results[0] - results[1]).max() <= TOLERANCE


def test_channels_that_are_alike_stay_alike(model: str, make_sound: MakeSound) -> None:
    """Until they differ, to the hop: of 20 ms that are taken at once only the second 10 differ."""
    mono = make_sound(16000, 0.2, cutoff=6000)
    sound = np.repeat(mono, 2, axis=1)
    sound[-160:, 1] *= 0.5
    with BatchUpsampler(5, model=model, overload="wait") as batch:
        others = [batch.open(8000, seed=seed) for seed in (1, 2, 3)]
        stream = batch.open(16000, channels=2)
        for start in range(0, len(mono), 320):
            for other in others:
                other.push(mono[start : start + 160])
            stream.push(sound[start : start + 320])
            while batch.step():
                pass
        both = stream.pull()
    with Upsampler(16000, channels=2, model=model) as upsampler:
        alone = np.concatenate([upsampler.process(sound), upsampler.flush()])[480:]
    (differs,) = np.nonzero(alone[:, 0] != alone[:, 1])
    assert len(both) - 480 < differs[0] < len(both)
    assert np.array_equal(both[: differs[0], 0], both[: differs[0], 1])


@pytest.mark.parametrize("output_rate", [48000, 44100])
@pytest.mark.parametrize("hops", [1, 4])
@pytest.mark.parametrize("rate", SUPPORTED_RATES)
def test_click_comes_out_after_the_stated_delay(
    rate: int, hops: int, output_rate: int, stand_in: Path
) -> None:
    click = np.zeros(rate // 5, np.float32)
    click[rate // 10] = 1.0
    with BatchUpsampler(1, model=stand_in, hops_per_step=hops, overload="wait") as batch:
        stream = batch.open(rate, wet=0.0, output_rate=output_rate)
        stream.push(click)
        stream.finish()
        while batch.step():
            pass
        assert stream.is_done
        out = stream.pull()
    assert len(out) == stream.delay_samples + round(len(click) * output_rate / rate)
    peak = int(np.argmax(np.abs(out)))
    assert peak - stream.delay_samples == round(rate // 10 * output_rate / rate)
    assert stream.latency.algorithmic_samples - stream.delay_samples == hops * output_rate // 100


def test_gain_is_changed_in_one_stream_only(stand_in: Path, make_sound: MakeSound) -> None:
    sound = make_sound(48000, 0.2, cutoff=3500)[:, 0]
    with BatchUpsampler(2, model=stand_in, overload="wait") as batch:
        streams = [batch.open(48000, cutoff=4000.0) for _ in range(2)]
        streams[0].wet = 0.0
        for stream in streams:
            stream.push(sound)
        while batch.step():
            pass
        muted, loud = (stream.pull() for stream in streams)
    assert np.array_equal(muted[120:], sound[: len(muted) - 120])
    expected = _alone(sound, 48000, 1, stand_in, cutoff=4000.0)
    assert np.array_equal(loud, expected[: len(loud)])


def test_the_ceiling_is_changed_in_one_stream_only(make_sound: MakeSound) -> None:
    sound = make_sound(48000, 0.3, cutoff=3500)[:, 0]
    with BatchUpsampler(2, model="small", overload="wait", buffer_ms=400) as batch:
        changed, other = (batch.open(48000, cutoff=4000.0) for _ in range(2))
        changed.ceiling = 8000.0
        assert (changed.ceiling, other.ceiling) == (8000.0, batch.model.metadata.f_target_default)
        for stream in (changed, other):
            stream.push(sound)
        while batch.step():
            pass
        pulled = [stream.pull() for stream in (changed, other)]
    for out, ceiling in zip(pulled, (8000.0, None), strict=True):
        expected = _alone(sound, 48000, 1, "small", cutoff=4000.0, ceiling=ceiling)
        assert np.abs(out - expected[: len(out)]).max() < 1e-5


def test_the_native_rate_bounds_what_is_measured(stand_in: Path, make_sound: MakeSound) -> None:
    sound = make_sound(48000, 0.1, cutoff=20000)[:, 0]
    with BatchUpsampler(1, model=stand_in, overload="wait") as batch:
        stream = batch.open(48000)
        assert stream.native_rate == 48000
        for native in (8000, 16000):
            stream.native_rate = native
            assert stream.native_rate == native
            stream.push(sound)
            while batch.step():
                pass
            assert stream.cutoff_hz == native / 2
        for wrong in (0, 96000):
            with pytest.raises(ArgumentError, match="native rate"):
                stream.native_rate = wrong


def test_a_seed_is_changed_in_one_stream_only(make_sound: MakeSound) -> None:
    sound = make_sound(48000, 0.2, cutoff=3500)[:, 0]
    with BatchUpsampler(2, model="small", overload="wait") as batch:
        changed, other = (batch.open(48000, cutoff=4000.0) for _ in range(2))
        changed.seed = 7
        assert (changed.seed, other.seed) == (7, 0)
        with pytest.raises(ArgumentError, match="64-bit"):
            changed.seed = 2**63
        for stream in (changed, other):
            stream.push(sound)
        while batch.step():
            pass
        pulled = [stream.pull() for stream in (changed, other)]
    assert not np.array_equal(*pulled)
    for out, seed in zip(pulled, (7, 0), strict=True):
        expected = _alone(sound, 48000, 1, "small", cutoff=4000.0, seed=seed)
        assert np.abs(out - expected[: len(out)]).max() < 1e-5


def test_what_nobody_pulls_holds_the_stream_back(stand_in: Path) -> None:
    block = np.full(480, 0.1, np.float32)
    with BatchUpsampler(2, model=stand_in, buffer_ms=20, overload="wait") as batch:
        lazy, steady = batch.open(48000), batch.open(48000)
        while not lazy.held_steps:
            lazy.push(block)
            steady.push(block)
            batch.step()
            steady.pull()

        def overfill() -> None:
            while True:
                lazy.push(block)

        with pytest.raises(RtsrError, match="has no room behind"):
            overfill()
        before = lazy.waiting_ms
        with pytest.raises(RtsrError, match="has no room behind"):
            lazy.push(block)
        assert lazy.waiting_ms == before  # nothing of it was taken
        lazy.pull()
        assert batch.step() >= 1
        assert lazy.is_due


def test_broken_samples_are_repaired_and_counted(stand_in: Path) -> None:
    with BatchUpsampler(2, model=stand_in, overload="wait") as batch:
        stream, other = batch.open(48000), batch.open(48000)
        stream.push(np.full(480, np.nan, np.float32))
        other.push(np.zeros(480, np.float32))
        batch.step()
        assert np.array_equal(stream.pull(), np.zeros(480, np.float32))
        assert stream.statistics.repaired_samples == 480
        assert other.statistics.repaired_samples == 0
        assert stream.statistics.steps == batch.statistics.steps == 1
        assert batch.statistics.step_ms.first > 0.0


def test_rank_of_the_block_is_kept(stand_in: Path) -> None:
    with BatchUpsampler(2, model=stand_in, overload="wait") as batch:
        stream = batch.open(48000)
        stream.push(np.zeros(480, np.float64))
        batch.step()
        assert stream.ready == 480
        assert stream.pull(100).shape == (100,)
        stream.push(np.zeros((0, 1), np.float32))
        assert stream.pull().shape == (380, 1)
        stream.push(np.zeros((480, 1), np.float32))
        batch.step()
        out = np.ones((500, 1), np.float32)
        assert stream.pull_into(out) == 480
        assert out[480:].all()
        assert not out[:480].any()


def test_a_step_without_work_costs_nothing(stand_in: Path) -> None:
    with BatchUpsampler(2, model=stand_in, overload="wait") as batch:
        assert batch.step() == 0
        stream = batch.open(48000)
        stream.push(np.zeros(479, np.float32))
        assert batch.step() == 0
        assert not stream.is_due
        stream.push(np.zeros(1, np.float32))
        assert stream.is_due
        assert batch.step() == 1
        assert batch.statistics.steps == 1


def test_a_finished_stream_comes_out_whole_and_takes_no_more(stand_in: Path) -> None:
    with BatchUpsampler(1, model=stand_in, overload="wait") as batch:
        stream = batch.open(8000)
        stream.finish()
        stream.finish()
        with pytest.raises(RtsrError, match="finished"):
            stream.push(np.zeros(80, np.float32))
        # Another rate's delay is not what its end was reckoned with.
        stream.input_rate = stream.input_rate
        with pytest.raises(RtsrError, match="finished"):
            stream.input_rate = 16000
        while batch.step():
            pass
        assert stream.is_done
        assert len(stream.pull()) == stream.delay_samples


def test_capacity_counts_channels(stand_in: Path) -> None:
    with BatchUpsampler(3, model=stand_in, overload="wait") as batch:
        stereo = batch.open(8000, channels=2)
        assert batch.free == 1
        with pytest.raises(RtsrError, match="1 of 3 slots are free"):
            batch.open(8000, channels=2)
        mono = batch.open(8000)
        assert batch.streams == (stereo, mono)
        with pytest.raises(BatchFullError, match="1 channel does not fit: 0 of 3"):
            batch.open(8000)
        mono.close()
        mono.close()
        assert batch.free == 1
        assert mono.is_closed
        batch.open(8000)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"capacity": 0}, "1 to 16384 slots, not 0"),
        ({"capacity": -3}, "1 to 16384 slots, not -3"),
        ({"capacity": 10**9}, "1 to 16384 slots"),
        ({"capacity": 1.5}, "whole number of slots, not 1.5"),
        ({"capacity": 1, "buffer_ms": 1}, "20 to 60000 ms, not 1"),
        ({"capacity": 1, "hops_per_step": 3}, "hops_per_step must be one of"),
        ({"capacity": 1, "threads": 0}, "threads on this machine, not 0"),
    ],
)
def test_batch_arguments(arguments: dict[str, Any], sentence: str, stand_in: Path) -> None:
    with pytest.raises(ArgumentError, match=sentence) as refused:
        BatchUpsampler(**arguments, model=stand_in)
    assert str(refused.value).count(".") <= 2


def test_replicate_is_no_batch(stand_in: Path) -> None:
    with pytest.raises(ModelError):
        BatchUpsampler(2, model="replicate")


@pytest.mark.parametrize(
    ("rate", "arguments", "sentence"),
    [
        (96000, {}, "only Upsampler, files, pipes and live go beyond"),
        (7000, {}, "sample rate of 7000 Hz is not supported"),
        (8000, {"channels": 0}, "0 channels is not supported"),
        (8000, {"output_rate": 96000}, "24000 or 16000 Hz, not 96000"),
        (8000, {"wet": 2.0}, "between 0 and 1"),
        (8000, {"cutoff": 10.0}, "cutoff must lie between"),
        (8000, {"seed": "x"}, "seed must be an integer"),
        (8000, {"expected_cutoff": 0.0}, "expected cutoff must lie at 20 Hz or above"),
        (8000, {"expected_cutoff": float("nan")}, "expected cutoff must lie at 20 Hz or above"),
        (8000, {"expected_cutoff": "x"}, "expected cutoff must be a number"),
        (8000, {"expected_cutoff": 10**400}, "expected cutoff must lie at 20 Hz or above"),
        (8000, {"wet": 10**400}, "between 0 and 1, not at inf"),
    ],
)
def test_stream_arguments(
    rate: int, arguments: dict[str, Any], sentence: str, stand_in: Path
) -> None:
    with BatchUpsampler(1, model=stand_in, overload="wait") as batch:
        with pytest.raises(RtsrError, match=sentence):
            batch.open(rate, **arguments)
        assert batch.free == 1
        batch.open(8000)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"expected_cutoff": Fraction(8001, 2)}, None),
        ({"limiter": np.array([1, 2])}, ValueError),
    ],
)
def test_an_opening_that_fails_takes_no_place(
    arguments: dict[str, Any], error: type[Exception] | None, stand_in: Path
) -> None:
    with BatchUpsampler(2, model=stand_in, overload="wait") as batch:
        for _ in range(3):
            if error is None:
                batch.open(8000, **arguments).close()
            else:
                with pytest.raises(error):
                    batch.open(8000, **arguments)
            assert batch.free == 2
        batch.open(8000, channels=2)


def test_an_opening_that_fails_keeps_no_colour(
    stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise MemoryError

    with BatchUpsampler(1, model=stand_in, overload="wait") as batch:
        colour = AutoColour()
        kept = weakref.ref(colour)
        monkeypatch.setattr("rtsr.batch.rows.start_rows", fail)
        with pytest.raises(MemoryError):
            batch.open(8000, colour=colour)
        del colour
        gc.collect()
        assert kept() is None


@pytest.mark.parametrize("most", ["x", 2.5, np.zeros(2)])
def test_a_number_of_samples_to_pull_is_an_integer(stand_in: Path, most: Any) -> None:
    with BatchUpsampler(1, model=stand_in) as batch:
        stream = batch.open(8000)
        stream.push(np.zeros(80, np.float32))
        batch.step()
        with pytest.raises(ArgumentError, match="number of samples to pull must be an integer"):
            stream.pull(most)
        assert len(stream.pull(np.int64(6))) == 6
        assert len(stream.pull(True)) == 1
        assert len(stream.pull(-1)) == 0
        with pytest.raises(AudioFormatError, match="not into a list"):
            stream.pull_into([[0.0]] * 480)
        assert len(stream.pull()) == 473


def test_blocks_that_are_refused(stand_in: Path) -> None:
    with BatchUpsampler(3, model=stand_in, overload="wait") as batch:
        stream, stereo = batch.open(8000), batch.open(8000, channels=2)
        with pytest.raises(AudioFormatError, match="takes 8000 Hz, not 16000 Hz"):
            stream.push(np.zeros(160, np.float32), input_rate=16000)
        stream.push(np.zeros(80, np.float32), input_rate=8000)
        with pytest.raises(AudioFormatError, match="or 16-bit integers, not int32"):
            stream.push(np.zeros(80, np.int32))
        with pytest.raises(AudioFormatError, match="takes \\(samples, 2\\)"):
            stereo.push(np.zeros(80, np.float32))
        with pytest.raises(AudioFormatError, match="pulled into float32 or int16"):
            stereo.pull_into(np.zeros((80, 1), np.float32))
        with pytest.raises(ArgumentError, match="between 0 and 1"):
            stream.wet = -1.0
        with pytest.raises(ArgumentError, match="The ceiling must lie between"):
            stream.ceiling = 100.0
        with pytest.raises(RtsrError, match="no room"):
            stream.push(np.zeros(80000, np.float32))


NO_NUMBERS = ["x", None, b"x", [1.0], 1j]
EXTREMES = [0, -1, 1, 39, 39.9, float("nan"), float("inf"), 10**400, -(10**400), Fraction(1, 3)]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("native_rate", [*EXTREMES, *NO_NUMBERS, 8001]),
        ("input_rate", [*EXTREMES, *NO_NUMBERS, 7999]),
        ("cutoff", [*EXTREMES, *(each for each in NO_NUMBERS if each is not None), 24001]),
        ("ceiling", [*EXTREMES, *NO_NUMBERS, 24001]),
        ("wet", [-1, 1.001, float("nan"), float("inf"), 10**400, *NO_NUMBERS]),
        ("seed", [2**63, -(2**63) - 1, 0.5, 10**400, *NO_NUMBERS]),
        ("colour", ["x", 1, 1j]),
    ],
)
def test_what_no_stream_can_be_set_to_costs_the_others_no_step(
    name: str, values: list[Any], stand_in: Path
) -> None:
    with BatchUpsampler(2, model=stand_in, overload="wait") as batch:
        stream, other = batch.open(8000), batch.open(8000)
        before = getattr(stream, name)
        for value in values:
            with pytest.raises(RtsrError) as refused:
                setattr(stream, name, value)
            assert isinstance(refused.value, (ArgumentError, AudioFormatError))
            assert getattr(stream, name) == before
            for each in (stream, other):
                each.push(np.full(80, 0.1, np.float32))
            assert batch.step() == 2
        assert np.isfinite(stream.pull()).all()


def test_the_lowest_native_rate_is_one_that_a_step_takes(stand_in: Path) -> None:
    noise = np.random.default_rng(0).normal(0.0, 0.1, 8000).astype(np.float32)
    with BatchUpsampler(1, model=stand_in, overload="wait", buffer_ms=2000) as batch:
        stream = batch.open(8000)
        stream.native_rate = 40
        stream.push(noise)
        while batch.step():
            assert 20.0 <= stream.cutoff_hz <= 40.0
        assert np.isfinite(stream.pull()).all()


def test_what_is_closed_says_so(stand_in: Path) -> None:
    batch = BatchUpsampler(1, model=stand_in)
    stream = batch.open(8000)
    batch.close()
    batch.close()
    for use in (stream.pull, stream.finish, lambda: stream.push(np.zeros(8, np.float32))):
        with pytest.raises(RtsrError, match="stream is closed"):
            use()
    assert not stream.is_due
    for use in (batch.step, lambda: batch.open(8000)):
        with pytest.raises(RtsrError, match="BatchUpsampler is closed"):
            use()


def test_nobody_opens_a_stream_behind_those_that_are_closed(
    stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = BatchUpsampler(2, model=stand_in)
    stream, close = batch.open(8000), BatchStream.close

    def close_meanwhile(one: BatchStream) -> None:
        close(one)
        with pytest.raises(RtsrError, match="BatchUpsampler is closed"):
            batch.open(8000)

    monkeypatch.setattr(BatchStream, "close", close_meanwhile)
    batch.close()
    assert stream.is_closed
    assert batch.streams == ()


def test_a_closed_stream_does_not_tell_of_the_next_one_in_its_place(stand_in: Path) -> None:
    with BatchUpsampler(1, model=stand_in, overload="wait") as batch:
        first = batch.open(8000)
        first.push(np.zeros(80, np.float32))
        batch.step()
        first.close()
        second = batch.open(16000, wet=0.25, seed=9, cutoff=3000.0)
        second.push(np.zeros(1600, np.float32))
        batch.step()
        second.finish()
        while not second.is_done:
            batch.step()
        assert second.ready
        assert (first.ready, first.waiting_ms, first.is_done, first.is_due) == (
            0,
            0.0,
            False,
            False,
        )
        assert first.statistics.steps == 1
        for name in (
            "wet", "seed", "cutoff", "cutoff_hz", "ceiling", "native_rate", "held_steps",
            "colour", "colour_share",
        ):  # fmt: skip
            with pytest.raises(RtsrError, match="stream is closed"):
                getattr(first, name)


@pytest.mark.parametrize(
    ("name", "value"),
    [("cutoff", 1234.0), ("native_rate", 7000), ("input_rate", 16000), ("colour", None)],
)
def test_what_was_closed_while_a_change_waited_is_not_changed(
    name: str, value: object, stand_in: Path
) -> None:
    with BatchUpsampler(1, model=stand_in, overload="wait") as batch:
        first = batch.open(8000)
        lock, opened = batch._rows.lock, []

        class Meanwhile:
            """The lock, which is had only when another thread is done with the stream."""

            def __enter__(self) -> None:
                batch._rows.lock = lock
                first.close()
                opened.append(batch.open(8000, cutoff=3000.0))
                lock.acquire()

            def __exit__(self, *failure: object) -> None:
                lock.release()

        batch._rows.lock = Meanwhile()  # type: ignore[assignment]
        with pytest.raises(RtsrError, match="stream is closed"):
            setattr(first, name, value)
        (second,) = opened
        assert (second.cutoff, second.native_rate, second.input_rate) == (3000.0, 8000, 8000)


def test_threads_that_close_a_stream_at_once_free_one_place(stand_in: Path) -> None:
    problems: list[BaseException] = []

    def close(stream: BatchStream, together: threading.Barrier) -> None:
        together.wait(20)
        try:
            stream.close()
        except BaseException as error:
            problems.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with BatchUpsampler(1, model=stand_in, overload="wait") as batch:
            for _ in range(150):
                stream, together = batch.open(8000), threading.Barrier(3)
                threads = [
                    threading.Thread(target=close, args=(stream, together)) for _ in range(3)
                ]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join(20)
                assert batch.free == 1
    finally:
        sys.setswitchinterval(before)
    assert problems == []


def test_a_step_allocates_next_to_nothing(stand_in: Path, make_sound: MakeSound) -> None:
    sound = make_sound(8000, 0.02)[:, 0]
    out = np.empty((960, 1), np.float32)
    with BatchUpsampler(4, model=stand_in, overload="wait") as batch:
        streams = [batch.open(8000, cutoff=3600.0) for _ in range(4)]

        def hop(pushing: list[BatchStream], in_twos: int = 0) -> None:
            for index, stream in enumerate(pushing):
                stream.push(sound if index < in_twos else sound[:80])
            batch.step()
            for stream in streams:
                stream.pull_into(out)

        # Attributes are asked for by fresh strings where arrays go into compiled code; CPython's
        # cache of lookups keeps up to 4096 of them: it is filled before anything is counted.
        tracemalloc.start()
        for _ in range(1000):
            hop(streams, 2)
        tracemalloc.reset_peak()
        start = tracemalloc.get_traced_memory()[0]
        for _ in range(100):
            hop(streams)
            hop(streams[1:])
            hop(streams, 2)
            hop(streams, 4)
        kept, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert kept - start < 20_000
    assert peak - start < 100_000


def test_streams_are_fed_and_emptied_by_other_threads(
    stand_in: Path, make_sound: MakeSound
) -> None:
    sound = make_sound(16000, 0.5, cutoff=6000)[:, 0]
    expected = _alone(sound, 16000, 1, stand_in)
    results: dict[int, np.ndarray] = {}
    deadline = time.monotonic() + 60.0

    def call(index: int) -> None:
        stream = batch.open(16000)
        parts, sent = [], 0
        while not stream.is_done and time.monotonic() < deadline:
            if stream.waiting_ms < 100 and sent < len(sound):
                stream.push(sound[sent : sent + 100 + 37 * index])
                sent += 100 + 37 * index
            elif sent >= len(sound):
                stream.finish()
            parts.append(stream.pull())
            time.sleep(0.0005)
        parts.append(stream.pull())
        stream.close()
        results[index] = np.concatenate(parts)

    with BatchUpsampler(4, model=stand_in, overload="wait") as batch:
        threads = [threading.Thread(target=call, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            if not batch.step():
                time.sleep(0.0005)
        for thread in threads:
            thread.join()
    assert sorted(results) == [0, 1, 2, 3]
    for result in results.values():
        assert np.array_equal(result, expected)


@pytest.mark.parametrize("hops", [1, 2])
@pytest.mark.parametrize(
    ("rates", "output_rate"),
    [([16000], 48000), ([8000], 44100), ([48000], 16000), ([8000, 16000], 48000)],
)
def test_steps_may_fall_between_all_that_finishes_a_stream(
    rates: list[int],
    output_rate: int,
    hops: int,
    stand_in: Path,
    make_sound: MakeSound,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(between: bool) -> np.ndarray:
        parts = []

        def drain() -> None:
            while batch.step():
                parts.append(stream.pull())

        def then_drain(compiled: Callable[..., Any]) -> Callable[..., Any]:
            def called(*arguments: Any) -> Any:
                result = compiled(*arguments)
                drain()
                return result

            return called

        with BatchUpsampler(1, model=stand_in, hops_per_step=hops, overload="wait") as batch:
            stream = batch.open(rates[0], output_rate=output_rate)
            for rate in rates:
                stream.input_rate = rate
                stream.push(make_sound(rate, 0.063)[:, 0])
            drain()
            with monkeypatch.context() as patched:
                if between:
                    for name in ("push_block", "set_end"):
                        patched.setattr(ports, name, then_drain(getattr(ports, name)))
                stream.finish()
            drain()
            assert stream.is_done
        return np.concatenate(parts)

    assert np.array_equal(run(between=True), run(between=False))


@pytest.mark.slow
def test_example_of_many_calls_runs(stand_in: Path) -> None:
    options = ["--calls", "3", "--seconds", "1.2", "--model", str(stand_in)]
    finished = subprocess.run(
        [sys.executable, str(EXAMPLE), *options], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert "real-time margin" in finished.stdout
    refused = subprocess.run(
        [sys.executable, str(EXAMPLE), "--calls", "0"], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert refused.stderr == "rtsr: A batch has 1 to 16384 slots, not 0.\n"
