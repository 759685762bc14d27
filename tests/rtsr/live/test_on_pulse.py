"""`rtsr live` between two virtual cables of PulseAudio, as a call or a broadcast uses it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

RATE = 48000
CUTOFF = 4000.0
_RAW = ["--raw", f"--rate={RATE}", "--channels=1", "--format=float32le", "--latency-msec=20"]


@dataclass
class PulseServer:
    """A server of its own, and the folder that it keeps its files in."""

    folder: Path
    process: subprocess.Popen[bytes]


@pytest.fixture
def pulse_cables(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PulseServer]:
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
        listed = json.loads(_output(sys.executable, "-m", "rtsr", "devices", "--json"))
        if all(device["name"] != "pulse" for device in listed["devices"]):
            pytest.skip("ALSA has no device 'pulse' (Debian: libasound2-plugins)")
        yield PulseServer(folder, server)
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


def troubles(figures: dict[str, Any]) -> int:
    """How often the sound had to be repaired so far."""
    names = ("late_callbacks", "underrun_events", "overruns", "xruns", "resyncs", "device_restarts")
    return int(sum(figures[name] for name in names) + len(figures["fallback_level_changes"]))


@pytest.mark.alone
def test_a_narrow_call_comes_out_wide(
    pulse_cables: PulseServer,
    live_program: Any,
    tmp_path: Path,
    make_sound: Callable[..., np.ndarray],
    compare_sound: Callable[..., Any],
) -> None:
    sound = make_sound(RATE, 2.0, cutoff=CUTOFF)[:, 0]
    wide = compare_sound(sound, sound).high_db
    cables = Cables(tmp_path)
    try:
        live_program.start("--input", "pulse", "--output", "pulse", "--cutoff", str(CUTOFF))
        live_program.wait_for(lambda figures: figures["enhanced_frames"] > RATE // 2)
        # On a busy machine PulseAudio itself stalls, and its clients with it.
        for _ in range(2):
            before = live_program.figures()[-1]
            heard = aligned(cables.play(sound), sound)
            # The clocks may still be meeting: 1 ms a second at most.
            result = compare_sound(heard, sound, slack=96)
            if not result.broken.any() and not result.plain.any():
                break
        figures = live_program.stop()
    finally:
        cables.close()
    assert (figures["input"], figures["output"]) == ("pulse", "pulse")
    assert figures["rate"] == RATE
    assert figures["latency"]["device_input_ms"] > 0.0
    assert np.median(wide) < -70.0
    assert len(result.broken) > 180
    whole = not result.broken.any() and not result.plain.any()
    assert whole or troubles(figures) > troubles(before)
    # Whatever was lost, there is sound, and it is wide unless the machine had no time for that.
    assert (~result.broken).sum() > 20
    assert not result.plain.all() or figures["fallback_level_seconds"]["dry"] > 1.0


def test_a_rate_that_the_server_offers_is_converted(
    pulse_cables: PulseServer, live_program: Any, tmp_path: Path
) -> None:
    sound = np.zeros(RATE, np.float32)
    sound[RATE // 2 :: 8] = 0.5
    cables = Cables(tmp_path)
    try:
        options = ["--rate", "44100", "--channels", "2", "--format", "int16"]
        live_program.start("-i", "pulse", "-o", "pulse", "--model", "dry", *options)
        live_program.wait_for(lambda figures: figures["enhanced_frames"] > RATE // 2)
        heard = cables.play(sound)
        figures = live_program.stop()
    finally:
        cables.close()
    assert figures["rate"] == 44100
    assert figures["channels"] == 2
    assert figures["latency"]["capture_resampler_ms"] > 0.0
    assert figures["first_signal_frame"] > 0
    assert np.abs(heard).max() > 0.1


def test_a_server_that_dies_prints_nothing_and_is_waited_for(
    pulse_cables: PulseServer, live_program: Any
) -> None:
    live_program.start("-i", "pulse", "-o", "pulse", "--model", "dry")
    live_program.wait_for(lambda figures: figures["callbacks"] > 20)
    pulse_cables.process.kill()
    pulse_cables.process.wait()
    # Time to notice it, and to look for it several times.
    time.sleep(4.0)
    assert live_program.process.poll() is None
    live_program.ends_silently = True
    live_program.stop()
