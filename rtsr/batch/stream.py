"""One stream of a batch, as the caller who feeds it sees it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsr.arguments import (
    check_audio_format,
    check_frequency,
    check_integer,
    check_seed,
    check_wet,
)
from rtsr.batch.rows import RESERVED_FRAMES, TAIL_MS, BatchRows
from rtsr.colour.auto import AutoColour
from rtsr.colour.colour import Colour
from rtsr.engine.colour_learner import resolve_colour
from rtsr.engine.ports import BlockPort
from rtsr.engine.statistics import Statistics
from rtsr.errors import AudioFormatError, RtsrError
from rtsr.timing import SAMPLE_RATE, Latency
from rtsr_kernels.highpass import LOWEST_CUTOFF_HZ


class BatchStream:
    """A stream in a :class:`~rtsr.batch.upsampler.BatchUpsampler`; made by its ``open``.

    :meth:`push` blocks of any length, have the batch step, :meth:`pull` what has become of them.
    Pulled sample ``o`` belongs to input time ``(o - delay_samples) / output_rate``: the whole of
    what comes out is what an :class:`~rtsr.upsampler.Upsampler` with the same arguments gives,
    without the ``hop`` of zeros that this begins with.

    One thread may push and another pull while a third steps the batch. Once the stream is closed
    its place may be another's: what is asked of its sound raises
    :class:`~rtsr.errors.RtsrError`, ``statistics`` stay.
    """

    __slots__ = (
        "__weakref__",
        "_alignment",
        "_channels",
        "_closed",
        "_ended",
        "_forget",
        "_output_rate",
        "_port",
        "_row",
        "_rows",
        "_slots",
        "_statistics",
    )

    def __init__(
        self,
        rows: BatchRows,
        row: int,
        slots: list[int],
        port: BlockPort,
        statistics: Statistics,
        alignment: int,
        forget: Callable[[int], object],
    ) -> None:
        self._output_rate = port.output_rate
        self._channels = port.channels
        self._statistics = statistics
        self._rows = rows
        self._forget = forget
        self._row = row
        self._slots = slots
        self._port = port
        self._alignment = alignment
        self._closed = False
        self._ended = False

    @property
    def output_rate(self) -> int:
        """Hz of what is pulled."""
        return self._output_rate

    @property
    def channels(self) -> int:
        """Of both, what is pushed and what is pulled."""
        return self._channels

    @property
    def input_rate(self) -> int:
        """Hz of what is pushed; settable, for a call that changes its codec.

        What was pushed before is finished first. A measured cutoff begins anew from half of the new
        rate. Where the new rate's conversion has a longer delay, ``latency`` grows by as much. Once
        the stream is finished it stays as it is.
        """
        return self._port.conversion.rate

    @input_rate.setter
    def input_rate(self, value: int) -> None:
        self._check_open()
        check_audio_format(value, self._output_rate, self._channels)
        if value != self.input_rate:
            # The end was reckoned with the old rate's delay.
            self._check_unfinished()
            with self._held():
                self._port.change_rate(int(value))
                self._rows.engine.set_native(self._row, value / 2)

    @property
    def native_rate(self) -> int:
        """Hz that the sound had before the caller resampled it to ``input_rate``; that, unless set.

        Settable to 40 Hz or more, for a caller who follows changes of rate by himself: a measured
        cutoff lies within half of it, and begins anew from there.
        """
        self._check_open()
        return round(2.0 * self._rows.engine.native_hz(self._row))

    @native_rate.setter
    def native_rate(self, value: int) -> None:
        self._check_open()
        # Below, it is the step that fails, and with it those of all other streams.
        check_frequency("native rate", value, 2.0 * LOWEST_CUTOFF_HZ, self.input_rate)
        if value != self.native_rate:
            with self._held():
                self._rows.engine.set_native(self._row, float(value) / 2)

    @property
    def latency(self) -> Latency:
        """From a sample's arrival to the moment its enhanced twin can be pulled, in parts.

        The time for computing is not in it. ``hop`` is what a sample may wait for the rest of its
        step: where whole steps are pushed, as packets of 10 or 20 ms are, nothing waits and the
        latency is ``delay_samples``.
        """
        return self._rows.latency(self.input_rate, self._output_rate, self._alignment)

    @property
    def delay_samples(self) -> int:
        """Of the pulled stream behind the pushed one, at ``output_rate``.

        This is the latency without the wait for a whole step.
        """
        latency = self.latency
        return latency.algorithmic_samples - latency.hop * self._output_rate // SAMPLE_RATE

    @property
    def cutoff_hz(self) -> float:
        """Hz where the content of the newest step ends, as given or as measured."""
        self._check_open()
        return self._rows.engine.cutoff_hz(self._row)

    @property
    def cutoff(self) -> float | None:
        """Hz where the input's real content ends, or ``None`` where that is measured.

        Settable; a change is faded over 10 ms.
        """
        self._check_open()
        return self._rows.engine.given_cutoff(self._row)

    @cutoff.setter
    def cutoff(self, value: float | None) -> None:
        self._check_open()
        if value is not None:
            check_frequency("cutoff", value)
        with self._held():
            self._rows.engine.set_cutoff(self._row, None if value is None else float(value))

    @property
    def wet(self) -> float:
        """Gain of the generated band, 0 to 1; a change is faded over 10 ms."""
        self._check_open()
        return self._rows.engine.wet(self._row)

    @wet.setter
    def wet(self, value: float) -> None:
        self._check_open()
        check_wet(value)
        self._rows.engine.set_wet(self._row, float(value))

    @property
    def colour(self) -> Colour | AutoColour | None:
        """Gains of the generated band that were learnt; a change is faded over 10 ms.

        Where ``auto`` was given it is an :class:`~rtsr.colour.auto.AutoColour`.
        """
        self._check_open()
        return self._rows.engine.colour(self._row)

    @colour.setter
    def colour(self, value: Colour | AutoColour | str | None) -> None:
        self._check_open()
        colour = resolve_colour(value, self._rows.model)
        with self._held():
            self._rows.engine.set_colour(self._row, colour)

    @property
    def colour_share(self) -> float:
        """How much of the colour is used, 0 to 1: as far as the stream resembles its source."""
        self._check_open()
        return self._rows.engine.colour_share(self._row)

    @property
    def ceiling(self) -> float:
        """Hz where the output should end; a change counts from the next step on."""
        self._check_open()
        return self._rows.engine.target(self._row)

    @ceiling.setter
    def ceiling(self, value: float) -> None:
        self._check_open()
        check_frequency("ceiling", value)
        self._rows.set_target(self._row, float(value))

    @property
    def seed(self) -> int:
        """Of the noise; a change counts from the next step on."""
        self._check_open()
        return self._rows.seed_of(self._row)

    @seed.setter
    def seed(self, value: int) -> None:
        self._check_open()
        check_seed(value)
        self._rows.set_seed(self._row, int(value))

    @property
    def statistics(self) -> Statistics:
        """Steps taken and what was repaired, limited and degraded; step times are the batch's."""
        counted = self._rows.counted(self._row)
        if not self._closed:
            self._statistics.steps = int(counted["steps"])
            self._statistics.degraded_blocks = int(counted["degraded_hops"])
            self._statistics.replicate_hops = int(counted["replicate_hops"])
            self._statistics.dry_hops = int(counted["dry_hops"])
        return self._statistics

    @property
    def held_steps(self) -> int:
        """Steps of the batch that this stream sat out, having nothing due."""
        self._check_open()
        return int(self._rows.counted(self._row)["held_steps"])

    @property
    def waiting_ms(self) -> float:
        """Milliseconds of sound that were pushed and not stepped yet."""
        return 0.0 if self._closed else 1000.0 * self._port.waiting / SAMPLE_RATE

    @property
    def ready(self) -> int:
        """Samples that can be pulled."""
        return 0 if self._closed else self._port.ready

    @property
    def is_due(self) -> bool:
        """Whether the next step of the batch will take this stream along."""
        return not self._closed and self._rows.is_due(self._row)

    @property
    def is_done(self) -> bool:
        """Whether :meth:`finish` was called and the last sample can be pulled."""
        return not self._closed and self._port.is_done

    @property
    def is_closed(self) -> bool:
        """Whether the stream has left its batch."""
        return self._closed

    def push(self, block: NDArray[Any], input_rate: int | None = None) -> None:
        """Add a block of any length, ``(samples,)`` or ``(samples, channels)``.

        Args:
            block: float32 in [-1, 1] or int16, in the layout that the stream was opened for;
                samples that are not numbers, or beyond 1e10, become 0 and are counted.
            input_rate: Hz of the block, if the caller wants it checked.

        Raises:
            AudioFormatError: the block has another shape or rate, or holds other integers.
            RtsrError: the stream is closed or finished, or so much already waits that the block
                has no room; nothing of it was taken then.
        """
        self._check_open()
        self._check_unfinished()
        port = self._port
        if input_rate is not None and input_rate != self.input_rate:
            raise AudioFormatError(
                f"This stream takes {self.input_rate} Hz, not {input_rate} Hz; "
                "set its input_rate, or open another one for that rate."
            )
        audio = port.frames(block)
        if port.conversion.output_frames(len(audio)) + RESERVED_FRAMES > port.room:
            raise self.no_room(len(audio))
        port.accept()
        port.push(audio)

    def no_room(self, samples: int) -> RtsrError:
        """Return what is raised where a block of so many samples has no room."""
        return RtsrError(
            f"A block of {1000.0 * samples / self.input_rate:.0f} ms has no room behind "
            f"{self.waiting_ms:.0f} ms that wait for a step; step the batch and pull more "
            f"often, check that the sound has {self.input_rate} Hz, or give the batch a larger "
            "buffer_ms."
        )

    def port_to_push(self) -> BlockPort:
        """Return the way in, for its batch; raises RtsrError where nothing may be pushed."""
        self._check_open()
        self._check_unfinished()
        return self._port

    def port_to_pull(self) -> BlockPort:
        """Return the way out, for its batch; raises RtsrError where nothing may be pulled."""
        self._check_open()
        return self._port

    def pull(self, most: int | None = None) -> NDArray[Any]:
        """Take finished samples, at most ``most``: rank, layout and kind are the last block's.

        Raises:
            ArgumentError: ``most`` is no integer.
            RtsrError: the stream is closed.
        """
        self._check_open()
        count = self._port.ready
        if most is not None:
            check_integer("number of samples to pull", most)
            count = max(0, min(int(most), count))
        out, frames = self._port.empty(count)
        self._port.pull_into(frames)
        return out

    def pull_into(self, out: NDArray[Any]) -> int:
        """Move finished samples into the front of ``out``; returns how many. Allocates nothing.

        Args:
            out: float32 or int16 ``(samples, channels)``, of any memory layout.

        Raises:
            AudioFormatError: ``out`` has another shape or type.
            RtsrError: the stream is closed.
        """
        self._check_open()
        accepted = f"Samples are pulled into float32 or int16 (samples, {self._channels}), not into"
        if not isinstance(out, np.ndarray):
            raise AudioFormatError(f"{accepted} a {type(out).__name__}.")
        fits = out.ndim == 2 and out.shape[1] == self._channels and out.flags.writeable
        if not fits or out.dtype not in (np.float32, np.int16):
            raise AudioFormatError(f"{accepted} {out.dtype} {out.shape}.")
        return self._port.pull_into(out)

    def finish(self) -> None:
        """Say that nothing more is coming, so that the next steps bring out the rest.

        Without the first ``delay_samples``, all that is pulled is then
        ``round(n * output_rate / input_rate)`` long for ``n`` pushed samples and aligned with
        them. The stream keeps its place in the batch until :meth:`close`.

        Raises:
            RtsrError: the stream is closed.
        """
        self._check_open()
        if self._ended:
            return
        self._ended = True
        tail = np.zeros((self.input_rate * TAIL_MS // 1000, self._channels), np.float32)
        self._port.finish(self.delay_samples + self._port.whole, tail)

    def close(self) -> None:
        """Leave the batch: the place is free for another stream, what was not pulled is lost."""
        with self._rows.lock:
            if self._closed:
                return
            # Once more, for those who ask later.
            _ = self.statistics
            self._closed = True
            self._forget(self._row)
            self._rows.remove(self._row, self._slots)

    def __reduce__(self) -> Any:
        raise RtsrError(
            "A stream of a batch cannot be copied or pickled, for its batch runs in this process; "
            "open another one."
        )

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """Hold the batch; who has waited for it may find the stream closed meanwhile."""
        with self._rows.lock:
            self._check_open()
            yield

    def _check_open(self) -> None:
        if self._closed:
            raise RtsrError("This stream is closed; open another one.")

    def _check_unfinished(self) -> None:
        if self._ended:
            raise RtsrError("This stream is finished; open another one for more sound.")
