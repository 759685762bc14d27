"""Packets of many streams at once: the same bits as one by one, and nothing taken where refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rtsr import ArgumentError, AudioFormatError, BatchUpsampler, RtsrError
from rtsr.batch.stream import BatchStream

RATES = (8000, 16000, 48000, 44100, 8000, 11025)


def _packets(streams: int, samples: int, number: int) -> np.ndarray:
    noise = np.random.default_rng(number).normal(0.0, 0.2, (streams, samples))
    return noise.astype(np.float32)


def _facts(stream: BatchStream) -> tuple[object, ...]:
    statistics = stream.statistics
    return (
        stream.waiting_ms, stream.ready, stream.is_due, statistics.steps,
        statistics.repaired_samples, statistics.limited_samples, statistics.clipped_samples,
    )  # fmt: skip


@pytest.mark.parametrize("kind", [np.float32, np.int16, np.float64, ">i2"])
def test_many_streams_at_once_give_what_each_gives_alone(kind: type, stand_in: Path) -> None:
    loudness = 3.0 if np.dtype(kind).kind == "f" else 60000.0
    with BatchUpsampler(9, model=stand_in) as batch, BatchUpsampler(9, model=stand_in) as other:
        # What stays empty in between must not matter.
        spare = [one.open(8000) for one in (batch, other)]
        many = [batch.open(rate, seed=number) for number, rate in enumerate(RATES)]
        alone = [other.open(rate, seed=number) for number, rate in enumerate(RATES)]
        for one in spare:
            one.close()
        out = np.zeros((len(RATES), 3000), np.int16 if kind == np.int16 else np.float32)
        for number in range(12):
            samples = (80, 441, 7, 960)[number % 4]
            blocks = (loudness * _packets(len(RATES), samples, number)).clip(-32768, 32767)
            blocks = blocks.astype(kind)
            if np.dtype(kind).kind == "f":
                blocks[1, 3] = np.nan
            batch.push_many(many, blocks)
            for stream, block in zip(alone, blocks, strict=True):
                stream.push(block)
            while batch.step():
                pass
            while other.step():
                pass
            assert [_facts(stream) for stream in many] == [_facts(stream) for stream in alone]
            counts = batch.pull_many(many, out)
            assert counts.dtype == np.int64
            for stream, row, count in zip(alone, out, counts, strict=True):
                expected = np.empty((3000, 1), out.dtype)
                assert stream.pull_into(expected) == count
                assert np.array_equal(row[:count], expected[:count, 0])
            assert [_facts(stream) for stream in many] == [_facts(stream) for stream in alone]
        assert any(stream.statistics.limited_samples for stream in many)


def test_both_ways_may_take_turns(stand_in: Path) -> None:
    """Also across a change of the input's rate, which is faded in."""
    with BatchUpsampler(4, model=stand_in) as batch, BatchUpsampler(4, model=stand_in) as other:
        many, alone = ([one.open(8000) for _ in range(3)] for one in (batch, other))
        for number in range(20):
            samples = 160 if number < 10 else 33
            if number == 10:
                for streams in (many, alone):
                    streams[1].input_rate = 16000
                    streams[2].input_rate = 48000
            blocks = _packets(3, samples, number)
            if number % 3:
                batch.push_many(many, blocks)
            else:
                for stream, block in zip(many, blocks, strict=True):
                    stream.push(block)
            for stream, block in zip(alone, blocks, strict=True):
                stream.push(block)
            for one in (batch, other):
                while one.step():
                    pass
            for stream, twin in zip(many, alone, strict=True):
                assert np.array_equal(stream.pull(), twin.pull())
        for stream, twin in zip(many, alone, strict=True):
            stream.finish()
            twin.finish()
        while batch.step() or other.step():
            pass
        for stream, twin in zip(many, alone, strict=True):
            assert stream.is_done
            assert np.array_equal(stream.pull(), twin.pull())


def test_a_place_that_another_stream_had_is_new(stand_in: Path) -> None:
    with BatchUpsampler(1, model=stand_in) as batch:
        outs = []
        for _ in range(2):
            stream = batch.open(8000)
            batch.push_many([stream], _packets(1, 480, 0))
            while batch.step():
                pass
            outs.append(stream.pull())
            stream.close()
        assert np.array_equal(*outs)


def test_what_comes_out_looks_like_what_went_in(stand_in: Path) -> None:
    with BatchUpsampler(2, model=stand_in) as batch:
        stream = batch.open(8000)
        batch.push_many([stream], np.ones((1, 160), np.int16))
        assert stream.pull().dtype == np.int16
        # A list of packets, as they come from a network; any layout.
        batch.push_many([stream], [np.zeros(160, np.float32)])
        batch.push_many([stream], np.zeros((160, 1), np.float32).T)
        assert stream.pull().dtype == np.float32
        assert stream.waiting_ms == 60.0
        out = np.zeros((400, 1), np.float32).T
        batch.step()
        assert batch.pull_many([stream], out).tolist() == [400]


def test_nobody_is_nothing(stand_in: Path) -> None:
    with BatchUpsampler(1, model=stand_in) as batch:
        batch.push_many([], [])
        batch.push_many([], np.zeros((0, 160), np.float32))
        assert batch.pull_many([], np.zeros((0, 480), np.float32)).shape == (0,)


Change = Callable[[BatchUpsampler, list[BatchStream]], list[BatchStream]]


def _closed(batch: BatchUpsampler, streams: list[BatchStream]) -> list[BatchStream]:
    streams[1].close()
    return streams


def _finished(batch: BatchUpsampler, streams: list[BatchStream]) -> list[BatchStream]:
    streams[1].finish()
    return streams


def _full(batch: BatchUpsampler, streams: list[BatchStream]) -> list[BatchStream]:
    for _ in range(13):
        streams[1].push(np.zeros(160, np.float32))
    return streams


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (_closed, RtsrError, "This stream is closed"),
        (_finished, RtsrError, "This stream is finished"),
        (_full, RtsrError, "A block of 20 ms has no room behind 260 ms"),
        (lambda _, streams: [*streams, streams[0]], ArgumentError, "stands twice"),
        (lambda _, streams: [*streams, "call"], ArgumentError, "what open.. gave, not of 'call'"),
        (lambda batch, streams: [*streams, batch.open(8000, channels=2)], ArgumentError, "has 2;"),
    ],
)
def test_what_is_refused_takes_nothing_of_any(
    change: Change, error: type[RtsrError], message: str, stand_in: Path
) -> None:
    with BatchUpsampler(8, model=stand_in) as batch:
        # Another rate first, so that the one without room is not found first.
        streams = [batch.open(48000), batch.open(8000), batch.open(8000)]
        listed = change(batch, list(streams))
        before = [stream.waiting_ms for stream in streams]
        with pytest.raises(error, match=message):
            batch.push_many(listed, np.zeros((len(listed), 160), np.float32))
        assert [stream.waiting_ms for stream in streams] == before


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (np.zeros((3, 160), np.float32), r"2 streams are \(2, samples\), not blocks of shape"),
        (np.zeros(160, np.float32), r"not blocks of shape \(160,\)"),
        (np.zeros((2, 160, 1), np.float32), r"not blocks of shape \(2, 160, 1\)"),
        ([np.zeros(160), np.zeros(80)], "packets of several lengths"),
        (np.zeros((2, 160), np.int32), "16-bit integers, not int32"),
    ],
)
def test_other_blocks_are_refused(blocks: object, message: str, stand_in: Path) -> None:
    with BatchUpsampler(2, model=stand_in) as batch:
        streams = [batch.open(8000), batch.open(8000)]
        with pytest.raises(AudioFormatError, match=message):
            batch.push_many(streams, blocks)
        assert streams[0].waiting_ms == 0.0


def test_other_memory_is_refused(stand_in: Path) -> None:
    with BatchUpsampler(2, model=stand_in) as batch, BatchUpsampler(1, model=stand_in) as other:
        streams = [batch.open(8000), batch.open(8000)]
        fixed = np.zeros((2, 480), np.float32)
        fixed.flags.writeable = False
        for out in ([0.0], np.zeros((1, 480), np.float32), np.zeros((2, 480)), fixed):
            with pytest.raises(AudioFormatError, match=r"float32 or int16 \(2, samples\), not"):
                batch.pull_many(streams, out)
        with pytest.raises(ArgumentError, match="A stream of another batch"):
            other.pull_many(streams[:1], np.zeros((1, 480), np.float32))
        streams[0].close()
        with pytest.raises(RtsrError, match="This stream is closed"):
            batch.pull_many(streams, np.zeros((2, 480), np.float32))
