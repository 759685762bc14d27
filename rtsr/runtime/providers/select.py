"""Execution providers: which ONNX Runtime is installed, what it offers, and an honest choice.

ONNX Runtime falls back to the CPU without a word when a provider does not start. rtsr refuses:
the provider a session reports is the one it runs on.
"""

from __future__ import annotations

import importlib.util
import os
from types import ModuleType
from typing import Any

from rtsr.errors import MissingDependencyError, ProviderError
from rtsr.runtime.providers.libraries import installed_distributions
from rtsr.runtime.providers.options import (
    AUTO,
    CHOICES,
    CPU,
    CUDA,
    ONNX_NAMES,
    TENSORRT,
    ProviderOptions,
    parse_provider,
)

__all__ = [
    "AUTO",
    "CHOICES",
    "CPU",
    "CUDA",
    "ONNX_NAMES",
    "TENSORRT",
    "ProviderOptions",
    "available",
    "candidates",
    "load_onnxruntime",
    "onnx_providers",
    "parse_provider",
    "started",
]


def load_onnxruntime() -> ModuleType:
    """Import ONNX Runtime, which comes from one of two distributions, or say how to get it.

    Its telemetry looks up a host and keeps files in the user's cache. It is off here unless
    ``ORT_DISABLE_TELEMETRY`` says otherwise, which ONNX Runtime reads while it is imported.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        if _was_interrupted(error):
            raise KeyboardInterrupt from None
        if _is_absent("onnxruntime"):
            raise MissingDependencyError("Running a model", ("cpu", "gpu")) from None
        raise ProviderError(
            f"ONNX Runtime is installed but cannot be loaded ({_one_line(error)}); reinstall it."
        ) from None
    if not hasattr(onnxruntime, "InferenceSession"):
        # what is left of the package when one of its two distributions was uninstalled over the
        # other: an importable, empty namespace
        raise MissingDependencyError("Running a model", ("cpu", "gpu"))
    return onnxruntime


def _was_interrupted(error: BaseException) -> bool:
    """Whether Ctrl-C is behind it: extension modules pass that on as a failed import."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, KeyboardInterrupt):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _is_absent(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is None
    except ValueError:  # in sys.modules, but without a place that it came from
        return True


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


def available(onnxruntime: ModuleType) -> list[str]:
    """Names, as rtsr spells them, of the providers in the installed ONNX Runtime."""
    present = set(onnxruntime.get_available_providers())
    return [name for name, onnx_name in ONNX_NAMES.items() if onnx_name in present]


def candidates(provider: str, onnxruntime: ModuleType) -> list[str]:
    """List the providers to try, best first. Only ``auto`` has more than one.

    Raises:
        ProviderError: the name is unknown, or the installed ONNX Runtime does not have it.
    """
    present = available(onnxruntime)
    if provider == AUTO:
        # TensorRT's engine must have been built before, so nobody gets it without asking for it.
        return [name for name in (CUDA, CPU) if name in present]
    if provider not in ONNX_NAMES:
        raise ProviderError(
            f"Provider {provider!r} is unknown; choose one of {', '.join(CHOICES)}."
        )
    if provider not in present:
        raise ProviderError(
            f"Provider {provider!r} is not in the installed ONNX Runtime; "
            f"present: {', '.join(present)}{_how_to_get(provider)}."
        )
    return [provider]


def _how_to_get(provider: str) -> str:
    if provider == CPU:
        return ""
    installed = installed_distributions()
    if len(installed) > 1:
        # Both write the same folder: what is imported is a mixture of the two.
        return (
            f" ({' and '.join(installed)} are both installed and overwrite each other: "
            'pip uninstall them all, then pip install "rtsr[gpu]")'
        )
    if installed and installed[0].startswith("onnxruntime "):
        return ' (for a GPU: pip uninstall onnxruntime, then pip install "rtsr[gpu]")'
    return ' (for a GPU: pip install "rtsr[gpu]")'


def onnx_providers(
    provider: str,
    options: ProviderOptions | None = None,
    *,
    stream: int = 0,
    graph: bool = False,
    engine: dict[str, str] | None = None,
) -> list[Any]:
    """Return the list that ``InferenceSession`` takes for one of our provider names.

    Options of the providers are described at
    https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html and
    https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html.

    Args:
        provider: ``cpu``, ``cuda`` or ``tensorrt``.
        options: what the user asked for.
        stream: handle of the CUDA stream to work on; 0 leaves it to ONNX Runtime to make one.
        graph: capture the step as a CUDA graph.
        engine: more options of TensorRT: where an engine is written to, or its precision.
    """
    if provider == CPU:
        return [ONNX_NAMES[CPU]]
    options = options or ProviderOptions()
    common = {"device_id": str(options.device)}
    if stream:
        common["user_compute_stream"] = str(stream)
    cuda = {
        **common,
        "cudnn_conv_algo_search": options.search.upper(),
        "use_tf32": _flag(options.tf32),
        # Shapes never change, so doubling the arena each time it grows would only waste memory.
        "arena_extend_strategy": "kSameAsRequested",
    }
    if provider == CUDA:
        return [(ONNX_NAMES[CUDA], {**cuda, "enable_cuda_graph": _flag(graph)})]
    # In Python this provider's switches are spelt differently from all others'.
    tensorrt = {**common, **(engine or {}), "trt_cuda_graph_enable": str(graph)}
    return [(ONNX_NAMES[TENSORRT], tensorrt), (ONNX_NAMES[CUDA], cuda)]


def started(session: Any, provider: str) -> bool:
    """Whether the session really runs on the provider, not on a silent fall-back."""
    return ONNX_NAMES[provider] in session.get_providers()


def _flag(value: bool) -> str:
    return "1" if value else "0"
