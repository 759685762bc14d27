"""The noise generator: published vectors, distribution, addresses."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit, uint32

from rtsr_kernels.noise import fill_noise, fill_noise_frames, philox_4x32


@njit
def _philox(counter, key, out):  # type: ignore[no-untyped-def]
    out[0], out[1], out[2], out[3] = philox_4x32(
        uint32(counter[0]),
        uint32(counter[1]),
        uint32(counter[2]),
        uint32(counter[3]),
        uint32(key[0]),
        uint32(key[1]),
    )


# kat_vectors of the Random123 distribution, philox4x32 with 10 rounds.
VECTORS = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), VECTORS, ids=["zeros", "ones", "pi"])
def test_philox_known_answers(counter: list[int], key: list[int], expected: list[int]) -> None:
    out = np.zeros(4, dtype=np.uint32)
    _philox(np.array(counter, np.uint32), np.array(key, np.uint32), out)
    assert out.tolist() == expected


def at(seed: int, frame: int, stream: int, channels: int = 64) -> np.ndarray:
    out = np.empty(channels, dtype=np.float32)
    fill_noise(seed, frame, stream, out)
    return out


def test_address_means_seed_frame_and_stream() -> None:
    """Box-Muller on the published words, written out again here."""
    out = np.zeros(4, dtype=np.uint32)
    frame, seed = (5 << 32) + 7, (3 << 32) + 9
    _philox(np.array([2, 11, 7, 5], np.uint32), np.array([9, 3], np.uint32), out)
    u = (out.astype(float) + 0.5) / 2**32
    radius = np.sqrt(-2 * np.log(u[[0, 0, 2, 2]]))
    angle = 2 * np.pi * u[[1, 1, 3, 3]]
    expected = radius * np.array(
        [np.cos(angle[0]), np.sin(angle[1]), np.cos(angle[2]), np.sin(angle[3])]
    )
    np.testing.assert_allclose(at(seed, frame, 11)[8:12], expected, rtol=1e-6)


def test_is_standard_normal() -> None:
    values = np.empty((64, 20000), dtype=np.float32)
    fill_noise_frames(1, 0, 0, values)
    values = values.astype(float)
    count = values.size
    assert abs(values.mean()) < 5 / count**0.5
    assert abs(values.var() - 1) < 5 * (2 / count) ** 0.5
    assert abs((values**3).mean()) < 5 * (15 / count) ** 0.5
    assert abs((values**4).mean() - 3) < 5 * (96 / count) ** 0.5
    # Kolmogorov-Smirnov against the normal distribution, 0.1 % level.
    from scipy.stats import norm

    order = norm.cdf(np.sort(values.ravel()))
    assert np.abs(order - (np.arange(count) + 0.5) / count).max() < 1.95 / count**0.5


def test_channels_frames_seeds_and_streams_are_independent() -> None:
    values = np.empty((64, 20000), dtype=np.float32)
    fill_noise_frames(1, 0, 0, values)
    limit = 6 / 20000**0.5
    correlation = np.corrcoef(values)
    assert np.abs(correlation - np.eye(64)).max() < limit
    for lag in (1, 2, 3, 100):
        assert np.abs((values[:, lag:] * values[:, :-lag]).mean(axis=1)).max() < limit
    for seed, first, stream in [(2, 0, 0), (1, 0, 1), (1 << 32, 0, 0), (1, 1 << 32, 0), (-1, 0, 0)]:
        other = np.empty_like(values)
        fill_noise_frames(seed, first, stream, other)
        assert not (other == values).any()
        assert np.abs((other * values).mean(axis=1)).max() < limit


def test_frames_do_not_depend_on_how_they_are_asked_for() -> None:
    whole = np.empty((10, 9), dtype=np.float32)
    fill_noise_frames(7, 100, 3, whole)
    for i in range(9):
        np.testing.assert_array_equal(at(7, 100 + i, 3, 10), whole[:, i])
        np.testing.assert_array_equal(at(7, 100 + i, 3, 5), whole[:5, i])
    np.testing.assert_array_equal(at(7, 100, 3), at(7, 100, 3))


@pytest.mark.parametrize("channels", [0, 1, 2, 3, 4, 5, 63])
def test_any_number_of_channels_and_nothing_beside(channels: int) -> None:
    memory = np.full((channels + 2, 3), 77.0, dtype=np.float32)
    fill_noise(3, 4, 0, memory[1:-1, 1])
    np.testing.assert_array_equal(memory[1:-1, 1], at(3, 4, 0)[:channels])
    memory[1:-1, 1] = 77.0
    assert (memory == 77.0).all()


def test_extremes_are_finite() -> None:
    smallest = np.sqrt(-2 * np.log(0.5 * 2.0**-32))
    values = np.empty((64, 50000), dtype=np.float32)
    fill_noise_frames(123, -25000, 0, values)
    assert np.isfinite(values).all()
    assert np.abs(values).max() <= smallest
