"""What a model would reach if it knew the reference's levels above the cutoff: an oracle.

    python examples/oracle_levels.py CORPUS --model small

A model's output is kept as it is, but for the levels of its bands above the cutoff: these are moved
towards the reference's. What is gained by that is what better guesses of levels could gain at most.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.ndimage import convolve1d
from scipy.signal import ShortTimeFFT
from scipy.signal.windows import hann

from rtsr import enhance_file
from rtsr.quality.compare import compare_files
from rtsr_bench.corpus import (
    Clip,
    fit_length,
    folder_for,
    list_clips,
    prepare_inputs,
    prepare_references,
    write_whole,
)
from rtsr_bench.markdown import table
from rtsr_bench.quality.baseline import high_edges, load_full_band
from rtsr_bench.quality.scores import Scores, gather_scores

Array = NDArray[np.float64]

METRICS = ("visqol", "lsd", "lsd_near", "mel_hf", "hf_bias_db", "hf_envelope_db")
SAMPLE_RATE, FRAME, HOP = 48000, 1024, 240
#: 45 ms: the envelope that a listener follows, not the chance of single frames
SMOOTHED_FRAMES = 9
#: the crossover's slope, in parts of the cutoff; below it nothing is generated
START = 0.93
#: dB that a band may be moved by
LARGEST_STEP_DB = 26.0

#: what the oracle tells of the error in dB ``(frames, bands)``, and so is made good
ORACLES: dict[str, Callable[[Array], Array]] = {
    "mean levels": lambda error: np.broadcast_to(error.mean(axis=0), error.shape),
    "half of the envelopes": lambda error: 0.5 * error,
    "envelopes": lambda error: error,
}


@functools.lru_cache(maxsize=8)
def band_shares(cutoff_hz: float) -> Array:
    """Return ``(bands, 513)``: triangles between the bands' centres that add up to one."""
    edges = high_edges(cutoff_hz)
    centres = 0.5 * (edges[:-1] + edges[1:])
    bins = np.fft.rfftfreq(FRAME, 1.0 / SAMPLE_RATE)
    return np.array([np.interp(bins, centres, one) for one in np.eye(centres.size)])


def band_levels(spectrum: Array, cutoff_hz: float) -> Array:
    """Return smoothed levels in dB ``(frames, bands)`` of a spectrum ``(513, frames)``."""
    shares = band_shares(cutoff_hz)
    power = (np.abs(spectrum) ** 2).T @ (shares / shares.sum(axis=1, keepdims=True)).T
    window = hann(SMOOTHED_FRAMES + 2)[1:-1]
    smoothed = convolve1d(power, window / window.sum(), axis=0, mode="nearest")
    return np.asarray(10.0 * np.log10(smoothed + 1e-13))


def with_levels_of(estimate: Array, reference: Array, cutoff_hz: float) -> dict[str, Array]:
    """Move the estimate's levels above the cutoff towards the reference's, by oracle.

    Args:
        estimate: at 48 kHz, shape (samples,).
        reference: in line with it, of the same shape.
        cutoff_hz: below 0.93 of it nothing is changed.
    """
    error = levels_of(reference, cutoff_hz) - levels_of(estimate, cutoff_hz)
    return {
        name: move_levels(estimate, oracle(error), cutoff_hz) for name, oracle in ORACLES.items()
    }


def levels_of(samples: Array, cutoff_hz: float) -> Array:
    """Return smoothed levels in dB ``(frames, bands)`` of a signal, as :func:`band_levels`."""
    return band_levels(short_time_transform().stft(samples), cutoff_hz)


def move_levels(samples: Array, step_db: Array, cutoff_hz: float) -> Array:
    """Return a signal with its levels above the cutoff moved.

    Args:
        samples: at 48 kHz, shape (samples,).
        step_db: ``(frames, bands)``, limited to +-26 dB.
        cutoff_hz: below 0.93 of it nothing is changed.
    """
    transform = short_time_transform()
    step = np.clip(step_db, -LARGEST_STEP_DB, LARGEST_STEP_DB)
    gain = 10.0 ** (step @ band_shares(cutoff_hz) / 20.0)
    gain[:, transform.f < START * cutoff_hz] = 1.0
    return np.asarray(transform.istft(transform.stft(samples) * gain.T, k1=samples.size))


def short_time_transform() -> ShortTimeFFT:
    """Return the transform in which levels are measured and moved."""
    return ShortTimeFFT(hann(FRAME, sym=False), HOP, SAMPLE_RATE)


def score(
    model: str, clips: list[Clip], work: Path, cutoff_hz: float, seconds: float
) -> dict[str, Scores]:
    """Score a model as it is (``nothing``), and by each of :data:`ORACLES`."""
    # Clips of another corpus, or of another day, may have the same names.
    folder = folder_for(clips, work)
    references = prepare_references(clips, folder / f"references-{seconds:g}s", seconds)
    narrow = folder / f"inputs-{seconds:g}s" / f"{cutoff_hz:g}"
    inputs = prepare_inputs(references, narrow, cutoff_hz)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for clip, source in inputs.items():
        target = work / "oracle.wav"
        target.unlink(missing_ok=True)
        enhance_file(source, target, model=model, provider="cpu")
        estimate = soundfile.read(target, dtype="float64", always_2d=True)[0][:, 0]
        reference = fit_length(load_full_band(references[clip], seconds), estimate.size)
        outputs = {"nothing": estimate, **with_levels_of(estimate, reference, cutoff_hz)}
        for name, samples in outputs.items():
            write_whole(target, samples, SAMPLE_RATE, "FLOAT")
            compared = compare_files(references[clip], target, cutoff_hz, METRICS)
            found.setdefault(name, {})[clip] = compared.metrics
    return {name: gather_scores(cutoff_hz, clips) for name, clips in found.items()}


def main() -> None:
    """Print medians per domain by what is known of the reference."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", metavar="CORPUS", type=Path)
    parser.add_argument("--model", default="small")
    parser.add_argument("--cutoff", type=float, action="append", metavar="HZ")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--work", type=Path, default=Path("validation"))
    asked = parser.parse_args()
    for hz in asked.cutoff or (4000.0, 8000.0):
        rows = score(asked.model, list_clips(asked.data), asked.work, hz, asked.seconds)
        domains = list(rows["nothing"].by_domain)
        print(f"\nInput up to {hz:g} Hz, medians {' / '.join(domains)}.\n")
        lines = [
            [name, *(" / ".join(f"{one.by_domain[d][m]:.2f}" for d in domains) for m in METRICS)]
            for name, one in rows.items()
        ]
        print("\n".join(table(["known", *METRICS], lines)))


if __name__ == "__main__":
    main()
