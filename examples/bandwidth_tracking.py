"""How soon the bandwidth detector notices a change of bandwidth, and how often it errs.

    python examples/bandwidth_tracking.py CORPUS --every 8 --minutes 10

Every full-band recording of speech and music becomes a stream that changes between resamplers,
Opus, G.711 and MP3, and the time is counted until the detector says so. Besides there are streams
that do not change: there every move is a false one.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from bandwidth_streams import (
    DEGRADATIONS,
    STEADY,
    SWITCHES,
    Degradation,
    full_band_clips,
    hops,
    one_voice,
    programme,
)

from rtsr.bandwidth.detector import BandwidthDetector
from rtsr.errors import RtsrError
from rtsr.spectra.band_powers import FRAMES_PER_SECOND
from rtsr.spectra.stft import Signal
from rtsr.timing import SAMPLE_RATE
from rtsr_bench.corpus import Clip, list_clips
from rtsr_bench.files import check_writable, write_json
from rtsr_bench.markdown import table
from rtsr_bench.progress import Show, shown_progress

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
        told = [
            as_seconds(np.quantile(seconds, share, method="higher")) for share in (0.5, 0.9, 1.0)
        ]
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


def as_seconds(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:.2f}"


def track(
    corpora: Sequence[Path], every: int, minutes: float
) -> tuple[list[Switched], list[Unchanged]]:
    """Let a detector follow the full-band recordings of some corpora, and streams of them.

    Raises:
        RtsrError: a corpus cannot be read, or none has such a recording.
    """
    clips = [clip for folder in corpora for clip in list_clips(folder)]
    wanted, left_out = {}, []
    for domain in DOMAINS:
        wanted[domain], sentences = full_band_clips(clips, domain)
        left_out += sentences
    if left_out:
        said = f"{len(left_out)} of the recordings are left out: {' '.join(left_out)}"
        print(f"bandwidth_tracking: {said}", file=sys.stderr)
    if not any(wanted.values()):
        raise RtsrError("No valid recording of speech or music in these corpora reaches 18 kHz.")
    switched: list[Switched] = []
    unchanged: list[Unchanged] = []
    with shown_progress() as show:
        for domain, some in wanted.items():
            if some:
                switched += track_switches(some[::every], domain, show=show)
                unchanged += track_unchanged(some, domain, minutes, show=show)
    return switched, unchanged


def main() -> None:
    """Print seconds until a change is noticed, and false moves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpora", nargs="+", metavar="CORPUS", type=Path)
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="that do not change, in each domain"
    )
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="change only every N-th recording"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all values")
    asked = parser.parse_args()
    if not 0.5 <= asked.minutes <= 1440.0:
        parser.error(f"--minutes must lie between 0.5 and 1440, not at {asked.minutes:g}")
    if asked.every < 1:
        parser.error(f"--every must be at least 1, not {asked.every}")
    try:
        check_writable(asked.json)
        switched, unchanged = track(asked.corpora, asked.every, asked.minutes)
        print(f"Seconds until a change is noticed\n\n{switch_table(switched)}\n")
        print(f"Streams that do not change\n\n{unchanged_table(unchanged)}")
        if asked.json is not None:
            values = {"switched": switched, "unchanged": unchanged}
            write_json(
                asked.json, {key: [asdict(one) for one in some] for key, some in values.items()}
            )
    except RtsrError as error:
        parser.exit(2, f"bandwidth_tracking: {error}\n")


if __name__ == "__main__":
    main()
