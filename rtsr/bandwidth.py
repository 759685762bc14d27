"""Where the real content of a running stream ends.

The mark of a band limit is a wall: more than 20 dB are lost within 600 Hz and never come back. A
voice between two sibilants may hold little above 6 kHz for a second, but it rolls off, it has no
wall. So walls are not searched in one frame but in the strongest that several seconds of sound
have shown at each frequency; silence shows nothing and does not count as time.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numba import boolean, complex128, float32, float64, int64, types, void
from numpy.typing import NDArray

from rtsr.band_limit import (
    BINS,
    FLOOR_DB,
    FRAME,
    FULL_BAND_HZ,
    HIGH_WALL_DB,
    HZ_PER_BIN,
    NOMINAL,
    find_wall,
)
from rtsr.errors import AudioFormatError, RtsrError
from rtsr.images import ImageDetector
from rtsr_kernels.compiled import kernel

__all__ = ["FULL_BAND_HZ", "BandwidthDetector", "measure_cutoff_stream"]

SAMPLE_RATE = 48000
HOP = 480

#: Content that reaches this far leaves nothing to add.
FULL_FROM_HZ = 20000.0
#: Quieter hops (mean power of the channels, in dB of a full-scale sine) are taken for silence.
ACTIVE_DB = -62.0

#: The long memory: so many blocks of active frames, 0.5 s each.
BLOCKS = 12
BLOCK_FRAMES = 50
#: Active frames (10 ms each) that must agree before the estimate goes down.
DOWN_FRAMES = 50
#: The same for a wall that is not high.
LOW_WALL_DOWN_FRAMES = 300
#: The same where lossy coders make holes that come and go, and where a limit is known already: it
#: stands until the memory holds nothing of what it was measured on.
LONG_DOWN_FRAMES = BLOCKS * BLOCK_FRAMES + 50
TREBLE_HZ = 14000.0
#: Every time it had to go up again it waits twice as long, up to so many times.
LONGEST_PATIENCE = 16
#: Active frames with content above the estimate, among the newest `UP_MEMORY`, to go up. A
#: sibilant has at most 20, and two more for the length of a frame.
UP_FRAMES = 52
UP_MEMORY = 250
#: Content must exceed what a wall has left by so much.
ABOVE_REST_DB = 10.0
#: Smaller changes are ignored, twice as much going down from a known limit.
HYSTERESIS = 0.05
EVALUATE_EVERY = 5

_ACTIVE_POWER = 0.5 * 10 ** (ACTIVE_DB / 10)
_POWER = types.Array(float64, 1, "C")
_SPECTRA = types.Array(complex128, 2, "C")
_BLOCKS = types.Array(float32, 2, "C")


@kernel(void(_SPECTRA, _POWER))
def _frame_power(spectra: NDArray[np.complex128], power: NDArray[np.float64]) -> None:
    """Fill `power` ``(bins,)`` with the strongest channel's, smoothed over three bins."""
    channels, bins = spectra.shape
    for channel in range(channels):
        before = 0.0
        here = spectra[channel, 0].real ** 2
        for k in range(bins):
            after = 0.0
            if k + 1 < bins:
                after = spectra[channel, k + 1].real ** 2 + spectra[channel, k + 1].imag ** 2
            smooth = 0.25 * before + 0.5 * here + 0.25 * after
            if channel == 0 or smooth > power[k]:
                power[k] = smooth
            before = here
            here = after


@kernel(void(_POWER, _BLOCKS, int64, boolean))
def _hold(power: NDArray[np.float64], blocks: NDArray[np.float32], row: int, start: bool) -> None:
    """Keep the maximum of each bin in ``blocks[row]``."""
    for k in range(power.size):
        value = np.float32(power[k])
        if start or value > blocks[row, k]:
            blocks[row, k] = value


@kernel(void(_BLOCKS, int64, _POWER))
def _loudest_levels(blocks: NDArray[np.float32], count: int, levels: NDArray[np.float64]) -> None:
    """Fill `levels` with the maximum of the first `count` blocks, in dB."""
    for k in range(levels.size):
        value = blocks[0, k]
        for i in range(1, count):
            value = max(value, blocks[i, k])
        levels[k] = max(FLOOR_DB, 10.0 * np.log10(value + 1e-20))


@kernel(boolean(_POWER, int64, float64))
def _has_content(power: NDArray[np.float64], first: int, least: float) -> bool:
    """Whether any stretch of about 300 Hz from bin `first` up exceeds `least` throughout."""
    run = 0
    for k in range(first, power.size):
        run = run + 1 if power[k] > least else 0
        if run == 6:
            return True
    return False


class BandwidthDetector:
    """Tells for every hop of a 48 kHz stream where its real content ends.

    Starts from what is known and moves only on evidence: down after half a second of active signal
    that shows the same wall, up after half a second, within two and a half, of content above the
    present estimate. One loud sibilant does neither. Silence changes nothing, and changes below
    5 % are ignored. Content up to 20 kHz counts as full band: `FULL_BAND_HZ`, exactly.

    Args:
        sample_rate: of the hops; 48000.
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
        native_hz: float = FULL_BAND_HZ,
    ) -> None:
        if sample_rate != SAMPLE_RATE:
            raise AudioFormatError(
                f"The bandwidth is detected at 48000 Hz, not at {sample_rate} Hz; "
                "resample the stream first."
            )
        self._bound = FULL_BAND_HZ if native_hz >= FULL_FROM_HZ else float(native_hz)
        start = self._bound if initial_hz is None else min(float(initial_hz), self._bound)
        if not start > 0.0:
            raise RtsrError(f"A bandwidth must be above 0 Hz, not {start} Hz.")
        self._start_hz = FULL_BAND_HZ if start >= FULL_FROM_HZ else start
        window = np.hanning(FRAME + 1)[:FRAME]
        self._window = window * (2.0 / window.sum())
        self._blocks = np.zeros((BLOCKS, BINS), np.float32)
        self._wide = np.zeros((1, BINS), np.float32)
        self._power = np.zeros(BINS)
        self._levels = np.zeros(BINS)
        self._flags = np.zeros(UP_MEMORY, np.bool_)
        self._flag = 0
        self._wide_frames = 0
        self._history = np.zeros((1, FRAME))
        self._images = ImageDetector()
        self.reset()

    def reset(self) -> None:
        """Forget the stream; the next hop is the first."""
        self.cutoff_hz = self._start_hz
        self._history.fill(0.0)
        self._images.reset()
        self._active_hops = 0
        self._spectrum_is_due = False
        self._frames = 0
        self._known = self._start_hz < FULL_BAND_HZ
        self._candidate_hz = FULL_BAND_HZ
        self._agreed = 0
        self._patience = 1
        self._forget_content_above()
        self._rest_db = FLOOR_DB

    def update(self, hop: NDArray[np.float32]) -> float:
        """Take one hop ``(480, channels)`` and return the cutoff in Hz.

        Raises:
            AudioFormatError: another shape.
        """
        if hop.ndim != 2 or hop.shape[0] != HOP or hop.shape[1] == 0:
            raise AudioFormatError(
                f"A hop must have the shape (480, channels), not {hop.shape}; cut the stream so."
            )
        if hop.shape[1] != len(self._history):
            self._history = np.zeros((hop.shape[1], FRAME))
            self._active_hops = 0
            self._spectrum_is_due = False
        # A stream that is muted or that begins in the middle of a sound clicks, and a click is full
        # band: a spectrum counts only if all hops in it and the one behind it are sound. What is
        # not a number compares as silence here.
        active = _ACTIVE_POWER * hop.size < float(np.vdot(hop, hop)) < np.inf
        if active and self._spectrum_is_due:
            self._consider()
        history = self._history
        history[:, :-HOP] = history[:, HOP:]
        history[:, -HOP:] = hop.T
        self._active_hops = self._active_hops + 1 if active else 0
        self._spectrum_is_due = self._active_hops * HOP >= FRAME
        if self._spectrum_is_due:
            _frame_power(np.fft.rfft(history * self._window), self._power)
        return self.cutoff_hz

    def _consider(self) -> None:
        self._remember()
        if self._frames % EVALUATE_EVERY == 0:
            self._consider_going_down()
        if self.cutoff_hz < self._bound:
            self._consider_going_up()

    def _remember(self) -> None:
        block, frame = divmod(self._frames, BLOCK_FRAMES)
        _hold(self._power, self._blocks, block % BLOCKS, frame == 0)
        self._images.update(self._power)
        self._frames += 1

    def _consider_going_down(self) -> None:
        count = min(BLOCKS, -(-self._frames // BLOCK_FRAMES))
        _loudest_levels(self._blocks, count, self._levels)
        found, rest, height, has_images = self._find_end()
        hysteresis = 2 * HYSTERESIS if self._known else HYSTERESIS
        if found >= self.cutoff_hz * (1.0 - hysteresis):
            self._agreed = 0
            return
        if abs(found - self._candidate_hz) > HYSTERESIS * found:
            self._agreed = 0
        self._candidate_hz = found
        self._agreed += EVALUATE_EVERY
        if has_images:
            enough = DOWN_FRAMES
        elif found >= TREBLE_HZ or self._known:
            enough = LONG_DOWN_FRAMES
        else:
            enough = DOWN_FRAMES if height >= HIGH_WALL_DB else LOW_WALL_DOWN_FRAMES
        if self._agreed > enough * self._patience:
            self._move(found, rest)

    def _consider_going_up(self) -> None:
        first = int(self.cutoff_hz * (1.0 + 2 * HYSTERESIS) / HZ_PER_BIN) + 3
        least = 10 ** ((self._rest_db + ABOVE_REST_DB) / 10)
        wide = _has_content(self._power, first, least)
        if wide:
            _hold(self._power, self._wide, 0, self._wide_frames == 0)
        self._wide_frames += int(wide) - int(self._flags[self._flag])
        self._flags[self._flag] = wide
        self._flag = (self._flag + 1) % UP_MEMORY
        if self._wide_frames < UP_FRAMES:
            return
        _loudest_levels(self._wide, 1, self._levels)
        found, rest, _, _ = self._find_end()
        if found > self.cutoff_hz * (1.0 + HYSTERESIS):
            self._move(found, rest)
            self._patience = min(2 * self._patience, LONGEST_PATIENCE)
        else:
            self._rest_db = max(self._rest_db, rest)
            self._forget_content_above()

    def _find_end(self) -> tuple[float, float, float, bool]:
        """End of the content in `_levels`, the rest above its wall and the wall's height.

        Images are no content: where there are some, the end is that of what they are images of.
        """
        found, rest, height = find_wall(self._levels)
        mirror = self._images.mirrored_at(found)
        if mirror is None:
            return found, rest, height, False
        return NOMINAL * mirror, rest, height, True

    def _move(self, hz: float, rest_db: float) -> None:
        self.cutoff_hz = FULL_BAND_HZ if hz >= FULL_FROM_HZ else hz
        self.cutoff_hz = min(self.cutoff_hz, self._bound)
        self._known = self.cutoff_hz < FULL_BAND_HZ
        self._rest_db = rest_db
        self._agreed = 0
        self._forget_content_above()

    def _forget_content_above(self) -> None:
        self._flags.fill(False)
        self._flag = 0
        self._wide_frames = 0


def measure_cutoff_stream(
    blocks: Iterable[NDArray[np.float32]],
    *,
    native_hz: float = FULL_BAND_HZ,
    seconds: float = 20.0,
) -> float:
    """Run a detector over the beginning of a 48 kHz stream and return the cutoff in Hz.

    Args:
        blocks: arrays ``(samples, channels)`` of any length; no more are taken than are needed.
        native_hz: as of `BandwidthDetector`.
        seconds: how much to listen to.

    Raises:
        AudioFormatError: the blocks do not have the same number of channels, or another rank.
    """
    detector = BandwidthDetector(native_hz=native_hz)
    left = int(seconds * SAMPLE_RATE)
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
