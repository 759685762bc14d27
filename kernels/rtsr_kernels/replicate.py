"""Spectral band replication: the high band as a shifted and shaped copy of the low one, plus noise.

The idea is that of Dietz, Liljeryd, Kjoerling and Kunz, "Spectral band replication, a novel
approach in audio coding" (AES 112, 2002). There the envelope of the high band is transmitted; here
a linear regression predicts it from the low band. Nothing is learned here: the regression's
weights are an argument.

Frame ``k`` uses the input up to sample ``480 k`` and covers the 600 samples that end there.
"""

from __future__ import annotations

import math

import numpy as np
from numba import float32, float64, int64, types, void

from .compiled import AUDIO, AUDIO_IN, MATRIX_IN, STATE, VECTOR, VECTOR_IN, kernel
from .fourier import fourier_tables, transform
from .noise import fill_noise
from .replicate_design import (
    ANALYSIS,
    BANDS,
    BINS,
    CONTEXT,
    FEATURES_PER_BAND,
    HOP,
    HZ_PER_BIN,
    OVERLAP,
    SYNTHESIS,
    TRUSTED,
    analysis_window,
    band_of_bin,
    place_of_bin,
    replica_window,
    synthesis_window,
)

#: Rows of 1024 numbers of scratch memory that a step needs.
SCRATCH_ROWS = 6

_COSINES, _SINES, _ORDER = fourier_tables(ANALYSIS)
_WINDOW = analysis_window()
_REPLICA_WINDOW = replica_window()
_NOISE_WINDOW = synthesis_window(1.0)
_BAND_OF_BIN = band_of_bin()
_PLACE = place_of_bin()
_BAND_SIZES = np.bincount(_BAND_OF_BIN[_BAND_OF_BIN >= 0], minlength=BANDS).astype(np.float64)
_WINDOW_POWER = float(_WINDOW @ _WINDOW)

# A band counts as empty so far below the level (a factor in power): features stay bounded, and
# follow the level of the input exactly.
_EMPTY = 1e-7
# Below about -100 dBFS there is nothing to continue; a smooth gate does not flutter there.
_NOTHING = 1e-10
# A sibilant's energy lies above a narrow band; more than 20 dB above it is an extrapolation.
_LOUDEST_ABOVE = 2.0
_SLOPE_START = 0.925
_CEILING_SLOPE_HZ = 500.0
_SHARED_STREAM = 0

_SAMPLES = types.Array(float32, 1, "C")
_SAMPLES_IN = types.Array(float32, 1, "C", readonly=True)
_WEIGHTS = types.Array(float32, 3, "C", readonly=True)
_MATRIX = types.Array(float64, 2, "C")


@kernel(void(_SAMPLES_IN, int64, VECTOR, VECTOR, VECTOR))
def band_densities(
    newest: np.ndarray,
    last_bin: int,
    real: np.ndarray,
    imaginary: np.ndarray,
    densities: np.ndarray,
) -> None:
    """Compute the mean power density per band of the newest 1024 samples into ``densities``.

    ``densities`` is ``(bands,)``.

    White noise has its variance as density. Of the band that ``last_bin`` lies in, only the bins up
    to there count: the others are on the slope of the filter that made the limit. ``real`` and
    ``imaginary`` ``(1024,)`` hold the spectrum of the windowed samples afterwards.
    """
    for sample in range(ANALYSIS):
        real[sample] = newest[sample] * _WINDOW[sample]
        imaginary[sample] = 0.0
    transform(real, imaginary, _COSINES, _SINES, _ORDER)
    densities[:] = 0.0
    cut_band, beyond = _BAND_OF_BIN[last_bin], 0
    for index in range(BINS):
        band = _BAND_OF_BIN[index]
        if index > last_bin and band == cut_band:
            beyond += 1
        elif band >= 0:
            densities[band] += real[index] ** 2 + imaginary[index] ** 2
    for band in range(BANDS):
        size = _BAND_SIZES[band] - beyond if band == cut_band else _BAND_SIZES[band]
        densities[band] /= size * _WINDOW_POWER


@kernel(float64(MATRIX_IN, int64, VECTOR))
def context_features(context: np.ndarray, input_bands: int, features: np.ndarray) -> float:
    """Compute the features of one frame from the densities of 23; return their reference level.

    Args:
        context: ``(23, bands)`` densities, the newest last.
        input_bands: bands, from the lowest, that hold content.
        features: ``(5 * input_bands,)`` or longer; log10 of densities relative to the level, by
            age: newest, one before, two before, mean of four before these, mean of sixteen before.

    Returns:
        log10 of the mean density over the input's bands and all 23 frames.
    """
    bins = 0.0
    for band in range(input_bands):
        bins += _BAND_SIZES[band]
    power = 0.0
    for row in range(CONTEXT):
        for band in range(input_bands):
            power += context[row, band] * _BAND_SIZES[band]
    # Bounded by what no 16-bit file can hold, so that silence has a logarithm, too.
    mean = max(power / (bins * CONTEXT), 1e-14)
    level = math.log10(mean)
    smallest = _EMPTY * mean
    for band in range(input_bands):
        for age in range(3):
            value = max(context[CONTEXT - 1 - age, band], smallest)
            features[age * input_bands + band] = math.log10(value) - level
        total = 0.0
        for row in range(CONTEXT - 7, CONTEXT - 3):
            total += math.log10(max(context[row, band], smallest))
        features[3 * input_bands + band] = total / 4.0 - level
        total = 0.0
        for row in range(CONTEXT - 23, CONTEXT - 7):
            total += math.log10(max(context[row, band], smallest))
        features[4 * input_bands + band] = total / 16.0 - level
    return level


@kernel(void(MATRIX_IN, _WEIGHTS, int64, VECTOR, VECTOR))
def predict(
    context: np.ndarray,
    weights: np.ndarray,
    input_bands: int,
    features: np.ndarray,
    envelope: np.ndarray,
) -> None:
    """Predict log10 densities of the missing bands into the upper part of ``envelope``.

    ``weights`` is ``(bands, 1 + 5 * bands, bands)`` by number of the input's bands, feature (first
    the constant) and band. The lower part of ``envelope`` gets the densities of the input's bands.
    """
    level = context_features(context, input_bands, features)
    used = FEATURES_PER_BAND * input_bands
    loudest = -300.0
    for band in range(input_bands):
        envelope[band] = features[band] + level
        loudest = max(loudest, envelope[band])
    for band in range(input_bands, BANDS):
        envelope[band] = weights[input_bands, 0, band]
    for feature in range(used):
        value = features[feature]
        for band in range(input_bands, BANDS):
            envelope[band] += weights[input_bands, 1 + feature, band] * value
    for band in range(input_bands, BANDS):
        envelope[band] = min(envelope[band] + level, loudest + _LOUDEST_ABOVE)


@kernel(float64(VECTOR_IN, int64, int64, int64))
def _at_bin(envelope: np.ndarray, index: int, first: int, last: int) -> float:
    """Interpolate the envelope at a bin, between the centres of the bands ``first`` to ``last``."""
    place = min(max(_PLACE[index], float(first)), float(last))
    left = min(int(place), last - 1)
    share = place - left
    return envelope[left] * (1.0 - share) + envelope[left + 1] * share


@kernel(void(VECTOR_IN, int64, float64, float64, float64, VECTOR))
def _amplitudes(
    envelope: np.ndarray,
    input_bands: int,
    f_prior: float,
    f_target: float,
    power: float,
    amplitudes: np.ndarray,
) -> None:
    """Compute the root of the wanted density per bin, zero outside of the high band."""
    gate = power / (power + _NOTHING)
    start = _SLOPE_START * f_prior
    for index in range(BINS):
        frequency = index * HZ_PER_BIN
        rise = min((frequency - start) / (f_prior - start), 1.0)
        fall = min((f_target - frequency) / _CEILING_SLOPE_HZ, 1.0)
        if rise <= 0.0 or fall <= 0.0 or index == BINS - 1 or gate == 0.0:
            amplitudes[index] = 0.0
            continue
        slope = math.sin(0.5 * math.pi * rise) * math.sin(0.5 * math.pi * fall)
        density = _at_bin(envelope, index, input_bands, BANDS - 1)
        amplitudes[index] = gate * slope * 10.0 ** (0.5 * density)


@kernel(void(_MATRIX, VECTOR_IN, _SAMPLES_IN, int64, int64, float64, float64))
def _excite(
    scratch: np.ndarray,
    envelope: np.ndarray,
    noise: np.ndarray,
    frame: int,
    input_bands: int,
    f_prior: float,
    replica_share: float,
) -> None:
    """Compute the replica's spectrum plus ``i`` times the noise's: one transform serves both.

    The low band, flattened by its own envelope, is shifted up by whole patches. A bin's phase is
    that of a carrier that runs through all frames, so a moved partial stays a partial.
    """
    real, imaginary, out_real, out_imaginary, amplitudes = (
        scratch[0], scratch[1], scratch[2], scratch[3], scratch[4],
    )  # fmt: skip
    out_real[:] = 0.0
    out_imaginary[:] = 0.0
    top = int(_SLOPE_START * f_prior / HZ_PER_BIN)
    patch = max(top // 2, 1)
    for index in range(max(top, 1), BINS - 1):
        amplitude = amplitudes[index]
        if amplitude == 0.0:
            continue
        copy = (index - top) // patch + 1
        shift = copy * patch
        source = index - shift
        # Recordings grow noisier with frequency, and a copy far from its origin is audible as one.
        replica = math.sqrt(replica_share / copy)
        rest = math.sqrt((1.0 - replica_share / copy) * ANALYSIS / 2.0)
        flat = replica * amplitude * 10.0 ** (-0.5 * _at_bin(envelope, source, 0, input_bands - 1))
        # exp(2 pi i shift 480 frame / 1024), from the table of the last stage's half turn
        turn = (shift * HOP * frame) % ANALYSIS
        half = ANALYSIS // 2
        sign = 1.0 if turn < half else -1.0
        cosine = sign * _COSINES[half + turn % half]
        sine = -sign * _SINES[half + turn % half]
        moved = flat * (cosine * real[source] - sine * imaginary[source])
        moved_imaginary = flat * (cosine * imaginary[source] + sine * real[source])
        random = rest * amplitude * noise[2 * index]
        random_imaginary = rest * amplitude * noise[2 * index + 1]
        out_real[index] = moved - random_imaginary
        out_imaginary[index] = moved_imaginary + random
        out_real[ANALYSIS - index] = moved + random_imaginary
        out_imaginary[ANALYSIS - index] = random - moved_imaginary


@kernel(void(AUDIO_IN, AUDIO, STATE, AUDIO, _SAMPLES, _MATRIX, _WEIGHTS, float64, int64, int64,
             int64, float64, float64, AUDIO))  # fmt: skip
def replicate_hop(
    audio: np.ndarray,
    history: np.ndarray,
    contexts: np.ndarray,
    tails: np.ndarray,
    noise: np.ndarray,
    scratch: np.ndarray,
    weights: np.ndarray,
    replica_share: float,
    seed: int,
    frame: int,
    input_bands: int,
    f_prior: float,
    f_target: float,
    out: np.ndarray,
) -> None:
    """Synthesise the high band of one hop, for input time ``[480 k - 600, 480 k - 120)``.

    Args:
        audio: ``(480, channels)`` float32, the newest input, frame ``k``.
        history: ``(channels, 1024)`` float32 state, zeros at first.
        contexts: ``(channels, 23, bands)`` float64 state, zeros at first.
        tails: ``(channels, 120)`` float32 state, zeros at first.
        noise: ``(1024,)`` float32, scratch memory.
        scratch: ``(6, 1024)`` float64, scratch memory.
        weights: of the regression, see :func:`predict`.
        replica_share: of the power of the first copy of the low band, 0 (only noise) to 1; the
            n-th copy has the n-th part of it.
        seed: of the noise, which all channels share.
        frame: index of the frame, the noise's counter.
        input_bands: number of the input's bands, see
            :func:`~rtsr_kernels.replicate_design.bands_below`.
        f_prior: Hz where the input ends.
        f_target: Hz where the output should end.
        out: ``(480, channels)`` float32.
    """
    fill_noise(seed, frame, _SHARED_STREAM, noise)
    last_bin = min(int(TRUSTED * f_prior / HZ_PER_BIN), BINS - 1)
    envelope, features = scratch[5, :BANDS], scratch[5, BANDS:]
    for channel in range(audio.shape[1]):
        newest = history[channel]
        for sample in range(ANALYSIS - HOP):
            newest[sample] = newest[sample + HOP]
        newest[-HOP:] = audio[:, channel]
        context = contexts[channel]
        for row in range(CONTEXT - 1):
            context[row] = context[row + 1]
        band_densities(newest, last_bin, scratch[0], scratch[1], context[CONTEXT - 1])
        predict(context, weights, input_bands, features, envelope)
        power = 0.0
        for sample in range(ANALYSIS - SYNTHESIS, ANALYSIS):
            power += float(newest[sample]) ** 2
        _amplitudes(envelope, input_bands, f_prior, f_target, power / SYNTHESIS, scratch[4])
        _excite(scratch, envelope, noise, frame, input_bands, f_prior, replica_share)
        # Swapped arguments make the transform an inverse one.
        transform(scratch[3], scratch[2], _COSINES, _SINES, _ORDER)
        tail = tails[channel]
        for sample in range(SYNTHESIS):
            place = ANALYSIS - SYNTHESIS + sample
            value = _REPLICA_WINDOW[sample] * scratch[2, place]
            value = (value + _NOISE_WINDOW[sample] * scratch[3, place]) / ANALYSIS
            if sample < OVERLAP:
                out[sample, channel] = tail[sample] + value
            elif sample < HOP:
                out[sample, channel] = value
            else:
                tail[sample - HOP] = value
