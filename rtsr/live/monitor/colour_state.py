"""What a live session knows of its input's colour, for screens, pages and reports."""

from __future__ import annotations

from dataclasses import dataclass

from rtsr.colour.auto import AutoColour
from rtsr.colour.bands import CUTOFFS_HZ, colour_edges
from rtsr.colour.colour import Colour
from rtsr.timing import HOP, SAMPLE_RATE


@dataclass(frozen=True)
class ColourState:
    """A session's colour at one moment.

    Attributes:
        learns: whether it is learnt while the session runs.
        seconds: of sound that it rests on, what it started from included; 0 while nothing is known.
        learnt_seconds: of these, with sound, since the session started.
        skipped_seconds: of sound that was given up since then because learning was busy.
        share: how much of it is used, 0 to 1.
        gains_db: of the bands above the present cutoff, or above 4 kHz while nothing is missing.
        bands_hz: their edges, one more.
    """

    learns: bool
    seconds: float
    learnt_seconds: float
    skipped_seconds: float
    share: float
    gains_db: tuple[float, ...]
    bands_hz: tuple[float, ...]

    def in_words(self) -> str:
        """Return how much is known and used, as part of a sentence."""
        if not self.seconds:
            return "nothing learnt yet"
        skipped = f", {self.skipped_seconds:.0f} s skipped" if self.skipped_seconds else ""
        return f"{self.seconds:.1f} s learnt{skipped}, {100.0 * self.share:.0f} % used"


class ColourMonitor:
    """Tells the state of a session's colour, and counts what is learnt since the session started.

    Args:
        colour: given to a session that starts now; an ``AutoColour`` may come from an earlier one.
    """

    def __init__(self, colour: Colour | AutoColour) -> None:
        self._colour = colour
        self._learnt_before, self._skipped_before = _learnt_and_skipped(colour)

    def state(self, cutoff_hz: float, share: float) -> ColourState:
        """Return the state as of now.

        Args:
            cutoff_hz: where the content of the session's input ends.
            share: how much of the colour is used.
        """
        colour = self._colour
        known = colour.learnt if isinstance(colour, AutoColour) else colour
        learnt, skipped = _learnt_and_skipped(colour)
        seconds_per_hop = HOP / SAMPLE_RATE
        gains: tuple[float, ...] = ()
        bands: tuple[float, ...] = ()
        if known is not None:
            shown_hz = cutoff_hz if cutoff_hz <= CUTOFFS_HZ[-1] else CUTOFFS_HZ[0]
            edges = colour_edges()
            first = min(int((edges[1:] <= shown_hz).sum()), len(edges) - 2)
            gains = tuple(round(gain, 2) for gain in known.gains_at(shown_hz).tolist()[first:])
            bands = tuple(round(edge, 1) for edge in edges.tolist()[first:])
        return ColourState(
            learns=isinstance(colour, AutoColour),
            seconds=0.0 if known is None else round(known.seconds, 2),
            learnt_seconds=round((learnt - self._learnt_before) * seconds_per_hop, 2),
            skipped_seconds=round((skipped - self._skipped_before) * seconds_per_hop, 2),
            share=share,
            gains_db=gains,
            bands_hz=bands,
        )


def _learnt_and_skipped(colour: Colour | AutoColour) -> tuple[int, int]:
    """Hops that it was learnt from and that were given up, in all its life."""
    return (colour.learnt_hops, colour.skipped_hops) if isinstance(colour, AutoColour) else (0, 0)
