"""The sound of a call as it came in, at 48 kHz and always equally late."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtsr.call.formats import G722, OPUS, PCMU
from rtsr.call.receiver import Chunk, Origin
from rtsr.latency import ENGINE_RATE
from rtsr_kernels.resample import StreamingResampler
from rtsr_kernels.resample_design import delay_samples

__all__ = ["DELAY_SAMPLES", "DryPath"]

Audio = NDArray[np.float32]

#: Overlap of the synthesis window in samples, the enhanced sound's delay behind the resampled one.
OVERLAP = 120


_LONGEST_RESAMPLING = max(
    delay_samples(form.sample_rate, ENGINE_RATE) for form in (PCMU, G722, OPUS)
)
#: Samples at 48 kHz by which everything that leaves is behind what has come in, at any rate.
DELAY_SAMPLES = _LONGEST_RESAMPLING + OVERLAP


class DryPath:
    """Resamples chunks of any rate to 48 kHz, :data:`DELAY_SAMPLES` late, without a seam.

    Where the rate changes, the end of the old sound (a chunk of origin ``TAIL``) is faded over to
    the beginning of the new.

    Args:
        channels: of the sound.
    """

    def __init__(self, channels: int) -> None:
        self._channels = channels
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
            return self._resampler.process(sound)
        before = OVERLAP if self._resampler is None else 0
        self._resampler = StreamingResampler(chunk.rate, ENGINE_RATE, self._channels)
        before += _LONGEST_RESAMPLING - self._resampler.delay
        silence = np.zeros((before, self._channels), np.float32)
        out = np.concatenate([silence, self._resampler.process(sound)])
        length = min(len(self._tail), len(out))
        if length:
            rising = ((np.arange(length) + 1) / (length + 1))[:, None].astype(np.float32)
            out[:length] = rising * out[:length] + (1.0 - rising) * self._tail[:length]
            self._tail = self._tail[:0]
        return out
