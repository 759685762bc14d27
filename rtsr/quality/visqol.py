"""ViSQOL, Google's model of a listener, through the optional package ``visqol-python``."""

from __future__ import annotations

import functools
import importlib.util
import math
import threading
from typing import Any

import numpy as np

from rtsr.errors import ArgumentError, MissingDependencyError
from rtsr.spectra.stft import Signal
from rtsr_kernels.temporary_cache import use_temporary_cache

# The package's patches and its gaps between them need this much; it refuses less.
_MIN_SECONDS = 1.0
# Its compiled filter bank runs on a thread layer that must not be entered twice at a time.
_ONE_AT_A_TIME = threading.Lock()


def visqol_available() -> bool:
    """Whether the package that computes ViSQOL is installed."""
    return importlib.util.find_spec("visqol") is not None


def visqol(reference: Signal, estimate: Signal, sample_rate: int = 48000) -> float:
    """Compute ViSQOL v3 in audio mode (MOS-LQO, 1 to about 4.73), Chinen et al., arXiv 2004.09584.

    Gammatone spectrograms of 32 bands from 50 Hz to 24 kHz are compared patch by patch (NSIM), and
    a support-vector regression maps the similarity to a listening score. Identical signals give
    4.732; it evens out the overall level by itself.

    Args:
        reference: shape (samples,), 48 kHz.
        estimate: the same length.
        sample_rate: in Hz; only 48000 is accepted.

    Returns:
        the score, or NaN where the signals are shorter than 1 s, one of them is silent, or the
        package finds no part of them that can be compared.

    Raises:
        MissingDependencyError: ``visqol-python`` is not installed.
        ArgumentError: the rate is not 48 kHz.
    """
    if sample_rate != 48000:
        raise ArgumentError(
            f"ViSQOL's audio mode is defined at 48000 Hz, not at {sample_rate} Hz; "
            "resample both signals first."
        )
    listener = _listener()
    if reference.size < _MIN_SECONDS * sample_rate or not reference.any() or not estimate.any():
        return math.nan
    with _ONE_AT_A_TIME:
        try:
            result = listener.measure_from_arrays(
                np.asarray(reference, dtype=np.float64),
                np.asarray(estimate, dtype=np.float64),
                sample_rate,
            )
        except ValueError:
            # Of arrays that were checked above, it says so of those whose patches do not match.
            return math.nan
    return float(result.moslqo)


@functools.cache
def _listener() -> Any:
    try:
        try:
            from visqol import VisqolApi
        except RuntimeError as error:
            # Its compiled functions find no place for their cache in a folder without write access.
            if "cannot cache" not in str(error) or not use_temporary_cache():
                raise
            from visqol import VisqolApi
    except ImportError as error:
        raise MissingDependencyError("The metric visqol", "eval") from error
    listener = VisqolApi()
    listener.create(mode="audio")
    return listener
