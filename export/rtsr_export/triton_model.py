"""Step the streams of one rtsr model inside Triton's Python backend.

This file is ``model.py`` of a model repository that ``rtsr export --triton`` writes, beside
``model.onnx``. It needs numpy and onnxruntime in the Python that runs the backend, and nothing of
rtsr. The server's sequence batcher calls :meth:`TritonPythonModel.execute` with at most one request
of each sequence, and ONNX Runtime runs them as one batch. The state of a sequence, one row of each
state tensor, stays here between its requests.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

# ONNX Runtime's telemetry looks up a host and keeps files; it reads this while it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import triton_python_backend_utils as pb_utils

SIGNALS = ("audio", "noise", "f_prior", "f_target")
OUTPUT = "high_band"


class States:
    """The state tensors of all sequences: one row each, zeros when a sequence starts.

    The server says when a sequence ends, but not when it drops one: after an idle time, or when a
    request is cancelled. Rows of such sequences are taken back once they are needed and have not
    been used for twice the idle time. If there are none, the tensors grow.

    Args:
        shapes: of one row of each tensor, by name.
        rows: to begin with.
        idle_s: seconds after which the server drops a sequence.
    """

    def __init__(self, shapes: dict[str, tuple[int, ...]], rows: int, idle_s: float) -> None:
        self.tensors = {
            name: np.zeros((rows, *shape), np.float32) for name, shape in shapes.items()
        }
        self._idle_s = idle_s
        self._rows: dict[Any, int] = {}
        self._used: dict[Any, float] = {}
        self._free = list(range(rows))

    def start(self, sequence: Any) -> None:
        """Give a sequence a row of zeros; one that runs already starts anew."""
        row = self._rows.get(sequence)
        if row is None:
            row = self._take_row()
            self._rows[sequence] = row
        self._used[sequence] = time.monotonic()
        for tensor in self.tensors.values():
            tensor[row] = 0

    def row(self, sequence: Any) -> int | None:
        """Return the row of a sequence, ``None`` if it has not been started."""
        row = self._rows.get(sequence)
        if row is not None:
            self._used[sequence] = time.monotonic()
        return row

    def end(self, sequence: Any) -> None:
        """Forget a sequence."""
        row = self._rows.pop(sequence, None)
        if row is not None:
            del self._used[sequence]
            self._free.append(row)

    def _take_row(self) -> int:
        if not self._free:
            since = time.monotonic() - 2 * self._idle_s
            for sequence in [one for one, used in self._used.items() if used < since]:
                self.end(sequence)
        if not self._free:
            count = len(self._rows)
            for name, tensor in self.tensors.items():
                self.tensors[name] = np.concatenate([tensor, np.zeros_like(tensor)])
            self._free.extend(range(count, 2 * count))
        return self._free.pop()


class TritonPythonModel:
    """What the backend calls, see https://github.com/triton-inference-server/python_backend."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the graph beside this file, and make room for as many streams as are served."""
        try:
            import onnxruntime
        except ImportError as error:
            raise pb_utils.TritonModelException(
                f"The Python of this backend has no ONNX Runtime ({error}); install onnxruntime."
            ) from None
        configuration = json.loads(args["model_config"])
        options = onnxruntime.SessionOptions()
        threads = configuration["parameters"]["intra_op_thread_count"]["string_value"]
        options.intra_op_num_threads = int(threads)
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # A decaying state runs into denormals in every pause, many times slower than other numbers.
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        # A session that knows the number of frames drops what is for others.
        lengths = {one["name"]: int(one["dims"][-1]) for one in configuration["input"]}
        options.add_free_dimension_override_by_name("frames", lengths["f_prior"])
        options.add_free_dimension_override_by_name("samples", lengths["audio"])
        self._session = onnxruntime.InferenceSession(
            str(Path(__file__).with_name("model.onnx")), options, providers=["CPUExecutionProvider"]
        )
        batching = configuration["sequence_batching"]
        self._states = States(
            {
                one.name.removeprefix("state."): tuple(one.shape[1:])
                for one in self._session.get_inputs()
                if one.name.startswith("state.")
            },
            int(batching["oldest"]["max_candidate_sequences"]),
            int(batching["max_sequence_idle_microseconds"]) / 1e6,
        )
        self._outputs = [OUTPUT, *(f"next.{name}" for name in self._states.tensors)]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Take one step of the sequence of each request, all in one run of the graph."""
        responses: list[Any] = [None] * len(requests)
        signals: list[dict[str, np.ndarray]] = []
        rows: list[int] = []
        accepted: list[int] = []
        for index, request in enumerate(requests):
            sequence = request.correlation_id()
            if request.flags() & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START:
                self._states.start(sequence)
            row = self._states.row(sequence)
            values = {
                name: pb_utils.get_input_tensor_by_name(request, name).as_numpy()
                for name in SIGNALS
            }
            if row is None:
                responses[index] = _refusal(
                    f"Sequence {sequence} is not known here; begin a new one with the START flag."
                )
            elif bad := [name for name in SIGNALS if not np.isfinite(values[name]).all()]:
                responses[index] = _refusal(
                    f"Input '{bad[0]}' of sequence {sequence} has values that are no finite "
                    "numbers; the step was not taken, the sequence may go on."
                )
            else:
                signals.append(values)
                rows.append(row)
                accepted.append(index)
        if accepted:
            high_band = self._step(signals, rows)
            for position, index in enumerate(accepted):
                tensor = pb_utils.Tensor(OUTPUT, high_band[position : position + 1])
                responses[index] = pb_utils.InferenceResponse([tensor])
        for request in requests:
            if request.flags() & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END:
                self._states.end(request.correlation_id())
        return responses

    def _step(self, signals: list[dict[str, np.ndarray]], rows: list[int]) -> np.ndarray:
        inputs = {name: np.concatenate([one[name] for one in signals]) for name in SIGNALS}
        for name, tensor in self._states.tensors.items():
            inputs[f"state.{name}"] = tensor[rows]
        high_band, *states = self._session.run(self._outputs, inputs)
        for tensor, state in zip(self._states.tensors.values(), states, strict=True):
            tensor[rows] = state
        return high_band


def _refusal(sentence: str) -> Any:
    error = pb_utils.TritonError(sentence, pb_utils.TritonError.INVALID_ARG)
    return pb_utils.InferenceResponse([], error)
