"""Low-delay anti-alias filters for the streaming resampler, designed at first use.

A linear-phase filter this sharp delays 8 kHz audio by 1.8 ms. Here the delay is prescribed instead:
a complex weighted least-squares fit (re-weighted towards equal ripple, after Lawson) of
`exp(-j w delay)` in the pass band and zero in the stop band, with the taps in front of the delay
fewer than those behind it. The pass band's phase stays linear to about 0.004 rad, so the delay is
a delay and not an average of several.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numba import void

from .compiled import VECTOR, VECTOR_IN, kernel

PASS_EDGE = 0.9
"""Pass-band edge, as a share of the narrower Nyquist frequency."""
STOP_EDGE = 1.1
"""Stop-band edge, as a share of the narrower Nyquist frequency."""

# Lengths in samples of the narrower rate. 11 of them before the peak are 1.4 ms at 8 kHz: with the
# 12.5 ms of the engine that stays below 14 ms.
_DELAY = 11.0
_DELAY_SLACK = 0.2
_LENGTH = 56.0

# Up to this oversampling of the narrower rate the taps themselves are designed; beyond it (44.1 kHz
# to 48 kHz meet at 160 times) the impulse response is a spline with this many knots per sample.
_KNOTS = 6
_SPLINE_DEGREE = 5

_STOP_WEIGHT = 10.0
_STOP_TILT = 0.3
# Mild, but not zero: an unconstrained transition band may rise far above one.
_TRANSITION_WEIGHT = 0.031
_GRID_DENSITY = 12
_ITERATIONS = 20
_REGULARISATION = 1e-12


@kernel(void(VECTOR_IN, VECTOR_IN, VECTOR))
def _solve_toeplitz(first_row: np.ndarray, right: np.ndarray, out: np.ndarray) -> None:
    """Solve a symmetric positive definite Toeplitz system by Levinson's recursion.

    All arguments are `(size,)` float64.

    Not `numpy.linalg.solve`: the threads of a BLAS make that take seconds on a busy machine.
    """
    size = first_row.shape[0]
    predictor = np.zeros(size)
    previous = np.zeros(size)
    error = first_row[0]
    predictor[0] = 1.0
    out[:] = 0.0
    out[0] = right[0] / error
    for m in range(1, size):
        mismatch = 0.0
        missing = right[m]
        for i in range(m):
            mismatch += predictor[i] * first_row[m - i]
            missing -= out[i] * first_row[m - i]
        reflection = -mismatch / error
        previous[:] = predictor
        for i in range(1, m + 1):
            predictor[i] = previous[i] + reflection * previous[m - i]
        error *= 1.0 - reflection * reflection
        for i in range(m + 1):
            out[i] += missing / error * predictor[m - i]


def _fit(length: int, delay: float, oversampling: float, basis_degree: int) -> np.ndarray:
    """Fit coefficients `(length,)` of basis functions spaced `1 / oversampling` narrower samples.

    `delay` is counted in coefficients. A degree of 0 means plain taps; otherwise the basis function
    is the B-spline of that degree, whose spectrum `sinc ** (degree + 1)` the fit allows for.
    """
    points = _GRID_DENSITY * length
    # Frequencies in multiples of the narrower Nyquist frequency.
    frequency = (np.arange(points) + 0.5) / points * oversampling
    omega = np.pi * frequency / oversampling
    basis = np.ones(points)
    if basis_degree:
        basis = np.sinc(frequency / (2.0 * oversampling)) ** (basis_degree + 1)

    pass_band = frequency <= PASS_EDGE + 0.002
    stop_band = frequency >= STOP_EDGE - 0.002
    transition = ~pass_band & ~stop_band
    position = (frequency[transition] - PASS_EDGE) / (STOP_EDGE - PASS_EDGE)
    desired = pass_band.astype(float)
    desired[transition] = np.cos(position * np.pi / 2.0) ** 2
    # Many images fall together on one output frequency: the far ones must weigh less in the sum.
    tilt = np.where(stop_band, np.maximum(frequency / STOP_EDGE, 1.0) ** _STOP_TILT, 1.0)
    base = np.where(pass_band, 1.0, np.where(stop_band, _STOP_WEIGHT * tilt, _TRANSITION_WEIGHT))
    base = base**2

    order = np.arange(length)
    half_step = np.exp(0.5j * np.pi / points * order)

    def grid_sum(values: np.ndarray) -> np.ndarray:
        """Return the real part of `sum(values * exp(j * omega * k))` for `k = 0 .. length - 1`."""
        sums = half_step * np.fft.ifft(values, 2 * points, norm="forward")[:length]
        return np.ascontiguousarray(sums.real)

    weight = base.copy()
    coefficients = np.zeros(length)
    target = desired * np.exp(-1j * omega * delay)
    for _ in range(_ITERATIONS):
        # The normal matrix of a complex fit by real coefficients is real and Toeplitz.
        first_row = grid_sum(weight * basis**2)
        first_row[0] *= 1.0 + _REGULARISATION
        correlation = grid_sum(weight * basis * target)
        _solve_toeplitz(first_row, correlation, coefficients)
        spectrum = np.fft.fft(coefficients / half_step, 2 * points)[:points]
        error = np.abs(basis * spectrum - target) * tilt
        for band in (pass_band, stop_band):
            weight[band] *= (error[band] / error[band].max() + 0.05) ** 0.8
            weight[band] *= base[band].sum() / weight[band].sum()
    return coefficients


def _spline_values(position: np.ndarray, degree: int) -> np.ndarray:
    """Evaluate the cardinal B-spline at `position + i`, `i = 0 .. degree`, for positions in [0, 1).

    Cox-de Boor recursion on uniform knots; returns `(degree + 1, positions)`.
    """
    values = np.ones((1, position.size))
    for p in range(1, degree + 1):
        raised = np.zeros((p + 1, position.size))
        for i in range(p + 1):
            if i < p:
                raised[i] += (position + i) / p * values[i]
            if i > 0:
                raised[i] += (p + 1 - position - i) / p * values[i - 1]
        values = raised
    return values


def _prototype(delay: int, oversampling: int) -> np.ndarray:
    """Return the impulse response at `oversampling` times the narrower rate, float64, unit gain."""
    if oversampling <= _KNOTS:
        return _fit(round(_LENGTH * oversampling), delay, oversampling, 0)
    knots = round(_LENGTH * _KNOTS)
    per_knot = oversampling / _KNOTS
    centre = (_SPLINE_DEGREE + 1) / 2.0
    coefficients = _fit(knots - _SPLINE_DEGREE, delay / per_knot - centre, _KNOTS, _SPLINE_DEGREE)
    padded = np.concatenate([np.zeros(_SPLINE_DEGREE), coefficients, np.zeros(_SPLINE_DEGREE + 1)])
    time = np.arange(int(knots * per_knot)) / per_knot
    knot = time.astype(int)
    values = _spline_values(time - knot, _SPLINE_DEGREE)
    response = np.zeros(time.size)
    for i in range(_SPLINE_DEGREE + 1):
        response += padded[knot + _SPLINE_DEGREE - i] * values[i]
    return response / per_knot


def conversion_ratio(input_rate: int, output_rate: int) -> tuple[int, int]:
    """Return `(up, down)`, the smallest integers with `output_rate / input_rate = up / down`."""
    divisor = math.gcd(input_rate, output_rate)
    return output_rate // divisor, input_rate // divisor


def delay_samples(input_rate: int, output_rate: int) -> int:
    """Return the conversion's delay in samples of the output rate; 0 for equal rates."""
    up, down = conversion_ratio(input_rate, output_rate)
    if up == down:
        return 0
    # An output sample is due when the whole input interval behind it is there, so `down - 1` steps
    # of the common grid come on top without any waiting.
    return math.ceil(((_DELAY - _DELAY_SLACK) * max(up, down) - (down - 1)) / down)


def prototype(input_rate: int, output_rate: int) -> np.ndarray:
    """Return the impulse response on the common grid, `input_rate * up` Hz, 1-D float64, unit gain.

    Its delay is `delay_samples * down + down - 1` steps of that grid.
    """
    up, down = conversion_ratio(input_rate, output_rate)
    delay = delay_samples(input_rate, output_rate) * down + down - 1
    return _prototype(delay, max(up, down))


@functools.lru_cache(maxsize=128)
def phase_table(input_rate: int, output_rate: int) -> np.ndarray:
    """Return polyphase taps `(up, taps)` float32, oldest input sample first, read-only.

    Row `phase` serves the outputs whose newest input sample lies `phase` grid steps before the end
    of the output's interval. `taps` is a multiple of 8, to suit vector registers.
    """
    up, _ = conversion_ratio(input_rate, output_rate)
    response = prototype(input_rate, output_rate) * up
    taps = -(-response.size // (8 * up)) * 8
    padded = np.zeros(taps * up)
    padded[: response.size] = response
    table = np.ascontiguousarray(padded.reshape(taps, up).T[:, ::-1], dtype=np.float32)
    table.setflags(write=False)
    return table
