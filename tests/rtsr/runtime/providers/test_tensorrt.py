"""Engines of TensorRT: which one fits, and what is said when none does."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from rtsr.errors import ProviderError
from rtsr.runtime.models import Model, find_model
from rtsr.runtime.providers import cache as user_cache
from rtsr.runtime.providers import tensorrt
from rtsr.runtime.providers.cuda_driver import Gpu
from rtsr.runtime.providers.options import ProviderOptions
from rtsr.runtime.providers.tensorrt import EngineKey
from rtsr.runtime.session import OnnxStep
from rtsr_export.step_parity import measure_graph_parity

OPTIONS = ProviderOptions()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(user_cache.OVERRIDE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def found(stand_in: Path) -> Model:
    return find_model(stand_in)


@pytest.fixture
def key(found: Model) -> EngineKey:
    return EngineKey(
        gpu="NVIDIA H200",
        compute_capability="9.0",
        driver="580.95.05",
        tensorrt="10.13.3",
        onnxruntime="1.31.1",
        model=tensorrt.file_sha256(found.path),
        batch=1,
        hops=1,
        fp16=False,
    )


def _keep(found: Model, key: EngineKey) -> Path:
    """An "engine" in the cache: the graph itself."""
    folder = tensorrt.engine_folder(found, key)
    folder.mkdir(parents=True)
    shutil.copyfile(found.path, folder / tensorrt.ENGINE_FILE)
    tensorrt.write_manifest(folder, key, {"model_name": found.name})
    return folder


def test_an_engine_that_fits_is_found(cache: Path, found: Model, key: EngineKey) -> None:
    folder = _keep(found, key)
    assert folder.is_relative_to(cache)
    assert tensorrt.find_engine(found, key, OPTIONS) == folder / "engine.onnx"


def test_every_part_of_the_key_tells_engines_apart(key: EngineKey) -> None:
    others: dict[str, Any] = {
        "gpu": "NVIDIA A100", "compute_capability": "8.0", "driver": "570.1", "tensorrt": "10.9.0",
        "onnxruntime": "1.30.0", "model": "0" * 64, "batch": 2, "hops": 4, "fp16": True,
        "format": 2,
    }  # fmt: skip
    assert set(others) == {field.name for field in dataclasses.fields(EngineKey)}
    digests = {dataclasses.replace(key, **{name: value}).digest for name, value in others.items()}
    assert len(digests | {key.digest}) == len(others) + 1
    assert all(len(digest) == 16 for digest in digests)


def test_kernel_times_are_shared_by_models_but_not_by_gpus(key: EngineKey) -> None:
    same = dataclasses.replace(key, model="0" * 64, batch=64, hops=4, fp16=True)
    assert same.timing_digest == key.timing_digest
    for name in ("gpu", "driver", "tensorrt"):
        other = dataclasses.replace(key, **{name: "other"})
        assert other.timing_digest != key.timing_digest


def test_without_an_engine_the_command_is_named(cache: Path, found: Model, key: EngineKey) -> None:
    wanted = dataclasses.replace(key, batch=2, hops=4, fp16=True)
    with pytest.raises(ProviderError) as caught:
        tensorrt.find_engine(found, wanted, ProviderOptions(device=1, fp16=True))
    assert "(none was built)" in str(caught.value)
    assert "`rtsr export --engine tensorrt:device=1:fp16=on --model " in str(caught.value)
    assert " --batch 2 --hops 4`" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"gpu": "NVIDIA A100", "compute_capability": "8.0"},
         "it was built for NVIDIA A100, this is NVIDIA H200, for compute capability 8.0, not 9.0"),
        ({"driver": "570.1"}, "with driver 570.1, not 580.95.05"),
        ({"tensorrt": "10.9.0"}, "by TensorRT 10.9.0, not 10.13.3"),
        ({"onnxruntime": "1.30.0"}, "by ONNX Runtime 1.30.0, not 1.31.1"),
        ({"batch": 64}, "for a batch of 64, not 1"),
        ({"hops": 2}, "for 2 hops per step, not 1"),
        ({"fp16": True}, "with fp16 True, not False"),
    ],
)  # fmt: skip
def test_an_engine_from_elsewhere_is_refused_with_the_reason(
    cache: Path, found: Model, key: EngineKey, changes: dict[str, Any], reason: str
) -> None:
    foreign = dataclasses.replace(key, **changes)
    folder = _keep(found, foreign)
    with pytest.raises(ProviderError) as caught:
        tensorrt.find_engine(found, key, OPTIONS)
    assert reason in str(caught.value)
    # nor if somebody carries it to where ours would lie
    shutil.copytree(folder, tensorrt.engine_folder(found, key))
    with pytest.raises(ProviderError) as caught:
        tensorrt.find_engine(found, key, OPTIONS)
    assert reason in str(caught.value)


def test_the_nearest_engine_is_the_one_spoken_of(cache: Path, found: Model, key: EngineKey) -> None:
    _keep(found, dataclasses.replace(key, gpu="NVIDIA T4", compute_capability="7.5"))
    _keep(found, dataclasses.replace(key, driver="570.1"))
    with pytest.raises(ProviderError, match=r"\(with driver 570.1, not 580.95.05\)"):
        tensorrt.find_engine(found, key, OPTIONS)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "engine.onnx").write_bytes(b"half"), "is damaged"),
        (lambda folder: (folder / "engine.onnx").unlink(), "has lost its file"),
        (lambda folder: (folder / "manifest.json").unlink(), "no readable manifest"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "no readable manifest"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "no readable manifest"),
        (lambda folder: (folder / "manifest.json").write_text('{"key": {}}'), "no readable"),
    ],
    ids=["damaged", "lost", "no manifest", "half a manifest", "a list", "an empty key"],
)
def test_a_damaged_engine_is_refused(
    cache: Path, found: Model, key: EngineKey, damage: Any, reason: str
) -> None:
    damage(_keep(found, key))
    with pytest.raises(ProviderError, match=reason):
        tensorrt.find_engine(found, key, OPTIONS)


def test_a_changed_model_has_no_engine(cache: Path, write_model: Any, key: EngineKey) -> None:
    before = find_model(write_model())
    _keep(before, dataclasses.replace(key, model=tensorrt.file_sha256(before.path)))
    after = find_model(write_model(version="2"))
    changed = dataclasses.replace(key, model=tensorrt.file_sha256(after.path))
    with pytest.raises(ProviderError, match="none was built"):
        tensorrt.find_engine(after, changed, OPTIONS)


def test_start_up_loads_the_engine_and_builds_nothing(
    fake_gpu: Any, found: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt, "tensorrt_version", lambda runtime: "10.13.3")
    with pytest.raises(ProviderError, match="build it once with `rtsr export --engine tensorrt"):
        OnnxStep(found, provider="tensorrt")
    assert not fake_gpu.sessions, "nothing may be made before an engine is there"
    gpu = fake_gpu.streams[0].describe()
    key = tensorrt.engine_key(fake_gpu, found, gpu, 1, 1, OPTIONS)
    folder = _keep(found, key)
    step = OnnxStep(found, provider="tensorrt")
    assert (step.provider, step.cuda_graph) == ("tensorrt", True)
    # one graph per session, so each copy of the state has a session
    first, second = fake_gpu.sessions
    assert first.names == ["TensorrtExecutionProvider", "CUDAExecutionProvider"]
    assert first.options["trt_engine_cache_enable"] == "False"
    assert not any("dump" in name for name in first.options)
    fake_gpu.runs.clear()
    first.replays = second.replays = 0
    for _ in range(4):
        step.run()
    assert [session for session, _ in fake_gpu.runs] == [first, second, first, second]
    assert (first.replays, second.replays) == (2, 2)
    assert sorted(file.name for file in folder.iterdir()) == ["engine.onnx", "manifest.json"]
    assert measure_graph_parity(found, provider="tensorrt").worst == 0.0


def test_an_engine_of_a_part_of_the_graph_is_refused(
    fake_gpu: Any, found: Model, write_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt, "tensorrt_version", lambda runtime: "10.13.3")
    other = find_model(write_model(states={"other": [1, 1, 120]}))
    gpu = Gpu("NVIDIA H200", "9.0", "580.95.05", (13, 0))
    _keep(other, tensorrt.engine_key(fake_gpu, other, gpu, 1, 1, OPTIONS))
    with pytest.raises(ProviderError, match="TensorRT takes only parts of model"):
        OnnxStep(other, provider="tensorrt")


def test_the_manifest_is_readable_by_people(cache: Path, found: Model, key: EngineKey) -> None:
    manifest = json.loads((_keep(found, key) / "manifest.json").read_text())
    assert manifest["key"]["gpu"] == "NVIDIA H200"
    assert manifest["model_name"] == found.name


def test_an_unknown_version_of_tensorrt_is_refused() -> None:
    class Runtime:
        __file__ = "nowhere/__init__.py"

    with pytest.raises(ProviderError, match="version of TensorRT cannot be found out"):
        tensorrt.tensorrt_version(Runtime())  # type: ignore[arg-type]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="places of Linux")
def test_the_cache_lies_where_caches_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(user_cache.OVERRIDE, raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert user_cache.user_cache() == tmp_path / ".cache" / "rtsr"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert user_cache.user_cache() == tmp_path / ".cache" / "rtsr"
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/me")
    assert user_cache.user_cache() == Path("/var/cache/me/rtsr")
    monkeypatch.setenv(user_cache.OVERRIDE, "~/elsewhere")
    assert user_cache.user_cache() == tmp_path / "elsewhere"
