"""Sibilants: s, sh, z and their like, where the ear is sensitive to the high band of speech."""

from __future__ import annotations

import numpy as np

from rtsr.quality.artefacts.levels import (
    AUDIBLE_DBFS,
    band_powers,
    decibels,
    mean_or_nan,
    ratio_db,
    runs,
)
from rtsr.spectra.stft import Signal

_FFT, _HOP = 512, 240
_SIBILANT_BAND = (4000.0, 12000.0)
_VOICE_BAND = (50.0, 3000.0)
_RANGE_DB = 20.0
_FLOOR_DB = -70.0
_SHORTEST_FRAMES = 8
# The frames after the last of a run: one for the window's own length, then 30 ms.
_AFTER_FIRST, _AFTER_LAST = 2, 8
_FALL = 10.0 ** (-10.0 / 10.0)
_INAUDIBLE = 10.0 ** (AUDIBLE_DBFS / 10.0)
_MASKED = 10.0 ** (-30.0 / 10.0)


def sibilant_level_db(reference: Signal, output: Signal, cutoff_hz: float) -> float:
    """Measure the generated band in sibilants, in dB to the reference; positive is too bright.

    A sibilant is a stretch of the reference of at least 40 ms (n_fft 512, hop 240) in which the
    band of 4 to 12 kHz is stronger than that of 50 to 3000 Hz, within 20 dB of its own loudest
    frame and above -70 dBFS. Compared is the energy of a stretch between max(cutoff, 4 kHz) and
    max(12 kHz, 1.5 x cutoff), each at least -80 dBFS; the dB of all stretches are averaged.

    Returns:
        dB; NaN where the reference has no sibilant.
    """
    original, generated, stretches = _bands(reference, output, cutoff_hz)
    return mean_or_nan(
        [
            ratio_db(float(np.mean(generated[a:b])), float(np.mean(original[a:b])), _INAUDIBLE)
            for a, b in stretches
        ]
    )


def sibilant_smear_db(reference: Signal, output: Signal, cutoff_hz: float) -> float:
    """Measure the high band in the 30 ms after a sibilant, in dB to the reference; positive smears.

    Stretches and band as in :func:`sibilant_level_db`; only ends after which the reference's mean
    power ``A`` over 30 ms (frames centred 10 to 35 ms after the last) lies at least 10 dB below its
    mean power ``E`` in the stretch. ``10 log10(A_output / A_truth)``, each A at least 30 dB below
    ``E_truth`` and at least -80 dBFS: what is softer, the ear's forward masking hides.

    Returns:
        dB, the mean over ends; NaN where there is none.
    """
    original, generated, stretches = _bands(reference, output, cutoff_hz)
    values = []
    for start, stop in stretches:
        after = slice(stop - 1 + _AFTER_FIRST, stop - 1 + _AFTER_LAST)
        if after.stop > original.size:
            continue
        strength = float(np.mean(original[start:stop]))
        tail = float(np.mean(original[after]))
        if tail <= _FALL * strength:
            values.append(
                ratio_db(
                    float(np.mean(generated[after])), tail, max(_MASKED * strength, _INAUDIBLE)
                )
            )
    return mean_or_nan(values)


def _bands(
    reference: Signal, output: Signal, cutoff_hz: float
) -> tuple[Signal, Signal, list[tuple[int, int]]]:
    """Return the evaluated band's power in reference and output, and the sibilants in frames."""
    evaluated = (max(cutoff_hz, _SIBILANT_BAND[0]), max(_SIBILANT_BAND[1], 1.5 * cutoff_hz))
    hiss, voice, original = band_powers(
        reference, [_SIBILANT_BAND, _VOICE_BAND, evaluated], _FFT, _HOP
    )
    generated = band_powers(output, [evaluated], _FFT, _HOP)[0]
    level = decibels(hiss)
    mask = (hiss > voice) & (level > level.max() - _RANGE_DB) & (level > _FLOOR_DB)
    stretches = [(a, b) for a, b in runs(mask) if b - a >= _SHORTEST_FRAMES]
    return original, generated, stretches
