"""``model.py`` of the Python backend, with a stand-in for the module that the backend gives it.

The real backend runs it in ``test_triton_server.py``, where there is one.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rtsr import Upsampler
from rtsr.runtime.models import find_model
from rtsr_export.triton import PYTHON, Serving, write_repository

START, END = 1, 2
MakeSound = Callable[..., np.ndarray]


@dataclass
class _Tensor:
    name: str
    values: np.ndarray

    def as_numpy(self) -> np.ndarray:
        return self.values


@dataclass
class _Error(Exception):
    INVALID_ARG = 3

    sentence: str
    code: int


@dataclass
class _Response:
    tensors: list[_Tensor]
    error: _Error | None = None


@dataclass
class _Request:
    signals: dict[str, np.ndarray]
    sequence: int
    marks: int = 0

    def correlation_id(self) -> int:
        return self.sequence

    def flags(self) -> int:
        return self.marks


@dataclass
class _Backend:
    """Runs a model as the server does that wrote its configuration."""

    model: Any
    sequences: set[int] = field(default_factory=set)

    def execute(self, *requests: _Request) -> list[np.ndarray | str]:
        responses = self.model.execute(list(requests))
        return [one.error.sentence if one.error else one.tensors[0].values for one in responses]

    def infer(
        self, signals: dict[str, np.ndarray], sequence: int, *, start: bool, end: bool
    ) -> np.ndarray:
        assert start == (sequence not in self.sequences)
        self.sequences.add(sequence)
        request = _Request(signals, sequence, START * start | END * end)
        (result,) = self.execute(request)
        assert isinstance(result, np.ndarray), result
        if end:
            self.sequences.remove(sequence)
        return result


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, schema: ModuleType) -> Callable[..., Any]:
    """``load(model, **serving)``: its configuration, and the backend that runs it."""
    module = SimpleNamespace(
        TRITONSERVER_REQUEST_FLAG_SEQUENCE_START=START,
        TRITONSERVER_REQUEST_FLAG_SEQUENCE_END=END,
        Tensor=_Tensor,
        InferenceResponse=_Response,
        TritonError=_Error,
        TritonModelException=RuntimeError,
        get_input_tensor_by_name=lambda request, name: _Tensor(name, request.signals[name]),
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", module)

    def load(model: str | Path = "small", **serving: Any) -> tuple[Any, _Backend]:
        from google.protobuf import json_format, text_format

        entry = write_repository(
            find_model(model), tmp_path / "models", Serving(backend=PYTHON, **serving)
        )
        text = (entry / "config.pbtxt").read_text()
        configuration = text_format.Parse(text, schema.ModelConfig())
        spec = importlib.util.spec_from_file_location("triton_model", entry / "1" / "model.py")
        assert spec is not None
        assert spec.loader is not None
        program = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(program)
        served = program.TritonPythonModel()
        # As the server writes it: fields by their names, 64-bit numbers as text.
        described = json_format.MessageToDict(configuration, preserving_proto_field_name=True)
        served.initialize({"model_config": json.dumps(described)})
        return configuration, _Backend(served)

    return load


def _signals(seed: int, channels: int = 4) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "audio": 0.1 * random.standard_normal((1, 1, 480)).astype(np.float32),
        "noise": random.standard_normal((1, channels, 1)).astype(np.float32),
        "f_prior": np.full((1, 1, 1), 4000, np.float32),
        "f_target": np.full((1, 1, 1), 20000, np.float32),
    }


def test_client_equals_an_upsampler(
    load: Callable[..., Any], client: ModuleType, make_sound: MakeSound
) -> None:
    configuration, backend = load("small")
    served = client.ServedModel.from_configuration(configuration)
    sound = make_sound(8000, 0.3, cutoff=3500)[:, 0]
    result = client.enhance(backend, served, sound, 8000, seed=3)
    assert not backend.sequences
    with Upsampler(8000, model="small", seed=3, provider="cpu") as upsampler:
        out = np.concatenate([upsampler.process(sound), upsampler.flush()])
        expected = out[upsampler.latency.algorithmic_samples :]
    assert np.abs(result - expected).max() <= 1e-5


def test_configuration_names_the_program_and_no_state(load: Callable[..., Any]) -> None:
    configuration, _ = load(streams=5, threads=2)
    assert configuration.backend == "python"
    assert configuration.default_model_filename == "model.py"
    assert not configuration.sequence_batching.state
    assert configuration.instance_group[0].kind == 2  # the CPU, although the device is "auto"


def test_sequences_in_a_batch_are_as_alone(load: Callable[..., Any], stand_in: Path) -> None:
    _, backend = load(stand_in)
    alone: dict[int, list[Any]] = {}
    for sequence in (1, 2, 3):
        alone[sequence] = []
        for step in range(4):
            request = _Request(_signals(10 * sequence + step), sequence, START * (step == 0))
            alone[sequence] += backend.execute(request)
    # The same again, but together: number 3 joins later, number 1 is in the last batch once more.
    for steps in ({1: 0, 2: 0}, {2: 1, 3: 0, 1: 1}, {3: 1, 1: 2}, {1: 3, 3: 2, 2: 2}):
        requests = [
            _Request(_signals(10 * sequence + step), sequence, START * (step == 0))
            for sequence, step in steps.items()
        ]
        results = backend.execute(*requests)
        for (sequence, step), result in zip(steps.items(), results, strict=True):
            np.testing.assert_allclose(result, alone[sequence][step], atol=1e-6, rtol=0)


def test_refused_requests_do_not_touch_their_neighbours(
    load: Callable[..., Any], stand_in: Path
) -> None:
    _, backend = load(stand_in)
    signals = _signals(1)
    (first,) = backend.execute(_Request(signals, 1, START))
    bad = {**signals, "audio": np.full_like(signals["audio"], np.nan)}
    results = backend.execute(
        _Request(bad, 1), _Request(signals, 2, START), _Request(signals, 9), _Request(bad, 3, START)
    )
    assert results[0] == (
        "Input 'audio' of sequence 1 has values that are no finite numbers; "
        "the step was not taken, the sequence may go on."
    )
    np.testing.assert_array_equal(results[1], first)
    assert results[2] == "Sequence 9 is not known here; begin a new one with the START flag."
    # The server has begun number 3, so that it goes on although its first step was refused.
    results = backend.execute(_Request(signals, 3), _Request(signals, 1), _Request(signals, 2))
    np.testing.assert_array_equal(results[0], first)
    np.testing.assert_array_equal(results[1], results[2])
    assert not np.array_equal(results[1], first)


def test_a_sequence_that_starts_again_starts_from_nothing(
    load: Callable[..., Any], stand_in: Path
) -> None:
    _, backend = load(stand_in, streams=1)
    signals = _signals(1)
    (first,) = backend.execute(_Request(signals, 1, START))
    backend.execute(_Request(_signals(2), 1))
    for marks in (START, START | END, START):
        (again,) = backend.execute(_Request(signals, 1, marks))
        np.testing.assert_array_equal(again, first)
    # Another takes the place of one that has ended.
    backend.execute(_Request(_signals(2), 1, END))
    (other,) = backend.execute(_Request(signals, 2, START))
    np.testing.assert_array_equal(other, first)
    (gone,) = backend.execute(_Request(signals, 1))
    assert isinstance(gone, str)


def test_room_of_dropped_sequences_is_used_again(
    load: Callable[..., Any], stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    _, backend = load(stand_in, streams=2, idle_us=1_000_000)
    signals = _signals(1)
    for sequence in (1, 2):
        backend.execute(_Request(signals, sequence, START))
    # The server may have dropped one just now: there is room for one more, and nobody loses state.
    backend.execute(_Request(signals, 3, START))
    kept = backend.execute(*(_Request(signals, one) for one in (1, 2, 3)))
    np.testing.assert_array_equal(kept[0], kept[1])
    np.testing.assert_array_equal(kept[0], kept[2])
    states = backend.model._states
    assert {len(tensor) for tensor in states.tensors.values()} == {4}
    now = 1.5
    backend.execute(_Request(signals, 2), _Request(signals, 4, START))
    now = 2.5
    backend.execute(*(_Request(signals, one, START) for one in (5, 6)))
    assert {len(tensor) for tensor in states.tensors.values()} == {4}
    results = backend.execute(*(_Request(signals, one) for one in (1, 2, 3, 4)))
    assert [isinstance(result, str) for result in results] == [True, False, True, False]


def test_a_backend_without_onnx_runtime_says_so(
    load: Callable[..., Any], stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RuntimeError, match=r"has no ONNX Runtime .*; install onnxruntime"):
        load(stand_in)
