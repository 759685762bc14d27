"""Taking excerpts from a running stream while its content is wide."""

from __future__ import annotations

import collections
import math

import numpy as np
from numpy.typing import NDArray

from rtsr.colour.auto import EXCERPT_HOPS, LEAD_IN_HOPS, AutoColour, Excerpt
from rtsr.colour.bands import CUTOFFS_HZ
from rtsr.timing import HOP

Audio = NDArray[np.float32]

#: Content must reach beyond a cutoff by this factor, half an octave, to teach what lies above it.
LEAST_RATIO = 1.4

# A detector needs up to 0.9 s of sound to see that a band has become narrower, so an excerpt waits
# until so many hops with sound have followed it.
_PROVEN_HOPS = 120
# In a longer pause they are not waited for.
_MOST_WAITING = 2
# An excerpt with less sound is not worth the work.
_LEAST_SOUND_HOPS = 30
# The content of a stretch that was measured as growing or shrinking by less is the same.
_TOLERANCE = 1.05


class ExcerptCollector:
    """Cuts excerpts from one stream for its :class:`~rtsr.colour.auto.AutoColour`."""

    def __init__(self, auto: AutoColour) -> None:
        self._auto = auto
        self._sound: Audio = np.zeros((0, 1), np.float32)
        self._waiting: collections.deque[tuple[Excerpt, int]] = collections.deque()
        self._resting_hops = 0
        self._hops = 0
        self._sound_hops = 0
        self._own_hz = math.inf

    def add(self, hop: Audio, cutoff_hz: float, has_sound: bool) -> None:
        """Take the next hop ``(480,)`` of the stream.

        Args:
            hop: one channel at 48 kHz.
            cutoff_hz: where its content ends.
            has_sound: whether it is no pause.
        """
        while self._waiting and self._waiting[0][0].own_hz > cutoff_hz * _TOLERANCE:
            # Its end may have been narrow already.
            self._waiting.popleft()
        if self._hops and not cutoff_hz / _TOLERANCE <= self._own_hz <= cutoff_hz * _TOLERANCE:
            self._clear()
        if has_sound and self._waiting:
            self._let_go()
        if cutoff_hz < CUTOFFS_HZ[0] * LEAST_RATIO:
            return
        self._auto.heard_hops += 1
        if self._resting_hops:
            self._resting_hops -= 1
            return
        if not len(self._sound):
            self._sound = np.zeros((EXCERPT_HOPS * HOP, 1), np.float32)
        self._sound[self._hops * HOP : (self._hops + 1) * HOP, 0] = hop
        self._own_hz = min(self._own_hz, cutoff_hz)
        self._hops += 1
        self._sound_hops += has_sound and self._hops > LEAD_IN_HOPS
        if self._hops == EXCERPT_HOPS:
            self._finish()

    def break_off(self) -> None:
        """Begin anew behind a gap: what followed the excerpts that wait is not known."""
        self._clear()
        self._waiting.clear()

    def _clear(self) -> None:
        self._hops = 0
        self._sound_hops = 0
        self._own_hz = math.inf

    def _let_go(self) -> None:
        self._waiting = collections.deque((one, left - 1) for one, left in self._waiting)
        if self._waiting[0][1] <= 0:
            self._auto.take(self._waiting.popleft()[0])

    def _finish(self) -> None:
        tail = self._sound[-LEAD_IN_HOPS * HOP :].copy()
        own_hz, enough = self._own_hz, self._sound_hops >= _LEAST_SOUND_HOPS
        if enough:
            if len(self._waiting) < _MOST_WAITING:
                self._waiting.append((Excerpt(self._sound, own_hz), _PROVEN_HOPS))
            else:
                # The oldest are nearest to being known as wide.
                self._auto.skipped_hops += EXCERPT_HOPS - LEAD_IN_HOPS
            self._sound = np.zeros_like(self._sound)
        self._clear()
        rest = self._auto.rest if enough else 0
        if rest:
            self._resting_hops = rest * (EXCERPT_HOPS - LEAD_IN_HOPS) - LEAD_IN_HOPS
        else:
            self._sound[: len(tail)] = tail
            self._hops, self._own_hz = LEAD_IN_HOPS, own_hz
