"""The script that makes a corpus of voices in repositories: what it keeps, and of whom."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
from example_run import run_example

from rtsr.train.listing import list_recordings

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPT = EXAMPLES / "corpus_from_repositories.py"
RATE = 44100
ENTRY = """
[[source]]
name = "{name}"
repository = "{repository}"
licence = "CC0-1.0"
stated = "LICENSE"
voices = ['sounds/(?P<voice>[^/]+)/[^/]+\\.(?:wav|ogg)']
"""


@pytest.fixture
def voice_recordings(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import voice_recordings

    yield voice_recordings
    for name in ("voice_recordings", "package_recordings"):
        sys.modules.pop(name, None)


def bursts(seconds: float, seed: int, ends_at: float = RATE / 2) -> np.ndarray:
    """Noise that comes and goes, as speech does, with nothing above `ends_at` Hz."""
    length = int(seconds * RATE)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(length))
    spectrum[np.fft.rfftfreq(length, 1 / RATE) > ends_at] = 0.0
    noise = np.fft.irfft(spectrum, length)
    return 0.1 * noise * (0.001 + (np.sin(np.arange(length) * 6 * np.pi / RATE) > 0.0))


def write(path: Path, audio: np.ndarray, rate: int = RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    subtype = {} if path.suffix == ".ogg" else {"subtype": "PCM_16"}
    soundfile.write(path, audio, rate, **subtype)


def git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def commit(folder: Path) -> Path:
    git(folder, "init", "--quiet")
    git(folder, "add", "-A", "-f")
    git(folder, "commit", "--quiet", "-m", "Sounds")
    # What GitHub allows, and a new repository on a disk does not.
    for setting in ("allowFilter", "allowAnySHA1InWant"):
        git(folder, "config", f"uploadpack.{setting}", "true")
    return folder


def make_repository(folder: Path, seed: int = 0) -> Path:
    write(folder / "sounds" / "ann" / "1.wav", bursts(4.0, seed))
    write(folder / "sounds" / "ann" / "2.wav", bursts(3.0, seed + 1))
    write(folder / "sounds" / "ann" / "narrow.wav", bursts(3.0, seed + 2, ends_at=8000.0))
    write(folder / "sounds" / "ann" / "low.wav", bursts(2.0, seed + 3), rate=22050)
    write(folder / "sounds" / "bob" / "1.ogg", bursts(5.0, seed + 4))
    write(folder / "music" / "song.wav", bursts(5.0, seed + 5))
    (folder / "sounds" / "bob" / "pointer.wav").write_text("version https://git-lfs.example/spec")
    (folder / "LICENSE").write_text("CC0")
    return commit(folder)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run_example(SCRIPT.name, *arguments)


def write_list(path: Path, **repositories: str | Path) -> Path:
    entries = [ENTRY.format(name=name, repository=at) for name, at in repositories.items()]
    path.write_text("".join(entries))
    return path


def read_rows(corpus: Path) -> list[dict[str, str]]:
    with (corpus / "manifest.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["file URL", "path", "clone", "bare clone"])
def test_voices_are_kept_apart_and_lossless_ones_unchanged(tmp_path: Path, kind: str) -> None:
    repository = make_repository(tmp_path / "made")
    names: dict[str, str | Path] = {"file URL": repository.as_uri(), "path": repository}
    options: list[str | Path] = []
    if "clone" in kind:
        clones = tmp_path / "clones"
        (clones / "someone").mkdir(parents=True)
        bare = ("--bare",) if kind == "bare clone" else ()
        target = clones / "someone" / ("voices.git" if bare else "voices")
        git(tmp_path, "clone", "--quiet", *bare, repository.as_uri(), str(target))
        options = ["--clones", clones]
    listed = write_list(tmp_path / "list.toml", one=names.get(kind, "someone/voices"))
    corpus = tmp_path / "corpus"
    # A path's hash, which differs from run to run, must not put it into the other split.
    done = run(corpus, "--list", listed, "--valid-share", "0", *options)
    assert (done.returncode, done.stderr) == (0, "")

    rows = {row["speaker_or_group"]: row for row in read_rows(corpus)}
    assert set(rows) == {"one/ann", "one/bob"}
    ann, bob = rows["one/ann"], rows["one/bob"]
    assert (ann["path"], bob["path"]) == ("voices/one-ann_00.flac", "voices/one-bob_00.ogg")
    assert {row["licence"] for row in rows.values()} == {"CC0-1.0"}
    assert {row["domain"] for row in rows.values()} == {"speech"}
    assert {row["split"] for row in rows.values()} == {"train"}
    assert float(ann["seconds"]) == pytest.approx(7.0, abs=0.1)
    assert float(ann["measured_cutoff_hz"]) > 21_000.0

    audio, rate = soundfile.read(corpus / ann["path"], dtype="int16")
    assert (audio.ndim, rate) == (1, RATE)
    first, _ = soundfile.read(repository / "sounds" / "ann" / "1.wav", dtype="int16")
    # Between its faded ends, sample by sample, wherever it was put.
    begin = np.flatnonzero(audio == first[2000])
    inside = first[2000:100_000]
    assert any(np.array_equal(audio[at : at + len(inside)], inside) for at in begin)

    assert (corpus / "copyright" / "one.txt").read_text() == "CC0"
    assert not (corpus / ".work").exists()
    assert not list(corpus.rglob("*.part"))
    assert len(list_recordings(corpus, "train")) == 2


@pytest.mark.slow
def test_only_what_is_needed_is_downloaded(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "made")
    listed = write_list(tmp_path / "list.toml", one=repository.as_uri())
    listed.write_text(listed.read_text().replace("[^/]+)/", "bob)/"))
    trace = tmp_path / "trace"
    command = [sys.executable, str(SCRIPT), str(tmp_path / "corpus"), "--list", str(listed)]
    subprocess.run(command, check=True, env={**os.environ, "GIT_TRACE2_EVENT": str(trace)})
    size = (repository / "sounds" / "bob" / "1.ogg").stat().st_size
    assert size < 0.2 * sum(path.stat().st_size for path in repository.glob("sounds/ann/*"))
    fetches = [line for line in trace.read_text().splitlines() if '"fetch"' in line]
    # The first brings the names; the second what is needed, all at once.
    assert sum('"event":"start"' in line and "blob:none" in line for line in fetches) == 2


@pytest.mark.slow
def test_a_stopped_run_goes_on_and_a_lost_repository_is_told(tmp_path: Path) -> None:
    first = make_repository(tmp_path / "first")
    listed = write_list(tmp_path / "list.toml", a=first.as_uri(), b=tmp_path / "not-yet")
    corpus = tmp_path / "corpus"
    done = run(corpus, "--list", listed)
    assert done.returncode == 2
    assert done.stderr.startswith("b: Cannot read the repository ")
    assert done.stderr.count("\n") == 1
    assert len(read_rows(corpus)) == 2

    noted = corpus / "repositories" / "a.json"
    (corpus / ".work" / "files").mkdir(parents=True)  # as one that was killed leaves it
    noted.write_text(json.dumps({**json.loads(noted.read_text()), "title": "noted"}))
    make_repository(tmp_path / "not-yet", seed=10)
    done = run(corpus, "--list", listed)
    assert (done.returncode, done.stderr) == (0, "")
    rows = read_rows(corpus)
    assert len(rows) == 4
    assert sum(row["source"] == "noted" for row in rows) == 2
    # Two repositories, so one of them can be judged on, as a whole.
    assert sorted(row["split"] for row in rows) == ["train", "train", "valid", "valid"]


@pytest.mark.slow
def test_joined_corpus_keeps_its_splits_and_its_valid_repositories_out(tmp_path: Path) -> None:
    make_repository(tmp_path / "clones" / "someone" / "voices")
    make_repository(tmp_path / "clones" / "someone" / "others", seed=10)
    other = tmp_path / "other"
    (other / "sounds").mkdir(parents=True)
    (other / "manifest.csv").write_text(
        "path,split,domain,source,seconds\n"
        "sounds/a.wav,valid,speech,Someone/Voices (part of it),1\n"
        "sounds/b.wav,train,speech,someone/others,1\n"
    )
    listed = write_list(tmp_path / "list.toml", v="someone/voices", o="someone/others")
    corpus = tmp_path / "corpus"
    done = run(corpus, "--list", listed, "--clones", tmp_path / "clones", "--join", other)
    assert done.returncode == 0
    assert "v: left out, in the valid split" in done.stdout
    assert [one.path for one in list_recordings(corpus, "valid")] == ["sounds/a.wav"]
    assert {one.group for one in list_recordings(corpus, "train")} == {"o/ann", "o/bob", "sounds"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[[source]\n", "is not a TOML file"),
        ("name = 'a'\n", r"has no \[\[source\]\]"),
        ("[[source]]\nname = 'a'\n", "has no 'repository'"),
        (ENTRY + "note = 'x'\n", "has a key 'note'"),
        (ENTRY + "files = 'x'\n", "'files' is not a whole number"),
        (ENTRY + "files = 0\n", "must ask for one file at least"),
        (ENTRY.replace("(?:", "(?"), "a pattern of 'voices' cannot be used"),
        (ENTRY.replace('"{name}"', '"../a"'), "a name has letters"),
        (ENTRY + ENTRY, "an earlier source has this name too"),
        (ENTRY.replace('"LICENSE"', '"COPYING"'), "has no COPYING, which states the licence"),
        (ENTRY.replace("sounds/", "noises/"), "has no file that a pattern of the list fits"),
        (ENTRY + "commit = 'nonsense'\n", "Cannot read the repository"),
    ],
)
def test_a_list_that_is_not_right_is_told_in_one_sentence(
    tmp_path: Path, content: str, message: str
) -> None:
    repository = make_repository(tmp_path / "made")
    listed = tmp_path / "list.toml"
    listed.write_text(content.replace("{name}", "a").replace("{repository}", repository.as_uri()))
    done = run(tmp_path / "corpus", "--list", listed)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
    assert re.search(message, done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--list", "missing.toml"], "Cannot read missing.toml"),
        (["unheard-of"], "has no source 'unheard-of'"),
        (["--clones", "missing"], "missing is not a folder"),
        (["--join", "missing"], "missing has no manifest.csv"),
    ],
)
def test_wrong_arguments_are_told_in_one_sentence(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = run(tmp_path / "corpus", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_one_voice_lacks_others_may_use(voice_recordings: ModuleType) -> None:
    limits = voice_recordings.Limits(90.0, 200.0, 0.0)
    assert voice_recordings.shares([20.0, 500.0, 300.0], limits) == [20.0, 90.0, 90.0]
    assert voice_recordings.shares([20.0, 500.0, 300.0, 80.0], limits) == [20.0, 60.0, 60.0, 60.0]
    assert voice_recordings.shares([], limits) == []


def test_only_long_stretches_of_zeros_are_left_out(voice_recordings: ModuleType) -> None:
    ones = np.ones(100, np.int16)
    short, long = np.zeros(30, np.int16), np.zeros(31, np.int16)
    audio = np.concatenate([long, ones, short, ones, long, ones, long])
    kept = voice_recordings.without_zeros(audio, 1000)
    assert np.array_equal(kept, np.concatenate([ones, short, ones, ones]))


def test_clips_are_joined_by_kind_and_long_ones_cut(voice_recordings: ModuleType) -> None:
    def clip(seconds: float, rate: int, lossy: bool) -> object:
        samples = np.full(int(seconds * rate), 1000, np.int16)
        return voice_recordings.Clip(samples, rate, lossy, 16000.0)

    clips = [clip(20, 48000, False), clip(70, 44100, True), clip(5, 48000, False)]
    clips += [clip(8, 48000, True)]
    pieces = list(voice_recordings.joined(clips))
    found = [(one.lossy, one.rate, round(len(one.samples) / one.rate, 2)) for one in pieces]
    assert found == [
        (False, 48000, 25.0),
        (True, 44100, 23.33),
        (True, 44100, 23.33),
        (True, 44100, 23.33),
        (True, 48000, 8.0),
    ]
    joint = pieces[0].samples
    assert joint[0] == 0
    assert np.abs(np.diff(joint.astype(int))).max() < 10


def test_what_passes_full_scale_is_lowered_and_not_clipped(
    voice_recordings: ModuleType, tmp_path: Path
) -> None:
    audio = bursts(5.0, 3, ends_at=15000.0)
    soundfile.write(tmp_path / "loud.wav", 1.001 * audio / np.abs(audio).max(), RATE, "FLOAT")
    limits = voice_recordings.Limits(90.0, 600.0, 11000.0)
    kept = voice_recordings.keep_voices(
        {"": [tmp_path / "loud.wav"]}, tmp_path / "out", "one", limits, lossy=True
    )
    assert [one.path.name for one in kept] == ["one_00.ogg"]
    assert kept[0].group == "one/one"
    assert kept[0].cutoff_hz == pytest.approx(15000.0, abs=600.0)


@pytest.mark.slow
def test_the_list_names_each_licence_and_no_source_of_the_demo() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import corpus_from_repositories as c; print(*c.read_list(c.LIST))"],
        cwd=EXAMPLES,
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(done.stdout.split()) > 20
    assert "cadu" not in (EXAMPLES / "corpus_repositories.toml").read_text()
