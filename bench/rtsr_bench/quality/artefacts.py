"""Artefacts of a clip that a system has enhanced, and the table of many.

The measures and their limits are those of :mod:`rtsr.quality.artefacts`. Clips go through 16-bit
files, as in :mod:`rtsr_bench.corpus`. The corpus is mono, so what concerns two channels is
scored on two stereo versions of each clip: both channels equal, and panned to the left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile

from rtsr.quality.artefacts import ARTEFACTS, find_artefacts
from rtsr.quality.audio import read_audio
from rtsr.timing import SAMPLE_RATE
from rtsr.train.excerpt import loudest_part
from rtsr_bench.corpus import narrow_band
from rtsr_bench.markdown import table

#: what is scored in stereo does not need much sound, and costs the time of two channels
STEREO_SECONDS = 2.0
#: gains of left and right of the panned version
PANNED = (0.9, 0.3)

_MONO = tuple(name for name, artefact in ARTEFACTS.items() if not artefact.needs_stereo)
_STEREO = (
    ("equal", (0.9, 0.9), ("channel_difference_db",)),
    ("panned", PANNED, ("coherence_loss", "image_shift_db")),
)


def find_in_clip(
    enhance: Callable[[Path, Path], Path],
    reference: Path,
    source: Path,
    cutoff_hz: float,
    folder: Path,
) -> dict[str, float]:
    """Measure every artefact of one system on one clip.

    Args:
        enhance: called with an input file and a folder for the output; returns the output.
        reference: the clip in full band.
        source: its narrow-band version.
        cutoff_hz: where the content of that ends.
        folder: for files on the way.

    Returns:
        by artefact; NaN where the clip holds nothing to score it by.

    Raises:
        RtsrError: a file cannot be read or enhanced.
    """
    whole = read_audio(reference)
    values = find_artefacts(whole, read_audio(enhance(source, folder)), cutoff_hz, _MONO)
    part = loudest_part(whole[:, 0], round(STEREO_SECONDS * SAMPLE_RATE))
    for kind, gains, names in _STEREO:
        stereo = np.outer(part, gains)
        (folder / kind).mkdir()
        narrow = folder / f"{kind}.wav"
        low = narrow_band(stereo, SAMPLE_RATE, cutoff_hz)
        soundfile.write(narrow, low, round(2.0 * cutoff_hz), subtype="PCM_16")
        output = read_audio(enhance(narrow, folder / kind))
        values |= find_artefacts(stereo, output, cutoff_hz, names)
    return {name: values[name] for name in ARTEFACTS}


def markdown_table(found: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    """Return a table: artefacts down, domains across.

    A cell has ``median (worst; beyond the limit / scored)``, ``!`` behind a median beyond its
    limit, and ``-`` where no clip could be scored.

    Args:
        found: values by ``domain/clip`` and artefact.
    """
    domains = list(dict.fromkeys(clip.split("/")[0] for clip in found))
    rows = []
    for name, artefact in ARTEFACTS.items():
        cells = [
            _cell(name, [one[name] for clip, one in found.items() if clip.split("/")[0] == domain])
            for domain in domains
        ]
        rows.append([name, artefact.limits, *cells])
    return table(["artefact", "limit", *domains], rows)


def _cell(name: str, values: Sequence[float | None]) -> str:
    artefact = ARTEFACTS[name]
    known = [value for value in values if value is not None and not math.isnan(value)]
    if not known:
        return "-"
    median = float(np.median(known))
    worst = max(known, key=artefact.excess)
    beyond = sum(not artefact.accepts(value) for value in known)
    mark = "" if artefact.accepts(median) else " !"
    return f"{median:.2f}{mark} ({worst:.2f}; {beyond}/{len(known)})"
