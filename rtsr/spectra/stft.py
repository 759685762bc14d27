"""The short-time Fourier transform that every spectral metric shares."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Signal = NDArray[np.float64]

# Spectra are handed out in chunks of frames, so that a long file needs little memory.
CHUNK_FRAMES = 2048


def periodic_hann(length: int) -> Signal:
    """Periodic Hann window, ``0.5 - 0.5 cos(2 pi n / length)``, of shape (length,)."""
    phase = 2.0 * np.pi * np.arange(length, dtype=np.float64) / length
    return np.asarray(0.5 - 0.5 * np.cos(phase), dtype=np.float64)


def bin_frequencies(n_fft: int, sample_rate: int) -> Signal:
    """Centre frequency in Hz of each bin, shape (n_fft // 2 + 1,)."""
    return np.asarray(np.fft.rfftfreq(n_fft, 1.0 / sample_rate), dtype=np.float64)


def frame_count(samples: int, hop: int) -> int:
    """Frames of a centred transform: one at sample 0 and one for every whole hop after it."""
    return 1 + samples // hop


def power_chunks(signal: Signal, n_fft: int, hop: int) -> Iterator[Signal]:
    """Unnormalised power spectra ``|X|^2`` of centred, periodic-Hann frames, chunk by chunk.

    Frame ``t`` is centred on sample ``t * hop``; the ends are mirrored (zeros where the signal is
    shorter than half a frame and cannot be).

    Args:
        signal: shape (samples,).
        n_fft: frame length in samples, even.
        hop: distance of two frames in samples.

    Yields:
        arrays of shape (frames, n_fft // 2 + 1); together ``1 + samples // hop`` frames.
    """
    half = n_fft // 2
    padded = np.pad(signal, half, mode="reflect" if signal.size > half else "constant")
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop]
    frames = frames[: frame_count(signal.size, hop)]
    window = periodic_hann(n_fft)
    for start in range(0, frames.shape[0], CHUNK_FRAMES):
        spectrum = np.fft.rfft(frames[start : start + CHUNK_FRAMES] * window, axis=-1)
        yield spectrum.real**2 + spectrum.imag**2


def paired_power_chunks(
    reference: Signal, estimate: Signal, n_fft: int, hop: int
) -> Iterator[tuple[Signal, Signal]]:
    """:func:`power_chunks` of two signals of one length, side by side."""
    yield from zip(
        power_chunks(reference, n_fft, hop), power_chunks(estimate, n_fft, hop), strict=True
    )
