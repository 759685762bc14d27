"""Measure where the content of a file ends, on the whole file.

The streaming engine decides this hop by hop (:mod:`rtsr.bandwidth.detector`), a comparison need
not.
"""

from __future__ import annotations

from pathlib import Path

from rtsr.bandwidth.file_cutoff import measure_cutoff
from rtsr.errors import RtsrError
from rtsr.quality.audio import read_native

# The last part below half the rate belongs to the resampler's roll-off: content that reaches into
# it was cut by the rate itself.
_FULL_FROM = 0.85


def measure_file_cutoff(path: str | Path) -> float:
    """Return the frequency in Hz where the content of a file's widest channel ends.

    Content above 0.85 of half the sample rate counts as full, and half the rate is returned.

    Raises:
        RtsrError: the file cannot be read or is silent.
    """
    samples, rate = read_native(path)
    if not samples.any():
        raise RtsrError(f"{path} is silent, so no cutoff can be measured; give it with --cutoff.")
    widest = max(measure_cutoff(samples[:, channel], rate) for channel in range(samples.shape[1]))
    return rate / 2.0 if widest > _FULL_FROM * rate / 2.0 else widest
