"""The process that TensorRT builds an engine in; started by :mod:`rtsr_export.tensorrt`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rtsr.errors import RtsrError
from rtsr.runtime.providers import libraries as provider_libraries
from rtsr.runtime.providers import select as providers
from rtsr.runtime.providers.open_session import SessionShape, create, session_options
from rtsr.runtime.providers.options import TENSORRT, ProviderOptions


def build(order: dict[str, object]) -> None:
    """Make a session once, which leaves the engine behind.

    Raises:
        ModelError, ProviderError: it cannot be made.
    """
    onnxruntime = providers.load_onnxruntime()
    provider_libraries.require_libraries(onnxruntime, TENSORRT)
    shape = SessionShape(batch=int(str(order["batch"])), hops=int(str(order["hops"])))
    listed = providers.onnx_providers(
        TENSORRT,
        ProviderOptions(device=int(str(order["device"]))),
        engine=dict(order["engine"]),  # type: ignore[call-overload]
    )
    create(
        onnxruntime,
        Path(str(order["model"])),
        session_options(onnxruntime, shape),
        TENSORRT,
        listed,
    )


if __name__ == "__main__":
    try:
        build(json.loads(sys.argv[1]))
    except RtsrError as error:
        print(error)
        sys.exit(1)
