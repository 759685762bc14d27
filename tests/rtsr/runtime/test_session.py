"""The run-time: metadata, models, providers, and one session with its state."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtsr.errors import MissingDependencyError, ModelError, ProviderError
from rtsr.runtime.metadata import CHECKSUM_KEY, check_checksum, read_metadata
from rtsr.runtime.models import bundled, bundled_octaves, find_model
from rtsr.runtime.providers import open_session
from rtsr.runtime.providers import select as providers
from rtsr.runtime.session import OnnxStep

WriteModel = Callable[..., Path]


def test_metadata_is_what_the_runtime_itself_reads(model: str) -> None:
    import json

    import onnxruntime

    found = find_model(model)
    session = onnxruntime.InferenceSession(str(found.path), providers=["CPUExecutionProvider"])
    values = json.loads(session.get_modelmeta().custom_metadata_map["rtsr"])
    assert found.metadata.name == values["name"]
    assert found.metadata.noise_channels == values["noise_channels"]
    assert {name: list(shape) for name, shape in found.metadata.states.items()} == values["states"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": None}, "not one of rtsr's"),
        ({"text": "no json"}, "damaged"),
        ({"text": "[]"}, "damaged"),
        ({"text": "{}"}, "damaged"),
        ({"format": 2}, "has format 2"),
        ({"sample_rate": 16000}, "works at 16000 Hz"),
        ({"hop": 240}, "hops of 240"),
        ({"latency_samples": 1}, "add up to 600"),
        ({"overlap": 481, "latency_samples": 961}, "overlap is 481, more than a hop"),
        ({"states": {"history": 3}}, "damaged"),
        ({"text": "[" * 100_000}, "damaged"),
        ({"noise_channels": 1e12}, "noise_channels is 1000000000000"),
        ({"noise_channels": -5}, "noise_channels is -5"),
        ({"noise_channels": 0}, "noise_channels is 0"),
        ({"noise_channels": float("inf")}, "damaged"),
        ({"f_target_default": 1e12}, "f_target_default is 1e\\+12 Hz"),
        ({"f_target_default": 0}, "f_target_default is 0 Hz"),
        ({"f_target_default": 499}, "f_target_default is 499 Hz"),
        ({"f_target_default": -5}, "f_target_default is -5 Hz"),
        ({"f_target_default": float("nan")}, "f_target_default is nan Hz"),
        ({"states": {"history": [1, 0, 120]}}, "'history' has shape"),
        ({"states": {"history": [1, 1 << 40]}}, "holds 1099511627776 values"),
    ],
    ids=lambda value: (
        " ".join(f"{name} {str(entry)[:24]}" for name, entry in value.items())
        if isinstance(value, dict)
        else ""
    ),
)
def test_unusable_metadata_is_refused(
    changes: dict[str, object], message: str, write_model: WriteModel
) -> None:
    with pytest.raises(ModelError, match=message):
        find_model(write_model(**changes))


@pytest.mark.parametrize(
    "states", [{}, {"other": [1, 1, 120]}, {"history": [1, 1, 64]}], ids=["none", "name", "shape"]
)
def test_graph_must_match_its_metadata(
    states: dict[str, list[int]], write_model: WriteModel
) -> None:
    with pytest.raises(ModelError, match="does not match its metadata"):
        OnnxStep(write_model(states=states))


@pytest.mark.parametrize(
    "content",
    [b"", b"hello, this is text\n" * 20, b"\x00" * 64, b"RIFF\x24\x00\x00\x00WAVEfmt ", b"\x08"],
    ids=["empty", "text", "zeros", "wav", "one byte"],
)
def test_what_is_not_onnx_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="not an ONNX model"):
        find_model(path)


def test_a_damaged_length_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    data = bytearray(find_model("small-int8").path.read_bytes())
    value = data.rindex(b"\x0a\x04rtsr\x12") + 7
    data[value : value + 10] = b"\xff" * 9 + b"\x7f"
    path.write_bytes(data)
    with pytest.raises(ModelError, match="not an ONNX model"):
        find_model(path)


@pytest.mark.skipif(os.name != "posix", reason="Windows takes it for a file that is not there")
@pytest.mark.parametrize("name", ["x" * 300, "x" * 300 + ".onnx"])
def test_what_no_file_can_be_called_is_no_model(name: str) -> None:
    with pytest.raises(ModelError, match=r"cannot be opened: File name too long\.$"):
        find_model(name)


def test_truncated_model_is_refused(stand_in: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(stand_in.read_bytes()[:-20])
    with pytest.raises(ModelError):
        OnnxStep(path)


@pytest.mark.parametrize("content", [b"hi", b"\x08\x08", b""], ids=["text", "no graph", "empty"])
def test_a_file_that_is_no_onnx_model_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="is not an ONNX model"):
        find_model(path)


def test_damaged_graph_is_refused(stand_in: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    graph = stand_in.read_bytes()
    assert b"ReduceMean" in graph
    path.write_bytes(graph.replace(b"ReduceMean", b"ReduceFoxx"))
    with pytest.raises(ModelError, match="cannot load"):
        OnnxStep(path)


def test_folder_is_not_a_model(tmp_path: Path) -> None:
    folder = tmp_path / "model.onnx"
    folder.mkdir()
    with pytest.raises(ModelError, match="cannot be opened"):
        find_model(folder)


def test_bundled_models_are_found_by_name() -> None:
    for name, path in {**bundled(), **bundled_octaves()}.items():
        metadata = find_model(name).metadata
        assert metadata.parameters > 0
        assert metadata.licence
        assert read_metadata(path) == metadata


@pytest.mark.parametrize("hops", [1, 4, 16])
@pytest.mark.parametrize("batch", [1, 2])
def test_steps_equal_runs_with_explicit_state(model: str, hops: int, batch: int) -> None:
    import onnxruntime

    step = OnnxStep(model, batch=batch, hops_per_step=hops)
    metadata = step.metadata
    plain = onnxruntime.InferenceSession(str(step.model.path), providers=["CPUExecutionProvider"])
    state = {
        name: np.zeros((batch, *shape[1:]), np.float32) for name, shape in metadata.states.items()
    }
    random = np.random.default_rng(0)
    for _ in range(12):
        signals = {
            "audio": (0.1 * random.standard_normal(step.audio.shape)).astype(np.float32),
            "noise": random.standard_normal(step.noise.shape).astype(np.float32),
            "f_prior": np.full(step.f_prior.shape, 4000.0, np.float32),
            "f_target": np.full(step.f_target.shape, 20000.0, np.float32),
        }
        feed = {**signals, **{f"state.{name}": value for name, value in state.items()}}
        names = ["high_band", *(f"next.{name}" for name in state)]
        expected, *following = plain.run(names, feed)
        state = dict(zip(state, following, strict=True))
        high_band = step.step(**signals)
        scale = max(float(np.abs(expected).max()), 1e-3)
        assert np.abs(high_band - expected).max() <= 1e-3 * scale
    for name, value in step.state().items():
        assert np.allclose(value, state[name], rtol=1e-2, atol=1e-3), name


def test_reset_session_is_fresh(model: str) -> None:
    step = OnnxStep(model)
    step.f_prior.fill(4000.0)
    step.audio[...] = 0.1 * np.random.default_rng(0).standard_normal(step.audio.shape)
    first = step.run().copy()
    second = step.run().copy()
    step.run()
    assert not np.array_equal(first, second)
    step.reset()
    assert not any(value.any() for value in step.state().values())
    assert np.array_equal(step.run(), first)
    assert np.array_equal(step.run(), second)


def test_missing_runtime_is_one_sentence(monkeypatch: pytest.MonkeyPatch, stand_in: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "rtsr\[cpu\]" or .*\[gpu\]'):
        OnnxStep(stand_in)


def test_leftover_runtime_counts_as_missing(
    monkeypatch: pytest.MonkeyPatch, stand_in: Path
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", types.ModuleType("onnxruntime"))
    with pytest.raises(MissingDependencyError):
        OnnxStep(stand_in)


class _FailingImport:
    """A finder under which importing ONNX Runtime ends in the given error."""

    def __init__(self, error: ImportError) -> None:
        self._error = error

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name == "onnxruntime" else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        raise self._error


def test_runtime_that_cannot_be_loaded_is_not_called_missing(
    monkeypatch: pytest.MonkeyPatch, stand_in: Path
) -> None:
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    broken = _FailingImport(ImportError("libgomp.so.1:\ncannot open shared object file"))
    monkeypatch.setattr(sys, "meta_path", [broken, *sys.meta_path])
    with pytest.raises(ProviderError, match=r"cannot be loaded \(libgomp.so.1: cannot open"):
        OnnxStep(stand_in)


def test_interrupted_import_is_an_interruption(
    monkeypatch: pytest.MonkeyPatch, stand_in: Path
) -> None:
    error = ImportError("numpy failed to import")
    error.__context__ = KeyboardInterrupt()
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.setattr(sys, "meta_path", [_FailingImport(error), *sys.meta_path])
    with pytest.raises(KeyboardInterrupt):
        OnnxStep(stand_in)


def test_absent_provider_names_those_present(stand_in: Path) -> None:
    import onnxruntime

    absent = [name for name in ("cuda", "tensorrt") if name not in providers.available(onnxruntime)]
    if not absent:
        pytest.skip("every provider is installed here")
    with pytest.raises(ProviderError, match=r"present: .*cpu"):
        OnnxStep(stand_in, provider=absent[0])


def test_silent_fall_back_is_refused(monkeypatch: pytest.MonkeyPatch, stand_in: Path) -> None:
    monkeypatch.setattr(providers, "started", lambda session, provider: False)
    with pytest.raises(ProviderError, match="did not start"):
        OnnxStep(stand_in, provider="cpu")


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_auto_takes_what_starts(monkeypatch: pytest.MonkeyPatch, stand_in: Path) -> None:
    import onnxruntime

    everything = list(providers.ONNX_NAMES.values())
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: everything)
    assert providers.candidates("auto", onnxruntime) == ["cuda", "cpu"]
    assert providers.candidates("tensorrt", onnxruntime) == ["tensorrt"]
    assert OnnxStep(stand_in, provider="auto").provider in ("cuda", "cpu")


@pytest.mark.parametrize(
    "statement", ["import rtsr", "import rtsr.cli.app", "import rtsr.upsampler"]
)
def test_imports_stay_light(statement: str) -> None:
    program = (
        f"import sys; {statement}; "
        "heavy = {'torch', 'onnxruntime', 'onnx', 'matplotlib', 'soundfile'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def changed_file(source: Path, target: Path, place: int) -> Path:
    """Copy a model with one bit of it turned."""
    data = bytearray(source.read_bytes())
    data[place] ^= 1
    target.write_bytes(data)
    return target


@pytest.mark.parametrize("name", [*bundled(), *bundled_octaves()])
def test_bundled_files_are_what_was_exported(name: str) -> None:
    path = find_model(name).path
    check_checksum(path)
    assert CHECKSUM_KEY.encode() in path.read_bytes()


def test_changed_weights_are_refused_in_one_sentence(tmp_path: Path) -> None:
    source = find_model("small-int8").path
    path = changed_file(source, tmp_path / "changed.onnx", source.stat().st_size // 2)
    assert find_model(path).metadata.name == "small", "it can still be listed"
    with pytest.raises(ModelError, match=r"weights of .*changed\.onnx' were changed or damaged"):
        OnnxStep(path, provider="cpu")


def test_a_file_that_was_cut_off_or_taken_away_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    path.write_bytes(find_model("small-int8").path.read_bytes()[:100_000])
    with pytest.raises(ModelError, match="is damaged"):
        check_checksum(path)
    path.unlink()
    with pytest.raises(ModelError, match="cannot be opened: No such file"):
        check_checksum(path)


def test_files_without_a_checksum_are_taken(write_model: Callable[..., Path]) -> None:
    path = write_model()
    assert CHECKSUM_KEY.encode() not in path.read_bytes()
    check_checksum(path)


def test_states_are_copied_while_they_are_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    given = []

    def watched(*arguments: Any) -> Any:
        given.append(arguments[2].execution_order)
        return create(*arguments)

    create = open_session.create
    monkeypatch.setattr(open_session, "create", watched)
    OnnxStep("small-int8", provider="cpu", batch=2, row_counts=(1,))
    assert given == [onnxruntime.ExecutionOrder.PRIORITY_BASED]
