"""What knowing the reference's levels brings: known answers, and the program."""

from __future__ import annotations

import importlib.util
import shutil
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from scipy import signal as filters

from rtsr_bench.corpus import list_clips

RATE = 48000
CUTOFF = 4000.0
SCRIPT = Path(__file__).parents[3] / "examples" / "oracle_levels.py"
_SPEC = importlib.util.spec_from_file_location("oracle_levels", SCRIPT)
assert _SPEC is not None
assert _SPEC.loader is not None
oracle = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(oracle)
DEMO = Path(str(resources.files("rtsr").joinpath("demo_data")))


def noise(seed: int) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).normal(size=2 * RATE)


def high_level_db(samples: np.ndarray) -> float:
    high = filters.sosfilt(filters.butter(8, 6000, "high", fs=RATE, output="sos"), samples)
    return 10.0 * np.log10(np.mean(high**2))


def swelling(samples: np.ndarray) -> np.ndarray:
    """By 12 dB, twice."""
    times = np.arange(samples.size) / RATE
    return samples * 10.0 ** (0.3 * np.sin(2.0 * np.pi * times) + 0.3)


def test_bands_share_each_bin_out() -> None:
    shares = oracle.band_shares(CUTOFF)
    np.testing.assert_allclose(shares.sum(axis=0), 1.0)
    assert shares.min() >= 0.0


def test_the_level_of_white_noise_is_its_variance() -> None:
    from scipy.signal import ShortTimeFFT
    from scipy.signal.windows import hann

    window = hann(1024, sym=False)
    spectrum = ShortTimeFFT(window, 240, RATE).stft(noise(1))
    levels = oracle.band_levels(spectrum, CUTOFF)[8:-8].mean(axis=0)
    np.testing.assert_allclose(levels, -20.0 + 10.0 * np.log10(np.sum(window**2)), atol=0.5)


@pytest.mark.parametrize("name", oracle.ORACLES)
def test_who_is_right_is_left_alone(name: str) -> None:
    reference = noise(1)
    np.testing.assert_allclose(
        oracle.with_levels_of(reference, reference, CUTOFF)[name], reference, atol=1e-12
    )


@pytest.mark.parametrize(
    ("name", "left_db"),
    [("mean levels", 0.0), ("half of the envelopes", -6.0), ("envelopes", 0.0)],
)
def test_a_steady_error_is_made_good(name: str, left_db: float) -> None:
    reference = noise(1)
    # Another noise: no bin's own level may be needed.
    better = oracle.with_levels_of(10 ** (-12.0 / 20.0) * noise(2), reference, CUTOFF)[name]
    assert high_level_db(better) - high_level_db(reference) == pytest.approx(left_db, abs=0.3)


@pytest.mark.parametrize(("name", "followed"), [("mean levels", 0.0), ("envelopes", 1.0)])
def test_only_an_envelope_tells_when(name: str, followed: float) -> None:
    reference = swelling(noise(1))
    better = oracle.with_levels_of(noise(2), reference, CUTOFF)[name]
    loud, soft = slice(RATE // 5, RATE * 3 // 10), slice(RATE * 7 // 10, RATE * 8 // 10)
    change = high_level_db(better[loud]) - high_level_db(better[soft])
    wanted = high_level_db(reference[loud]) - high_level_db(reference[soft])
    assert change == pytest.approx(followed * wanted, abs=1.0)


@pytest.mark.parametrize("name", oracle.ORACLES)
def test_what_the_input_had_is_left_alone(name: str) -> None:
    times = np.arange(2 * RATE) / RATE
    estimate = 0.1 * np.sin(2.0 * np.pi * 1000.0 * times) + 0.01 * noise(2)
    reference = 0.5 * np.sin(2.0 * np.pi * 1000.0 * times) + 0.1 * noise(1)
    better = oracle.with_levels_of(estimate, reference, CUTOFF)[name]
    low = filters.butter(8, 2000, fs=RATE, output="sos")
    kept, before = filters.sosfiltfilt(low, better), filters.sosfiltfilt(low, estimate)
    np.testing.assert_allclose(
        kept[RATE // 2 : -RATE // 2], before[RATE // 2 : -RATE // 2], atol=1e-4
    )


def test_knowing_more_brings_more(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    shutil.copy(DEMO / "speech_reference.flac", corpus / "one.flac")
    (corpus / "manifest.csv").write_text("path,split,domain\none.flac,valid,speech\n")
    rows = oracle.score("replicate", list_clips(corpus), tmp_path / "work", CUTOFF, 2.0)
    assert list(rows) == ["nothing", *oracle.ORACLES]
    envelope = [row.by_domain["speech"]["hf_envelope_db"] for row in rows.values()]
    visqol = [row.by_domain["speech"]["visqol"] for row in rows.values()]
    assert envelope[3] < 0.5 * envelope[0]
    assert envelope[3] < envelope[2] < envelope[0]
    assert visqol[3] > visqol[2] > visqol[0]
    assert visqol[3] > visqol[1] > visqol[0]


def test_clips_of_the_same_names_are_scored_on_their_own_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oracle, "METRICS", ("lsd",))
    (tmp_path / "manifest.csv").write_text("path,split,domain\none.flac,valid,speech\n")

    def found(domain: str, work: str) -> dict[str, float]:
        shutil.copy(DEMO / f"{domain}_reference.flac", tmp_path / "one.flac")
        rows = oracle.score("replicate", list_clips(tmp_path), tmp_path / work, CUTOFF, 1.0)
        return {name: row.by_domain["speech"]["lsd"] for name, row in rows.items()}

    assert found("speech", "first") != found("music", "first") == found("music", "second")
