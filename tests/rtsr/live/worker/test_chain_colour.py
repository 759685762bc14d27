"""Colours in the live engine: the same samples as elsewhere, and only where they belong."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rtsr import ArgumentError, Colour, Upsampler
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


def _run(sound: np.ndarray, levels: list[str], colour: Colour | None) -> np.ndarray:
    statistics = Statistics()
    session = OnnxStep("small")
    board = ControlBoard()
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


def test_levels_of_the_same_weights_are_coloured() -> None:
    settings = LiveSettings(colour=_colour(3.0))
    settings.check()
    worker = pickle.loads(pickle.dumps(settings.for_worker(24000.0, 0, 600)))
    assert worker.colour == _colour(3.0)
    assert coloured_levels(worker) == {"small"}
    assert coloured_levels(LiveSettings().for_worker(24000.0, 0, 600)) == frozenset()


@pytest.mark.parametrize(
    ("model", "sentence"),
    [("replicate", "was learnt for model 'small', not for"), ("dry", "no new band")],
)
def test_a_colour_of_another_model_is_refused(model: str, sentence: str) -> None:
    with pytest.raises(ArgumentError, match=sentence):
        LiveSettings(model=model, colour=_colour(3.0)).check()


def test_a_missing_colour_is_one_sentence(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from rtsr.cli.app import app

    done = CliRunner().invoke(app, ["live", "--colour", str(tmp_path / "none.json")])
    assert done.exit_code == 2
    assert done.stderr.startswith("rtsr: ")
    assert "none.json" in done.stderr
