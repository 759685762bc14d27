"""The script that takes sources out of a corpus: who is judged, who is learnt, in which one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from example_run import run_example

from rtsr.train.listing import list_recordings

HEADER = "path,split,domain,source,speaker_or_group\n"


def make_corpus(folder: Path) -> Path:
    rows = [
        ("a1", "train", "speech", "Game, first", "ann"),
        ("a2", "train", "speech", "Game, first", "ann"),
        ("b1", "train", "speech", "Game, first", "bob"),
        ("m1", "train", "music", "Game, first", "song"),
        ("x1", "train", "speech", "Other", "eve"),
        ("v1", "valid", "speech", "Game, first", "vic"),
    ]
    (folder / "sounds").mkdir(parents=True)
    for name, *_ in rows:
        soundfile.write(folder / "sounds" / f"{name}.wav", np.zeros(4800), 48000)
    lines = [
        f'sounds/{name}.wav,{split},{domain},"{source}",{group}\n'
        for name, split, domain, source, group in rows
    ]
    (folder / "manifest.csv").write_text(HEADER + "".join(lines))
    return folder


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run_example("leave_out_sources.py", *arguments)


def names(corpus: Path, split: str) -> list[str]:
    return sorted(Path(one.path).stem for one in list_recordings(corpus, split))


def test_groups_of_the_source_are_judged_in_both_and_learnt_in_one(tmp_path: Path) -> None:
    done = run(make_corpus(tmp_path / "corpus"), tmp_path / "out", "Game")
    assert done.returncode == 0, done.stderr
    with_it, without = tmp_path / "out" / "with", tmp_path / "out" / "without"
    assert names(with_it, "valid") == names(without, "valid") == ["a1", "a2", "m1"]
    assert names(with_it, "train") == ["b1", "x1"]
    assert names(without, "train") == ["x1"]
    sound, _ = soundfile.read(without / "sounds" / "x1.wav")
    assert len(sound) == 4800


def test_a_manifest_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "corpus")
    manifest = corpus / "manifest.csv"
    manifest.write_bytes(b"\xef\xbb\xbf" + manifest.read_bytes())
    done = run(corpus, tmp_path / "out", "Game")
    assert done.returncode == 0, done.stderr
    assert names(tmp_path / "out" / "without", "train") == ["x1"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (HEADER.encode(), "lists no recording"),
        (b"path,split\na.wav,train\n", "has no column source"),
        (b"path,split,source\n\xff\xfe,train,x\n", "is no comma-separated table"),
    ],
)
def test_a_manifest_without_what_is_needed_is_refused(
    tmp_path: Path, content: bytes, said: str
) -> None:
    (tmp_path / "manifest.csv").write_bytes(content)
    done = run(tmp_path, tmp_path / "out", "Game")
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_unknown_source_and_missing_manifest_are_refused(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "corpus")
    for arguments, said in (
        ((corpus, tmp_path / "out", "Nobody"), "'Nobody'"),
        ((tmp_path, tmp_path / "out", "Game"), "has no manifest.csv"),
    ):
        done = run(*arguments)
        assert done.returncode == 2
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
