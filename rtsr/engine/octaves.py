"""What lies beyond the engine's band: the same engine on a clock twice or four times as fast.

Sound at 96 kHz, played at half its speed, is sound at 48 kHz. So a step at one rate, taken as
24 kHz sound, becomes two steps at twice that rate; taken as 12 kHz sound, four steps at four times
that rate. Two octaves at once are measured to be better than one after the other, and cost less.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtsr.engine.proportion import ProportionateSource
from rtsr.engine.sources import HighBandSource
from rtsr.engine.statistics import Statistics
from rtsr.engine.stream_engine import Engine
from rtsr.timing import SAMPLE_RATE
from rtsr_kernels.resample import StreamingResampler

Audio = NDArray[np.float32]


class Octaves:
    """Turns steps of ``samples`` into steps of ``factor`` times as many, at that rate.

    Whole steps come in and go out, so nothing waits: the delay is that of the conversion and of the
    overlap, :attr:`delay` samples at the new rate.

    Args:
        source: makes the octaves; it fixes channels and hops of a step.
        samples: of one step at the old rate, a whole number of the source's.
        factor: 2 or 4, for one octave or two.
        rate: the new one in Hz.
        wet: gain of what is generated.
        statistics: where steps are counted.
        beside_hz: up to where what comes beside the steps may reach, in Hz of sound at the new
            rate; what there is of it beyond the old rate's half is then measured, and stays.

    Attributes:
        engine: of the octaves, for its controls; its 24 kHz stand for half of the new rate.
        delay: samples at the new rate, of which ``overlap`` come behind the conversion.
        adds: ``(1,)``: whether the last step added anything.
    """

    def __init__(
        self,
        source: HighBandSource,
        samples: int,
        factor: int,
        rate: int,
        wet: float,
        statistics: Statistics,
        beside_hz: float = 0.0,
    ) -> None:
        slow_rate = SAMPLE_RATE // factor
        self.engine = Engine(
            ProportionateSource(source),
            max(slow_rate / 2, beside_hz / factor),
            SAMPLE_RATE / 2,
            wet,
            statistics,
            rate=rate,
        )
        self._resampler = StreamingResampler(slow_rate, SAMPLE_RATE, source.channels)
        self.overlap = source.overlap
        self.delay = self._resampler.delay + self.overlap
        self._wide: Audio = np.zeros((factor * samples, source.channels), np.float32)
        self._enhanced: Audio = np.zeros((factor * samples, source.channels), np.float32)
        self._starts = range(0, factor * samples, self.engine.step_samples)
        self.adds = np.zeros(1, np.bool_)

    def reset(self) -> None:
        """Forget the past: the next step is the first."""
        self.engine.reset()
        self._resampler.reset()

    def resume(self, frame: int, before: Audio) -> None:
        """Go on at another step, as if all before it had been taken.

        Args:
            frame: index of the next hop at the new rate.
            before: ``(overlap, channels)`` at the new rate, the sound just before it, converted.
        """
        self._resampler.reset()
        self.engine.resume(frame, before)

    def step(self, audio: Audio, beside: Audio | None = None) -> Audio:
        """Enhance ``(samples, channels)``; the next step overwrites what comes out.

        Args:
            audio: at the old rate.
            beside: ``(factor * samples, channels)``, sound at the new rate that is not converted;
                it is as late as what is converted.
        """
        self._resampler.process_into(audio, self._wide)
        if beside is not None:
            self._wide += beside
        self.adds[0] = False
        for start in self._starts:
            part = slice(start, start + self.engine.step_samples)
            self.engine.step(self._wide[part], self._enhanced[part])
            self.adds |= self.engine.adds
        return self._enhanced
