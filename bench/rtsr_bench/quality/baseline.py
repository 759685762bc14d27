"""The baseline: ridge regression from low-band to high-band energies, and noise shaped by it.

Causal, closed form, a few tens of thousands of numbers. It beats published networks on log-spectral
distance, so a network has to beat it on every metric before it may claim to have learned anything.

Frame ``k`` sees the input up to sample ``480 k`` and writes 600 samples that end there, exactly as
the networks of rtsr do; the output is written in line with the input (that is, delay taken out).
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy import signal as filters

from rtsr.errors import ArgumentError, RtsrError
from rtsr.timing import HOP, OVERLAP, SAMPLE_RATE
from rtsr.train.replicate import frame_matrix, solve_bands
from rtsr.whole_file import write_whole
from rtsr_bench.corpus import fit_length, narrow_band, read_first_channel, read_loudest, resampled

ANALYSIS = 1024
SYNTHESIS = HOP + OVERLAP

# Mean-square density per bin at which a band counts as empty: the clamp of the metric `lsd`.
_EMPTY = 1.3e-11
_GATE_DBFS = -80.0
_LEVEL_EVERY = 3
#: Of the ridge, relative to the mean variance of a feature.
_PENALTY = 1e-3

#: where fitted baselines are kept if no other folder is named
BASELINES = Path("baselines")

Array = NDArray[np.float64]


def _analysis_window() -> Array:
    """Make a window that falls shortly: the newest samples say most about what follows."""
    rise, fall = ANALYSIS - OVERLAP, OVERLAP
    return np.concatenate(
        [
            np.sin(0.5 * np.pi * (np.arange(rise) + 0.5) / rise) ** 2,
            np.cos(0.5 * np.pi * (np.arange(fall) + 0.5) / fall) ** 2,
        ]
    )


def _synthesis_window() -> Array:
    """Flat, with sine ramps: independent noise of two frames adds up in power, not in amplitude."""
    ramp = np.sin(0.5 * np.pi * (np.arange(OVERLAP) + 0.5) / OVERLAP)
    return np.concatenate([ramp, np.ones(HOP - OVERLAP), ramp[::-1]])


def _erb_number(frequency_hz: Array | float) -> Array:
    """Glasberg and Moore (1990): ``21.4 log10(1 + 0.00437 f)``."""
    return np.asarray(21.4 * np.log10(1.0 + 0.00437 * np.asarray(frequency_hz)))


def low_edges(cutoff_hz: float) -> Array:
    """Band edges in Hz below the cutoff: about one ERB wide, never under two bins."""
    edges = [50.0]
    while edges[-1] < 0.93 * cutoff_hz:
        erb = 24.7 * (1.0 + 0.00437 * edges[-1])
        edges.append(edges[-1] + max(erb, 2.0 * SAMPLE_RATE / ANALYSIS))
    edges[-1] = 0.93 * cutoff_hz
    return np.array(edges)


def high_edges(cutoff_hz: float) -> Array:
    """Band edges in Hz from the cutoff to 24 kHz, evenly spaced in ERB numbers, 0.8 apart."""
    bottom, top = _erb_number(cutoff_hz), _erb_number(SAMPLE_RATE / 2)
    bands = max(2, round(float(top - bottom) / 0.8))
    return (10.0 ** (np.linspace(bottom, top, bands + 1) / 21.4) - 1.0) / 0.00437


def _band_log_energies(power: Array, n_fft: int, edges: Array) -> Array:
    """log10 of the mean power density per band, shape (frames, bands)."""
    bins = np.fft.rfftfreq(n_fft, 1.0 / SAMPLE_RATE)
    weights = ((bins[:, None] >= edges[:-1]) & (bins[:, None] < edges[1:])).astype(np.float64)
    weights /= np.maximum(weights.sum(axis=0), 1.0)
    return np.log10(np.maximum(power @ weights, _EMPTY))


def features(narrow: Array, cutoff_hz: float) -> tuple[Array, NDArray[np.bool_]]:
    """Return what the regression sees of the band-limited input, and which frames are silent.

    Log band energies of the newest frame, of the two before it, and their averages over 4 and 16
    frames before those: all in the past.

    Args:
        narrow: band-limited input at 48 kHz, shape (samples,).
        cutoff_hz: where its content ends.

    Returns:
        (frames, features) and (frames,), true below -80 dBFS.
    """
    window = _analysis_window()
    frames = frame_matrix(narrow, ANALYSIS)
    spectrum = np.fft.rfft(frames * window, axis=1)
    power = (spectrum.real**2 + spectrum.imag**2) / (window @ window)
    energies = _band_log_energies(power, ANALYSIS, low_edges(cutoff_hz))
    history = np.concatenate([np.repeat(energies[:1], 22, axis=0), energies])
    total = np.cumsum(np.concatenate([np.zeros((1, energies.shape[1])), history]), axis=0)

    def past(newest: int, count: int) -> Array:
        """Mean of ``count`` frames of which the latest lies ``newest`` frames back."""
        stop = np.arange(energies.shape[0]) + 23 - newest
        return (total[stop] - total[stop - count]) / count

    context = [energies, past(1, 1), past(2, 1), past(3, 4), past(7, 16)]
    newest = frames[:, -SYNTHESIS:]
    silent = (newest**2).mean(axis=1) < 10.0 ** (_GATE_DBFS / 10.0)
    return np.concatenate(context, axis=1), silent


def targets(full: Array, cutoff_hz: float) -> Array:
    """Compute log band energies above the cutoff per synthesis frame: (frames, bands)."""
    window = _synthesis_window()
    spectrum = np.fft.rfft(frame_matrix(full, SYNTHESIS) * window, axis=1)
    power = (spectrum.real**2 + spectrum.imag**2) / (window @ window)
    return _band_log_energies(power, SYNTHESIS, high_edges(cutoff_hz))


def degrade(full: Array, cutoff_hz: float) -> Array:
    """Pass a 48 kHz signal through a 16-bit file at the rate 2 x cutoff, and back.

    Args:
        full: shape (samples,); the result has the same.
        cutoff_hz: where the result's content ends.
    """
    low = narrow_band(full, SAMPLE_RATE, cutoff_hz)
    return fit_length(resampled(low, 2.0 * cutoff_hz, SAMPLE_RATE), full.size)


def load_full_band(path: str | Path, seconds: float) -> Array:
    """Return the loudest part of a file's first channel, at 48 kHz."""
    return resampled(*read_loudest(path, seconds), SAMPLE_RATE)


def baseline_path(folder: Path, cutoff_hz: float) -> Path:
    """Return where the baseline for one cutoff lies."""
    return folder / f"ridge-{cutoff_hz:g}.npz"


@dataclass(frozen=True)
class RidgeBaseline:
    """A fitted baseline for one cutoff."""

    cutoff_hz: float
    weights: Array  # (1 + features, high bands); the first row is the intercept
    level: float = 0.0  # log10 of the power factor that sets the level right; 0 is the bare ridge

    @classmethod
    def fit(
        cls,
        files: Sequence[str | Path],
        cutoff_hz: float,
        measured_cutoffs_hz: Mapping[str, float] | None = None,
        seconds_per_file: float = 12.0,
    ) -> RidgeBaseline:
        """Solve the regression, one high band at a time, on the loudest part of each file.

        Args:
            files: full-band recordings of any rate.
            cutoff_hz: of the inputs to expect.
            measured_cutoffs_hz: by ``str(path)``, where a recording's own content ends: it teaches
                no band above that. Missing recordings teach all bands.
            seconds_per_file: how much of each file is used.

        Raises:
            ArgumentError: there are no files.
            RtsrError: none has sound in the first band above the cutoff.
        """
        if not files:
            raise ArgumentError("There are no files to fit the baseline on.")
        limits = measured_cutoffs_hz or {}
        tops = high_edges(cutoff_hz)[1:]
        size = 1 + 5 * (low_edges(cutoff_hz).size - 1)
        gram = np.zeros((tops.size, size, size))
        moment = np.zeros((tops.size, size))
        for path in files:
            full = load_full_band(path, seconds_per_file)
            seen, silent = features(degrade(full, cutoff_hz), cutoff_hz)
            seen = np.concatenate([np.ones((seen.shape[0], 1)), seen], axis=1)[~silent]
            wanted = targets(full, cutoff_hz)[~silent]
            taught = tops <= limits.get(str(path), np.inf)
            gram[taught] += seen.T @ seen
            moment[taught] += (seen.T @ wanted).T[taught]
        if not gram[0, 0, 0]:
            raise RtsrError(
                f"None of the recordings has sound up to {tops[0]:.0f} Hz, so there is nothing to "
                f"fit a baseline for inputs up to {cutoff_hz:g} Hz on."
            )
        bare = cls(cutoff_hz, solve_bands(gram, moment, _PENALTY))
        return replace(bare, level=bare._missing_level(files, limits, seconds_per_file))

    def _missing_level(
        self,
        files: Sequence[str | Path],
        limits: Mapping[str, float],
        seconds_per_file: float,
    ) -> float:
        """log10 of the power that a mean of logarithms loses where the high band is active.

        The regression is right on average over all frames in the logarithm; where the high band is
        active it is too quiet, because the quiet frames pull it down. With this factor the level
        ratio over active frames (within 40 dB of the loudest) is 0 dB on the median training file.
        """
        edges = high_edges(self.cutoff_hz)
        ends = [(path, edges[1:] <= limits.get(str(path), np.inf)) for path in files]
        ratios = []
        for path, taught in [one for one in ends if one[1].any()][::_LEVEL_EVERY]:
            widths = np.diff(edges) * taught
            full = load_full_band(path, seconds_per_file)
            reference = 10.0 ** targets(full, self.cutoff_hz) @ widths
            guess = 10.0 ** self.predict(degrade(full, self.cutoff_hz)) @ widths
            active = (reference > 1e-4 * reference.max()) & (guess > 0.0)
            if active.any():
                ratios.append(np.mean(np.log10(reference[active] / guess[active])))
        return float(np.median(ratios)) if ratios else 0.0

    def predict(self, narrow: Array) -> Array:
        """log10 densities per frame and high band, shape (frames, bands); -inf where silent."""
        seen, silent = features(narrow, self.cutoff_hz)
        predicted = self.weights[0] + self.level + seen @ self.weights[1:]
        return np.where(silent[:, None], -np.inf, predicted)

    def high_band(self, narrow: Array, seed: int = 0) -> Array:
        """Return the generated content alone, shape (samples,), in line with the input."""
        edges = high_edges(self.cutoff_hz)
        bins = np.fft.rfftfreq(SYNTHESIS, 1.0 / SAMPLE_RATE)
        centres = 0.5 * (edges[:-1] + edges[1:])
        predicted = self.predict(narrow)
        # linear interpolation of the logarithms between the bands' centres, flat outside
        place = np.clip(np.interp(bins, centres, np.arange(centres.size)), 0, centres.size - 1)
        left = np.minimum(place.astype(int), centres.size - 2)
        share = place - left
        silent = ~np.isfinite(predicted[:, :1])
        level = np.where(np.isfinite(predicted), predicted, 0.0)
        gain = 10.0 ** (0.5 * (level[:, left] * (1.0 - share) + level[:, left + 1] * share))
        start = 0.925 * self.cutoff_hz
        rise = np.clip((bins - start) / (self.cutoff_hz - start), 0.0, 1.0)
        gain = np.where(silent, 0.0, gain * np.sin(0.5 * np.pi * rise))

        noise = np.random.default_rng(seed).normal(size=(gain.shape[0], SYNTHESIS))
        shaped = np.fft.irfft(np.fft.rfft(noise, axis=1) * gain, SYNTHESIS, axis=1)
        shaped *= _synthesis_window()
        # frame k (from 1) covers [480 k - 600, 480 k)
        out = np.zeros(OVERLAP + gain.shape[0] * HOP)
        out[: gain.shape[0] * HOP] += shaped[:, :HOP].reshape(-1)
        tails = np.zeros((gain.shape[0], HOP))
        tails[:, :OVERLAP] = shaped[:, HOP:]
        out[HOP : HOP + gain.shape[0] * HOP] += tails.reshape(-1)[: out.size - HOP]
        return filters.sosfilt(_crossover(self.cutoff_hz), out[OVERLAP : OVERLAP + narrow.size])

    def enhance(self, narrow: Array, seed: int = 0) -> Array:
        """Add the generated high band to a band-limited signal.

        Args:
            narrow: at 48 kHz, shape (samples,), content up to the cutoff.
            seed: of the noise.

        Returns:
            shape (samples,), in line with the input.
        """
        return narrow + self.high_band(np.asarray(narrow, dtype=np.float64), seed)

    def enhance_file(self, source: str | Path, target: str | Path) -> None:
        """Read a low-rate or band-limited file, write the 48 kHz float file (first channel)."""
        narrow, rate = read_first_channel(source)
        length = round(narrow.size * SAMPLE_RATE / rate)
        narrow = fit_length(resampled(narrow, rate, SAMPLE_RATE), length)
        soundfile.write(target, self.enhance(narrow), SAMPLE_RATE, subtype="FLOAT")

    def save(self, path: str | Path) -> None:
        """Write the baseline as one .npz file, whole or not at all."""
        stored = io.BytesIO()
        np.savez(stored, cutoff_hz=self.cutoff_hz, weights=self.weights, level=self.level)
        write_whole(Path(path), stored.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> RidgeBaseline:
        """Read what :meth:`save` wrote.

        Raises:
            RtsrError: the file is missing or holds something else.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                weights, level = np.asarray(stored["weights"]), float(stored["level"])
                return cls(float(stored["cutoff_hz"]), weights, level)
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise RtsrError(
                f"{path} is not a baseline that `rtsr bench baseline` saved."
            ) from error


def _crossover(cutoff_hz: float) -> Array:
    """High-pass that keeps the noise out of the input's own band; no look-ahead."""
    return filters.iirdesign(
        0.95 * cutoff_hz, 0.85 * cutoff_hz, 0.1, 50.0, ftype="ellip", output="sos", fs=SAMPLE_RATE
    )
