"""The colour of one running stream, used as far as the stream resembles what it was learnt from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtsr.colour.activity import SoundActivity
from rtsr.colour.auto import AutoColour
from rtsr.colour.colour import Colour
from rtsr.colour.excerpts import ExcerptCollector
from rtsr.colour.spectrum import REMEMBERED_SECONDS, LongTermSpectrum
from rtsr.timing import HOP, SAMPLE_RATE

Audio = NDArray[np.float32]

# One hop in so many tells of the spectrum, and fewer once it is known.
_LISTENED_EVERY, _LISTENED_EVERY_LATER = 4, 20
# The share moves in steps of this; a filter is designed for each.
_SHARE_STEP = 0.05


class StreamColour:
    """What is laid on the generated band of one stream.

    Args:
        given: the colour, as it was given to the stream.

    Attributes:
        given: likewise.
        present: what is to be laid on the next step; ``None`` where that is nothing.
    """

    def __init__(self, given: Colour | AutoColour) -> None:
        self.given = given
        self.present: Colour | None = None
        self._amount = 1.0
        self._auto = given if isinstance(given, AutoColour) else None
        self._collector = None if self._auto is None else ExcerptCollector(self._auto)
        self._source = given if isinstance(given, Colour) else given.learnt
        self._spectrum = LongTermSpectrum() if self._auto is None else self._auto.heard
        self._activity = SoundActivity()
        self._hops = 0
        self._cutoff_hz = SAMPLE_RATE / 2
        self._share = -1.0
        self._compare()

    @property
    def share(self) -> float:
        """How much of it is used, 0 to 1."""
        return 0.0 if self.present is None else self._share

    def renew(self, colour: Colour) -> None:
        """Go on with more that was learnt of the same source; what was heard stays known."""
        self.given = self._source = colour
        self._share = -1.0
        self._compare()

    def set_amount(self, amount: float) -> bool:
        """Set how much of it is wanted, 0 to 1; returns whether that makes a difference now."""
        self._amount = amount
        return self._choose()

    def may_skip(self, hops: int) -> bool:
        """Return whether it need not hear the next so many hops, which then count as heard."""
        if self._auto is not None:
            return False
        compares = self._source is not None and self._source.spectrum_db is not None
        if compares and self._hops % self._every + hops >= self._every:
            return False
        self._hops += hops
        return True

    def hear(self, audio: Audio, cutoffs_hz: Audio) -> bool:
        """Listen to the next step of the input; returns whether it makes a difference.

        Args:
            audio: ``(480 * hops, channels)`` at 48 kHz.
            cutoffs_hz: ``(hops,)``, where the content of each hop ends.
        """
        mono = audio[:, 0] if audio.shape[1] == 1 else audio.mean(axis=1)
        changed = False
        for number, cutoff_hz in enumerate(cutoffs_hz):
            hop = mono[number * HOP : (number + 1) * HOP]
            changed |= self._take_hop(hop, float(cutoff_hz))
        return changed

    def _take_hop(self, hop: Audio, cutoff_hz: float) -> bool:
        if self._collector is not None:
            self._collector.add(hop, cutoff_hz, self._activity.hop_has_sound(hop))
        every = self._every
        self._hops += 1
        is_newer = self._auto is not None and self._auto.learnt is not self._source
        if self._hops % every and not is_newer:
            return False
        if not self._hops % every:
            self._spectrum.add(hop, stands_for=every)
        if is_newer:
            assert self._auto is not None
            self._source = self._auto.learnt
            self._share = -1.0
        self._cutoff_hz = cutoff_hz
        return self._compare()

    def _compare(self) -> bool:
        """Find how much the stream resembles what the colour was learnt from."""
        source = self._source
        self._agreement = (
            0.0 if source is None else source.agreement(self._spectrum, self._cutoff_hz)
        )
        return self._choose()

    @property
    def _every(self) -> int:
        is_known = self._spectrum.seconds >= REMEMBERED_SECONDS
        return _LISTENED_EVERY_LATER if is_known else _LISTENED_EVERY

    def _choose(self) -> bool:
        """Find what is to be laid on; returns whether it is another than before."""
        share = round(round(self._amount * self._agreement / _SHARE_STEP) * _SHARE_STEP, 6)
        if share == self._share:
            return False
        self._share = share
        before = self.present
        source = self._source if share > 0.0 else None
        self.present = None if source is None else source.scaled(share)
        return self.present is not None or before is not None
