"""What full-band sound itself has in each band, to compare with what was generated."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtsr.colour.bands import colour_edges
from rtsr.spectra.band_powers import (
    FRAMES_PER_SECOND,
    LOWEST_DB,
    SOUND_RANGE_DB,
    band_powers,
    decibels,
    level_errors,
)

Audio = NDArray[np.float32]
Levels = NDArray[np.float64]

#: The loudest frame of what counts as silence, over all frequencies, in dB of a full-scale sine.
SILENCE_DB = -70.0


class Reference:
    """Band levels of full-band sound, and which of its frames have sound.

    Args:
        sound: ``(samples, channels)`` at 48 kHz.
        own_hz: where its content ends.
        loudest_db: level of the loudest frame of all that it is a part of, in dB of a full-scale
            sine; its own if ``None``.

    Attributes:
        own_hz: as given.
        loudest_db: level of the loudest frame.
        sound_seconds: of frames with sound, as a mean over channels.
    """

    def __init__(self, sound: Audio, own_hz: float, loudest_db: float | None = None) -> None:
        self.own_hz = own_hz
        self._channels = []
        self.loudest_db = SILENCE_DB
        for channel in sound.T:
            bands, wholes = _powers(channel)
            own_db = float(decibels(wholes.max()))
            self.loudest_db = max(self.loudest_db, own_db)
            loudest = own_db if loudest_db is None else max(own_db, loudest_db)
            least = 10.0 ** (max(loudest - SOUND_RANGE_DB, SILENCE_DB) / 10.0)
            self._channels.append((bands, wholes >= least))
        frames = sum(int(has_sound.sum()) for _, has_sound in self._channels)
        self.sound_seconds = frames / FRAMES_PER_SECOND / sound.shape[1]

    def compare(
        self,
        enhanced: Audio,
        cutoff_hz: float,
        ends_hz: float,
        *,
        first: int = 0,
        last: int | None = None,
    ) -> tuple[Levels, NDArray[np.bool_]]:
        """Return the errors of frames with sound ``(frames, 24)`` in dB, and which count.

        Args:
            enhanced: ``(samples, channels)``, aligned.
            cutoff_hz: where the content of what was enhanced ended.
            ends_hz: above this nothing is compared.
            first: frame of 10 ms to begin with.
            last: the first frame that is left out again.
        """
        edges = colour_edges()
        # A band that the cutoff or the end of the content runs through tells of both sides.
        inside = (edges[:-1] >= cutoff_hz * 0.999) & (edges[1:] <= ends_hz)
        errors, measured = [], []
        for (reference, has_sound), channel in zip(self._channels, enhanced.T, strict=True):
            error = level_errors(reference, _powers(channel)[0])
            chosen = np.flatnonzero(has_sound)
            chosen = chosen[
                (chosen >= first) & (chosen < (len(has_sound) if last is None else last))
            ]
            errors.append(error[chosen])
            measured.append((inside & (decibels(reference) > LOWEST_DB))[chosen])
        return np.concatenate(errors), np.concatenate(measured)


def _powers(channel: Audio) -> tuple[Levels, Levels]:
    """Return powers of a colour's bands ``(frames, 24)`` and of whole frames ``(frames,)``."""
    return band_powers(channel.astype(np.float64), colour_edges())
