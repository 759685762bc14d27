"""The script that makes a corpus of packages: what it keeps, whose licence, which split."""

from __future__ import annotations

import csv
import json
import sys
import zipfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

from rtsr.errors import RtsrError
from rtsr.train.listing import list_recordings

EXAMPLES = Path(__file__).parents[2] / "examples"
OPTIONS = Namespace(
    lowest_cutoff=16000.0, music_minutes=10.0, speech_minutes=10.0, effects_minutes=10.0
)


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ModuleType, ModuleType]]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import corpus_from_packages
    import package_recordings

    yield corpus_from_packages, package_recordings
    for name in ("corpus_from_packages", "package_recordings"):
        sys.modules.pop(name, None)


def write_noise(path: Path, seconds: float, rate: int = 44100, level: float = 0.1, seed=0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).standard_normal(int(seconds * rate)) * level
    if path.suffix == ".wav":
        soundfile.write(path, noise.clip(-1, 1), rate)
    else:
        soundfile.write(path, noise.clip(-1, 1).astype(np.float32), rate)


def test_full_band_recordings_are_kept_and_others_are_not(scripts, tmp_path: Path) -> None:
    tree = tmp_path / "tree" / "usr" / "share" / "games" / "thing"
    write_noise(tree / "sounds" / "bang.wav", 1.0)
    write_noise(tree / "more" / "same.wav", 1.0)  # the same bytes again
    write_noise(tree / "music" / "tune.wav", 70.0, seed=1)
    write_noise(tree / "voices" / "low-rate.wav", 2.0, rate=22050)
    write_noise(tree / "sounds" / "quiet.wav", 1.0, level=1e-4)
    write_noise(tree / "sounds" / "clipped.wav", 1.0, level=3.0)
    write_noise(tree / "sounds" / "short.wav", 0.1)
    (tree / "sounds" / "text.ogg").write_text("This is not audio.")
    write_noise(tmp_path / "inner" / "sound" / "hit.wav", 0.5, seed=2)
    with zipfile.ZipFile(tree / "data.pk3", "w") as archive:
        archive.write(tmp_path / "inner" / "sound" / "hit.wav", "sound/hit.wav")
        archive.write(tmp_path / "inner" / "sound" / "hit.wav", "readme.txt")

    kept = scripts[1].keep_recordings(
        tmp_path / "tree", tmp_path / "audio", "thing-data", None, OPTIONS
    )
    found = {Path(one.origin).name: one for one in kept}
    assert set(found) in ({"bang.wav", "tune.wav", "hit.wav"}, {"same.wav", "tune.wav", "hit.wav"})
    parts = [one for one in kept if one.domain == "music"]
    assert [one.seconds for one in parts] == pytest.approx([30.0, 30.0], abs=0.01)
    assert found["hit.wav"].domain == "effects"
    for one in kept:
        audio, rate = soundfile.read(one.path, dtype="int16")
        assert (rate, audio.ndim, len(audio) / rate) == (44100, 1, pytest.approx(one.seconds))
        assert one.cutoff_hz > 21_000.0
    assert not list((tmp_path / "audio").rglob("*.part"))


@pytest.mark.parametrize(
    ("path", "seconds", "usual", "domain"),
    [
        ("usr/share/games/thing/sounds/a.ogg", 2.0, None, "effects"),
        ("usr/share/games/thing/sounds/a.ogg", 2.0, "speech", "speech"),
        ("usr/share/games/thing/sounds/voice/a.ogg", 2.0, None, "speech"),
        ("usr/share/games/thing/music/a.ogg", 2.0, "speech", "music"),
        ("usr/share/games/thing/sounds/a.ogg", 200.0, None, "music"),
        ("usr/share/games/thing/a.ogg", 60.0, None, "music"),
        ("usr/share/games/thing/a.ogg", 2.0, None, "effects"),
        ("usr/share/sounds/Bell.ogg", 2.0, None, "effects"),
    ],
)
def test_paths_and_lengths_tell_the_domain(scripts, path, seconds, usual, domain) -> None:
    assert scripts[1]._domain(path, seconds, usual) == domain


def test_minutes_are_taken_from_all_files(scripts, tmp_path: Path) -> None:
    tree = tmp_path / "tree" / "usr" / "share" / "games" / "thing" / "music"
    for index in range(4):
        write_noise(tree / f"{index}.wav", 120.0, seed=index)
    options = Namespace(**{**vars(OPTIONS), "music_minutes": 4.0})
    kept = scripts[1].keep_recordings(tmp_path / "tree", tmp_path / "audio", "thing", None, options)
    assert sum(one.seconds for one in kept) == pytest.approx(240.0)
    assert {Path(one.origin).name for one in kept} == {f"{index}.wav" for index in range(4)}


def test_the_last_paragraph_that_fits_names_the_licence(scripts) -> None:
    licence = scripts[1].licences_of(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n"
        "Files: *\nCopyright: A\nLicense: GPL-2+\n text of it\n\n"
        "Files: data/music/*.ogg\n data/extra/one.ogg\nCopyright: B\nLicense: CC-BY-3.0\n\n"
        "License: GPL-2+\n longer text\n"
    )
    assert licence("usr/share/games/thing/data/music/a.ogg") == "CC-BY-3.0"
    assert licence("usr/share/games/thing/data/extra/one.ogg") == "CC-BY-3.0"
    assert licence("usr/share/games/thing/data/extra/two.ogg") == "GPL-2+"
    assert "copyright file" in scripts[1].licences_of("Free text.")("a.ogg")


def built(folder: Path, package: str, source: str) -> None:
    (folder / "packages").mkdir(exist_ok=True)
    row = {"path": f"audio/music/{package}.flac", "domain": "music", "seconds": "60"}
    content = {"source": source, "rows": [row]}
    (folder / "packages" / f"{package}.json").write_text(json.dumps(content))


def test_a_source_is_in_one_split(scripts, tmp_path: Path) -> None:
    for index in range(40):
        for kind in ("data", "music"):
            built(tmp_path, f"game{index}-{kind}", f"game{index}")
    scripts[0].write_manifest(tmp_path, 0.2, [])
    splits: dict[str, set[str]] = {}
    with (tmp_path / "manifest.csv").open() as file:
        for row in csv.DictReader(file):
            splits.setdefault(row["source"].split("-")[0], set()).add(row["split"])
    assert len(splits) == 40
    assert all(len(split) == 1 for split in splits.values())
    assert 2 <= sum(split == {"valid"} for split in splits.values()) <= 16


def test_joined_corpus_keeps_its_splits_and_its_valid_sources_out(scripts, tmp_path: Path) -> None:
    other, folder = tmp_path / "other", tmp_path / "new"
    folder.mkdir()
    (other / "valid").mkdir(parents=True)
    (other / "manifest.csv").write_text(
        "path,split,domain,source,seconds\n"
        "valid/a.wav,valid,speech,KDE klettres (history),1\n"
        "valid/b.wav,valid,music,Debian lincity-ng-data,1\n"
        "valid/c.wav,train,music,Debian nexuiz-data,1\n"
    )
    rows = scripts[0].join(folder, other, {"audio"})
    taken = scripts[0].valid_families(rows)
    assert scripts[0].family("klettres-data") in taken
    assert scripts[0].family("lincity-ng") in taken
    assert scripts[0].family("nexuiz-music") not in taken
    built(folder, "xmoto-data", "xmoto")
    scripts[0].write_manifest(folder, 1.0, rows)
    assert [one.path for one in list_recordings(folder, "valid")] == ["valid/a.wav", "valid/b.wav"]
    assert [one.path for one in list_recordings(folder, "train")] == [
        "audio/music/xmoto-data.flac",
        "valid/c.wav",
    ]
    assert (folder / "valid").resolve() == (other / "valid").resolve()


def test_the_list_names_no_demo_source_and_unknown_packages_are_refused(scripts) -> None:
    listed = scripts[0].read_list(EXAMPLES / "corpus_packages.txt")
    assert len(listed) > 50
    assert "sonic-pi-samples" not in listed
    assert set(listed.values()) <= {None, "speech", "music", "effects"}
    with pytest.raises(RtsrError, match=r"failed for no-such-package|is not here"):
        scripts[0].source_of("no-such-package")
