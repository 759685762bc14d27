"""`rtsr live` between two virtual cables of PulseAudio, as a call or a broadcast uses it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

RATE = 48000
CUTOFF = 4000.0
_RAW = ["--raw", f"--rate={RATE}", "--channels=1", "--format=float32le", "--latency-msec=20"]


@pytest.fixture
def pulse_cables(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A PulseAudio server with the null sinks `cable` and `out`, which children use."""
    for program in ("pulseaudio", "pacat", "parec", "pactl"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian: pulseaudio, pulseaudio-utils)")
    # Short, because the path of a Unix socket may be.
    folder = tmp_path_factory.mktemp("pulse")
    for name in ("HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "PULSE_RUNTIME_PATH"):
        monkeypatch.setenv(name, str(folder))
    monkeypatch.setenv("PULSE_SOURCE", "cable.monitor")
    monkeypatch.setenv("PULSE_SINK", "out")
    for name in ("PULSE_SERVER", "PULSE_LATENCY_MSEC"):
        monkeypatch.delenv(name, raising=False)
    # PortAudio prefers a JACK server, and would even start one.
    monkeypatch.setenv("JACK_NO_START_SERVER", "1")
    monkeypatch.setenv("JACK_DEFAULT_SERVER", folder.name)
    command = ["pulseaudio", "-n", "--daemonize=no", "--use-pid-file=no", "--exit-idle-time=-1"]
    command += ["-L", "module-native-protocol-unix"]
    for sink in ("cable", "out"):
        # Without `norewinds` an idle null sink begins with a block of two seconds.
        module = f"module-null-sink sink_name={sink} rate={RATE} channels=1 norewinds=1"
        command += ["-L", f"{module} format=float32le"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 10.0
        while "out.monitor" not in _output("pactl", "list", "short", "sources"):
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"pulseaudio does not start: {(folder / 'log').read_text()[-500:]}")
            time.sleep(0.05)
        listed = json.loads(_output(sys.executable, "-m", "rtsr.cli", "devices", "--json"))
        if all(device["name"] != "pulse" for device in listed["devices"]):
            pytest.skip("ALSA has no device 'pulse' (Debian: libasound2-plugins)")
        yield folder
    finally:
        server.kill()
        server.wait()


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=20).stdout


class Cables:
    """Plays into the one and records the other all the time."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "recorded.raw"
        command = ["parec", *_RAW, "--device=out.monitor"]
        with self._file.open("wb") as file:
            self._recorder = subprocess.Popen(command, stdout=file)

    def play(self, sound: np.ndarray) -> np.ndarray:
        """Play `sound` `(frames,)`; returns what has been recorded since it began."""
        start = self._file.stat().st_size // 4
        command = ["pacat", *_RAW, "--device=cable"]
        subprocess.run(command, input=sound.tobytes(), check=True, timeout=60)
        time.sleep(0.5)
        return np.fromfile(self._file, np.float32)[start:]

    def close(self) -> None:
        """End recording."""
        self._recorder.kill()
        self._recorder.wait()


def aligned(heard: np.ndarray, played: np.ndarray) -> np.ndarray:
    """`heard` from where `played` begins in it."""
    length = len(heard) + len(played)
    spectrum = np.fft.rfft(heard, length) * np.conj(np.fft.rfft(played, length))
    return heard[int(np.argmax(np.fft.irfft(spectrum, length)[: len(heard)])) :]


def test_a_narrow_call_comes_out_wide(
    pulse_cables: Path,
    live_program: Any,
    tmp_path: Path,
    make_sound: Callable[..., np.ndarray],
    compare_sound: Callable[..., Any],
) -> None:
    sound = make_sound(RATE, 3.0, cutoff=CUTOFF)[:, 0]
    cables = Cables(tmp_path)
    try:
        live_program.start("--input", "pulse", "--output", "pulse", "--cutoff", str(CUTOFF))
        live_program.wait_for(lambda figures: figures["enhanced_frames"] > RATE)
        for _ in range(3):
            before = live_program.figures()[-1]
            heard = aligned(cables.play(sound), sound)
            after = live_program.wait_for(lambda figures: figures["seconds"] > before["seconds"])
            # Ends aside, and half a second in which the clocks may still be meeting.
            result = compare_sound(heard[RATE // 2 :], sound[RATE // 2 :], slack=48)
            if not result.broken.any() and not result.plain.any():
                break
            print(before, after)
            print(np.flatnonzero(result.broken), np.flatnonzero(result.plain), len(result.plain))
        figures = live_program.stop()
    finally:
        cables.close()
    print(figures)
    assert not result.broken.any()
    assert len(result.plain) > 200
    assert not result.plain.any()
