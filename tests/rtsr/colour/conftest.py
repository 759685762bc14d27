"""A full-band sound and a colour for these tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from rtsr import Colour
from rtsr.runtime.models import find_model

MakeColour = Callable[..., Colour]


@pytest.fixture
def make_colour() -> MakeColour:
    """``make_colour(gain_db, model="small", spectrum_db=None)``: one gain, or 24 of them."""

    def make(
        gain_db: float | np.ndarray = 6.0,
        model: object = "small",
        spectrum_db: tuple[float, ...] | None = None,
    ) -> Colour:
        facts = find_model(str(model)).metadata
        row = tuple(np.broadcast_to(np.asarray(gain_db, float), 24).tolist())
        return Colour(facts.name, facts.weights_sha256, 12.0, (row,) * 4, spectrum_db)

    return make


@pytest.fixture(scope="session")
def voice(make_sound: Callable[..., np.ndarray]) -> np.ndarray:
    """Eleven seconds ``(samples,)`` of full-band sound at 48 kHz."""
    sound = make_sound(48000, 11.0, seed=3)[:, 0]
    # The fixture's slope falls by 6 dB per octave from 100 Hz on: too steep for a top octave.
    return np.asarray(np.append(sound[0], sound[1:] - 0.8 * sound[:-1]) * 3.0, np.float32)
