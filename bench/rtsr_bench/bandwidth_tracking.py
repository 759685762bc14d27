"""``python -m rtsr_bench.bandwidth_tracking CORPUS...``: how the detector follows streams.

Two things are counted: the time from a change of bandwidth within a stream until the detector says
so, and how often it moves though nothing has changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress

from rtsr.bandwidth.detector import BandwidthDetector
from rtsr.errors import RtsrError
from rtsr.timing import SAMPLE_RATE
from rtsr_bench.artefacts import check_report, write_json
from rtsr_bench.bandwidth_deliveries import DELIVERIES, STEADY, SWITCHES, Delivery
from rtsr_bench.bandwidth_streams import full_band_clips, hops, one_voice, programme
from rtsr_bench.program import run_command
from rtsr_bench.quality_codecs import Signal
from rtsr_bench.validation import Clip, list_clips

HOPS_PER_SECOND = 100
SECONDS_BEFORE, SECONDS_AFTER = 8.0, 16.0
#: Of one unchanging stream.
STEADY_MINUTES = 3.0
DOMAINS = ("speech", "music")

#: Tells what is being done, how much of it is done, and how much there is.
Show = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Switched:
    """What a detector made of one stream that changed its bandwidth.

    Attributes:
        domain, clip: of what was heard.
        before, after: keys of `DELIVERIES`.
        seconds: until the answer was right, pauses included; none if it never was.
        false_moves: times that it left a right answer, before the change or once it had found it.
    """

    domain: str
    clip: str
    before: str
    after: str
    seconds: float | None
    false_moves: int


@dataclass(frozen=True)
class Unchanged:
    """What a detector made of one stream that kept its bandwidth.

    Attributes:
        domain: of what was heard.
        delivery: a key of `DELIVERIES`.
        minutes: how long it was.
        false_moves: times that the detector left a right answer.
        wrong_seconds: for how long its answer was not right.
    """

    domain: str
    delivery: str
    minutes: float
    false_moves: int
    wrong_seconds: float


def answers_to(stream: Signal, start_hz: float) -> Signal:
    """A detector's answer in Hz to each hop of `stream` ``(samples,)`` at 48 kHz.

    Args:
        start_hz: what it begins with: what it says of the stream as it was until then.
    """
    detector = BandwidthDetector(initial_hz=start_hz)
    return np.array([detector.update(hop) for hop in hops(stream)])


def moves_away(right: np.ndarray) -> int:
    """How often an answer that was right is followed by one that is not."""
    return int(np.count_nonzero(right[:-1] & ~right[1:]))


def judge_switch(answers: Signal, hop: int, before: Delivery, after: Delivery) -> tuple[float, int]:
    """Seconds from the change at `hop` to the first right answer, and false moves.

    The seconds are infinite where no answer is right.
    """
    right = after.is_right(answers[hop:])
    first = int(np.argmax(right)) if right.any() else right.size
    seconds = (first + 1) / HOPS_PER_SECOND if right.any() else math.inf
    return seconds, moves_away(before.is_right(answers[:hop])) + moves_away(right[first:])


def track_switches(
    clips: Sequence[Clip],
    domain: str,
    switches: Sequence[tuple[str, str]] = SWITCHES,
    show: Show | None = None,
) -> list[Switched]:
    """Let a detector hear every clip change its bandwidth, for each pair both ways.

    Args:
        clips: full-band recordings of one domain.
        switches: pairs of keys of `DELIVERIES`.
        show: told of the progress.
    """
    change = round(SECONDS_BEFORE * SAMPLE_RATE)
    results = []
    for number, clip in enumerate(clips):
        if show:
            show(f"changing {domain}", number, len(clips))
        sound = one_voice(clip, SECONDS_BEFORE + SECONDS_AFTER, number)
        heard: dict[str, Signal] = {}
        for pair in switches:
            for key in pair:
                if key not in heard:
                    heard[key] = DELIVERIES[key].deliver(sound)
            for before, after in (pair, pair[::-1]):
                stream = np.concatenate([heard[before][:change], heard[after][change:]])
                seconds, false_moves = judge_switch(
                    answers_to(stream, DELIVERIES[before].start_hz),
                    round(SECONDS_BEFORE * HOPS_PER_SECOND),
                    DELIVERIES[before],
                    DELIVERIES[after],
                )
                found = None if math.isinf(seconds) else seconds
                results.append(Switched(domain, clip.name, before, after, found, false_moves))
    return results


def track_unchanged(
    clips: Sequence[Clip],
    domain: str,
    minutes: float,
    deliveries: Sequence[str] = STEADY,
    show: Show | None = None,
) -> list[Unchanged]:
    """Let a detector hear programmes of the clips that keep their bandwidth.

    Args:
        clips: full-band recordings of one domain.
        minutes: of all streams together; half of them full band, the rest shared out.
        deliveries: keys of `DELIVERIES`, the first for half of the time.
        show: told of the progress.
    """
    streams = max(2, math.ceil(minutes / STEADY_MINUTES))
    seconds = 60.0 * minutes / streams
    results = []
    for number in range(streams):
        if show:
            show(f"unchanging {domain}", number, streams)
        # Every second stream is full band: that is what most streams are.
        others = deliveries[1:] or deliveries
        key = deliveries[0] if number % 2 == 0 else others[number // 2 % len(others)]
        delivery = DELIVERIES[key]
        stream = delivery.deliver(programme(clips, seconds, number))
        right = delivery.is_right(answers_to(stream, delivery.start_hz))
        wrong = float(np.count_nonzero(~right)) / HOPS_PER_SECOND
        results.append(Unchanged(domain, key, seconds / 60.0, moves_away(right), wrong))
    return results


def switch_table(results: Sequence[Switched]) -> str:
    """Markdown: a row per change, and how long it took to be noticed in seconds."""
    lines = [
        "| domain | from | to | streams | median s | 90 % s | longest s | not noticed "
        "| false moves |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    rows: dict[tuple[str, str, str], list[Switched]] = {}
    sums: dict[tuple[str, str, str], list[Switched]] = {}
    for one in results:
        rows.setdefault((one.domain, one.before, one.after), []).append(one)
        narrower = DELIVERIES[one.before].cutoff_hz > DELIVERIES[one.after].cutoff_hz
        sums.setdefault((one.domain, "any", "narrower" if narrower else "wider"), []).append(one)
    for (domain, before, after), some in (*rows.items(), *sums.items()):
        seconds = np.array([math.inf if one.seconds is None else one.seconds for one in some])
        # The next one up: between two values, one of which may be infinite, there is no middle.
        half, most, all_ = (
            _seconds(np.quantile(seconds, share, method="higher")) for share in (0.5, 0.9, 1.0)
        )
        lines.append(
            f"| {domain} | {before} | {after} | {len(some)} | {half} | {most} | {all_} "
            f"| {int(np.isinf(seconds).sum())} | {sum(one.false_moves for one in some)} |"
        )
    return "\n".join(lines)


def unchanged_table(results: Sequence[Unchanged]) -> str:
    """Markdown: a row per domain and delivery, and how often it moved for nothing."""
    lines = [
        "| domain | delivery | minutes | false moves | seconds not right |",
        "| --- | --- | --- | --- | --- |",
    ]
    rows: dict[tuple[str, str], list[Unchanged]] = {}
    sums: dict[tuple[str, str], list[Unchanged]] = {}
    for one in results:
        rows.setdefault((one.domain, one.delivery), []).append(one)
        sums.setdefault((one.domain, "any"), []).append(one)
    for (domain, delivery), some in (*rows.items(), *sums.items()):
        lines.append(
            f"| {domain} | {delivery} | {sum(one.minutes for one in some):.0f} "
            f"| {sum(one.false_moves for one in some)} "
            f"| {sum(one.wrong_seconds for one in some):.1f} |"
        )
    return "\n".join(lines)


def _seconds(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:.2f}"


def report(
    corpora: Annotated[
        list[Path], typer.Argument(metavar="CORPUS...", help="Folders of manifest.csv.")
    ],
    minutes: Annotated[
        float, typer.Option(min=0.5, help="Of streams that do not change, in each domain.")
    ] = 60.0,
    every: Annotated[
        int, typer.Option(min=1, metavar="N", help="Change only every N-th recording.")
    ] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write all values.")] = None,
) -> None:
    """Print how soon changes of bandwidth are noticed, and how often nothing was the matter."""
    if json_file is not None:
        check_report(json_file)
    clips = [clip for folder in corpora for clip in list_clips(folder)]
    heard = {domain: full_band_clips(clips, domain) for domain in DOMAINS}
    if not any(heard.values()):
        raise RtsrError("No valid recording of speech or music in these corpora reaches 18 kHz.")
    switched: list[Switched] = []
    unchanged: list[Unchanged] = []
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("")

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        for domain, some in heard.items():
            if some:
                switched += track_switches(some[::every], domain, show=show)
                unchanged += track_unchanged(some, domain, minutes, show=show)
    typer.echo(f"Seconds until a change is noticed\n\n{switch_table(switched)}\n")
    typer.echo(f"Streams that do not change\n\n{unchanged_table(unchanged)}")
    if json_file is not None:
        values = {
            "switched": [asdict(one) for one in switched],
            "unchanged": [asdict(one) for one in unchanged],
        }
        write_json(json_file, values)


def main() -> None:
    """Run the command."""
    run_command(report, __doc__)


if __name__ == "__main__":
    main()
