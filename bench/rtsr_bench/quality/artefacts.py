"""Artefacts on the clips of a corpus.

The measures and their limits are those of :mod:`rtsr.quality.artefacts`. Clips go through 16-bit
files, as in :mod:`rtsr_bench.corpus`. The corpus is mono, so what concerns two channels is
scored on two stereo versions of each clip: both channels equal, and panned to the left.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile

from rtsr.quality.artefacts import ARTEFACTS, find_artefacts
from rtsr.quality.audio import read_audio
from rtsr.quality.evaluation import check_cutoff
from rtsr.train.excerpt import loudest_part
from rtsr_bench.corpus import (
    MAX_SECONDS,
    Clip,
    Enhancer,
    narrow_band,
    prepare_inputs,
    prepare_references,
)
from rtsr_bench.markdown import table

#: what is scored in stereo does not need much sound, and costs the time of two channels
STEREO_SECONDS = 2.0
#: gains of left and right of the panned version
PANNED = (0.9, 0.3)

Values = dict[str, float]
ByDomain = dict[str, dict[str, Values]]

_MONO = tuple(name for name, artefact in ARTEFACTS.items() if not artefact.needs_stereo)
_PANNED = ("coherence_loss", "image_shift_db")


def find_in_clips(
    enhancer: Enhancer,
    clips: Iterable[Clip],
    work_folder: str | Path,
    cutoff_hz: float,
    *,
    name: str = "model",
) -> ByDomain:
    """Measure every artefact of one enhancer on every clip.

    Args:
        enhancer: called with (input path, output path to write).
        clips: from :func:`~rtsr_bench.corpus.list_clips`.
        work_folder: keeps references and inputs, which are reused, and outputs, made anew.
        cutoff_hz: the inputs are 16-bit files at twice this rate.
        name: of the enhancer, for its output folder.

    Returns:
        domain -> clip -> artefact -> value; NaN where a clip holds nothing to score it by.

    Raises:
        RtsrError: a clip cannot be read or enhanced.
    """
    check_cutoff(cutoff_hz)
    work = Path(work_folder)
    kind = f"{cutoff_hz:g}"
    found: ByDomain = {}
    for clip in clips:
        references = prepare_references([clip], work / f"references-{MAX_SECONDS:g}s", MAX_SECONDS)
        inputs = prepare_inputs(references, work / f"inputs-{MAX_SECONDS:g}s" / kind, cutoff_hz)
        target = work / "outputs" / name / kind / f"{clip.name}.wav"
        reference = read_audio(references[clip.name])
        output = _enhanced(enhancer, inputs[clip.name], target)
        values = find_artefacts(reference, output, cutoff_hz, _MONO)
        values |= _stereo(enhancer, reference[:, 0], cutoff_hz, target)
        found.setdefault(clip.domain, {})[clip.name] = {one: values[one] for one in ARTEFACTS}
    return found


def _stereo(enhancer: Enhancer, reference: np.ndarray, cutoff_hz: float, target: Path) -> Values:
    """Measure what concerns two channels, on equal and on panned ones."""
    part = loudest_part(reference, round(STEREO_SECONDS * 48000))
    values: Values = {}
    for kind, gains, names in (
        ("equal", (0.9, 0.9), ("channel_difference_db",)),
        ("panned", PANNED, _PANNED),
    ):
        stereo = np.outer(part, gains)
        source = target.with_name(f"{target.stem}-{kind}-input.wav")
        low = narrow_band(stereo, 48000, cutoff_hz)
        soundfile.write(source, low, round(2.0 * cutoff_hz), subtype="PCM_16")
        output = _enhanced(enhancer, source, target.with_name(f"{target.stem}-{kind}.wav"))
        values |= find_artefacts(stereo, output, cutoff_hz, names)
    return values


def _enhanced(enhancer: Enhancer, source: Path, target: Path) -> np.ndarray:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    enhancer(source, target)
    return read_audio(target)


def markdown_table(found: Mapping[str, Mapping[str, Values]]) -> str:
    """Artefacts down, domains across: ``median (worst; beyond the limit / scored)``.

    A ``!`` stands behind a median beyond its limit, and ``-`` where no clip could be scored.
    """
    rows = []
    for name, artefact in ARTEFACTS.items():
        cells = [_cell(name, [clip[name] for clip in clips.values()]) for clips in found.values()]
        rows.append([name, artefact.limits, *cells])
    return "\n".join(table(["artefact", "limit", *found], rows))


def _cell(name: str, values: Sequence[float]) -> str:
    artefact = ARTEFACTS[name]
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "-"
    median = float(np.median(known))
    worst = max(known, key=artefact.excess)
    beyond = sum(not artefact.accepts(value) for value in known)
    mark = "" if artefact.accepts(median) else " !"
    return f"{median:.2f}{mark} ({worst:.2f}; {beyond}/{len(known)})"
