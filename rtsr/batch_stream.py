"""One stream of a batch, as the caller who feeds it sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsr.arguments import check_frequency, check_wet
from rtsr.blocks import as_frames, repaired
from rtsr.errors import AudioFormatError, RtsrError
from rtsr.latency import ENGINE_RATE, Latency
from rtsr.runtime.lane import Lane
from rtsr.runtime.statistics import Statistics
from rtsr_kernels.resample import StreamingResampler
from rtsr_kernels.ring import Ring

Audio = NDArray[np.float32]

_CHUNK_FRAMES = 1024
# Silence behind the last sample: longer than any resampler's memory.
_TAIL_MS = 20
RESERVED_FRAMES = 2 * _TAIL_MS * ENGINE_RATE // 1000


class BatchStream:
    """A stream in a :class:`~rtsr.batch.BatchUpsampler`; made by its ``open``.

    :meth:`push` blocks of any length, have the batch step, :meth:`pull` what has become of them.
    Pulled sample ``o`` belongs to input time ``(o - delay_samples) / output_rate``: the whole of
    what comes out is what an :class:`~rtsr.upsampler.Upsampler` with the same arguments gives,
    without the ``hop`` of zeros that this begins with.

    One thread may push and another pull while a third steps the batch.

    Attributes:
        input_rate: Hz of what is pushed.
        output_rate: Hz of what is pulled.
        channels: of both.
        latency: from a sample's arrival to the moment its enhanced twin can be pulled, without
            the time for computing, in parts.
        delay_samples: of the pulled stream behind the pushed one, at ``output_rate``: the latency
            without the wait for a whole step.
        statistics: steps taken, repaired samples, degraded blocks; step times are this stream's
            own share, the run of the batch not included.
    """

    def __init__(
        self,
        lane: Lane,
        incoming: Ring,
        outgoing: Ring,
        before: StreamingResampler,
        latency: Latency,
        statistics: Statistics,
        leave: Callable[[BatchStream], None],
    ) -> None:
        self.input_rate = before.input_rate
        self.output_rate = latency.output_rate
        self.channels = before.channels
        self.latency = latency
        self.delay_samples = (
            latency.algorithmic_samples - latency.hop * latency.output_rate // ENGINE_RATE
        )
        self.statistics = statistics
        self.lane = lane
        self._incoming = incoming
        self._outgoing = outgoing
        self._before = before
        self._leave = leave
        self._closed = False
        self._flat = self.channels == 1
        self._received = 0
        self._clean: Audio = np.zeros((_CHUNK_FRAMES, self.channels), np.float32)
        wide = before.output_frames(_CHUNK_FRAMES) + 1
        self._wide: Audio = np.zeros((wide, self.channels), np.float32)

    @property
    def cutoff_hz(self) -> float:
        """Hz where the content of the newest step ends, as given or as measured."""
        return self.lane.cutoff_hz

    @property
    def wet(self) -> float:
        """Gain of the generated band, 0 to 1; a change is faded over 10 ms."""
        return self.lane.wet

    @wet.setter
    def wet(self, value: float) -> None:
        check_wet(value)
        self.lane.wet = float(value)

    @property
    def ceiling(self) -> float:
        """Hz where the output should end; a change counts from the next step on."""
        return self.lane.f_target

    @ceiling.setter
    def ceiling(self, value: float) -> None:
        check_frequency("ceiling", value)
        self.lane.f_target = float(value)

    @property
    def held_steps(self) -> int:
        """Steps of the batch that this stream sat out, having nothing due."""
        return self.lane.held_steps

    @property
    def waiting_ms(self) -> float:
        """Milliseconds of sound that were pushed and not stepped yet."""
        return 1000.0 * self._incoming.readable / ENGINE_RATE

    @property
    def ready(self) -> int:
        """Samples that can be pulled."""
        return self._outgoing.readable

    @property
    def is_due(self) -> bool:
        """Whether the next step of the batch will take this stream along."""
        return not self._closed and self.lane.is_due

    @property
    def is_done(self) -> bool:
        """Whether :meth:`finish` was called and the last sample can be pulled."""
        return self.lane.end is not None and self.lane.emitted >= self.lane.end

    @property
    def is_closed(self) -> bool:
        """Whether the stream has left its batch."""
        return self._closed

    def push(self, block: NDArray[Any], input_rate: int | None = None) -> None:
        """Add a block, float ``(samples,)`` or ``(samples, channels)`` in [-1, 1], of any length.

        Args:
            block: samples that are not numbers, or beyond 1e10, become 0 and are counted.
            input_rate: Hz of the block, if the caller wants it checked.

        Raises:
            AudioFormatError: the block has another shape or rate, or holds integers.
            RtsrError: the stream is closed or finished, or so much already waits that the block
                has no room; nothing of it was taken then.
        """
        self._check_open()
        if self.lane.end is not None:
            raise RtsrError("This stream is finished; open another one for more sound.")
        if input_rate is not None and input_rate != self.input_rate:
            raise AudioFormatError(
                f"This stream takes {self.input_rate} Hz, not {input_rate} Hz; "
                "open another one for that rate."
            )
        audio = as_frames(block, self.channels, "this stream")
        if self._before.output_frames(len(audio)) + RESERVED_FRAMES > self._incoming.writable:
            raise RtsrError(
                f"A block of {1000.0 * len(audio) / self.input_rate:.0f} ms has no room behind "
                f"{self.waiting_ms:.0f} ms that wait for a step; step the batch and pull more "
                f"often, check that the sound has {self.input_rate} Hz, or give the batch a larger "
                "buffer_ms."
            )
        self._received += len(audio)
        self._flat = np.ndim(block) == 1
        self._advance(audio)

    def pull(self, most: int | None = None) -> Audio:
        """Take finished samples: float32 of the rank of the last block, at most ``most`` of them.

        Raises:
            RtsrError: the stream is closed.
        """
        self._check_open()
        frames = self._outgoing.readable if most is None else min(most, self._outgoing.readable)
        out = np.empty((max(0, frames), self.channels), np.float32)
        self._outgoing.read(out)
        return out[:, 0] if self._flat else out

    def pull_into(self, out: Audio) -> int:
        """Move finished samples into the front of ``out``; returns how many. Allocates nothing.

        Args:
            out: C-contiguous float32 ``(samples, channels)``.

        Raises:
            AudioFormatError: ``out`` has another shape, type or memory layout.
            RtsrError: the stream is closed.
        """
        self._check_open()
        fits = out.ndim == 2 and out.shape[1] == self.channels
        if not fits or out.dtype != np.float32 or not out.flags.c_contiguous:
            raise AudioFormatError(
                f"Samples are pulled into C-contiguous float32 (samples, {self.channels}), "
                f"not into {out.dtype} {out.shape}."
            )
        return self._outgoing.read(out[: self._outgoing.readable])

    def finish(self) -> None:
        """Say that nothing more is coming, so that the next steps bring out the rest.

        Without the first ``delay_samples``, all that is pulled is then
        ``round(n * output_rate / input_rate)`` long for ``n`` pushed samples and aligned with
        them. The stream keeps its place in the batch until :meth:`close`.

        Raises:
            RtsrError: the stream is closed.
        """
        self._check_open()
        if self.lane.end is not None:
            return
        self._advance(np.zeros((self.input_rate * _TAIL_MS // 1000, self.channels), np.float32))
        whole = round(self._received * self.output_rate / self.input_rate)
        # Last, for another thread steps the stream to its end as soon as it sees this.
        self.lane.end = self.delay_samples + whole

    def close(self) -> None:
        """Leave the batch: the place is free for another stream, what was not pulled is lost."""
        if not self._closed:
            self._closed = True
            self._leave(self)

    def _check_open(self) -> None:
        if self._closed:
            raise RtsrError("This stream is closed; open another one.")

    def _advance(self, audio: Audio) -> None:
        for start in range(0, len(audio), _CHUNK_FRAMES):
            chunk = repaired(audio[start : start + _CHUNK_FRAMES], self._clean, self.statistics)
            frames = self._before.process_into(chunk, self._wide)
            self._incoming.write(self._wide[:frames])
