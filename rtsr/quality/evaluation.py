"""All metrics of one pair of signals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from rtsr.errors import ArgumentError
from rtsr.quality import metrics as definitions
from rtsr.quality.align import align
from rtsr.quality.band_levels import BAND_LEVELS, band_levels
from rtsr.quality.visqol import visqol, visqol_available
from rtsr.spectra.stft import Signal
from rtsr.timing import SAMPLE_RATE

MIN_CUTOFF_HZ = 500.0
MAX_CUTOFF_HZ = 23000.0
_MIN_SAMPLES = 480

Metric = Callable[[Signal, Signal, float, int], float]

_SINGLE: dict[str, Metric] = {
    "visqol": lambda reference, estimate, cutoff, rate: visqol(reference, estimate, rate),
    "lsd": lambda reference, estimate, cutoff, rate: definitions.lsd(reference, estimate, rate),
    "lsd_lf": definitions.lsd_lf,
    "lsd_hf": definitions.lsd_hf,
    "lsd_near": definitions.lsd_near,
    "mel_hf": definitions.mel_hf,
    "hf_bias_db": definitions.hf_bias_db,
    "hf_envelope_db": definitions.hf_envelope_db,
    "lf_sisdr": definitions.lf_sisdr,
    "lf_gain_db": definitions.lf_gain_db,
    "silence_dbfs": lambda reference, estimate, cutoff, rate: definitions.silence_dbfs(
        reference, estimate, rate
    ),
}
#: the name that stands for all of :data:`BAND_LEVELS`, which are found together
GROUP = "band_levels"
#: the name of every metric, in the order in which tables show them
METRICS: tuple[str, ...] = (*_SINGLE, *BAND_LEVELS)


def default_metrics() -> tuple[str, ...]:
    """All metrics that can be computed here: ViSQOL only where its package is installed."""
    return tuple(name for name in METRICS if name != "visqol" or visqol_available())


def check_metrics(names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the metrics to compute, in the order asked for; ``band_levels`` names all of its own.

    Raises:
        ArgumentError: a name is unknown.
    """
    if names is None:
        return default_metrics()
    single = [one for name in names for one in (BAND_LEVELS if name == GROUP else (name,))]
    unknown = [name for name in single if name not in METRICS]
    if unknown or not names:
        raise ArgumentError(
            f"There is no metric named {', '.join(map(repr, unknown)) or 'nothing'}; "
            f"choose from {', '.join(METRICS)}, or {GROUP} for all that begin with level_."
        )
    return tuple(dict.fromkeys(single))


def check_cutoff(cutoff_hz: float) -> float:
    """``cutoff_hz`` itself.

    Raises:
        ArgumentError: it is not between 500 and 23000 Hz.
    """
    if not MIN_CUTOFF_HZ <= cutoff_hz <= MAX_CUTOFF_HZ:
        raise ArgumentError(
            f"The cutoff must lie between {MIN_CUTOFF_HZ:.0f} and {MAX_CUTOFF_HZ:.0f} Hz, "
            f"not at {cutoff_hz:g} Hz: it is where the input's real content ended."
        )
    return float(cutoff_hz)


def evaluate(
    reference: NDArray[np.floating],
    estimate: NDArray[np.floating],
    cutoff_hz: float,
    metrics: Sequence[str] | None = None,
    sample_rate: int = SAMPLE_RATE,
) -> dict[str, float]:
    """Align an estimate with its reference and compute metrics, without changing any gain.

    Args:
        reference: the original, shape (samples,) or (samples, channels), full scale at 1.
        estimate: the processed signal, same channels; lengths may differ and are cut to the part
            that both have.
        cutoff_hz: where the content of the processed system's *input* ended, in Hz.
        metrics: names from :data:`METRICS`, or ``band_levels``; ``None`` for all that can be
            computed here.
        sample_rate: of both signals, in Hz.

    Returns:
        one value per metric, the mean over channels; NaN where a metric is not defined for these
        signals (no digital silence in them, too short for ViSQOL).

    Raises:
        ArgumentError: the shapes do not fit, a signal is shorter than 10 ms or holds NaN or
            infinity, or the cutoff or a metric's name is not accepted.
        MissingDependencyError: ``visqol`` was asked for by name and its package is not installed.
    """
    names = check_metrics(metrics)
    reference, estimate = aligned_pair(reference, estimate, cutoff_hz, sample_rate)
    rows = [
        _evaluate_channel(
            names, reference[:, channel], estimate[:, channel], cutoff_hz, sample_rate
        )
        for channel in range(reference.shape[1])
    ]
    return {name: _mean(row[name] for row in rows) for name in names}


def aligned_pair(
    reference: NDArray[np.floating],
    estimate: NDArray[np.floating],
    cutoff_hz: float,
    sample_rate: int = SAMPLE_RATE,
) -> tuple[Signal, Signal]:
    """Check two signals and cut them to the part they share, the estimate's lag taken out.

    Args:
        reference: as for :func:`evaluate`.
        estimate: likewise.
        cutoff_hz: likewise.
        sample_rate: likewise.

    Returns:
        reference and estimate, both of shape (samples, channels), float64.

    Raises:
        ArgumentError: as :func:`evaluate`, but for the metrics' names.
    """
    cutoff_hz = check_cutoff(cutoff_hz)
    reference, estimate = _as_channels(reference, "reference"), _as_channels(estimate, "estimate")
    if reference.shape[1] != estimate.shape[1]:
        raise ArgumentError(
            f"The reference has {reference.shape[1]} channels and the estimate "
            f"{estimate.shape[1]}; they must have the same number."
        )
    reference, estimate, _ = align(reference, estimate, cutoff_hz, sample_rate)
    if reference.shape[0] < _MIN_SAMPLES:
        raise ArgumentError(
            f"Reference and estimate share only {reference.shape[0]} samples; "
            f"at least {_MIN_SAMPLES} are needed."
        )
    return reference, estimate


def _as_channels(signal: NDArray[np.floating], what: str) -> Signal:
    samples = np.asarray(signal, dtype=np.float64)
    if samples.ndim == 1:
        samples = samples[:, np.newaxis]
    if samples.ndim != 2 or samples.shape[0] < _MIN_SAMPLES or samples.shape[1] == 0:
        raise ArgumentError(
            f"The {what} has shape {np.shape(signal)}; it must be (samples,) or "
            f"(samples, channels) with at least {_MIN_SAMPLES} samples."
        )
    if not np.isfinite(samples).all():
        raise ArgumentError(f"The {what} holds NaN or infinite samples and cannot be evaluated.")
    return samples


def _evaluate_channel(
    names: Sequence[str], reference: Signal, estimate: Signal, cutoff_hz: float, sample_rate: int
) -> dict[str, float]:
    is_asked = any(name in BAND_LEVELS for name in names)
    levels = band_levels(reference, estimate, cutoff_hz, sample_rate) if is_asked else {}
    return {
        name: levels[name]
        if name in levels
        else _SINGLE[name](reference, estimate, cutoff_hz, sample_rate)
        for name in names
    }


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan
