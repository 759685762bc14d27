"""Judge any enhancer on the valid clips of the corpus, the way a user would hear it.

Inputs are 16-bit files: a network that reads the last traces which a float resampler leaves above
the cutoff looks good on floats and fails on real files.

    clips = list_clips(data_folder)
    scores = validate(enhancer, clips, work_folder, cutoff_hz=4000)   # enhancer(path_in, path_out)
    scores.by_domain["speech"]["lsd_near"]
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import soundfile
import soxr

from rtsr.bandwidth.file_cutoff import measure_cutoff
from rtsr.errors import RtsrError
from rtsr.quality.compare import Comparison, compare_files, medians
from rtsr.train.listing import list_recordings

Enhancer = Callable[[Path, Path], object]

#: the metrics of the table that every model is held against
TABLE_METRICS = ("visqol", "lsd", "lsd_near", "mel_hf", "hf_bias_db", "hf_envelope_db")
#: ViSQOL costs about 0.1 s per second of audio, so a validation judges this much of each clip
MAX_SECONDS = 6.0
DOMAINS = ("speech", "effects", "music", "unknown")


@dataclass(frozen=True)
class Clip:
    """One recording to judge by.

    Attributes:
        name: ``domain/stem``, with the folders in it where a stem alone would be ambiguous.
        path: of the file.
        domain: one of ``DOMAINS``.
        listed_cutoff_hz: where its content ends, if a manifest says so.
    """

    name: str
    path: Path
    domain: str
    listed_cutoff_hz: float | None = None

    @cached_property
    def measured_cutoff_hz(self) -> float:
        """Where its content ends: as listed, else measured."""
        if self.listed_cutoff_hz is not None:
            return self.listed_cutoff_hz
        samples, rate = soundfile.read(self.path, dtype="float32", always_2d=True)
        return measure_cutoff(samples[:, 0], rate, speech=self.domain == "speech")


@dataclass(frozen=True)
class Scores:
    """What one enhancer reached at one cutoff: medians per domain, and every clip's values."""

    cutoff_hz: float
    by_domain: dict[str, dict[str, float]]
    clips: dict[str, dict[str, float]]

    def as_json(self) -> dict[str, object]:
        """A plain object for ``json.dump``."""
        return asdict(self)


def list_clips(data_folder: str | Path, split: str = "valid") -> list[Clip]:
    """The recordings of one split, sorted by path.

    Args:
        data_folder: a corpus as :func:`rtsr.train.listing.list_recordings` takes it: with a
            ``manifest.csv``, or any folder of recordings.
        split: ``"train"`` or ``"valid"``.

    Raises:
        RtsrError: there is no such folder, its manifest is not usable, or nothing is in the split.
    """
    folder = Path(data_folder)
    listed = list_recordings(folder, split)
    domains = [one.domain if one.domain in DOMAINS else DOMAINS[-1] for one in listed]
    short = [f"{domain}/{Path(one.path).stem}" for domain, one in zip(domains, listed, strict=True)]
    times = Counter(short)
    clips = []
    for one, domain, name in zip(listed, domains, short, strict=True):
        if times[name] > 1:
            # Stems of a corpus may all be alike, as in one folder of stems for each song.
            name = f"{domain}/{'-'.join(Path(one.path).parts)}"
        clips.append(Clip(name, folder / one.path, domain, one.cutoff_hz))
    return clips


def count_by_domain(clips: Sequence[Clip]) -> dict[str, int]:
    """How many clips there are of each domain that has any."""
    return {
        domain: count
        for domain in DOMAINS
        if (count := sum(clip.domain == domain for clip in clips))
    }


def fingerprint(clips: Sequence[Clip]) -> str:
    """Twelve hexadecimal digits that tell one list of clips, and one state of it, from another."""
    lines = [f"{clip.name} {clip.path} {clip.path.stat().st_size}" for clip in clips]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


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
    """Systems down, metrics across, the medians of all domains in each cell."""
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


def headed_table(cutoff_hz: float, rows: dict[str, Scores]) -> str:
    """:func:`markdown_table` below a line that names the inputs and the domains."""
    domains = " / ".join(next(iter(rows.values())).by_domain)
    return f"\ninput cutoff {cutoff_hz:g} Hz, medians {domains}\n\n{markdown_table(rows)}"
