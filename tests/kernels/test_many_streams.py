"""What is computed for many streams side by side has the bits of one stream after another."""

from __future__ import annotations

import numpy as np
import pytest

from rtsr_kernels.bandwidth import start_bandwidth
from rtsr_kernels.cutoffs import cutoff_scratch, cutoff_state, measure_block, measure_rows
from rtsr_kernels.fourier import real_fourier_tables, transform_real
from rtsr_kernels.fourier_lanes import LANES, power_of_lanes
from rtsr_kernels.highpass import LANES as FILTER_LANES
from rtsr_kernels.highpass import filter_lanes, filter_line, highpass_sos

HOP = 480


@pytest.mark.parametrize(
    ("length", "bins"), [(1024, 1), (1024, 110), (1024, 258), (1024, 513), (64, 33), (16, 9)]
)
def test_powers_side_by_side(length: int, bins: int) -> None:
    tables, half = real_fourier_tables(length), length // 2
    samples = np.random.default_rng(0).standard_normal((length, LANES)).astype(np.float32)
    real, imaginary, power = (np.full((half + 1, LANES), np.nan, np.float32) for _ in range(3))
    real[tables.order], imaginary[tables.order] = samples[::2], samples[1::2]
    power_of_lanes(
        real,
        imaginary,
        bins,
        power,
        tables.cosines,
        tables.sines,
        tables.turn_cosines,
        tables.turn_sines,
    )
    one_real, one_imaginary = np.zeros((2, half + 1), np.float32)
    for lane in (0, 7, LANES - 1):
        transform_real(np.ascontiguousarray(samples[:, lane]), one_real, one_imaginary, *tables)
        assert np.array_equal((one_real**2 + one_imaginary**2)[:bins], power[:bins, lane])


@pytest.mark.parametrize(("length", "lanes"), [(128, LANES), (1024, LANES - 1)])
def test_powers_of_other_shapes_are_refused(length: int, lanes: int) -> None:
    tables = real_fourier_tables(length)
    rows = [np.zeros((length // 2 + 1, lanes), np.float32) for _ in range(3)]
    with pytest.raises(ValueError, match="power_of_lanes"):
        power_of_lanes(
            rows[0],
            rows[1],
            1,
            rows[2],
            tables.cosines,
            tables.sines,
            tables.turn_cosines,
            tables.turn_sines,
        )


def test_high_passes_side_by_side() -> None:
    random = np.random.default_rng(1)
    samples = random.standard_normal((2 * HOP, FILTER_LANES)).astype(np.float32)
    samples[HOP:, 3] = 0.0
    cutoffs = random.uniform(500.0, 20000.0, FILTER_LANES)
    sos = np.stack([highpass_sos(float(hz)) for hz in cutoffs], axis=-1)
    states = np.zeros((4, 2, FILTER_LANES))
    lanes = samples.astype(np.float64)
    filter_lanes(sos, states, lanes)
    for lane in range(FILTER_LANES):
        state, out = np.zeros((4, 2)), np.zeros(2 * HOP, np.float32)
        filter_line(highpass_sos(float(cutoffs[lane])), state, samples[:, lane], out)
        assert np.array_equal(out, lanes[:, lane].astype(np.float32))
        assert np.array_equal(state, states[:, :, lane])


@pytest.mark.parametrize("streams", [1, 7, 8, 32, 45])
def test_cutoffs_side_by_side(streams: int) -> None:
    """Streams of one and two channels, silent, given and measured, 2 hops a step."""
    random = np.random.default_rng(streams)
    channels = [2 if row % 5 == 4 else 1 for row in range(streams)]
    slots = np.zeros((streams, 8), np.int64)
    for row in range(streams):
        slots[row, : channels[row]] = sum(channels[:row]) + np.arange(channels[row])
    seconds, frames = 3, 2 * HOP
    sound = 0.05 * random.standard_normal((sum(channels), seconds * 48000))
    spectrum = np.fft.rfft(sound, axis=1)
    ends = random.uniform(3000.0, 12000.0, len(spectrum))
    spectrum[np.fft.rfftfreq(sound.shape[1], 1 / 48000) > ends[:, None]] = 0.0
    sound = np.fft.irfft(spectrum, axis=1).astype(np.float32)
    for row in range(0, streams, 3):
        sound[slots[row, 0], 48000 : 48000 + 7 * HOP * (row + 1)] = 0.0
    many, single = cutoff_state(streams, 2), cutoff_state(streams, 2)
    for state in (many, single):
        for row in range(streams):
            values = state.values[row]
            values["channels"], values["native_hz"] = channels[row], 24000.0
            values["given_hz"] = 5000.0 if row % 7 == 6 else np.nan
            start_bandwidth(state.detectors, row, 24000.0, 24000.0)
    scratch, rows = cutoff_scratch(), np.arange(streams)
    moved = False
    for start in range(0, sound.shape[1] - frames, frames):
        part = np.ascontiguousarray(sound[:, start : start + frames])
        measure_rows(many, rows, slots, part, scratch)
        for row in rows:
            block = np.ascontiguousarray(part[slots[row, : channels[row]]].T)
            measure_block(single, row, block, scratch.detector)
        assert np.array_equal(many.f_prior, single.f_prior)
        moved = moved or bool((many.f_prior[0] < 20000.0).any())
    assert moved
