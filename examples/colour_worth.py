"""What a colour is worth: none, learnt from the beginning, by itself, of a wrong source, oracle.

    python examples/colour_worth.py CORPUS --json colour.json
    python examples/colour_worth.py colour.json --print --plot colour.png

Each recording is scored on what comes behind its first 10 s, or behind its first half where it is
shorter than 20 s, and nothing of that part is learnt from but by the oracle.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from rtsr.bandwidth.detector import BandwidthDetector
from rtsr.batch.stream import BatchStream
from rtsr.batch.upsampler import BatchUpsampler
from rtsr.colour.auto import AutoColour
from rtsr.colour.bands import CUTOFFS_HZ, MAX_GAIN_DB, NARROW_RATES
from rtsr.colour.colour import Colour
from rtsr.colour.degrade import degrade
from rtsr.colour.estimate import ErrorSums, estimate_gains
from rtsr.colour.reference import Reference
from rtsr.colour.spectrum import spectrum_of
from rtsr.colour.stream_colour import StreamColour
from rtsr.colour_learning import read_recording
from rtsr.engine.colour_learner import resolve_colour
from rtsr.errors import ArgumentError, AudioFormatError, RtsrError
from rtsr.quality.evaluation import evaluate
from rtsr.runtime.models import Model, find_model
from rtsr.spectra.band_powers import FRAMES_PER_SECOND
from rtsr.timing import HOP, SAMPLE_RATE
from rtsr.train.listing import list_recordings
from rtsr_bench.corpus import read_first_channel
from rtsr_bench.files import check_writable, read_json, write_json
from rtsr_bench.markdown import table
from rtsr_bench.progress import progress_bar
from rtsr_bench.quality.results import plain
from rtsr_kernels.resample import SUPPORTED_RATES

Audio = NDArray[np.float32]

DOMAINS = ("speech", "effects", "music")
#: that of a folder without a manifest, and of any other name in one; shown where there is any
UNKNOWN = "unknown"
NONE, BEGINNING, ITSELF, SAME = "none", "beginning", "auto", "same source"
WRONG, FORCED, ORACLE = "wrong source", "wrong source in full", "oracle"
CASES = (NONE, BEGINNING, ITSELF, SAME, WRONG, FORCED, ORACLE)
METRICS = ("visqol", "lsd", "level_bias_db")

LEARNT_SECONDS = 10.0
#: what learns by itself is given the beginning so often that it lasts as long, as a stream
STREAMED_SECONDS = 20.0
SHORTEST_SECONDS, MOST_SECONDS = 2.5, 20.0
SLOTS = 16


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
        """How much of its beginning is learnt from; the rest is scored."""
        return min(LEARNT_SECONDS, len(self.sound) / SAMPLE_RATE / 2.0)


def read_corpus(folder: Path, per_domain: int | None) -> tuple[list[Item], list[str]]:
    """Read the recordings of the split ``valid``, evenly picked of those that can be scored.

    Returns:
        them, and of each of the others a sentence that says why it is left out.
    """
    listed = list_recordings(folder, "valid")
    items: list[Item] = []
    left_out: list[str] = []
    for domain in (*DOMAINS, UNKNOWN):
        found = []
        for one in listed:
            if (one.domain if one.domain in DOMAINS else UNKNOWN) != domain:
                continue
            try:
                # A folder is no person: without a stated group it is not known who is the same.
                group = one.group if one.has_group else one.path
                found.append(_read(folder, one.path, domain, group))
            except RtsrError as error:
                left_out.append(str(error))
        if per_domain is not None and len(found) > per_domain:
            places = np.linspace(0, len(found) - 1, per_domain).round().astype(int)
            found = [found[place] for place in places]
        items += found
    return items, left_out


def _read(folder: Path, path: str, domain: str, group: str) -> Item:
    """Read a recording; raises RtsrError for one that cannot be read, enhanced or halved."""
    samples, rate = read_first_channel(folder / path)
    if rate not in SUPPORTED_RATES:
        raise AudioFormatError(
            f"'{path}' has a rate of {rate} Hz, and recordings up to 48000 Hz are needed."
        )
    if len(samples) < SHORTEST_SECONDS * rate:
        raise AudioFormatError(
            f"'{path}' is {len(samples) / rate:.2f} s long, and at least {SHORTEST_SECONDS:g} s "
            "are needed to be halved."
        )
    part = samples[: round(MOST_SECONDS * rate), None].astype(np.float32)
    sound, own_hz = read_recording(part, rate, f"'{path}'", narrowest_hz=0.0)
    return Item(domain, group, path, sound, own_hz)


def enhance_all(
    jobs: Iterable[tuple[Audio, Colour | None]], model: Model, rate: int
) -> list[Audio]:
    """Enhance narrow sounds ``(samples, 1)``, many at a time, aligned with their originals."""
    waiting = list(enumerate(jobs))[::-1]
    results: dict[int, Audio] = {}
    running: dict[int, tuple[BatchStream, list[Audio]]] = {}
    with BatchUpsampler(
        SLOTS, model=model, hops_per_step=4, overload="wait", buffer_ms=60_000
    ) as batch:
        while waiting or running:
            while waiting and len(running) < SLOTS:
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


def measure(
    items: list[Item], model: Model, rate: int, bar: Progress
) -> list[dict[str, dict[str, float]]]:
    """Return the metrics of each item in each case, where it has one."""
    cutoff_hz = rate / 2.0
    narrow = [degrade(item.sound, rate) for item in items]
    plain = enhance_all([(sound, None) for sound in narrow], model, rate)
    learnt, oracles = [], []
    for item, wide in zip(items, plain, strict=True):
        part, rest = _sums(item, wide, cutoff_hz, model.metadata.f_target_default)
        learnt.append(_colour(model, estimate_gains(part, cutoff_hz), item))
        oracles.append(_colour(model, np.nan_to_num(rest.means), None))
    jobs: list[tuple[int, str, Colour | None]] = []
    for place, item in enumerate(bar.track(items, description="learning")):
        same = [i for i, other in enumerate(items) if other.group == item.group and i != place]
        others = [
            i
            for i, other in enumerate(items)
            if other.domain == item.domain and other.group != item.group
        ]
        jobs.append((place, BEGINNING, learnt[place]))
        jobs.append((place, ITSELF, learn_by_itself(item, model)))
        jobs.append((place, ORACLE, oracles[place]))
        if same:
            jobs.append((place, SAME, learnt[same[0]]))
        if others:
            # The next one behind it, so that all serve once.
            wrong = learnt[next((i for i in others if i > place), others[0])]
            jobs.append((place, WRONG, wrong))
            jobs.append((place, FORCED, replace(wrong, spectrum_db=None)))
    coloured = enhance_all([(narrow[place], colour) for place, _, colour in jobs], model, rate)
    results: list[dict[str, dict[str, float]]] = [{} for _ in items]
    everything = [
        *((place, NONE, wide) for place, wide in enumerate(plain)),
        *((place, case, wide) for (place, case, _), wide in zip(jobs, coloured, strict=True)),
    ]
    for place, case, wide in bar.track(everything, description="scoring"):
        start = round(items[place].learnt_seconds * SAMPLE_RATE)
        results[place][case] = evaluate(
            items[place].sound[start : len(wide), 0], wide[start:, 0], cutoff_hz, METRICS
        )
    return results


def learn_by_itself(item: Item, model: Model) -> Colour | None:
    """Return what is learnt in 20 s by a stream that repeats the beginning of an item."""
    auto = AutoColour(waits=True)
    resolve_colour(auto, model)
    stream, detector = StreamColour(auto), BandwidthDetector()
    part = item.sound[: round(item.learnt_seconds * SAMPLE_RATE)]
    for number in range(round(STREAMED_SECONDS * FRAMES_PER_SECOND)):
        hop = np.take(part, range(number * HOP, (number + 1) * HOP), axis=0, mode="wrap")
        stream.hear(hop, np.array([detector.update(hop)], np.float32))
    return auto.learnt


def _sums(
    item: Item, wide: Audio, cutoff_hz: float, ceiling_hz: float
) -> tuple[ErrorSums, ErrorSums]:
    """Return the errors of the part that is learnt from, and of the rest."""
    reference = Reference(item.sound, item.own_hz)
    ends_hz = min(item.own_hz, ceiling_hz)
    end = round(item.learnt_seconds * FRAMES_PER_SECOND)
    whole = np.zeros_like(item.sound)
    whole[: len(wide)] = wide[: len(whole)]
    part, rest = ErrorSums(), ErrorSums()
    part.add(*reference.compare(whole, cutoff_hz, ends_hz, last=end))
    rest.add(*reference.compare(whole, cutoff_hz, ends_hz, first=end))
    return part, rest


def _colour(model: Model, gains: NDArray[np.float64], item: Item | None) -> Colour:
    """Make a colour of gains; without an item that they are from it is used in full."""
    row = tuple(float(gain) for gain in np.clip(gains, -MAX_GAIN_DB, MAX_GAIN_DB))
    rows = (row,) * len(CUTOFFS_HZ)
    facts = model.metadata
    if item is None:
        return Colour(facts.name, facts.weights_sha256, 0.0, rows)
    heard = spectrum_of(item.sound[: round(item.learnt_seconds * SAMPLE_RATE)])
    levels = tuple(heard.levels_db.tolist())
    return Colour(facts.name, facts.weights_sha256, heard.seconds, rows, levels)


def summarise(recordings: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Return figures by case and domain: medians, and medians of the change against no colour."""
    summary: dict[str, dict[str, dict[str, float]]] = {}
    for case in CASES:
        for domain in (*DOMAINS, UNKNOWN):
            rows = [
                (one["cases"][case], one["cases"][NONE])
                for one in recordings
                if one["domain"] == domain and case in one["cases"]
            ]
            if not rows:
                continue
            figures = {"recordings": float(len(rows))}
            for name in METRICS:
                values = np.array([[row[name] for row in pair] for pair in rows], float)
                figures[name] = _median(values[:, 0])
                figures[f"change of {name}"] = _median(values[:, 0] - values[:, 1])
            summary.setdefault(case, {})[domain] = figures
    return summary


def _median(values: NDArray[np.float64]) -> float:
    """Return the median of what is known; NaN where nothing is, as without ViSQOL."""
    known = values[~np.isnan(values)]
    return float(np.median(known)) if known.size else np.nan


def medians(summary: dict[str, dict[str, dict[str, float]]]) -> str:
    """Return a Markdown table: a row per case, medians of speech / effects / music.

    Those of ``unknown`` stand behind them where there are any.
    """
    shown = _shown(domain for domains in summary.values() for domain in domains)
    columns = dict.fromkeys(METRICS, ".2f") | {f"change of {name}": "+.2f" for name in METRICS[:2]}
    rows = []
    for case, domains in summary.items():
        cells = [
            " / ".join(
                format(value, form)
                if not np.isnan(value := domains.get(one, {}).get(name, np.nan))
                else "-"
                for one in shown
            )
            for name, form in ({"recordings": ".0f"} | columns).items()
        ]
        rows.append([case, *cells])
    return "\n".join(table(["colour", "recordings", *columns], rows))


def _shown(found: Iterable[str]) -> tuple[str, ...]:
    return (*DOMAINS, UNKNOWN) if UNKNOWN in found else DOMAINS


def plot(recordings: list[dict[str, Any]], path: Path) -> None:
    """Draw by how much ViSQOL changes: a dot per recording, a bar at the median."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 3.4), layout="constrained")
    domains = _shown(one["domain"] for one in recordings)
    panels = figure.subplots(1, len(domains), sharey=True)
    for panel, domain in zip(panels, domains, strict=True):
        chosen = [one["cases"] for one in recordings if one["domain"] == domain]
        cases = [case for case in CASES[1:] if any(case in one for one in chosen)]
        for place, case in enumerate(cases):
            pairs = [(one[case]["visqol"], one[NONE]["visqol"]) for one in chosen if case in one]
            changes = -np.diff(np.array(pairs, float))[:, 0]
            spread = np.linspace(-0.18, 0.18, len(changes)) if len(changes) > 1 else [0.0]
            panel.plot(place + np.array(spread), changes, ".", color="0.6", markersize=5)
            panel.hlines(_median(changes), place - 0.3, place + 0.3, color="C0", linewidth=3)
        panel.axhline(0.0, color="0.3", linewidth=0.8)
        panel.set_xticks(range(len(cases)), [case.replace(" ", "\n") for case in cases], fontsize=8)
        panel.set_title(domain)
    panels[0].set_ylabel("change of ViSQOL")
    figure.savefig(path, dpi=120)


def recorded(path: Path) -> list[dict[str, Any]]:
    """Read the recordings of a file that :func:`record` wrote.

    Raises:
        RtsrError: it is no such file.
    """
    found = read_json(path, "`colour_worth.py --json`")
    try:
        recordings = list(found["recordings"])
        if not recordings or not all(isinstance(one["cases"], dict) for one in recordings):
            raise ValueError
        # Only to see that all is there that a table or a picture needs.
        summarise(recordings)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise RtsrError(f"'{path}' is no file of `colour_worth.py --json`.") from None
    return recordings


def measure_corpus(
    corpus: Path, model: Model, rate: int, per_domain: int | None, bar: Progress
) -> list[dict[str, Any]]:
    """Score every recording of a corpus in every case.

    Args:
        corpus: folder of recordings, as for training.
        model: that enhances.
        rate: Hz of the narrow sound.
        per_domain: how many recordings of each domain; ``None`` takes all.
        bar: where progress is shown.

    Raises:
        ArgumentError: the rate is none that a colour is learnt for.
        RtsrError: there is nothing to be scored.
    """
    if rate not in NARROW_RATES:
        raise ArgumentError(f"The rate must be one of {', '.join(map(str, NARROW_RATES))} Hz.")
    items, left_out = read_corpus(corpus, per_domain)
    if not items:
        raise RtsrError(f"'{corpus}' has no valid recording that can be scored: {left_out[0]}")
    if left_out:
        said = f"{len(left_out)} of the recordings cannot be scored: {' '.join(left_out)}"
        print(f"colour_worth: {said}", file=sys.stderr)
    return [
        {"name": item.name, "domain": item.domain, "cases": result}
        for item, result in zip(items, measure(items, model, rate, bar), strict=True)
    ]


def record(path: Path, model: Model, rate: int, recordings: list[dict[str, Any]]) -> None:
    """Write every figure as JSON; a figure that there is not is ``null``."""
    facts = {"model": model.name, "version": model.metadata.version, "rate": rate}
    write_json(path, plain({**facts, "recordings": recordings}))


def main() -> None:
    """Print medians by what was known of the colour."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path, help="recordings, or with --print a file of --json")
    parser.add_argument("--model", default="small")
    parser.add_argument("--rate", type=int, default=8000, metavar="HZ", help="of the input")
    parser.add_argument("--per-domain", type=int, metavar="N", help="only N recordings of each")
    parser.add_argument("--print", action="store_true", help="print a file of --json once more")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="also draw changes of ViSQOL")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all values")
    asked = parser.parse_args()
    if asked.per_domain is not None and asked.per_domain < 1:
        parser.error(f"--per-domain must be at least 1, not {asked.per_domain}")
    if asked.plot is not None and asked.plot.suffix.lower() != ".png":
        parser.error(f"--plot draws a PNG; give a name that ends in .png, not '{asked.plot}'")
    if asked.print and asked.json is not None:
        parser.error("--print reads a file of --json and writes none; leave out --json")
    try:
        check_writable(asked.plot, asked.json)
        if asked.print:
            recordings = recorded(asked.corpus)
        else:
            model = find_model(asked.model)
            with progress_bar() as bar:
                recordings = measure_corpus(asked.corpus, model, asked.rate, asked.per_domain, bar)
            if asked.json is not None:
                record(asked.json, model, asked.rate, recordings)
        print(medians(summarise(recordings)))
        if asked.plot is not None:
            plot(recordings, asked.plot)
    except RtsrError as error:
        parser.exit(2, f"colour_worth: {error}\n")


if __name__ == "__main__":
    main()
