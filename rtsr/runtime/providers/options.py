"""How a provider is asked for: its name, and what may follow it.

A provider is named wherever one is accepted, in Python and on the command line, as
``NAME[:OPTION=VALUE]...``: ``cuda``, ``cuda:device=1:tf32=on``, ``tensorrt:fp16=on``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from rtsr.errors import ProviderError

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

CONV_SEARCHES = ("heuristic", "exhaustive", "default")
_SWITCH = {"on": True, "off": False}
# What each provider can do with an option; the rest is refused, since it would have no effect.
_ACCEPTED = {
    AUTO: ("device", "graph", "search", "tf32"),
    CPU: (),
    CUDA: ("device", "graph", "search", "tf32"),
    TENSORRT: ("device", "graph", "fp16"),
}
_INSTEAD = {
    (CUDA, "fp16"): "it computes in the precision of the file, so name a model that is in fp16",
    (AUTO, "fp16"): "only tensorrt converts a model, so write tensorrt:fp16=on",
    (TENSORRT, "tf32"): "TensorRT decides that itself (NVIDIA_TF32_OVERRIDE=0 forbids it)",
    (TENSORRT, "search"): "TensorRT times every kernel when its engine is built",
}


@dataclass(frozen=True)
class ProviderOptions:
    """What a GPU's provider is told beside the model.

    Attributes:
        device: index of the GPU, among those that ``CUDA_VISIBLE_DEVICES`` shows.
        graph: capture a step as a CUDA graph and replay it, which saves launching hundreds of
            kernels one by one; ``None`` does so where the model allows it.
        search: how cuDNN picks its convolutions: ``heuristic`` asks its tables, ``exhaustive``
            times all of them at the first step, ``default`` takes one that always works.
        tf32: let matrix products round their factors to 10 bits of mantissa (CUDA). Off, since a
            stream would then depend in its third digit on the batch that it shares.
        fp16: build the engine with half-precision kernels (TensorRT).
    """

    device: int = 0
    graph: bool | None = None
    search: str = CONV_SEARCHES[0]
    tf32: bool = False
    fp16: bool = False

    def text(self, provider: str) -> str:
        """``NAME:OPTION=VALUE:...`` as :func:`parse_provider` reads it; defaults are left out."""
        words = {True: "on", False: "off"}
        given = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                written = words[value] if isinstance(value, bool) else value
                given.append(f"{field.name}={written}")
        return ":".join([provider, *given])


def parse_provider(text: str) -> tuple[str, ProviderOptions]:
    """Split ``NAME[:OPTION=VALUE]...``.

    Raises:
        ProviderError: the name or an option is unknown, a value is not accepted, or the provider
            can do nothing with the option.
    """
    name, *parts = str(text).split(":")
    if name not in CHOICES:
        raise ProviderError(f"Provider {name!r} is unknown; choose one of {', '.join(CHOICES)}.")
    values: dict[str, int | str | bool | None] = {}
    for part in parts:
        option, equals, value = part.partition("=")
        if not equals or option not in {field.name for field in fields(ProviderOptions)}:
            known = ", ".join(_ACCEPTED[name]) or "none"
            raise ProviderError(
                f"Provider option {part!r} is unknown; provider {name!r} takes {known}, "
                "written as OPTION=VALUE."
            )
        values[option] = _value(option, value)
        if option not in _ACCEPTED[name]:
            reason = _INSTEAD.get(
                (name, option), f"it takes {', '.join(_ACCEPTED[name]) or 'none'}"
            )
            raise ProviderError(f"Provider {name!r} has no option {option!r}: {reason}.")
    return name, ProviderOptions(**values)  # type: ignore[arg-type]


def _value(option: str, value: str) -> int | str | bool | None:
    if option == "device":
        if value.isdecimal():
            return int(value)
        accepted = "the index of a GPU, such as 0"
    elif option == "search":
        if value in CONV_SEARCHES:
            return value
        accepted = ", ".join(CONV_SEARCHES)
    elif option == "graph" and value == "auto":
        return None
    elif value in _SWITCH:
        return _SWITCH[value]
    else:
        accepted = "on, off or auto" if option == "graph" else "on or off"
    raise ProviderError(f"Provider option {option!r} takes {accepted}, not {value!r}.")
