"""Sound instead of packets: the engine's calls for applications with codecs of their own."""

from __future__ import annotations

import asyncio
import collections
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rtsr.arguments import check_audio_format
from rtsr.call.band_controls import BandControls
from rtsr.call.call_stream import CallStream
from rtsr.call.receiver import Chunk, Origin
from rtsr.colour.auto import AutoColour
from rtsr.colour.colour import Colour
from rtsr.errors import AudioFormatError, RtsrError
from rtsr.timing import SAMPLE_RATE

if TYPE_CHECKING:
    from rtsr.call.engine import CallEngine

__all__ = ["SoundLine"]

Audio = NDArray[np.float32]

# A batch takes no more at once; longer blocks are passed to it in parts.
_PARTS_PER_SECOND = 5


class SoundLine:
    """A place in the engine's batch that is fed with decoded sound.

    Made by :meth:`~rtsr.call.engine.CallEngine.open_sound`. What comes out is
    ``rtsr.call.dry_path.DELAY_SAMPLES`` (185 at 48 kHz, 3.85 ms) later than what goes in.
    """

    __slots__ = (
        "__weakref__",
        "_channels",
        "_closed",
        "_engine",
        "_finished",
        "_parts",
        "_rate",
        "_stepped",
        "_stream",
    )

    def __init__(self, engine: CallEngine, stream: CallStream, rate: int) -> None:
        self._rate = rate
        self._channels = stream.channels
        self._engine = engine
        self._stream = stream
        self._stepped = asyncio.Event()
        self._closed = False
        # What is still to be pushed, and what has come out, where an `enhance` is given up midway.
        self._parts: collections.deque[Chunk] = collections.deque()
        self._finished: list[Audio] = []

    @property
    def channels(self) -> int:
        """Of what goes in and of what comes out."""
        return self._channels

    @property
    def rate(self) -> int:
        """Hz of what goes in; 48000 comes out. Settable, where a codec changes."""
        return self._rate

    @rate.setter
    def rate(self, value: int) -> None:
        check_audio_format(value, SAMPLE_RATE, self._channels)
        self._rate = value

    @property
    def is_closed(self) -> bool:
        """Whether it has given its place back, by :meth:`close` or with its engine."""
        return self._closed

    @property
    def controls(self) -> BandControls:
        """The knobs of the new band."""
        return self._stream.controls

    @property
    def fallback_seconds(self) -> float:
        """How much sound was given without the new band, because a step was late."""
        return self._stream.fallback_seconds

    @property
    def colour(self) -> Colour | AutoColour | None:
        """Gains of the new band that were learnt for this caller; settable at any time."""
        return self._stream.colour

    @colour.setter
    def colour(self, value: Colour | AutoColour | str | None) -> None:
        self._stream.colour = value

    async def enhance(self, sound: Audio) -> Audio:
        """Enhance ``(samples,)`` or ``(samples, channels)`` to the same rank at 48 kHz.

        As much comes out as goes in: six samples for one at 8 kHz. Where a block is no whole number
        of 10 ms, the rest comes with the next one. What the engine's deadline passes is not waited
        for; the sound is then what came in, resampled. Blocks may have any length; each 200 ms of a
        longer one have a deadline of their own. Where a call is given up, its sound comes with that
        of the next one.

        Raises:
            AudioFormatError: another shape, or no floating-point samples.
            RtsrError: the line is closed.
        """
        if self._closed:
            raise RtsrError("This line is closed.")
        block = np.asarray(sound)
        if block.dtype.kind != "f":
            raise AudioFormatError(f"Sound is floating-point in [-1, 1] here, not {block.dtype}.")
        frames = block[:, None] if block.ndim == 1 else block
        if frames.ndim != 2 or frames.shape[1] != self._channels:
            raise AudioFormatError(
                f"Sound of shape {block.shape} does not fit a line of {self._channels} channels."
            )
        frames = np.nan_to_num(frames.astype(np.float32), posinf=0.0, neginf=0.0)
        frames = np.clip(frames, -1e3, 1e3)
        size = self._rate // _PARTS_PER_SECOND
        for start in range(0, max(1, len(frames)), size):
            part = frames[start : start + size]
            self._parts.append(Chunk(part, self._rate, None, Origin.DECODED))
        while self._parts:
            self._stream.push(self._parts.popleft())
            await self._wait_for_steps()
            self._finished.append(self._stream.take(everything=self._stream.is_due))
        out = self._finished[0] if len(self._finished) == 1 else np.concatenate(self._finished)
        self._finished = []
        return out[:, 0] if block.ndim == 1 else out

    async def _wait_for_steps(self) -> None:
        """Wait until the batch has taken what was pushed, or the engine's deadline has passed."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._engine.deadline
        while self._stream.is_due and loop.time() < deadline:
            self._stepped.clear()
            self._engine.wake()
            try:
                await asyncio.wait_for(self._stepped.wait(), deadline - loop.time())
            except TimeoutError:
                break
            except asyncio.TimeoutError:
                break

    def advance(self) -> None:
        """Process the result of a step; called by the engine."""
        self._stepped.set()

    def close(self) -> None:
        """Give the place back. May be called twice."""
        self._closed = True
        self._engine.forget_sound(self)
        self._stream.close()
