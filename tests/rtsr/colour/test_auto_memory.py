"""How much each second counts of what an AutoColour has heard, and of what it started from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from rtsr import AutoColour, Colour
from rtsr.colour.auto import EXCERPT_HOPS, Excerpt, Lesson
from rtsr.colour.bands import BANDS, CUTOFFS_HZ, colour_edges
from rtsr.timing import HOP

WEIGHTS = "a" * 64
HOPS = 120
SECONDS = HOPS * HOP / 48000
SOUND = (0.1 * np.random.default_rng(0).standard_normal((EXCERPT_HOPS * HOP, 1))).astype(np.float32)


class Says:
    """A learner that finds one gain, in dB, beyond each cutoff that an excerpt reaches."""

    model, weights_sha256 = "small", WEIGHTS

    def __init__(self) -> None:
        self.gains: Mapping[float, float] = {}

    def submit(self, auto: AutoColour, excerpt: Excerpt) -> bool:
        return False

    def study(self, excerpt: Excerpt, loudest_db: float) -> Lesson:
        errors = {
            cutoff_hz: (
                np.full((HOPS, BANDS), gain_db),
                np.tile(colour_edges()[:-1] >= 0.999 * cutoff_hz, (HOPS, 1)),
            )
            for cutoff_hz, gain_db in self.gains.items()
        }
        return Lesson(errors, -20.0, HOPS)


def hear(auto: AutoColour, excerpts: int, gains: Mapping[float, float]) -> None:
    learner = Says()
    learner.gains = gains
    auto.bind(learner)
    for _ in range(excerpts):
        auto.take(Excerpt(SOUND, 20000.0))


def top_gains(auto: AutoColour) -> dict[float, float]:
    """Mean of the six highest bands by cutoff, which lie beyond each."""
    assert auto.learnt is not None
    rows = np.array(auto.learnt.gains_db)[:, -6:].mean(axis=1)
    return dict(zip(CUTOFFS_HZ, rows.tolist(), strict=True))


def start(seconds: float, gain_db: float = 6.0) -> Colour:
    return Colour("small", WEIGHTS, seconds, ((gain_db,) * BANDS,) * len(CUTOFFS_HZ), (-30.0,) * 10)


def alike(gain_db: float) -> dict[float, float]:
    return dict.fromkeys(CUTOFFS_HZ, gain_db)


def test_each_cutoff_counts_what_was_heard_beyond_it() -> None:
    """Of a minute, one excerpt reached beyond 12 kHz: it changes a minute that is known little."""
    auto = AutoColour(start(60.0), waits=True)
    hear(auto, 1, {**alike(6.0), 12000.0: -6.0})
    hear(auto, 49, {cutoff: 6.0 for cutoff in CUTOFFS_HZ if cutoff < 12000.0})
    found = top_gains(auto)
    assert found[4000.0] == pytest.approx(5.9, abs=0.2)
    by_seconds = (60.0 * 6.0 - SECONDS * 6.0) / (60.0 + SECONDS)
    assert found[12000.0] == pytest.approx(by_seconds, abs=0.15)


def test_a_cutoff_of_which_nothing_new_was_heard_keeps_its_gains() -> None:
    auto = AutoColour(start(60.0), waits=True)
    hear(auto, 10, {4000.0: -6.0})
    found = top_gains(auto)
    assert found[12000.0] == found[8000.0] == 6.0
    assert found[4000.0] < 5.0


def test_what_was_known_before_counts_for_a_minute_at_most() -> None:
    found = []
    for seconds in (60.0, 6000.0):
        auto = AutoColour(start(seconds), waits=True)
        hear(auto, 50, alike(-6.0))
        found.append(top_gains(auto))
    assert found[0] == found[1]
    # As long as what is new, which is not quite sure.
    assert -1.0 < found[0][4000.0] < 1.0


def test_what_was_heard_more_than_a_minute_ago_fades() -> None:
    """After four more minutes of another sound the first minute is all but forgotten."""
    auto, other = AutoColour(waits=True), AutoColour(waits=True)
    hear(auto, 50, alike(6.0))
    assert top_gains(auto)[4000.0] > 5.0
    hear(auto, 200, alike(-6.0))
    hear(other, 200, alike(-6.0))
    assert auto.learnt is not None
    assert auto.learnt.seconds == pytest.approx(60.0, abs=0.1)
    assert top_gains(auto)[4000.0] == pytest.approx(top_gains(other)[4000.0], abs=0.35)
