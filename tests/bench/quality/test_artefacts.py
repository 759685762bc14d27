"""Artefacts of clips: a small corpus is made, a real model runs over it, tables come out."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from rtsr.quality.artefacts import ARTEFACTS
from rtsr_bench.corpus import list_clips, prepare_inputs, prepare_references
from rtsr_bench.quality import artefacts

RATE = 48000
COLUMNS = "path,split,domain,source,licence,speaker_or_group,sample_rate,seconds,measured_cutoff_hz"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Three valid clips, two of effects and one of music: noise with pauses."""
    folder = tmp_path / "corpus"
    rows = []
    for number, domain in enumerate(("effects", "effects", "music")):
        path = f"valid/{domain}/clip{number}.flac"
        sound = np.random.default_rng(number).normal(size=3 * RATE) * 0.03
        sound[RATE : 2 * RATE] = 0.0
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / path, sound, RATE, subtype="PCM_16")
        rows.append([path, "valid", domain, "made", "CC0", "made", RATE, 3.0, 24000])
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS.split(","))
        writer.writerows(rows)
    return folder


def hissing(source: Path, target: Path) -> None:
    """The input at 48 kHz, and hiss at -50 dBFS that differs between channels."""
    samples, rate = soundfile.read(source, always_2d=True)
    wide = np.repeat(samples, RATE // rate, axis=0)
    hiss = np.random.default_rng(1).normal(size=wide.shape) * 10 ** (-50 / 20)
    soundfile.write(target, wide + hiss, RATE, subtype="PCM_16")


def test_hiss_and_differing_channels_are_found(corpus: Path, tmp_path: Path) -> None:
    (clip, *_) = (one for one in list_clips(corpus) if one.domain == "music")
    references = prepare_references([clip], tmp_path / "references")
    inputs = prepare_inputs(references, tmp_path / "inputs", 4000.0)

    def enhance(source: Path, folder: Path) -> Path:
        hissing(source, folder / "out.wav")
        return folder / "out.wav"

    (tmp_path / "work").mkdir()
    values = artefacts.find_in_clip(
        enhance, references[clip.name], inputs[clip.name], 4000.0, tmp_path / "work"
    )
    assert list(values) == list(ARTEFACTS)
    assert values["hiss_db"] > 20
    assert values["channel_difference_db"] > -30
    assert values["coherence_loss"] > 0.01


def test_a_report_has_the_artefacts_of_models(bench: Any, corpus: Path, tmp_path: Path) -> None:
    def run() -> Any:
        options = ("--model", "replicate", "--cutoff", 4000, "--limit", 1, "--metrics", "lsd")
        places = ("--work", tmp_path / "work", "--out", tmp_path / "report", "--jobs", 1)
        done = bench("quality", corpus, *options, *places, "--artefacts", "--tables-only")
        assert done.exit_code == 0, done.stderr
        return done.stdout

    printed = run()
    assert "## Artefacts, corpus, input cutoff 4 kHz" in printed
    assert "**input**" not in printed
    (row,) = (line for line in printed.splitlines() if line.startswith("| channel_difference_db"))
    assert row.count("-120.00 (-120.00; 0/1)") == 2
    found = json.loads((tmp_path / "report" / "quality.json").read_text())["artefacts"]
    clips = found["corpus"]["4000"]["replicate"]
    assert list(clips) == ["effects/clip0", "music/clip2"]
    assert clips["music/clip2"]["hiss_db"] <= 6.0
    assert clips["music/clip2"]["buzz_index"] is None
    # Another sound under the same name is another clip.
    for clip in corpus.rglob("*.flac"):
        samples, _ = soundfile.read(clip)
        soundfile.write(clip, samples[::-1] * np.linspace(0.0, 1.0, samples.size), RATE)
    assert run() != printed


def test_the_table_says_median_worst_and_how_many() -> None:
    clean = dict.fromkeys(ARTEFACTS, float("nan"))
    clips = {
        f"speech/{number}": clean | {"hiss_db": hiss, "edge_below_db": edge}
        for number, (hiss, edge) in enumerate([(1.0, 0.5), (7.0, -4.0), (9.0, 1.0)])
    }
    lines = {line.split("|")[1].strip(): line for line in artefacts.markdown_table(clips)}
    assert "| at most 6 | 7.00 ! (9.00; 2/3) |" in lines["hiss_db"]
    assert "| -2 to 2 | 0.50 (-4.00; 1/3) |" in lines["edge_below_db"]
    assert lines["buzz_index"].endswith("| - |")
