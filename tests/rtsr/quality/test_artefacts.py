"""Artefacts put in with a known size are found with that size; clean sound has none."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from rtsr.errors import ArgumentError
from rtsr.quality import ARTEFACTS, find_artefacts

RATE = 48000
CUTOFF = 4000.0
Sound = np.ndarray


def noise(seconds: float = 4.0, seed: int = 0, level: float = 0.03) -> Sound:
    return np.random.default_rng(seed).normal(size=round(seconds * RATE)) * level


def time_of(sound: Sound) -> Sound:
    return np.arange(len(sound)) / RATE


def band(sound: Sound, low_hz: float, high_hz: float = math.inf) -> Sound:
    spectrum = np.fft.rfft(sound, axis=0)
    frequency = np.fft.rfftfreq(len(sound), 1 / RATE)
    spectrum[(frequency < low_hz) | (frequency >= high_hz)] = 0
    return np.fft.irfft(spectrum, len(sound), axis=0)


def with_high_band(sound: Sound, change: Callable[[Sound], Sound], cutoff: float = CUTOFF) -> Sound:
    high = band(sound, cutoff)
    return sound - high + change(high)


def gain(decibel: float | Sound) -> float | Sound:
    return 10 ** (np.asarray(decibel) / 20)


def partials(seconds: float = 4.0) -> Sound:
    """Tones above the cutoff, 1.5 kHz apart: steady, and each alone in its band."""
    time = np.arange(round(seconds * RATE)) / RATE
    tones = [np.sin(2 * np.pi * hz * time) for hz in (500.0, *np.arange(5000.0, 19000.0, 1500.0))]
    return 0.02 * np.sum(tones, axis=0)


def bursts(seconds: float = 4.0, every: float = 0.4, length: float = 0.1) -> Sound:
    """Noise between pauses that are soft but not silent."""
    sound = noise(seconds, seed=1)
    on = (time_of(sound) % every) < length
    return sound * np.where(on, 1.0, 1e-3)


def sibilants(seconds: float = 4.0) -> Sound:
    """A hum throughout, and every 0.5 s 150 ms of noise from 4 to 12 kHz."""
    sound = band(noise(seconds, seed=2, level=0.1), 4000, 12000)
    on = (time_of(sound) % 0.5) < 0.15
    return sound * np.where(on, 1.0, 1e-4) + 0.01 * np.sin(2 * np.pi * 300 * time_of(sound))


def measure(name: str, reference: Sound, output: Sound, cutoff: float = CUTOFF) -> float:
    return ARTEFACTS[name].measure(reference, output, cutoff)


MAKE: dict[str, Callable[[], Sound]] = {
    "hiss_db": bursts,
    "sibilant_level_db": sibilants,
    "sibilant_smear_db": sibilants,
    "edge_below_db": noise,
    "edge_above_db": noise,
    "pre_echo_db": bursts,
    "buzz_index": partials,
    "hop_buzz_depth": noise,
    "pumping_db": noise,
    "channel_difference_db": lambda: np.outer(noise(), (1.0, 1.0)),
    "coherence_loss": lambda: np.outer(noise(), (0.9, 0.3)),
    "image_shift_db": lambda: np.outer(noise(), (0.9, 0.3)),
}


@pytest.mark.parametrize("name", ARTEFACTS)
def test_the_reference_itself_has_no_artefact(name: str) -> None:
    reference = MAKE[name]()
    value = measure(name, reference, reference)
    expected = -120.0 if name == "channel_difference_db" else 0.0
    assert value == pytest.approx(expected, abs=1e-6)
    assert ARTEFACTS[name].accepts(value)


@pytest.mark.parametrize("name", ARTEFACTS)
def test_silence_cannot_be_judged_and_breaks_nothing(name: str) -> None:
    silence = np.zeros((RATE, 2) if ARTEFACTS[name].needs_stereo else RATE)
    value = measure(name, silence, silence)
    assert math.isnan(value) or value == 0.0
    assert ARTEFACTS[name].accepts(value)


@pytest.mark.parametrize("added_dbfs", [-70.0, -50.0])
def test_hiss_in_digital_silence(added_dbfs: float) -> None:
    reference = noise()
    reference[RATE : 3 * RATE] = 0.0
    hiss = band(noise(seed=7, level=1.0), CUTOFF)
    # a full-scale sine has a mean square of one half
    hiss *= gain(added_dbfs) * math.sqrt(0.5) / hiss.std()
    assert measure("hiss_db", reference, reference + hiss) == pytest.approx(
        added_dbfs + 80.0, abs=0.3
    )


def test_hiss_where_the_reference_is_silent_throughout() -> None:
    hiss = band(noise(seed=7, level=1.0), CUTOFF)
    hiss *= gain(-50.0) * math.sqrt(0.5) / hiss.std()
    assert measure("hiss_db", np.zeros_like(hiss), hiss) == pytest.approx(30.0, abs=0.3)
    assert measure("hiss_db", np.zeros_like(hiss), np.zeros_like(hiss)) == 0.0


def test_hiss_over_a_floor_that_the_reference_has() -> None:
    sound = noise(level=0.2)
    fall = np.where(np.arange(4 * RATE) < 2 * RATE, 1.0, 0.003)
    for decibel in (12.0, -6.0):
        output = with_high_band(sound, lambda high, by=decibel: high * gain(by)) * fall
        assert measure("hiss_db", sound * fall, output) == pytest.approx(decibel, abs=0.2)


def test_hiss_that_nobody_hears_counts_nothing() -> None:
    reference = noise()
    reference[RATE:] = 0.0
    assert measure("hiss_db", reference, reference + noise(seed=3, level=2e-5)) == 0.0


def test_sound_without_a_pause_cannot_hiss() -> None:
    assert math.isnan(measure("hiss_db", noise(), noise(seed=1)))


@pytest.mark.parametrize("decibel", [-9.0, 5.0])
@pytest.mark.parametrize("cutoff", [4000.0, 8000.0])
def test_sibilants_at_another_level(decibel: float, cutoff: float) -> None:
    reference = sibilants()
    output = with_high_band(reference, lambda high: high * gain(decibel), cutoff)
    value = measure("sibilant_level_db", reference, output, cutoff)
    assert value == pytest.approx(decibel, abs=0.3)


def test_vowels_are_no_sibilants() -> None:
    vowel = band(noise(), 100, 3000) + 0.1 * noise(seed=5)
    assert math.isnan(measure("sibilant_level_db", vowel, vowel))
    assert math.isnan(measure("sibilant_smear_db", vowel, vowel))


@pytest.mark.parametrize("tail_db", [-20.0, -10.0])
def test_a_sibilant_that_rings_on(tail_db: float) -> None:
    reference = sibilants()
    # the reference falls by 80 dB, and forward masking hides what is 30 dB below the sibilant
    tail = band(noise(seed=2, level=0.1), 4000, 12000) * gain(tail_db)
    after = (time_of(reference) % 0.5 >= 0.15) & (time_of(reference) % 0.5 < 0.25)
    value = measure("sibilant_smear_db", reference, reference + tail * after)
    assert value == pytest.approx(tail_db + 30.0, abs=1.0)
    assert measure("sibilant_level_db", reference, reference + tail * after) == pytest.approx(
        0, abs=0.1
    )


@pytest.mark.parametrize(
    ("low", "high", "below", "above"),
    [(3500, 4000, -6.0, 0.0), (4000, 4500, 0.0, -6.0), (3500, 4500, 6.0, 6.0)],
)
def test_a_hole_or_a_bump_at_the_cutoff(low: int, high: int, below: float, above: float) -> None:
    reference = noise()
    output = reference + band(reference, low, high) * (gain(below or above) - 1)
    # a Hann window lets a little of the neighbour into a hole
    assert measure("edge_below_db", reference, output) == pytest.approx(below, abs=0.4)
    assert measure("edge_above_db", reference, output) == pytest.approx(above, abs=0.4)


@pytest.mark.parametrize("decibel", [-26.0, -14.0])
def test_pre_echo(decibel: float) -> None:
    reference = bursts()
    time = time_of(reference) % 0.4
    early = np.where((time >= 0.4 - 0.012) & (time < 0.4), 1.0, 0.0)
    echo = band(noise(seed=9), CUTOFF) * gain(decibel) * early
    # the pause lies 60 dB below the burst, of which 40 count
    assert measure("pre_echo_db", reference, reference + echo) == pytest.approx(
        40 + decibel, abs=1.0
    )


def test_an_echo_after_the_attack_is_no_pre_echo() -> None:
    reference = bursts()
    later = with_high_band(reference, lambda high: high + 0.5 * np.roll(high, 480))
    assert measure("pre_echo_db", reference, later) == pytest.approx(0.0, abs=0.5)


@pytest.mark.parametrize("depth", [0.3, 0.8])
@pytest.mark.parametrize("hz", [70.0, 150.0])
def test_buzz_of_steady_partials(depth: float, hz: float) -> None:
    reference = partials()
    flutter = 1 + depth * np.cos(2 * np.pi * hz * time_of(reference))
    value = measure("buzz_index", reference, with_high_band(reference, lambda high: high * flutter))
    # the 2 ms of the envelope's own window weaken fast flutter a little
    assert value == pytest.approx(depth / math.sqrt(2), rel=0.15)
    assert value < depth / math.sqrt(2) * 1.02


def test_noise_in_the_place_of_tones_is_rough() -> None:
    reference = partials()
    foggy = with_high_band(reference, lambda high: band(noise(level=0.1), CUTOFF))
    assert measure("buzz_index", reference, foggy) == pytest.approx(0.4, abs=0.05)


def test_noise_for_noise_is_no_buzz() -> None:
    assert math.isnan(measure("buzz_index", noise(), noise(seed=4)))


@pytest.mark.parametrize("hz", [100.0, 200.0])
@pytest.mark.parametrize("depth", [0.15, 0.5])
def test_buzz_in_step_with_the_hop(hz: float, depth: float) -> None:
    reference = noise(6.0)
    other = with_high_band(reference, lambda high: band(noise(6.0, seed=8), CUTOFF))
    flutter = 1 + depth * np.cos(2 * np.pi * hz * time_of(reference))
    buzzing = with_high_band(other, lambda high: high * flutter)
    assert measure("hop_buzz_depth", reference, buzzing) == pytest.approx(depth, rel=0.2)
    # what the reference has itself is no artefact
    assert (
        measure("hop_buzz_depth", with_high_band(reference, lambda h: h * flutter), buzzing) < 0.06
    )


def test_flutter_out_of_step_with_the_hop_is_none_of_it() -> None:
    reference = noise(6.0)
    flutter = 1 + 0.5 * np.cos(2 * np.pi * 113.7 * time_of(reference))
    other = with_high_band(reference, lambda high: band(noise(6.0, seed=8), CUTOFF) * flutter)
    assert measure("hop_buzz_depth", reference, other) < 0.03


@pytest.mark.parametrize("hz", [1.0, 4.0])
def test_pumping(hz: float) -> None:
    reference = noise(6.0)
    swing = gain(5.0 * np.sin(2 * np.pi * hz * time_of(reference)))
    value = measure("pumping_db", reference, with_high_band(reference, lambda high: high * swing))
    assert value == pytest.approx(5.0 / math.sqrt(2), rel=0.1)


def test_a_high_band_that_is_only_too_soft_or_too_calm_does_not_pump() -> None:
    swing = gain(8.0 * np.sin(2 * np.pi * 2.0 * time_of(noise(6.0))))
    reference = with_high_band(noise(6.0), lambda high: high * swing)
    softer = with_high_band(reference, lambda high: high * gain(-9))
    calmer = with_high_band(reference, lambda high: high / swing**0.7)
    assert measure("pumping_db", reference, softer) < 0.3
    assert measure("pumping_db", reference, calmer) < 0.3


def test_very_fast_swings_are_not_pumping() -> None:
    reference = noise(6.0)
    fast = 1 + 0.5 * np.sin(2 * np.pi * 30 * time_of(reference))
    assert (
        measure("pumping_db", reference, with_high_band(reference, lambda high: high * fast)) < 0.3
    )


def test_equal_channels_that_became_different() -> None:
    reference = np.outer(noise(), (1.0, 1.0))
    split = reference.copy()
    split[:, 1] = with_high_band(reference[:, 1], lambda high: band(noise(seed=6), CUTOFF))
    assert measure("channel_difference_db", reference, split) == pytest.approx(0.0, abs=0.3)
    tilted = np.stack([reference[:, 0], reference[:, 1] * 1.02], axis=1)
    # (1.02 - 1) / (1.02 + 1) of the sum
    assert measure("channel_difference_db", reference, tilted) == pytest.approx(-40.1, abs=0.1)
    assert math.isnan(measure("channel_difference_db", np.outer(noise(), (0.9, 0.3)), reference))


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_panned_sound_with_two_textures(share: float) -> None:
    reference = np.outer(noise(), (0.9, 0.3))
    output = reference.copy()
    output[:, 1] = with_high_band(
        reference[:, 1],
        lambda high: (
            math.sqrt(1 - share) * high + math.sqrt(share) * 0.3 * band(noise(seed=6), CUTOFF)
        ),
    )
    expected = 1 - math.sqrt(1 - share)
    assert measure("coherence_loss", reference, output) == pytest.approx(expected, abs=0.03)
    assert measure("image_shift_db", reference, output) < 0.3


def test_a_high_band_in_another_place() -> None:
    reference = np.outer(noise(), (0.9, 0.3))
    output = reference.copy()
    output[:, 1] = with_high_band(reference[:, 1], lambda high: high * gain(4))
    assert measure("image_shift_db", reference, output) == pytest.approx(4.0, abs=0.2)
    assert measure("image_shift_db", reference, 0.5 * reference) == pytest.approx(0.0, abs=1e-9)
    assert measure("coherence_loss", reference, output) < 0.01


def test_find_artefacts_aligns_and_judges_channels() -> None:
    stereo = np.outer(bursts(), (0.9, 0.3))
    late = np.concatenate([np.zeros((600, 2)), stereo])
    found = find_artefacts(stereo, late, CUTOFF)
    assert list(found) == list(ARTEFACTS)
    assert found["pre_echo_db"] == pytest.approx(0.0, abs=1e-9)
    assert found["coherence_loss"] == pytest.approx(0.0, abs=1e-9)
    mono = find_artefacts(stereo[:, 0], stereo[:, 0], CUTOFF, ["coherence_loss", "hiss_db"])
    assert math.isnan(mono["coherence_loss"])
    assert mono["hiss_db"] == 0.0


def test_find_artefacts_refuses_in_one_sentence() -> None:
    with pytest.raises(ArgumentError, match="no artefact named 'crackle'"):
        find_artefacts(noise(), noise(), CUTOFF, ["crackle"])
    with pytest.raises(ArgumentError, match="no artefact named nothing"):
        find_artefacts(noise(), noise(), CUTOFF, [])
    with pytest.raises(ArgumentError, match="between 500 and 23000"):
        find_artefacts(noise(), noise(), 100.0)
    with pytest.raises(ArgumentError, match="channels"):
        find_artefacts(noise(), np.outer(noise(), (1, 1)), CUTOFF)


@pytest.mark.parametrize("samples", [480, 4800, 30000])
@pytest.mark.parametrize("cutoff", [500.0, 23000.0])
def test_short_sounds_and_extreme_cutoffs(samples: int, cutoff: float) -> None:
    sound = noise()[:samples]
    for name, value in find_artefacts(sound, sound, cutoff).items():
        assert math.isnan(value) or value == pytest.approx(0.0, abs=1e-9), name


def test_limits_are_wide_enough_for_zero_and_said_in_words() -> None:
    for artefact in ARTEFACTS.values():
        assert artefact.accepts(math.nan)
        assert not artefact.accepts(artefact.highest + 0.01)
        assert artefact.excess(artefact.highest + 1.0) == pytest.approx(1.0)
        assert artefact.reason
    assert ARTEFACTS["edge_below_db"].limits == "-2 to 2"
    assert not ARTEFACTS["edge_below_db"].accepts(-2.1)
    assert ARTEFACTS["hiss_db"].limits == "at most 6"
    assert ARTEFACTS["hiss_db"].accepts(-60.0)
