"""Learning a colour from recordings, in Python and on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from scipy import signal
from typer.testing import CliRunner

from rtsr import (
    ArgumentError,
    AudioFormatError,
    RtsrError,
    colour_learning,
    learn_colour,
    read_colour,
)
from rtsr.cli.app import app
from rtsr.colour.bands import CUTOFFS_HZ, NARROW_RATES, colour_centres
from rtsr.colour.degrade import degrade
from rtsr.colour.reference import Reference
from rtsr.upsampler import Upsampler

RATE = 48000
SHELF_HZ, SHELF_DB = 5000.0, 6.0


def _shelf(sound: np.ndarray, gain_db: float = SHELF_DB) -> np.ndarray:
    """``sound`` with everything above 5 kHz louder, nothing below touched, nothing delayed."""
    taps = signal.firwin2(
        1025,
        [0.0, SHELF_HZ - 200.0, SHELF_HZ + 200.0, RATE / 2],
        [1.0, 1.0, 10 ** (gain_db / 20), 10 ** (gain_db / 20)],
        fs=RATE,
    )
    return np.asarray(signal.fftconvolve(sound, taps, mode="same"), np.float32)


def _low_pass(sound: np.ndarray, hz: float) -> np.ndarray:
    taps = signal.firwin(513, hz, fs=RATE)
    return np.asarray(signal.fftconvolve(sound, taps, mode="same"), np.float32)


def _mean_errors(sound: np.ndarray) -> np.ndarray:
    """Mean errors of the bands above 4 kHz in dB, not drawn to zero."""
    reference = Reference(sound[:, None], 24000.0)
    narrow = degrade(sound[:, None], 8000)
    with Upsampler(8000, cutoff=4000.0, limiter=False) as upsampler:
        late = upsampler.latency.algorithmic_samples
        wide = np.concatenate([upsampler.process(narrow[:, 0]), upsampler.flush()])[late:]
    errors, measured = reference.compare(wide[: len(sound), None], 4000.0, 22000.0)
    assert measured[:, :20].all()
    return np.asarray(errors.mean(axis=0))


@pytest.mark.slow
def test_a_curve_that_was_put_on_is_found_within_1_db(voice: np.ndarray) -> None:
    found = _mean_errors(_shelf(voice)) - _mean_errors(voice)
    centres = colour_centres()
    above = (centres > SHELF_HZ + 400.0) & (centres < 20000.0)
    assert found[above] == pytest.approx(np.full(above.sum(), SHELF_DB), abs=1.0)
    assert found[centres < SHELF_HZ - 400.0] == pytest.approx(0.0, abs=1.0)


@pytest.mark.slow
def test_a_learnt_colour_follows_the_curve_as_far_as_it_is_sure(voice: np.ndarray) -> None:
    steps: list[tuple[int, int]] = []
    colours = [
        learn_colour([(sound, RATE)], progress=lambda *step: steps.append(step))
        for sound in (voice, _shelf(voice, -SHELF_DB))
    ]
    assert steps[:4] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert colours[0].model == "small"
    assert colours[0].seconds == pytest.approx(11.0, abs=0.5)
    centres = colour_centres()
    for cutoff_hz, before, after in zip(
        CUTOFFS_HZ, colours[0].gains_db, colours[1].gains_db, strict=True
    ):
        inside = (centres > max(cutoff_hz * 1.1, 6000.0)) & (centres < 15000.0)
        moved = (np.array(after) - np.array(before))[inside]
        limited = np.abs(np.array(after)[inside]) > 11.9
        assert (~limited).sum() > len(moved) // 2
        # What an input has of the shelf moves the model's own levels, and less is left to learn.
        has_shelf = cutoff_hz > SHELF_HZ
        assert (moved[~limited] < (0.5 if has_shelf else -0.15 * SHELF_DB)).all()
        assert moved[~limited].mean() < 0.0
        assert (moved >= -1.1 * SHELF_DB).all()


def test_files_and_arrays_teach_the_same(stand_in: Path, voice: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "voice.wav"
    soundfile.write(path, voice, RATE, "FLOAT")
    from_file = learn_colour([path], model=stand_in)
    assert learn_colour([(voice[:, None], RATE)], model=stand_in) == from_file
    halves = [(voice[: 6 * RATE], RATE), (voice[6 * RATE :], RATE)]
    in_parts = np.array(learn_colour(halves, model=stand_in).gains_db)
    np.testing.assert_allclose(in_parts, np.array(from_file.gains_db), atol=0.7)


def test_channels_that_cancel_each_other_have_the_spectrum_of_one(
    stand_in: Path, voice: np.ndarray
) -> None:
    alone, inverted = (
        learn_colour([(sound, RATE)], model=stand_in).spectrum_db
        for sound in (voice, np.stack([voice, -voice], 1))
    )
    assert inverted == alone


@pytest.mark.parametrize("kind", ["array", "file"])
@pytest.mark.parametrize("left", [0.02, 0.3, 1.5])
def test_the_last_recording_is_judged_by_more_than_what_is_left_for_it(
    stand_in: Path,
    voice: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    left: float,
    kind: str,
) -> None:
    alone = learn_colour([(voice, RATE)], model=stand_in)
    monkeypatch.setattr(colour_learning, "MOST_SECONDS", len(voice) / RATE + left)
    second: Any = (np.append(np.zeros(2 * RATE, np.float32), voice), RATE)
    if kind == "file":
        soundfile.write(tmp_path / "second.wav", *second, "FLOAT")
        second = tmp_path / "second.wav"
    # What is taken of it is silent.
    assert learn_colour([(voice, RATE), second], model=stand_in).gains_db == alone.gains_db
    narrow = (_low_pass(voice, 7600.0), RATE)
    if left > 1.0:
        with pytest.raises(AudioFormatError, match="Recording 2 ends at"):
            learn_colour([(voice, RATE), narrow], model=stand_in)
    with pytest.raises(AudioFormatError, match="does not exist"):
        learn_colour([(voice, RATE), tmp_path / "missing.wav"], model=stand_in)


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        (lambda one: [], ArgumentError, "at least one"),
        (lambda one: "voice.wav", ArgumentError, "a list of recordings"),
        (lambda one: [3], ArgumentError, "a file's path, or a pair"),
        (lambda one: [(one, 96000)], AudioFormatError, "96000 Hz is not supported"),
        (lambda one: [(one.astype(int), RATE)], AudioFormatError, "floating-point or 16-bit"),
        (lambda one: [(one[: 2 * RATE], RATE)], ArgumentError, "at least 10 s .* not 2.0 s"),
        (lambda one: [(np.zeros_like(one), RATE)], ArgumentError, "Recording 1 is silent"),
        (
            lambda one: [(np.full_like(one, np.nan), RATE)],
            AudioFormatError,
            r"Recording 1 has samples beyond full scale, or that are no numbers \(100 %\)",
        ),
        (
            lambda one: [(np.where(np.arange(len(one)) % 2, one, np.nan), RATE)],
            AudioFormatError,
            r"\(50 %\); full scale is 1\.0",
        ),
        (lambda one: [(32768.0 * one, RATE)], AudioFormatError, "beyond full scale"),
        (lambda one: [(1e300 * one.astype(float), RATE)], AudioFormatError, "beyond full scale"),
        (
            lambda one: [(one, RATE), (_low_pass(one, 7600.0), RATE)],
            AudioFormatError,
            r"Recording 2 ends at (7\.\d|8\.0) kHz; full-band sound is needed",
        ),
        (
            lambda one: [(np.append(one[:RATE], np.zeros(10 * RATE)), RATE)],
            ArgumentError,
            "1.0 s of sound beside silence",
        ),
    ],
    ids=[
        "none",
        "no list",
        "number",
        "rate",
        "integers",
        "short",
        "silent",
        "nan",
        "half nan",
        "scale of 16 bits",
        "beyond float32",
        "narrow",
        "one word",
    ],
)
def test_samples_that_teach_nothing_are_refused(
    stand_in: Path, voice: np.ndarray, change: Any, error: type[RtsrError], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        learn_colour(change(voice), model=stand_in)


def test_single_broken_samples_are_passed_over(stand_in: Path, voice: np.ndarray) -> None:
    mute, broken = voice.copy(), voice.copy()
    mute[1000::5000] = 0.0
    broken[1000::5000] = np.nan
    broken[6000::10000] = 1e4
    learnt = [learn_colour([(one, RATE)], model=stand_in) for one in (mute, broken)]
    assert learnt[0] == learnt[1]


def test_a_file_of_another_scale_is_refused(
    stand_in: Path, voice: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "scaled.wav"
    soundfile.write(path, 32768.0 * voice, RATE, "FLOAT")
    with pytest.raises(AudioFormatError, match=f"Recording '{path}' has samples beyond full"):
        learn_colour([path], model=stand_in)


def test_sound_is_degraded_like_a_16_bit_file_of_the_rate(voice: np.ndarray) -> None:
    for rate in NARROW_RATES:
        narrow = degrade(voice[:RATE, None], rate)
        assert narrow.shape == (rate, 1)
        np.testing.assert_array_equal(narrow * 32768, np.rint(narrow * 32768))
        start, end = rate // 4, rate // 2
        back = signal.resample_poly(
            narrow[:, 0], RATE // np.gcd(RATE, rate), rate // np.gcd(RATE, rate)
        )
        lower = signal.butter(4, 0.7 * rate / 2, fs=RATE, output="sos")
        wanted, got = (
            signal.sosfilt(lower, one)[start * RATE // rate : end * RATE // rate]
            for one in (voice[:RATE], back)
        )
        assert np.std(got - wanted) < 0.05 * np.std(wanted)


def test_the_command_line_learns_shows_and_uses_a_colour(
    stand_in: Path, voice: np.ndarray, tmp_path: Path
) -> None:
    recording, me = tmp_path / "voice.wav", tmp_path / "me.json"
    soundfile.write(recording, voice, RATE)
    model = ["--model", str(stand_in)]
    run = CliRunner().invoke
    learnt = run(app, ["colour", "learn", str(recording), "-o", str(me), *model])
    assert learnt.exit_code == 0, learnt.output
    assert "11.0 s of sound" in learnt.output
    shown = run(app, ["colour", "show", str(me), "--json"])
    assert json.loads(shown.stdout) == read_colour(me).to_json()
    soundfile.write(tmp_path / "narrow.wav", degrade(voice[: 2 * RATE, None], 8000), 8000)
    outs = []
    for name, options in (("plain", []), ("coloured", ["--colour", str(me)])):
        out = tmp_path / f"{name}.wav"
        done = run(app, ["enhance", str(tmp_path / "narrow.wav"), str(out), *model, *options])
        assert done.exit_code == 0, done.output
        outs.append(soundfile.read(out)[0])
    assert np.std(outs[0] - outs[1]) > 1e-4
    soundfile.write(tmp_path / "short.wav", voice[:RATE], RATE)
    for name in ("narrow.wav", "short.wav", "nowhere.wav", "me.json"):
        failed = run(
            app, ["colour", "learn", str(tmp_path / name), "-o", str(tmp_path / "no.json")]
        )
        assert failed.exit_code == 2
        assert failed.stdout == ""
        assert failed.stderr.startswith("rtsr: ")
        assert len(failed.stderr.splitlines()) == 1
    assert not (tmp_path / "no.json").exists()
    refused = run(app, ["enhance", str(recording), str(tmp_path / "x.wav"), "--colour", str(me)])
    assert refused.exit_code == 2
    assert "not for model 'small'" in refused.stderr
    same = run(app, ["colour", "learn", str(recording), "-o", str(recording), *model])
    assert same.exit_code == 2
    nowhere = run(app, ["colour", "learn", str(recording), "-o", str(tmp_path / "a" / "b"), *model])
    assert "There is no folder" in nowhere.stderr
