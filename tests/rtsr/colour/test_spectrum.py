"""Telling sources apart by the long-term spectrum of their low band."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from rtsr.colour.spectrum import BANDS, EDGES_HZ, LongTermSpectrum, agreement, spectrum_of

FLAT = np.zeros(BANDS)
TILTED = np.linspace(-9.0, 9.0, BANDS)


@pytest.mark.parametrize("band", range(BANDS))
def test_a_tone_stands_in_its_band(band: int) -> None:
    hz = np.sqrt(EDGES_HZ[band] * EDGES_HZ[band + 1])
    tone = 0.5 * np.sin(2.0 * np.pi * hz * np.arange(24000) / 48000)
    spectrum = spectrum_of(tone[:, None].astype(np.float32))
    assert np.argmax(spectrum.levels_db) == band
    assert spectrum.levels_db.max() == pytest.approx(-6.0, abs=2.5)
    assert spectrum.seconds == pytest.approx(0.5)


def test_pauses_do_not_count() -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal((48000, 1)).astype(np.float32)
    with_pauses = np.concatenate([noise, 1e-4 * noise, np.zeros_like(noise)])
    assert spectrum_of(with_pauses).seconds == spectrum_of(noise).seconds == pytest.approx(1.0)
    np.testing.assert_allclose(spectrum_of(with_pauses).levels_db, spectrum_of(noise).levels_db)


def test_a_running_stream_forgets_who_spoke_before() -> None:
    random = np.random.default_rng(0)
    white = 0.1 * random.standard_normal((30, 480)).astype(np.float32)
    dull = np.apply_along_axis(lambda hop: np.convolve(hop, np.ones(40) / 10, "same"), 1, white)
    running, alone = LongTermSpectrum(1.0), LongTermSpectrum(1.0)
    for hop in white:
        running.add(hop, stands_for=4)
    for _ in range(10):
        for hop in dull.astype(np.float32):
            running.add(hop, stands_for=4)
            alone.add(hop, stands_for=4)
    assert running.seconds == 1.0
    np.testing.assert_allclose(running.levels_db, alone.levels_db, atol=0.1)


def test_one_source_agrees_with_itself_at_any_level_and_hardly_with_another() -> None:
    assert agreement(TILTED, 10.0, TILTED + 20.0, 5.0) > 0.95
    assert agreement(TILTED, 10.0, FLAT, 5.0) < 0.2
    assert 0.4 < agreement(TILTED, 10.0, 0.6 * TILTED, 5.0) < 0.9


def test_however_unlike_two_spectra_are_it_is_never_certain() -> None:
    shares = [agreement(factor * TILTED, 10.0, FLAT, 5.0) for factor in (1.0, 2.0, 5.0, 20.0)]
    assert shares == sorted(shares, reverse=True)
    assert 0.03 < shares[-1] < 0.1


def test_the_less_was_heard_the_less_is_said() -> None:
    seconds = (0.0, sys.float_info.min, 0.1, 1.0, 10.0)
    same = [agreement(TILTED, 10.0, TILTED, one) for one in seconds]
    other = [agreement(TILTED, 10.0, FLAT, one) for one in seconds]
    # A file may claim next to nothing.
    assert same[:2] == other[:2] == [0.5, 0.5]
    assert same == sorted(same)
    assert other[2:] == sorted(other[2:], reverse=True)


def test_what_lies_above_the_cutoff_is_not_compared() -> None:
    muffled = np.where(EDGES_HZ[1:] > 2000.0, TILTED - 60.0, TILTED)
    assert agreement(TILTED, 10.0, muffled, 5.0, 4000.0) < 0.1
    assert agreement(TILTED, 10.0, muffled, 5.0, 2000.0) > 0.9
    assert agreement(TILTED, 10.0, FLAT, 5.0, 600.0) == 0.5
