"""Try what levels from more than one pass over a file would bring, where nobody waits for it.

    python examples/offline_levels.py CORPUS --limit 8 --trial "both directions"

A model's output is kept as it is, but for the levels of its bands above the cutoff: these are moved
to where other passes over the same input have them. Printed are differences of a clip's metrics to
those of the plain output: mean and standard error over the clips of each domain.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from oracle_levels import SAMPLE_RATE, levels_of, move_levels
from scipy.ndimage import convolve1d
from scipy.signal.windows import hann

from rtsr import Upsampler
from rtsr.quality.evaluation import evaluate
from rtsr_bench.corpus import (
    Clip,
    count_by_domain,
    fit_length,
    folder_for,
    list_clips,
    prepare_inputs,
    prepare_references,
)
from rtsr_bench.markdown import table
from rtsr_bench.quality.baseline import load_full_band

Array = NDArray[np.float64]

METRICS = ("visqol", "lsd", "band_levels")
SHOWN = ("visqol", "lsd", "level_bias_db", "level_wander_db", "level_loud_db")
#: how far the input is shifted against the model's hops of 10 ms
SHIFTS_MS = (2.5, 5.0, 7.5)
#: what the level path remembers, played before the beginning
REMEMBERED_SECONDS = 3.0
#: 100 ms of frames of 5 ms
SMOOTHED_FRAMES = 21


class Passes:
    """Passes over one input, in line with it at 48 kHz.

    Args:
        samples: the input ``(samples,)``.
        rate: its rate in Hz.
        model: name or path of the model.
        cutoff_hz: where its content ends.
    """

    def __init__(self, samples: NDArray[np.float32], rate: int, model: str, cutoff_hz: float):
        self.samples, self.rate, self.model, self.cutoff_hz = samples, rate, model, cutoff_hz

    def forward(self, *, model: str | None = None, seed: int = 0) -> Array:
        """Return what a stream gives."""
        return self._enhanced(self.samples, model=model or self.model, seed=seed)

    @cached_property
    def backward(self) -> Array:
        """What the same weights give to the sound played backwards."""
        return self._enhanced(self.samples[::-1], model=self.model)[::-1]

    def behind(self, before: NDArray[np.float32]) -> Array:
        """Return what a stream gives that has heard something else before."""
        wide = self._enhanced(np.concatenate([before, self.samples]), model=self.model)
        return wide[round(before.size * SAMPLE_RATE / self.rate) :]

    def _enhanced(self, samples: NDArray[np.float32], *, model: str, seed: int = 0) -> Array:
        with Upsampler(
            self.rate,
            model=model,
            provider="cpu",
            seed=seed,
            hops_per_step=4,
            cutoff=self.cutoff_hz,
            limiter=False,
        ) as upsampler:
            wide = np.concatenate([upsampler.process(samples), upsampler.flush()])
            return wide[upsampler.latency.algorithmic_samples :].astype(np.float64)


def both_directions(passes: Passes, own: Array) -> Array:
    """Return half of the way to the backward pass."""
    return 0.5 * (levels_of(passes.backward, passes.cutoff_hz) - own)


def louder_direction(passes: Passes, own: Array) -> Array:
    """Return the way to the louder of both directions."""
    return np.maximum(levels_of(passes.backward, passes.cutoff_hz) - own, 0.0)


def with_replicate(passes: Passes, own: Array) -> Array:
    """Return the way to the mean of both directions and of spectral band replication."""
    others = (passes.backward, passes.forward(model="replicate"))
    return np.asarray(sum(levels_of(one, passes.cutoff_hz) - own for one in others) / 3.0)


def with_replicate_own_means(passes: Passes, own: Array) -> Array:
    """Return the same without what it moves a band by on average over the clip."""
    step = with_replicate(passes, own)
    return np.asarray(step - step.mean(axis=0))


def other_phases(passes: Passes, own: Array) -> Array:
    """Return the way to the mean over four shifts of the input against the model's hops."""
    shifts = [np.zeros(round(ms * passes.rate / 1000.0), np.float32) for ms in SHIFTS_MS]
    levels = [levels_of(passes.behind(shift), passes.cutoff_hz) for shift in shifts]
    return np.asarray(sum(one - own for one in levels) / (1 + len(levels)))


def other_seed(passes: Passes, own: Array) -> Array:
    """Return the way to the mean of two seeds."""
    return 0.5 * (levels_of(passes.forward(seed=1), passes.cutoff_hz) - own)


def after_its_beginning(passes: Passes, own: Array) -> Array:
    """Return the way to a pass that has heard the beginning before, backwards."""
    heard = passes.samples[: round(REMEMBERED_SECONDS * passes.rate)][::-1]
    return levels_of(passes.behind(heard), passes.cutoff_hz) - own


def smoothed(passes: Passes, own: Array) -> Array:
    """Return the way to its own levels over 100 ms, half of which are still to come."""
    window = hann(SMOOTHED_FRAMES + 2)[1:-1]
    return np.asarray(convolve1d(own, window / window.sum(), axis=0, mode="nearest") - own)


#: what is tried: from passes and the plain output's levels ``(frames, bands)`` to dB of the same
#: shape by which these are moved
TRIALS: dict[str, Callable[[Passes, Array], Array]] = {
    "both directions": both_directions,
    "louder direction": louder_direction,
    "both directions and replicate": with_replicate,
    "the same, means as they were": with_replicate_own_means,
    "four phases of the hops": other_phases,
    "two seeds": other_seed,
    "after its own beginning": after_its_beginning,
    "levels over 100 ms": smoothed,
}

Values = dict[str, float]


def spread_clips(clips: list[Clip], most: int | None) -> list[Clip]:
    """Return at most so many clips of each domain, evenly spaced; all of them for ``None``."""
    chosen = []
    for domain, count in count_by_domain(clips).items():
        places = np.unique(np.linspace(0, count - 1, min(most or count, count)).round().astype(int))
        of_domain = [clip for clip in clips if clip.domain == domain]
        chosen += [of_domain[place] for place in places]
    return chosen


def try_on_clip(
    source: Path, reference: Array, model: str, cutoff_hz: float, trials: list[str]
) -> dict[str, Values]:
    """Return the metrics of the plain output, by the name ``""``, and of each trial's."""
    samples, rate = soundfile.read(source, dtype="float32")
    passes = Passes(samples, rate, model, cutoff_hz)
    plain = passes.forward()
    own = levels_of(plain, cutoff_hz)
    outputs = {"": plain}
    for name in trials:
        outputs[name] = move_levels(plain, TRIALS[name](passes, own), cutoff_hz)
    fitted = fit_length(reference, plain.size)
    return {
        name: evaluate(fitted, one, cutoff_hz, METRICS, SAMPLE_RATE)
        for name, one in outputs.items()
    }


def differences(
    clips: list[Clip], found: Mapping[str, Mapping[str, Values]], trial: str, metric: str
) -> str:
    """Write a trial's mean difference to the plain output and its standard error, by domain."""
    cells = []
    for domain in count_by_domain(clips):
        values = [found[clip.name] for clip in clips if clip.domain == domain]
        moved = np.array([one[trial][metric] - one[""][metric] for one in values])
        moved = moved[~np.isnan(moved)]
        error = moved.std(ddof=1) / moved.size**0.5 if moved.size > 1 else np.nan
        cells.append(f"{moved.mean():+.2f} ± {error:.2f}" if moved.size else "-")
    return " / ".join(cells)


def main() -> None:
    """Print mean differences per domain by what was tried."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", metavar="CORPUS", type=Path)
    parser.add_argument("--model", default="small")
    parser.add_argument("--cutoff", type=float, action="append", metavar="HZ")
    parser.add_argument("--trial", choices=TRIALS, action="append", help="all if left out")
    parser.add_argument("--limit", type=int, metavar="N", help="clips per domain, evenly spaced")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--work", type=Path, default=Path("validation"))
    asked = parser.parse_args()
    if asked.limit is not None and asked.limit < 1:
        parser.error(f"--limit must be at least 1, not {asked.limit}")
    trials = asked.trial or list(TRIALS)
    listed = list_clips(asked.data)
    clips = spread_clips(listed, asked.limit)
    # Clips of another corpus, or of another day, may have the same names.
    work = folder_for(listed, asked.work)
    references = prepare_references(clips, work / f"references-{asked.seconds:g}s", asked.seconds)
    for hz in asked.cutoff or (4000.0, 8000.0):
        folder = work / f"inputs-{asked.seconds:g}s" / f"{hz:g}"
        inputs = prepare_inputs(references, folder, hz)
        found = {
            clip: try_on_clip(
                source, load_full_band(references[clip], asked.seconds), asked.model, hz, trials
            )
            for clip, source in inputs.items()
        }
        domains = " / ".join(f"{one} ({n})" for one, n in count_by_domain(clips).items())
        print(f"\nInput up to {hz:g} Hz, mean differences {domains}.\n")
        rows = [
            [one, *(differences(clips, found, one, metric) for metric in SHOWN)] for one in trials
        ]
        print("\n".join(table(["levels from", *SHOWN], rows)), flush=True)


if __name__ == "__main__":
    main()
