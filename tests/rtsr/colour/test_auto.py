"""A colour that is learnt by itself while a stream runs."""

from __future__ import annotations

import json
import os
import pickle
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from rtsr import (
    ArgumentError,
    AutoColour,
    BatchUpsampler,
    Colour,
    RtsrError,
    Upsampler,
    enhance_file,
    learn_colour,
)
from rtsr.cli.app import app
from rtsr.colour.auto import EXCERPT_HOPS, LEAD_IN_HOPS, Excerpt
from rtsr.colour.bands import CUTOFFS_HZ, colour_edges
from rtsr.colour.colour import from_json
from rtsr.colour.degrade import convert_rate, degrade
from rtsr.colour.spectrum import spectrum_of
from rtsr.colour.stream_colour import StreamColour
from rtsr.engine.colour_learner import ModelLearner, resolve_colour
from rtsr.runtime.models import find_model

MakeColour = Callable[..., Colour]

RATE, HOP = 48000, 480


@pytest.fixture(scope="session")
def narrow(voice: np.ndarray) -> np.ndarray:
    """Three seconds of the voice that end at 4 kHz, at 48 kHz."""
    return convert_rate(degrade(voice[: 3 * RATE, None], 8000), 8000, RATE)[:, 0]


@pytest.fixture(scope="session")
def falling(voice: np.ndarray, narrow: np.ndarray) -> np.ndarray:
    """Twenty seconds in full band, then the same voice up to 4 kHz."""
    return np.concatenate([np.resize(voice, 20 * RATE), narrow])


def _run(sound: np.ndarray, **settings: Any) -> np.ndarray:
    with Upsampler(RATE, hops_per_step=4, limiter=False, **settings) as upsampler:
        return np.concatenate(
            [upsampler.process(sound[at : at + 9600]) for at in range(0, len(sound), 9600)]
        )


def test_a_stream_that_narrows_is_given_what_it_has_shown(
    stand_in: Path, voice: np.ndarray, falling: np.ndarray
) -> None:
    auto = AutoColour(waits=True)
    coloured = _run(falling, model=stand_in, colour=auto)
    plain = _run(falling, model=stand_in)
    # While nothing is missing there is nothing to colour.
    assert np.array_equal(coloured[: 20 * RATE], plain[: 20 * RATE])
    assert not np.array_equal(coloured[21 * RATE :], plain[21 * RATE :])
    assert auto.learnt is not None
    learnt = learn_colour([(voice, RATE)], model=stand_in)
    known = colour_edges()[1:] < 19000.0
    for found, wanted, cutoff_hz in zip(
        auto.learnt.gains_db, learnt.gains_db, (4000.0, 5512.5, 8000.0, 12000.0), strict=True
    ):
        bands = known & (colour_edges()[:-1] >= cutoff_hz)
        np.testing.assert_allclose(np.array(found)[bands], np.array(wanted)[bands], atol=1.5)
        # What is narrow before the detector says so would have taught -40 dB.
    assert 12.0 * 100 < auto.learnt_hops <= auto.heard_hops
    assert auto.heard_hops < 21.5 * 100
    assert auto.skipped_hops == 0
    again = AutoColour(waits=True)
    assert np.array_equal(_run(falling, model=stand_in, colour=again), coloured)
    assert again.learnt == auto.learnt


@pytest.mark.slow
def test_after_twenty_seconds_it_learns_from_one_excerpt_in_ten(
    stand_in: Path, voice: np.ndarray
) -> None:
    auto = AutoColour(waits=True)
    hears = StreamColour(auto).hear
    auto_learner(auto, stand_in)
    sound = np.resize(voice, (24 * RATE, 1))
    learnt = []
    for _ in range(3):
        for start in range(0, len(sound), HOP):
            hears(sound[start : start + HOP], np.full(1, 24000.0, np.float32))
        learnt.append(auto.learnt_hops)
    assert 2000 < learnt[0] < 2200
    assert 100 < learnt[1] - learnt[0] < 370
    assert 100 < learnt[2] - learnt[1] < 370


def test_a_narrow_stream_is_the_same_to_the_bit(stand_in: Path, narrow: np.ndarray) -> None:
    sound = narrow[::6].copy()
    outs = []
    for colour in (None, "auto"):
        with Upsampler(8000, model=stand_in, colour=colour) as upsampler:
            outs.append(np.concatenate([upsampler.process(sound), upsampler.flush()]))
            assert upsampler.colour_share == 0.0
            if colour:
                assert isinstance(upsampler.colour, AutoColour)
                assert upsampler.colour.learnt is None
                assert upsampler.colour.heard_hops == 0
    assert np.array_equal(*outs)


def test_what_was_learnt_outlasts_a_stream(
    stand_in: Path, voice: np.ndarray, narrow: np.ndarray
) -> None:
    first = AutoColour(waits=True)
    _run(voice[: 6 * RATE], model=stand_in, colour=first)
    assert first.learnt is not None
    saved = from_json(json.loads(json.dumps(first.learnt.to_json())))
    second = AutoColour(saved, waits=True)
    assert second.learnt == saved
    used = _run(narrow, model=stand_in, colour=second)
    assert np.array_equal(used, _run(narrow, model=stand_in, colour=saved))
    assert not np.array_equal(used, _run(narrow, model=stand_in))
    # It goes on from there.
    _run(voice[: 6 * RATE], model=stand_in, colour=second)
    assert second.learnt is not None
    assert second.learnt.seconds > saved.seconds
    np.testing.assert_allclose(second.learnt.gains_db, saved.gains_db, atol=2.0)


def test_a_start_counts_by_its_seconds(
    stand_in: Path, make_colour: MakeColour, voice: np.ndarray
) -> None:
    found = AutoColour(waits=True)
    _run(voice[: 6 * RATE], model=stand_in, colour=found)
    assert found.learnt is not None
    start = make_colour(6.0, stand_in)
    mixed = AutoColour(start, waits=True)
    _run(voice[: 6 * RATE], model=stand_in, colour=mixed)
    assert mixed.learnt is not None
    old = start.seconds / (start.seconds + found.learnt.seconds)
    wanted = old * 6.0 + (1.0 - old) * np.array(found.learnt.gains_db)
    np.testing.assert_allclose(mixed.learnt.gains_db, wanted)


def test_a_colour_that_is_used_in_full_stays_so(
    stand_in: Path, make_colour: MakeColour, voice: np.ndarray
) -> None:
    auto = AutoColour(make_colour(6.0, stand_in), waits=True)
    _run(voice[: 3 * RATE], model=stand_in, colour=auto)
    assert auto.learnt_hops > 0
    assert auto.learnt is not None
    assert auto.learnt.spectrum_db is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_learns_for_itself(stand_in: Path, voice: np.ndarray) -> None:
    auto = AutoColour()
    learner = auto_learner(auto, stand_in)
    excerpt = Excerpt(voice[: EXCERPT_HOPS * HOP, None], 24000.0)
    # The parent's thread is at work, and both locks are held.
    with learner._prediction_lock:
        auto.take(excerpt)
        with learner._thread_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if not child:
            try:
                own = AutoColour()
                resolve_colour(own, find_model(stand_in))
                own.take(excerpt)
                until = time.monotonic() + 60.0
                while not own.learnt_hops and time.monotonic() < until:
                    time.sleep(0.02)
                os._exit(0 if own.learnt_hops else 1)
            finally:
                os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    learner.stop()


def test_a_call_learns_beside_it_and_says_what_it_skipped(
    stand_in: Path, voice: np.ndarray
) -> None:
    auto = AutoColour()
    learner = auto_learner(auto, stand_in)
    _run(voice, model=stand_in, colour=auto)
    until = time.monotonic() + 60.0
    while (auto.learnt is None or learner._excerpts.qsize()) and time.monotonic() < until:
        time.sleep(0.02)
    assert auto.learnt is not None
    assert auto.heard_hops == len(voice) // HOP // 4 * 4
    hops = EXCERPT_HOPS - LEAD_IN_HOPS
    excerpt = Excerpt(voice[: EXCERPT_HOPS * HOP, None], 24000.0)
    skipped = auto.skipped_hops
    with learner._prediction_lock:
        for _ in range(40):
            auto.take(excerpt)
        # Sixteen wait, and the thread may hold one more.
        assert 22 * hops <= auto.skipped_hops - skipped <= 24 * hops
    learner.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
def test_learning_waits_for_everything_else(
    stand_in: Path, voice: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    auto, seen = AutoColour(), []
    learner = ModelLearner(find_model(stand_in))
    auto.bind(learner)

    def learn(self: AutoColour, excerpt: Excerpt) -> None:
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    monkeypatch.setattr(AutoColour, "learn", learn)
    auto.take(Excerpt(voice[: EXCERPT_HOPS * HOP, None], 24000.0))
    until = time.monotonic() + 20.0
    while not seen and time.monotonic() < until:
        time.sleep(0.02)
    assert seen == [19]
    assert os.getpriority(os.PRIO_PROCESS, 0) < 19
    learner.stop()


def auto_learner(auto: AutoColour, model: Path) -> Any:
    """Bind a colour and return what learns for it."""
    resolve_colour(auto, find_model(model))
    return auto._learner


@pytest.mark.parametrize("own_hz", [7000.0, 10000.0, 16000.0, 24000.0])
def test_nothing_is_learnt_where_the_sound_itself_has_ended(
    stand_in: Path, voice: np.ndarray, own_hz: float
) -> None:
    """Noise goes on to 24 kHz here; that the content ends is what is said of it."""
    excerpt = Excerpt(voice[: EXCERPT_HOPS * HOP, None], own_hz)
    lesson = ModelLearner(find_model(stand_in)).study(excerpt, -70.0)
    assert set(lesson.errors) == {each for each in CUTOFFS_HZ if own_hz >= 1.4 * each}
    low, high = colour_edges()[:-1], colour_edges()[1:]
    for cutoff_hz, (_, is_measured) in lesson.errors.items():
        counted = is_measured.any(axis=0)
        assert counted[(low >= cutoff_hz) & (high <= 0.8 * min(own_hz, 20000.0))].all()
        assert not counted[high > min(own_hz, 22050.0)].any()
        assert not counted[high < cutoff_hz].any()


def test_a_network_that_fails_teaches_nothing(failing_model: Path, voice: np.ndarray) -> None:
    excerpt = Excerpt(voice[: EXCERPT_HOPS * HOP, None], 24000.0)
    lesson = ModelLearner(find_model(failing_model)).study(excerpt, -70.0)
    assert lesson.errors == {}
    assert lesson.sound_hops == 0


def test_streams_of_a_batch_learn_each_for_itself(
    stand_in: Path, voice: np.ndarray, falling: np.ndarray
) -> None:
    autos = [AutoColour(waits=True), AutoColour(waits=True)]
    dull = np.convolve(voice, [0.5, 0.5], "same").astype(np.float32)
    with BatchUpsampler(
        2, model=stand_in, hops_per_step=4, buffer_ms=1000, overload="wait"
    ) as batch:
        streams = [batch.open(RATE, colour=auto, limiter=False) for auto in autos]
        assert [stream.colour for stream in streams] == autos
        assert [stream.colour_share for stream in streams] == [0.0, 0.0]
        for start in range(0, 6 * RATE, 9600):
            for stream, sound in zip(streams, (voice, dull), strict=True):
                stream.push(sound[start : start + 9600])
            while batch.step():
                pass
            for stream in streams:
                stream.pull()
        assert min(stream.colour_share for stream in streams) > 0.9
    alone = AutoColour(waits=True)
    _run(voice[: 6 * RATE], model=stand_in, colour=alone)
    assert alone.learnt == autos[0].learnt
    assert autos[1].learnt is not None
    assert autos[1].learnt != autos[0].learnt


def test_a_stream_of_another_source_gets_next_to_none_of_a_colour(
    stand_in: Path, make_colour: MakeColour, narrow: np.ndarray
) -> None:
    own = spectrum_of(narrow[:, None]).levels_db
    spectra = (None, tuple(own.tolist()), tuple((own + np.linspace(-9.0, 9.0, 10)).tolist()))
    plain, *coloured = (
        _run(narrow, model=stand_in, cutoff=4000.0, colour=one)[2 * RATE :]
        for one in (None, *(make_colour(9.0, stand_in, spectrum_db=one) for one in spectra))
    )
    np.testing.assert_allclose(coloured[1], coloured[0], atol=1e-6)
    change, full = (np.abs(one - plain).max() for one in (coloured[2], coloured[0]))
    assert change < 0.2 * full
    assert np.std(coloured[0] - plain) > 1e-4


def test_a_file_that_narrows_is_enhanced_alike_every_time(
    stand_in: Path, voice: np.ndarray, narrow: np.ndarray, tmp_path: Path
) -> None:
    sound = np.concatenate([voice[: 6 * RATE], narrow])
    soundfile.write(tmp_path / "in.wav", sound, RATE)
    report = enhance_file(tmp_path / "in.wav", tmp_path / "out.wav", model=stand_in, colour="auto")
    assert isinstance(report.colour, AutoColour)
    done = CliRunner().invoke(
        app,
        f"enhance {tmp_path}/in.wav {tmp_path}/again.wav --colour auto --model {stand_in}".split(),
    )
    assert done.exit_code == 0, done.output
    assert "s with sound learnt from and 0.0 s skipped" in done.output
    assert report.to_json()["colour"] == {
        "heard_hops": report.colour.heard_hops,
        "learnt_hops": report.colour.learnt_hops,
    }
    assert report.colour.learnt_hops > 200
    assert (tmp_path / "again.wav").read_bytes() == (tmp_path / "out.wav").read_bytes()


def test_what_an_auto_colour_cannot_be_is_said(stand_in: Path, make_colour: MakeColour) -> None:
    with pytest.raises(ArgumentError, match="from a Colour or None, not from a str"):
        AutoColour("me.json")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="not for model 'stand-in'"):
        Upsampler(8000, model=stand_in, colour=AutoColour(make_colour(6.0)))
    auto = AutoColour()
    with Upsampler(8000, model=stand_in, colour=auto):
        pass
    with pytest.raises(ArgumentError, match="learns for model 'stand-in', not for model 'small'"):
        Upsampler(8000, colour=auto)
    with pytest.raises(ArgumentError, match="for networks, not for 'replicate'"):
        Upsampler(8000, model="replicate", colour="auto")
    with pytest.raises(RtsrError, match="cannot be copied or pickled"):
        pickle.dumps(auto)
