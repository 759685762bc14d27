"""Blocks of callers, of any length and layout, into the engine and out of it again."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rtsr.engine.statistics import Statistics
from rtsr.errors import AudioFormatError
from rtsr.timing import SAMPLE_RATE, Latency, alignment_samples, engine_rate
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
from rtsr_kernels.resample import (
    CHUNK_FRAMES,
    SUPPORTED_RATES,
    StreamingResampler,
    history_length,
    resample_block,
)
from rtsr_kernels.resample_design import conversion_ratio, delay_samples, phase_table
from rtsr_kernels.ring import WRITE_INDEX

Audio = NDArray[np.float32]
Block = NDArray[Any]

# What a change of the input's rate takes, and the past that a conversion is given.
_FADE_FRAMES = 120
_PRIMING_FRAMES = 1024
_NO_TAPS = np.zeros((1, 0), np.float32)
#: Samples that the conversion of any input rate remembers of a channel.
INPUT_HISTORY = max(
    history_length(phase_table(rate, SAMPLE_RATE).shape[1])
    for rate in SUPPORTED_RATES
    if rate != SAMPLE_RATE
)
_INT16, _FLOAT32 = np.dtype(np.int16), np.dtype(np.float32)


class InputConversion:
    """What a stream's blocks go through on their way to 48 kHz; of one rate.

    Args:
        rate: of the blocks, in Hz.
        channels: of them.
        histories: memory of `INPUT_HISTORY` samples per channel for what the conversion remembers,
            where it is to lie beside that of other streams.
    """

    def __init__(self, rate: int, channels: int, histories: Audio | None = None) -> None:
        self.rate = rate
        self.up, self.down = conversion_ratio(rate, SAMPLE_RATE)
        self.delay = delay_samples(rate, SAMPLE_RATE)
        passes = rate == SAMPLE_RATE
        self.table = _NO_TAPS if passes else phase_table(rate, SAMPLE_RATE)
        length = 0 if passes else history_length(self.table.shape[1])
        if histories is None:
            histories = np.zeros((channels, length), np.float32)
        self.histories: Audio = histories
        self.reset()

    def move_to(self, histories: Audio) -> None:
        """Go on in other memory of `INPUT_HISTORY` samples per channel."""
        histories[:, : self.histories.shape[1]] = self.histories
        self.histories = histories

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

    def prime(self, sound: Audio) -> None:
        """Begin with a past: ``(frames, channels)`` at 48 kHz, which ends where the stream begins.

        It has at least 1024 frames.
        """
        past = self.table.shape[1] - 1
        if past < 1:
            return
        to_rate = StreamingResampler(SAMPLE_RATE, self.rate, sound.shape[1])
        late = to_rate.delay * SAMPLE_RATE // self.rate + SAMPLE_RATE // 1000
        narrow = to_rate.process(np.concatenate([sound, sound[-late:][::-1]]))
        end = len(sound) * self.rate // SAMPLE_RATE + to_rate.delay
        self.histories[:, :past] = narrow[end - past : end].T

    def newest(self) -> Audio:
        """Return the samples that the taps reach back to, ``(samples, channels)``, oldest first."""
        return self.histories[:, : self.table.shape[1] - 1].T


_NO_CONVERSION = InputConversion(SAMPLE_RATE, 1)


class BlockPort:
    """One stream's way in and out of its row of the ports.

    One thread may push and another pull while a third steps.

    Args:
        ports: of all streams.
        row: of this one.
        slots: of its channels.
        input_rate: Hz of what is pushed.
        output_rate: Hz of what is pulled; beyond 48000, steps are emitted at this rate already.
        played_rate: the same in seconds that are heard, where the engine's clock is a faster one.
        limits: whether what comes out is kept within full scale.
        statistics: where repaired, limited and clipped samples are counted.
        channels_first: whether blocks are ``(channels, samples)``.
        taker: what takes the blocks, for errors: "this Upsampler".
        histories: ``(channels, INPUT_HISTORY)``, as of `InputConversion`.
    """

    def __init__(
        self,
        ports: Ports,
        row: int,
        slots: list[int],
        input_rate: int,
        output_rate: int,
        played_rate: int,
        limits: bool,
        statistics: Statistics,
        channels_first: bool,
        taker: str,
        histories: Audio | None = None,
    ) -> None:
        self.channels = len(slots)
        self.output_rate = output_rate
        self.statistics = statistics
        self.ports = ports
        self.row = row
        self._played_rate = played_rate
        self._limits = limits
        self._channels_first = channels_first
        self._taker = taker
        # Of the last block that was accepted: whether it held integers, and one dimension.
        self._layout = (False, self.channels == 1)
        self._offered = self._layout
        self._waiting = ports.waiting[row]
        self._finished = ports.finished[row]
        ports.slots[row, : self.channels] = slots
        ports.values["channels"][row] = self.channels
        self._slots = ports.slots[row]
        self._histories = histories
        self.conversion = InputConversion(input_rate, self.channels, histories)
        self._line = np.zeros(CHUNK_FRAMES, np.float32)
        self._wide = np.zeros(CHUNK_FRAMES * SAMPLE_RATE // 8000 + 8, np.float32)
        # A view: looking a field up in an array costs more than reading it.
        self._limited_now = ports.values["limited"][row : row + 1]
        self._limited = -int(self._limited_now[0])
        self._ahead: Audio = np.zeros((0, self.channels), np.float32)
        self.reset()

    def reset(self) -> None:
        """Empty both rings: the next block is the first."""
        self.conversion.reset()
        self._faded = _FADE_FRAMES
        self._limited += int(self._limited_now[0])
        self._received = 0
        # At the output's rate, from before a change of the input's.
        self._due_before = 0.0
        converted_rate = min(self.output_rate, SAMPLE_RATE)
        start_port(self.ports, self.row, converted_rate, self._limits, self._played_rate)

    def emit_silence(self, frames: int) -> None:
        """Let so many samples of silence come out next, at the rate of the steps."""
        most = self.ports.block.shape[1] - 1
        while frames > 0:
            emit_silence(self.ports, self.row, min(frames, most))
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
        return self.ports.waiting_data.shape[1] - self.waiting

    @property
    def ready(self) -> int:
        """Samples that can be pulled."""
        return readable(self._finished)

    def frames(self, block: Block) -> Block:
        """View the block as ``(samples, channels)`` of float32 or int16, copied only if it must be.

        What comes out has the layout of a block only from :meth:`accept` on: one that is refused
        must not change what the next output looks like.

        Raises:
            AudioFormatError: another shape, or another kind of number.
        """
        audio, integers = as_samples(block)
        flat = audio.ndim == 1 and self.channels == 1
        if flat:
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
        self._offered = integers, flat
        return audio

    def accept(self) -> None:
        """Let what comes out have the layout and kind of number of the last block."""
        self._layout = self._offered

    def push(self, audio: Block) -> None:
        """Append ``(samples, channels)`` of :meth:`frames` to what waits; there must be room."""
        self._received += len(audio)
        conversion = self.conversion
        if self._faded < _FADE_FRAMES:
            audio, conversion = self._faded_in(audio), _NO_CONVERSION
        position, repaired = push_block(
            audio,
            self._waiting,
            self.ports.waiting_data,
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
        if repaired:
            self.statistics.repaired_samples += repaired

    @property
    def is_fading(self) -> bool:
        """Whether the next block is faded in over what one of another rate has left."""
        return self._faded < _FADE_FRAMES

    def has_pushed(self, frames: int, position: int, repaired: int, integers: bool) -> None:
        """Take note of a block of one dimension that was pushed together with other streams'."""
        self._received += frames
        self.conversion.position = position
        self._layout = self._offered = integers, True
        if repaired:
            self.statistics.repaired_samples += repaired

    def has_pulled(self, clipped: int) -> None:
        """Take note of samples that were pulled together with other streams'."""
        self.statistics.clipped_samples += clipped
        self.statistics.limited_samples = self._limited + int(self._limited_now[0])

    def change_rate(self, rate: int) -> None:
        """Take blocks of another rate from now on, without a gap and without a click.

        The old sound is carried on by its own mirror image and faded out within 2.5 ms, while the
        new conversion, which begins with the past of the old one, is faded in.
        """
        old, new = self.conversion, InputConversion(rate, self.channels)
        past = self._newest_waiting(_PRIMING_FRAMES)
        if old.up == old.down:
            ahead = past[-_FADE_FRAMES:][::-1].copy()
        else:
            count = -(-_FADE_FRAMES * old.rate // SAMPLE_RATE) + 1
            mirrored = old.newest()[::-1]
            # Back and forth, where that is not enough.
            there_and_back = np.concatenate([mirrored, mirrored[::-1]] * 2)
            ahead = old.convert(there_and_back[:count])[:_FADE_FRAMES]
        # The conversion still held the newest sound when it was asked for more.
        new.prime(np.concatenate([past, ahead[: old.delay]]))
        self._due_before += self._received * self.output_rate / old.rate
        self._received = 0
        self._ahead = ahead
        self._faded = 0
        if self._histories is not None:
            new.move_to(self._histories)
        self.conversion = new

    def _faded_in(self, audio: Block) -> Audio:
        """Convert a block of a new rate, and fade it in over what an earlier one has left."""
        scaled = audio.astype(np.float32)
        if audio.dtype == np.int16:
            scaled *= np.float32(1.0 / 32768.0)
        # A NaN fails this comparison, too.
        broken = ~(np.abs(scaled) <= LARGEST_SAMPLE)
        scaled[broken] = 0.0
        self.statistics.repaired_samples += int(broken.sum())
        wide = self.conversion.convert(scaled)
        count = min(len(wide), _FADE_FRAMES - self._faded)
        share = ((self._faded + np.arange(count) + 0.5) / _FADE_FRAMES).astype(np.float32)[:, None]
        before = self._ahead[self._faded : self._faded + count]
        wide[:count] = before + share * (wide[:count] - before)
        self._faded += count
        return wide

    def _newest_waiting(self, count: int) -> Audio:
        """Return the newest ``(count, channels)`` at 48 kHz, stepped already or not."""
        places = self.pushed - count + np.arange(count)
        capacity = self.ports.waiting_data.shape[1]
        newest = self.ports.waiting_data[self._slots[: self.channels]][:, places % capacity].T
        newest[places < 0] = 0.0
        return newest

    def empty(self, frames: int) -> tuple[Block, Block]:
        """Make memory in the accepted layout, and a view ``(samples, channels)`` of it."""
        integers, flat = self._layout
        kind = _INT16 if integers else _FLOAT32
        shape = (self.channels, frames) if self._channels_first else (frames, self.channels)
        out = np.empty(shape, kind)
        return out.reshape(frames) if flat else out, (out.T if self._channels_first else out)

    def pull_into(self, out: Block) -> int:
        """Move finished samples into the front of ``out`` ``(samples, channels)``; how many."""
        count, clipped = pull_block(self._finished, self.ports.finished_data, self._slots, out)
        self.has_pulled(clipped)
        return count

    def finish(self, samples: int, tail: Audio) -> None:
        """Push the last block, and let so many samples come out in total; steps end by themselves.

        Args:
            samples: of output, from the first on.
            tail: ``(samples, channels)``; there must be room for it.
        """
        set_end(self._waiting, samples, self.pushed + self.conversion.output_frames(len(tail)))
        self.push(tail)

    @property
    def is_done(self) -> bool:
        """Whether all samples that are to come out have come out of steps."""
        end = get_end(self._waiting)
        return end >= 0 and bool(self.ports.values["emitted"][self.row] >= end)


def as_samples(block: ArrayLike) -> tuple[Block, bool]:
    """Return an array as float32 or int16, copied only if it must be, and whether it has integers.

    Raises:
        AudioFormatError: it has another kind of number.
    """
    audio = np.asarray(block)
    kind = audio.dtype
    # In either order of bytes: RTP's and AIFF's samples begin with the upper one.
    integers = kind.kind == "i" and kind.itemsize == _INT16.itemsize
    if not integers and kind.kind != "f":
        raise AudioFormatError(
            f"Blocks are floating-point samples in [-1, 1] or 16-bit integers, not {kind}."
        )
    wanted = _INT16 if integers else _FLOAT32
    if kind == wanted:
        return audio, integers
    with np.errstate(over="ignore"):
        return audio.astype(wanted), integers


def stream_latency(
    input_rate: int,
    output_rate: int,
    hop: int,
    overlap: int,
    waits_for_hop: bool,
    alignment: int | None = None,
    octaves: int = 0,
) -> Latency:
    """Return the latency of a stream, in parts; see :class:`~rtsr.timing.Latency`.

    Args:
        input_rate: Hz of what is pushed.
        output_rate: Hz of what is pulled.
        hop: samples of one step at the engine's rate.
        overlap: by which the high band is later than the input, beside the step.
        waits_for_hop: whether a sample may have to wait for the rest of its step.
        alignment: padding of a stream that has begun with another rate; the total may then not be
            a whole number of output samples, and the nearest one is told.
        octaves: delay of what lies beyond the engine's band, in output samples.
    """
    inner_rate = engine_rate(input_rate)
    resampler = delay_samples(input_rate, inner_rate)
    if alignment is None:
        inner = resampler + overlap + hop
        alignment = alignment_samples(inner, output_rate) if output_rate < inner_rate else 0
    return Latency(
        resampler=resampler,
        hop=hop if waits_for_hop else 0,
        overlap=overlap,
        alignment=alignment,
        output_resampler=0 if octaves else delay_samples(inner_rate, output_rate),
        output_rate=output_rate,
        octaves=octaves,
        engine_rate=inner_rate,
    )
