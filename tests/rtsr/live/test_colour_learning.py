"""Learning a colour from a session's memory, on which here no device and no worker runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

import rtsr
from rtsr import AutoColour, Colour
from rtsr.engine.colour_learner import resolve_colour
from rtsr.live.colour_learning import ColourLearning
from rtsr.live.monitor.colour_state import ColourMonitor
from rtsr.live.shared.memory import LiveMemory
from rtsr.runtime.models import Model, find_model
from rtsr.timing import HOP

VOICE = Path(rtsr.__file__).parent / "demo_data" / "speech_reference.flac"


class Session:
    """What device and worker do to the memory, ten hops at a time."""

    def __init__(self, memory: LiveMemory, model: Model) -> None:
        self.auto = AutoColour(waits=True)
        resolve_colour(self.auto, model)
        self.memory = memory
        self.learning = ColourLearning(memory, self.auto)

    def hear(self, sound: np.ndarray, cutoff_hz: float, *, looks: bool = True) -> None:
        hop = self.memory.clock.hop
        self.memory.worker["cutoff_hz"] = int(cutoff_hz)
        for start in range(0, len(sound) - 10 * hop + 1, 10 * hop):
            self.memory.capture.write(sound[start : start + 10 * hop])
            self.memory.worker["next_hop"] = self.memory.capture.written // hop
            if looks:
                self.learning.check()


@pytest.fixture(scope="module")
def voice() -> np.ndarray:
    """Four seconds of a voice in full band ``(samples, 2)``, at 48 kHz."""
    audio, _ = soundfile.read(VOICE, dtype="float32", always_2d=True)
    return np.repeat(audio[: 4 * 48000, :1], 2, axis=1)


@pytest.mark.parametrize("rate", [48000, 96000])
def test_the_worker_is_given_what_is_learnt_while_the_input_is_wide(
    voice: np.ndarray, rate: int
) -> None:
    model = find_model("small")
    facts = model.metadata
    voice = soxr.resample(voice, 48000, rate)
    with LiveMemory.create(2, rate) as memory, LiveMemory.attach(memory.name) as worker:
        session = Session(memory, model)
        session.hear(voice, 4000.0)
        assert worker.colour.take(0.0, facts.name, facts.weights_sha256) is None
        session.hear(voice, rate / 2)
        newest = worker.colour.take(0.0, facts.name, facts.weights_sha256)
        assert newest is not None
        taken, colour = newest
        assert colour == session.auto.learnt
        assert colour.seconds > 0.5
        # Nothing more was learnt, so there is nothing to take.
        session.hear(voice[: 20 * HOP], 4000.0)
        assert worker.colour.take(taken, facts.name, facts.weights_sha256) is None


def test_sound_that_was_missed_is_no_part_of_an_excerpt(voice: np.ndarray) -> None:
    with LiveMemory.create(2) as memory:
        session = Session(memory, find_model("small"))
        # More than the memory holds goes by unheard, again and again, before an excerpt is whole.
        for _ in range(4):
            session.hear(voice[: 120 * HOP], 24000.0)
            session.hear(voice[: 140 * HOP], 24000.0, looks=False)
        assert session.auto.learnt_hops == 0
        assert 0 < session.auto.heard_hops < 4 * 140


@pytest.mark.parametrize(("behind", "heard"), [(100, 100), (110, 0)])
def test_who_comes_too_late_leaves_out_what_may_be_overwritten_meanwhile(
    voice: np.ndarray, behind: int, heard: int
) -> None:
    with LiveMemory.create(2) as memory:
        session = Session(memory, find_model("small"))
        session.hear(voice[: 20 * HOP], 24000.0)
        before = session.auto.heard_hops
        assert before == 20
        # The memory still holds all of it.
        session.hear(voice[: behind * HOP], 24000.0, looks=False)
        session.learning.check()
        assert session.auto.heard_hops - before == heard
        # And goes on from there.
        session.hear(voice[: 20 * HOP], 24000.0)
        assert session.auto.heard_hops - before == heard + 20


def test_a_session_shows_what_it_has_learnt_itself(voice: np.ndarray) -> None:
    with LiveMemory.create(2) as memory:
        session = Session(memory, find_model("small"))
        session.hear(voice, 24000.0)
        assert session.auto.learnt_hops > 0
        session.auto.skipped_hops = 240
        monitor = ColourMonitor(session.auto)
        begun = monitor.state(24000.0, 1.0)
        assert begun.seconds > 0.0
        assert (begun.learnt_seconds, begun.skipped_seconds) == (0.0, 0.0)
        before = session.auto.learnt_hops
        session.hear(voice, 24000.0)
        session.auto.skipped_hops += 120
        more = monitor.state(24000.0, 1.0)
        assert more.learnt_seconds == pytest.approx((session.auto.learnt_hops - before) / 100)
        assert more.learnt_seconds > 0.0
        assert more.skipped_seconds == pytest.approx(1.2)


def test_what_is_known_at_the_start_is_not_given_twice() -> None:
    model = find_model("small")
    facts = model.metadata
    auto = AutoColour(Colour(facts.name, facts.weights_sha256, 12.0, ((2.0,) * 24,) * 4))
    resolve_colour(auto, model)
    with LiveMemory.create(2) as memory:
        ColourLearning(memory, auto).check()
        assert memory.colour.take(0.0, facts.name, facts.weights_sha256) is None
