"""Writing sound files: what their formats cannot hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtsr.audio.writer import OutputFile

RATE = 48000


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
        ("wav", "IMA_ADPCM", 0.2),
        ("wav", "MS_ADPCM", 0.1),
        ("wav", "GSM610", 0.4),
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
