"""The live engine's processing of a hop: detector, source of the fallback level, tone, crossover.

Around it is the same :class:`~rtsr.engine.hop_engine.HopEngine` as everywhere; what live adds is
the choice of the source, and the tone.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from rtsr.batch.shedding import DRY, PREROLL_HOPS
from rtsr.colour.colour import Colour
from rtsr.engine.hop_engine import HopEngine
from rtsr.engine.sources import HighBandSource
from rtsr.engine.statistics import Statistics
from rtsr.engine.stream_engine import warm_up
from rtsr.errors import ArgumentError
from rtsr.live.controls.board import ControlBoard
from rtsr.live.controls.smoothing import SmoothedControls
from rtsr.live.worker.tone import SilenceGate, Tone
from rtsr.timing import HOP, OVERLAP, SAMPLE_RATE
from rtsr_kernels.band_limit import FULL_BAND_HZ
from rtsr_kernels.crossfade import crossfade_equal_power, crossfade_linear
from rtsr_kernels.limiter import KNEE, limit

__all__ = ["LiveChain", "check_source"]

Audio = NDArray[np.float32]


class LiveChain:
    """Turns hops of 480 samples into enhanced ones, ``OVERLAP`` later.

    Args:
        levels: sources by name, best first, each of one hop. ``dry`` needs none and is always
            there.
        board: the controls; read once per hop. ``model`` is the governor's, not the chain's.
            ``cutoff_hz`` at its highest value has the cutoff measured.
        native_hz: half of the input's own rate; nothing in it lies above.
        statistics: where step times and degraded hops are counted.
        expected_cutoff_hz: where the measurement starts from, if something is known.
        f_target: Hz where the output should end while the ceiling is open.
        ends_hz: Hz where the high band ends of levels that do not reach as far, by name.
        limiter: whether peaks above -1 dBFS are turned down so that none leaves full scale.
        colour: gains of the high band of `coloured_levels`, to begin with.
        coloured_levels: names of the levels that colours are for.
        preroll_hops: hops that a better level is fed with before it is heard.
        replay_hops: hops of the past that a lesser level takes in at once. It has to be soon.

    Attributes:
        level: name of the fallback level that is heard, or has begun to be.
        hop: index of the next hop, of which the model's noise is a function.
        channels: of the sound.
        past: frames of the past that :meth:`resume` takes.
        gain: of what is added at the end of the newest hop, by wet gain, bypass and gate.
        ceiling_hz: where the controls let the output of the newest hop end.
        seed: of the noise of the newest hop; ``None`` before the first.

    Raises:
        ArgumentError: a source with other channels, hops or timing.
    """

    def __init__(
        self,
        levels: Mapping[str, HighBandSource],
        board: ControlBoard,
        channels: int,
        native_hz: float,
        statistics: Statistics,
        *,
        expected_cutoff_hz: float | None = None,
        f_target: float = 20000.0,
        ends_hz: Mapping[str, float] | None = None,
        limiter: bool = True,
        colour: Colour | None = None,
        coloured_levels: Collection[str] = (),
        preroll_hops: int = PREROLL_HOPS,
        replay_hops: int = 4,
    ) -> None:
        self._sources = {name: source for name, source in levels.items() if name != DRY}
        for name, source in self._sources.items():
            check_source(f"Fallback level {name!r}", source, channels)
        self._rank = {name: rank for rank, name in enumerate((*self._sources, DRY))}
        self.past = OVERLAP
        self._board = board
        self._expected_cutoff = expected_cutoff_hz
        self._native_hz = native_hz
        self._f_target = f_target
        self._ends_hz = dict(ends_hz or {})
        self._limiter = limiter
        self._colour = colour
        self._coloured_levels = frozenset(coloured_levels)
        self._limiter_gain = np.ones(1)
        self._preroll_hops = preroll_hops
        self._replay_hops = replay_hops
        self._statistics = statistics
        self._controls = SmoothedControls(board)
        self.channels = channels
        self._hops = HopEngine(1, channels, 1, OVERLAP, channels)
        self._tone = Tone(channels)
        self._gate = SilenceGate(OVERLAP)
        self._high_band: Audio = np.zeros((HOP, channels), np.float32)
        self._silence: Audio = np.zeros((HOP, channels), np.float32)
        # What a level that has to be ready at once is fed with.
        self._past: Audio = np.zeros((replay_hops, HOP, channels), np.float32)
        self._past_f_prior = np.zeros((replay_hops, 1), np.float32)
        self.reset()
        self._warm_up()

    @property
    def cutoff_hz(self) -> float:
        """Hz where the content of the newest hop ends."""
        return self._hops.cutoff_hz(0)

    @property
    def colour_share(self) -> float:
        """How much of the colour is used, 0 to 1."""
        return self._hops.colour_share(0) if self.level in self._coloured_levels else 0.0

    def renew_colour(self, colour: Colour) -> None:
        """Take more that was learnt of the same source; it is faded over the next hop."""
        self._colour = colour
        self._hops.renew_colour(0, colour)
        self._hops.set_colour_amount(0, self._colour_amount)

    @property
    def adds(self) -> bool:
        """Whether the newest hop has something that was added."""
        return bool(self._hops.adds[0])

    def reset(self) -> None:
        """Forget everything: the next hop is the first of a stream."""
        for source in self._sources.values():
            source.reset()
        self._cutoff = _given_cutoff(self._board.get("cutoff_hz"))
        self._hops.join(
            0,
            list(range(self.channels)),
            native_hz=self._native_hz,
            f_target=self._f_target,
            cutoff=self._cutoff,
            expected_cutoff=self._expected_cutoff,
            colour=self._colour,
        )
        self._limiter_gain.fill(1.0)
        self._tone.reset()
        self._gate.reset()
        self._controls.reset()
        self.hop = 0
        self._remembered = 0
        # Where the tilt turns. While nothing is missing, which may begin with any hop, it stays.
        self._anchor_hz = self._native_hz
        self.gain = 1.0
        self.ceiling_hz = FULL_BAND_HZ
        self.seed: int | None = None
        self._colour_amount = 1.0
        self.level: str | None = None
        self._coming: str | None = None
        self._fed = 0

    def resume(self, hop: int, before: Audio) -> None:
        """Go on at another hop, because some were skipped or another worker took them.

        Args:
            hop: index of the next hop.
            before: ``(120, channels)``, the input just before it.
        """
        self.hop = hop
        self._hops.resume(0, before)
        self._remembered = 0
        for source in self._sources.values():
            source.resume(hop)

    def step(self, audio: Audio, out: Audio, level: str) -> None:
        """Enhance one hop ``(480, channels)`` into ``out``.

        Another fallback level than before is prepared first (going up over ``preroll_hops`` hops,
        going down at once) and then faded in within one hop. The very first hop starts with its
        level.

        Raises:
            ArgumentError: there is no such fallback level.
        """
        started = time.perf_counter_ns()
        controls = self._controls.advance()
        wet, level_db, tilt_db, ceiling_hz, gate_dbfs, colour, bypass, _, seed, cutoff_hz = controls
        if seed != self.seed:
            self.seed = int(seed)
            for source in self._sources.values():
                source.seed = self.seed
        cutoff = _given_cutoff(cutoff_hz)
        if cutoff != self._cutoff:
            self._cutoff = cutoff
            self._hops.set_cutoff(0, cutoff)
        self.ceiling_hz = ceiling_hz
        f_target = min(self._f_target, ceiling_hz)
        self._hops.set_target(0, f_target)
        self._hops.set_wet(0, wet * (1.0 - bypass))
        if colour != self._colour_amount:
            self._colour_amount = colour
            self._hops.set_colour_amount(0, colour)
        f_prior = self._hops.begin(audio)
        self._choose(level, f_target)

        degraded = self._statistics.degraded_blocks
        sounds = self._generate(audio, f_prior, f_target)
        if self._statistics.degraded_blocks != degraded:
            self._hops.clear_filter(0)
        # The gate follows the input also while there is nothing to let through.
        self._gate.apply(self._high_band, audio, gate_dbfs)
        self.gain = wet * (1.0 - bypass) * self._gate.share
        if sounds:
            if self._hops.is_missing(0):
                self._anchor_hz = self.cutoff_hz
            self._tone.shape(self._high_band, level_db, tilt_db, ceiling_hz, self._anchor_hz)
        else:
            self._tone.reset()
        self._hops.set_silent(0, not sounds)
        self._hops.set_coloured(0, self.level in self._coloured_levels)
        self._hops.finish(audio, self._high_band, out)
        if self._limiter:
            # What nothing was added to passes as it is, as long as it is within full scale.
            knee = KNEE if self.adds else 1.0
            self._statistics.limited_samples += limit(
                out, self._limiter_gain, knee, float(SAMPLE_RATE)
            )
        self._remember(audio, f_prior)
        self.hop += 1
        self._statistics.record_step(time.perf_counter_ns() - started)

    def _choose(self, level: str, f_target: float) -> None:
        """Begin, go on with, or give up a change of level."""
        if level not in self._rank:
            raise ArgumentError(
                f"There is no fallback level {level!r}; there are {', '.join(self._rank)}."
            )
        if self.level is None:
            self.level = level
        elif level == self.level:
            self._coming = None
        elif level != self._coming:
            self._coming = level
            self._fed = 0
            source = self._sources.get(level)
            if source is None:
                self._fed = self._preroll_hops
                return
            source.reset()
            source.resume(self.hop)
            # Down is where one goes when time is short, and to something cheaper: taking its past
            # in one go is less work than running the more expensive one for as long.
            if self.level is not None and self._rank[level] > self._rank[self.level]:
                self._replay(source, self._end_of(level, f_target))
                self._fed = self._preroll_hops

    def _generate(self, audio: Audio, f_prior: Audio, f_target: float) -> bool:
        """Fill the high band; false if there is none and none is left from before."""
        active = self._sources.get(self.level or DRY)
        present = self._silence
        if active is not None:
            present = active.generate(audio, f_prior, self._end_of(self.level, f_target))
        if self._coming is None:
            np.copyto(self._high_band, present)
            return active is not None
        following = self._sources.get(self._coming)
        new = self._silence
        if following is not None:
            new = following.generate(audio, f_prior, self._end_of(self._coming, f_target))
        if self._fed < self._preroll_hops:
            self._fed += 1
            np.copyto(self._high_band, present)
            return active is not None
        # Two sources' bands are alike in loudness but not in detail: powers add. Against nothing,
        # amplitudes.
        fade = crossfade_linear if active is None or following is None else crossfade_equal_power
        fade(present, new, self._high_band)
        self.level, self._coming = self._coming, None
        return True

    def _end_of(self, level: str | None, f_target: float) -> float:
        return min(f_target, self._ends_hz.get(level or DRY, f_target))

    def _remember(self, audio: Audio, f_prior: Audio) -> None:
        if self._replay_hops:
            place = self.hop % self._replay_hops
            self._past[place] = audio
            self._past_f_prior[place] = f_prior
            self._remembered += 1

    def _replay(self, source: HighBandSource, f_target: float) -> None:
        known = min(self._remembered, self._replay_hops)
        source.resume(self.hop - known)
        for hop in range(self.hop - known, self.hop):
            place = hop % self._replay_hops
            source.generate(self._past[place], self._past_f_prior[place], f_target)

    def _warm_up(self) -> None:
        """Go through every level and change once, so that the first real hop is like the others."""
        for level in self._rank:
            warm_up(partial(self.step, level=level), HOP, self.channels)
        self.reset()
        self._statistics.clear()


def _given_cutoff(control_hz: float) -> float | None:
    """Return the cutoff in Hz that a control asks for; ``None`` where it is to be measured."""
    return None if control_hz >= FULL_BAND_HZ else control_hz


def check_source(label: str, source: HighBandSource, channels: int) -> None:
    """Raise :class:`ArgumentError` for a source with other channels, hops or timing than needed.

    Args:
        label: what it is, as the subject of a sentence.
        source: to be used live.
        channels: of the session.
    """
    for what, found, wanted in (
        ("channels", source.channels, channels),
        ("hops per step", source.hops, 1),
        ("samples of overlap", source.overlap, OVERLAP),
    ):
        if found != wanted:
            raise ArgumentError(
                f"{label} has {found} {what}, the live engine needs {wanted}; use another model."
            )
