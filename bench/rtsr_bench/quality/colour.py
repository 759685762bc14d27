"""What a colour is worth: nothing, learnt from the beginning, of a wrong source, oracle.

``rtsr bench colour CORPUS`` prints a table for a corpus (a folder with
``manifest.csv``). Each recording is scored on what comes behind its first 10 s, or behind its first
half where it is shorter than 20 s, and nothing of that part is learnt from but by the oracle.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from rtsr.batch.stream import BatchStream
from rtsr.batch.upsampler import BatchUpsampler
from rtsr.colour.bands import CUTOFFS_HZ, MAX_GAIN_DB, NARROW_RATES
from rtsr.colour.colour import Colour
from rtsr.colour.estimate import estimate_gains, mean_errors
from rtsr.colour.learn import Reference, degrade, read_recording
from rtsr.errors import ArgumentError, RtsrError
from rtsr.quality.evaluation import evaluate
from rtsr.runtime.models import Model
from rtsr.timing import SAMPLE_RATE
from rtsr_kernels.resample import SUPPORTED_RATES

Audio = NDArray[np.float32]

DOMAINS = ("speech", "effects", "music")
NONE, BEGINNING, SAME, WRONG, ORACLE = "none", "beginning", "same source", "wrong source", "oracle"
CASES = (NONE, BEGINNING, SAME, WRONG, ORACLE)
METRICS = ("visqol", "lsd", "level_bias_db")

_LEARNT_SECONDS = 10.0
_MOST_SECONDS = 20.0
_SHORTEST_SECONDS = 2.5
_FRAMES_PER_SECOND = 100
_SLOTS = 16


@dataclass
class Item:
    """A recording: its place, sound at 48 kHz ``(samples, 1)`` and where its content ends in Hz."""

    domain: str
    group: str
    name: str
    sound: Audio
    own_hz: float

    @property
    def learnt_seconds(self) -> float:
        """How much of its beginning is learnt from; the rest is judged."""
        return min(_LEARNT_SECONDS, len(self.sound) / SAMPLE_RATE / 2.0)


def read_corpus(folder: Path, per_domain: int | None) -> list[Item]:
    """Read the recordings of the split ``valid`` that have a full band, evenly picked."""
    with (folder / "manifest.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "valid"]
    items = []
    for domain in DOMAINS:
        chosen = [
            row
            for row in rows
            if row["domain"] == domain and float(row["seconds"]) >= _SHORTEST_SECONDS
        ]
        if per_domain is not None and len(chosen) > per_domain:
            places = np.linspace(0, len(chosen) - 1, per_domain).round().astype(int)
            chosen = [chosen[place] for place in places]
        for row in chosen:
            samples, rate = soundfile.read(folder / row["path"], dtype="float32", always_2d=True)
            if rate not in SUPPORTED_RATES:
                continue
            samples = samples[: round(_MOST_SECONDS * rate), :1]
            sound, own_hz = read_recording(samples, rate, row["path"], narrowest_hz=0.0)
            items.append(Item(domain, row["speaker_or_group"], row["path"], sound, own_hz))
    return items


def enhance_all(
    jobs: Iterable[tuple[Audio, Colour | None]], model: Model, rate: int
) -> list[Audio]:
    """Enhance narrow sounds ``(samples, 1)``, many at a time, aligned with their originals."""
    waiting = list(enumerate(jobs))[::-1]
    results: dict[int, Audio] = {}
    running: dict[int, tuple[BatchStream, list[Audio]]] = {}
    with BatchUpsampler(
        _SLOTS, model=model, hops_per_step=4, overload="wait", buffer_ms=60_000
    ) as batch:
        while waiting or running:
            while waiting and len(running) < _SLOTS:
                number, (narrow, colour) = waiting.pop()
                stream = batch.open(rate, cutoff=rate / 2, limiter=False, colour=colour)
                stream.push(narrow)
                stream.finish()
                running[number] = (stream, [])
            batch.step()
            for number, (stream, parts) in list(running.items()):
                parts.append(stream.pull())
                if stream.is_done:
                    results[number] = np.concatenate(parts)[stream.delay_samples :]
                    stream.close()
                    del running[number]
    return [results[number] for number in range(len(results))]


def measure(items: list[Item], model: Model, rate: int) -> list[dict[str, dict[str, float]]]:
    """Return the metrics of each item in each case, where it has one."""
    cutoff_hz = rate / 2.0
    narrow = [degrade(item.sound, rate) for item in items]
    plain = enhance_all([(sound, None) for sound in narrow], model, rate)
    ceiling = model.metadata.f_target_default
    learnt, oracles = [], []
    for item, wide in zip(items, plain, strict=True):
        reference = Reference(item.sound, item.own_hz)
        ends_hz = min(item.own_hz, ceiling)
        end = round(item.learnt_seconds * _FRAMES_PER_SECOND)
        whole = np.zeros_like(item.sound)
        whole[: len(wide)] = wide[: len(whole)]
        errors, measured = reference.compare(whole, cutoff_hz, ends_hz, last=end)
        learnt.append(estimate_gains(errors, measured, cutoff_hz))
        errors, measured = reference.compare(whole, cutoff_hz, ends_hz, first=end)
        oracles.append(np.nan_to_num(mean_errors(errors, measured)))
    jobs: list[tuple[int, str, Colour]] = []
    for place, item in enumerate(items):
        same = [i for i, other in enumerate(items) if other.group == item.group and i != place]
        foreign = [
            i
            for i, other in enumerate(items)
            if other.domain == item.domain and other.group != item.group
        ]
        jobs.append((place, BEGINNING, _colour(model, learnt[place])))
        jobs.append((place, ORACLE, _colour(model, oracles[place])))
        if same:
            jobs.append((place, SAME, _colour(model, learnt[same[0]])))
        if foreign:
            # The next one behind it, so that all serve once.
            other = next((i for i in foreign if i > place), foreign[0])
            jobs.append((place, WRONG, _colour(model, learnt[other])))
    coloured = enhance_all([(narrow[place], colour) for place, _, colour in jobs], model, rate)
    results: list[dict[str, dict[str, float]]] = [{} for _ in items]
    everything = [
        *((place, NONE, wide) for place, wide in enumerate(plain)),
        *((place, case, wide) for (place, case, _), wide in zip(jobs, coloured, strict=True)),
    ]
    for number, (place, case, wide) in enumerate(everything, 1):
        print(f"\r{number} of {len(everything)}", end="", file=sys.stderr, flush=True)
        start = round(items[place].learnt_seconds * SAMPLE_RATE)
        results[place][case] = evaluate(
            items[place].sound[start : len(wide), 0], wide[start:, 0], cutoff_hz, METRICS
        )
    print(file=sys.stderr)
    return results


def _colour(model: Model, gains: NDArray[np.float64]) -> Colour:
    row = tuple(float(gain) for gain in np.clip(gains, -MAX_GAIN_DB, MAX_GAIN_DB))
    return Colour(model.metadata.name, model.metadata.weights_sha256, 0.0, (row,) * len(CUTOFFS_HZ))


def summarise(recordings: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Return figures by case and domain: medians, and medians of the change against no colour."""
    summary: dict[str, dict[str, dict[str, float]]] = {}
    for case in CASES:
        for domain in DOMAINS:
            rows = [
                (one["cases"][case], one["cases"][NONE])
                for one in recordings
                if one["domain"] == domain and case in one["cases"]
            ]
            if not rows:
                continue
            figures = {"recordings": float(len(rows))}
            for name in METRICS:
                values = np.array([[_number(row[name]) for row in pair] for pair in rows])
                figures[name] = float(np.nanmedian(values[:, 0]))
                figures[f"change of {name}"] = float(np.nanmedian(values[:, 0] - values[:, 1]))
            summary.setdefault(case, {})[domain] = figures
    return summary


def _number(value: float | None) -> float:
    return np.nan if value is None else value


def table(summary: dict[str, dict[str, dict[str, float]]]) -> str:
    """Return a Markdown table: a row per case, medians of speech / effects / music."""
    columns = dict.fromkeys(METRICS, ".2f") | {f"change of {name}": "+.2f" for name in METRICS[:2]}
    lines = [f"| colour | recordings | {' | '.join(columns)} |"]
    lines.append("| --- " * (2 + len(columns)) + "|")
    for case, domains in summary.items():
        cells = [
            " / ".join(
                format(domains[one][name], form) if one in domains else "-" for one in DOMAINS
            )
            for name, form in ({"recordings": ".0f"} | columns).items()
        ]
        lines.append(f"| {case} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(recordings: list[dict[str, Any]], path: Path) -> None:
    """Draw by how much ViSQOL changes: a dot per recording, a bar at the median."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 3.2), layout="constrained")
    panels = figure.subplots(1, len(DOMAINS), sharey=True)
    for panel, domain in zip(panels, DOMAINS, strict=True):
        chosen = [one["cases"] for one in recordings if one["domain"] == domain]
        cases = [case for case in CASES[1:] if any(case in one for one in chosen)]
        for place, case in enumerate(cases):
            changes = np.array(
                [
                    _number(one[case]["visqol"]) - _number(one[NONE]["visqol"])
                    for one in chosen
                    if case in one
                ]
            )
            spread = np.linspace(-0.18, 0.18, len(changes)) if len(changes) > 1 else [0.0]
            panel.plot(place + np.array(spread), changes, ".", color="0.6", markersize=5)
            panel.hlines(np.nanmedian(changes), place - 0.3, place + 0.3, color="C0", linewidth=3)
        panel.axhline(0.0, color="0.3", linewidth=0.8)
        panel.set_xticks(range(len(cases)), [case.replace(" ", "\n") for case in cases])
        panel.set_title(domain)
    panels[0].set_ylabel("change of ViSQOL")
    figure.savefig(path, dpi=120)


def recorded(path: Path) -> list[dict[str, Any]]:
    """Read the recordings of a file that :func:`record` wrote.

    Raises:
        RtsrError: it is no such file.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["recordings"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RtsrError(f"'{path}' is no file of `rtsr bench colour --json` ({error}).") from None
    return list(found)


def measure_corpus(
    corpus: Path, model: Model, rate: int, per_domain: int | None
) -> list[dict[str, Any]]:
    """Score every recording of a corpus in every case.

    Args:
        corpus: folder with ``manifest.csv``.
        model: that enhances.
        rate: Hz of the narrow sound.
        per_domain: how many recordings of each domain; ``None`` takes all.

    Raises:
        ArgumentError: the rate is none that a colour is learnt for.
    """
    if rate not in NARROW_RATES:
        raise ArgumentError(f"The rate must be one of {', '.join(map(str, NARROW_RATES))} Hz.")
    items = read_corpus(corpus, per_domain)
    return [
        {"name": item.name, "domain": item.domain, "cases": result}
        for item, result in zip(items, measure(items, model, rate), strict=True)
    ]


def record(path: Path, model: Model, rate: int, recordings: list[dict[str, Any]]) -> None:
    """Write every figure as JSON; a figure that there is not is ``null``."""
    facts = {"model": model.name, "version": model.metadata.version, "rate": rate}
    text = json.dumps({**facts, "recordings": recordings}, indent=1)
    path.write_text(text.replace("NaN", "null") + "\n", encoding="utf-8")
