"""Examples that write a sound: none replaces the one that it is made of."""

from __future__ import annotations

import importlib.util
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import rtsr

EXAMPLES = Path(__file__).parents[2] / "examples"
VOICE = Path(rtsr.__file__).parent / "demo_data" / "speech_8k.wav"


@pytest.mark.parametrize(
    ("example", "needs"),
    [
        ("call_path", "rtsr"),
        ("triton_client", "tritonclient"),
        ("livekit_processor", "livekit"),
        ("pipecat_filter", "pipecat"),
    ],
)
def test_a_recording_is_not_replaced_by_what_is_made_of_it(
    tmp_path: Path, example: str, needs: str
) -> None:
    if importlib.util.find_spec(needs) is None:
        pytest.skip(f"the package {needs} is not installed")
    call, link = tmp_path / "call.wav", tmp_path / "link.wav"
    if example == "pipecat_filter":
        wide = VOICE.with_name("speech_reference.flac")
        call = call.with_suffix(".flac")
        shutil.copy(wide, call)
    else:
        shutil.copy(VOICE, call)
    link.symlink_to(call)
    before = call.read_bytes()
    command = [sys.executable, str(EXAMPLES / f"{example}.py"), str(call), str(link)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode in (1, 2)
    assert "are the same file" in done.stderr
    # Pipecat says that it is there.
    said = [line for line in done.stderr.splitlines() if "| INFO " not in line]
    assert len(said) == 1
    assert call.read_bytes() == before


@pytest.mark.parametrize("seconds", ["inf", "nan", "0"])
@pytest.mark.parametrize("example", ["call_path", "many_calls"])
def test_a_length_that_no_call_has_is_refused(
    tmp_path: Path, example: str, seconds: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [example, "--seconds", seconds])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(EXAMPLES / f"{example}.py"), run_name="__main__")
    assert ended.value.code == 2
    assert list(tmp_path.iterdir()) == []
