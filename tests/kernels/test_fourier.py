"""The transform against numpy's, both ways."""

from __future__ import annotations

import numpy as np
import pytest

from rtsr_kernels.fourier import (
    fourier_tables,
    real_fourier_tables,
    transform,
    transform_real,
)


@pytest.mark.parametrize("length", [2, 8, 1024])
def test_forward_and_back(length: int) -> None:
    tables = fourier_tables(length)
    numbers = np.random.default_rng(length).standard_normal((2, length)) @ np.eye(length)
    signal = numbers[0] + 1j * numbers[1]
    real, imaginary = signal.real.copy(), signal.imag.copy()
    transform(real, imaginary, *tables)
    np.testing.assert_allclose(real + 1j * imaginary, np.fft.fft(signal), atol=1e-11 * length)
    transform(imaginary, real, *tables)
    np.testing.assert_allclose((real + 1j * imaginary) / length, signal, atol=1e-12)


@pytest.mark.parametrize("length", [0, 1, 3, 600])
def test_other_lengths_are_refused(length: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        fourier_tables(length)


def test_numbers_and_tables_must_fit() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        transform(np.zeros(16), np.zeros(16), *fourier_tables(8))


@pytest.mark.parametrize("length", [4, 8, 1024])
def test_real_numbers(length: int) -> None:
    samples = np.random.default_rng(length).standard_normal(length).astype(np.float32)
    real, imaginary = np.full((2, length // 2 + 1), np.nan, np.float32)
    transform_real(samples, real, imaginary, *real_fourier_tables(length))
    error = real + 1j * imaginary - np.fft.rfft(samples)
    # Rounding to 24 bits in each stage: 130 dB below the sound.
    assert np.abs(error).max() < 10 ** (-130 / 20) * np.sqrt(length) * np.log2(length)


@pytest.mark.parametrize("length", [0, 2, 600])
def test_other_lengths_of_real_numbers_are_refused(length: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        real_fourier_tables(length)


def test_real_numbers_bins_and_tables_must_fit() -> None:
    samples, eight, nine = (np.zeros(length, np.float32) for length in (16, 8, 9))
    with pytest.raises(ValueError, match="N / 2"):
        transform_real(samples, eight, nine, *real_fourier_tables(16))
    with pytest.raises(ValueError, match="differ in length"):
        transform_real(samples, nine, nine.copy(), *real_fourier_tables(8))
