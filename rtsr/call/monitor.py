"""The newest sound of a call, stored for display."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtsr.live.monitor.meters import spectrum_db

__all__ = ["Monitor"]

Audio = NDArray[np.float32]

_FRAMES = 4096


class Monitor:
    """Keeps the last 85 ms before and after; costs the sound two copies of them.

    Args:
        channels: of the sound.
    """

    def __init__(self, channels: int) -> None:
        self._before: Audio = np.zeros((_FRAMES, channels), np.float32)
        self._after: Audio = np.zeros((_FRAMES, channels), np.float32)

    def see(self, before: Audio, after: Audio) -> None:
        """Take note of sound ``(samples, channels)`` at 48 kHz as it came and as it goes."""
        for stored, new in ((self._before, before), (self._after, after)):
            length = min(len(new), _FRAMES)
            # Replaced and not moved, since another thread may be looking.
            stored[: _FRAMES - length] = stored[length:].copy()
            stored[_FRAMES - length :] = new[len(new) - length :]

    def spectra_db(self) -> tuple[list[float], list[float]]:
        """Both spectra, in the bands of the live engine's screen; dB of a full-scale sine."""
        before = spectrum_db(self._before.copy())
        after = spectrum_db(self._after.copy())
        return [round(float(x), 1) for x in before], [round(float(x), 1) for x in after]
