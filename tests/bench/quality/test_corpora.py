"""Which clips are scored: chosen by domain and number, left out with a reason, never mixed up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("soxr")

from rtsr.errors import RtsrError
from rtsr_bench.corpus import list_clips
from rtsr_bench.quality.corpora import check_names, prepare_corpus

RATE = 48000


def write_corpus(folder: Path, *clips: str) -> Path:
    """A corpus of noises; each clip is ``domain/name``."""
    folder.mkdir(parents=True)
    lines = ["path,split,domain"]
    for seed, clip in enumerate(clips):
        domain, name = clip.split("/")
        noise = np.random.default_rng(seed).normal(size=RATE // 2) * 0.1
        soundfile.write(folder / f"{name}.flac", noise, RATE)
        lines.append(f"{name}.flac,valid,{domain}")
    (folder / "manifest.csv").write_text("\n".join(lines))
    return folder


def test_parts_of_a_corpus_share_their_files(tmp_path: Path) -> None:
    source = write_corpus(tmp_path / "wide", "speech/a", "speech/b", "music/c")
    whole = prepare_corpus(source, [4000.0, 8000.0], tmp_path / "work", 2.0)
    assert list(whole.references) == ["speech/a", "speech/b", "music/c"]
    assert {hz: list(files) for hz, files in whole.inputs.items()} == {
        4000.0: list(whole.references),
        8000.0: list(whole.references),
    }
    assert soundfile.info(whole.inputs[4000.0]["music/c"]).samplerate == 8000
    part = prepare_corpus(source, [4000.0], tmp_path / "work", 2.0, ["speech"], 1)
    assert part.references == {"speech/a": whole.references["speech/a"]}
    assert [clip.name for clip in part.clips] == ["speech/a"]
    assert part.left_out == {}


def test_no_two_clips_have_one_name(tmp_path: Path) -> None:
    names = ("speech/x/a-b", "speech/y/a-b", "speech/x-a/b", "speech/z/b")
    lines = [f"{name}.wav,valid,speech" for name in names]
    (tmp_path / "manifest.csv").write_text("\n".join(["path,split,domain", *lines]))
    clips = list_clips(tmp_path)
    assert len({clip.name for clip in clips}) == len({clip.path for clip in clips}) == len(names)


def test_corpora_do_not_share_files_of_one_name(tmp_path: Path) -> None:
    sources = [write_corpus(tmp_path / name, "speech/a") for name in ("one", "two")]
    first, second = (prepare_corpus(source, [4000.0], tmp_path / "work", 2.0) for source in sources)
    assert (first.name, second.name) == ("one", "two")
    assert first.references["speech/a"] != second.references["speech/a"]


def test_a_clip_that_changed_is_made_anew(tmp_path: Path) -> None:
    source = write_corpus(tmp_path / "one", "speech/a")
    made = []
    for seed in (1, 2):
        # As long as it was before, as what is rendered once more would be.
        noise = np.random.default_rng(seed).normal(size=RATE // 2) * 0.1
        soundfile.write(source / "a.flac", noise, RATE, format="WAV")
        corpus = prepare_corpus(source, [4000.0], tmp_path / "work", 2.0)
        made.append(corpus.references["speech/a"].read_bytes())
    assert made[0] != made[1]


def test_a_full_work_folder_is_no_fault_of_a_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_corpus(tmp_path / "wide", "speech/a", "speech/b")

    def full(path: Path, *_: object, **__: object) -> None:
        path.touch()
        raise soundfile.LibsndfileError(2)

    with monkeypatch.context() as here:
        here.setattr(soundfile, "write", full)
        with pytest.raises(RtsrError, match="cannot be written: the disk may be full"):
            prepare_corpus(source, [4000.0], tmp_path / "work", 2.0)
    assert not [file for file in (tmp_path / "work").rglob("*") if file.is_file()]
    (tmp_path / "file").touch()
    with pytest.raises(RtsrError, match="cannot be written: Not a directory"):
        prepare_corpus(source, [4000.0], tmp_path / "file", 2.0)


def test_what_cannot_be_judged_is_left_out_with_its_reason(tmp_path: Path) -> None:
    source = write_corpus(tmp_path / "wide", "speech/a", "speech/b", "music/c", "music/d")
    (source / "b.flac").write_text("not audio")
    (source / "c.flac").unlink()
    soundfile.write(source / "d.flac", np.zeros(RATE // 10), RATE)
    found = prepare_corpus(source, [4000.0], tmp_path / "work", 2.0)
    assert list(found.references) == ["speech/a"]
    assert found.left_out == {
        "speech/b": "the file cannot be read as audio",
        "music/c": "the file is missing",
        "music/d": "0.10 s long, at least 0.25 s are needed",
    }
    with pytest.raises(RtsrError, match=r"No clip of the corpus 'wide' .*music/c: the file is mis"):
        prepare_corpus(source, [4000.0], tmp_path / "work", 2.0, ["music"])


def test_corpora_that_cannot_be_told_apart_or_are_empty_are_refused(tmp_path: Path) -> None:
    twins = [write_corpus(tmp_path / name / "same", "speech/a") for name in ("one", "two")]
    with pytest.raises(RtsrError, match="would be called 'same'"):
        check_names(twins)
    with pytest.raises(RtsrError, match="no valid clips of music or effects"):
        prepare_corpus(twins[0], [4000.0], tmp_path / "work", 2.0, ["music", "effects"])
