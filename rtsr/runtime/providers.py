"""Execution providers: which ONNX Runtime is installed, what it offers, and an honest choice.

ONNX Runtime falls back to the CPU without a word when a provider does not start. rtsr refuses:
the provider a session reports is the one it runs on.
"""

from __future__ import annotations

import importlib.util
from types import ModuleType
from typing import Any

from rtsr.errors import MissingDependencyError, ProviderError

AUTO = "auto"
CPU = "cpu"
CUDA = "cuda"
TENSORRT = "tensorrt"

ONNX_NAMES = {
    CPU: "CPUExecutionProvider",
    CUDA: "CUDAExecutionProvider",
    TENSORRT: "TensorrtExecutionProvider",
}
CHOICES = (AUTO, *ONNX_NAMES)


def load_onnxruntime() -> ModuleType:
    """Import ONNX Runtime, which comes from one of two distributions, or say how to get it."""
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
    """Providers to try, best first. Only ``auto`` has more than one.

    Raises:
        ProviderError: the name is unknown, or the installed ONNX Runtime does not have it.
    """
    present = available(onnxruntime)
    if provider == AUTO:
        # TensorRT builds an engine for minutes, so nobody gets it without asking for it.
        return [name for name in (CUDA, CPU) if name in present]
    if provider not in ONNX_NAMES:
        raise ProviderError(
            f"Provider {provider!r} is unknown; choose one of {', '.join(CHOICES)}."
        )
    if provider not in present:
        hint = ' (for a GPU: pip install "rtsr[gpu]")' if provider != CPU else ""
        raise ProviderError(
            f"Provider {provider!r} is not in the installed ONNX Runtime; "
            f"present: {', '.join(present)}{hint}."
        )
    return [provider]


def onnx_providers(provider: str) -> list[Any]:
    """The list that ``InferenceSession`` takes for one of our provider names."""
    if provider == CUDA:
        # Convolution search at the first step would make the first block slower than the rest.
        return [(ONNX_NAMES[CUDA], {"cudnn_conv_algo_search": "HEURISTIC"})]
    if provider == TENSORRT:
        return [ONNX_NAMES[TENSORRT], ONNX_NAMES[CUDA]]
    return [ONNX_NAMES[provider]]


def started(session: Any, provider: str) -> bool:
    """Whether the session really runs on the provider, not on a silent fall-back."""
    return ONNX_NAMES[provider] in session.get_providers()
