"""Where the real content of a running stream ends.

The work is compiled, for one stream as for many: `rtsr_kernels.bandwidth`.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from rtsr.errors import ArgumentError, AudioFormatError
from rtsr.timing import HIGH_RATES, HOP, SAMPLE_RATE
from rtsr_kernels.band_limit import FRAME, FULL_BAND_HZ
from rtsr_kernels.bandwidth import (
    bandwidth_scratch,
    bandwidth_state,
    detect_bandwidth,
    start_bandwidth,
)

__all__ = ["FULL_BAND_HZ", "HOP", "BandwidthDetector", "measure_cutoff_stream"]

_RATES = (SAMPLE_RATE, *HIGH_RATES)


class BandwidthDetector:
    """Tells for every hop of a stream where its real content ends.

    Starts from what is known and moves only on evidence. Down, where the sound above a limit has
    just gone: within 0.4 to 0.8 s of sound; else after half a second of sound that shows the same
    band edge, or after many seconds where a limit is known already. Up after half a second, within
    two and a half, of content above the present estimate. One loud sibilant does neither. Silence
    changes nothing, and changes below 5 % are ignored. Content up to five sixths of the band, 20 of
    24 kHz, counts as full band: exactly half of the rate.

    Args:
        sample_rate: of the hops; 48000, 88200, 96000, 176400 or 192000.
        initial_hz: where the content is expected to end, if anything is known.
        native_hz: half of the rate that the stream had before it was resampled: an upper bound.

    Raises:
        AudioFormatError: another sample rate.
        RtsrError: a bandwidth of 0 Hz or less.
    """

    def __init__(
        self,
        sample_rate: int = SAMPLE_RATE,
        initial_hz: float | None = None,
        native_hz: float | None = None,
    ) -> None:
        if sample_rate not in _RATES:
            accepted = ", ".join(map(str, _RATES))
            raise AudioFormatError(
                f"The bandwidth is detected at {accepted} Hz, not at {sample_rate} Hz; "
                "resample the stream first."
            )
        # The compiled detector counts on the clock of 48 kHz.
        self._clock = sample_rate / SAMPLE_RATE
        self._bound_hz = FULL_BAND_HZ if native_hz is None else native_hz / self._clock
        start_hz = self._bound_hz if initial_hz is None else initial_hz / self._clock
        self._start_hz = min(start_hz, self._bound_hz)
        if not self._start_hz > 0.0:
            hz = self._start_hz * self._clock
            raise ArgumentError(f"A bandwidth must be above 0 Hz, not {hz} Hz.")
        self._state = bandwidth_state(streams=1, channels=1, rate=sample_rate)
        self._scratch = bandwidth_scratch()
        self.reset()

    @property
    def cutoff_hz(self) -> float:
        """The newest answer."""
        return float(self._state.values["cutoff_hz"][0]) * self._clock

    def reset(self) -> None:
        """Forget the stream; the next hop is the first."""
        start_bandwidth(self._state, 0, self._start_hz, self._bound_hz)

    def update(self, hop: NDArray[np.float32]) -> float:
        """Take one hop ``(480, channels)`` and return the cutoff in Hz.

        Raises:
            AudioFormatError: another shape.
        """
        if hop.ndim != 2 or hop.shape[0] != HOP or hop.shape[1] == 0:
            raise AudioFormatError(
                f"A hop must have the shape (480, channels), not {hop.shape}; cut the stream so."
            )
        if hop.shape[1] != self._state.history.shape[1]:
            self._change_channels(hop.shape[1])
        found = detect_bandwidth(self._state, 0, np.asarray(hop, np.float32), self._scratch)
        return found * self._clock

    def _change_channels(self, channels: int) -> None:
        history = np.zeros((1, channels, FRAME), np.float32)
        self._state = self._state._replace(history=history)
        self._state.values["active_hops"] = 0


def measure_cutoff_stream(
    blocks: Iterable[NDArray[np.float32]],
    sample_rate: int = SAMPLE_RATE,
    *,
    native_hz: float | None = None,
    seconds: float = 20.0,
) -> float:
    """Run a detector over the beginning of a stream and return the cutoff in Hz.

    Args:
        blocks: arrays ``(samples, channels)`` of any length; no more are taken than are needed.
        sample_rate: as of `BandwidthDetector`.
        native_hz: likewise.
        seconds: how much to listen to.

    Raises:
        AudioFormatError: the blocks do not have the same number of channels, or another rank.
    """
    detector = BandwidthDetector(sample_rate, native_hz=native_hz)
    left = int(seconds * sample_rate)
    waiting: NDArray[np.float32] | None = None
    for block in blocks:
        if block.ndim != 2 or (waiting is not None and block.shape[1] != waiting.shape[1]):
            raise AudioFormatError(
                f"A block must have the shape (samples, channels), not {block.shape}, "
                "and all blocks the same channels."
            )
        waiting = block if waiting is None else np.concatenate([waiting, block])
        whole = min(len(waiting), left) // HOP
        for hop in range(whole):
            detector.update(waiting[hop * HOP : (hop + 1) * HOP])
        waiting = waiting[whole * HOP :]
        left -= whole * HOP
        if left < HOP:
            break
    return detector.cutoff_hz
