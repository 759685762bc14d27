"""What a live session is started with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rtsr.colour.auto import AutoColour
from rtsr.colour.colour import Colour
from rtsr.errors import ArgumentError
from rtsr.live.worker.settings import WorkerSettings

WORKERS = ("process", "thread")
# So far behind what could still be in time the worker gives up catching up.
_HOPS_BEHIND_DELAY = 3


@dataclass(frozen=True)
class LiveSettings:
    """What a :class:`~rtsr.live.session.LiveSession` is started with.

    Attributes:
        input_device: number or part of the name of the device to record; the system's default if
            ``None``.
        output_device: the one to play to.
        rate: Hz of both devices; 48000 where they can, else what they prefer, if ``None``.
        output_rate: Hz of the output device, where that is another. Beyond 48000, as with a
            ``rate`` or a device beyond, the octaves above 24 kHz are made, too.
        block: frames per device block, 0 for whatever the device likes.
        channels: of the engine: 1 to 8 are recorded, enhanced and played; two where both devices
            have two, else one, if ``None``. Mono is played on both channels of a stereo device.
        sample_format: of the device: ``float32``, ``int24`` or ``int16``.
        worker: ``process`` (nothing this program does can delay it) or ``thread`` (embedded).
        cutoff_hz: where the input's content ends in Hz, measured if ``None``; the control of that
            name begins with it.
        colour: gains of the new band for this voice, used while the model that they were learnt
            for makes it; ``auto``, or an :class:`~rtsr.colour.auto.AutoColour`, learns them while
            the input is wide.
        controls: values of controls that differ from their defaults, by name.
        allowance_ms: time that a step may take without being late; part of the latency.
        watchdog: whether a dead worker or a lost device is brought back.

    The others are those of :class:`WorkerSettings`.
    """

    input_device: int | str | None = None
    output_device: int | str | None = None
    rate: int | None = None
    output_rate: int | None = None
    block: int = 128
    channels: int | None = 1
    sample_format: str = "float32"
    model: str | Path = "small"
    provider: str = "auto"
    threads: int = 1
    cutoff_hz: float | None = None
    octave_model: str | Path | None = None
    colour: Colour | AutoColour | str | None = None
    limiter: bool = True
    governor: bool = True
    raise_priority: bool = True
    worker: str = "process"
    controls: dict[str, float] = field(default_factory=dict)
    allowance_ms: float = 5.0
    watchdog: bool = True

    def check(self) -> None:
        """Raise :class:`ArgumentError` if a value cannot be used on any machine."""
        from rtsr.arguments import MAX_CHANNELS, check_arguments, check_integer
        from rtsr.engine.colour_learner import resolve_colour
        from rtsr.live.device.devices import check_rate
        from rtsr.live.worker.fallback_levels import DRY
        from rtsr.runtime.models import check_up_to_48_khz, find_model
        from rtsr.runtime.providers.options import parse_provider

        check_arguments(1, 0, 1.0, self.cutoff_hz, None, self.threads)
        check_rate(self.rate)
        check_rate(self.output_rate)
        if self.octave_model is not None:
            if self.model == DRY:
                raise ArgumentError("The level 'dry' has no octave for an octave model to make.")
            find_model(self.octave_model)
        if self.model != DRY:
            check_up_to_48_khz(self.model)
        parse_provider(self.provider)
        if self.colour is not None and self.model == DRY:
            raise ArgumentError("The level 'dry' has no new band that a colour could be for.")
        if self.colour is not None:
            resolve_colour(self.colour, find_model(self.model))
        if self.worker not in WORKERS:
            raise ArgumentError(
                f"The worker must be one of {', '.join(WORKERS)}, not {self.worker!r}."
            )
        if not isinstance(self.controls, Mapping):
            raise ArgumentError(
                f"Controls are given as names with their values, not as {self.controls!r}."
            )
        if self.channels is not None:
            check_integer("number of channels", self.channels)
        if self.channels is not None and not 1 <= self.channels <= MAX_CHANNELS:
            raise ArgumentError(
                f"A live session has 1 to {MAX_CHANNELS} channels, not {self.channels}."
            )

    def for_worker(self, native_hz: float, reserve_frames: int, delay_hops: int) -> WorkerSettings:
        """Return the worker's part, once the device's rate, block and delay are known."""
        return WorkerSettings(
            # It goes through a pipe, as text and plain numbers.
            channels=int(self.channels or 1),
            model=str(self.model),
            provider=self.provider,
            threads=int(self.threads),
            native_hz=float(native_hz),
            reserve_frames=int(reserve_frames),
            # A long device block, or a long allowance, lets hops wait that are still in time.
            most_hops_behind=int(delay_hops) + _HOPS_BEHIND_DELAY,
            octave_model=None if self.octave_model is None else str(self.octave_model),
            limiter=self.limiter,
            governor=self.governor,
            raise_priority=self.raise_priority,
        )
