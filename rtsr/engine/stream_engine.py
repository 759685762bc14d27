"""One stream at 48 kHz: its hops and the source of its high band."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rtsr.colour.auto import AutoColour
from rtsr.colour.colour import Colour
from rtsr.engine.hop_engine import HopEngine
from rtsr.engine.sources import HighBandSource
from rtsr.engine.statistics import Statistics
from rtsr.timing import SAMPLE_RATE

Audio = NDArray[np.float32]

_WARM_UP_STEPS = 4


class Engine:
    """Turns steps of ``480 * hops`` samples into as many enhanced ones, delayed by the overlap.

    Args:
        source: makes the high band; it fixes channels and hops of a step.
        native_hz: half of the input's own rate; nothing in it lies above.
        f_target: Hz where the output should end; the attribute counts from the next step on.
        wet: gain of the high band; likewise.
        statistics: where the source counts what it could not make.
        cutoff: Hz where the input's content ends; measured if ``None``.
        expected_cutoff: Hz that the measurement starts from, if something is known.
        colour: of the high band.
        rate: of the samples in Hz; above 48000 it is a faster clock, on which all else counts.
    """

    def __init__(
        self,
        source: HighBandSource,
        native_hz: float,
        f_target: float,
        wet: float,
        statistics: Statistics,
        *,
        cutoff: float | None = None,
        expected_cutoff: float | None = None,
        colour: Colour | AutoColour | None = None,
        rate: int = SAMPLE_RATE,
    ) -> None:
        self.expected_cutoff = expected_cutoff
        self._source = source
        self._statistics = statistics
        self._hops = HopEngine(
            1, source.channels, source.hops, source.overlap, source.channels, rate=rate
        )
        self.step_samples = self._hops.step_samples
        self._slots = list(range(source.channels))
        self._native_hz = native_hz
        self._wet = wet
        self._f_target = f_target
        self._cutoff = cutoff
        # What is warmed up with teaches nothing.
        self._colour: Colour | AutoColour | None = None
        self.reset()
        warm_up(self.step, self.step_samples, source.channels)
        self._colour = colour
        self.reset()
        statistics.clear()

    def reset(self) -> None:
        """Forget the past: the next step is the first."""
        self._source.reset()
        self._hops.join(
            0,
            self._slots,
            native_hz=self._native_hz,
            f_target=self._f_target,
            wet=self._wet,
            cutoff=self._cutoff,
            expected_cutoff=self.expected_cutoff,
            colour=self._colour,
        )

    def resume(self, frame: int, before: Audio) -> None:
        """Go on at another hop, as if all before it had been taken; what is measured stays.

        Args:
            frame: index of the next hop, of which the noise is a function.
            before: ``(overlap, channels)``, the input just before it.
        """
        self._source.resume(frame)
        self._hops.resume(0, before)

    @property
    def cutoff_hz(self) -> float:
        """Hz where the content of the newest hop ends."""
        return self._hops.cutoff_hz(0)

    @property
    def cutoff(self) -> float | None:
        """Hz where the input's content ends, as given; ``None`` where it is measured."""
        return self._cutoff

    @cutoff.setter
    def cutoff(self, value: float | None) -> None:
        self._cutoff = value
        self._hops.set_cutoff(0, value)

    @property
    def wet(self) -> float:
        """Gain of the high band; a change is faded over one hop."""
        return self._wet

    @wet.setter
    def wet(self, value: float) -> None:
        self._wet = value
        self._hops.set_wet(0, value)

    @property
    def colour(self) -> Colour | AutoColour | None:
        """Of the high band; a change is faded over one hop."""
        return self._colour

    @colour.setter
    def colour(self, value: Colour | AutoColour | None) -> None:
        self._colour = value
        self._hops.set_colour(0, value)

    @property
    def colour_share(self) -> float:
        """How much of the colour is used, 0 to 1."""
        return self._hops.colour_share(0)

    @property
    def f_target(self) -> float:
        """Hz where the output should end; a change counts from the next step on."""
        return self._f_target

    @f_target.setter
    def f_target(self, value: float) -> None:
        self._f_target = value
        self._hops.set_target(0, value)

    @property
    def native_hz(self) -> float:
        """Half of the input's own rate in Hz."""
        return self._native_hz

    @native_hz.setter
    def native_hz(self, value: float) -> None:
        self._native_hz = value
        self._hops.set_native(0, value)

    @property
    def adds(self) -> NDArray[np.bool_]:
        """``(1,)``: whether the last step added anything to the dry signal."""
        return self._hops.adds

    def step(self, audio: Audio, out: Audio) -> None:
        """Enhance ``audio`` into ``out``, two arrays ``(480 * hops, channels)``."""
        f_prior = self._hops.begin(audio)
        degraded = self._statistics.degraded_blocks
        high_band = self._source.generate(audio, f_prior, self._f_target)
        if self._statistics.degraded_blocks != degraded:
            self._hops.clear_filter(0)
        self._hops.finish(audio, high_band, out)


def warm_up(step: Callable[[Audio, Audio], object], samples: int, channels: int) -> None:
    """Take a few steps that nobody hears, so that the first real one is like every other.

    Args:
        step: takes input and output, two arrays ``(samples, channels)``.
        samples: of a step.
        channels: of the sound.
    """
    audio = np.zeros((samples, channels), np.float32)
    audio[::7] = 0.01
    out = np.empty_like(audio)
    for _ in range(_WARM_UP_STEPS):
        step(audio, out)
