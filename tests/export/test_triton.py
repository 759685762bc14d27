"""The model repository: valid by Triton's own schema, true to the graph, and enough for a client.

No server runs here, but in ``test_triton_server.py``. The configuration is parsed with the schema
that NVIDIA publishes in its client package, and a stand-in follows it as the server documents it:
state by sequence, zeros at its start, outputs that become inputs.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from rtsr import ArgumentError, ModelError, RtsrError, Upsampler
from rtsr.cli.app import app
from rtsr.runtime.models import Model, bundled, find_model, why_not_on_gpu
from rtsr_export.text_format import Symbol, to_text
from rtsr_export.triton import (
    HOPS_PER_REQUEST,
    Serving,
    model_configuration,
    repository_name,
    write_repository,
)

MakeSound = Callable[..., np.ndarray]


def _parse(schema: ModuleType, text: str) -> Any:
    from google.protobuf import text_format

    return text_format.Parse(text, schema.ModelConfig())


class _StandInServer:
    """Runs a repository's entry as its configuration says, with what the batcher promises."""

    def __init__(self, entry: Path, configuration: Any) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(entry / "1" / configuration.default_model_filename),
            options,
            providers=["CPUExecutionProvider"],
        )
        self._shapes = {one.name: tuple(one.dims) for one in configuration.input}
        # By rank among the sorted names, as the server pairs them.
        states = configuration.sequence_batching.state
        inputs = sorted(state.input_name for state in states)
        outputs = sorted(state.output_name for state in states)
        self._pairs = dict(zip(outputs, inputs, strict=True))
        self._initial = {
            state.input_name: np.zeros((1, *state.initial_state[0].dims), np.float32)
            for state in states
        }
        self._outputs = [one.name for one in configuration.output]
        self.sequences: dict[int, dict[str, np.ndarray]] = {}
        self.started: list[int] = []

    def infer(
        self, signals: dict[str, np.ndarray], sequence: int, *, start: bool, end: bool
    ) -> np.ndarray:
        assert sequence != 0
        assert start == (sequence not in self.sequences)
        assert {name: value.shape[1:] for name, value in signals.items()} == self._shapes
        if start:
            self.started.append(sequence)
            self.sequences[sequence] = dict(self._initial)
        names = [*self._outputs, *self._pairs]
        results = self._session.run(names, {**signals, **self.sequences[sequence]})
        values = dict(zip(names, results, strict=True))
        self.sequences[sequence] = {self._pairs[output]: values[output] for output in self._pairs}
        if end:
            del self.sequences[sequence]
        return values["high_band"]


@pytest.mark.parametrize("hops", HOPS_PER_REQUEST)
def test_configuration_keeps_the_published_schema(
    hops: int, model: str, schema: ModuleType
) -> None:
    import onnx

    found = find_model(model)
    serving = Serving(streams=500, batch=32, hops=hops, kind="gpu", instances=2, wait_us=300)
    configuration = _parse(schema, model_configuration(found.metadata, serving))
    assert configuration.name == repository_name(found.metadata)
    assert configuration.backend == "onnxruntime"
    assert configuration.max_batch_size == 32
    batching = configuration.sequence_batching
    assert batching.WhichOneof("strategy_choice") == "oldest"
    assert batching.oldest.max_candidate_sequences == 500
    assert batching.oldest.max_queue_delay_microseconds == 300
    assert list(batching.oldest.preferred_batch_size) == [32]
    assert configuration.instance_group[0].count == 2
    assert configuration.instance_group[0].kind == schema.ModelInstanceGroup.KIND_GPU

    # Every input and output of the graph is declared once, with the type and shape it has there.
    declared = {
        one.name: (one.data_type, tuple(one.dims))
        for one in [*configuration.input, *configuration.output]
    }
    for state in batching.state:
        declared[state.input_name] = declared[state.output_name] = (
            state.data_type,
            tuple(state.dims),
        )
        (initial,) = state.initial_state
        assert initial.WhichOneof("state_data") == "zero_data"
        assert initial.zero_data
        assert tuple(initial.dims) == tuple(state.dims)
    graph = onnx.load(str(found.path), load_external_data=False).graph
    values = {value.name: value for value in [*graph.input, *graph.output]}
    assert set(declared) == set(values)
    fixed = {"frames": hops, "samples": 480 * hops}
    for name, (kind, shape) in declared.items():
        assert kind == schema.TYPE_FP32
        dimensions = values[name].type.tensor_type.shape.dim
        assert dimensions[0].dim_param == "batch"
        assert len(dimensions) == len(shape) + 1
        for size, dimension in zip(shape, dimensions[1:], strict=True):
            known = dimension.dim_value or fixed.get(dimension.dim_param, size)
            assert known == size


def test_client_and_server_equal_an_upsampler(
    model: str, tmp_path: Path, schema: ModuleType, client: ModuleType, make_sound: MakeSound
) -> None:
    entry = write_repository(find_model(model), tmp_path / "models", Serving())
    configuration = _parse(schema, (entry / "config.pbtxt").read_text())
    server = _StandInServer(entry, configuration)
    served = client.ServedModel.from_configuration(configuration)
    sound = make_sound(8000, 0.5, cutoff=3500)[:, 0]
    result = client.enhance(server, served, sound, 8000, seed=3)
    assert len(server.started) == 2  # the engine's warm-up was a stream of its own
    assert not server.sequences
    with Upsampler(8000, model=model, seed=3, provider="cpu") as upsampler:
        out = np.concatenate([upsampler.process(sound), upsampler.flush()])
        expected = out[upsampler.latency.algorithmic_samples :]
    assert result.shape == expected.shape
    assert np.abs(result - expected).max() <= 1e-5


def test_a_failing_step_begins_a_new_sequence(
    failing_model: Path, tmp_path: Path, schema: ModuleType, client: ModuleType
) -> None:
    entry = write_repository(find_model(failing_model), tmp_path / "models", Serving())
    configuration = _parse(schema, (entry / "config.pbtxt").read_text())
    server = _StandInServer(entry, configuration)
    served = client.ServedModel.from_configuration(configuration)
    out = client.enhance(server, served, np.full(4800, -0.1, np.float32), 48000)
    assert np.isfinite(out).all()
    assert len(server.started) > 2
    assert not server.sequences


def test_states_keep_their_ranks_among_sorted_names(write_model: Any, schema: ModuleType) -> None:
    awkward = {"cache": [1, 2], "cache_length": [1, 1], "cache.a": [1, 3], "Cache": [1, 4]}
    metadata = find_model(write_model(states=awkward)).metadata
    configuration = _parse(schema, model_configuration(metadata, Serving()))
    pairs = {one.input_name: one.output_name for one in configuration.sequence_batching.state}
    assert [pairs[name] for name in sorted(pairs)] == sorted(pairs.values())


def test_repository_is_written_whole_or_not_at_all(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = find_model(stand_in)
    folder = tmp_path / "models"
    monkeypatch.setattr("os.rename", lambda *_: (_ for _ in ()).throw(OSError(28, "No space")))
    with pytest.raises(RtsrError, match=r"Cannot write .*: No space"):
        write_repository(model, folder, Serving())
    monkeypatch.undo()
    assert not list(folder.iterdir())
    entry = write_repository(model, folder, Serving())
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) == [
        "rtsr_stand-in",
        "rtsr_stand-in/1",
        "rtsr_stand-in/1/model.onnx",
        "rtsr_stand-in/config.pbtxt",
    ]
    assert (entry / "1" / "model.onnx").read_bytes() == stand_in.read_bytes()
    with pytest.raises(RtsrError, match="exists already"):
        write_repository(model, folder, Serving())
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_a_repository_may_be_a_mount_point(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "models"
    rename = os.rename

    def within(source: Path, target: Path) -> None:
        if folder not in Path(source).parents:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename(source, target)

    monkeypatch.setattr("os.rename", within)
    entry = write_repository(find_model(stand_in), folder, Serving())
    assert (entry / "1" / "model.onnx").read_bytes() == stand_in.read_bytes()
    assert [path.name for path in folder.iterdir()] == ["rtsr_stand-in"]
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_folders_that_cannot_be_written(stand_in: Path, tmp_path: Path) -> None:
    model = find_model(stand_in)
    (tmp_path / "file").write_text("")
    with pytest.raises(RtsrError, match="is not a folder"):
        write_repository(model, tmp_path / "file", Serving())
    with pytest.raises(RtsrError, match="There is no folder"):
        write_repository(model, tmp_path / "nowhere" / "models", Serving())


def test_what_is_no_network_is_refused(stand_in: Path, tmp_path: Path) -> None:
    metadata = find_model(stand_in).metadata
    with pytest.raises(ModelError, match="no network"):
        write_repository(Model("other", tmp_path / "other.npz", metadata), tmp_path, Serving())


def test_int8_is_not_for_a_gpu(write_model: Any, tmp_path: Path, schema: ModuleType) -> None:
    model = find_model(write_model(precision="int8"))
    with pytest.raises(ModelError, match=r"is int8, which runs on the CPU only; .*fp32 or fp16"):
        write_repository(model, tmp_path / "models", Serving(kind="gpu"))
    assert not (tmp_path / "models").exists()
    entry = write_repository(model, tmp_path / "models", Serving(kind="auto"))
    configuration = _parse(schema, (entry / "config.pbtxt").read_text())
    assert configuration.instance_group[0].kind == schema.ModelInstanceGroup.KIND_CPU


@pytest.mark.parametrize(
    "arguments",
    [
        ["--triton", "models", "--device", "gpu"],
        ["--engine", "tensorrt"],
        # What comes first would be possible, but half of a command is none.
        ["--triton", "models", "--device", "cpu", "--engine", "tensorrt"],
    ],
    ids=["served", "engine", "both"],
)
def test_command_names_what_to_take_instead_of_int8(
    arguments: list[str],
    write_model: Any,
    stand_in: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    write_model(precision="int8").rename(tmp_path / "net-int8.onnx")
    (tmp_path / "net.onnx").write_bytes(stand_in.read_bytes())
    monkeypatch.chdir(work)
    result = CliRunner().invoke(app, ["export", *arguments, "--model", "../net-int8.onnx"])
    assert result.exit_code == 2, result.output
    assert result.stderr == (
        "rtsr: Model '../net-int8.onnx' is int8, which runs on the CPU only; GPUs have no kernels "
        "for it: for --engine and --device gpu take its fp32 or fp16 file, such as "
        "'../net.onnx'.\n"
    )
    assert not list(work.iterdir())


def test_command_does_not_export_for_a_gpu_in_int8(tmp_path: Path) -> None:
    files = [str(tmp_path / "net.onnx"), str(tmp_path / "net-int8.onnx")]
    arguments = ["export", *files, "--precision", "int8", "--engine", "tensorrt"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("rtsr: --precision int8 runs on the CPU only; ")
    assert len(result.stderr.splitlines()) == 1


def test_bundled_int8_names_its_twin() -> None:
    if "small-int8" not in bundled():
        pytest.skip("the small model in int8 is not bundled in this tree")
    reason = why_not_on_gpu(find_model("small-int8"), "a server's GPU")
    assert reason is not None
    assert reason.endswith("take its fp32 or fp16 file, such as 'small'.")
    assert why_not_on_gpu(find_model("small"), "a server's GPU") is None


def test_a_name_that_is_no_folder_is_refused(write_model: Any, tmp_path: Path) -> None:
    model = find_model(write_model(name="../escape"))
    with pytest.raises(ModelError, match="letters, digits"):
        write_repository(model, tmp_path / "models", Serving())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"streams": 0}, "number of streams must lie between 1"),
        ({"batch": 100_000}, "size of a batch must lie between 1 and 4096"),
        ({"hops": 3}, "takes 1, 2, 4 hops, not 3"),
        ({"kind": "tpu"}, "one of auto, cpu, gpu, not 'tpu'"),
        ({"instances": 0}, "number of instances"),
        ({"threads": 0}, "number of threads"),
        ({"wait_us": -1}, "waiting time"),
        ({"idle_us": 0}, "idle time in microseconds must lie between 100000"),
        ({"backend": "tvm"}, "one of onnxruntime, python, not 'tvm'"),
        ({"backend": "python", "kind": "gpu"}, "'python' runs models on the CPU only; a GPU takes"),
    ],
)
def test_serving_out_of_range(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ArgumentError, match=sentence):
        Serving(**arguments)


def test_text_format_escapes(schema: ModuleType) -> None:
    awkward = 'quote " backslash \\ new\nline\ttab ü'
    message = {
        "name": awkward,
        "max_batch_size": 3,
        "instance_group": [{"kind": Symbol("KIND_CPU"), "passive": True, "gpus": [0, 1]}],
        "response_cache": {"enable": False},
        "input": [],
    }
    parsed = _parse(schema, to_text(message))
    assert parsed.name == awkward
    assert list(parsed.instance_group[0].gpus) == [0, 1]
    assert parsed.instance_group[0].passive
    assert not parsed.response_cache.enable
    with pytest.raises(TypeError, match="mixes"):
        to_text({"input": [{"name": "a"}, 1]})  # type: ignore[list-item]


def test_command_writes_a_repository(tmp_path: Path, stand_in: Path, schema: ModuleType) -> None:
    folder = tmp_path / "models"
    arguments = ["export", "--triton", str(folder), "--model", str(stand_in), "--batch", "8"]
    result = CliRunner().invoke(app, [*arguments, "--device", "cpu", "--hops", "2"])
    assert result.exit_code == 0, result.output
    assert f"tritonserver --model-repository={folder}" in result.stdout
    configuration = _parse(schema, (folder / "rtsr_stand-in" / "config.pbtxt").read_text())
    assert configuration.max_batch_size == 8
    assert configuration.instance_group[0].kind == schema.ModelInstanceGroup.KIND_CPU
    other = str(tmp_path / "in-python")
    result = CliRunner().invoke(
        app, ["export", "--triton", other, *arguments[3:], "--triton-backend", "python"]
    )
    assert result.exit_code == 0, result.output
    entry = Path(other) / "rtsr_stand-in"
    assert sorted(path.name for path in (entry / "1").iterdir()) == ["model.onnx", "model.py"]
    assert _parse(schema, (entry / "config.pbtxt").read_text()).backend == "python"
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 2
    assert "exists already" in again.stderr
    assert len(again.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "CHECKPOINT OUTPUT, or --triton DIR"),
        (["last.pt"], "Name the .onnx file"),
        (["--triton", "models", "--model", "huge"], "unknown"),
        (["--triton", "models", "--batch", "0"], "size of a batch"),
        (["--triton", "models", "--device", "npu"], "one of auto, cpu, gpu"),
        (["--triton", "models", "--triton-backend", "tvm"], "one of onnxruntime, python"),
        (["last.pt", "net.onnx", "--triton", "models", "--hops", "3"], "takes 1, 2, 4 hops"),
    ],
)
def test_command_refuses(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["export", *arguments])
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("rtsr: ")
    assert sentence in result.stderr
    assert not list(tmp_path.iterdir())


def test_bundled_models_can_be_served() -> None:
    for name in bundled():
        assert model_configuration(find_model(name).metadata, Serving())
