"""Streaming polyphase resampler between the usual audio rates, with a small exact delay."""

from __future__ import annotations

import numpy as np
from numba import float32, int64, types, void

from .compiled import AUDIO, AUDIO_IN, LINE, LINE_IN, SAMPLES, SAMPLES_IN, kernel
from .resample_design import conversion_ratio, delay_samples, phase_table

SUPPORTED_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)

#: Samples of one channel that are converted at a time.
CHUNK_FRAMES = 512
#: Samples of a history beyond the newest `taps - 1` inputs.
ROOM = 2 * CHUNK_FRAMES
TABLE = types.Array(float32, 2, "C", readonly=True)


def history_length(taps: int) -> int:
    """Return the length in samples of a channel's history for :func:`resample_line`."""
    return taps - 1 + ROOM


@kernel(void(SAMPLES, SAMPLES_IN, int64, SAMPLES))
def _filter_phase(line: np.ndarray, row: np.ndarray, start: int, out: np.ndarray) -> None:
    """Compute the outputs of one phase, one per input sample: `row` applied at `line[start + i]`.

    Neighbouring outputs use vector registers, the taps go in eights. No sum is reordered by the
    compiler, so an output has the same bits wherever it stands in a block.
    """
    count = out.shape[0]
    for i in range(count):
        out[i] = float32(0.0)
    for tap in range(0, row.shape[0], 8):
        past = line[start + tap :]
        c0, c1, c2, c3 = row[tap], row[tap + 1], row[tap + 2], row[tap + 3]
        c4, c5, c6, c7 = row[tap + 4], row[tap + 5], row[tap + 6], row[tap + 7]
        for i in range(count):
            out[i] += (
                (c0 * past[i] + c1 * past[i + 1]) + (c2 * past[i + 2] + c3 * past[i + 3])
            ) + ((c4 * past[i + 4] + c5 * past[i + 5]) + (c6 * past[i + 6] + c7 * past[i + 7]))


@kernel(
    void(SAMPLES, TABLE, int64, int64, LINE),
    # Lets the sum over the taps use vector registers. Its order then depends on the number of taps
    # alone, never on the block, so any partition of the input still gives the same bits.
    fastmath={"reassoc", "contract", "nsz"},
)
def _filter_each(
    line: np.ndarray, table: np.ndarray, position: int, down: int, out: np.ndarray
) -> None:
    """Compute one output after another, each with its own phase."""
    up, taps = table.shape
    step = down // up
    step_phase = down - step * up
    newest = position // up
    phase = position - newest * up
    for i in range(out.shape[0]):
        row = table[phase]
        total = float32(0.0)
        for tap in range(taps):
            total += row[tap] * line[newest + tap]
        out[i] = total
        newest += step
        phase += step_phase
        if phase >= up:
            phase -= up
            newest += 1


@kernel(int64(LINE_IN, LINE, SAMPLES, TABLE, int64, int64))
def resample_line(
    samples: np.ndarray,
    out: np.ndarray,
    history: np.ndarray,
    table: np.ndarray,
    position: int,
    down: int,
) -> int:
    """Consume all of `samples`, one channel; return the position for the next block.

    `history` has `history_length(taps)` samples: the newest `taps - 1` inputs stand in front, the
    rest is scratch memory. `position` is the next output's newest needed instant on the common
    grid, from the start of the block.
    """
    up, taps = table.shape
    frames = samples.shape[0]
    past = taps - 1
    chunk = CHUNK_FRAMES
    room = history[past + chunk :]
    written = 0
    start = 0
    while start < frames:
        count = min(chunk, frames - start)
        end = count * up
        due = 0
        if position < end:
            due = (end - 1 - position) // down + 1
        for i in range(count):
            history[past + i] = samples[start + i]
        if down == 1:
            # Every input sample gives one output of each phase.
            for first in range(min(up, due)):
                newest = (position + first) // up
                phase = position + first - newest * up
                part = room[: (due - first + up - 1) // up]
                _filter_phase(history, table[phase], newest, part)
                for i in range(part.shape[0]):
                    out[written + first + i * up] = part[i]
        else:
            _filter_each(history, table, position, down, out[written : written + due])
        for i in range(past):
            history[i] = history[count + i]
        written += due
        position += due * down - end
        start += count
    return position


@kernel(int64(AUDIO_IN, AUDIO, float32[:, ::1], TABLE, int64, int64))
def resample_block(
    block: np.ndarray,
    out: np.ndarray,
    history: np.ndarray,
    table: np.ndarray,
    position: int,
    down: int,
) -> int:
    """Consume all of `block` `(frames, channels)`, return the position for the next block.

    `history` has a row per channel; all else is as for `resample_line`.
    """
    after = position
    for channel in range(block.shape[1]):
        after = resample_line(
            block[:, channel], out[:, channel], history[channel], table, position, down
        )
    return after


class StreamingResampler:
    """Converts blocks of any length from `input_rate` to `output_rate`, both in hertz.

    After `n` input frames in total exactly `floor(n * output_rate / input_rate)` frames have come
    out, the same bits however the input was cut into blocks. Output frame `o` belongs to input time
    `o - delay`, counted in output frames. Flat within 0.1 dB up to 0.9 of the narrower Nyquist
    frequency, images and aliases below -70 dB from 1.1 of it. Equal rates pass through untouched.

    Raises `ValueError` for a rate that is not in `SUPPORTED_RATES` or fewer than one channel.
    """

    def __init__(self, input_rate: int, output_rate: int, channels: int = 1) -> None:
        for rate in (input_rate, output_rate):
            if rate not in SUPPORTED_RATES:
                known = ", ".join(str(r) for r in SUPPORTED_RATES)
                raise ValueError(f"sample rate {rate} Hz is not supported, use one of {known}")
        if channels < 1:
            raise ValueError(f"a resampler needs at least one channel, not {channels}")
        self.input_rate = int(input_rate)
        self.output_rate = int(output_rate)
        self.channels = int(channels)
        self._up, self._down = conversion_ratio(self.input_rate, self.output_rate)
        self._delay = delay_samples(self.input_rate, self.output_rate)
        self._passes_through = self._up == self._down
        if not self._passes_through:
            self._table = phase_table(self.input_rate, self.output_rate)
            length = history_length(self._table.shape[1])
            self._history = np.zeros((self.channels, length), dtype=np.float32)
        self.reset()

    @property
    def delay(self) -> int:
        """Exact delay in samples of the output rate."""
        return self._delay

    def reset(self) -> None:
        """Forget the past: the next block is treated as the first."""
        self._position = self._down - 1
        if not self._passes_through:
            self._history.fill(0.0)

    def output_frames(self, frames: int) -> int:
        """Return how many frames the next block of `frames` frames will yield."""
        if self._passes_through:
            return frames
        return max(0, (frames * self._up - 1 - self._position) // self._down + 1)

    def process(self, block: np.ndarray) -> np.ndarray:
        """Convert `(frames, channels)` and return a new float32 `(output frames, channels)`.

        Raises `ValueError` if the block is not two-dimensional with this number of channels.
        """
        self._check_channels("block", block)
        block = np.ascontiguousarray(block, dtype=np.float32)
        out = np.empty((self.output_frames(block.shape[0]), self.channels), dtype=np.float32)
        self.process_into(block, out)
        return out

    def process_into(self, block: np.ndarray, out: np.ndarray) -> int:
        """Convert float32 `(frames, channels)` into the front of `out`; return the frames written.

        Allocates nothing. `block` and `out` are C-contiguous float32 and do not overlap; `out` has
        at least `output_frames(len(block))` frames, otherwise `ValueError` is raised and nothing is
        consumed.
        """
        self._check_channels("block", block)
        self._check_channels("out", out)
        for name, array in (("block", block), ("out", out)):
            if array.dtype != np.float32 or not array.flags.c_contiguous:
                raise ValueError(f"{name} must be a C-contiguous float32 array")
        due = self.output_frames(block.shape[0])
        if out.shape[0] < due:
            raise ValueError(f"out has room for {out.shape[0]} frames but {due} are due")
        if self._passes_through:
            out[:due] = block
        else:
            self._position = resample_block(
                block, out, self._history, self._table, self._position, self._down
            )
        return due

    def _check_channels(self, name: str, array: np.ndarray) -> None:
        if array.ndim != 2 or array.shape[1] != self.channels:
            raise ValueError(
                f"{name} must have shape (frames, {self.channels}), not {tuple(array.shape)}"
            )
