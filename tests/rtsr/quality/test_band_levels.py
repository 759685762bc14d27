"""Known answers for the levels of bands: one tone per band, each with a gain that is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rtsr.errors import ArgumentError
from rtsr.quality import METRICS, evaluate
from rtsr.quality.band_levels import BAND_LEVELS, BANDS, band_edges, band_levels
from rtsr.quality.evaluation import check_metrics

RATE = 48000
CUTOFF = 4000.0
SECONDS = 8.0
TIME = np.arange(round(SECONDS * RATE)) / RATE
EDGES = band_edges(CUTOFF)
CENTRES = 0.5 * (EDGES[:-1] + EDGES[1:])
#: Bands centred in the octaves above the cutoff.
OCTAVES = [np.floor(np.log2(CENTRES / CUTOFF)) == octave for octave in range(3)]


def tones(gains_db: np.ndarray | float = 0.0, when: np.ndarray | float = 0.0) -> np.ndarray:
    """A tone of -40 dB in the middle of each band, changed by a gain per band and one per sample.

    What two neighbouring tones spill into each other's band lies 60 dB below them.
    """
    gains = np.broadcast_to(gains_db, (BANDS,))
    total = sum(
        10.0 ** (gain / 20.0) * np.sin(2.0 * np.pi * hz * TIME + 2.0 * number**2)
        for number, (hz, gain) in enumerate(zip(CENTRES, gains, strict=True))
    )
    return 0.01 * total * 10.0 ** (np.asarray(when) / 20.0)


def after(seconds: float, gain_db: float) -> np.ndarray:
    """A gain per sample that sets in after some time."""
    return np.where(seconds <= TIME, gain_db, 0.0)


def test_identical_signals_are_perfect() -> None:
    assert band_levels(tones(), tones(), CUTOFF) == dict.fromkeys(BAND_LEVELS, 0.0)


def test_bands_are_evenly_spaced_on_the_mel_scale_up_to_24_khz() -> None:
    mel = 2595.0 * np.log10(1.0 + EDGES / 700.0)
    assert np.diff(mel) == pytest.approx(np.full(BANDS, np.diff(mel)[0]))
    assert EDGES[[0, -1]] == pytest.approx([CUTOFF, 24000.0])
    assert band_edges(CUTOFF, 32000)[-1] == pytest.approx(16000.0)


def test_a_gain_per_band_is_bias_and_nothing_else() -> None:
    gains = np.linspace(-9.0, 6.0, BANDS)
    found = band_levels(tones(), tones(gains), CUTOFF)
    assert found["level_bias_db"] == pytest.approx(np.abs(gains).mean(), abs=0.01)
    assert found["level_bias_loud_db"] == pytest.approx(np.abs(gains).mean(), abs=0.01)
    assert found["level_loud_db"] == pytest.approx(gains.mean(), abs=0.01)
    assert found["level_wander_db"] == pytest.approx(0.0, abs=0.02)
    assert found["level_wander_loud_db"] == pytest.approx(0.0, abs=0.02)


def test_each_octave_has_its_own_level() -> None:
    gains = OCTAVES[0] * 2.0 + OCTAVES[1] * -5.0 + OCTAVES[2] * -12.0
    found = band_levels(tones(), tones(gains), CUTOFF)
    levels = [found[f"level_octave{number}_db"] for number in (1, 2, 3)]
    assert levels == pytest.approx([2.0, -5.0, -12.0], abs=0.05)


def test_an_octave_is_a_sum_of_energies() -> None:
    """Its loudest band says most: 20 dB above the others it is worth 100 of them."""
    loud = np.zeros(BANDS)
    loud[2] = 20.0
    changed = loud.copy()
    changed[2] += 6.0
    ratio = (100.0 * 10**0.6 + OCTAVES[0].sum() - 1) / (100.0 + OCTAVES[0].sum() - 1)
    found = band_levels(tones(loud), tones(changed), CUTOFF)
    assert found["level_octave1_db"] == pytest.approx(10 * math.log10(ratio), abs=0.02)
    assert found["level_bias_db"] == pytest.approx(6.0 / BANDS, abs=0.02)


def test_a_level_that_swings_is_wander_and_nothing_else() -> None:
    swing = 5.0 * np.sin(2.0 * np.pi * 0.5 * TIME)
    found = band_levels(tones(), tones(when=swing), CUTOFF)
    # 801 frames see four periods and one instant: the mean of a sine over them is 0
    assert found["level_wander_db"] == pytest.approx(5.0 / math.sqrt(2.0), abs=0.02)
    assert found["level_bias_db"] == pytest.approx(0.0, abs=0.02)
    half = band_levels(tones(), tones(3.0, when=after(4.0, -6.0)), CUTOFF)
    assert half["level_wander_db"] == pytest.approx(3.0, abs=0.05)
    assert half["level_bias_db"] == pytest.approx(0.0, abs=0.05)


def test_the_loudest_quarter_is_told_apart() -> None:
    """The last 3 of 8 s are 20 dB louder; the estimate is 6 dB too quiet there and nowhere else."""
    reference = tones(when=after(5.0, 20.0))
    found = band_levels(reference, tones(when=after(5.0, 14.0)), CUTOFF)
    assert found["level_loud_db"] == pytest.approx(-6.0, abs=0.02)
    assert found["level_bias_loud_db"] == pytest.approx(6.0, abs=0.02)
    assert found["level_wander_loud_db"] == pytest.approx(0.0, abs=0.02)
    assert found["level_bias_db"] == pytest.approx(6.0 * 3 / 8, abs=0.05)
    assert found["level_wander_db"] == pytest.approx(6.0 * math.sqrt(15) / 8, abs=0.05)
    # by the high band, whatever the low band does meanwhile
    low = 0.3 * np.sin(2 * np.pi * 500.0 * TIME) * (TIME < 4.0)
    loud_below = band_levels(low + reference, low + tones(when=after(5.0, 14.0)), CUTOFF)
    assert loud_below["level_loud_db"] == pytest.approx(-6.0, abs=0.02)


def test_what_lies_above_the_end_of_the_reference_is_not_judged() -> None:
    """Noise that ends at 12 kHz; the estimate is 6 dB too loud below and full of noise above."""
    spectrum = np.fft.rfft(np.random.default_rng(1).normal(size=TIME.size) * 0.05)
    hz = np.fft.rfftfreq(TIME.size, 1 / RATE)
    reference = np.fft.irfft(np.where(hz < 12000, spectrum, 0), TIME.size)
    estimate = np.fft.irfft(spectrum * np.where(hz < 12000, 2.0, 30.0), TIME.size)
    found = band_levels(reference, estimate, CUTOFF)
    # the last evaluated band reaches over the end by a part of its width, hence the tolerance
    assert found["level_octave1_db"] == pytest.approx(6.02, abs=0.05)
    assert found["level_loud_db"] == pytest.approx(6.02, abs=1.0)
    assert math.isnan(found["level_octave3_db"])
    beyond = band_levels(reference, estimate, 13000.0)
    assert all(math.isnan(value) for value in beyond.values())


def test_silence_is_not_judged_and_a_missing_band_does_not_rule() -> None:
    reference = tones()
    reference[TIME < 4.0] = 0.0
    noisy = reference + 0.001 * np.random.default_rng(2).normal(size=reference.size) * (TIME < 3.9)
    assert band_levels(reference, noisy, CUTOFF)["level_bias_db"] == pytest.approx(0.0, abs=0.1)
    # 40 dB at most, and not the 60 dB from the tones to the clamp
    missing = band_levels(tones(), np.zeros_like(reference), CUTOFF)
    assert missing["level_bias_db"] == pytest.approx(40.0)
    assert missing["level_loud_db"] == pytest.approx(-40.0)
    assert missing["level_wander_db"] == pytest.approx(0.0)
    nothing = band_levels(np.zeros_like(reference), noisy, CUTOFF)
    assert all(math.isnan(value) for value in nothing.values())


def test_frames_40_db_below_the_loudest_are_not_judged() -> None:
    reference = tones(when=after(4.0, -45.0))
    assert band_levels(reference, tones(when=after(4.0, -5.0)), CUTOFF)[
        "level_bias_db"
    ] == pytest.approx(0.0, abs=0.3)
    reference = tones(when=after(4.0, -35.0))
    found = band_levels(reference, tones(when=after(4.0, -25.0)), CUTOFF)
    assert found["level_bias_db"] == pytest.approx(5.0, abs=0.1)


@pytest.mark.parametrize("cutoff", [500.0, 12000.0, 20000.0, 23000.0])
def test_every_cutoff_has_bands(cutoff: float) -> None:
    """Up to where a band is narrower than a bin of the transform."""
    reference = np.random.default_rng(3).normal(size=2 * RATE) * 0.05
    found = band_levels(reference, reference / 2.0, cutoff)
    for name in ("level_bias_db", "level_bias_loud_db"):
        assert found[name] == pytest.approx(6.02, abs=0.01)
    assert found["level_octave1_db"] == pytest.approx(-6.02, abs=0.01)
    assert math.isnan(found["level_octave2_db"]) == (cutoff >= 12000.0)


def test_the_group_stands_for_its_metrics() -> None:
    assert check_metrics(["lsd", "band_levels"]) == ("lsd", *BAND_LEVELS)
    assert check_metrics(["level_loud_db", "band_levels"])[0] == "level_loud_db"
    assert set(BAND_LEVELS) <= set(METRICS)
    found = evaluate(tones(), tones(-3.0), CUTOFF, ["band_levels"])
    assert found["level_loud_db"] == pytest.approx(-3.0, abs=0.01)
    with pytest.raises(ArgumentError, match="band_levels for all"):
        check_metrics(["level"])


def test_channels_are_averaged_where_they_are_defined() -> None:
    reference = np.stack([tones(), tones(), np.zeros_like(TIME)], axis=1)
    estimate = reference * [1.0, 0.5, 1.0]
    found = evaluate(reference, estimate, CUTOFF, ["level_loud_db"])
    assert found == {"level_loud_db": pytest.approx(-3.01, abs=0.01)}


def test_every_value_is_defined_in_words() -> None:
    assert band_levels.__doc__ is not None
    for name in BAND_LEVELS:
        assert f"``{name}``" in band_levels.__doc__
