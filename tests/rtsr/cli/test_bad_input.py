"""Bad input: one sentence, exit code 2, no traceback, nothing left under the final name."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from rtsr.audio.writer import OutputFile
from rtsr.cli.app import app
from rtsr.errors import RtsrError

WriteModel = Callable[..., Path]
RTSR = [sys.executable, "-m", "rtsr"]


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.wav"
    soundfile.write(path, np.full(8000, 0.1), 8000)
    return path


def _refused(arguments: list[object], folder: Path, sentence: str) -> None:
    before = {path.name for path in folder.iterdir()}
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("rtsr: ")
    assert result.stderr.endswith(".\n")
    assert len(result.stderr.splitlines()) == 1
    assert sentence in result.stderr
    assert {path.name for path in folder.iterdir()} == before


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


INPUTS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda folder: folder / "nowhere.wav", "does not exist"),
    "folder": (lambda folder: folder, "name of a sound file"),
    "empty": (lambda folder: _write(folder / "in.wav", b""), "is empty"),
    "text": (lambda folder: _write(folder / "in.wav", b"hello\n" * 99), "not a sound file"),
    "picture": (lambda folder: _write(folder / "in.mp3", b"\x89PNG\r\n" * 99), "not a sound file"),
    "half a header": (lambda folder: _write(folder / "in.wav", b"RIFF\0\0\0\0WAVEfmt "), "damaged"),
    "raw": (lambda folder: _write(folder / "in.raw", bytes(999)), "rtsr pipe"),
}


@pytest.mark.parametrize("name", INPUTS)
def test_unreadable_input(name: str, tmp_path: Path, stand_in: Path) -> None:
    make, sentence = INPUTS[name]
    source = make(tmp_path)
    arguments = ["enhance", source, tmp_path / "out.wav", "--model", stand_in]
    _refused(arguments, tmp_path, sentence)


@pytest.mark.parametrize(
    ("samples", "rate", "channels", "sentence"),
    [
        (0, 8000, 1, "holds no samples"),
        (100, 64000, 1, "accepted: 8000, 11025"),
        (100, 4000, 1, "accepted: 8000, 11025"),
        (100, 8000, 9, "accepted: 1 to 8"),
        (100, 384000, 1, "176400, 192000."),
    ],
    ids=["zero length", "64 kHz", "4 kHz", "nine channels", "384 kHz"],
)
def test_unsupported_audio(
    samples: int, rate: int, channels: int, sentence: str, tmp_path: Path, stand_in: Path
) -> None:
    source = tmp_path / "in.wav"
    soundfile.write(source, np.zeros((samples, channels)), rate)
    _refused(["enhance", source, tmp_path / "out.wav", "--model", stand_in], tmp_path, sentence)


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("nowhere/out.wav", "no folder"),
        ("good.wav/out.wav", "no folder"),
        ("good.wav", "same file"),
        ("out", "no extension"),
        ("out.m4a", "'.m4a'"),
        ("out.raw", "'.raw'"),
        (".", "writes into it"),
        ("/dev/null", "no extension"),
        ("device.wav", "device or a pipe"),
        ("folder.wav", "is a folder"),
    ],
)
def test_output_that_cannot_be_written(
    output: str, sentence: str, good: Path, stand_in: Path
) -> None:
    folder = good.parent
    (folder / "device.wav").symlink_to("/dev/full")
    (folder / "folder.wav").mkdir()
    _refused(["enhance", good, folder / output, "--model", stand_in], folder, sentence)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is write-protected for root")
def test_protected_output(good: Path, stand_in: Path) -> None:
    protected = good.parent / "protected"
    protected.mkdir(mode=0o500)
    _refused(["enhance", good, protected / "out.wav", "--model", stand_in], good.parent, "denied")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--model", "huge"], "unknown"),
        (["--model", "good.wav"], "not an ONNX model"),
        (["--out-rate", "88200"], "24000 or 16000 Hz"),
        (["--cutoff", "10"], "cutoff must lie between"),
        (["--wet", "7"], "between 0 and 1"),
        (["--block-ms", "15"], "10, 20, 40, 80, 160"),
        (["--provider", "npu"], "choose one of auto"),
        (["--subtype", "PCM_99"], "use one of"),
        (["--threads", "0"], "threads on this machine, not 0"),
        (["--threads", "100000"], "threads on this machine, not 100000"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_option_out_of_range(
    options: list[str],
    sentence: str,
    good: Path,
    stand_in: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(good.parent)
    arguments = ["enhance", "good.wav", "out.wav", "--model", stand_in, *options]
    _refused(arguments, good.parent, sentence)


@pytest.mark.parametrize("text", [None, "{}"], ids=["no metadata", "foreign metadata"])
def test_a_model_of_other_makers(text: str | None, good: Path, write_model: WriteModel) -> None:
    foreign = write_model(text=text)
    _refused(
        ["enhance", good, good.parent / "out.wav", "--model", foreign], good.parent, "Model file"
    )


@pytest.mark.parametrize(
    ("sound", "subtype"),
    [
        (np.full(1, 0.5), "PCM_16"),
        (np.full(800, 0.5), "PCM_16"),
        (np.array([0.1, np.nan, np.inf, -np.inf] * 200), "FLOAT"),
        (np.clip(5 * np.sin(np.arange(8000)), -1, 1), "PCM_16"),
        (0.3 + 0.1 * np.sin(np.arange(8000)), "PCM_16"),
        (np.zeros(8000), "PCM_16"),
    ],
    ids=["one sample", "0.1 s", "not numbers", "clipped", "offset", "silence"],
)
def test_strange_sound_goes_on(sound: np.ndarray, subtype: str, tmp_path: Path, model: str) -> None:
    soundfile.write(tmp_path / "in.wav", sound, 8000, subtype=subtype)
    arguments = ["enhance", tmp_path / "in.wav", tmp_path / "out.wav", "--model", model]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    out = soundfile.read(tmp_path / "out.wav")[0]
    assert len(out) == 6 * len(sound)
    assert np.isfinite(out).all()


def test_constant_offset_is_kept(tmp_path: Path, stand_in: Path) -> None:
    soundfile.write(tmp_path / "in.wav", np.full(8000, 0.25), 8000)
    arguments = ["enhance", tmp_path / "in.wav", tmp_path / "out.wav", "--model", stand_in]
    CliRunner().invoke(app, [str(argument) for argument in arguments])
    out = soundfile.read(tmp_path / "out.wav")[0]
    assert np.mean(out[4800:-4800]) == pytest.approx(0.25, abs=0.01)


def _limit_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))


@pytest.mark.slow
@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "mp3"])
def test_file_that_cannot_grow(extension: str, tmp_path: Path, stand_in: Path) -> None:
    random = np.random.default_rng(0)
    soundfile.write(tmp_path / "in.wav", 0.2 * random.standard_normal(480_000 * 4), 48000)
    done = subprocess.run(
        [*RTSR, "enhance", "in.wav", f"out.{extension}", "--model", str(stand_in)],
        cwd=tmp_path,
        preexec_fn=_limit_file_size,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("rtsr: ")
    assert "could not be written" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"in.wav"}


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.geteuid() != 0, reason="mounts a small disk"
)
@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "mp3"])
def test_full_disk(extension: str, tmp_path: Path, stand_in: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("may not mount a disk here")
    try:
        random = np.random.default_rng(0)
        soundfile.write(tmp_path / "in.wav", 0.2 * random.standard_normal(480_000 * 4), 48000)
        arguments = ["enhance", tmp_path / "in.wav", disk / f"out.{extension}"]
        _refused([*arguments, "--model", stand_in], disk, "the disk is full")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.geteuid() != 0, reason="mounts a small disk"
)
def test_disk_that_is_full_from_the_start(good: Path, stand_in: Path) -> None:
    disk = good.parent / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("may not mount a disk here")
    try:
        (disk / "filling").write_bytes(bytes(65536))
        arguments = ["enhance", good, disk / "out.wav", "--model", stand_in]
        _refused(arguments, disk, "the disk is full")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_output_that_cannot_be_created_for_want_of_space(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class _FullDisk:
        f_bavail, f_frsize = 0, 4096

    monkeypatch.setattr(os, "statvfs", lambda folder: _FullDisk)
    with pytest.raises(RtsrError, match="the disk is full"):
        OutputFile(good.parent / "out.mp3", 48000, 8, 480)
    assert {path.name for path in good.parent.iterdir()} == {"good.wav"}


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs a shell that closes descriptors")
@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("pipe -r 8000 <&-", "stdin is closed"),
        ("pipe -r 8000 </dev/null >&-", "stdout is closed"),
        ("enhance good.wav out.wav --json >&-", "stdout is closed"),
    ],
)
def test_closed_descriptor(command: str, sentence: str, good: Path) -> None:
    program = f"'{sys.executable}' -m rtsr {command}"
    done = subprocess.run(
        ["sh", "-c", program], cwd=good.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == f"rtsr: {sentence}; connect it to a program or file.\n"
    assert {path.name for path in good.parent.iterdir()} == {"good.wav"}


@pytest.mark.slow
@pytest.mark.skipif("MP3" not in soundfile.available_formats(), reason="no MP3 here")
@pytest.mark.parametrize(
    ("content", "lines", "code"),
    [
        (lambda whole: b"hello, this is text\n" * 99, 1, 2),
        (lambda whole: whole[:400], 1, 2),
        (lambda whole: whole[:200] + bytes(len(whole) - 200), 1, 2),
        (lambda whole: whole[: len(whole) // 2], 1, 0),
        (lambda whole: whole, 0, 0),
    ],
    ids=["text", "half a frame", "zeros", "truncated", "whole"],
)
def test_mp3_decoder_writes_nothing_of_its_own(
    content: Callable[[bytes], bytes], lines: int, code: int, tmp_path: Path, stand_in: Path
) -> None:
    path = tmp_path / "in.mp3"
    soundfile.write(path, 0.3 * np.sin(0.1 * np.arange(48000)), 48000)
    path.write_bytes(content(path.read_bytes()))
    done = subprocess.run(
        [*RTSR, "enhance", "in.mp3", "out.wav", "--model", str(stand_in)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert len(done.stderr.splitlines()) == lines, done.stderr
    assert not lines or done.stderr.startswith("rtsr: Input file 'in.mp3' is ")
    assert "does not exist" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopping_leaves_nothing(
    number: signal.Signals, code: int, tmp_path: Path, stand_in: Path
) -> None:
    soundfile.write(tmp_path / "in.wav", np.zeros(48000 * 600), 48000)
    process = subprocess.Popen(
        [*RTSR, "enhance", "in.wav", "out.wav", "--model", str(stand_in)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    while not any(path.name.startswith(".out") for path in tmp_path.iterdir()):
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.1)
    process.send_signal(number)
    out, errors = process.communicate(timeout=20)
    assert process.returncode == code
    assert (out, errors) == (b"", b"")
    assert {path.name for path in tmp_path.iterdir()} == {"in.wav"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["enhance", "nowhere.wav", "out.wav"],
        ["pipe", "--rate", "8001"],
        ["pipe", "--rate", "8000", "--channels", "9"],
        ["pipe", "--rate", "8000", "--format", "u8"],
        ["demo", "--clip", "opera"],
    ],
    ids=" ".join,
)
def test_real_process_prints_one_sentence(
    arguments: list[str], tmp_path: Path, stand_in: Path
) -> None:
    model = [] if arguments[0] == "demo" else ["--model", str(stand_in)]
    done = subprocess.run(
        [*RTSR, *arguments, *model],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("rtsr: ")
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--out", "good.wav"], "is a file; --out names the folder of the run"),
        (["--minutes", "nan"], "--minutes is nan; it must be a number above zero"),
        (["--minutes", "-1"], "--minutes is -1; it must be a number above zero"),
        (["--minutes", "inf"], "--minutes is inf"),
        (["--stage", "48"], "--stage is 48; an octave ends at 96 or 192 kHz"),
    ],
)
def test_a_training_that_cannot_be_is_refused_before_anything_is_read(
    good: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], sentence: str
) -> None:
    monkeypatch.chdir(good.parent)
    _refused(["train", ".", *options], good.parent, sentence)
