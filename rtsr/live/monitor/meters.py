"""Levels and spectra for a screen, taken from the timelines on request.

The worker and the callback have no part in it: what nobody asks for costs nothing, and reading
costs the sound nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtsr.latency import ENGINE_RATE
from rtsr.live.monitor.report import SPECTRUM_BANDS
from rtsr.live.shared.memory import OVERLAP, LiveMemory

Audio = NDArray[np.float32]

FLOOR_DB = -120.0
LOWEST_BAND_HZ = 60.0
HIGHEST_BAND_HZ = 24000.0

_SPECTRUM_FRAMES = 4096
_LEVEL_FRAMES = 2400

_WINDOW = np.hanning(_SPECTRUM_FRAMES + 1)[:-1].astype(np.float32)
# A full-scale sine shows as 0 dB.
_TO_FULL_SCALE = 2.0 / float(_WINDOW.sum())


def _band_edges() -> NDArray[np.intp]:
    """First bin of each band; the last entry ends the last one. Each band has at least one bin."""
    edges = np.geomspace(LOWEST_BAND_HZ, HIGHEST_BAND_HZ, SPECTRUM_BANDS + 1)
    return np.round(edges * _SPECTRUM_FRAMES / ENGINE_RATE).astype(np.intp)


_EDGES = _band_edges()


class Meters:
    """Reads the newest sound of one session."""

    def __init__(self, memory: LiveMemory) -> None:
        self._memory = memory
        self._captured: Audio = np.zeros((_SPECTRUM_FRAMES, memory.channels), np.float32)
        self._played: Audio = np.zeros((_SPECTRUM_FRAMES, memory.channels), np.float32)

    def silence(self) -> tuple[Audio, Audio]:
        """Return the same where no device calls: nothing is captured and nothing played."""
        self._captured.fill(0.0)
        self._played.fill(0.0)
        return self._captured, self._played

    def newest(self) -> tuple[Audio, Audio]:
        """Return the newest ``(4096, channels)`` frames that were captured, and those being played.

        The arrays are overwritten by the next call.
        """
        memory = self._memory
        end = memory.capture.written
        self._read(self._captured, end, enhanced=False)
        position = int(memory.callback["played_position"])
        self._read(self._played, position - OVERLAP, enhanced=False)
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
    """Peak and root mean square per channel in dBFS of the newest 50 ms of ``(frames, channels)``.

    A full-scale sine has a root mean square of 0 dBFS.
    """
    newest = audio[-_LEVEL_FRAMES:]
    peak = np.abs(newest).max(axis=0)
    power = 2.0 * np.square(newest, dtype=np.float64).mean(axis=0)
    return _as_db(peak), _as_db(np.sqrt(power))


def spectrum_db(audio: Audio) -> NDArray[np.float32]:
    """Level in dBFS of the strongest partial in each of 64 bands, all channels together."""
    magnitude = np.abs(np.fft.rfft(audio * _WINDOW[:, None], axis=0)).max(axis=1)
    bands = np.maximum.reduceat(magnitude[: _EDGES[-1]], _EDGES[:-1])
    decibels = 20.0 * np.log10(np.maximum(bands * _TO_FULL_SCALE, 1e-6))
    return np.maximum(decibels, FLOOR_DB).astype(np.float32)


def _as_db(values: NDArray[np.floating]) -> tuple[float, ...]:
    return tuple(
        max(FLOOR_DB, 20.0 * float(np.log10(value))) if value > 1e-6 else FLOOR_DB
        for value in values
    )
