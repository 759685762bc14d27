"""Levels and spectra for a screen, taken from the timelines on request.

The worker and the callback have no part in it: what nobody asks for costs nothing, and reading
costs the sound nothing.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from rtsr.live.monitor.report import SPECTRUM_BANDS
from rtsr.live.shared.memory import LiveMemory
from rtsr.timing import SAMPLE_RATE

Audio = NDArray[np.float32]

FLOOR_DB = -120.0
LOWEST_BAND_HZ = 60.0
# At 48 kHz: 85 and 50 ms.
_SPECTRUM_FRAMES = 4096
_LEVEL_FRAMES = 2400


def band_edges_hz(top_hz: float) -> NDArray[np.float64]:
    """Return the edges ``(65,)`` of the bands up to half of a rate."""
    return np.geomspace(LOWEST_BAND_HZ, top_hz, SPECTRUM_BANDS + 1)


@functools.lru_cache(maxsize=4)
def _window(frames: int) -> Audio:
    """Return a window ``(frames, 1)`` that shows a full-scale sine as 1."""
    window = np.hanning(frames + 1)[:-1].astype(np.float32)
    return (window * np.float32(2.0 / window.sum()))[:, None]


@functools.lru_cache(maxsize=4)
def _edges(frames: int, rate: int) -> NDArray[np.intp]:
    """First bin of each band; the last entry ends the last one. Each band has at least one bin."""
    return np.round(band_edges_hz(rate / 2) * frames / rate).astype(np.intp)


class Meters:
    """Reads the newest sound of one session.

    Attributes:
        level_frames: what a level is taken over, 50 ms.
    """

    def __init__(self, memory: LiveMemory) -> None:
        self._memory = memory
        frames = _SPECTRUM_FRAMES * memory.clock.factor
        self.level_frames = _LEVEL_FRAMES * memory.clock.factor
        self._captured: Audio = np.zeros((frames, memory.channels), np.float32)
        self._played: Audio = np.zeros((frames, memory.channels), np.float32)

    def silence(self) -> tuple[Audio, Audio]:
        """Return the same where no device calls: nothing is captured and nothing played."""
        self._captured.fill(0.0)
        self._played.fill(0.0)
        return self._captured, self._played

    def newest(self) -> tuple[Audio, Audio]:
        """Return the newest 85 ms that were captured, and those being played.

        Both are ``(frames, channels)``, and are overwritten by the next call.
        """
        memory = self._memory
        end = memory.capture.written
        self._read(self._captured, end, enhanced=False)
        position = int(memory.callback["played_position"])
        self._read(self._played, position - memory.clock.lag, enhanced=False)
        # Where there are enhanced frames they are what is played.
        self._read(self._played, position, enhanced=True)
        return self._captured, self._played

    def _read(self, out: Audio, end: int, enhanced: bool) -> None:
        """Fill with frames before ``end``; dry ones that are not there are silence."""
        timeline = self._memory.playback if enhanced else self._memory.capture
        first = max(0, end - len(out))
        if enhanced:
            first = max(first, timeline.start)
        missing = min(len(out), first - (end - len(out)))
        read = timeline.read(first, out[missing:]) if missing < len(out) else 0
        if not enhanced:
            out[:missing] = 0.0
            out[missing + read :] = 0.0


def levels_db(audio: Audio) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Peak and root mean square per channel in dBFS of ``(frames, channels)``.

    A full-scale sine has a root mean square of 0 dBFS.
    """
    peak = np.abs(audio).max(axis=0)
    power = 2.0 * np.square(audio, dtype=np.float64).mean(axis=0)
    return _as_db(peak), _as_db(np.sqrt(power))


def spectrum_db(audio: Audio, rate: int = SAMPLE_RATE) -> NDArray[np.float32]:
    """Level in dBFS of the strongest partial in each of 64 bands, all channels together.

    Args:
        audio: ``(frames, channels)``, of which a band has to have one bin: 85 ms are enough.
        rate: of it in Hz; the bands reach up to half of that.
    """
    edges = _edges(len(audio), rate)
    magnitude = np.abs(np.fft.rfft(audio * _window(len(audio)), axis=0)).max(axis=1)
    bands = np.maximum.reduceat(magnitude[: edges[-1]], edges[:-1])
    decibels = 20.0 * np.log10(np.maximum(bands, 1e-6))
    return np.maximum(decibels, FLOOR_DB).astype(np.float32)


def _as_db(values: NDArray[np.floating]) -> tuple[float, ...]:
    return tuple(
        max(FLOOR_DB, 20.0 * float(np.log10(value))) if value > 1e-6 else FLOOR_DB
        for value in values
    )
