"""The hunt over a corpus: a small one is made, a real model runs over it, tables come out."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from rtsr.quality.artefacts import ARTEFACTS
from rtsr_bench.corpus import list_clips
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


def test_every_clip_is_judged_by_every_artefact(corpus: Path, tmp_path: Path) -> None:
    clips = list_clips(corpus)
    found = artefacts.find_in_clips(hissing, clips, tmp_path / "work", 4000.0)
    assert {domain: len(clips) for domain, clips in found.items()} == {"effects": 2, "music": 1}
    for clips in found.values():
        for values in clips.values():
            assert list(values) == list(ARTEFACTS)
            assert values["hiss_db"] > 20
            assert values["channel_difference_db"] > -30
            assert values["coherence_loss"] > 0.01


def test_a_model_is_measured_and_written(bench: Any, corpus: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = bench(
        "artefacts",
        corpus,
        *("--model", "replicate", "--cutoff", 4000, "--limit", 1),
        *("--work", tmp_path / "work", "--json", report),
    )
    assert done.exit_code == 0, done.stderr
    printed = done.stdout
    assert "replicate, input cutoff 4000 Hz, 2 clips" in printed
    (row,) = (line for line in printed.splitlines() if line.startswith("| channel_difference_db"))
    assert row.count("-120.00 (-120.00; 0/1)") == 2
    written = json.loads(report.read_text())["4000"]["replicate"]
    assert set(written) == {"effects", "music"}
    (values,) = written["music"].values()
    assert values["hiss_db"] <= 6.0
    assert values["sibilant_smear_db"] is None or isinstance(values["sibilant_smear_db"], float)
    assert not list(tmp_path.glob(".partial*"))


def test_another_corpus_with_the_same_names_has_files_of_its_own(
    bench: Any, corpus: Path, tmp_path: Path
) -> None:
    def measure() -> str:
        options = ("--model", "replicate", "--cutoff", 4000, "--limit", 1)
        return str(bench("artefacts", corpus, *options, "--work", tmp_path / "work").stdout)

    first = measure()
    for clip in corpus.rglob("*.flac"):
        samples, _ = soundfile.read(clip)
        soundfile.write(clip, samples[::-1] * np.linspace(0.0, 1.0, samples.size), RATE)
    assert measure() != first


def test_clips_that_cannot_be_judged_stop_nothing_and_are_named(
    bench: Any, corpus: Path, tmp_path: Path
) -> None:
    (corpus / "valid/effects/clip0.flac").write_text("no sound")
    (corpus / "valid/music/clip2.flac").unlink()
    report = tmp_path / "report.json"
    options = ("--model", "replicate", "--cutoff", 4000, "--json", report)
    done = bench("artefacts", corpus, *options, "--work", tmp_path / "work")
    assert done.exit_code == 0, done.stderr
    assert "not scored: effects/clip0: the file cannot be read as audio" in done.stdout
    assert "not scored: music/clip2: the file is missing" in done.stdout
    assert list(json.loads(report.read_text())["4000"]["replicate"]["effects"]) == ["effects/clip1"]


def test_models_of_one_name_are_refused(bench: Any, corpus: Path, tmp_path: Path) -> None:
    done = bench("artefacts", corpus, "--model", "small", "--model", tmp_path / "small.onnx")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Two models have one name" in done.stderr


def test_the_table_says_median_worst_and_how_many() -> None:
    clean = dict.fromkeys(ARTEFACTS, float("nan"))
    clips = {
        f"speech/{number}": clean | {"hiss_db": hiss, "edge_below_db": edge}
        for number, (hiss, edge) in enumerate([(1.0, 0.5), (7.0, -4.0), (9.0, 1.0)])
    }
    lines = {
        line.split("|")[1].strip(): line
        for line in artefacts.markdown_table({"speech": clips}).splitlines()
    }
    assert "| at most 6 | 7.00 ! (9.00; 2/3) |" in lines["hiss_db"]
    assert "| -2 to 2 | 0.50 (-4.00; 1/3) |" in lines["edge_below_db"]
    assert lines["buzz_index"].endswith("| - |")


def test_what_cannot_be_done_is_said_in_one_sentence(
    bench: Any, corpus: Path, tmp_path: Path
) -> None:
    for arguments, reason in (
        ((tmp_path / "none", "--cutoff", 4000), "is not a folder"),
        ((corpus, "--cutoff", 100), "must lie between"),
        ((corpus, "--limit", 0), "greater than or equal to 1"),
        ((corpus, "--model", "nonsense", "--work", tmp_path / "w"), "nonsense"),
    ):
        done = bench("artefacts", *arguments)
        assert done.exit_code == 2
        assert reason in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_a_report_without_a_folder_is_refused_before_the_work(
    bench: Any, corpus: Path, tmp_path: Path
) -> None:
    target = tmp_path / "nowhere" / "report.json"
    done = bench("artefacts", corpus, "--work", tmp_path / "work", "--json", target)
    assert done.exit_code == 2
    assert "no folder" in done.stderr
    assert not (tmp_path / "work").exists()
