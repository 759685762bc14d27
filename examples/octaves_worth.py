"""What octaves beyond 48 kHz are worth on recordings that have them.

    python examples/octaves_worth.py RECORDINGS --model small

Scores recordings of 88.2 kHz and more, in a folder for each kind. Each is brought to 96 kHz (one of
176.4 kHz and more to 192 kHz as well), taken to 48 kHz or less as a file of 24 bits, and restored.

Metrics are those of `rtsr.quality.metrics` on a clock twice (or four times) as fast: samples at
96 kHz count as 48 kHz sound, so 24 kHz is what 12 kHz is there.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from rtsr.audio.reader import native_name
from rtsr.errors import RtsrError
from rtsr.quality.audio import to_rate
from rtsr.quality.metrics import lsd, lsd_hf
from rtsr.quality.spectrogram import save_spectrograms
from rtsr.runtime.models import Model, find_model, find_octave_model
from rtsr.timing import SAMPLE_RATE
from rtsr.train.excerpt import loudest_start
from rtsr.upsampler import Upsampler
from rtsr_bench.corpus import fit_length, quantized, read_loudest
from rtsr_bench.files import check_writable, write_json
from rtsr_bench.markdown import table
from rtsr_bench.progress import progress_bar
from rtsr_bench.quality.baseline import RidgeBaseline, high_edges, low_edges

Array = NDArray[np.float64]
Systems = Mapping[str, Callable[[Array], Array]]

RESAMPLED, FLAT_NOISE = "soxr", "flat noise"
LOWEST_RATE = 88200
MOST_SECONDS, SHORTEST_SECONDS, SHOWN_SECONDS = 5.0, 0.25, 2.5
#: Hz where 48 kHz sound ends when it is played at half its speed
SLOW_PRIOR_HZ = 12000.0
SUFFIXES = (".wav", ".flac", ".aif", ".aiff", ".w64", ".caf")


@dataclass(frozen=True)
class Restorer:
    """What is scored: a model for up to 48 kHz, and what makes the octaves beyond.

    Attributes:
        model: for up to 48 kHz.
        octave_model: as :class:`~rtsr.upsampler.Upsampler` takes it.
    """

    model: Model
    octave_model: Model | None = None

    def maker(self, octaves: int) -> Model:
        """Return what makes so many octaves at once, by which rows are called."""
        found = self.octave_model or find_octave_model(self.model, octaves)
        return found if isinstance(found, Model) else find_model(found)


@dataclass(frozen=True)
class Score:
    """One system on one recording.

    Attributes:
        group: folder that the recording lies in.
        name: of the recording.
        case: rates on the way, in kHz.
        system: what restored it.
        lsd: log-spectral distance over all frequencies.
        lsd_new: the same above 24 kHz.
        levels_db: of each octave from 12 kHz on, against the recording's own.
    """

    group: str
    name: str
    case: str
    system: str
    lsd: float
    lsd_new: float
    levels_db: tuple[float, ...]


def find_recordings(folder: Path) -> list[Path]:
    """List the recordings of 88.2 kHz and more, at any depth.

    Raises:
        RtsrError: there are none, or one cannot be read.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            try:
                facts = soundfile.info(native_name(path))
            except soundfile.LibsndfileError as error:
                raise RtsrError(f"Recording '{path}' cannot be read: {error}") from None
            if facts.samplerate >= LOWEST_RATE and facts.duration >= SHORTEST_SECONDS:
                found.append(path)
    if not found:
        raise RtsrError(
            f"'{folder}' holds no recording of {LOWEST_RATE} Hz and more; give a folder that does."
        )
    return found


def read_at(path: Path, rate: int) -> Array:
    """Return the loudest 5 s of a recording's first channel, at ``rate`` Hz."""
    part, own_rate = read_loudest(path, MOST_SECONDS)
    part = to_rate(part, own_rate, rate)
    return part[: part.size // 12 * 12]


def narrowed(reference: Array, rate: int, narrow_rate: int) -> Array:
    """Take a recording to a lower rate, as a file of 24 bits."""
    return quantized(to_rate(reference, rate, narrow_rate), 24)


def restore(restorer: Restorer, samples: Array, input_rate: int, output_rate: int) -> Array:
    """Run a whole signal through an upsampler, aligned with what went in."""
    with Upsampler(
        input_rate,
        model=restorer.model,
        octave_model=restorer.octave_model,
        output_rate=output_rate,
        hops_per_step=4,
        limiter=False,
    ) as upsampler:
        parts = [upsampler.process(samples), upsampler.flush()]
        whole = np.concatenate(parts)[upsampler.latency.algorithmic_samples :]
    return whole.astype(np.float64)


def restore_in_turns(restorer: Restorer, samples: Array) -> Array:
    """Add two octaves to 48 kHz sound one after the other, the second to what the first made."""
    return restore(restorer, restore(restorer, samples, SAMPLE_RATE, 96000), 96000, 192000)


def flat_noise() -> RidgeBaseline:
    """Make the baseline that continues the spectrum's end: noise as dense as the topmost band."""
    bands = low_edges(SLOW_PRIOR_HZ).size - 1
    weights = np.zeros((1 + 5 * bands, high_edges(SLOW_PRIOR_HZ).size - 1))
    # Row 0 is a constant, and the newest frame's bands come first.
    weights[bands] = 1.0
    return RidgeBaseline(SLOW_PRIOR_HZ, weights)


def cases(restorer: Restorer, rate: int) -> Iterator[tuple[str, int, Systems]]:
    """Yield the name, the narrow rate in Hz and the systems of each case at one full rate."""

    def systems(narrow_rate: int, octaves: int = 1) -> dict[str, Callable[[Array], Array]]:
        return {
            RESAMPLED: partial(to_rate, rate=narrow_rate, new_rate=rate),
            restorer.maker(octaves).name: partial(
                restore, restorer, input_rate=narrow_rate, output_rate=rate
            ),
        }

    def noise(narrow: Array) -> Array:
        return flat_noise().enhance(to_rate(narrow, SAMPLE_RATE, rate))

    wide, (maker, restored) = systems(SAMPLE_RATE, rate // SAMPLE_RATE // 2).items()
    if rate == 2 * SAMPLE_RATE:
        yield "48 to 96", SAMPLE_RATE, dict([wide, (FLAT_NOISE, noise), (maker, restored)])
        for narrow_rate in (16000, 8000):
            yield f"{narrow_rate // 1000} to 48 to 96", narrow_rate, systems(narrow_rate)
    else:
        at_once = (f"{maker}, at once", restored)
        in_turns = (f"{restorer.maker(1).name}, in turns", partial(restore_in_turns, restorer))
        yield "48 to 192", SAMPLE_RATE, dict([wide, at_once, in_turns])
        yield "96 to 192", 2 * SAMPLE_RATE, systems(2 * SAMPLE_RATE)


def octave_levels_db(samples: Array, rate: int) -> Array:
    """Return the power of each octave from 12 kHz to half the rate, in dB of full scale."""
    power = np.abs(np.fft.rfft(samples)) ** 2
    frequency = np.fft.rfftfreq(samples.size, 1.0 / rate)
    edges = 12000.0 * 2.0 ** np.arange(1 + round(np.log2(rate / 24000.0)))
    sums = [power[(frequency >= low) & (frequency < high)].sum() for low, high in pairwise(edges)]
    return 10.0 * np.log10(2.0 * np.array(sums) / samples.size**2 + 1e-20)


def score_recording(path: Path, folder: Path, restorer: Restorer) -> list[Score]:
    """Score every system in every case that a recording's own rate allows."""
    scores = []
    group = path.relative_to(folder).parts[0] if path.parent != folder else folder.name
    own_rate = soundfile.info(native_name(path)).samplerate
    for rate in (2 * SAMPLE_RATE, 4 * SAMPLE_RATE):
        if own_rate < 0.9 * rate:
            continue
        reference = read_at(path, rate)
        clock = rate / SAMPLE_RATE
        levels = octave_levels_db(reference, rate)
        for case, narrow_rate, systems in cases(restorer, rate):
            narrow = narrowed(reference, rate, narrow_rate)
            for system, enhance in systems.items():
                estimate = fit_length(enhance(narrow), reference.size)
                new_hz = max(narrow_rate, SAMPLE_RATE) / 2 / clock
                distances = lsd(reference, estimate), lsd_hf(reference, estimate, new_hz)
                differences = tuple(octave_levels_db(estimate, rate) - levels)
                scores.append(Score(group, path.name, case, system, *distances, differences))
    return scores


def medians(scores: list[Score]) -> str:
    """Return a Markdown table of medians: a row per case, group and system."""
    head = ["case (kHz)", "group", "recordings", "system", "LSD", "LSD of the new band"]
    rows = []
    for key in dict.fromkeys((one.case, one.group, one.system) for one in scores):
        chosen = [one for one in scores if (one.case, one.group, one.system) == key]
        levels = np.median([one.levels_db for one in chosen], axis=0)
        distances = np.median([(one.lsd, one.lsd_new) for one in chosen], axis=0)
        cells = [*(f"{value:.2f}" for value in distances), ", ".join(f"{x:+.1f}" for x in levels)]
        case, group, system = key
        rows.append([case, group, len(chosen), system, *cells])
    return "\n".join(table([*head, "level of 12-24, 24-48, 48-96 kHz in dB"], rows))


def plot(path: Path, restorer: Restorer, picture: Path) -> None:
    """Draw the loudest moments at 96 kHz: resampled, with noise, by the model, the recording."""
    rate = 2 * SAMPLE_RATE
    reference = read_at(path, rate)
    _, narrow_rate, systems = next(cases(restorer, rate))
    narrow = narrowed(reference, rate, narrow_rate)
    length = round(SHOWN_SECONDS * rate)
    start = loudest_start(reference, length)
    panels = [
        *((name, fit_length(enhance(narrow), reference.size)) for name, enhance in systems.items()),
        ("recording", reference),
    ]
    excerpts = [(label, signal[start : start + length]) for label, signal in panels]
    save_spectrograms(
        picture, excerpts, title=path.stem, cutoff_hz=narrow_rate / 2, sample_rate=rate
    )


def facts(restorer: Restorer) -> dict[str, dict[str, str]]:
    """Return what made one octave and two at once."""
    makers = (restorer.model, restorer.maker(1), restorer.maker(2))
    return {
        key: {"name": model.name, "version": model.metadata.version}
        for key, model in zip(("model", "octave_model", "two_octaves_model"), makers, strict=True)
    }


def main() -> None:
    """Print medians per kind of recording, by what restored it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", metavar="RECORDINGS", type=Path)
    parser.add_argument("--model", default="small")
    parser.add_argument("--octave-model", metavar="MODEL", help="makes the octaves")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every N-th one")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="also draw the first recording")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all values")
    asked = parser.parse_args()
    if asked.every < 1:
        parser.error(f"--every must be at least 1, not {asked.every}")
    if asked.plot is not None and asked.plot.suffix.lower() != ".png":
        parser.error(f"--plot draws a PNG; give a name that ends in .png, not '{asked.plot}'")
    try:
        check_writable(asked.plot, asked.json)
        octave_model = find_model(asked.octave_model) if asked.octave_model else None
        restorer = Restorer(find_model(asked.model), octave_model)
        recordings = find_recordings(asked.folder)[:: asked.every]
        scores: list[Score] = []
        with progress_bar() as bar:
            for path in bar.track(recordings, description="scoring"):
                scores += score_recording(path, asked.folder, restorer)
        print(medians(scores))
        if asked.json is not None:
            write_json(asked.json, {**facts(restorer), "scores": [asdict(one) for one in scores]})
        if asked.plot is not None:
            plot(recordings[0], restorer, asked.plot)
    except RtsrError as error:
        parser.exit(2, f"octaves_worth: {error}\n")


if __name__ == "__main__":
    main()
