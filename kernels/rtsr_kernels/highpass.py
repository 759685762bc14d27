"""The crossover's high-pass: an elliptic cascade of second-order sections, no look-ahead.

The design follows S. J. Orfanidis, "Lecture Notes on Elliptic Filter Design" (2006); equation
numbers below are his. It is written out here, not taken from scipy, because a live stream redesigns
the filter whenever its cutoff moves and must not wait for a large import.
"""

from __future__ import annotations

import cmath
import functools
import itertools
import math

import numpy as np
from numba import void

from .compiled import AUDIO, AUDIO_IN, LINE, LINE_IN, MATRIX, MATRIX_IN, STATE, kernel
from .timing import SAMPLE_RATE

SECTIONS = 4
"""Sections of every design, whatever its cutoff: one state shape serves a moving cutoff."""
LANES = 32
"""Channels that `filter_lanes` takes side by side."""

STOP_EDGE = 0.85
PASS_EDGE = 0.95
RIPPLE_DB = 0.1
LOWEST_CUTOFF_HZ = 20.0
HIGHEST_CUTOFF_HZ = 25000.0

# A recursive filter fed with silence decays into denormal numbers, which many processors handle a
# hundred times slower. Cut off per sample, not per block: the result must not depend on blocks.
# Both memories of a section go together: dropping one alone leaves the other in a limit cycle.
_SILENCE = 1e-30


def _landen_moduli(modulus: float) -> list[float]:
    """Descending Landen transformation, eq. (50)."""
    moduli = [modulus]
    while moduli[-1] > 1e-17:
        k = moduli[-1]
        moduli.append((k / (1.0 + math.sqrt((1.0 - k) * (1.0 + k)))) ** 2)
    return moduli


def _ascend(value: complex, moduli: list[float]) -> complex:
    """Gauss transformation from the trigonometric to the elliptic function, eq. (55)."""
    for k in reversed(moduli[1:]):
        value = (1.0 + k) * value / (1.0 + k * value * value)
    return value


def _cd(u: complex, moduli: list[float]) -> complex:
    return _ascend(cmath.cos(u * math.pi / 2.0), moduli)


def _sn(u: complex, moduli: list[float]) -> complex:
    return _ascend(cmath.sin(u * math.pi / 2.0), moduli)


def _inverse_sn(value: complex, moduli: list[float]) -> complex:
    """Inverse of `_sn`, eq. (56)."""
    for larger, smaller in itertools.pairwise(moduli):
        value = value / (1.0 + cmath.sqrt(1.0 - (value * larger) ** 2)) * 2.0 / (1.0 + smaller)
    return 2.0 / math.pi * cmath.asin(value)


def _bilinear_pair(root: complex, pass_edge: float) -> tuple[float, float, float]:
    """Return the z-plane polynomial `1, c1, c2` of a low-pass root and its conjugate, as high-pass.

    The low-pass root, normalised to a pass-band edge of one, becomes `pass_edge / root`.
    """
    analog = pass_edge / root
    digital = (1.0 + analog) / (1.0 - analog)
    return 1.0, -2.0 * digital.real, abs(digital) ** 2


@functools.lru_cache(maxsize=256)
def _design(cutoff_hz: float) -> np.ndarray:
    pass_edge = math.tan(math.pi * min(PASS_EDGE * cutoff_hz / SAMPLE_RATE, 0.4999))
    stop_edge = math.tan(math.pi * STOP_EDGE * cutoff_hz / SAMPLE_RATE)
    order = 2 * SECTIONS
    selectivity = stop_edge / pass_edge
    moduli = _landen_moduli(selectivity)
    positions = [(2 * i + 1) / order for i in range(SECTIONS)]
    # Degree equation (46): with order, edges and ripple given, it yields the stop-band attenuation.
    discrimination = selectivity**order
    for u in positions:
        discrimination *= _sn(u, moduli).real ** 4
    ripple = math.sqrt(10.0 ** (RIPPLE_DB / 10.0) - 1.0)
    shift = (-1j * _inverse_sn(1j / ripple, _landen_moduli(discrimination)) / order).real  # (63)
    sections = []
    for u in positions:
        zero = 1j / (selectivity * _cd(u, moduli))  # (62)
        pole = 1j * _cd(u - 1j * shift, moduli)  # (64)
        numerator = np.array(_bilinear_pair(zero, pass_edge))
        denominator = np.array(_bilinear_pair(pole, pass_edge))
        # Every section gets unit gain at the Nyquist frequency, so that none of them clips or
        # loses precision; an even order has its ripple's lower edge there (the low-pass's DC).
        signs = np.array([1.0, -1.0, 1.0])
        gain = (denominator @ signs) / (numerator @ signs)
        sections.append(np.concatenate([gain * numerator, denominator]))
    # The least resonant section first: it removes most before the sharp ones can ring.
    sections.sort(key=lambda section: section[5])
    sos = np.ascontiguousarray(sections)
    sos[0, :3] *= 10.0 ** (-RIPPLE_DB / 20.0)
    sos.setflags(write=False)
    return sos


def highpass_sos(cutoff_hz: float) -> np.ndarray:
    """Return coefficients `(4, 6)` float64, rows `b0 b1 b2 a0 a1 a2` as in scipy, for 48 kHz.

    Pass band from `0.95 * cutoff_hz` with 0.1 dB of ripple, stop band up to `0.85 * cutoff_hz`,
    51.8 dB down at low cutoffs and more at high ones. The array is shared and read-only.

    Raises `ValueError` for a cutoff outside 20 Hz to 25 kHz.
    """
    cutoff_hz = float(cutoff_hz)
    if not LOWEST_CUTOFF_HZ <= cutoff_hz <= HIGHEST_CUTOFF_HZ:
        raise ValueError(
            f"high-pass cutoff {cutoff_hz:g} Hz is out of range, "
            f"give {LOWEST_CUTOFF_HZ:g} to {HIGHEST_CUTOFF_HZ:g} Hz"
        )
    return _design(cutoff_hz)


def highpass_state(channels: int) -> np.ndarray:
    """Allocate zeroed filter memory, float64 `(channels, sections, 2)`."""
    return np.zeros((channels, SECTIONS, 2))


@kernel(void(MATRIX_IN, MATRIX, LINE_IN, LINE))
def filter_line(sos: np.ndarray, state: np.ndarray, samples: np.ndarray, out: np.ndarray) -> None:
    """Filter one channel into `out`, of the same length, or in place.

    `sos` is `(4, 6)` float64 with `a0 = 1`, `state` `(4, 2)` float64 is read and updated. A
    transposed direct form II, computed in float64.
    """
    for frame in range(samples.shape[0]):
        value = float(samples[frame])
        for section in range(SECTIONS):
            result = sos[section, 0] * value + state[section, 0]
            first = sos[section, 1] * value - sos[section, 4] * result
            first += state[section, 1]
            second = sos[section, 2] * value - sos[section, 5] * result
            if abs(first) + abs(second) < _SILENCE:
                first = 0.0
                second = 0.0
            state[section, 0] = first
            state[section, 1] = second
            value = result
        out[frame] = value


@kernel(void(STATE, STATE, MATRIX))
def filter_lanes(sos: np.ndarray, state: np.ndarray, samples: np.ndarray) -> None:
    """Filter `LANES` unrelated channels side by side, in place, bit-identical to `filter_line`.

    A recursive filter waits for its own last result; many of them in vector registers do not.

    `samples` is `(frames, LANES)`, `state` `(4, 2, LANES)`, `sos` `(4, 6, LANES)`, all float64.
    """
    for frame in range(samples.shape[0]):
        for section in range(SECTIONS):
            for lane in range(LANES):
                value = samples[frame, lane]
                result = sos[section, 0, lane] * value + state[section, 0, lane]
                first = sos[section, 1, lane] * value - sos[section, 4, lane] * result
                first += state[section, 1, lane]
                second = sos[section, 2, lane] * value - sos[section, 5, lane] * result
                silent = abs(first) + abs(second) < _SILENCE
                state[section, 0, lane] = 0.0 if silent else first
                state[section, 1, lane] = 0.0 if silent else second
                samples[frame, lane] = result


@kernel(void(MATRIX_IN, STATE, AUDIO_IN, AUDIO))
def apply_sos(sos: np.ndarray, state: np.ndarray, block: np.ndarray, out: np.ndarray) -> None:
    """Filter `block` `(frames, channels)` float32 into `out` of the same shape, or in place.

    `sos` is `(4, 6)` float64 with `a0 = 1`, `state` `(channels, 4, 2)` float64 is read and updated.
    Nothing is allocated.
    """
    frames, channels = block.shape
    if out.shape[0] != frames or out.shape[1] != channels:
        raise ValueError("apply_sos: block and out differ in shape")
    if state.shape[0] != channels or state.shape[1] != sos.shape[0] or sos.shape[1] != 6:
        raise ValueError("apply_sos: state must be (channels, sections, 2) and sos (sections, 6)")
    for channel in range(channels):
        filter_line(sos, state[channel], block[:, channel], out[:, channel])
