"""How the bandwidth detector follows streams.

Two things are counted: the time from a change of bandwidth within a stream until the detector says
so, and how often it moves though nothing has changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rtsr.bandwidth.detector import BandwidthDetector
from rtsr.spectra.band_powers import FRAMES_PER_SECOND
from rtsr.timing import SAMPLE_RATE
from rtsr_bench.bandwidth.degradations import DEGRADATIONS, STEADY, SWITCHES, Degradation
from rtsr_bench.bandwidth.streams import hops, one_voice, programme
from rtsr_bench.codecs import Signal
from rtsr_bench.corpus import Clip
from rtsr_bench.markdown import table
from rtsr_bench.progress import Show

SECONDS_BEFORE, SECONDS_AFTER = 8.0, 16.0
#: Of one unchanging stream.
STEADY_MINUTES = 3.0
DOMAINS = ("speech", "music")


@dataclass(frozen=True)
class Switched:
    """What a detector made of one stream that changed its bandwidth.

    Attributes:
        domain, clip: of what was degraded.
        before, after: keys of `DEGRADATIONS`.
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
        domain: of what was degraded.
        degradation: a key of `DEGRADATIONS`.
        minutes: how long it was.
        false_moves: times that the detector left a right answer.
        wrong_seconds: for how long its answer was not right.
    """

    domain: str
    degradation: str
    minutes: float
    false_moves: int
    wrong_seconds: float


def answers_to(stream: Signal, start_hz: float) -> Signal:
    """Return a detector's answer in Hz to each hop of `stream` ``(samples,)`` at 48 kHz.

    Args:
        stream: the sound.
        start_hz: what it begins with: what it says of the stream as it was until then.
    """
    detector = BandwidthDetector(initial_hz=start_hz)
    return np.array([detector.update(hop) for hop in hops(stream)])


def moves_away(right: np.ndarray) -> int:
    """How often an answer that was right is followed by one that is not."""
    return int(np.count_nonzero(right[:-1] & ~right[1:]))


def score_switch(
    answers: Signal, hop: int, before: Degradation, after: Degradation
) -> tuple[float, int]:
    """Seconds from the change at `hop` to the first right answer, and false moves.

    The seconds are infinite where no answer is right.
    """
    right = after.is_right(answers[hop:])
    first = int(np.argmax(right)) if right.any() else right.size
    seconds = (first + 1) / FRAMES_PER_SECOND if right.any() else math.inf
    return seconds, moves_away(before.is_right(answers[:hop])) + moves_away(right[first:])


def track_switches(
    clips: Sequence[Clip],
    domain: str,
    switches: Sequence[tuple[str, str]] = SWITCHES,
    show: Show = lambda what, done, total: None,
) -> list[Switched]:
    """Let a detector follow every clip that changes its bandwidth, for each pair both ways.

    Args:
        clips: full-band recordings of one domain.
        domain: which.
        switches: pairs of keys of `DEGRADATIONS`.
        show: told of the progress.
    """
    change = round(SECONDS_BEFORE * SAMPLE_RATE)
    results = []
    for number, clip in enumerate(clips):
        show(f"changing {domain}", number, len(clips))
        sound = one_voice(clip, SECONDS_BEFORE + SECONDS_AFTER, number)
        degraded: dict[str, Signal] = {}
        for pair in switches:
            for key in pair:
                if key not in degraded:
                    degraded[key] = DEGRADATIONS[key].degrade(sound)
            for before, after in (pair, pair[::-1]):
                stream = np.concatenate([degraded[before][:change], degraded[after][change:]])
                seconds, false_moves = score_switch(
                    answers_to(stream, DEGRADATIONS[before].start_hz),
                    round(SECONDS_BEFORE * FRAMES_PER_SECOND),
                    DEGRADATIONS[before],
                    DEGRADATIONS[after],
                )
                found = None if math.isinf(seconds) else seconds
                results.append(Switched(domain, clip.name, before, after, found, false_moves))
    return results


def track_unchanged(
    clips: Sequence[Clip],
    domain: str,
    minutes: float,
    degradations: Sequence[str] = STEADY,
    show: Show = lambda what, done, total: None,
) -> list[Unchanged]:
    """Let a detector follow programmes of the clips that keep their bandwidth.

    Args:
        clips: full-band recordings of one domain.
        domain: which.
        minutes: of all streams together; half of them full band, the rest shared out.
        degradations: keys of `DEGRADATIONS`, the first for half of the time.
        show: told of the progress.
    """
    streams = max(2, math.ceil(minutes / STEADY_MINUTES))
    seconds = 60.0 * minutes / streams
    results = []
    for number in range(streams):
        show(f"unchanging {domain}", number, streams)
        # Every second stream is full band: that is what most streams are.
        others = degradations[1:] or degradations
        key = degradations[0] if number % 2 == 0 else others[number // 2 % len(others)]
        degradation = DEGRADATIONS[key]
        stream = degradation.degrade(programme(clips, seconds, number))
        right = degradation.is_right(answers_to(stream, degradation.start_hz))
        wrong = float(np.count_nonzero(~right)) / FRAMES_PER_SECOND
        results.append(Unchanged(domain, key, seconds / 60.0, moves_away(right), wrong))
    return results


def switch_table(results: Sequence[Switched]) -> str:
    """Markdown: a row per change, and how long it took to be noticed in seconds."""
    rows: dict[tuple[str, str, str], list[Switched]] = {}
    sums: dict[tuple[str, str, str], list[Switched]] = {}
    for one in results:
        rows.setdefault((one.domain, one.before, one.after), []).append(one)
        narrower = DEGRADATIONS[one.before].cutoff_hz > DEGRADATIONS[one.after].cutoff_hz
        sums.setdefault((one.domain, "any", "narrower" if narrower else "wider"), []).append(one)
    cells = []
    for key, some in (*rows.items(), *sums.items()):
        seconds = np.array([math.inf if one.seconds is None else one.seconds for one in some])
        # The next one up: between two values, one of which may be infinite, there is no middle.
        told = [_seconds(np.quantile(seconds, share, method="higher")) for share in (0.5, 0.9, 1.0)]
        false_moves = sum(one.false_moves for one in some)
        cells.append([*key, len(some), *told, int(np.isinf(seconds).sum()), false_moves])
    head = ["domain", "from", "to", "streams", "median s", "90 % s", "longest s", "not noticed"]
    return "\n".join(table([*head, "false moves"], cells))


def unchanged_table(results: Sequence[Unchanged]) -> str:
    """Markdown: a row per domain and degradation, and how often it moved for nothing."""
    rows: dict[tuple[str, str], list[Unchanged]] = {}
    sums: dict[tuple[str, str], list[Unchanged]] = {}
    for one in results:
        rows.setdefault((one.domain, one.degradation), []).append(one)
        sums.setdefault((one.domain, "any"), []).append(one)
    cells = [
        [
            *key,
            f"{sum(one.minutes for one in some):.3g}",
            sum(one.false_moves for one in some),
            f"{sum(one.wrong_seconds for one in some):.1f}",
        ]
        for key, some in (*rows.items(), *sums.items())
    ]
    head = ["domain", "degradation", "minutes", "false moves", "seconds not right"]
    return "\n".join(table(head, cells))


def _seconds(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:.2f}"
