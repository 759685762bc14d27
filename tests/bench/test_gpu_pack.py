"""What is packed for a GPU machine, and what its scripts say to a wrong pack."""

from __future__ import annotations

import csv
import json
import shutil
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from example_run import load_script

SCRIPTS = Path(__file__).parents[2] / "bench" / "gpu"


trim_provider = load_script(SCRIPTS / "trim_provider.py")
pack = load_script(SCRIPTS / "pack.py")


def _entry(architecture: int, code: bytes) -> bytes:
    header = bytearray(64)
    struct.pack_into("<HHIQ", header, 0, 2, 1, 64, len(code))
    struct.pack_into("<I", header, 28, architecture)
    return bytes(header) + code


def _container(*entries: bytes) -> bytes:
    body = b"".join(entries)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def _library(section: bytes) -> bytes:
    """The least ELF file that has a section of code for GPUs."""
    names = b"\0.nv_fatbin\0.shstrtab\0"
    names_at, table_at = 64 + len(section), 64 + len(section) + len(names)

    def header(name: int, place: int, size: int) -> bytes:
        return struct.pack("<IIQQQQIIQQ", name, 1, 0, 0, place, size, 0, 0, 1, 0)

    elf = bytearray(64)
    elf[:5] = b"\x7fELF\x02"
    struct.pack_into("<Q", elf, 0x28, table_at)
    struct.pack_into("<HHH", elf, 0x3A, 64, 3, 2)
    table = header(0, 0, 0) + header(1, 64, len(section)) + header(12, names_at, len(names))
    return bytes(elf) + section + names + table


def test_code_for_one_gpu_is_kept(tmp_path: Path) -> None:
    kept, other = b"code for ninety.", b"code for seventy"
    section = _container(_entry(70, other), _entry(90, kept))
    section += _container(_entry(75, other * 4), _entry(70, other))
    file = tmp_path / "provider.so"
    file.write_bytes(_library(section))
    size = file.stat().st_size
    assert trim_provider.trim(file, 90) == (64 + 16) + (64 + 64)
    data = file.read_bytes()
    assert len(data) == size, "offsets stay"
    assert data.count(kept) == 1
    # one container has no code for it and keeps its smallest entry
    assert data.count(other) == 1


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"MZ", "no 64-bit ELF file"),
        (_library(_container(_entry(70, b"x" * 16))), "no code for a GPU of architecture 90"),
    ],
)
def test_what_cannot_be_trimmed_is_said(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "provider.so").write_bytes(content)
    with pytest.raises(trim_provider.TrimError, match=sentence):
        trim_provider.trim(tmp_path / "provider.so", 90)


def test_domains_take_turns_within_the_budget() -> None:
    rows = [{"path": f"{domain}{n}", "domain": domain} for domain in "sme" for n in range(20)]
    chosen = pack.choose_recordings(rows, {row["path"]: 10 for row in rows}, 95)
    assert len(chosen) == 9
    assert [sum(row["domain"] == domain for row in chosen) for domain in "sme"] == [3, 3, 3]
    assert len({row["path"] for row in chosen}) == 9


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    folder = tmp_path / "recordings"
    folder.mkdir()
    rows = []
    for number in range(24):
        split = "valid" if number % 4 == 0 else "train"
        path = f"{number}.wav"
        (folder / path).write_bytes(bytes(1000))
        rows.append({"path": path, "split": split, "domain": "sme"[number % 3]})
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def test_training_is_shared_out_over_two_packs(recordings: Path, tmp_path: Path) -> None:
    start = tmp_path / "start.pt"
    start.write_bytes(bytes(2000))
    folders = (tmp_path / "two", tmp_path / "three")
    for folder in folders:
        folder.mkdir()
    pack.build_training(recordings, start, pack.SETTINGS, 8500, folders)
    first, second = ({file.name for file in (folder / "audio").glob("*.wav")} for folder in folders)
    assert not first & second
    assert len(first) == 8
    with (folders[1] / "audio" / "manifest.csv").open(newline="") as file:
        listed = {row["path"]: row["split"] for row in csv.DictReader(file)}
    assert set(listed) == first | second
    assert {"train", "valid"} == set(listed.values())
    assert all(listed[name] == "train" for name in first)
    (tmp_path / "large.pt").write_bytes(bytes(9000))
    with pytest.raises(pack.PackError, match="leaves no room"):
        pack.build_training(recordings, tmp_path / "large.pt", pack.SETTINGS, 8500, folders)
    with pytest.raises(pack.PackError, match="no checkpoint"):
        pack.build_training(recordings, tmp_path / "none.pt", pack.SETTINGS, 8500, folders)
    with pytest.raises(pack.PackError, match=r"There is no .*manifest"):
        pack.build_training(tmp_path, start, pack.SETTINGS, 8500, folders)


def test_the_settings_are_settings() -> None:
    pytest.importorskip("torch")
    from rtsr.train.settings import load_settings

    assert load_settings(pack.SETTINGS).adversarial_start == 0.0


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_a_pack_that_is_too_large_comes_in_parts(tmp_path: Path) -> None:
    folder = tmp_path / "content"
    (folder / "audio").mkdir(parents=True)
    noise = np.random.default_rng(0).bytes(1 << 20)
    (folder / "audio" / "noise").write_bytes(noise)
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    (folder / "pack.json").write_text(json.dumps({"part": "audio", "python": here}))
    files = pack.write_tar(folder, tmp_path / "2-audio.tar", 0.4)
    assert [file.name for file in files] == [f"2-audio.tar.0{part}" for part in range(3)]
    done = _unpack(tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "work" / "audio" / "noise").read_bytes() == noise


def _unpack(folder: Path, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(SCRIPTS / "2-audio.sh"), str(folder / "2-audio.tar")],
        env={"PATH": "/usr/bin:/bin", "PYTHON": python, "WORK": str(folder / "work")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("lost", [".00", ".01", ".02"])
def test_a_pack_that_lacks_a_part_is_one_sentence(tmp_path: Path, lost: str) -> None:
    content = tmp_path / "content"
    content.mkdir()
    (content / "noise").write_bytes(np.random.default_rng(0).bytes(1 << 20))
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    (content / "pack.json").write_text(json.dumps({"part": "audio", "python": here}))
    pack.write_tar(content, tmp_path / "2-audio.tar", 0.4)
    (tmp_path / f"2-audio.tar{lost}").unlink()
    # What another one has left is no answer.
    (tmp_path / "work").mkdir()
    shutil.copy(content / "pack.json", tmp_path / "work")
    done = _unpack(tmp_path)
    assert done.returncode == 2
    assert "is damaged or lacks a part (found: 2-audio.tar.0" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not done.stdout
    assert not (tmp_path / "work" / "pack.tar").exists()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_a_python_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    done = _unpack(tmp_path, python="python3.99")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "There is no Python python3.99; set PYTHON to the right one.\n"


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_training_that_failed_brings_nothing_back_and_says_nothing_of_it(tmp_path: Path) -> None:
    content = tmp_path / "content"
    content.mkdir()
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    (content / "pack.json").write_text(json.dumps({"part": "train", "python": here}))
    (content / "train.toml").write_text("")
    pack.write_tar(content, tmp_path / "3-train.tar", 1.0)
    done = subprocess.run(
        ["bash", str(SCRIPTS / "3-train.sh"), str(tmp_path / "3-train.tar"), str(tmp_path / "out")],
        env={
            "PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "WORK": str(tmp_path / "work"),
            "DEVICE": "cpu", "STEPS": "0",
        },
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "slim.pt" not in done.stdout
    assert "Traceback" not in done.stderr


def test_training_alone_needs_recordings(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "pack.py"), "--only-training", "--out", str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr == "--only-training packs recordings; say where they are: --recordings DIR.\n"
    )


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        (None, "There is no pack"),
        ({"part": "train", "python": "3.1"}, "wants 'audio'"),
        ({"part": "audio", "python": "3.1"}, "for Python 3.1 and this is"),
    ],
)
def test_a_wrong_pack_is_one_sentence(
    tmp_path: Path, facts: dict[str, str] | None, sentence: str
) -> None:
    tar = tmp_path / "2-audio.tar"
    if facts is not None:
        (tmp_path / "pack.json").write_text(json.dumps(facts))
        with tarfile.open(tar, "w") as file:
            file.add(tmp_path / "pack.json", "pack.json")
    done = _unpack(tmp_path)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
