"""What may be set on a public object: its controls, and nothing else.

An attribute that a class does not have would be taken without a word and change nothing; one that
only tells would tell what is not so.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import importlib
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rtsr
from rtsr import AutoColour, BatchUpsampler, Upsampler
from rtsr.engine.statistics import Statistics
from rtsr.live.controls.board import ControlBoard
from rtsr.live.session import LiveSession
from rtsr.live.settings import LiveSettings

REFERENCE = Path(__file__).parents[2] / "docs" / "api"
# Their base class, of another package, takes everything.
OF_OTHERS = ("UpsampledTrack",)


def _open(name: str, opened: list[Any]) -> Any:
    if name == "Upsampler":
        opened.append(Upsampler(8000, model="replicate"))
    elif name in ("BatchUpsampler", "BatchStream"):
        opened.append(BatchUpsampler(1))
    elif name == "CallEngine":
        # It has packages of its own.
        opened.append(pytest.importorskip("rtsr.call.engine").CallEngine(1))
    else:
        return {
            "LiveSession": lambda: LiveSession(LiveSettings()),
            "AutoColour": AutoColour,
            "Statistics": Statistics,
            "ControlBoard": ControlBoard,
        }[name]()
    return opened[-1].open(8000) if name == "BatchStream" else opened[-1]


@pytest.fixture(scope="module")
def make() -> Iterator[Callable[[str], Any]]:
    """Return an object of a class, the same one for every test here."""
    opened: list[Any] = []
    yield functools.cache(lambda name: _open(name, opened))
    for one in opened:
        if isinstance(one, (Upsampler, BatchUpsampler)):
            one.close()
        else:
            asyncio.run(one.stop())


@pytest.mark.parametrize(
    ("of", "name"),
    [
        ("Upsampler", "cuttoff"),
        ("BatchUpsampler", "wet"),
        ("BatchUpsampler", "cutoff"),
        ("BatchStream", "threads"),
        ("LiveSession", "wet"),
        ("LiveSession", "ceiling"),
        ("AutoColour", "seconds"),
        ("Statistics", "step"),
        ("ControlBoard", "wet"),
        ("CallEngine", "wet"),
    ],
)
def test_an_attribute_that_does_not_exist_is_refused(
    make: Callable[[str], Any], of: str, name: str
) -> None:
    one = make(of)
    with pytest.raises(AttributeError, match=name):
        setattr(one, name, 0.5)


@pytest.mark.parametrize(
    ("of", "name"),
    [
        *[
            ("Upsampler", name)
            for name in ("output_rate", "channels", "latency", "statistics", "model", "provider")
        ],
        *[
            ("BatchUpsampler", name)
            for name in (
                "capacity",
                "model",
                "provider",
                "step_samples",
                "most_hops",
                "statistics",
                "level",
                "streams",
                "free",
            )
        ],
        *[("BatchStream", name) for name in ("output_rate", "channels", "latency", "statistics")],
        *[("LiveSession", name) for name in ("settings", "fallback_levels", "colour")],
        *[("AutoColour", name) for name in ("learnt", "rest")],
        *[("ControlBoard", name) for name in ("fallback_levels", "array")],
        *[
            ("CallEngine", name)
            for name in (
                "capacity",
                "channels",
                "deadline",
                "batch",
                "lines",
                "sounds",
                "taken",
                "refused",
                "steps",
                "step_seconds",
            )
        ],
    ],
)
def test_what_only_tells_stays_as_it_is(make: Callable[[str], Any], of: str, name: str) -> None:
    one = make(of)
    before = getattr(one, name)
    with pytest.raises(AttributeError):
        setattr(one, name, 16000)
    after = getattr(one, name)
    assert after is before or after == before


def test_the_rate_of_the_output_goes_on() -> None:
    with Upsampler(8000, model="replicate") as upsampler:
        with pytest.raises(AttributeError):
            upsampler.output_rate = 16000  # type: ignore[misc]
        assert len(upsampler.process(np.zeros(80, np.float32))) == 480
        upsampler.input_rate = 16000
        assert upsampler.latency.output_rate == 48000


def test_the_inside_of_a_batch_is_not_published() -> None:
    assert {name for name in dir(BatchUpsampler) if not name.startswith("_")} == {
        "capacity",
        "close",
        "free",
        "latency",
        "level",
        "model",
        "most_hops",
        "open",
        "prepare_thread",
        "provider",
        "pull_many",
        "push_many",
        "statistics",
        "step",
        "step_samples",
        "streams",
    }


def _public_classes() -> list[str]:
    text = "".join(page.read_text(encoding="utf-8") for page in sorted(REFERENCE.glob("*.md")))
    return re.findall(r"^::: (rtsr\.[\w.]*[A-Z]\w*)$", text, re.MULTILINE)


def test_the_reference_has_classes() -> None:
    assert {"rtsr.Upsampler", "rtsr.BatchStream", "rtsr.live.session.LiveSession"} <= set(
        _public_classes()
    )


@pytest.mark.parametrize("path", _public_classes())
def test_no_public_object_takes_what_it_does_not_have(path: str) -> None:
    module, _, name = path.rpartition(".")
    if module != "rtsr":
        pytest.importorskip(module)
    found = getattr(importlib.import_module(module), name)
    if issubclass(found, BaseException) or name in OF_OTHERS:
        return
    frozen = getattr(found, "__dataclass_params__", None)
    # Who has slots and nothing else has no dictionary for more.
    assert found.__dictoffset__ == 0 or frozen.frozen


def test_statistics_can_be_copied() -> None:
    statistics = Statistics(8)
    statistics.record_step(1000)
    statistics.limited_samples = 3
    for again in (copy.deepcopy(statistics), pickle.loads(pickle.dumps(statistics))):
        assert (again.steps, again.limited_samples) == (1, 3)
        assert again.step_ms == statistics.step_ms


def test_an_upsampler_says_that_it_cannot_be_copied() -> None:
    with (
        Upsampler(8000, model="replicate") as upsampler,
        pytest.raises(rtsr.RtsrError, match="cannot be copied"),
    ):
        copy.copy(upsampler)
