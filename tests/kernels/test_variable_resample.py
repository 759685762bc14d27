"""The resampler with a moving ratio: its response, its delay, its independence of the blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import carray, cfunc, float32, float64, int64, types
from variable_resampler import VariableResampler

from rtsr_kernels.variable_resample import (
    PHASES,
    delay_frames,
    design,
    frames_needed,
    resample_variable,
)

PAIRS = [(48_000, 48_000), (48_000, 44_100), (44_100, 48_000), (48_000, 96_000), (48_000, 16_000)]


def decibels(value: float) -> float:
    return 20.0 * np.log10(value)


def continuous_response(table: np.ndarray, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies in hertz and gain of the filter that the table samples."""
    phases, taps = table.shape[0] - 1, table.shape[1]
    # Tap `i` of row `p` stands at `i + 1 - p / phases`, in input frames from the window's start.
    place = (np.arange(taps) + 1) * phases - np.arange(phases)[:, np.newaxis]
    response = np.zeros(taps * phases + 1)
    response[place] = table[:-1]
    gain = np.abs(np.fft.rfft(response, 1 << 18)) / phases
    return np.arange(gain.size) * (phases * rate / (1 << 18)), gain


@pytest.mark.parametrize(("input_rate", "output_rate"), PAIRS)
def test_response(input_rate: int, output_rate: int) -> None:
    frequency, gain = continuous_response(design(input_rate, output_rate), input_rate)
    nyquist = min(input_rate, output_rate) / 2
    audible = gain[frequency <= 20 / 24 * nyquist]
    assert decibels(audible.min()) > -0.001
    assert decibels(audible.max()) < 0.001
    # As flat as the fixed resampler almost to where that one ends.
    assert decibels(gain[frequency <= 0.88 * nyquist].min()) > -0.1
    assert decibels(gain[frequency >= 28 / 24 * nyquist].max()) < -90.0


@pytest.mark.parametrize(("input_rate", "output_rate"), PAIRS)
def test_table(input_rate: int, output_rate: int) -> None:
    table = design(input_rate, output_rate)
    assert table.dtype == np.float32
    assert table.shape[0] == PHASES + 1
    assert table.shape[1] % 8 == 0
    assert table.flags.c_contiguous
    assert not table.flags.writeable
    assert table is design(input_rate, output_rate)
    np.testing.assert_allclose(table.sum(axis=1, dtype=np.float64), 1.0, atol=1e-6)
    # The last phase is the first one of the next frame.
    np.testing.assert_allclose(table[-1, 1:], table[0, :-1], atol=1e-6)
    # Linear phase: each phase is the mirror of its opposite.
    np.testing.assert_allclose(table, table[::-1, ::-1], atol=1e-6)


def track(resampler: VariableResampler, signal: Any, ratios: list[float], counts: list[int]) -> Any:
    """Outputs and the input instants they show, for a signal given as a function of the frame."""
    consumed = 0
    pieces, instants = [], []
    for ratio, count in zip(ratios, counts, strict=True):
        begin = consumed + resampler.position
        needed = resampler.frames_needed(ratio, count)
        frames = np.arange(consumed, consumed + needed)
        block = np.stack([signal(frames)] * resampler.channels, axis=1).astype(np.float32)
        pieces.append(resampler.process(block, ratio, count))
        instants.append(begin + ratio * np.arange(count) - resampler.delay)
        consumed += needed
    return np.concatenate(pieces), np.concatenate(instants)


@pytest.mark.parametrize("frequency", [50.0, 997.0, 5_000.0, 12_345.0, 20_000.0])
@pytest.mark.parametrize("spread", [0.0, 4e-4], ids=["fixed", "moving"])
@pytest.mark.parametrize(("input_rate", "output_rate"), PAIRS[:3])
def test_a_sine_stays_a_sine_and_in_its_place(
    frequency: float, spread: float, input_rate: int, output_rate: int
) -> None:
    if frequency > 20 / 48 * min(input_rate, output_rate):
        frequency *= 44.1 / 48
    random = np.random.default_rng(3)
    resampler = VariableResampler(input_rate, output_rate)
    nominal = input_rate / output_rate
    counts = random.integers(1, 600, 40).tolist()
    ratios = (nominal * (1.000_2 + spread * random.uniform(-1, 1, 40))).tolist()
    omega = 2 * np.pi * frequency / input_rate
    output, instants = track(resampler, lambda n: 0.9 * np.sin(omega * n), ratios, counts)
    # Compared with the very sine at the very instants: gain, delay and images all in one number.
    ideal = 0.9 * np.sin(omega * instants)
    settled = instants > resampler.table.shape[1]
    error = output[settled, 0] - ideal[settled]
    assert decibels(error.std() / ideal[settled].std()) < -80.0
    basis = np.stack([ideal, 0.9 * np.cos(omega * instants)], axis=1)[settled]
    fit = np.linalg.solve(basis.T @ basis, basis.T @ output[settled, 0])
    rest = output[settled, 0] - basis @ fit
    assert decibels(rest.std() / ideal[settled].std()) < -90.0


def test_ratio_one_is_a_pure_delay() -> None:
    resampler = VariableResampler(48_000, 48_000, 2)
    delay = int(resampler.delay)
    assert delay == resampler.delay == delay_frames(resampler.table)
    noise = np.random.default_rng(1).standard_normal((1_000, 2)).astype(np.float32)
    assert resampler.frames_needed(1.0, 1_000) == 1_000
    output = resampler.process(noise, 1.0, 1_000)
    np.testing.assert_allclose(output[delay:], noise[:-delay], atol=1e-6)
    np.testing.assert_allclose(output[:delay], 0.0, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(0, 200), min_size=1, max_size=20),
    ratio=st.sampled_from([1.0, 1.0003, 0.9996, 44_100 / 48_000, 48_000 / 44_100, 1 / 6, 6.0]),
    channels=st.integers(1, 3),
)
def test_the_cut_into_blocks_does_not_matter(
    counts: list[int], ratio: float, channels: int
) -> None:
    total = sum(counts)
    noise = np.random.default_rng(5).standard_normal((int(total * ratio) + 3, channels))
    noise = noise.astype(np.float32)
    whole = VariableResampler(48_000 * ratio, 48_000, channels)
    needed = whole.frames_needed(ratio, total)
    expected = whole.process(noise[:needed], ratio, total)
    parts = VariableResampler(48_000 * ratio, 48_000, channels)
    consumed = 0
    output = []
    for count in counts:
        block = noise[consumed : consumed + parts.frames_needed(ratio, count)]
        consumed += len(block)
        output.append(parts.process(block, ratio, count))
        assert parts.position >= -1.0
    # A position that rounds to the other side of a frame may move one frame to the next block.
    assert abs(consumed - needed) <= 1
    np.testing.assert_allclose(np.concatenate(output), expected, atol=3e-5)


def test_channels_are_alike_and_apart() -> None:
    random = np.random.default_rng(2)
    block = random.standard_normal((400, 3)).astype(np.float32)
    together = VariableResampler(48_000, 48_000, 3)
    needed = together.frames_needed(1.0004, 399)
    output = together.process(block[:needed], 1.0004, 399)
    for channel in range(3):
        alone = VariableResampler(48_000, 48_000)
        line = np.ascontiguousarray(block[:needed, channel : channel + 1])
        np.testing.assert_allclose(
            alone.process(line, 1.0004, 399)[:, 0], output[:, channel], atol=2e-6
        )


def test_reset_begins_a_new_stream() -> None:
    resampler = VariableResampler(48_000, 44_100)
    block = np.ones((resampler.frames_needed(1.09, 50), 1), dtype=np.float32)
    first = resampler.process(block, 1.09, 50)
    resampler.reset()
    assert resampler.position == 0.0
    np.testing.assert_array_equal(resampler.process(block, 1.09, 50), first)


def test_a_block_that_is_too_short_reads_nothing_else() -> None:
    table = design(48_000, 48_000)
    taps = table.shape[1]
    memory = np.full((taps + 40 + taps, 1), np.nan, dtype=np.float32)
    memory[taps : taps + 40] = 1.0
    history = np.ones((taps, 1), dtype=np.float32)
    position = np.zeros(1)
    out = np.empty((64, 1), dtype=np.float32)
    resample_variable(history, position, table, 1.0, memory[taps : taps + 40], out)
    np.testing.assert_allclose(out, 1.0, atol=1e-5)
    assert np.isfinite(history).all()


def test_usable_from_a_c_callback() -> None:
    floats, doubles = types.CPointer(float32), types.CPointer(float64)
    table = design(48_000, 48_000)
    rows, taps = table.shape

    @cfunc(int64(floats, doubles, floats, floats, floats, int64))
    def callback(history, position, table, block, out, count):  # type: ignore[no-untyped-def]
        where = carray(position, (1,))
        needed = frames_needed(where, 1.0002, count)
        resample_variable(
            carray(history, (taps, 2)),
            where,
            carray(table, (rows, taps)),
            1.0002,
            carray(block, (needed, 2)),
            carray(out, (count, 2)),
        )
        return needed

    noise = np.random.default_rng(9).standard_normal((140, 2)).astype(np.float32)
    history = np.zeros((taps, 2), dtype=np.float32)
    position = np.zeros(1)
    out = np.zeros((128, 2), dtype=np.float32)
    arrays = [history, position, table.copy(), noise, out]
    kinds = callback.ctypes.argtypes[:5]
    pointers = [a.ctypes.data_as(kind) for a, kind in zip(arrays, kinds, strict=True)]
    needed = callback.ctypes(*pointers, 128)
    reference = VariableResampler(48_000, 48_000, 2)
    assert needed == reference.frames_needed(1.0002, 128)
    expected = reference.process(noise[:needed], 1.0002, 128)
    np.testing.assert_allclose(out, expected, atol=1e-6)
    assert position[0] == reference.position


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="positive"):
        design(48_000, 0)
