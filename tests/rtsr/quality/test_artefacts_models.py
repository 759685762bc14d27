"""Artefacts of the shipped models on real recordings, and that damage on top of them is found.

Real files in, real files out: the packaged demo clips from 8 kHz. Where a model misses a limit of
:data:`rtsr.quality.ARTEFACTS`, the figure stands in ``MISSES`` and may only get better.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtsr import enhance_file
from rtsr.quality import ARTEFACTS, find_artefacts
from rtsr.quality.audio import read_audio
from rtsr.quality.metrics import lf_gain_db, lf_sisdr

DEMO = Path(__file__).parents[3] / "rtsr" / "demo_data"
RATE = 48000
CUTOFF = 4000.0
MODELS = ("small", "replicate")
CLIPS = ("speech", "music")
STEREO = ("channel_difference_db", "coherence_loss", "image_shift_db")
Sound = np.ndarray

# Measured, and beyond what is acceptable. An s whose energy begins above 4 kHz leaves little in the
# input to be guessed from, and slow swings follow from wrong guesses; and where tones were there
# is some noise. Whoever ships better weights lowers these figures or takes them out.
MISSES: dict[tuple[str, str], dict[str, float]] = {
    # Weights with free bins had a lower index, 0.233 and 0.214: a comb that stands still counts as
    # steady, wherever the pitch goes.
    ("speech", "small"): {
        "sibilant_level_db": -10.97,
        "buzz_index": 0.250,
        "pumping_db": 5.01,
    },
    # Half-way to what is predicted for music, which is quieter there.
    ("music", "small"): {"edge_above_db": -2.02},
    ("speech", "replicate"): {
        "sibilant_level_db": -17.2,
        "pre_echo_db": 6.61,
        "buzz_index": 0.401,
        "pumping_db": 5.20,
    },
}


def holds(clip: str, model: str, name: str, value: float) -> bool:
    """Within the limit, or not worse than what is known to miss it (5 % for other processors)."""
    artefact = ARTEFACTS[name]
    known = MISSES.get((clip, model), {}).get(name, math.nan)
    allowed = artefact.excess(known) + 0.05 * abs(known)
    return artefact.accepts(value) or artefact.excess(value) <= allowed


@pytest.fixture(scope="module")
def enhanced(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Sound, Sound]]:
    """Truth and output of a clip, shape (samples, channels), by model and gains of channels."""

    @functools.cache
    def make(clip: str, model: str, gains: tuple[float, ...] = (1.0,)) -> tuple[Sound, Sound]:
        folder = tmp_path_factory.mktemp(clip)
        narrow, rate = soundfile.read(DEMO / f"{clip}_8k.wav")
        soundfile.write(folder / "in.wav", np.outer(narrow, gains), rate, subtype="PCM_16")
        enhance_file(folder / "in.wav", folder / "out.wav", model=model)
        reference = read_audio(DEMO / f"{clip}_reference.flac")
        return reference * np.array(gains), read_audio(folder / "out.wav")

    return make


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("clip", CLIPS)
def test_the_input_is_left_as_it_was(
    clip: str, model: str, enhanced: Callable[..., tuple[Sound, Sound]]
) -> None:
    reference, output = (sound[:, 0] for sound in enhanced(clip, model))
    assert lf_sisdr(reference, output, CUTOFF) >= 50.0
    assert abs(lf_gain_db(reference, output, CUTOFF)) <= 0.05


@pytest.mark.parametrize("name", [name for name in ARTEFACTS if name not in STEREO])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("clip", CLIPS)
def test_a_shipped_model_keeps_the_limit(
    clip: str, model: str, name: str, enhanced: Callable[..., tuple[Sound, Sound]]
) -> None:
    value = find_artefacts(*enhanced(clip, model), CUTOFF, [name])[name]
    assert holds(clip, model, name, value), f"{name} is {value:.3f}"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("clip", CLIPS)
def test_a_shipped_model_keeps_left_and_right_together(
    clip: str, model: str, enhanced: Callable[..., tuple[Sound, Sound]]
) -> None:
    equal = find_artefacts(*enhanced(clip, model, (0.9, 0.9)), CUTOFF, STEREO)
    panned = find_artefacts(*enhanced(clip, model, (0.9, 0.3)), CUTOFF, STEREO)
    assert equal["channel_difference_db"] == -120.0
    assert math.isnan(panned["channel_difference_db"])
    for name in STEREO:
        assert ARTEFACTS[name].accepts(equal[name])
        assert ARTEFACTS[name].accepts(panned[name]), f"{name} is {panned[name]:.3f}"


def band(sound: Sound, low_hz: float, high_hz: float = math.inf) -> Sound:
    spectrum = np.fft.rfft(sound, axis=0)
    frequency = np.fft.rfftfreq(len(sound), 1 / RATE)
    spectrum[(frequency < low_hz) | (frequency >= high_hz)] = 0
    return np.fft.irfft(spectrum, len(sound), axis=0)


def wave(sound: Sound, hz: float) -> Sound:
    return np.cos(2 * np.pi * hz * np.arange(len(sound)) / RATE)[:, np.newaxis]


def noise(sound: Sound, level: float) -> Sound:
    return np.random.default_rng(5).normal(size=sound.shape) * level


def ring(sound: Sound) -> Sound:
    """The high band with a reverberation of some 30 ms."""
    high = band(sound, CUTOFF)
    tail = np.random.default_rng(5).normal(size=2880) * np.exp(-np.arange(2880) / 700)
    return np.convolve(high[:, 0], tail / 10)[: len(high), np.newaxis]


def on_high_band(factor: float | Sound, sound: Sound) -> Sound:
    return sound + band(sound, CUTOFF) * (factor - 1)


# What is done to the output, of which clip and model.
DAMAGE: dict[str, tuple[str, str, Callable[[Sound], Sound]]] = {
    "hiss_db": ("speech", "small", lambda out: out + band(noise(out, 0.005), CUTOFF)),
    "sibilant_level_db": ("music", "small", lambda out: on_high_band(2.5, out)),
    "sibilant_smear_db": ("speech", "small", lambda out: out + ring(out)),
    "edge_below_db": ("speech", "small", lambda out: out - 0.5 * band(out, 3500, 4000)),
    "edge_above_db": ("music", "replicate", lambda out: out - band(out, 4050, 4400)),
    "pre_echo_db": ("speech", "small", lambda out: out + 0.5 * np.roll(band(out, CUTOFF), -384)),
    "buzz_index": (
        "speech",
        "small",
        lambda out: on_high_band(1 + 0.9 * wave(out, 70), out),
    ),
    "hop_buzz_depth": (
        "music",
        "replicate",
        lambda out: on_high_band(1 + 0.3 * wave(out, 100), out),
    ),
    "pumping_db": (
        "music",
        "small",
        lambda out: on_high_band(10 ** (0.4 * wave(out, 2)), out),
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_of_the_same_output_is_found(
    name: str, enhanced: Callable[..., tuple[Sound, Sound]]
) -> None:
    clip, model, damage = DAMAGE[name]
    reference, output = enhanced(clip, model)
    value = find_artefacts(reference, damage(output), CUTOFF, [name])[name]
    assert not holds(clip, model, name, value), f"{name} is {value:.3f}"


def test_every_artefact_has_its_damage() -> None:
    assert set(DAMAGE) | set(STEREO) == set(ARTEFACTS)


@pytest.mark.parametrize("model", MODELS)
def test_two_textures_are_found(model: str, enhanced: Callable[..., tuple[Sound, Sound]]) -> None:
    """The right channel enhanced with other noise: what sharing it between channels prevents."""
    reference, output = enhanced("speech", model, (0.9, 0.9))
    right = band(output[:, 1:], CUTOFF)
    strange = output.copy()
    strange[:, 1:] += np.abs(right) * np.sign(noise(right, 1.0)) - right
    found = find_artefacts(reference, strange, CUTOFF, STEREO)
    assert not ARTEFACTS["channel_difference_db"].accepts(found["channel_difference_db"])
    assert not ARTEFACTS["coherence_loss"].accepts(found["coherence_loss"])
