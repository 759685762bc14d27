"""Discontinuous transmission (DTX): in silence Opus sends next to nothing.

A packet that holds only its table of contents has no frame in it (RFC 6716, 3.1 and 3.2.1). The far
decoder goes on by itself from there: it plays noise like that of the last pause, until there is
sound again. Neither timestamps nor sequence numbers show a loss (RFC 7587, 3.1.3 and 4.1).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtsr.timing import SAMPLE_RATE

__all__ = ["SILENCE_DBFS", "DiscontinuousTransmission", "wants_dtx"]

Audio = NDArray[np.float32]

#: What is quieter than this in all of its 5 ms is silence.
SILENCE_DBFS = -60.0
#: Silence is still sent for so long. It ends words softly, and shows the far decoder the noise that
#: it is to continue.
HANGOVER_SECONDS = 0.2
#: An empty packet says this often that the sender is still there. It also keeps the bindings of
#: address translators open.
KEEP_ALIVE_SECONDS = 0.4

_FRAME_SECONDS = 0.020
_HANGOVER = round(HANGOVER_SECONDS / _FRAME_SECONDS)
# In samples, as pauses are not whole frames.
_FRAME_SAMPLES = round(_FRAME_SECONDS * SAMPLE_RATE)
_KEEP_ALIVE_SAMPLES = round(KEEP_ALIVE_SECONDS * SAMPLE_RATE)
_BLOCKS = 4
_SILENCE = 10.0 ** (SILENCE_DBFS / 10.0)


class DiscontinuousTransmission:
    """Replaces the payloads of silence; a frame with sound is sent at once and whole."""

    def __init__(self) -> None:
        self._silent = 0
        self._unsent_samples = 0

    @property
    def is_silent(self) -> bool:
        """Whether silence has lasted so long that it is not sent."""
        return self._silent > _HANGOVER

    def payload(self, frame: Audio, encoded: bytes) -> bytes:
        """Return what is to be sent in place of an encoded frame; nothing if no packet is.

        Args:
            frame: 20 ms of sound ``(samples, channels)`` in [-1, 1], a multiple of four samples.
            encoded: the frame in Opus. The encoder must get every frame, sent or not, so that it
                knows the sound's past when the sound begins.
        """
        blocks = frame.reshape(_BLOCKS, -1, frame.shape[1])
        is_silent = float(np.square(blocks).mean(axis=1).max()) < _SILENCE
        self._silent = self._silent + 1 if is_silent else 0
        if not self.is_silent:
            self._unsent_samples = 0
            return encoded
        is_first = self._silent == _HANGOVER + 1
        self._unsent_samples += _FRAME_SAMPLES
        if not is_first and self._unsent_samples < _KEEP_ALIVE_SAMPLES:
            return b""
        self._unsent_samples = 0
        # One frame, which has no bytes: the code for the number of frames is 0.
        return bytes([encoded[0] & 0xFC])

    def pause(self, seconds: float) -> None:
        """Count time in which there was no sound at all, and no frame."""
        self._unsent_samples += round(seconds * SAMPLE_RATE)


def wants_dtx(parameters: str) -> bool:
    """Whether parameters of Opus, as ``a=fmtp`` has them, ask for DTX (RFC 7587, 6.1)."""
    return any("".join(each.split()).lower() == "usedtx=1" for each in parameters.split(";"))
