"""Fixtures for the tests of every package; heavy imports stay inside, most tests need none."""

from __future__ import annotations

import importlib.util
import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

# What the tests of several folders share.
sys.path.insert(0, str(Path(__file__).parent / "helpers"))

from all_clients import pytest_make_collect_report, pytest_runtest_makereport  # noqa: F401

HISTORY = 120
NOISE_CHANNELS = 4


def pytest_make_parametrize_id(val: Any) -> str | None:
    """Name lists, tuples and dictionaries by what they hold, where a test names no ids."""
    if isinstance(val, dict):
        return " ".join(f"{name}={entry}" for name, entry in val.items())[:60] or "nothing"
    if isinstance(val, list | tuple):
        return " ".join(map(str, val))[:60] or "nothing"
    return None


# Their tests keep time with a sound server.
_CLOCKS = frozenset(("jack_server", "pulse_cables"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what keeps time as ``clocked``, before marks are chosen by."""
    for item in items:
        keeps_time = _CLOCKS.intersection(getattr(item, "fixturenames", ()))
        if keeps_time or item.get_closest_marker("alone"):
            item.add_marker("clocked")


@pytest.fixture(autouse=True, scope="session")
def _interruptible() -> Iterator[None]:
    """Interrupts reach the programs that tests start, though shells turn them off for jobs."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def plain() -> ModuleType:
    """The engine once more, slow and plain, see ``plain_engine.py``."""
    path = Path(__file__).with_name("plain_engine.py")
    spec = importlib.util.spec_from_file_location("plain_engine", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["plain_engine"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def count_allocations() -> Iterator[Callable[[], tuple[int, int]]]:
    """``count_allocations()``: pieces of memory that compiled code has asked for, and has now.

    Every array that Python passes to compiled code counts as one piece while the call lasts.
    """
    from numba.core.runtime import _nrt_python, rtsys

    was_counting = _nrt_python.memsys_stats_enabled()
    _nrt_python.memsys_enable_stats()

    def count() -> tuple[int, int]:
        stats = rtsys.get_allocation_stats()
        return stats.alloc, stats.alloc - stats.free

    yield count
    if not was_counting:
        _nrt_python.memsys_disable_stats()


def _stand_in_metadata() -> dict[str, Any]:
    return {
        "format": 1,
        "name": "stand-in",
        "version": "1",
        "configuration": {},
        "sample_rate": 48000,
        "hop": 480,
        "overlap": HISTORY,
        "latency_samples": 480 + HISTORY,
        "noise_channels": NOISE_CHANNELS,
        "states": {"history": [1, 1, HISTORY]},
        "f_target_default": 22000.0,
        "weights_sha256": "0" * 64,
        "parameters": 0,
        "licence": "Apache-2.0",
        "card": {},
    }


def _write_stand_in(path: Path, metadata: dict[str, Any] | str | None, broken: bool) -> Path:
    """A graph with the contract of the real ones and arithmetic that a test can follow.

    The high band is a tenth of the rectified input, delayed by the overlap, and a little of the
    noise modulated by it. ``broken`` takes a root instead of rectifying: NaN wherever the input is
    negative.
    """
    import onnx
    from onnx import TensorProto, helper

    def tensor(name: str, shape: list[Any]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    def constant(name: str, kind: int, values: list[Any]) -> onnx.TensorProto:
        return helper.make_tensor(name, kind, [len(values)], values)

    rectify = ["Sqrt" if broken else "Abs", ["delayed"], ["rectified"]]
    nodes = [
        helper.make_node("Concat", ["state.history", "audio"], ["long"], axis=2),
        helper.make_node("Slice", ["long", "zero", "minus_history", "time"], ["delayed"]),
        helper.make_node("Slice", ["long", "minus_history", "end", "time"], ["next.history"]),
        helper.make_node(*rectify),
        # Each hop has noise and frequencies of its own: (batch, hops, 480) and (batch, hops, 1).
        helper.make_node("ReduceMean", ["noise", "noise_channels"], ["mean"]),
        helper.make_node("Transpose", ["mean"], ["texture"], perm=[0, 2, 1]),
        helper.make_node("Reshape", ["delayed", "in_hops"], ["delayed_hops"]),
        helper.make_node("Reshape", ["rectified", "in_hops"], ["rectified_hops"]),
        helper.make_node("Mul", ["delayed_hops", "texture"], ["modulated"]),
        helper.make_node("Add", ["rectified_hops", "modulated"], ["sum"]),
        helper.make_node("Mul", ["sum", "tenth"], ["scaled"]),
        # Both frequencies are inputs that the optimiser must not remove.
        helper.make_node("Sub", ["f_target", "f_prior"], ["room"]),
        helper.make_node("Clip", ["room", "nought", "one"], ["open"]),
        helper.make_node("Transpose", ["open"], ["gate"], perm=[0, 2, 1]),
        helper.make_node("Mul", ["scaled", "gate"], ["high_hops"]),
        helper.make_node("Reshape", ["high_hops", "in_line"], ["high_band"]),
    ]
    graph = helper.make_graph(
        nodes,
        "stand-in",
        [
            tensor("audio", ["batch", 1, "samples"]),
            tensor("noise", ["batch", NOISE_CHANNELS, "frames"]),
            tensor("f_prior", ["batch", 1, "frames"]),
            tensor("f_target", ["batch", 1, "frames"]),
            tensor("state.history", ["batch", 1, HISTORY]),
        ],
        [
            tensor("high_band", ["batch", 1, "samples"]),
            tensor("next.history", ["batch", 1, HISTORY]),
        ],
        [
            constant("zero", TensorProto.INT64, [0]),
            constant("minus_history", TensorProto.INT64, [-HISTORY]),
            constant("end", TensorProto.INT64, [1 << 40]),
            constant("time", TensorProto.INT64, [2]),
            constant("noise_channels", TensorProto.INT64, [1]),
            constant("in_hops", TensorProto.INT64, [0, -1, 480]),
            constant("in_line", TensorProto.INT64, [0, 1, -1]),
            constant("tenth", TensorProto.FLOAT, [0.1]),
            helper.make_tensor("nought", TensorProto.FLOAT, [], [0.0]),
            helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    if metadata is not None:
        text = metadata if isinstance(metadata, str) else json.dumps(metadata)
        model.metadata_props.add(key="rtsr", value=text)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of a tiny graph that keeps the contract of the exported ones."""
    path = tmp_path_factory.mktemp("model") / "stand-in.onnx"
    return _write_stand_in(path, _stand_in_metadata(), broken=False)


@pytest.fixture(scope="session")
def failing_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, but its output is not a number for any real sound."""
    path = tmp_path_factory.mktemp("model") / "failing.onnx"
    return _write_stand_in(path, _stand_in_metadata(), broken=True)


@pytest.fixture
def write_model(tmp_path: Path) -> Callable[..., Path]:
    """``write_model(**changes)``: the graph with other metadata; ``text=`` for anything at all."""

    def write(text: str | None = "", **changes: Any) -> Path:
        metadata: Any = {**_stand_in_metadata(), **changes} if text == "" else text
        return _write_stand_in(tmp_path / "changed.onnx", metadata, broken=False)

    return write


@pytest.fixture(params=["stand-in", "small"])
def model(request: pytest.FixtureRequest, stand_in: Path) -> str:
    """Each graph that the engine's promises are tested with."""
    from rtsr.runtime.models import bundled

    if request.param == "small":
        if "small" not in bundled():
            pytest.skip("the small model is not bundled in this tree")
        return "small"
    return str(stand_in)


@pytest.fixture(scope="session")
def make_sound() -> Callable[..., np.ndarray]:
    """``make_sound(rate, seconds, cutoff=..., channels=1, level=0.1, seed=0)``.

    Noise with the slope and the syllables of speech, brick-walled at ``cutoff``: float32
    ``(samples, channels)``, every channel different.
    """

    def make(
        rate: int,
        seconds: float,
        cutoff: float | None = None,
        channels: int = 1,
        level: float = 0.1,
        seed: int = 0,
    ) -> np.ndarray:
        samples = round(rate * seconds)
        noise = np.random.default_rng(seed).standard_normal((samples, channels))
        spectrum = np.fft.rfft(noise, axis=0)
        frequency = np.fft.rfftfreq(samples, 1.0 / rate)
        slope = 1.0 / np.maximum(frequency, 100.0)
        slope[frequency < 60.0] = 0.0
        if cutoff is not None:
            slope[frequency > cutoff] = 0.0
        sound = np.fft.irfft(spectrum * slope[:, None], samples, axis=0)
        syllables = 0.6 + 0.4 * np.sin(2 * np.pi * 4.0 * np.arange(samples) / rate)
        sound *= syllables[:, None]
        return (level * sound / np.sqrt(np.mean(sound**2))).astype(np.float32)

    return make


@pytest.fixture(scope="session")
def make_generator() -> Callable[..., Any]:
    """Makes a changed `small` none of whose parameters is left at a value that hides a mistake."""
    import torch

    from rtsr.model.config import configuration
    from rtsr.model.generator import seeded

    def make(**changes: Any) -> Any:
        generator = seeded(configuration("small", **changes), 3).eval()
        chance = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for name, parameter in generator.named_parameters():
                # What predicts levels says exponents: large weights would magnify rounding.
                size = 0.02 if name.startswith(("level_path", "band_predictor")) else 0.2
                parameter.add_(size * torch.randn(parameter.shape, generator=chance))
        return generator

    return make
