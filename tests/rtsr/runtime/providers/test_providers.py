"""Providers: how they are asked for, what they are told, and what is said when one is not there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rtsr.errors import ProviderError
from rtsr.runtime.providers import libraries as provider_libraries
from rtsr.runtime.providers import select as providers
from rtsr.runtime.providers.options import ProviderOptions, parse_provider
from rtsr.runtime.session import OnnxStep

ProviderFile = Callable[..., ModuleType]
linux_only = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="library names are those of Linux"
)


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("auto", "auto", ProviderOptions()),
        ("cpu", "cpu", ProviderOptions()),
        ("cuda:device=1", "cuda", ProviderOptions(device=1)),
        ("cuda:graph=off:tf32=on", "cuda", ProviderOptions(graph=False, tf32=True)),
        ("cuda:graph=auto:search=exhaustive", "cuda", ProviderOptions(search="exhaustive")),
        ("auto:graph=on", "auto", ProviderOptions(graph=True)),
        ("tensorrt:fp16=on:device=2", "tensorrt", ProviderOptions(device=2, fp16=True)),
    ],
)
def test_a_provider_and_its_options(text: str, name: str, options: ProviderOptions) -> None:
    assert parse_provider(text) == (name, options)
    assert parse_provider(options.text(name)) == (name, options)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("rocket", r"'rocket' is unknown; choose one of auto, cpu, cuda, tensorrt"),
        ("", "'' is unknown"),
        ("cuda:turbo=on", r"'turbo=on' is unknown; provider 'cuda' takes device, graph"),
        ("cuda:graph", r"'graph' is unknown.*OPTION=VALUE"),
        ("cuda:", "'' is unknown"),
        ("cuda:device=-1", "'device' takes the index of a GPU"),
        ("cuda:device=first", "'device' takes the index of a GPU"),
        ("cuda:tf32=maybe", "'tf32' takes on or off, not 'maybe'"),
        ("cuda:graph=maybe", "'graph' takes on, off or auto"),
        ("cuda:search=best", "'search' takes heuristic, exhaustive, default"),
        ("cuda:fp16=on", "no option 'fp16': it computes in the precision of the file"),
        ("auto:fp16=on", "write tensorrt:fp16=on"),
        ("tensorrt:tf32=off", "TensorRT decides that itself"),
        ("tensorrt:search=default", "times every kernel"),
        ("cpu:device=0", "'cpu' has no option 'device': it takes none"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(ProviderError, match=sentence):
        parse_provider(text)


def test_the_cpu_is_told_nothing() -> None:
    assert providers.onnx_providers("cpu") == ["CPUExecutionProvider"]


def test_cuda_is_told_everything_that_was_asked_for() -> None:
    options = ProviderOptions(device=1, search="exhaustive", tf32=True)
    [(name, told)] = providers.onnx_providers("cuda", options, stream=4711, graph=True)
    assert name == "CUDAExecutionProvider"
    assert told == {
        "device_id": "1",
        "user_compute_stream": "4711",
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "use_tf32": "1",
        "arena_extend_strategy": "kSameAsRequested",
        "enable_cuda_graph": "1",
    }


def test_cuda_left_alone_is_exact_and_captures_nothing() -> None:
    [(_, told)] = providers.onnx_providers("cuda")
    assert told["use_tf32"] == told["enable_cuda_graph"] == told["device_id"] == "0"
    assert told["cudnn_conv_algo_search"] == "HEURISTIC"
    assert "user_compute_stream" not in told


def test_switches_of_tensorrt_are_words() -> None:
    engine = {"trt_engine_cache_enable": "False"}
    (name, told), (second, cuda) = providers.onnx_providers(
        "tensorrt", ProviderOptions(device=1), stream=4711, graph=True, engine=engine
    )
    assert (name, second) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    # its Python interface refuses "1", and a has_user_compute_stream of its own
    assert told == {
        "device_id": "1",
        "user_compute_stream": "4711",
        "trt_engine_cache_enable": "False",
        "trt_cuda_graph_enable": "True",
    }
    assert cuda["user_compute_stream"] == "4711"
    assert "enable_cuda_graph" not in cuda


@pytest.mark.parametrize(
    ("installed", "sentence"),
    [
        (["onnxruntime 1.31.1"], "pip uninstall onnxruntime, then pip install"),
        (["onnxruntime-gpu 1.31.1"], r'for a GPU: pip install "rtsr\[gpu\]"'),
        (["onnxruntime 1.31.1", "onnxruntime-gpu 1.31.0"], "are both installed and overwrite"),
    ],
)
def test_an_absent_provider_is_answered_with_what_helps(
    installed: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime: Any = ModuleType("onnxruntime")
    runtime.get_available_providers = lambda: ["CPUExecutionProvider"]
    monkeypatch.setattr(providers, "installed_distributions", lambda: installed)
    with pytest.raises(ProviderError, match=rf"present: cpu .*{sentence}"):
        providers.candidates("cuda", runtime)


@linux_only
def test_missing_libraries_are_all_named(
    provider_file: ProviderFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = provider_file("cuda", "libcublasLt.so.913", "libcurand.so.910", "libcudart.so.913")
    monkeypatch.setitem(provider_libraries._OPENED_LATER, "cuda", ())
    with pytest.raises(ProviderError) as caught:
        provider_libraries.require_libraries(runtime, "cuda")
    assert str(caught.value) == (
        "Provider 'cuda' of ONNX Runtime 1.31.1 lacks libcublasLt.so.913, libcudart.so.913, "
        'libcurand.so.910; install with pip install "onnxruntime-gpu[cuda,cudnn]==1.31.1", '
        "or use provider 'cpu'."
    )


@linux_only
def test_missing_tensorrt_is_named_by_its_version(
    provider_file: ProviderFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = provider_file("tensorrt", "libnvinfer.so.910", "libnvonnxparser.so.910")
    with pytest.raises(ProviderError, match=r'pip install "tensorrt-cu13==910\.\*", or use'):
        provider_libraries.require_libraries(runtime, "tensorrt")


@linux_only
def test_a_missing_driver_is_not_a_matter_of_pip(provider_file: ProviderFile) -> None:
    runtime = provider_file("cuda", "libcuda.so.911", "libcublas.so.913")
    with pytest.raises(ProviderError, match="there is no driver") as caught:
        provider_libraries.require_libraries(runtime, "cuda")
    assert "pip" not in str(caught.value)


@linux_only
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_libraries_are_found_in_every_folder_of_packages(
    provider_file: ProviderFile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two folders have parts of ``nvidia``, and the library in one needs that in the other."""
    monkeypatch.setitem(provider_libraries._OPENED_LATER, "cuda", ())
    first = _library(tmp_path / "one" / "nvidia" / "cublas" / "lib", "libcublas.so.914", [])
    _library(tmp_path / "two" / "nvidia" / "cu13" / "lib", "libcublasLt.so.914", [first])
    runtime = provider_file("cuda", "libcublas.so.914", "libcublasLt.so.914")
    with pytest.raises(ProviderError, match=r"lacks libcublas\.so\.914, libcublasLt\.so\.914"):
        provider_libraries.require_libraries(runtime, "cuda")
    for folder in ("one", "two"):
        monkeypatch.syspath_prepend(str(tmp_path / folder))
    provider_libraries.require_libraries(runtime, "cuda")


def _library(folder: Path, name: str, needs: list[Path]) -> Path:
    folder.mkdir(parents=True)
    source = folder / "empty.c"
    source.write_text("static int nothing;\n")
    command = ["cc", "-shared", "-fPIC", "-w", str(source), "-Wl,--no-as-needed"]
    subprocess.run(
        [*command, *map(str, needs), f"-Wl,-soname,{name}", "-o", str(folder / name)], check=True
    )
    return folder / name


@linux_only
def test_libraries_that_are_there_are_no_obstacle(
    provider_file: ProviderFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(provider_libraries._OPENED_LATER, "cuda", ())
    runtime = provider_file("cuda")
    provider_libraries.require_libraries(runtime, "cuda")
    assert provider_libraries.missing_libraries(runtime, "cuda") == []


def test_loading_libraries_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    runtime: Any = ModuleType("onnxruntime")

    def preload_dlls(**_: Any) -> None:
        print("Failed to load libcublasLt.so.13")
        raise RuntimeError("and this is no reason to stop")

    runtime.preload_dlls = preload_dlls
    provider_libraries.preload(runtime, "cuda")
    assert capsys.readouterr().out == ""


def test_a_driver_that_is_too_old_is_refused(provider_file: ProviderFile) -> None:
    runtime = provider_file("cuda")
    provider_libraries.require_driver_for(runtime, "cuda", (13, 0))
    provider_libraries.require_driver_for(runtime, "cuda", (14, 2))
    with pytest.raises(ProviderError, match=r"built for CUDA 13.*runs CUDA 12\.4 at most"):
        provider_libraries.require_driver_for(runtime, "cuda", (12, 4))


def test_replicate_takes_options_of_auto_only() -> None:
    from rtsr.engine.replicate import ReplicateSource

    ReplicateSource(1, 0, 1, provider="auto:graph=off")
    with pytest.raises(ProviderError, match="runs on the CPU"):
        ReplicateSource(1, 0, 1, provider="cuda:graph=off")


def test_options_are_checked_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "load_onnxruntime", lambda: pytest.fail("loaded"))
    with pytest.raises(ProviderError, match="takes on or off"):
        OnnxStep("small", provider="cuda:tf32=yes")
