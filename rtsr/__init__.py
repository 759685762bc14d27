"""Real-time audio super-resolution: narrow-band blocks in, full-band blocks out, as a stream.

>>> import rtsr
>>> with rtsr.Upsampler(8000) as upsampler:          # doctest: +SKIP
...     wide = upsampler.process(block)              # any block length, float32 in [-1, 1]
...     rest = upsampler.flush()
>>> report = rtsr.enhance_file("call.wav", "call-48k.wav")   # doctest: +SKIP

The names below are loaded on first use, so that ``import rtsr`` costs nothing and needs neither
numba nor ONNX Runtime.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rtsr.errors import (
    ArgumentError,
    AudioFormatError,
    BatchFullError,
    MissingDependencyError,
    ModelError,
    ProviderError,
    RtsrError,
)

if TYPE_CHECKING:
    from rtsr.batch.stream import BatchStream
    from rtsr.batch.upsampler import BatchUpsampler
    from rtsr.colour.auto import AutoColour
    from rtsr.colour.colour import Colour, read_colour
    from rtsr.colour_learning import learn_colour
    from rtsr.files import EnhanceReport, enhance_file
    from rtsr.timing import Latency
    from rtsr.upsampler import Upsampler

__all__ = [
    "ArgumentError",
    "AudioFormatError",
    "AutoColour",
    "BatchFullError",
    "BatchStream",
    "BatchUpsampler",
    "Colour",
    "EnhanceReport",
    "Latency",
    "MissingDependencyError",
    "ModelError",
    "ProviderError",
    "RtsrError",
    "Upsampler",
    "enhance_file",
    "learn_colour",
    "read_colour",
]

_LAZY = {
    "AutoColour": "rtsr.colour.auto",
    "BatchStream": "rtsr.batch.stream",
    "BatchUpsampler": "rtsr.batch.upsampler",
    "Colour": "rtsr.colour.colour",
    "EnhanceReport": "rtsr.files",
    "enhance_file": "rtsr.files",
    "Latency": "rtsr.timing",
    "Upsampler": "rtsr.upsampler",
    "learn_colour": "rtsr.colour_learning",
    "read_colour": "rtsr.colour.colour",
}


def _installed_version() -> str:
    from importlib import metadata

    try:
        return metadata.version("rtsr")
    except metadata.PackageNotFoundError:  # run from a source tree that was never installed
        return "0.0.0+source"


def __getattr__(name: str) -> Any:
    if name == "__version__":
        globals()[name] = _installed_version()
        return globals()[name]
    if name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'rtsr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
