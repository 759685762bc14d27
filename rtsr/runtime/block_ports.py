"""Blocks of callers, of any length and layout, into the engine and out of it again."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsr.errors import AudioFormatError
from rtsr.latency import ENGINE_RATE, Latency, alignment_samples
from rtsr.runtime.statistics import Statistics
from rtsr_kernels.ports import (
    LARGEST_SAMPLE,
    Ports,
    emit_silence,
    get_end,
    pull_block,
    push_block,
    readable,
    set_end,
    start_port,
)
from rtsr_kernels.resample import CHUNK_FRAMES, history_length, resample_block
from rtsr_kernels.resample_design import conversion_ratio, delay_samples, phase_table
from rtsr_kernels.ring import WRITE_INDEX

Audio = NDArray[np.float32]
Block = NDArray[Any]

_NO_TAPS = np.zeros((1, 0), np.float32)


class InputConversion:
    """What a stream's blocks go through on their way to 48 kHz; of one rate."""

    def __init__(self, rate: int, channels: int) -> None:
        self.rate = rate
        self.up, self.down = conversion_ratio(rate, ENGINE_RATE)
        self.delay = delay_samples(rate, ENGINE_RATE)
        passes = rate == ENGINE_RATE
        self.table = _NO_TAPS if passes else phase_table(rate, ENGINE_RATE)
        length = 0 if passes else history_length(self.table.shape[1])
        self.histories: Audio = np.zeros((channels, length), np.float32)
        self.position = self.down - 1

    def reset(self) -> None:
        """Forget the past: the next block is the first."""
        self.histories.fill(0.0)
        self.position = self.down - 1

    def output_frames(self, frames: int) -> int:
        """How many frames at 48 kHz the next ``frames`` will give."""
        return max(0, (frames * self.up - 1 - self.position) // self.down + 1)

    def convert(self, audio: Audio) -> Audio:
        """Take the next ``(samples, channels)`` float32 to 48 kHz, into new memory."""
        if self.up == self.down:
            return audio.copy()
        out = np.empty((self.output_frames(len(audio)), audio.shape[1]), np.float32)
        self.position = resample_block(
            np.ascontiguousarray(audio),
            out,
            self.histories,
            self.table,
            self.position,
            self.down,
        )
        return out

    def newest(self, count: int) -> Audio:
        """The newest ``(count, channels)`` that were converted, oldest first."""
        past = self.table.shape[1] - 1
        return self.histories[:, past - count : past].T


_NO_CONVERSION = InputConversion(ENGINE_RATE, 1)


class BlockPort:
    """One stream's way in and out of its row of the ports.

    One thread may push and another pull while a third steps.

    Args:
        ports: of all streams.
        row: of this one.
        slots: of its channels.
        input_rate: Hz of what is pushed.
        output_rate: Hz of what is pulled.
        limits: whether what comes out is kept within full scale.
        statistics: where repaired, limited and clipped samples are counted.
        channels_first: whether blocks are ``(channels, samples)``.
        taker: what takes the blocks, for errors: "this Upsampler".
    """

    def __init__(
        self,
        ports: Ports,
        row: int,
        slots: list[int],
        input_rate: int,
        output_rate: int,
        limits: bool,
        statistics: Statistics,
        channels_first: bool,
        taker: str,
    ) -> None:
        self.channels = len(slots)
        self.output_rate = output_rate
        self.statistics = statistics
        self._ports = ports
        self._row = row
        self._limits = limits
        self._channels_first = channels_first
        self._taker = taker
        self._flat = self.channels == 1
        self._integers = False
        self._waiting = ports.waiting[row]
        self._finished = ports.finished[row]
        ports.slots[row, : self.channels] = slots
        ports.values["channels"][row] = self.channels
        self._slots = ports.slots[row]
        self.conversion = InputConversion(input_rate, self.channels)
        self._line = np.zeros(CHUNK_FRAMES, np.float32)
        self._wide = np.zeros(CHUNK_FRAMES * ENGINE_RATE // 8000 + 8, np.float32)
        self._tail: Audio | None = None
        self.reset()

    def reset(self) -> None:
        """Empty both rings: the next block is the first."""
        self.conversion.reset()
        self._tail = None
        self._received = 0
        # At the output's rate, from before a change of the input's.
        self._due_before = 0.0
        start_port(self._ports, self._row, self.output_rate, self._limits)

    def emit_silence(self, frames: int) -> None:
        """Let so many samples of silence at 48 kHz come out next."""
        most = self._ports.block.shape[1] - 1
        while frames > 0:
            emit_silence(self._ports, self._row, min(frames, most))
            frames -= most

    @property
    def pushed(self) -> int:
        """Samples at 48 kHz that blocks have given so far."""
        return int(self._waiting[WRITE_INDEX])

    @property
    def whole(self) -> int:
        """Samples of output that all blocks so far are worth."""
        return round(self._due_before + self._received * self.output_rate / self.conversion.rate)

    @property
    def waiting(self) -> int:
        """Samples at 48 kHz that wait for a step."""
        return readable(self._waiting)

    @property
    def room(self) -> int:
        """Samples at 48 kHz that may still be pushed."""
        return self._ports.waiting_data.shape[1] - readable(self._waiting)

    @property
    def ready(self) -> int:
        """Samples that can be pulled."""
        return readable(self._finished)

    def frames(self, block: Block) -> Block:
        """The block as ``(samples, channels)`` of float32 or int16, without a copy where it is so.

        Raises:
            AudioFormatError: another shape, or another kind of number.
        """
        audio = np.asarray(block)
        if audio.dtype == np.int16:
            self._integers = True
        elif audio.dtype.kind == "f":
            self._integers = False
        else:
            raise AudioFormatError(
                f"Blocks are floating-point samples in [-1, 1] or 16-bit integers, not "
                f"{audio.dtype}."
            )
        self._flat = audio.ndim == 1 and self.channels == 1
        if self._flat:
            audio = audio[:, None]
        elif self._channels_first and audio.ndim == 2:
            audio = audio.T
        if audio.ndim != 2 or audio.shape[1] != self.channels:
            one = "(samples,) or " if self.channels == 1 else ""
            order = "({}, samples)" if self._channels_first else "(samples, {})"
            raise AudioFormatError(
                f"A block of shape {np.shape(block)} does not fit; "
                f"{self._taker} takes {one}{order.format(self.channels)}."
            )
        if self._integers or audio.dtype == np.float32:
            return audio
        with np.errstate(over="ignore"):
            return audio.astype(np.float32)

    def push(self, audio: Block) -> None:
        """Append ``(samples, channels)`` of :meth:`frames` to what waits; there must be room."""
        self._received += len(audio)
        conversion = self.conversion
        if self._tail is not None:
            audio, conversion = self._with_tail(audio, self._tail), _NO_CONVERSION
        position, repaired = push_block(
            audio,
            self._waiting,
            self._ports.waiting_data,
            self._slots,
            conversion.histories,
            conversion.table,
            conversion.position,
            conversion.down,
            self._line,
            self._wide,
        )
        if conversion is self.conversion:
            conversion.position = position
        self.statistics.repaired_samples += repaired

    def change_rate(self, rate: int) -> None:
        """Take blocks of another rate from now on, without a gap and without a click.

        What the old conversion still holds is added to the beginning of what the new one gives.
        Where the new one is later, the old sound is carried on by its mirror image for the
        difference, at most 1.4 ms; where it is earlier, the old sound is faded out meanwhile.
        """
        old, new = self.conversion, InputConversion(rate, self.channels)
        later = max(0, new.delay - old.delay)
        if old.up == old.down:
            tail = self._newest_waiting(later)[::-1].copy()
        else:
            mirrored = old.newest(-(-later * old.rate // ENGINE_RATE))[::-1]
            silence = np.zeros((old.table.shape[1], self.channels), np.float32)
            tail = old.convert(np.concatenate([mirrored, silence]))
        if new.delay < old.delay:
            place = np.arange(len(tail))
            fade = np.clip((old.delay - place) / (old.delay - new.delay), 0.0, 1.0)
            tail *= fade.astype(np.float32)[:, None]
        self._due_before += self._received * self.output_rate / old.rate
        self._received = 0
        if self._tail is not None:
            # The one before has not died away yet.
            count = min(len(tail), len(self._tail))
            tail[:count] += self._tail[:count]
        self._tail = tail
        self.conversion = new

    def _with_tail(self, audio: Block, tail: Audio) -> Audio:
        """Convert a block and add what an earlier rate has left."""
        scaled = audio.astype(np.float32)
        if audio.dtype == np.int16:
            scaled *= np.float32(1.0 / 32768.0)
        # A NaN fails this comparison, too.
        broken = ~(np.abs(scaled) <= LARGEST_SAMPLE)
        scaled[broken] = 0.0
        self.statistics.repaired_samples += int(broken.sum())
        wide = self.conversion.convert(scaled)
        count = min(len(wide), len(tail))
        wide[:count] += tail[:count]
        self._tail = tail[count:] if count < len(tail) else None
        return wide

    def _newest_waiting(self, count: int) -> Audio:
        capacity = self._ports.waiting_data.shape[1]
        places = (self.pushed - count + np.arange(count)) % capacity
        slots = self._slots[: self.channels]
        return self._ports.waiting_data[slots][:, places].T

    def empty(self, frames: int) -> tuple[Block, Block]:
        """New memory in the layout of the last block, and as ``(samples, channels)``."""
        kind: Any = np.int16 if self._integers else np.float32
        shape = (self.channels, frames) if self._channels_first else (frames, self.channels)
        out = np.empty(shape, kind)
        return out.reshape(frames) if self._flat else out, (out.T if self._channels_first else out)

    def pull_into(self, out: Block) -> int:
        """Move finished samples into the front of ``out`` ``(samples, channels)``; how many."""
        count, clipped = pull_block(self._finished, self._ports.finished_data, self._slots, out)
        self.statistics.clipped_samples += clipped
        self.statistics.limited_samples = int(self._ports.values["limited"][self._row])
        return count

    def end(self, samples: int) -> None:
        """Say that so many samples are to come out in total; the steps then end by themselves."""
        set_end(self._waiting, samples)

    @property
    def is_done(self) -> bool:
        """Whether all samples that are to come out have come out of steps."""
        end = get_end(self._waiting)
        return end >= 0 and bool(self._ports.values["emitted"][self._row] >= end)


def stream_latency(
    input_rate: int, output_rate: int, hop: int, overlap: int, waits_for_hop: bool
) -> Latency:
    """The latency of a stream, in parts; see :class:`~rtsr.latency.Latency`.

    Args:
        hop: samples of one step at 48 kHz.
        overlap: by which the high band is later than the input, beside the step.
        waits_for_hop: whether a sample may have to wait for the rest of its step.
    """
    resampler = delay_samples(input_rate, ENGINE_RATE)
    return Latency(
        resampler=resampler,
        hop=hop if waits_for_hop else 0,
        overlap=overlap,
        alignment=alignment_samples(resampler + overlap + hop, output_rate),
        output_resampler=delay_samples(ENGINE_RATE, output_rate),
        output_rate=output_rate,
    )
