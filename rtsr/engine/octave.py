"""One octave beyond the engine's band: the same engine on a clock twice as fast.

Sound at 96 kHz, played at half its speed, is sound at 48 kHz. So a step at one rate, taken as
24 kHz sound, becomes two steps at twice that rate. All frequencies here are on the engine's own
scale: 24 kHz stands for half of the octave's rate, 12 kHz for where the input ends at the latest.
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

_INPUT_RATE = SAMPLE_RATE // 2
#: Hz on the engine's scale where the input of an octave ends at the latest
HIGHEST_PRIOR_HZ = _INPUT_RATE / 2


class Octave:
    """Turns steps of ``samples`` into steps of twice as many, at twice the rate.

    Whole steps come in and go out, so nothing waits: the delay is that of the conversion and of the
    overlap, :attr:`delay` samples at the new rate.

    Args:
        source: makes the octave; it fixes channels and hops of a step.
        samples: of one step at the old rate, a whole number of the source's.
        f_target: Hz where the octave should end; the attribute of the engine counts.
        wet: gain of what is generated.
        statistics: where steps are counted.

    Attributes:
        engine: of the octave, for its controls.
        delay: samples at the new rate.
    """

    def __init__(
        self,
        source: HighBandSource,
        samples: int,
        f_target: float,
        wet: float,
        statistics: Statistics,
    ) -> None:
        self.engine = Engine(
            ProportionateSource(source),
            HIGHEST_PRIOR_HZ,
            f_target,
            wet,
            statistics,
            expected_cutoff=HIGHEST_PRIOR_HZ,
        )
        self._resampler = StreamingResampler(_INPUT_RATE, SAMPLE_RATE, source.channels)
        self.delay = self._resampler.delay + source.overlap
        self._wide: Audio = np.zeros((2 * samples, source.channels), np.float32)
        self._enhanced: Audio = np.zeros((2 * samples, source.channels), np.float32)
        self._steps = range(0, 2 * samples, self.engine.step_samples)
        self.adds = np.zeros(1, np.bool_)

    def reset(self) -> None:
        """Forget the past: the next step is the first."""
        self.engine.reset()
        self._resampler.reset()

    def step(self, audio: Audio) -> Audio:
        """Enhance ``(samples, channels)``; the next step overwrites what comes out.

        :attr:`adds` then says whether anything was added to it.
        """
        self._resampler.process_into(audio, self._wide)
        self.adds[0] = False
        for start in self._steps:
            part = slice(start, start + self.engine.step_samples)
            self.engine.step(self._wide[part], self._enhanced[part])
            self.adds |= self.engine.adds
        return self._enhanced
