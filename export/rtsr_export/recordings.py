"""Real sound for an export to listen to: the recordings that come with rtsr, band-limited."""

from __future__ import annotations

from functools import cache
from importlib import resources

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.signal import firwin, oaconvolve

from rtsr.errors import RtsrError
from rtsr.timing import HOP, SAMPLE_RATE

Samples = NDArray[np.float32]

_REFERENCE = "_reference.flac"
_TAPS = 511


@cache
def packaged_recordings() -> dict[str, Samples]:
    """Full-band mono recordings at 48 kHz by name, whole hops of each.

    Raises:
        RtsrError: they are missing from the installation.
    """
    folder = resources.files("rtsr").joinpath("demo_data")
    found = {}
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name) if folder.is_dir() else []:
        if entry.name.endswith(_REFERENCE):
            with entry.open("rb") as file:
                samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
            assert rate == SAMPLE_RATE
            name = entry.name.removesuffix(_REFERENCE)
            found[name] = samples[: len(samples) // HOP * HOP, 0].copy()
    if not found:
        raise RtsrError(
            "The packaged recordings that a conversion is made and checked with are missing; "
            "install rtsr again."
        )
    return found


def band_limited(samples: Samples, cutoff_hz: float) -> Samples:
    """Return the recording with nothing left above the cutoff, rounded to 16 bits as files are."""
    # Most of the filter's ramp, 480 Hz wide, lies below the cutoff, as in a real narrow file.
    low_pass = firwin(_TAPS, cutoff_hz - 150.0, window=("kaiser", 8.0), fs=SAMPLE_RATE)
    narrow = oaconvolve(samples, low_pass, mode="same")
    return (np.round(narrow * 32768.0) / 32768.0).astype(np.float32)
