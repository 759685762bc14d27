"""Where a recording's real content ends, measured on the whole file.

A file's sample rate says little about its bandwidth: most public recordings were once MP3 or
Vorbis. The training loss must not be asked for content above that point: the file does not hold it.

Three marks are looked for in the 99th percentile, over time, of the power spectrum. The lowest
wins:

* emptiness: above it nothing stands out from the noise of 16-bit samples;
* a band edge: the level falls by more than 20 dB within 600 Hz and never comes back;
* for speech, stationary noise: above it the loud frames are hardly louder than the quiet ones.

What is to be enhanced must not be taken for narrower than it is, so there the band edge counts
alone: sound that fades into the noise of its samples has none.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from rtsr.errors import AudioFormatError

FRAME = 2048
#: More frames than this are not looked at: they are taken evenly from the whole file.
MAX_FRAMES = 3000
#: Fewer are no file to find a band edge in.
LEAST_FRAMES = 16
#: Percentile over time in which :func:`find_band_edge` looks: few frames may hold a click.
EDGE_SHARE = 0.999
#: 99th percentile of the noise of 16-bit samples with triangular dither, in one bin of a Hann
#: window of `FRAME`, in dB of a full-scale sine: step^2 / 4 over the bins, and ln(100) for an
#: exponentially distributed power.
NOISE_DB = float(10 * np.log10((2.0**-15) ** 2 / 4) + 3.01 + 10 * np.log10(2 * 1.5 / FRAME) + 6.63)
ABOVE_NOISE_DB = 10.0
EDGE_DB = 20.0
EDGE_WIDTH_HZ = 600.0
#: The band below an edge whose median level is compared with what is left above it.
PLATEAU_HZ = 1500.0
#: What must be gone after `PLATEAU_HZ`, by where the edge lies (Hz, dB): formants and resonances
#: also end in falls of 20-25 dB, and the lower, the steeper; above 16 kHz there are only edges.
DEEP_EDGES = ((3000.0, 40.0), (5000.0, 26.0), (16000.0, EDGE_DB))
#: Speech must move by this much in a bin; stationary noise moves by 16 dB between the percentiles.
SPEECH_RANGE_DB = 22.0


def measure_cutoff(samples: np.ndarray, sample_rate: int, *, speech: bool = False) -> float:
    """Return the frequency in Hz above which `samples` hold nothing of their own.

    Args:
        samples: ``(samples,)`` float in [-1, 1] or int16.
        sample_rate: of `samples`, in Hz.
        speech: also discount stationary noise, which is what a voice recording ends in.

    Raises:
        AudioFormatError: `samples` is not one channel.
    """
    if samples.ndim != 1:
        raise AudioFormatError(
            f"measure_cutoff takes one channel of shape (samples,), not {samples.shape}; "
            "pass the channels one by one."
        )
    loud, quiet = _percentile_spectra(samples)
    return _cutoff_of_spectra(loud, quiet, sample_rate, speech)


def find_band_edge(blocks: Iterable[NDArray[np.float32]], sample_rate: int) -> float | None:
    """Return the frequency in Hz of the lowest band edge that a whole file has, or ``None``.

    Frames are taken evenly from all of it, with constant memory, and those that are loudest at a
    frequency say what is there: what lies above the edge, a few clicks aside, is nowhere in the
    file. Of several channels the loudest counts. Less than 0.2 s of sound at 96 kHz show nothing.

    Args:
        blocks: finite arrays ``(samples, channels)`` of any length.
        sample_rate: of them, in Hz.
    """
    power = np.zeros((MAX_FRAMES, FRAME // 2 + 1), np.float32)
    window = _window()[:, None].astype(np.float64)
    count, hop, skipped = 0, FRAME // 2, 0
    waiting: NDArray[np.float32] | None = None
    for block in blocks:
        waiting = block if waiting is None else np.concatenate([waiting, block])
        while skipped + FRAME <= len(waiting):
            if count == MAX_FRAMES:
                # There is more than was thought: every other one will do.
                count = MAX_FRAMES // 2
                power[:count] = power[: 2 * count : 2]
                hop *= 2
            frame = waiting[skipped : skipped + FRAME] * window
            spectrum = np.fft.rfft(frame, axis=0)
            power[count] = (spectrum.real**2 + spectrum.imag**2).max(axis=1)
            count += 1
            skipped += hop
        waiting, skipped = waiting[skipped:], max(0, skipped - len(waiting))
    if count < LEAST_FRAMES:
        return None
    rank = int(EDGE_SHARE * (count - 1))
    loud = _decibels(np.partition(power[:count], rank, axis=0)[rank])
    hz_per_bin = sample_rate / FRAME
    nowhere = len(loud)
    foot = _foot_of_edge(_smooth(loud, _smoothing_width(hz_per_bin)), hz_per_bin, nowhere)
    # What is found where the search begins may be the end of an edge that lies below.
    is_edge = foot * hz_per_bin > DEEP_EDGES[0][0] + EDGE_WIDTH_HZ and foot < nowhere
    return foot * hz_per_bin if is_edge else None


def _percentile_spectra(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the 99th and 10th percentile power spectra ``(bins,)`` in dB of a full-scale sine."""
    if len(samples) < FRAME:
        samples = np.pad(samples, (0, FRAME - len(samples)))
    frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME)[:: FRAME // 2]
    if len(frames) > MAX_FRAMES:
        frames = frames[np.linspace(0, len(frames) - 1, MAX_FRAMES).astype(np.int64)]
    window = _window()
    if samples.dtype == np.int16:
        window /= 32768.0
    power = np.empty((len(frames), FRAME // 2 + 1), np.float32)
    for start in range(0, len(frames), 256):
        spectrum = np.fft.rfft(frames[start : start + 256] * window)
        power[start : start + 256] = spectrum.real**2 + spectrum.imag**2
    ranks = [int(0.10 * (len(power) - 1)), int(np.ceil(0.99 * (len(power) - 1)))]
    power.partition(ranks, axis=0)
    quiet, loud = (_decibels(power[rank]) for rank in ranks)
    return loud, quiet


def _window() -> NDArray[np.float32]:
    """Return Hann's window ``(FRAME,)``, in which a full-scale sine has an amplitude of 1."""
    window = np.hanning(FRAME + 1)[:FRAME].astype(np.float32)
    return window * np.float32(2.0 / window.sum())


def _decibels(power: NDArray[np.float32]) -> NDArray[np.float32]:
    return 10 * np.log10(power + 1e-20)


def _smoothing_width(hz_per_bin: float) -> int:
    """Return about 100 Hz in bins: one's percentile is too ragged to be compared."""
    return max(3, round(100.0 / hz_per_bin))


def _smooth(spectrum: np.ndarray, width: int) -> np.ndarray:
    padded = np.pad(spectrum, (width // 2, width - 1 - width // 2), mode="edge")
    return np.convolve(padded, np.full(width, 1.0 / width), mode="valid")


def _cutoff_of_spectra(
    loud: np.ndarray, quiet: np.ndarray, sample_rate: int, speech: bool
) -> float:
    hz_per_bin = sample_rate / FRAME
    width = _smoothing_width(hz_per_bin)
    level = _smooth(loud, width)
    content = level > NOISE_DB + ABOVE_NOISE_DB
    if speech:
        content &= level - _smooth(quiet, width) > SPEECH_RANGE_DB
    above = np.flatnonzero(content)
    if len(above) == 0:
        return 0.0
    end = int(above[-1]) + 1

    end = min(end, _foot_of_edge(level, hz_per_bin, end))
    return float(min(end * hz_per_bin, sample_rate / 2))


def _foot_of_edge(level: np.ndarray, hz_per_bin: float, otherwise: int) -> int:
    """Find the first bin above the lowest band edge of a spectrum in dB, or return `otherwise`."""
    step = round(EDGE_WIDTH_HZ / hz_per_bin)
    plateau = round(PLATEAU_HZ / hz_per_bin)
    # A partial or a resonance that stands alone also falls by 20 dB on its upper side; below a
    # band edge there is a whole band, so the middle of that band is what must fall.
    below = np.median(np.lib.stride_tricks.sliding_window_view(level, plateau), axis=1)
    loudest_above = np.maximum.accumulate(level[::-1])[::-1]
    corners = np.arange(int(np.ceil(DEEP_EDGES[0][0] / hz_per_bin)), len(level) - plateau)
    before = below[corners - plateau + 1]
    starts, depths = np.array(DEEP_EDGES).T
    deep = depths[np.searchsorted(starts, corners * hz_per_bin, side="right") - 1]
    is_edge = (before - loudest_above[corners + step] > EDGE_DB) & (
        before - loudest_above[corners + plateau] > deep
    )
    edges = corners[is_edge]
    if len(edges) == 0:
        return otherwise
    edge = int(edges[0])
    noise_level = loudest_above[edge + step]
    return edge + int(np.argmax(level[edge : edge + step + 1] <= noise_level + 3.0))
