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
        wet: gain of what is generated.
        statistics: where steps are counted.

    Attributes:
        engine: of the octaves, for its controls; its 24 kHz stand for half of the new rate.
        delay: samples at the new rate.
        adds: ``(1,)``: whether the last step added anything.
    """

    def __init__(
        self,
        source: HighBandSource,
        samples: int,
        factor: int,
        wet: float,
        statistics: Statistics,
    ) -> None:
        slow_rate = SAMPLE_RATE // factor
        self.engine = Engine(
            ProportionateSource(source),
            slow_rate / 2,
            SAMPLE_RATE / 2,
            wet,
            statistics,
            expected_cutoff=slow_rate / 2,
        )
        self._resampler = StreamingResampler(slow_rate, SAMPLE_RATE, source.channels)
        self.delay = self._resampler.delay + source.overlap
        self._wide: Audio = np.zeros((factor * samples, source.channels), np.float32)
        self._enhanced: Audio = np.zeros((factor * samples, source.channels), np.float32)
        self._starts = range(0, factor * samples, self.engine.step_samples)
        self.adds = np.zeros(1, np.bool_)

    def reset(self) -> None:
        """Forget the past: the next step is the first."""
        self.engine.reset()
        self._resampler.reset()

    def step(self, audio: Audio) -> Audio:
        """Enhance ``(samples, channels)``; the next step overwrites what comes out."""
        self._resampler.process_into(audio, self._wide)
        self.adds[0] = False
        for start in self._starts:
            part = slice(start, start + self.engine.step_samples)
            self.engine.step(self._wide[part], self._enhanced[part])
            self.adds |= self.engine.adds
        return self._enhanced
