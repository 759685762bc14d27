"""Judge any enhancer on the valid clips of the corpus, the way a user would hear it.

Inputs are 16-bit files: a network that reads the last traces which a float resampler leaves above
the cutoff looks good on floats and fails on real files.

    clips = list_clips(data_folder)
    scores = validate(enhancer, clips, work_folder, cutoff_hz=4000)   # enhancer(path_in, path_out)
    scores.by_domain["speech"]["lsd_near"]
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from rtsr.errors import RtsrError
from rtsr.quality.compare import Comparison, compare_files, medians

Enhancer = Callable[[Path, Path], object]

#: the metrics of the table that every model is held against
TABLE_METRICS = ("visqol", "lsd", "lsd_near", "mel_hf", "hf_bias_db", "hf_envelope_db")
#: ViSQOL costs about 0.1 s per second of audio, so a validation judges this much of each clip
MAX_SECONDS = 6.0
DOMAINS = ("speech", "effects", "music")


@dataclass(frozen=True)
class Clip:
    """One row of the corpus's manifest."""

    name: str
    path: Path
    domain: str
    group: str
    sample_rate: int
    seconds: float
    measured_cutoff_hz: float


@dataclass(frozen=True)
class Scores:
    """What one enhancer reached at one cutoff: medians per domain, and every clip's values."""

    cutoff_hz: float
    by_domain: dict[str, dict[str, float]]
    clips: dict[str, dict[str, float]]

    def as_json(self) -> dict[str, object]:
        """A plain object for ``json.dump``."""
        return asdict(self)


def list_clips(
    data_folder: str | Path, split: str = "valid", domains: Sequence[str] = DOMAINS
) -> list[Clip]:
    """The clips of one split, in the manifest's order.

    Args:
        data_folder: the folder that holds ``manifest.csv``.
        split: ``"train"`` or ``"valid"``.
        domains: some of ``speech``, ``effects``, ``music``.

    Raises:
        RtsrError: there is no manifest, or no clip of that kind in it.
    """
    folder = Path(data_folder)
    manifest = folder / "manifest.csv"
    if not manifest.is_file():
        raise RtsrError(f"{folder} has no manifest.csv; give the folder of the corpus.")
    with manifest.open(newline="", encoding="utf-8") as lines:
        clips = [
            Clip(
                name=f"{row['domain']}/{Path(row['path']).stem}",
                path=folder / row["path"],
                domain=row["domain"],
                group=row["speaker_or_group"],
                sample_rate=int(row["sample_rate"]),
                seconds=float(row["seconds"]),
                measured_cutoff_hz=float(row["measured_cutoff_hz"]),
            )
            for row in csv.DictReader(lines)
            if row["split"] == split and row["domain"] in domains
        ]
    if not clips:
        raise RtsrError(f"{manifest} lists no {split} clip of {', '.join(domains)}.")
    return clips


def loudest_part(samples: np.ndarray, length: int) -> np.ndarray:
    """The ``length`` samples in a row with the most energy; all of them where there are fewer."""
    if samples.size <= length:
        return samples
    energy = np.concatenate(([0.0], np.cumsum(np.square(samples, dtype=np.float64))))
    start = int(np.argmax(energy[length:] - energy[:-length]))
    return samples[start : start + length]


def narrow_band(samples: np.ndarray, sample_rate: int, cutoff_hz: float) -> np.ndarray:
    """``samples`` at the rate 2 x cutoff, rounded to 16 bits (values stay in [-1, 1])."""
    low = soxr.resample(samples, sample_rate, 2.0 * cutoff_hz, quality="HQ")
    return np.clip(np.round(low * 32768.0), -32768, 32767) / 32768.0


def prepare_references(
    clips: Sequence[Clip], folder: str | Path, max_seconds: float = MAX_SECONDS
) -> dict[str, Path]:
    """Write the loudest part of each clip as 16-bit FLAC at its own rate; existing files are kept.

    Returns:
        the written file of each clip, by the clip's name.
    """
    references = {}
    for clip in clips:
        path = Path(folder) / f"{clip.name}.flac"
        if not path.exists():
            samples, rate = soundfile.read(clip.path, dtype="float64", always_2d=True)
            part = loudest_part(samples[:, 0], round(max_seconds * rate))
            write_whole(path, part, rate)
        references[clip.name] = path
    return references


def write_whole(path: Path, samples: np.ndarray, rate: int, subtype: str = "PCM_16") -> None:
    """Write a sound file that appears under its name only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".partial-{path.name}")
    soundfile.write(beside, samples, rate, subtype=subtype)
    beside.replace(path)


def prepare_inputs(
    references: dict[str, Path], folder: str | Path, cutoff_hz: float, at_48k: bool = False
) -> dict[str, Path]:
    """Write the 16-bit narrow-band version of each reference; existing files are kept.

    Args:
        at_48k: write 48 kHz files whose content ends at the cutoff, not files of the low rate.
    """
    inputs = {}
    for name, reference in references.items():
        path = Path(folder) / f"{name}.wav"
        if not path.exists():
            samples, rate = soundfile.read(reference, dtype="float64")
            low, low_rate = narrow_band(samples, rate, cutoff_hz), round(2.0 * cutoff_hz)
            if at_48k:
                low, low_rate = soxr.resample(low, low_rate, 48000, quality="HQ"), 48000
            write_whole(path, low, low_rate)
        inputs[name] = path
    return inputs


def judge(
    references: dict[str, Path],
    outputs: dict[str, Path],
    cutoff_hz: float,
    metrics: Sequence[str] | None = TABLE_METRICS,
    progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Compare outputs with references by name; the domain is the first part of the name.

    Raises:
        RtsrError: an output is missing.
    """
    missing = sorted(references.keys() - outputs.keys())
    if missing:
        raise RtsrError(f"{len(missing)} clips have no output, for example {missing[0]}.")
    results: dict[str, Comparison] = {}
    for done, (name, reference) in enumerate(references.items()):
        if progress:
            progress(done, len(references))
        results[name] = compare_files(reference, outputs[name], cutoff_hz, metrics)
    return gather_scores(cutoff_hz, {name: result.metrics for name, result in results.items()})


def gather_scores(cutoff_hz: float, clips: dict[str, dict[str, float]]) -> Scores:
    """Medians per domain of the metrics of each clip; the domain is the first part of its name."""
    by_domain = {
        domain: medians(metrics for name, metrics in clips.items() if name.startswith(f"{domain}/"))
        for domain in DOMAINS
        if any(name.startswith(f"{domain}/") for name in clips)
    }
    return Scores(cutoff_hz, by_domain, clips)


def validate(
    enhancer: Enhancer | None,
    clips: Sequence[Clip],
    work_folder: str | Path,
    cutoff_hz: float,
    *,
    name: str = "model",
    metrics: Sequence[str] | None = TABLE_METRICS,
    max_seconds: float = MAX_SECONDS,
    at_48k: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Make the inputs, run an enhancer over them and judge what it wrote.

    Args:
        enhancer: called with (input path, output path to write); ``None`` judges the input itself.
        clips: from :func:`list_clips`.
        work_folder: keeps ``references/``, ``inputs/<cutoff>/`` and ``outputs/<name>/<cutoff>/``.
            References and inputs are reused; outputs are made anew.
        cutoff_hz: the inputs are 16-bit files at twice this rate.
        name: of the enhancer, for its output folder.
        metrics: as for :func:`rtsr.quality.evaluate`.
        max_seconds: of each clip, its loudest part.
        at_48k: inputs are 48 kHz files whose content ends at the cutoff.
        progress: called with (clips judged, clips in all) before each.

    Raises:
        RtsrError: an output is missing or cannot be judged.
    """
    work = Path(work_folder)
    kind = f"{cutoff_hz:g}-48k" if at_48k else f"{cutoff_hz:g}"
    references = prepare_references(clips, work / f"references-{max_seconds:g}s", max_seconds)
    inputs = prepare_inputs(references, work / f"inputs-{max_seconds:g}s" / kind, cutoff_hz, at_48k)
    outputs = inputs
    if enhancer is not None:
        outputs = {}
        for clip_name, source in inputs.items():
            target = work / "outputs" / name / kind / f"{clip_name}.wav"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            enhancer(source, target)
            outputs[clip_name] = target
    return judge(references, outputs, cutoff_hz, metrics, progress)


def markdown_table(rows: dict[str, Scores], metrics: Sequence[str] = TABLE_METRICS) -> str:
    """Systems down, metrics across, ``speech / effects / music`` medians in each cell."""
    lines = [
        f"| system | {' | '.join(metrics)} |",
        f"| --- |{' --- |' * len(metrics)}",
    ]
    for system, scores in rows.items():
        cells = [
            " / ".join(
                f"{scores.by_domain[domain].get(metric, float('nan')):.2f}"
                for domain in scores.by_domain
            )
            for metric in metrics
        ]
        lines.append(f"| {system} | {' | '.join(cells)} |")
    return "\n".join(lines)
