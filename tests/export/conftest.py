"""What tests of graphs and of Triton share: sessions, the schema, the example's client."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from example_run import load_example, load_script


@pytest.fixture(scope="session")
def schema() -> ModuleType:
    """``model_config.proto`` as published with tritonclient, without its gRPC client."""
    pytest.importorskip("google.protobuf")
    package = importlib.util.find_spec("tritonclient")
    if package is None or not package.submodule_search_locations:
        pytest.skip("tritonclient, which brings the schema, is not installed")
    folder = Path(next(iter(package.submodule_search_locations)))
    return load_script(folder / "grpc" / "model_config_pb2.py")


@pytest.fixture(scope="session")
def client() -> ModuleType:
    """The example."""
    return load_example("triton_client")


@pytest.fixture(scope="session")
def open_graph() -> Callable[..., Any]:
    """Opens a graph in memory for three streams as the run-time does.

    ``path`` is where to write what ONNX Runtime has made of it; ``fixed`` goes on to the options.
    """
    import onnxruntime

    from rtsr.runtime.providers.open_session import SessionShape, session_options

    def open_it(model: Any, hops: int, path: str = "", **fixed: bool) -> Any:
        options = session_options(onnxruntime, SessionShape(batch=3, hops=hops), **fixed)
        if path:
            options.optimized_model_filepath = path
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    return open_it
