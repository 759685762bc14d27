"""The sound of a call as it came in, at 48 kHz and always equally late."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtsr.call.formats import G722, OPUS, PCMU
from rtsr.call.receiver import Chunk, Origin
from rtsr.timing import OVERLAP, SAMPLE_RATE
from rtsr_kernels.resample import StreamingResampler
from rtsr_kernels.resample_design import delay_samples

__all__ = ["DELAY_SAMPLES", "RESAMPLING_SAMPLES", "DryPath"]

Audio = NDArray[np.float32]


#: Samples at 48 kHz by which resampling makes sound late, at any rate.
RESAMPLING_SAMPLES = max(
    delay_samples(form.sample_rate, SAMPLE_RATE) for form in (PCMU, G722, OPUS)
)
#: Samples at 48 kHz by which everything that leaves is behind what has come in, at any rate.
DELAY_SAMPLES = RESAMPLING_SAMPLES + OVERLAP


class DryPath:
    """Resamples chunks of any rate to 48 kHz, :data:`RESAMPLING_SAMPLES` late, without a seam.

    Where the rate changes, the end of the old sound (a chunk of origin ``TAIL``) is faded over to
    the beginning of the new.

    Args:
        channels: of the sound.

    Attributes:
        worth: samples at 48 kHz that all chunks so far were long, tails left out. At rates that do
            not divide 48000 a chunk is worth one more or less than the next of its length.
    """

    def __init__(self, channels: int) -> None:
        self.worth = 0
        self._channels = channels
        self._surplus = 0
        self._resampler: StreamingResampler | None = None
        self._tail: Audio = np.zeros((0, channels), np.float32)

    def process(self, chunk: Chunk) -> Audio:
        """Return the chunk at 48 kHz, ``(samples, channels)``; nothing for a tail."""
        sound = np.ascontiguousarray(chunk.sound)
        if chunk.origin is Origin.TAIL:
            if self._resampler is not None:
                self._tail = self._resampler.process(sound)
            return self._tail[:0]
        if self._resampler is not None and self._resampler.input_rate == chunk.rate:
            return self._without_surplus(self._resampler.process(sound))
        delay = RESAMPLING_SAMPLES if self._resampler is None else self._resampler.delay
        self._resampler = StreamingResampler(chunk.rate, SAMPLE_RATE, self._channels)
        # A conversion that is sooner waits; of one that is later, the silence it begins with goes.
        sooner = delay - self._resampler.delay - self._surplus
        self._surplus = max(0, -sooner)
        silence = np.zeros((max(0, sooner), self._channels), np.float32)
        out = np.concatenate([silence, self._without_surplus(self._resampler.process(sound))])
        length = min(len(self._tail), len(out))
        if length:
            rising = ((np.arange(length) + 1) / (length + 1))[:, None].astype(np.float32)
            out[:length] = rising * out[:length] + (1.0 - rising) * self._tail[:length]
            self._tail = self._tail[:0]
        return out

    def _without_surplus(self, sound: Audio) -> Audio:
        """Count what has been resampled, and leave out what is still to go, over several chunks."""
        self.worth += len(sound)
        left_out = min(self._surplus, len(sound))
        self._surplus -= left_out
        return sound[left_out:]
