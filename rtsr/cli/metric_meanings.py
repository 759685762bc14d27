"""What each metric tells, and which way is better, for whoever reads a table of them."""

from __future__ import annotations

from typing import NamedTuple

HIGHER, LOWER, NEAR_ZERO = "higher", "lower", "near zero"
_IN_WORDS = {HIGHER: "higher is better", LOWER: "lower is better", NEAR_ZERO: "0 is right"}


class Meaning(NamedTuple):
    """Of one metric.

    Attributes:
        text: what it tells.
        better: ``HIGHER``, ``LOWER`` or ``NEAR_ZERO``.
        decimals: that are worth reading.
    """

    text: str
    better: str
    decimals: int

    @property
    def in_words(self) -> str:
        """What it tells and which way is better."""
        return f"{self.text} ({_IN_WORDS[self.better]})"


MEANINGS = {
    "visqol": Meaning("listening score, 1 to 4.73", HIGHER, 2),
    "lsd": Meaning("log-spectral distance, log10 of power", LOWER, 2),
    "lsd_lf": Meaning("lsd below the cutoff", LOWER, 2),
    "lsd_hf": Meaning("lsd above the cutoff", LOWER, 2),
    "lsd_near": Meaning("lsd from the cutoff to twice the cutoff", LOWER, 2),
    "mel_hf": Meaning("log10 mel magnitude error above the cutoff", LOWER, 3),
    "hf_bias_db": Meaning("level of the high band against the original", NEAR_ZERO, 1),
    "hf_envelope_db": Meaning("variation of the high band's level error over time", LOWER, 2),
    "lf_sisdr": Meaning("low band kept intact, in dB", HIGHER, 1),
    "lf_gain_db": Meaning("level of the low band against the original", NEAR_ZERO, 3),
    "silence_dbfs": Meaning("level where the original is silent", LOWER, 1),
    "level_bias_db": Meaning("mean error of the levels of 24 bands above the cutoff", LOWER, 1),
    "level_wander_db": Meaning("variation over time of the level errors of 24 bands", LOWER, 1),
    "level_bias_loud_db": Meaning("level_bias_db where the high band is loudest", LOWER, 1),
    "level_wander_loud_db": Meaning("level_wander_db where the high band is loudest", LOWER, 1),
    "level_loud_db": Meaning("mean level error where the high band is loudest", NEAR_ZERO, 1),
    "level_octave1_db": Meaning("level of the first octave above the cutoff", NEAR_ZERO, 1),
    "level_octave2_db": Meaning("level of the second octave above the cutoff", NEAR_ZERO, 1),
    "level_octave3_db": Meaning("level of the third octave above the cutoff", NEAR_ZERO, 1),
}
