"""Building engines, up to the point where TensorRT itself is needed."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from rtsr.errors import ArgumentError, ModelError, ProviderError, RtsrError
from rtsr.runtime.models import Model, find_model
from rtsr.runtime.providers import tensorrt
from rtsr.runtime.providers.options import ProviderOptions
from rtsr.runtime.providers.tensorrt import EngineKey
from rtsr_export import tensorrt as building
from rtsr_export.command import export_command
from rtsr_export.engine_command import summary
from rtsr_export.step_parity import StepParity

OPTIONS = ProviderOptions()
SAME = StepParity(200, 1e-3, 2e-3, True), StepParity(200, 0.0, 0.0, True)


def export(*arguments: str) -> None:
    """Run ``rtsr export``, whose errors come as they are."""
    program = typer.Typer()
    program.command()(export_command)
    typer.main.get_command(program).main(list(arguments), standalone_mode=False)


@pytest.fixture
def found(stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """A model on a machine whose GPU and libraries are known."""
    monkeypatch.setenv("RTSR_CACHE_DIR", str(tmp_path / "cache"))

    def key(model: Model, batch: int, hops: int, options: ProviderOptions) -> EngineKey:
        digest = tensorrt.file_sha256(model.path)
        return EngineKey(
            "NVIDIA H200",
            "9.0",
            "580.95.05",
            "10.13.3",
            "1.31.1",
            digest,
            batch,
            hops,
            options.fp16,
        )

    monkeypatch.setattr(building, "key_of_this_machine", key)
    monkeypatch.setattr(building, "check_engine", lambda *_: SAME)
    return find_model(stand_in)


CHILD = """
import json, shutil, sys, time
order = json.loads(sys.argv[1])
engine = order["engine"]
time.sleep(0.3)
{work}
"""
BUILDS = 'shutil.copyfile(order["model"], engine["trt_ep_context_file_path"])'


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``child(work)``: what the building process does instead of building."""

    def become(work: str) -> None:
        folder = tmp_path / "child"
        shutil.rmtree(folder, ignore_errors=True)
        package = folder / "rtsr_export"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "tensorrt_child.py").write_text(CHILD.format(work=work))
        monkeypatch.setattr(
            building, "_child_environment", lambda: {"PYTHONPATH": str(folder), "PATH": ""}
        )

    return become


def test_an_engine_is_built_checked_and_kept(found: Model, child: Any, tmp_path: Path) -> None:
    child(BUILDS)
    shown: list[tuple[str, float]] = []
    built = building.build_engine(
        found, 2, 1, OPTIONS, progress=lambda phase, seconds: shown.append((phase, seconds))
    )
    assert built.seconds > 0.0
    assert built.replaced == ""
    assert shown[0][0] == "building the engine"
    assert tensorrt.find_engine(found, built.key, OPTIONS).is_file()
    manifest = tensorrt.read_manifest(built.folder)
    assert manifest["key"]["batch"] == 2
    assert manifest["build_seconds"] > 0.0
    assert sorted(file.name for file in built.folder.iterdir()) == ["engine.onnx", "manifest.json"]
    assert not list(built.folder.parent.glob(".*")), "nothing is left beside it"
    assert "built in" in summary(built)
    assert "1.0e-03 of the signal" in summary(built)


def test_an_engine_that_fits_is_kept(found: Model, child: Any) -> None:
    child(BUILDS)
    built = building.build_engine(found, 1, 1, OPTIONS)
    child("sys.exit(9)")
    again = building.build_engine(found, 1, 1, OPTIONS)
    assert (again.folder, again.seconds) == (built.folder, 0.0)
    assert "nothing to do" in summary(again)
    child(BUILDS)
    anew = building.build_engine(found, 1, 1, OPTIONS, rebuild=True)
    assert anew.replaced == "it was to be built anew"


def test_an_engine_that_does_not_fit_is_replaced(found: Model, child: Any) -> None:
    child(BUILDS)
    built = building.build_engine(found, 1, 1, OPTIONS)
    other = dataclasses.replace(built.key, gpu="NVIDIA A100")
    tensorrt.write_manifest(built.folder, other, {})
    again = building.build_engine(found, 1, 1, OPTIONS)
    assert again.replaced == "it was built for NVIDIA A100, this is NVIDIA H200"
    assert "It replaces one that could not be used" in summary(again)
    assert tensorrt.why_unusable(built.folder, built.key) is None


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        ('print("a warning"); print("Provider is out of order."); sys.exit(1)', "out of order"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "killed by signal 9"),
        ("sys.exit(3)", "exit code 3"),
        ("pass", "only a part of the graph"),
    ],
    ids=["says why", "killed", "says nothing", "no engine"],
)
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_build_that_fails_leaves_nothing(
    found: Model, child: Any, work: str, reason: str
) -> None:
    child(work)
    with pytest.raises(ProviderError, match=rf"built no engine for model .*{reason}"):
        building.build_engine(found, 1, 1, OPTIONS)
    folder = tensorrt.engine_folder(found, building.key_of_this_machine(found, 1, 1, OPTIONS))
    assert not list(folder.parent.iterdir())


def test_an_engine_that_fails_its_check_is_not_kept(
    found: Model, child: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    child(BUILDS)

    def differs(*_: Any) -> None:
        raise ProviderError("The engine differs by 1.0e+00 of the signal.")

    monkeypatch.setattr(building, "check_engine", differs)
    with pytest.raises(ProviderError, match="differs by"):
        building.build_engine(found, 1, 1, OPTIONS)
    key = building.key_of_this_machine(found, 1, 1, OPTIONS)
    with pytest.raises(ProviderError, match="none was built"):
        tensorrt.find_engine(found, key, OPTIONS)


def test_what_tensorrt_is_told(found: Model, tmp_path: Path) -> None:
    key = building.key_of_this_machine(found, 1, 1, OPTIONS)
    given = building.building_options(key, tmp_path)
    assert given["trt_dump_ep_context_model"] == given["trt_timing_cache_enable"] == "True"
    assert given["trt_fp16_enable"] == given["trt_engine_cache_enable"] == "False"
    assert given["trt_ep_context_file_path"] == str(tmp_path / "engine.onnx")
    assert given["trt_timing_cache_path"].endswith(key.timing_digest)
    assert "trt_layer_norm_fp32_fallback" not in given
    half = building.building_options(dataclasses.replace(key, fp16=True), tmp_path)
    assert half["trt_fp16_enable"] == half["trt_layer_norm_fp32_fallback"] == "True"


def test_the_second_build_says_that_it_will_be_quicker(found: Model, child: Any) -> None:
    child(BUILDS)
    key = building.build_engine(found, 1, 1, OPTIONS).key
    (tensorrt.timing_folder(key) / "TensorrtExecutionProvider_cache_sm90.timing").touch()
    shown: list[str] = []
    building.build_engine(found, 2, 1, OPTIONS, progress=lambda phase, _: shown.append(phase))
    assert shown[0] == "building the engine with kernel times of an earlier one"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"batch": 0}, "between 1 and 16384, not 0"),
        ({"batch": 20_000}, "between 1 and 16384"),
        ({"hops": 3}, "1, 2, 4, 8, 16 hops per step, not 3"),
    ],
)
def test_numbers_out_of_range(found: Model, arguments: dict[str, int], sentence: str) -> None:
    with pytest.raises(ArgumentError, match=sentence):
        building.build_engine(found, **{"batch": 1, "hops": 1, **arguments}, options=OPTIONS)


def test_replicate_has_no_engine() -> None:
    with pytest.raises(ModelError, match="is no network"):
        building.build_engine(find_model("replicate"), 1, 1, OPTIONS)


def test_int8_has_no_engine(write_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "key_of_this_machine", lambda *_: pytest.fail("it begins"))
    model = find_model(write_model(precision="int8"))
    with pytest.raises(ModelError, match=r"is int8, .* CPU only; .*for a TensorRT engine take its"):
        building.build_engine(model, 1, 1, OPTIONS)


def test_the_command_builds_what_was_asked_for(
    found: Model, child: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    child('assert order["device"] == 1 and order["hops"] == 2; ' + BUILDS)
    options = ["--model", str(found.path), "--batch", "4", "--hops", "2"]
    export("--engine", "tensorrt:device=1:fp16=on", *options)
    said = capsys.readouterr()
    assert "captured as a CUDA graph" in said.out
    assert "batch 4, 2 hops per step: building the engine" in said.err
    [manifest] = Path(said.out.partition(": built")[0]).glob("manifest.json")
    key = json.loads(manifest.read_text())["key"]
    assert (key["batch"], key["hops"], key["fp16"]) == (4, 2, True)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Say what to export: .* or --engine tensorrt"),
        (["--engine", "cuda"], "Engines are built for provider 'tensorrt', not for 'cuda'"),
        (["--engine", "rocket"], "'rocket' is unknown"),
        (["--engine", "tensorrt", "--model", "nowhere.onnx"], "does not exist"),
    ],
)
def test_the_command_refuses(arguments: list[str], sentence: str) -> None:
    with pytest.raises(RtsrError, match=sentence):
        export(*arguments)


def test_without_tensorrt_the_command_says_what_is_missing(stand_in: Path) -> None:
    from rtsr.runtime.providers import select as providers

    if "tensorrt" in providers.available(providers.load_onnxruntime()):
        pytest.skip("TensorRT is in this ONNX Runtime")
    with pytest.raises(ProviderError, match=r"not in the installed ONNX Runtime; present: .*cpu"):
        export("--engine", "tensorrt", "--model", str(stand_in))
