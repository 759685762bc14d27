"""``python -m rtsr_bench.bounds CORPUS``: what a model would reach if it knew the truth's levels.

A model's output is kept as it is, but for its bands' levels above the cutoff: these are moved
towards the truth's. What is gained by that is what guessing levels better could gain at most.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import soundfile
import typer
from numpy.typing import NDArray
from scipy.ndimage import convolve1d
from scipy.signal import ShortTimeFFT
from scipy.signal.windows import hann

from rtsr import enhance_file
from rtsr.runtime import models
from rtsr.runtime.providers import select as providers
from rtsr.timing import SAMPLE_RATE
from rtsr_bench.program import run_command
from rtsr_bench.ridge import fit_length, high_edges, load_full_band
from rtsr_bench.validation import (
    MAX_SECONDS,
    Clip,
    Scores,
    headed_table,
    judge,
    list_clips,
    prepare_inputs,
    prepare_references,
    write_whole,
)

Array = NDArray[np.float64]

FRAME, HOP = 1024, 240
#: 45 ms: the envelope that a listener follows, not the chance of single frames
SMOOTHED_FRAMES = 9
#: the crossover's slope, in parts of the cutoff; below it nothing is generated
START = 0.93
#: dB that a band may be moved by
LARGEST_STEP_DB = 26.0
_POWER_FLOOR = 1e-13

#: what is known of the error in dB ``(frames, bands)``, and so made good
KNOWLEDGE: dict[str, Callable[[Array], Array]] = {
    "mean levels": lambda error: np.broadcast_to(error.mean(axis=0), error.shape),
    "half of the envelopes": lambda error: 0.5 * error,
    "envelopes": lambda error: error,
}


@functools.lru_cache(maxsize=8)
def band_shares(cutoff_hz: float) -> Array:
    """``(bands, 513)``: triangles between the centres of the floor's bands; they add up to one.

    The lowest band holds all that lies below its centre, the highest all above.
    """
    edges = high_edges(cutoff_hz)
    centres = 0.5 * (edges[:-1] + edges[1:])
    bins = np.fft.rfftfreq(FRAME, 1.0 / SAMPLE_RATE)
    return np.array([np.interp(bins, centres, one) for one in np.eye(centres.size)])


def band_levels(spectrum: Array, cutoff_hz: float) -> Array:
    """Smoothed levels in dB ``(frames, bands)`` of a spectrum ``(513, frames)``."""
    shares = band_shares(cutoff_hz)
    power = (np.abs(spectrum) ** 2).T @ (shares / shares.sum(axis=1, keepdims=True)).T
    window = hann(SMOOTHED_FRAMES + 2)[1:-1]
    smoothed = convolve1d(power, window / window.sum(), axis=0, mode="nearest")
    return np.asarray(10.0 * np.log10(smoothed + _POWER_FLOOR))


def with_levels_of(estimate: Array, truth: Array, cutoff_hz: float) -> dict[str, Array]:
    """The estimate with its levels above the cutoff moved towards the truth's, by ``KNOWLEDGE``.

    Args:
        estimate, truth: at 48 kHz, in line, of one shape (samples,).
        cutoff_hz: below 0.93 of it nothing is changed.
    """
    transform = ShortTimeFFT(hann(FRAME, sym=False), HOP, SAMPLE_RATE)
    spectrum = transform.stft(estimate)
    error = band_levels(transform.stft(truth), cutoff_hz) - band_levels(spectrum, cutoff_hz)
    better = {}
    for name, knowledge in KNOWLEDGE.items():
        step = np.clip(knowledge(error), -LARGEST_STEP_DB, LARGEST_STEP_DB)
        gain = 10.0 ** (step @ band_shares(cutoff_hz) / 20.0)
        gain[:, transform.f < START * cutoff_hz] = 1.0
        better[name] = np.asarray(transform.istft(spectrum * gain.T, k1=estimate.size))
    return better


def score(
    model: str, clips: Sequence[Clip], work: Path, cutoff_hz: float, max_seconds: float
) -> dict[str, Scores]:
    """Scores of a model as it is, and with each of ``KNOWLEDGE``.

    Args:
        work: folder for references, inputs and outputs.
        max_seconds: of each clip, its loudest part.

    Raises:
        RtsrError: the model cannot be run, or something cannot be judged.
    """
    references = prepare_references(clips, work / f"references-{max_seconds:g}s", max_seconds)
    inputs = prepare_inputs(references, work / f"inputs-{max_seconds:g}s/{cutoff_hz:g}", cutoff_hz)
    folder = work / "bounds" / Path(model).stem / f"{cutoff_hz:g}"
    outputs: dict[str, dict[str, Path]] = {name: {} for name in ("nothing", *KNOWLEDGE)}
    for clip, source in inputs.items():
        target = outputs["nothing"][clip] = folder / "nothing" / f"{clip}.wav"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        enhance_file(source, target, model=model, provider=providers.CPU)
        estimate = soundfile.read(target, dtype="float64", always_2d=True)[0][:, 0]
        truth = fit_length(load_full_band(references[clip], max_seconds), estimate.size)
        for name, better in with_levels_of(estimate, truth, cutoff_hz).items():
            outputs[name][clip] = folder / name.replace(" ", "-") / f"{clip}.wav"
            write_whole(outputs[name][clip], better, SAMPLE_RATE, "FLOAT")
    return {name: judge(references, paths, cutoff_hz) for name, paths in outputs.items()}


def report(
    data: Annotated[Path, typer.Argument(metavar="CORPUS", help="The folder of manifest.csv.")],
    model: Annotated[str, typer.Option(help="A bundled name or an .onnx file.")] = "small",
    cutoff: Annotated[
        list[float], typer.Option("--cutoff", metavar="HZ", help="May be given several times.")
    ] = [4000.0, 8000.0],  # noqa: B006 - typer copies it
    work: Annotated[Path, typer.Option(help="Folder for inputs and outputs.")] = Path("validation"),
    seconds: Annotated[float, typer.Option(min=1.0, help="Most of a clip that is judged.")] = (
        MAX_SECONDS
    ),
) -> None:
    """Medians per domain by what is known of the truth."""
    models.find_model(model)
    clips = list_clips(data)
    for cutoff_hz in cutoff:
        typer.echo(headed_table(cutoff_hz, score(model, clips, work, cutoff_hz, seconds)))


def main() -> None:
    """Run the command."""
    run_command(report, __doc__)


if __name__ == "__main__":
    main()
