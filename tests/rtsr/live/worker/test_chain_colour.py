"""Colours in the live engine: the same samples as elsewhere, and only where they belong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import pytest

from rtsr import ArgumentError, AutoColour, Colour, Upsampler
from rtsr.engine.replicate import ReplicateSource
from rtsr.engine.sources import ModelSource
from rtsr.engine.statistics import Statistics
from rtsr.live.controls.board import ControlBoard
from rtsr.live.settings import LiveSettings
from rtsr.live.worker.chain import LiveChain
from rtsr.live.worker.fallback_levels import coloured_levels
from rtsr.runtime.models import find_model
from rtsr.runtime.session import OnnxStep
from rtsr.timing import HOP


def _colour(gain_db: float) -> Colour:
    model = find_model("small")
    gains = ((gain_db,) * 24,) * 4
    return Colour("small", model.metadata.weights_sha256, 12.0, gains)


def _run(
    sound: np.ndarray,
    levels: list[str],
    colour: Colour | None,
    board: ControlBoard | None = None,
    turned: Mapping[int, float] = MappingProxyType({}),
    learnt: Mapping[int, Colour] = MappingProxyType({}),
) -> np.ndarray:
    """Run a chain.

    ``turned`` has the hops at which the control ``colour`` takes another value, ``learnt`` those at
    which another colour comes.
    """
    board = board or ControlBoard()
    statistics = Statistics()
    session = OnnxStep("small")
    board.set("cutoff_hz", 4000.0)
    chain = LiveChain(
        {"small": ModelSource(session, 0, statistics), "replicate": ReplicateSource(1, seed=0)},
        board,
        1,
        24000.0,
        statistics,
        f_target=session.metadata.f_target_default,
        colour=colour,
        coloured_levels=("small",),
    )
    out = np.empty_like(sound)
    for hop, level in enumerate(levels):
        if hop in turned:
            board.set("colour", turned[hop])
        if hop in learnt:
            chain.renew_colour(learnt[hop])
        chain.step(sound[hop * HOP : (hop + 1) * HOP], out[hop * HOP : (hop + 1) * HOP], level)
    return out


def test_a_coloured_chain_gives_the_bits_of_a_coloured_upsampler(
    make_sound: Callable[..., np.ndarray],
) -> None:
    sound = make_sound(48000, 1.0, cutoff=4000.0)
    with Upsampler(48000, cutoff=4000.0, colour=_colour(6.0)) as upsampler:
        expected = upsampler.process(sound)
    coloured = _run(sound, ["small"] * 100, _colour(6.0))
    assert np.array_equal(coloured[:-HOP], expected[HOP:])
    assert not np.array_equal(coloured, _run(sound, ["small"] * 100, None))


def test_another_level_is_left_as_it_is(make_sound: Callable[..., np.ndarray]) -> None:
    sound = make_sound(48000, 1.0, cutoff=4000.0)
    levels = ["small"] * 40 + ["replicate"] * 60
    coloured, plain = _run(sound, levels, _colour(6.0)), _run(sound, levels, None)
    assert np.abs(coloured - plain)[: 40 * HOP].max() > 1e-3
    assert np.abs(coloured - plain)[45 * HOP :].max() < 1e-6


def test_a_knob_fades_between_none_of_a_colour_and_all(
    make_sound: Callable[..., np.ndarray],
) -> None:
    sound = make_sound(48000, 1.2, cutoff=4000.0)
    levels = ["small"] * 120
    board = ControlBoard()
    board.set("colour", 0.0)
    turned = {40: 0.5, 80: 1.0}
    got = _run(sound, levels, _colour(6.0), board, turned)
    for gain_db, hops in ((None, (0, 40)), (3.0, (50, 80)), (6.0, (90, 120))):
        wanted = _run(sound, levels, None if gain_db is None else _colour(gain_db))
        part = slice(hops[0] * HOP, hops[1] * HOP)
        np.testing.assert_allclose(got[part], wanted[part], atol=1e-5)
    assert board.get("colour") == 1.0


def test_what_is_learnt_meanwhile_is_faded_in_and_the_knob_stays(
    make_sound: Callable[..., np.ndarray],
) -> None:
    sound = make_sound(48000, 1.2, cutoff=4000.0)
    board = ControlBoard()
    board.set("colour", 0.5)
    learnt = {0: _colour(2.0), 60: _colour(8.0)}
    got = _run(sound, ["small"] * 120, None, board, learnt=learnt)
    for gain_db, hops in ((1.0, (10, 60)), (4.0, (70, 120))):
        wanted = _run(sound, ["small"] * 120, _colour(gain_db))
        part = slice(hops[0] * HOP, hops[1] * HOP)
        np.testing.assert_allclose(got[part], wanted[part], atol=1e-5)


@pytest.mark.parametrize(
    ("model", "levels"),
    [("small", {"small"}), ("replicate", {"replicate"}), ("dry", set())],
)
def test_levels_of_the_same_weights_are_coloured(model: str, levels: set[str]) -> None:
    assert coloured_levels(model) == levels


@pytest.mark.parametrize(
    ("model", "sentence"),
    [("replicate", "was learnt for model 'small', not for"), ("dry", "no new band")],
)
def test_a_colour_of_another_model_is_refused(model: str, sentence: str) -> None:
    with pytest.raises(ArgumentError, match=sentence):
        LiveSettings(model=model, colour=_colour(3.0)).check()


@pytest.mark.parametrize(
    ("colour", "model", "sentence"),
    [
        ("auto", "replicate", "learnt by itself for networks"),
        ("auto", "dry", "no new band"),
        ("mine", "small", "not 'mine'"),
        (AutoColour(_colour(3.0)), "small-int8", None),
    ],
)
def test_what_can_learn_by_itself(colour: object, model: str, sentence: str | None) -> None:
    settings = LiveSettings(model=model, colour=colour)  # type: ignore[arg-type]
    if sentence is None:
        settings.check()
        return
    with pytest.raises(ArgumentError, match=sentence):
        settings.check()


@pytest.mark.parametrize(
    ("colour", "sentence"),
    [
        ("none.json", "'none.json' cannot be read"),
        ("auto:", "needs the file to keep it in"),
        ("auto:no-folder/me.json", "There is no folder"),
        ("auto:.", "is a folder; name a file"),
    ],
)
def test_a_colour_that_there_is_not_is_one_sentence(colour: str, sentence: str) -> None:
    from typer.testing import CliRunner

    from rtsr.cli.app import app

    done = CliRunner().invoke(app, ["live", "--colour", colour])
    assert done.exit_code == 2
    assert done.stderr.startswith("rtsr: ")
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
