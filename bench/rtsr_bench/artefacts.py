"""``python -m rtsr_bench.artefacts``: hunt artefacts on the valid clips of the corpus.

The measures and their limits are those of :mod:`rtsr.quality.artefacts`. Clips go through 16-bit
files, as in :mod:`rtsr_bench.validation`. The corpus is mono, so what concerns two channels is
judged on two stereo versions of each clip: both channels equal, and panned to the left.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import soundfile
import typer
from rich.console import Console
from rich.progress import Progress

from rtsr import enhance_file
from rtsr.errors import RtsrError
from rtsr.quality.artefacts import ARTEFACTS, find_artefacts
from rtsr.quality.audio import read_audio
from rtsr.quality.evaluation import check_cutoff
from rtsr_bench.program import run_program
from rtsr_bench.validation import (
    DOMAINS,
    MAX_SECONDS,
    Clip,
    Enhancer,
    list_clips,
    loudest_part,
    narrow_band,
    prepare_inputs,
    prepare_references,
)

#: what is judged in stereo does not need much sound, and costs the time of two channels
STEREO_SECONDS = 2.0
#: gains of left and right of the panned version
PANNED = (0.9, 0.3)

Values = dict[str, float]
ByDomain = dict[str, dict[str, Values]]

_MONO = tuple(name for name, artefact in ARTEFACTS.items() if not artefact.needs_stereo)
_PANNED = ("coherence_loss", "image_shift_db")


def limit_per_domain(clips: Sequence[Clip], limit: int | None) -> list[Clip]:
    """The first ``limit`` clips of each domain; all of them for ``None``.

    Raises:
        RtsrError: the limit is smaller than one.
    """
    if limit is None:
        return list(clips)
    if limit < 1:
        raise RtsrError(f"--limit must be at least 1 clip per domain, not {limit}.")
    return [
        clip
        for domain in DOMAINS
        for clip in [clip for clip in clips if clip.domain == domain][:limit]
    ]


def hunt(
    enhancer: Enhancer,
    clips: Sequence[Clip],
    work_folder: str | Path,
    cutoff_hz: float,
    *,
    name: str = "model",
    progress: Callable[[int, int], None] | None = None,
) -> ByDomain:
    """Measure every artefact of one enhancer on every clip.

    Args:
        enhancer: called with (input path, output path to write).
        clips: from :func:`~rtsr_bench.validation.list_clips`.
        work_folder: keeps references and inputs, which are reused, and outputs, made anew.
        cutoff_hz: the inputs are 16-bit files at twice this rate.
        name: of the enhancer, for its output folder.
        progress: called with (clips done, clips in all) before each.

    Returns:
        domain -> clip -> artefact -> value; NaN where a clip holds nothing to judge it by.

    Raises:
        RtsrError: a clip cannot be read or enhanced.
    """
    check_cutoff(cutoff_hz)
    work = Path(work_folder)
    kind = f"{cutoff_hz:g}"
    references = prepare_references(clips, work / f"references-{MAX_SECONDS:g}s", MAX_SECONDS)
    inputs = prepare_inputs(references, work / f"inputs-{MAX_SECONDS:g}s" / kind, cutoff_hz)
    found: ByDomain = {}
    for done, clip in enumerate(clips):
        if progress:
            progress(done, len(clips))
        target = work / "outputs" / name / kind / f"{clip.name}.wav"
        truth = read_audio(references[clip.name])
        output = _enhanced(enhancer, inputs[clip.name], target)
        values = find_artefacts(truth, output, cutoff_hz, _MONO)
        values |= _stereo(enhancer, truth[:, 0], cutoff_hz, target)
        found.setdefault(clip.domain, {})[clip.name] = {name: values[name] for name in ARTEFACTS}
    return found


def _stereo(enhancer: Enhancer, truth: np.ndarray, cutoff_hz: float, target: Path) -> Values:
    """What concerns two channels, on equal and on panned ones."""
    part = loudest_part(truth, round(STEREO_SECONDS * 48000))
    values: Values = {}
    for kind, gains, names in (
        ("equal", (0.9, 0.9), ("channel_difference_db",)),
        ("panned", PANNED, _PANNED),
    ):
        stereo = np.outer(part, gains)
        source = target.with_name(f"{target.stem}-{kind}-input.wav")
        low = np.stack(
            [narrow_band(stereo[:, channel], 48000, cutoff_hz) for channel in (0, 1)], axis=1
        )
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
    """Artefacts down, domains across: ``median (worst; beyond the limit / judged)``.

    A ``!`` stands behind a median beyond its limit, and ``-`` where no clip could be judged.
    """
    lines = [
        f"| artefact | limit | {' | '.join(found)} |",
        f"| --- | --- |{' --- |' * len(found)}",
    ]
    for name, artefact in ARTEFACTS.items():
        cells = [_cell(name, [clip[name] for clip in clips.values()]) for clips in found.values()]
        lines.append(f"| {name} | {artefact.limits} | {' | '.join(cells)} |")
    return "\n".join(lines)


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


def _as_json(found: ByDomain) -> dict[str, dict[str, dict[str, float | None]]]:
    """JSON has no NaN: what could not be judged is null."""
    return {
        domain: {
            clip: {name: None if math.isnan(value) else value for name, value in values.items()}
            for clip, values in clips.items()
        }
        for domain, clips in found.items()
    }


def command(
    data: Annotated[Path, typer.Argument(help="The corpus: the folder of manifest.csv.")],
    model: Annotated[
        list[str],
        typer.Option(
            "--model", help="A bundled name or an .onnx file; may be given several times."
        ),
    ] = ["small"],  # noqa: B006 - typer copies it
    cutoff: Annotated[
        list[float], typer.Option("--cutoff", metavar="HZ", help="May be given several times.")
    ] = [4000.0, 8000.0],  # noqa: B006 - typer copies it
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", help="Only N clips of each domain.")
    ] = None,
    work: Annotated[Path, typer.Option(help="Folder for inputs and outputs.")] = Path("validation"),
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write all values.")] = None,
) -> None:
    """Print every artefact per domain: median (worst; clips beyond the limit / clips judged)."""
    for cutoff_hz in cutoff:
        check_cutoff(cutoff_hz)
    if json_file is not None:
        check_report(json_file)
    clips = limit_per_domain(list_clips(data), limit)
    report: dict[str, dict[str, object]] = {}
    for cutoff_hz in cutoff:
        for name in model:
            label = Path(name).stem
            with Progress(console=Console(stderr=True), transient=True) as bar:
                task = bar.add_task(f"{label} at {cutoff_hz:g} Hz", total=len(clips))
                found = hunt(
                    partial(enhance_file, model=name),
                    clips,
                    work,
                    cutoff_hz,
                    name=label,
                    progress=lambda done, _, bar=bar, task=task: bar.update(  # type: ignore[misc]
                        task, completed=done
                    ),
                )
            typer.echo(f"\n{label}, input cutoff {cutoff_hz:g} Hz, {len(clips)} clips\n")
            typer.echo(markdown_table(found))
            report.setdefault(f"{cutoff_hz:g}", {})[label] = _as_json(found)
    typer.echo("\nmedian (worst; clips beyond the limit / clips judged); ! median beyond the limit")
    if json_file is not None:
        write_json(json_file, report)


def check_report(path: Path) -> None:
    """Refuse a report without a folder before the work, not after it.

    Raises:
        RtsrError: the folder is missing.
    """
    if not path.absolute().parent.is_dir():
        raise RtsrError(
            f"There is no folder {path.absolute().parent} to write the report into; "
            "choose one that exists."
        )


def write_json(path: Path, report: object) -> None:
    """Write a report that appears under its name only when it is whole.

    Raises:
        RtsrError: it cannot be written.
    """
    beside = path.with_name(f".partial-{path.name}")
    try:
        beside.write_text(json.dumps(report, indent=1, allow_nan=False), encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise RtsrError(
            f"{path} cannot be written ({error.strerror or error}); "
            "choose a folder that exists and can be written to."
        ) from error


def main() -> None:
    """Run the command."""
    run_program(lambda: typer.run(command))


if __name__ == "__main__":
    main()
