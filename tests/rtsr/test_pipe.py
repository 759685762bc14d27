"""Raw PCM through pipes: formats, latency, ends of all kinds."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtsr import ArgumentError, RtsrError, Upsampler
from rtsr.errors import AudioFormatError
from rtsr.pipe import PipeReport, run_pipe

MakeSound = Callable[..., np.ndarray]
RTSR = [sys.executable, "-m", "rtsr"]


def _through(
    upsampler: Upsampler, data: bytes, chunk: int = 999, **options: object
) -> tuple[bytes, PipeReport]:
    source, feeding = os.pipe()
    draining, sink = os.pipe()
    out: list[bytes] = []

    def feed() -> None:
        for start in range(0, len(data), chunk):
            os.write(feeding, data[start : start + chunk])
        os.close(feeding)

    def drain() -> None:
        while got := os.read(draining, 65536):
            out.append(got)

    threads = [threading.Thread(target=feed), threading.Thread(target=drain)]
    for thread in threads:
        thread.start()
    report = run_pipe(upsampler, source, sink, **options)  # type: ignore[arg-type]
    os.close(sink)
    for thread in threads:
        thread.join()
    os.close(source)
    os.close(draining)
    return b"".join(out), report


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("drop", [False, True])
def test_pipe_equals_the_stream(
    channels: int, drop: bool, stand_in: Path, make_sound: MakeSound
) -> None:
    sound = make_sound(8000, 0.5, channels=channels)
    upsampler = Upsampler(8000, model=stand_in, channels=channels)
    expected = np.concatenate([upsampler.process(sound), upsampler.flush()])
    if drop:
        expected = expected[upsampler.latency.algorithmic_samples :]
    data, report = _through(upsampler, sound.tobytes(), input_format="f32", drop_latency=drop)
    assert np.array_equal(np.frombuffer(data, "<f4").reshape(-1, channels), expected)
    assert report.received == 4000
    assert report.sent == len(expected)


@pytest.mark.parametrize(("out", "size"), [("s16", 2), ("f32", 4), (None, 2)])
def test_formats(out: str | None, size: int, stand_in: Path) -> None:
    samples = np.array([0, 1, -1, 32767, -32768, 100] * 80, "<i2")
    upsampler = Upsampler(48000, model=stand_in, wet=0.0)
    data, _ = _through(upsampler, samples.tobytes(), output_format=out, drop_latency=True)
    assert len(data) == size * len(samples)
    back = np.frombuffer(data, "<i2" if size == 2 else "<f4")
    assert np.array_equal(back, samples if size == 2 else samples / np.float32(32768))


def test_full_scale_is_held(stand_in: Path) -> None:
    loud = np.array([2.0, -2.0, 0.5, 1.0, -1.0] * 96, "<f4")
    upsampler = Upsampler(48000, model=stand_in, wet=0.0, limiter=False)
    data, report = _through(
        upsampler, loud.tobytes(), input_format="f32", output_format="s16", drop_latency=True
    )
    assert list(np.frombuffer(data, "<i2")[:5]) == [32767, -32768, 16384, 32767, -32768]
    assert report.clipped_samples == 3 * 96


@pytest.mark.parametrize("extra", [1, 2, 3])
def test_bytes_left_over_are_reported(extra: int, stand_in: Path) -> None:
    upsampler = Upsampler(8000, model=stand_in, channels=2)
    data, report = _through(upsampler, bytes(4 * 80 + extra), chunk=7, drop_latency=True)
    assert report.left_over_bytes == extra
    assert len(data) == 480 * 4


@pytest.mark.parametrize(("rate", "out_rate"), [(8000, 96000), (96000, 192000)])
def test_a_pipe_goes_beyond_48_khz(
    rate: int, out_rate: int, stand_in: Path, make_sound: MakeSound
) -> None:
    sound = make_sound(rate, 0.1, channels=2)
    upsampler = Upsampler(rate, model=stand_in, channels=2, output_rate=out_rate)
    expected = np.concatenate([upsampler.process(sound), upsampler.flush()])
    data, report = _through(upsampler, sound.tobytes(), input_format="f32")
    assert np.array_equal(np.frombuffer(data, "<f4").reshape(-1, 2), expected)
    assert report.sent == upsampler.latency.algorithmic_samples + len(sound) * out_rate // rate


def test_where_the_content_ended_is_known_behind_the_end(
    stand_in: Path, make_sound: MakeSound
) -> None:
    sound = make_sound(48000, 4.0, cutoff=4000)
    upsampler = Upsampler(48000, model=stand_in)
    _, report = _through(upsampler, sound.tobytes(), 1 << 16, input_format="f32")
    assert report.cutoff_hz == pytest.approx(4000, rel=0.1)


def test_nothing_in_nothing_out(stand_in: Path) -> None:
    data, report = _through(Upsampler(8000, model=stand_in), b"")
    assert data == b""
    assert report == PipeReport()


def test_unknown_format(stand_in: Path) -> None:
    with pytest.raises(ArgumentError, match="use one of s16, f32"):
        run_pipe(Upsampler(8000, model=stand_in), 0, 1, input_format="s24")


@pytest.mark.slow
def test_sound_comes_out_while_more_goes_in(stand_in: Path) -> None:
    process = subprocess.Popen(
        [*RTSR, "pipe", "--rate", "8000", "--model", str(stand_in)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    )
    assert process.stdin
    assert process.stdout
    for _ in range(5):
        process.stdin.write(bytes(2 * 80))
        got = 0
        while got < 2 * 480:
            got += len(process.stdout.read(2 * 480 - got))
    process.stdin.close()
    assert (
        len(process.stdout.read())
        == 2 * Upsampler(8000, model=stand_in).latency.algorithmic_samples
    )
    assert process.wait() == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there, pipes have no such mode")
def test_descriptors_that_do_not_wait_are_waited_for(stand_in: Path, make_sound: MakeSound) -> None:
    data = (make_sound(8000, 2.0)[:, 0] * 32767).astype("<i2").tobytes()
    expected, _ = _through(Upsampler(8000, model=stand_in), data)
    source, feeding = os.pipe()
    draining, sink = os.pipe()
    os.set_blocking(source, False)
    os.set_blocking(sink, False)
    out: list[bytes] = []

    def feed() -> None:
        # At first there is nothing to read, and there is a time without more.
        for part in (data[:999], data[999:]):
            time.sleep(0.2)
            os.write(feeding, part)
        os.close(feeding)

    def drain() -> None:
        # It holds less than comes out.
        while select.select([], [sink], [], 0.0)[1]:
            time.sleep(0.01)
        while got := os.read(draining, 65536):
            out.append(got)

    threads = [threading.Thread(target=feed), threading.Thread(target=drain)]
    for thread in threads:
        thread.start()
    try:
        report = run_pipe(Upsampler(8000, model=stand_in), source, sink)
    finally:
        os.close(sink)
        for thread in threads:
            thread.join()
        os.close(source)
    assert b"".join(out) == expected
    assert report.received == 16000


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_names_what_could_not_be_written(stand_in: Path) -> None:
    upsampler = Upsampler(8000, model=stand_in)
    source, feeding = os.pipe()
    os.write(feeding, bytes(1600))
    os.close(feeding)
    sink = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(RtsrError, match=r"The output of the pipe .* 0 samples: No space left"):
        run_pipe(upsampler, source, sink)
    os.close(source)
    os.close(sink)


@pytest.mark.slow
def test_reader_that_leaves_ends_quietly(stand_in: Path) -> None:
    process = subprocess.Popen(
        [*RTSR, "pipe", "--rate", "8000", "--model", str(stand_in)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout
    process.stdout.close()
    _, errors = process.communicate(bytes(1 << 20))
    assert process.returncode == 141
    assert errors == b""


def _run(data: bytes, *options: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*RTSR, "pipe", *options], input=data, capture_output=True, check=False)


@pytest.mark.slow
def test_repairs_are_said_at_the_end(stand_in: Path) -> None:
    sound = np.full(4800, 0.5, "<f4")
    sound[7], sound[4000] = np.nan, 2.0
    options = ["-r", "48000", "-f", "f32", "--out-format", "s16", "--wet", "0"]
    done = _run(sound.tobytes(), *options, "--model", str(stand_in))
    assert done.returncode == 0
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("rtsr: 1 input samples were not usable")
    assert lines[1].startswith("rtsr: 1 output samples exceeded full scale")
    assert _run(bytes(960), "-r", "8000", "--model", str(stand_in)).stderr == b""


def test_degraded_blocks_are_said_at_the_end(failing_model: Path, make_sound: MakeSound) -> None:
    sound = make_sound(8000, 0.1).tobytes()
    done = _run(sound, "-r", "8000", "-f", "f32", "--model", str(failing_model))
    assert done.returncode == 0
    assert b"blocks came out without a high band.\n" in done.stderr


@pytest.mark.slow
def test_what_was_added_below_a_ceiling_is_not_denied(
    stand_in: Path, make_sound: MakeSound
) -> None:
    options = ["-r", "48000", "-f", "f32", "--ceiling", "12000", "--model", str(stand_in)]
    done = _run(make_sound(48000, 4.0, cutoff=4000).tobytes(), *options)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.slow
def test_cutoff_beyond_the_input_is_said(stand_in: Path) -> None:
    done = _run(bytes(960), "-r", "8000", "--cutoff", "12000", "--model", str(stand_in))
    assert done.returncode == 0
    assert done.stderr.endswith(b"4000 Hz is used.\n")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopping_is_quiet(number: signal.Signals, code: int, stand_in: Path) -> None:
    process = subprocess.Popen(
        [*RTSR, "pipe", "--rate", "8000", "--model", str(stand_in)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin
    assert process.stdout
    process.stdin.write(bytes(160))
    process.stdin.flush()
    process.stdout.read(960)
    time.sleep(0.1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == code
    assert errors == b""


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("ffmpeg") and shutil.which("sox")), reason="needs ffmpeg and sox"
)
def test_between_ffmpeg_and_sox(tmp_path: Path, stand_in: Path, make_sound: MakeSound) -> None:
    soundfile.write(tmp_path / "in.wav", make_sound(44100, 1.0, channels=2), 44100)
    command = (
        "ffmpeg -v error -i in.wav -f s16le -ac 2 -ar 16000 - | "
        f"'{sys.executable}' -m rtsr pipe -r 16000 -c 2 --drop-latency --model '{stand_in}' | "
        "sox -t raw -e signed -b 16 -r 48000 -c 2 - out.wav"
    )
    subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=tmp_path, check=True)
    info = soundfile.info(tmp_path / "out.wav")
    assert (info.samplerate, info.channels, info.frames) == (48000, 2, 48000)
    assert np.std(soundfile.read(tmp_path / "out.wav")[0]) == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "aiff"])
def test_a_file_with_a_header_is_no_raw_pcm(suffix: str, tmp_path: Path, stand_in: Path) -> None:
    path = tmp_path / f"in.{suffix}"
    soundfile.write(path, np.full(800, 0.1), 8000)
    with path.open("rb") as file, (tmp_path / "out").open("wb") as out:
        upsampler = Upsampler(8000, model=stand_in)
        with pytest.raises(AudioFormatError, match="use `rtsr enhance"):
            run_pipe(upsampler, file.fileno(), out.fileno())
    assert (tmp_path / "out").stat().st_size == 0


@pytest.mark.parametrize("first", [1, 2, 3])
def test_a_header_that_comes_in_pieces_is_one(
    first: int, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = [b"RIFF"[:first], b"RIFF"[first:] + bytes(4000), b""]
    monkeypatch.setattr("rtsr.pipe._read", lambda source: pieces.pop(0))
    with pytest.raises(AudioFormatError, match="use `rtsr enhance"):
        run_pipe(Upsampler(8000, model=stand_in), 0, -1)


@pytest.mark.parametrize("data", [b"R", b"RI", b"RIF", b"RIx", b"ID", b"OggR" + bytes(400)])
def test_what_only_begins_as_a_header_is_sound(data: bytes, stand_in: Path) -> None:
    """Also where nothing follows it."""
    expected, report = _through(Upsampler(8000, model=stand_in), data, chunk=len(data))
    assert _through(Upsampler(8000, model=stand_in), data, chunk=1) == (expected, report)
    assert report.received == len(data) // 2
    assert report.left_over_bytes == len(data) % 2
