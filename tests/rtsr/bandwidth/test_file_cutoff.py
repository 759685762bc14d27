"""The band edge of a whole file: found where there is one, and never where there is none."""

from __future__ import annotations

from importlib import resources

import numpy as np
import pytest
import soundfile
import soxr

from rtsr.bandwidth import file_cutoff
from rtsr.bandwidth.file_cutoff import find_band_edge

HIGH_RATES = (88200, 96000, 176400, 192000)
#: Demo recordings and where each of them ends, in Hz: both are full band at 48 kHz.
DEMOS = {"speech_reference.flac": 20000.0, "music_reference.flac": 21400.0}


def demo(name: str) -> tuple[np.ndarray, int]:
    """Return a demo recording, one channel, and its rate."""
    with resources.as_file(resources.files("rtsr") / "demo_data" / name) as path:
        sound, rate = soundfile.read(path)
    return sound, rate


def rounded(sound: np.ndarray, bits: int) -> np.ndarray:
    """Return one channel as a file with samples of so many bits holds it."""
    full_scale = 2.0 ** (bits - 1)
    samples = np.rint(sound * full_scale).clip(-full_scale, full_scale - 1) / full_scale
    return samples.astype(np.float32)[:, None]


def coloured_noise(slope: float, samples: int) -> np.ndarray:
    """Return noise whose level falls by ``6 * slope`` dB per octave, at -20 dBFS."""
    spectrum = np.fft.rfft(np.random.default_rng(1).standard_normal(samples))
    sound = np.fft.irfft(spectrum / (np.arange(len(spectrum)) + 200.0) ** slope, samples)
    return 0.1 * sound / sound.std()


@pytest.mark.parametrize("bits", [16, 24])
@pytest.mark.parametrize("rate", HIGH_RATES)
@pytest.mark.parametrize("source_rate", [32000, 44100, 48000])
@pytest.mark.parametrize("name", DEMOS)
def test_the_edge_of_a_resampled_recording_is_found(
    name: str, source_rate: int, rate: int, bits: int
) -> None:
    sound, own_rate = demo(name)
    low = soxr.resample(sound, own_rate, source_rate)
    wide = rounded(soxr.resample(low, source_rate, rate, "VHQ"), bits)
    end_hz = min(source_rate / 2, DEMOS[name])
    assert find_band_edge([wide], rate) == pytest.approx(end_hz, rel=0.05)


@pytest.mark.parametrize("bits", [16, 24])
@pytest.mark.parametrize("level", [0.0, -40.0])
@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0, 1.5])
@pytest.mark.parametrize("rate", HIGH_RATES)
def test_noise_that_fades_has_no_edge(rate: int, slope: float, level: float, bits: int) -> None:
    """Also where it fades into the noise of its samples, far below half of the rate."""
    sound = coloured_noise(slope, 2 * rate) * 10.0 ** (level / 20.0)
    assert find_band_edge([rounded(sound, bits)], rate) is None


@pytest.mark.parametrize("level", [0.0, -20.0, -40.0])
@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("name", DEMOS)
def test_a_real_recording_has_no_edge_below_its_end(name: str, factor: int, level: float) -> None:
    """Real sound is full band at any rate: played faster it is one of a higher rate."""
    sound, rate = demo(name)
    edge_hz = find_band_edge([rounded(sound * 10.0 ** (level / 20.0), 24)], factor * rate)
    assert edge_hz is None or edge_hz > 0.7 * factor * rate / 2


@pytest.mark.parametrize(
    ("rate", "end", "is_found"),
    [(96000, 2500, False), (192000, 3000, False), (192000, 4000, True), (192000, 6000, True)],
)
def test_there_is_a_lowest_edge(rate: int, end: int, is_found: bool) -> None:
    sound = rounded(soxr.resample(coloured_noise(0.5, 6 * end), 2 * end, rate), 16)
    assert find_band_edge([sound], rate) == (pytest.approx(end, rel=0.04) if is_found else None)


def test_the_widest_moment_and_the_widest_channel_count() -> None:
    rate = 96000
    narrow = soxr.resample(coloured_noise(0.5, 4 * 44100), 44100, rate)
    both = np.stack([narrow, narrow], axis=1).astype(np.float32)
    assert find_band_edge([both], rate) == pytest.approx(22050, rel=0.05)
    # A twentieth of a second in one of them.
    both[rate : rate + rate // 20, 1] += coloured_noise(0.5, rate // 20).astype(np.float32)
    assert find_band_edge([both], rate) is None


def test_a_click_in_a_long_file_is_nothing() -> None:
    rate = 96000
    sound = soxr.resample(coloured_noise(0.5, 25 * 44100), 44100, rate).astype(np.float32)
    sound[rate] += 0.5
    assert find_band_edge([sound[:, None]], rate) == pytest.approx(22050, rel=0.05)


def test_partition_does_not_matter() -> None:
    sound = rounded(soxr.resample(coloured_noise(0.5, 44100), 44100, 96000), 24)
    blocks = np.split(sound, [1, 5, 2048, 2050, 9000, 60000])
    assert find_band_edge(blocks, 96000) == find_band_edge([sound], 96000)


def test_all_of_a_long_file_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """With no more frames kept than a short one has."""
    rate = 96000
    monkeypatch.setattr(file_cutoff, "MAX_FRAMES", 64)
    narrow = soxr.resample(coloured_noise(0.5, 8 * 44100), 44100, rate)
    assert find_band_edge([narrow[:, None]], rate) == pytest.approx(22050, rel=0.05)
    narrow[-2 * rate :] += coloured_noise(0.5, 2 * rate)
    assert find_band_edge(np.array_split(narrow[:, None], 50), rate) is None


@pytest.mark.parametrize("samples", [0, 100, 15000])
def test_a_moment_shows_nothing(samples: int) -> None:
    narrow = soxr.resample(coloured_noise(0.5, 44100), 44100, 96000)
    assert find_band_edge([narrow[:samples, None]], 96000) is None


def test_silence_has_no_edge() -> None:
    assert find_band_edge([np.zeros((96000, 2), np.float32)], 96000) is None
