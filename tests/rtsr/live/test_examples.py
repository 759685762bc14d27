"""The small programs that are the manual, each really run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples"
VOICE = ROOT / "rtsr" / "demo_data" / "speech_8k.wav"


def _environment() -> dict[str, str]:
    """The scripts call `rtsr`, which lies beside this Python."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}


def _run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.alone
def test_call_path(tmp_path: Path) -> None:
    out = tmp_path / "out.wav"
    program = EXAMPLES / "call_path.py"
    result = _run(sys.executable, program, VOICE, out, "--seconds", "1", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("50 packets of 20 ms in 1.")
    sound, rate = soundfile.read(out)
    # One second, and what was still inside: 3.85 ms.
    assert (rate, len(sound)) == (48000, 48000 + 185)
    assert np.abs(sound).max() > 0.05


def test_call_path_refuses_in_one_line(tmp_path: Path) -> None:
    wide = VOICE.with_name("speech_reference.flac")
    result = _run(sys.executable, EXAMPLES / "call_path.py", wide, cwd=tmp_path)
    assert result.returncode == 1
    assert "mono sound at 8000 Hz" in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_ffmpeg_pipe(tmp_path: Path) -> None:
    script = EXAMPLES / "ffmpeg_pipe.sh"
    result = _run(script, VOICE, "out.flac", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    enhanced = tmp_path / "enhanced.wav"
    _run(sys.executable, "-m", "rtsr", "enhance", VOICE, enhanced, cwd=tmp_path)
    piped, _ = soundfile.read(tmp_path / "out.flac")
    expected, _ = soundfile.read(enhanced)
    assert len(piped) == len(expected)
    # FLAC has 24 bits here, the other file 16 or more; the pipe starts without having looked
    # through the file for its cutoff, so only the first moments may differ more than that.
    assert np.abs(piped - expected)[48000:].max() < 2e-4
    failed = _run(script, "nothing.wav", "out2.flac", cwd=tmp_path)
    assert failed.returncode == 1
    assert "'out2.flac' is not complete" in failed.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_ffmpeg_pipe_keeps_what_is_there(tmp_path: Path) -> None:
    script = EXAMPLES / "ffmpeg_pipe.sh"
    recording, good, link = tmp_path / "in.wav", tmp_path / "out.flac", tmp_path / "link.flac"
    shutil.copy(VOICE, recording)
    same = _run(script, "in.wav", "./in.wav", cwd=tmp_path)
    assert same.returncode == 2
    assert "are the same file" in same.stderr
    assert recording.read_bytes() == VOICE.read_bytes()
    soundfile.write(good, np.full(480, 0.1), 48000)
    before = good.read_bytes()
    assert _run(script, "nothing.wav", "out.flac", cwd=tmp_path).returncode == 1
    assert good.read_bytes() == before
    link.symlink_to("out.flac")
    assert _run(script, "in.wav", "link.flac", cwd=tmp_path).returncode == 0
    assert link.is_symlink()
    assert soundfile.info(good).frames == 6 * soundfile.info(recording).frames


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_sound(script: Path) -> None:
    assert os.access(script, os.X_OK)
    assert script.read_text().startswith("#!/bin/sh\n")
    assert subprocess.run(["sh", "-n", str(script)], check=False).returncode == 0


@pytest.mark.parametrize(
    ("server", "called"),
    [
        ("PulseAudio (on PipeWire 1.0.5)", "live --input to-rtsr --output from-rtsr --wet 0.5"),
        ("pulseaudio", "pipe --rate 48000 --wet 0.5"),
    ],
)
def test_options_of_the_monitor_reach_rtsr_on_either_server(
    server: str, called: str, tmp_path: Path
) -> None:
    programs = {
        "pactl": f'[ "$1" != info ] || echo "Server Name: {server}"',
        "pw-jack": 'shift 2; exec "$@"',
        "parec": "",
        "pacat": "exec cat",
        "rtsr": 'echo "$*"',
    }
    for name, does in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        [EXAMPLES / "monitor_in_obs.sh", "--wet", "0.5"],
        env={"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout == f"{called}\n"
