"""One direction of a call through the batch: sound of any rate in, 48 kHz out.

The batch gets the sound at 48 kHz whatever its codec, so that its stream goes on where the codec
changes. The sound as it came in runs beside the enhanced one, equally late: a step may be late and
a call may be left out of the batch for a while, the low band goes on without a seam, and only the
new band fades.
"""

from __future__ import annotations

import collections

import numpy as np
from numpy.typing import NDArray

from rtsr.arguments import check_audio_format
from rtsr.batch.stream import BatchStream
from rtsr.batch.upsampler import BatchUpsampler
from rtsr.call.band_controls import BandControls
from rtsr.call.dry_path import DELAY_SAMPLES, DryPath
from rtsr.call.monitor import Monitor
from rtsr.call.receiver import Chunk, Origin
from rtsr.colour.auto import AutoColour
from rtsr.colour.colour import Colour
from rtsr.engine.colour_learner import resolve_colour
from rtsr.errors import ArgumentError
from rtsr.timing import OVERLAP, SAMPLE_RATE
from rtsr_kernels.limiter import KNEE, limit

__all__ = ["CallStream"]

Audio = NDArray[np.float32]

# What the new band ends with where it is missing all at once: its own last samples, backwards.
_FADE_OUT = 240
_FADE_IN = 480
# Coders try other bandwidths for a moment; one that stays for this many chunks counts.
_STEADY_CHUNKS = 25
# A batch that is so far behind is given nothing more; its streams take twice as much, and refuse
# what is longer.
_MOST_WAITING_MS = 250.0
_FALLING = ((_FADE_OUT - np.arange(_FADE_OUT)) / (_FADE_OUT + 1))[:, None].astype(np.float32)


class CallStream:
    """Enhances the chunks of a :class:`~rtsr.call.receiver.Receiver`.

    Sample ``o`` of what is taken belongs to input time ``(o - DELAY_SAMPLES) / 48000``.

    Args:
        batch: where the stream joins; ``None`` only resamples.
        rate: Hz of the first chunks; others may follow, and the stream in the batch, which gets
            them at 48 kHz, goes on.
        channels: of the sound.
        seed: of the generated texture, 0 to 2**32 - 1.
        wet: gain of the generated band, 0 to 1.
        colour: of the new band, checked by :func:`~rtsr.engine.colour_learner.resolve_colour`.

    Attributes:
        controls: the knobs of the new band.
        monitor: gets a copy of what is taken, where it is set.
        fallback_seconds: how much sound was played without the new band, because a step was late
            or the call was left out.

    Raises:
        AudioFormatError: a rate or a number of channels that is not accepted.
        RtsrError: the batch has no room.
    """

    __slots__ = (
        "__weakref__",
        "_agreeing",
        "_batch",
        "_colour",
        "_cutoff",
        "_dry",
        "_dry_path",
        "_gain",
        "_ghost",
        "_last_band",
        "_left_out",
        "_limiter_gain",
        "_stream",
        "_wide",
        "_wide_from",
        "channels",
        "controls",
        "fallback_seconds",
        "monitor",
    )

    def __init__(
        self,
        batch: BatchUpsampler | None,
        rate: int = 8000,
        channels: int = 1,
        seed: int = 0,
        wet: float = 1.0,
        colour: Colour | AutoColour | None = None,
    ) -> None:
        # Before a place is taken that would not be given back.
        check_audio_format(rate, SAMPLE_RATE, channels)
        self.channels = channels
        self.fallback_seconds = 0.0
        self.controls = BandControls(channels)
        self.controls.set("wet", wet)
        self.controls.set("seed", seed)
        self.monitor: Monitor | None = None
        self._batch = batch
        self._left_out = False
        self._colour = colour
        self._cutoff: float | None = None
        self._agreeing = 0
        self._dry_path = DryPath(channels)
        self._dry = _Line(channels)
        self._dry.append(np.zeros((OVERLAP, channels), np.float32))
        self._stream: BatchStream | None = None
        self._wide = _Line(channels)
        self._wide_from = 0
        self._gain = 0.0
        self._limiter_gain = np.ones(1)
        self._last_band: Audio = np.zeros((_FADE_OUT, channels), np.float32)
        self._ghost: Audio = self._last_band[:0]
        if batch is not None:
            self._stream = batch.open(
                SAMPLE_RATE,
                channels=channels,
                seed=seed,
                # The new band is what this differs from the dry sound by; their sum is limited.
                limiter=False,
                colour=colour,
            )
            self._stream.native_rate = rate
            self._wide.start = OVERLAP - self._stream.delay_samples

    @property
    def is_due(self) -> bool:
        """Whether a step of the batch will bring this stream further."""
        return self._stream is not None and self._stream.is_due

    @property
    def has_finished(self) -> bool:
        """Whether the batch has finished sound that was not taken yet."""
        return self._stream is not None and self._stream.ready > 0

    @property
    def pushed(self) -> int:
        """Samples at 48 kHz that were pushed so far."""
        return self._dry_path.worth

    @property
    def waiting(self) -> int:
        """Samples at 48 kHz that were pushed and not taken yet."""
        return self.pushed - self._dry.start

    @property
    def cutoff_hz(self) -> float | None:
        """Hz where the content was found to end; ``None`` without a place in the batch."""
        return None if self._stream is None else self._stream.cutoff_hz

    @property
    def colour(self) -> Colour | AutoColour | None:
        """Gains of the new band that were learnt for this caller; a change is faded over 10 ms.

        ``auto``, or an :class:`~rtsr.colour.auto.AutoColour` that starts from what a former call
        has taught, learns them while the caller's codec lets a wide band through.
        """
        return self._colour

    @colour.setter
    def colour(self, value: Colour | AutoColour | str | None) -> None:
        if self._batch is None:
            raise ArgumentError("A direction that is only transcoded has no new band to colour.")
        colour = resolve_colour(value, self._batch.model)
        if self._stream is not None:
            self._stream.colour = colour
        self._colour = colour

    @property
    def colour_share(self) -> float:
        """How much of the colour is used, 0 to 1: as far as the caller resembles its source."""
        return 0.0 if self._stream is None else self._stream.colour_share

    @property
    def left_out(self) -> bool:
        """Whether the batch is spared this stream, as under too much load."""
        return self._left_out

    @left_out.setter
    def left_out(self, value: bool) -> None:
        self._left_out = bool(value)

    def push(self, chunk: Chunk) -> None:
        """Add a chunk; all have the stream's channels."""
        sound = self._dry_path.process(chunk)
        self._dry.append(sound)
        if chunk.origin is Origin.TAIL:
            return
        stream = self._stream
        if stream is None:
            return
        self._agreeing = 0 if chunk.cutoff == self._cutoff else self._agreeing + 1
        if stream.native_rate != chunk.rate or self._agreeing >= _STEADY_CHUNKS:
            stream.native_rate = chunk.rate
            stream.cutoff = _known(chunk.cutoff)
            self._cutoff = chunk.cutoff
            self._agreeing = 0
        stream.seed = int(self.controls.board.get("seed"))
        waiting_ms = stream.waiting_ms
        has_room = waiting_ms + 1000.0 * len(sound) / SAMPLE_RATE <= 2.0 * _MOST_WAITING_MS
        if self._left_out or waiting_ms > _MOST_WAITING_MS or not has_room:
            # The sound goes past the batch; what comes after joins on behind it.
            self._collect()
            self._wide.take(self._wide.end - self._wide.start)
            self._wide.start += len(sound)
            self._wide_from = self._dry.end
        else:
            stream.push(sound)

    def take(self, everything: bool = False) -> Audio:
        """Finished sound ``(samples, channels)`` at 48 kHz.

        Args:
            everything: do not wait for the batch any longer: what it has not finished is taken
                without the new band, and counted.
        """
        self._collect()
        end = self.pushed
        if self._stream is not None and not self._left_out and not everything:
            end = min(end, self._wide.end)
        count = max(0, end - self._dry.start)
        start = self._dry.start
        dry = self._dry.take(count)
        if not count:
            return dry
        band = self._band(start, dry)
        if self._batch is not None:
            self.controls.shape(band, dry, self.cutoff_hz or 4000.0)
        out = dry + band
        limit(out, self._limiter_gain, KNEE if band.any() else 1.0, SAMPLE_RATE)
        if self.monitor is not None:
            self.monitor.see(dry, out)
        return out

    def join(self, other: CallStream) -> None:
        """Go on with the place of another stream of the same channels, which was given nothing.

        The sound goes on without a seam, and the new band fades in.
        """
        self.close()
        self._batch, self._colour, self._stream = other._batch, other._colour, other._stream
        other._stream = None
        self._left_out = False
        self._cutoff, self._agreeing = None, 0
        self._wide = _Line(self.channels)
        self._wide_from = self._wide.start = self._dry.end
        if self._stream is not None:
            self._wide.start -= self._stream.delay_samples

    def leave(self) -> None:
        """Give the place back, and only resample from now on; the new band fades out.

        The colour is kept for another place.
        """
        self._collect()
        self.close()
        self._batch = None

    def close(self) -> None:
        """Leave the batch. May be called twice."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _band(self, start: int, dry: Audio) -> Audio:
        """Return the new band for ``dry``, whose first sample has index ``start``."""
        count = len(dry)
        self._wide.drop_before(start)
        lead = min(count, max(0, self._wide.start - start))
        known = min(count, max(lead, self._wide.end - start))
        first = min(known, max(lead, self._wide_from - start))
        wide = self._wide.take(known - lead)[first - lead :]
        bypass = self.controls.board.get("bypass") > 0.0
        wanted = self._stream is not None and not self._left_out and not bypass
        wet = self.controls.board.get("wet") if wanted else 0.0
        if known - first == count:
            band = wide - dry
        else:
            band = np.zeros_like(dry)
            band[first:known] = wide - dry[first:known]
        self._fade(band[first:known], wet)
        had_band = known > first and self._gain > 0.0
        if had_band:
            newest = band[max(first, known - _FADE_OUT) : known]
            self._last_band[: _FADE_OUT - len(newest)] = 0.0
            self._last_band[_FADE_OUT - len(newest) :] = newest
        if self._batch is not None and not bypass and start >= DELAY_SAMPLES:
            self.fallback_seconds += (count - (known - first)) / SAMPLE_RATE
        if known < count and (had_band or self._gain > 0.0):
            self._ghost = self._last_band[::-1] * _FALLING
            self._gain = 0.0
        if known < count and len(self._ghost):
            length = min(count - known, len(self._ghost))
            band[known : known + length] += self._ghost[:length]
            self._ghost = self._ghost[length:]
        return band

    def _fade(self, band: Audio, target: float) -> None:
        """Multiply the next samples by the gain, which moves by 1 in 10 ms, in place."""
        way = target - self._gain
        if way == 0.0:
            if target != 1.0:
                band *= np.float32(target)
            return
        if not len(band):
            return
        steps = np.minimum(np.arange(1, len(band) + 1) / _FADE_IN, abs(way))
        gains = (self._gain + np.sign(way) * steps).astype(np.float32)
        self._gain = float(target if steps[-1] >= abs(way) else gains[-1])
        gains[steps >= abs(way)] = target
        band *= gains[:, None]

    def _collect(self) -> None:
        if self._stream is not None and self._stream.ready:
            sound = self._stream.pull()
            self._wide.append(sound.reshape(len(sound), self.channels))


def _known(cutoff: float | None) -> float | None:
    """Return the cutoff to use; ``None``, to measure it, where Opus may carry a narrower voice."""
    return cutoff if cutoff is not None and cutoff < 20000.0 else None


class _Line:
    """Samples with an index, oldest first.

    Attributes:
        start: index of the oldest sample that is still here.
        end: index of the next one to come.
    """

    def __init__(self, channels: int) -> None:
        self.start = 0
        self._parts: collections.deque[Audio] = collections.deque()
        self._length = 0
        self._none: Audio = np.zeros((0, channels), np.float32)

    @property
    def end(self) -> int:
        return self.start + self._length

    def append(self, sound: Audio) -> None:
        if len(sound):
            self._parts.append(sound)
            self._length += len(sound)

    def take(self, count: int) -> Audio:
        """Take the oldest ``count`` samples, to be read only."""
        taken: list[Audio] = []
        while count:
            part = self._parts.popleft()
            if len(part) > count:
                self._parts.appendleft(part[count:])
                part = part[:count]
            taken.append(part)
            count -= len(part)
            self._length -= len(part)
            self.start += len(part)
        if not taken:
            return self._none
        return taken[0] if len(taken) == 1 else np.concatenate(taken)

    def drop_before(self, index: int) -> None:
        if index > self.start:
            self.take(min(self._length, index - self.start))
