"""Every artefact that is hunted: how it is measured, and how much of it is acceptable, and why."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtsr.errors import ArgumentError
from rtsr.quality.artefacts.buzz import buzz_index, hop_buzz_depth
from rtsr.quality.artefacts.edge import edge_above_db, edge_below_db
from rtsr.quality.artefacts.levels import mean_or_nan
from rtsr.quality.artefacts.onsets import pre_echo_db
from rtsr.quality.artefacts.pumping import pumping_db
from rtsr.quality.artefacts.sibilants import sibilant_level_db, sibilant_smear_db
from rtsr.quality.artefacts.silence import hiss_db
from rtsr.quality.artefacts.stereo import channel_difference_db, coherence_loss, image_shift_db
from rtsr.quality.evaluation import aligned_pair
from rtsr.spectra.stft import Signal

Measure = Callable[[Signal, Signal, float], float]


@dataclass(frozen=True)
class Artefact:
    """One measure and its limits.

    Attributes:
        measure: of (reference, output, cutoff_hz); its docstring is the definition.
        unit: ``"dB"`` or ``"ratio"``.
        lowest, highest: what is acceptable lies between them, ends included.
        meaning: a few words for a table.
        reason: where the limits come from.
        needs_stereo: whether the measure takes signals of shape (samples, 2), not (samples,).
    """

    measure: Measure
    unit: str
    lowest: float
    highest: float
    meaning: str
    reason: str
    needs_stereo: bool = False

    def accepts(self, value: float) -> bool:
        """Whether a value is acceptable; so is NaN, where there was nothing to measure."""
        return math.isnan(value) or self.excess(value) <= 0.0

    def excess(self, value: float) -> float:
        """By how much a value lies beyond the nearer limit; at most 0 where it is acceptable."""
        return max(value - self.highest, self.lowest - value)

    @property
    def limits(self) -> str:
        """The limits in words, for example ``-6 to 3``."""
        if math.isinf(self.lowest):
            return f"at most {self.highest:g}"
        return f"{self.lowest:g} to {self.highest:g}"


#: every artefact by name, in the order in which tables show them
ARTEFACTS: dict[str, Artefact] = {
    "hiss_db": Artefact(
        hiss_db,
        "dB",
        -math.inf,
        6.0,
        "high band in pauses above the original's",
        "The measure already forgives what is below -80 dBFS. A pause next to programme is partly "
        "masked; at four times the power the noise floor is audibly changed.",
    ),
    "sibilant_level_db": Artefact(
        sibilant_level_db,
        "dB",
        -6.0,
        3.0,
        "s and sh: positive is sharp, negative is a lisp",
        "A level difference of 1 dB is just audible side by side. De-essers take away 3 to 6 dB, "
        "so 3 dB too much is where engineers intervene, and 6 dB too little is an s at half its "
        "amplitude. Too much hurts, too little is only dull: the limits are not symmetric.",
    ),
    "sibilant_smear_db": Artefact(
        sibilant_smear_db,
        "dB",
        -math.inf,
        6.0,
        "high band in the 30 ms after an s",
        "The measure forgives what forward masking hides. A tail of four times the power lasts "
        "about 10 ms longer where a sibilant falls by 20 dB in 30 ms.",
    ),
    "edge_below_db": Artefact(
        edge_below_db,
        "dB",
        -2.0,
        2.0,
        "hole (-) or bump (+) in the 500 Hz below the cutoff",
        "2 dB in a band of about one critical band (450 to 900 Hz at 4 to 8 kHz) is a little more "
        "than the just noticeable difference of a profile's one component.",
    ),
    "edge_above_db": Artefact(
        edge_above_db,
        "dB",
        -2.0,
        2.0,
        "hole (-) or bump (+) in the 500 Hz above the cutoff",
        "As for edge_below_db.",
    ),
    "pre_echo_db": Artefact(
        pre_echo_db,
        "dB",
        -math.inf,
        6.0,
        "high band in the 10 ms before attacks",
        "Backward masking covers about the last 5 ms and the measure forgives 40 dB below the "
        "attack; 6 dB more than the original had before is audible as a softened attack.",
    ),
    "buzz_index": Artefact(
        buzz_index,
        "ratio",
        -math.inf,
        0.2,
        "flutter of steady partials, 30 to 300 Hz",
        "Noise in the place of a tone has 0.4, and a modulation of a tone is rough from about a "
        "third of full depth on (0.33 / sqrt 2 = 0.23).",
    ),
    "hop_buzz_depth": Artefact(
        hop_buzz_depth,
        "ratio",
        -math.inf,
        0.1,
        "flutter in step with the hop (100 Hz)",
        "Amplitude modulation of broadband noise is audible from a depth of about 0.1 on at 100 Hz "
        "and 0.2 at 400 Hz (Viemeister, JASA 66, 1979).",
    ),
    "pumping_db": Artefact(
        pumping_db,
        "dB",
        -math.inf,
        3.0,
        "slow swing of the high band's level",
        "3 dB rms are swings of +-4 dB at the rate of syllables: about the step from one fader "
        "position to another that is never made on purpose.",
    ),
    "channel_difference_db": Artefact(
        channel_difference_db,
        "dB",
        -math.inf,
        -90.0,
        "left minus right of a sound with equal channels",
        "Equal channels must stay equal; -90 dB leaves room for the rounding of a 16-bit file.",
        needs_stereo=True,
    ),
    "coherence_loss": Artefact(
        coherence_loss,
        "ratio",
        -math.inf,
        0.1,
        "left and right with different textures",
        "From full coherence a loss of a few hundredths is just audible as width; 0.1 is a source "
        "that is visibly wider, 1 two sources.",
        needs_stereo=True,
    ),
    "image_shift_db": Artefact(
        image_shift_db,
        "dB",
        -math.inf,
        1.5,
        "high band away from its place left to right",
        "The just noticeable level difference between the ears is 0.5 to 1 dB; the low band, which "
        "is untouched, holds the source in place.",
        needs_stereo=True,
    ),
}


def find_artefacts(
    reference: NDArray[np.floating],
    estimate: NDArray[np.floating],
    cutoff_hz: float,
    names: Sequence[str] | None = None,
) -> dict[str, float]:
    """Align an estimate with its reference, as :func:`rtsr.quality.evaluate` does, and measure.

    Args:
        reference: the original at 48 kHz, shape (samples,) or (samples, channels), full scale at 1.
        estimate: the processed signal, same channels.
        cutoff_hz: where the content of the processed system's *input* ended, in Hz.
        names: from :data:`ARTEFACTS`; ``None`` for all.

    Returns:
        one value per artefact, the mean over channels; NaN where the reference holds nothing to
        measure it on (no pause, no sibilant, no onset, no steady tone, not two channels).

    Raises:
        ArgumentError: a name is unknown, or the signals or the cutoff are not accepted.
    """
    chosen = list(ARTEFACTS) if names is None else list(names)
    unknown = [name for name in chosen if name not in ARTEFACTS]
    if unknown or not chosen:
        raise ArgumentError(
            f"There is no artefact named {', '.join(map(repr, unknown)) or 'nothing'}; "
            f"choose from {', '.join(ARTEFACTS)}."
        )
    reference, output = aligned_pair(reference, estimate, cutoff_hz)
    return {name: _measure(ARTEFACTS[name], reference, output, cutoff_hz) for name in chosen}


def _measure(artefact: Artefact, reference: Signal, output: Signal, cutoff_hz: float) -> float:
    channels = reference.shape[1]
    if artefact.needs_stereo:
        return artefact.measure(reference, output, cutoff_hz) if channels == 2 else math.nan
    values = [
        artefact.measure(reference[:, channel], output[:, channel], cutoff_hz)
        for channel in range(channels)
    ]
    return mean_or_nan([value for value in values if not math.isnan(value)])
