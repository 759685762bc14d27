"""Colours of `rtsr live` on a real sound server: given, learnt, kept, gone on from."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import rtsr
from rtsr.colour.colour import Colour, read_colour
from rtsr.colour.degrade import convert_rate, degrade
from rtsr.runtime.models import find_model

RATE = 48000
DEMO = Path(rtsr.__file__).parent / "demo_data"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("jack_server", [{"synchronous": True}], indirect=True),
]


@pytest.fixture
def live(live: Any) -> Any:
    """A program that has nothing to complain about when it ends."""
    live.ends_silently = True
    return live


@pytest.fixture
def wide() -> np.ndarray:
    """Six seconds of a voice in full band, at 48 kHz, mono."""
    audio, rate = soundfile.read(DEMO / "speech_reference.flac", dtype="float32", always_2d=True)
    return convert_rate(audio[:, :1], rate, RATE)[: 6 * RATE, 0]


@pytest.fixture
def narrow(wide: np.ndarray) -> np.ndarray:
    """Two seconds of it as a telephone has it."""
    return convert_rate(degrade(wide[: 2 * RATE, None], 8000), 8000, RATE)[:, 0]


def test_a_colour_is_learnt_while_the_input_is_wide_used_when_it_narrows_and_kept(
    live: Any, jack_player: Any, wide: np.ndarray, narrow: np.ndarray, tmp_path: Path
) -> None:
    kept = tmp_path / "me.json"
    live.start("--colour", f"auto:{kept}", "--no-governor")
    assert live.figures()[0]["colour"]["seconds"] == 0.0
    jack_player.start(wide)
    # The learning has the lowest priority: on a busy machine it takes a while.
    live.wait_for(lambda figures: figures["colour"]["learnt_seconds"] >= 1.0, 60.0)
    jack_player.wait()
    jack_player.start(narrow)
    used = live.wait_for(lambda figures: figures["cutoff_hz"] < 5000, 30.0)
    assert used["colour"]["share"] > 0.3
    # The worker that comes after one that died knows it, too.
    os.kill(used["worker_pid"], signal.SIGKILL)
    jack_player.wait()
    figures = live.stop()
    assert figures["worker_restarts"] == 1
    colour = figures["colour"]
    assert len(colour["gains_db"]) == len(colour["bands_hz"]) - 1 > 10
    assert max(map(abs, colour["gains_db"])) > 0.5
    learnt = read_colour(kept)
    assert learnt.seconds == pytest.approx(colour["seconds"], abs=0.01)
    live.start("--colour", f"auto:{kept}")
    again = live.stop()["colour"]
    assert again["seconds"] == pytest.approx(learnt.seconds, abs=0.01)
    assert again["learnt_seconds"] == 0.0
    # Nothing was learnt, so nothing was written.
    assert read_colour(kept) == learnt


def test_a_colour_from_a_file_reaches_the_worker(
    live: Any, jack_player: Any, narrow: np.ndarray, tmp_path: Path
) -> None:
    weights = find_model("small").metadata.weights_sha256
    Colour("small", weights, 12.0, ((6.0,) * 24,) * 4).save(tmp_path / "bright.json")
    levels = []
    for options in ([], ["--colour", str(tmp_path / "bright.json")]):
        live.start("--cutoff", "4000", "--no-governor", *options)
        heard = jack_player.run(narrow).sound[RATE // 2 :]
        figures = live.stop()
        spectrum = np.abs(np.fft.rfft(heard))
        levels.append(10.0 * np.log10(np.sum(spectrum[len(spectrum) // 4 :] ** 2)))
    assert figures["colour"]["share"] == 1.0
    assert not figures["colour"]["learns"]
    # Two runs have other noise, and hops that lie elsewhere.
    assert 4.0 < levels[1] - levels[0] < 8.0


def test_learning_starts_from_what_is_known(jack_server: Any, wide: np.ndarray) -> None:
    from rtsr import AutoColour
    from rtsr.live.session import LiveSession
    from rtsr.live.settings import LiveSettings

    weights = find_model("small").metadata.weights_sha256
    start = Colour("small", weights, 12.0, ((2.0,) * 24,) * 4)
    auto = AutoColour(start)
    with LiveSession(LiveSettings(colour=auto, controls={"cutoff_hz": 4000.0})) as session:
        assert session.colour is auto
        time.sleep(0.5)
        state = session.snapshot().colour
    assert state is not None
    assert (state.seconds, state.share, state.learns) == (12.0, 1.0, True)
    assert state.in_words() == "12.0 s learnt, 100 % used"
    assert auto.learnt is start
