"""Writing sound files: what their formats cannot hold."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtsr.audio.writer import OutputFile
from rtsr.errors import AudioFormatError, RtsrError

RATE = 44100


def _written(path: Path, subtype: str, sound: np.ndarray) -> tuple[np.ndarray, int]:
    with OutputFile(path, RATE, 1, len(sound), subtype=subtype) as file:
        file.write(sound[:, None])
        file.commit()
    return soundfile.read(path, frames=len(sound), dtype="float32")[0], file.clipped_samples


@pytest.mark.parametrize(
    ("extension", "subtype", "error"),
    [
        ("wav", "ULAW", 0.02),
        ("wav", "ALAW", 0.02),
        ("wav", "IMA_ADPCM", 0.5),
        ("wav", "MS_ADPCM", 0.1),
        ("wav", "GSM610", 0.8),
        ("wav", "G721_32", 0.2),
        ("wav", "NMS_ADPCM_16", 0.2),
        ("wav", "NMS_ADPCM_32", 0.02),
        ("au", "G723_24", 0.5),
        ("au", "G723_40", 0.9),
        ("xi", "DPCM_16", 0.001),
        ("caf", "ALAC_16", 1e-4),
        ("caf", "ALAC_24", 1e-4),
    ],
)
@pytest.mark.parametrize("peak", [1.0, 1.6])
def test_what_is_beyond_full_scale_is_held_and_counted(
    extension: str, subtype: str, error: float, peak: float, tmp_path: Path
) -> None:
    sound = np.float32(1.6) * np.sin(2 * np.pi * 220 * np.arange(RATE) / RATE).astype(np.float32)
    # As the limiter leaves it, and as it is without one.
    sound = np.clip(sound, -peak, peak)
    got, clipped = _written(tmp_path / f"out.{extension}", subtype, sound)
    largest = 0.891 if subtype.startswith("G72") else 1.0
    # A coder needs some samples to find its level.
    wrong = np.abs(got - np.clip(sound, -largest, largest)[: len(got)])[2000:-2000]
    assert wrong.max() < error
    assert clipped >= np.count_nonzero(sound > largest) + np.count_nonzero(sound < -largest)
    assert clipped > 1000


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_floating_point_holds_what_is_beyond_full_scale(subtype: str, tmp_path: Path) -> None:
    sound = np.array([0.5, -1.5, 1.0, 3.0] * 100, np.float32)
    got, clipped = _written(tmp_path / "out.wav", subtype, sound)
    assert np.array_equal(got, sound)
    assert not clipped


@pytest.mark.parametrize("subtype", ["ALAC_16", "ALAC_24"])
def test_nothing_below_full_scale_is_changed(subtype: str, tmp_path: Path) -> None:
    bits = int(subtype[5:])
    steps = np.random.default_rng(0).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), 5000)
    sound = (steps / 2.0 ** (bits - 1)).astype(np.float32)
    got, clipped = _written(tmp_path / "out.caf", subtype, sound)
    assert np.array_equal(got, sound)
    assert not clipped


@pytest.mark.parametrize(
    ("name", "rate", "subtype"),
    [
        ("out.wve", 48000, None),
        ("out.xi", 48000, None),
        ("out.htk", 48000, None),
        ("out.svx", 96000, None),
        ("out.mpc2k", 96000, None),
        ("out.voc", 48000, "PCM_U8"),
    ],
)
def test_a_rate_that_a_format_cannot_tell_is_refused(
    name: str, rate: int, subtype: str | None, tmp_path: Path
) -> None:
    with pytest.raises(AudioFormatError, match=rf"cannot hold 1 channel\(s\) at {rate} Hz"):
        OutputFile(tmp_path / name, rate, 1, 480, subtype=subtype)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "rate", "told"),
    [
        ("out.xi", 44100, 44100),
        ("out.htk", 16000, 16000),
        ("out.svx", 48000, 48000),
        ("out.mpc2k", 48000, 48000),
        # Periods in whole nanoseconds.
        ("out.sds", 44100, 44101),
    ],
)
def test_a_rate_that_a_format_can_tell_is_written(
    name: str, rate: int, told: int, tmp_path: Path
) -> None:
    with OutputFile(tmp_path / name, rate, 1, 480) as file:
        file.write(np.zeros((480, 1), np.float32))
        file.commit()
    assert soundfile.info(tmp_path / name).samplerate == told


@pytest.mark.parametrize("letter", ["a", "é", "音", "🎵"])
def test_a_name_may_be_as_long_as_the_system_allows(letter: str, tmp_path: Path) -> None:
    path = tmp_path / (letter * (251 // len(letter.encode())) + ".wav")
    with OutputFile(path, 48000, 1, 480) as file:
        file.write(np.zeros((480, 1), np.float32))
        assert len(list(tmp_path.iterdir())) == 1
        file.commit()
    assert list(tmp_path.iterdir()) == [path]
    assert soundfile.info(path).frames == 480


def test_a_missing_folder_is_named_also_behind_a_link(tmp_path: Path) -> None:
    link = tmp_path / "link.wav"
    link.symlink_to(Path("nowhere", "out.wav"))
    missing = tmp_path / "nowhere"
    for path in (link, missing / "out.wav"):
        with pytest.raises(RtsrError, match=f"there is no folder '{re.escape(str(missing))}'"):
            OutputFile(path, 48000, 1, 480)
