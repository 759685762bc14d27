"""Any other ONNX upsampler under the same protocol: declare its inputs, and it is timed.

A declaration is ``NAME:SHAPE`` with sizes joined by ``x``; the size ``N`` is the number of
streams. ``NAME:SHAPE=VALUE`` fills the input with a constant, ``NAME:=VALUE`` is a scalar. Inputs
that are not declared take the shape that the file gives them and are zero. A pair ``INPUT=OUTPUT``
carries a state from one call to the next, without leaving the device.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rtsr.errors import ArgumentError, ModelError, ProviderError
from rtsr.runtime.providers import select as providers
from rtsr.runtime.providers.open_session import one_reason
from rtsr_bench.speed.matrix import EXTERNAL, Case
from rtsr_bench.speed.workload import Blocks, Workload

STREAMS = "N"
_AS_IN_FILE = "as is"
_NUMPY_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


@dataclass(frozen=True)
class Declaration:
    """What the user says about an external file.

    Attributes:
        inputs: sizes by input; ``-1`` stands for the number of streams.
        values: constants by input; an input without one is fed noise.
        outputs: outputs that are wanted in host memory; all but the states if empty.
        states: output by the input that it becomes in the next call.
    """

    inputs: dict[str, list[int]] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    states: dict[str, str] = field(default_factory=dict)

    @property
    def takes_streams(self) -> bool:
        """Whether a shape contains ``N``."""
        return any(-1 in shape for shape in self.inputs.values())


def parse_declaration(
    inputs: Sequence[str], outputs: Sequence[str] = (), states: Sequence[str] = ()
) -> Declaration:
    """Read the texts of the command line.

    Raises:
        ArgumentError: one of them is not of the accepted form.
    """
    shapes: dict[str, list[int]] = {}
    values: dict[str, float] = {}
    for text in inputs:
        # the last colon: names of inputs may hold some
        match = re.fullmatch(r"(.+):([0-9xN]*)(?:=([-+.0-9e]+))?", text)
        sizes = match[2].split("x") if match and match[2] else []
        if match is None or not all(size == STREAMS or size.isdigit() for size in sizes):
            raise ArgumentError(
                f"Input {text!r} is not declared as NAME:SHAPE, like audio:1x1x480, "
                "audio:Nx1x480 or rate:=16000."
            )
        shapes[match[1]] = [-1 if size == STREAMS else int(size) for size in sizes]
        if match[3] is not None:
            try:
                values[match[1]] = float(match[3])
            except ValueError:
                raise ArgumentError(f"Input {text!r}: {match[3]!r} is not a number.") from None
    pairs: dict[str, str] = {}
    for text in states:
        before, separator, after = text.partition("=")
        if not (before and separator and after):
            raise ArgumentError(f"State {text!r} is not declared as INPUT=OUTPUT.")
        pairs[before] = after
    return Declaration(shapes, values, list(outputs), pairs)


def external_cases(
    file: Path,
    declaration: Declaration,
    chosen_providers: Sequence[str],
    streams: Sequence[int],
    threads: int,
    period_ms: float,
) -> list[Case]:
    """Cases of an external file; several streams only if its declaration has room for them.

    Raises:
        ArgumentError: the period is not a length of time.
    """
    if not 0.1 <= period_ms <= 60_000.0:
        raise ArgumentError(
            f"One call must take in 0.1 to 60000 ms of sound, not {period_ms:g} (--against-ms)."
        )
    source = {"file": str(file.resolve()), "declaration": asdict(declaration)}
    return [
        Case(
            EXTERNAL, file.stem, name, _AS_IN_FILE, 1, count, threads, period_ms, source=source
        )
        for name in chosen_providers
        for count in (streams if declaration.takes_streams else [1])
    ]  # fmt: skip


class ExternalStep(Workload):
    """An external graph with its inputs bound, its states carried and its outputs fetched.

    Raises:
        ModelError: the file is missing, is no ONNX model, or is not what was declared.
        ProviderError: the provider did not start.
    """

    def __init__(self, case: Case) -> None:
        self._file = Path(case.source["file"])
        declared = Declaration(**case.source["declaration"])
        onnxruntime = providers.load_onnxruntime()
        self.provider = case.provider
        name, options = providers.parse_provider(case.provider)
        self._device, self._device_id = ("cpu" if name == providers.CPU else "cuda"), options.device
        self._session = _open(onnxruntime, self._file, case.provider, case.threads)
        inputs = {value.name: value for value in self._session.get_inputs()}
        outputs = {value.name: value for value in self._session.get_outputs()}
        self._check_names(declared, inputs, outputs)
        self._states = declared.states
        self._wanted = declared.outputs or [
            name for name in outputs if name not in declared.states.values()
        ]
        self._binding = self._session.io_binding()
        self._noises: list[tuple[Blocks, np.dtype[Any], Any, np.ndarray]] = []
        # On the CPU what is bound lies in these arrays, and ONNX Runtime does not keep them.
        self._bound: list[np.ndarray] = []
        for name, value in inputs.items():
            self._bind_input(onnxruntime, name, value, declared, case.streams)
        self._order = [*self._wanted, *self._states.values()]
        for name in self._wanted:
            self._binding.bind_output(name, "cpu")

    def step(self) -> list[np.ndarray]:
        """Noise from host memory in, the wanted outputs in host memory out."""
        binding = self._binding
        for blocks, dtype, bound, array in self._noises:
            np.copyto(array, blocks.next().astype(dtype, copy=False))
            if self._device != "cpu":
                bound.update_inplace(array)
        for name in self._states.values():
            # Binding it anew takes new memory: the old is an input of this very call.
            binding.bind_output(name, self._device, self._device_id)
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # its errors have no common base but Exception
            raise ModelError(
                f"'{self._file.name}' does not run with the declared shapes ({one_reason(error)})."
            ) from None
        values = dict(zip(self._order, binding.get_outputs(), strict=True))
        for before, after in self._states.items():
            binding.bind_ortvalue_input(before, values[after])
        return [values[name].numpy() for name in self._wanted]

    def _check_names(
        self, declared: Declaration, inputs: dict[str, Any], outputs: dict[str, Any]
    ) -> None:
        for kind, present, names in (
            ("input", inputs, [*declared.inputs, *declared.states]),
            ("output", outputs, [*declared.outputs, *declared.states.values()]),
        ):
            for name in names:
                if name not in present:
                    raise ModelError(
                        f"'{self._file.name}' has no {kind} {name!r}; it has {_described(present)}."
                    )

    def _bind_input(
        self, onnxruntime: Any, name: str, value: Any, declared: Declaration, streams: int
    ) -> None:
        shape = self._shape_of(name, value, declared, streams)
        dtype = np.dtype(_NUMPY_TYPES.get(value.type, np.float32))
        array = np.full(shape, declared.values.get(name, 0.0), dtype)
        self._bound.append(array)
        bound = onnxruntime.OrtValue.ortvalue_from_numpy(array, self._device, self._device_id)
        self._binding.bind_ortvalue_input(name, bound)
        is_signal = name in declared.inputs and name not in {*declared.values, *declared.states}
        if is_signal and np.issubdtype(dtype, np.floating):
            self._noises.append((Blocks(*shape), dtype, bound, array))

    def _shape_of(
        self, name: str, value: Any, declared: Declaration, streams: int
    ) -> tuple[int, ...]:
        if name in declared.inputs:
            return tuple(streams if size == -1 else size for size in declared.inputs[name])
        if not all(isinstance(size, int) for size in value.shape):
            raise ModelError(
                f"Input {name!r} of '{self._file.name}' has no fixed shape; declare it with "
                f"--against-input (the file has {_described({name: value})})."
            )
        return tuple(value.shape)


def _open(onnxruntime: Any, file: Path, provider: str, threads: int) -> Any:
    if not file.is_file():
        raise ModelError(f"Model file '{file.name}' does not exist.")
    name, chosen = providers.parse_provider(provider)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            str(file),
            options,
            providers=providers.onnx_providers(name, chosen),
            enable_fallback=0,
        )
    except Exception as error:  # its errors have no common base but Exception
        raise ModelError(
            f"ONNX Runtime cannot load '{file.name}' with provider {provider!r} "
            f"({one_reason(error)})."
        ) from None
    if not providers.started(session, name):
        raise ProviderError(
            f"Provider {provider!r} is installed but did not start on this machine; "
            "use provider 'cpu'."
        )
    return session


def _described(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{name}:{'x'.join(str(size or '?') for size in value.shape)}"
        for name, value in values.items()
    )
