"""One session of one graph with its state: call it once per step, everything is in place.

The state is kept twice. Two prepared bindings read one copy and write the other, so a step is a
run and a swap: nothing is allocated, copied or looked up by name.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsr.errors import ModelError, ProviderError
from rtsr.runtime import providers
from rtsr.runtime.metadata import HOP
from rtsr.runtime.models import Model, find_model

SIGNALS = ("audio", "noise", "f_prior", "f_target")
HIGH_BAND = "high_band"
HOPS_PER_STEP = (1, 2, 4)

Audio = NDArray[np.float32]


class OnnxStep:
    """A graph at one static shape, with its recurrent state.

    Fill the arrays :attr:`audio`, :attr:`noise`, :attr:`f_prior` and :attr:`f_target` in place,
    call :meth:`run`, read :attr:`high_band`; or pass them to :meth:`step`, which copies.

    Args:
        model: a :class:`~rtsr.runtime.models.Model`, the name of a bundled one, or a path.
        provider: ``auto``, ``cpu``, ``cuda`` or ``tensorrt``.
        batch: channels of audio; each is one item of the graph's batch.
        hops_per_step: hops of 480 samples that one step takes: 1, 2 or 4.
        threads: threads within one step, for the CPU provider.

    Attributes:
        audio: float32 ``(batch, 1, 480 * hops)``, band-limited input at 48 kHz.
        noise: float32 ``(batch, noise_channels, hops)``, standard normal.
        f_prior: float32 ``(batch, 1, hops)``, Hz where the input's content ends.
        f_target: float32 ``(batch, 1, hops)``, Hz where the output should end.
        high_band: float32 ``(batch, 1, 480 * hops)``, the generated content of the last step.
        provider: the provider the session really runs on.

    Raises:
        ModelError: the model is not one of rtsr's, or its graph contradicts its metadata.
        ProviderError: the provider is absent or did not start.
        MissingDependencyError: ONNX Runtime is not installed.
    """

    def __init__(
        self,
        model: Model | str | Path,
        *,
        provider: str = providers.AUTO,
        batch: int = 1,
        hops_per_step: int = 1,
        threads: int = 1,
    ) -> None:
        self.model = model if isinstance(model, Model) else find_model(model)
        self.metadata = self.model.metadata
        if not self.model.is_network:
            raise ModelError(
                f"Model '{self.model.name}' is no network; use it through rtsr.Upsampler."
            )
        onnxruntime = providers.load_onnxruntime()
        options = _session_options(onnxruntime, batch, hops_per_step, threads)
        self._session, self.provider = _create(onnxruntime, self.model.path, options, provider)
        _check_graph(self._session, self.model)

        samples = HOP * hops_per_step
        self.audio: Audio = np.zeros((batch, 1, samples), np.float32)
        self.noise: Audio = np.zeros(
            (batch, self.metadata.noise_channels, hops_per_step), np.float32
        )
        self.f_prior: Audio = np.zeros((batch, 1, hops_per_step), np.float32)
        self.f_target: Audio = np.full(
            (batch, 1, hops_per_step), self.metadata.f_target_default, np.float32
        )
        self.high_band: Audio = np.zeros((batch, 1, samples), np.float32)

        self._device = "cpu" if self.provider == providers.CPU else "cuda"
        self._signals = [
            (name, getattr(self, name), self._value(onnxruntime, getattr(self, name)))
            for name in SIGNALS
        ]
        self._zeros = {
            name: np.zeros((batch, *shape[1:]), np.float32)
            for name, shape in self.metadata.states.items()
        }
        self._states = [
            {name: self._value(onnxruntime, zero.copy()) for name, zero in self._zeros.items()}
            for _ in range(2)
        ]
        self._bindings = [
            self._bind(self._states[side], self._states[1 - side]) for side in range(2)
        ]
        self._side = 0

    def run(self) -> Audio:
        """Take one step from the arrays of this object; returns :attr:`high_band`."""
        if self._device != "cpu":
            for _, array, value in self._signals:
                value.update_inplace(array)
        side = self._side
        self._session.run_with_iobinding(self._bindings[side])
        self._side = 1 - side
        return self.high_band

    def step(self, audio: Audio, noise: Audio, f_prior: Audio, f_target: Audio) -> Audio:
        """Copy the inputs, take one step; the result is overwritten by the next one."""
        self.audio[...] = audio
        self.noise[...] = noise
        self.f_prior[...] = f_prior
        self.f_target[...] = f_target
        return self.run()

    def reset(self) -> None:
        """Forget everything: the next step is the first."""
        for state in self._states:
            for name, value in state.items():
                value.update_inplace(self._zeros[name])
        self._side = 0

    def state(self) -> dict[str, Audio]:
        """A copy of the state as the next step will see it, by name."""
        return {name: value.numpy().copy() for name, value in self._states[self._side].items()}

    def _value(self, onnxruntime: ModuleType, array: Audio) -> Any:
        # On the CPU the value shares the array's memory, so writing the array is enough.
        return onnxruntime.OrtValue.ortvalue_from_numpy(array, self._device, 0)

    def _bind(self, before: dict[str, Any], after: dict[str, Any]) -> Any:
        binding = self._session.io_binding()
        for name, _, value in self._signals:
            binding.bind_ortvalue_input(name, value)
        for name, value in before.items():
            binding.bind_ortvalue_input(f"state.{name}", value)
        for name, value in after.items():
            binding.bind_ortvalue_output(f"next.{name}", value)
        binding.bind_output(
            HIGH_BAND,
            "cpu",
            0,
            np.float32,
            self.high_band.shape,
            self.high_band.ctypes.data,
        )
        return binding


def _session_options(onnxruntime: ModuleType, batch: int, hops_per_step: int, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    # A decaying state runs into denormals in every pause, many times slower than other numbers.
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    # Static shapes let the runtime plan its memory once.
    options.add_free_dimension_override_by_name("batch", batch)
    options.add_free_dimension_override_by_name("frames", hops_per_step)
    options.add_free_dimension_override_by_name("samples", HOP * hops_per_step)
    return options


def _create(onnxruntime: ModuleType, path: Path, options: Any, provider: str) -> tuple[Any, str]:
    candidates = providers.candidates(provider, onnxruntime)
    for name in candidates:
        try:
            # Its own fall-back is not only silent: it prints to stdout, into a pipe's sound.
            session = onnxruntime.InferenceSession(
                str(path),
                options,
                providers=providers.onnx_providers(name),
                enable_fallback=0,
            )
        except Exception as error:  # its errors have no common base but Exception
            if name != providers.CPU:
                continue
            reason = " ".join(str(error).split())[:200]
            raise ModelError(
                f"ONNX Runtime cannot load model file '{path}' ({reason}); export it again."
            ) from None
        if providers.started(session, name):
            return session, name
    raise ProviderError(
        f"Provider {provider!r} is installed but did not start on this machine (its driver or "
        "device is missing); use provider 'cpu'."
    )


def _check_graph(session: Any, model: Model) -> None:
    """Refuse a graph whose inputs and outputs are not those that its metadata promises."""
    states = model.metadata.states
    inputs = {value.name: value.shape for value in session.get_inputs()}
    outputs = {value.name for value in session.get_outputs()}
    wanted_inputs = {*SIGNALS, *(f"state.{name}" for name in states)}
    wanted_outputs = {HIGH_BAND, *(f"next.{name}" for name in states)}
    differing = sorted((wanted_inputs ^ set(inputs)) | (wanted_outputs ^ outputs))
    differing += [
        f"state.{name}"
        for name, shape in states.items()
        if f"state.{name}" in inputs and tuple(inputs[f"state.{name}"][1:]) != shape[1:]
    ]
    if differing:
        shown = ", ".join(differing[:3]) + (", ..." if len(differing) > 3 else "")
        raise ModelError(
            f"Model file '{model.path}' has a graph that does not match its metadata ({shown}); "
            "export it again."
        )
