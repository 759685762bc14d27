"""Kinds of degradation: real codes in the files, nothing late, nothing lost."""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("soxr")

from rtsr.bandwidth.detector import measure_cutoff_stream
from rtsr.errors import MissingDependencyError
from rtsr.quality.align import find_lag
from rtsr.quality.audio import read_audio
from rtsr.quality.metrics import lf_sisdr
from rtsr_bench import codecs
from rtsr_bench.quality.conditions import CONDITIONS, CUTOFF_HZ, Condition, prepare_condition

REFERENCE = Path(str(resources.files("rtsr").joinpath("demo_data", "speech_reference.flac")))
BY_KEY = {condition.key: condition for condition in CONDITIONS}
CODED = [key for key in BY_KEY if key.startswith(("opus", "mp3"))]
#: dB of the low band that each must keep of this recording, well below what it does keep
LEAST_SISDR = {"8k": 40, "48k": 40, "mu-law": 30, "a-law": 30, "8-bit": 15}


@pytest.fixture(scope="module")
def degraded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("conditions")
    found = {}
    for key, condition in BY_KEY.items():
        if key in CODED:
            pytest.importorskip("av")
        found[key] = prepare_condition(condition, {"speech/a": REFERENCE}, folder / key)["speech/a"]
    return found


@pytest.mark.parametrize("key", BY_KEY)
def test_what_is_delivered_is_the_same_sound_at_the_same_time(
    degraded: dict[str, Path], key: str
) -> None:
    reference, output = read_audio(REFERENCE)[:, 0], read_audio(degraded[key])[:, 0]
    assert abs(reference.size - output.size) <= 6  # one sample at 8 kHz
    shared = min(reference.size, output.size)
    assert find_lag(reference[:shared], output[:shared], CUTOFF_HZ) == 0
    kept = lf_sisdr(reference[:shared], output[:shared], CUTOFF_HZ)
    assert kept > LEAST_SISDR.get(key, 8)
    assert kept < 90, "nothing was done to it"


def test_files_hold_what_their_titles_say(degraded: dict[str, Path]) -> None:
    facts = {key: soundfile.info(path) for key, path in degraded.items()}
    rates = {key: info.samplerate for key, info in facts.items()}
    assert {key for key, rate in rates.items() if rate == 48000} == {"48k", "opus-48k", "mp3-48k"}
    assert all(rate in (8000, 48000) for rate in rates.values())
    assert facts["mu-law"].subtype == "ULAW"
    assert facts["a-law"].subtype == "ALAW"
    for key in ("mu-law", "a-law", "8-bit"):
        samples, _ = soundfile.read(degraded[key])
        assert 16 < np.unique(samples).size <= 256
    samples, _ = soundfile.read(degraded["8-bit"])
    np.testing.assert_array_equal(samples * 128.0, np.round(samples * 128.0))


def test_content_ends_at_the_cutoff_in_a_full_rate_file(degraded: dict[str, Path]) -> None:
    samples, rate = soundfile.read(degraded["48k"])
    power = np.abs(np.fft.rfft(samples)) ** 2
    above = np.fft.rfftfreq(samples.size, 1.0 / rate) > 1.1 * CUTOFF_HZ
    # only the rounding to 16 bits is left there
    assert power[above].sum() < 1e-6 * power.sum()


def test_files_that_are_there_are_kept(tmp_path: Path) -> None:
    calls: list[int] = []

    def degrade(narrow: np.ndarray) -> tuple[np.ndarray, int, str]:
        calls.append(narrow.size)
        return narrow, 8000, "PCM_16"

    condition = Condition("x", "X", degrade)
    for _ in range(2):
        prepare_condition(condition, {"speech/a": REFERENCE}, tmp_path)
    assert len(calls) == 1
    assert [path.name for path in tmp_path.rglob("*.wav")] == ["a.wav"]


def test_without_a_coder_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependencyError, match="lossy coders"):
        codecs.through_coder(np.zeros(800), 8000, codecs.OPUS_16K, 4000.0)


@pytest.mark.parametrize("lag", [-7, 0, 7])
def test_a_lag_is_taken_out_to_the_sample(monkeypatch: pytest.MonkeyPatch, lag: int) -> None:
    pytest.importorskip("av")
    noise = np.random.default_rng(0).normal(size=4000) * 0.1
    late = np.concatenate([np.zeros(max(lag, 0)), noise])[max(-lag, 0) :]
    monkeypatch.setattr(codecs, "_encode", lambda *_: None)
    monkeypatch.setattr(codecs, "_decode", lambda *_: (late, 8000))
    coded, rate = codecs.through_coder(noise, 8000, codecs.MP3_24K, 4000.0)
    assert (coded.shape, rate) == (noise.shape, 8000)
    inner = slice(8, -8)
    np.testing.assert_array_equal(coded[inner], noise[inner])


@pytest.mark.parametrize("key", ["48k", "opus-48k", "mp3-48k"])
def test_what_a_decoder_leaves_above_the_band_is_not_taken_for_content(
    key: str, degraded: dict[str, Path]
) -> None:
    audio, rate = soundfile.read(degraded[key], dtype="float32", always_2d=True)
    assert rate == 48000
    assert measure_cutoff_stream([audio], native_hz=24000.0) == pytest.approx(3900.0, rel=0.03)
