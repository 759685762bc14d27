"""Powers of bands, frame by frame, and what counts as sound and as a level among them."""

from __future__ import annotations

import numpy as np

from rtsr.spectra.stft import Signal, bin_frequencies, power_chunks
from rtsr.timing import HOP, SAMPLE_RATE

N_FFT = 1024
#: Frames a second at 48 kHz.
FRAMES_PER_SECOND = SAMPLE_RATE / HOP
#: Frames within this many dB of the loudest one have sound.
SOUND_RANGE_DB = 40.0
#: A band of 16-bit rounding noise lies 5 dB below this or more.
LOWEST_DB = -100.0
#: A larger error of a level counts as this one.
LARGEST_ERROR_DB = 40.0


def band_powers(
    signal: Signal, edges: Signal, sample_rate: int = SAMPLE_RATE
) -> tuple[Signal, Signal]:
    """Return powers per frame and band, and of whole frames; a full-scale sine gives 1.

    Args:
        signal: shape (samples,).
        edges: Hz, shape (bands + 1,), rising.
        sample_rate: Hz of the signal.

    Returns:
        shapes (frames, bands) and (frames,), a frame every 480 samples.
    """
    width = sample_rate / N_FFT
    bins = bin_frequencies(N_FFT, sample_rate)[:, np.newaxis]
    # Bands may be narrower than a bin: each bin counts as what lies within half a bin of it, so
    # that no band is empty.
    inside = np.minimum(bins + width / 2, edges[1:]) - np.maximum(bins - width / 2, edges[:-1])
    shares = np.maximum(inside, 0.0) / width
    # A full-scale sine under a Hann window sums to 3/32 n^2 over the positive frequencies.
    full_scale = 3.0 / 32.0 * N_FFT**2
    bands, wholes = [], []
    for power in power_chunks(signal, N_FFT, HOP):
        bands.append(power @ shares / full_scale)
        wholes.append(power.sum(axis=1) / full_scale)
    return np.concatenate(bands), np.concatenate(wholes)


def decibels(power: Signal) -> Signal:
    """Return powers in dB, at least `LOWEST_DB`."""
    return np.asarray(10.0 * np.log10(np.maximum(power, 10.0 ** (LOWEST_DB / 10.0))))


def level_errors(power: Signal, reference_power: Signal) -> Signal:
    """Return by how many dB powers lie above those of the reference, within +-40 dB."""
    difference = decibels(power) - decibels(reference_power)
    return np.clip(difference, -LARGEST_ERROR_DB, LARGEST_ERROR_DB)
