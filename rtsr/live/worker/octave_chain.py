"""The live engine beyond 48 kHz: the chain up to there, and the octaves above what it gives.

The input stays as it is, at its own rate, and only what the chain adds is converted: so the dry
sound passes bit for bit at 96 kHz as it does at 48, and content beyond 24 kHz is measured and kept.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtsr.colour.colour import Colour
from rtsr.engine.octaves import Octaves
from rtsr.engine.sources import HighBandSource
from rtsr.engine.statistics import Statistics
from rtsr.live.shared.timing import TimelineClock
from rtsr.live.worker.chain import LiveChain, check_source
from rtsr.live.worker.switched_source import SwitchedSource
from rtsr.timing import HOP, OVERLAP, SAMPLE_RATE
from rtsr_kernels.band_limit import FULL_BAND_HZ
from rtsr_kernels.limiter import KNEE, limit
from rtsr_kernels.resample import StreamingResampler

__all__ = ["OctaveChain"]

Audio = NDArray[np.float32]


class OctaveChain:
    """Turns hops of 10 ms at 96 or 192 kHz into enhanced ones, ``clock.lag`` frames later.

    The new octaves follow what is made below them, so level and tilt are the chain's alone; wet
    gain, bypass, gate, ceiling and seed count for all.

    Args:
        chain: makes what is missing up to 24 kHz, without a limiter.
        source: makes the octaves, a hop of 480 samples on their clock at a time.
        clock: of the timelines.
        native_hz: half of the input's own rate; nothing in it lies above.
        statistics: where degraded hops and limited samples are counted.
        with_octaves: names of the fallback levels that have octaves, and the chain's level of each.
        expected_cutoff_hz: where the measurement starts from, if something is known.
        limiter: whether peaks above -1 dBFS are turned down so that none leaves full scale.

    Attributes:
        past: frames of the past that :meth:`resume` takes.

    Raises:
        ArgumentError: a source with other channels, hops or timing.
    """

    def __init__(
        self,
        chain: LiveChain,
        source: HighBandSource,
        clock: TimelineClock,
        native_hz: float,
        statistics: Statistics,
        with_octaves: dict[str, str],
        expected_cutoff_hz: float | None = None,
        limiter: bool = True,
    ) -> None:
        channels = chain.channels
        check_source(f"The octaves' source {source.name!r}", source, channels)
        self.past = clock.hop
        self._chain = chain
        self._clock = clock
        self._statistics = statistics
        self._with_octaves = with_octaves
        self._limiter = limiter
        self._limiter_gain = np.ones(1)
        self._switch = SwitchedSource(source)
        self._reaches_beyond = native_hz > FULL_BAND_HZ
        self._octaves = Octaves(
            self._switch, HOP, clock.factor, clock.rate, 1.0, statistics, beside_hz=native_hz
        )
        if expected_cutoff_hz is not None:
            # What lies below, the chain fills up.
            reached_hz = max(expected_cutoff_hz, FULL_BAND_HZ)
            self._octaves.engine.expected_cutoff = reached_hz / clock.factor
        # On the clock of its rate, which for a conversion is any clock.
        self._narrow = StreamingResampler(SAMPLE_RATE, SAMPLE_RATE // clock.factor, channels)
        self._input: Audio = np.zeros((HOP, channels), np.float32)
        self._enhanced: Audio = np.zeros((HOP, channels), np.float32)
        # What both timings of the chain's input begin with: its overlap, and that of the octaves.
        self._dry: Audio = np.zeros((OVERLAP + HOP, channels), np.float32)
        self._beside: Audio = np.zeros((clock.before_octaves + clock.hop, channels), np.float32)
        self.reset()

    @property
    def cutoff_hz(self) -> float:
        """Hz where the content of the newest hop ends."""
        cutoff_hz = self._chain.cutoff_hz
        if self._reaches_beyond and cutoff_hz >= FULL_BAND_HZ:
            return self._octaves.engine.cutoff_hz * self._clock.factor
        return cutoff_hz

    @property
    def colour_share(self) -> float:
        """How much of the colour is used, 0 to 1."""
        return self._chain.colour_share

    def renew_colour(self, colour: Colour) -> None:
        """Take more that was learnt of the same source; it is faded over the next hop."""
        self._chain.renew_colour(colour)

    def reset(self) -> None:
        """Forget everything: the next hop is the first of a stream."""
        self._chain.reset()
        self._octaves.reset()
        self._narrow.reset()
        self._dry.fill(0.0)
        self._beside.fill(0.0)
        self._limiter_gain.fill(1.0)

    def resume(self, hop: int, before: Audio) -> None:
        """Go on at another hop, because some were skipped or another worker took them.

        Args:
            hop: index of the next hop.
            before: ``(past, channels)``, the input just before it.
        """
        self._narrow.reset()
        self._narrow.process_into(before, self._input)
        self._dry[-OVERLAP:] = self._input[-OVERLAP:]
        self._chain.resume(hop, self._input[-OVERLAP:])
        late = self._clock.before_octaves
        self._beside[-late:] = before[-late:]
        newest = len(before) - late
        self._octaves.resume(
            hop * self._clock.factor, before[newest - self._octaves.overlap : newest]
        )

    def step(self, audio: Audio, out: Audio, level: str) -> None:
        """Enhance one hop ``(clock.hop, channels)`` into ``out``; levels as for the chain.

        Raises:
            ArgumentError: there is no such fallback level.
        """
        chain, octaves, switch = self._chain, self._octaves, self._switch
        self._narrow.process_into(audio, self._input)
        chain.step(self._input, self._enhanced, self._with_octaves.get(level, level))
        dry = self._delayed(self._dry, self._input, OVERLAP)
        # Exactly zero where nothing was added.
        np.subtract(self._enhanced, dry, out=self._enhanced)
        beside = self._delayed(self._beside, audio, self._clock.before_octaves)

        engine = octaves.engine
        switch.is_wanted = level in self._with_octaves
        if chain.seed is not None and switch.seed != chain.seed:
            switch.seed = chain.seed
        if engine.wet != chain.gain:
            engine.wet = chain.gain
        f_target = min(chain.ceiling_hz / self._clock.factor, FULL_BAND_HZ)
        if engine.f_target != f_target:
            engine.f_target = f_target
        np.copyto(out, octaves.step(self._enhanced, beside))
        if self._limiter:
            # What nothing was added to passes as it is, as long as it is within full scale.
            adds = chain.adds or (switch.sounds and octaves.adds[0])
            self._statistics.limited_samples += limit(
                out, self._limiter_gain, KNEE if adds else 1.0, float(self._clock.rate)
            )

    @staticmethod
    def _delayed(line: Audio, newest: Audio, frames: int) -> Audio:
        """Let the newest hop into a line ``(frames + hop, channels)``; the hop that comes out."""
        line[:frames] = line[-frames:]
        line[frames:] = newest
        return line[: len(newest)]
