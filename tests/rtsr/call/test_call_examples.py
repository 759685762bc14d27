"""The examples of calls, run as their readers run them."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from example_run import run_example
from network import speech
from scipy.signal import resample_poly

pytestmark = pytest.mark.clocked

EXAMPLES = Path(__file__).parents[3] / "examples"
needs_calls = pytest.mark.skipif(
    importlib.util.find_spec("aiortc") is None or importlib.util.find_spec("aiosipua") is None,
    reason='calls need the extra "call", and Python 3.11 or newer',
)


def run(name: str, *arguments: object) -> str:
    finished = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def has_new_band(path: Path, expected_rate: int = 48000, end: float = 8000) -> bool:
    sound, rate = soundfile.read(path)
    assert rate == expected_rate
    power = np.abs(np.fft.rfft(sound)) ** 2
    frequency = np.fft.rfftfreq(len(sound), 1 / rate)
    high, low = (frequency > 4500) & (frequency < end), (frequency > 300) & (frequency < 3000)
    return bool(power[high].sum() > 1e-4 * power[low].sum())


def test_a_call_without_a_network(tmp_path):
    text = run("call_without_network.py", tmp_path / "out.wav", "--deadline-ms", 200)
    assert "were lost or too late" in text
    assert len(soundfile.read(tmp_path / "out.wav")[0]) > 5.5 * 48000
    assert has_new_band(tmp_path / "out.wav")


def test_a_call_of_which_nothing_arrives(tmp_path, stand_in):
    text = run("call_without_network.py", tmp_path / "out.wav", "--loss", 1, "--model", stand_in)
    assert "0.00 s" in text
    assert len(soundfile.read(tmp_path / "out.wav")[0]) == 0


@needs_calls
def test_an_aiortc_application(tmp_path):
    run("aiortc_answer.py", tmp_path / "out.wav")
    assert len(soundfile.read(tmp_path / "out.wav")[0]) > 5.5 * 48000
    assert has_new_band(tmp_path / "out.wav")


@needs_calls
@pytest.mark.parametrize("kinds", [["audio"], ["audio", "audio"], ["video"]])
def test_a_call_to_an_aiortc_application_that_never_connects_keeps_no_place(
    kinds, stand_in, monkeypatch
):
    from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

    from rtsr.call.engine import CallEngine

    monkeypatch.syspath_prepend(EXAMPLES)
    answer = importlib.import_module("aiortc_answer").answer

    async def call():
        caller = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        for kind in kinds:
            caller.addTransceiver(kind, direction="sendrecv")
        offer = await caller.createOffer()
        async with CallEngine(1, model=str(stand_in), provider="cpu") as engine:
            if kinds == ["video"]:
                with pytest.raises(ValueError, match="no sound"):
                    await answer(engine, offer)
            else:
                peer = await answer(engine, RTCSessionDescription(offer.sdp, "offer"))
                assert engine.calls == 1
                # What is heard is sent, on the last line of sound.
                directions = re.findall("a=(sendrecv|sendonly|recvonly)", peer.localDescription.sdp)
                assert directions == (["recvonly", "sendonly"] if len(kinds) > 1 else ["sendrecv"])
                await peer.close()
            async with asyncio.timeout(10):
                while engine.calls:
                    await asyncio.sleep(0.01)
            assert engine.batch.free == 1
        await caller.close()

    asyncio.run(call())


@needs_calls
def test_load(stand_in):
    text = run(
        "call_load.py", "--calls", 2, "--seconds", 2, "--call-seconds", 1, "--model", stand_in
    )
    counts = re.match(r"2 calls at once, (\d+) in all, (\d+) packets\n", text)
    assert counts is not None
    # The callers are another process: what they send comes over the network, for as long as they
    # were told to.
    calls, packets = map(int, counts.groups())
    assert calls >= 2
    assert 50 <= packets <= 200
    whole, without_wait = (float(each) for each in re.findall(r"p50 ([\d.]+)", text))
    assert 0.0 < without_wait <= whole
    assert "0 calls, 2 places free" in text


@needs_calls
@pytest.mark.parametrize("seconds", ["0", "nan"])
def test_calls_without_a_packet_are_refused(seconds):
    done = run_example("call_load.py", "--call-seconds", seconds)
    assert done.returncode == 2
    assert done.stderr.endswith("calls last 1 s or more\n")


def test_livekit(tmp_path):
    if importlib.util.find_spec("livekit") is None:
        pytest.skip("the livekit package is not installed")
    soundfile.write(tmp_path / "in.wav", speech(8000), 8000, subtype="PCM_16")
    run("livekit_processor.py", tmp_path / "in.wav", tmp_path / "out.wav")
    sound, _ = soundfile.read(tmp_path / "out.wav")
    loud = np.abs(sound[: len(sound) // 480 * 480].reshape(-1, 480)).max(axis=1) > 0.01
    assert loud.sum() > 300
    assert has_new_band(tmp_path / "out.wav")


def test_pipecat(tmp_path):
    if importlib.util.find_spec("pipecat") is None:
        pytest.skip("the pipecat-ai package is not installed")
    narrow = resample_poly(speech(8000, 3.0), 2, 1)
    soundfile.write(tmp_path / "in.wav", narrow, 16000, subtype="PCM_16")
    run("pipecat_filter.py", tmp_path / "in.wav", tmp_path / "out.wav", "--cutoff", 4000)
    sound, rate = soundfile.read(tmp_path / "out.wav")
    assert rate == 16000
    # All but what the filter still holds: the rest of a hop and its delay.
    assert 0 <= len(narrow) - len(sound) < 0.03 * rate
    assert has_new_band(tmp_path / "out.wav", 16000, 7500)
