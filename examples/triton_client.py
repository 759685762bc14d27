"""Enhance a file, or a stream of packets, through a Triton server that runs the model.

    rtsr export --triton models                              writes models/rtsr_small
    tritonserver --model-repository=models                   (in NVIDIA's container)
    pip install "rtsr" "tritonclient[grpc]" soundfile
    python examples/triton_client.py call-8k.wav call-48k.wav --url localhost:8001

The server keeps the model's state, one sequence for each stream, and steps all streams that have a
hop waiting as one batch. Which of its backends runs the model makes no difference here. All the
rest of the engine is small and stays with the client: resampling, finding the cutoff, the noise
(keyed by seed and frame, so that it needs no state either), the crossover. That is why
``TritonSource`` is all there is to it: a source of high bands like the local ones.

``make test-triton`` runs this against a server, with the Python backend.
"""

from __future__ import annotations

import argparse
import itertools
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rtsr.engine.statistics import Statistics
from rtsr.engine.stream_engine import Engine
from rtsr.errors import RtsrError
from rtsr.timing import HOP, SAMPLE_RATE
from rtsr.whole_file import check_different
from rtsr_kernels.noise import fill_noise_frames
from rtsr_kernels.resample import StreamingResampler

Audio = NDArray[np.float32]


@dataclass(frozen=True)
class ServedModel:
    """What the configuration on the server says about the model."""

    name: str
    hops: int
    noise_channels: int
    overlap: int
    f_target: float

    @classmethod
    def from_configuration(cls, configuration: Any) -> ServedModel:
        """Read a ``ModelConfig`` message that ``rtsr export --triton`` wrote."""
        shapes = {entry.name: list(entry.dims) for entry in configuration.input}
        facts = {key: entry.string_value for key, entry in configuration.parameters.items()}
        return cls(
            name=configuration.name,
            hops=shapes["audio"][1] // HOP,
            noise_channels=shapes["noise"][0],
            overlap=int(facts["rtsr.overlap"]),
            f_target=float(facts["rtsr.f_target_default"]),
        )


class Server(Protocol):
    """What a source needs of the connection."""

    def infer(self, signals: dict[str, Audio], sequence: int, *, start: bool, end: bool) -> Audio:
        """Run one step of a sequence; signals and result have a batch of 1 in front."""


class TritonServer:
    """A gRPC connection to a Triton server.

    Args:
        url: host and port of its gRPC service.
        model: name in the repository.
    """

    def __init__(self, url: str, model: str) -> None:
        import tritonclient.grpc as triton
        from tritonclient.utils import InferenceServerException

        self._triton = triton
        self._refusal = InferenceServerException
        self._client = triton.InferenceServerClient(url)
        try:
            if not self._client.is_model_ready(model):
                raise RtsrError(f"The server at {url} has no model {model!r} ready.")
            configuration = self._client.get_model_config(model).config
        except InferenceServerException as error:
            raise RtsrError(f"No Triton server answers at {url} ({error.status()}).") from None
        self.model = ServedModel.from_configuration(configuration)
        self._outputs = [triton.InferRequestedOutput("high_band")]

    def infer(self, signals: dict[str, Audio], sequence: int, *, start: bool, end: bool) -> Audio:
        """See :class:`Server`; raises RtsrError with what a server says that refuses."""
        inputs = []
        for name, value in signals.items():
            tensor = self._triton.InferInput(name, list(value.shape), "FP32")
            tensor.set_data_from_numpy(value)
            inputs.append(tensor)
        try:
            result = self._client.infer(
                self.model.name,
                inputs,
                outputs=self._outputs,
                sequence_id=sequence,
                sequence_start=start,
                sequence_end=end,
            )
        except self._refusal as error:
            raise RtsrError(f"The server took no step: {error.message()}") from None
        return np.asarray(result.as_numpy("high_band"))

    def close(self) -> None:
        """Hang up."""
        self._client.close()


class TritonSource:
    """The high band of one mono stream, made by a server; see ``rtsr.engine.sources``.

    Every reset begins a new sequence on the server, for the state of an old one cannot be cleared.
    """

    # Sequences of one server must differ between its clients, not only within this one.
    _sequences = itertools.count(1 + secrets.randbits(62))

    def __init__(
        self, server: Server, model: ServedModel, seed: int, statistics: Statistics
    ) -> None:
        self.name = model.name
        self.channels = 1
        self.hops = model.hops
        self.overlap = model.overlap
        self.seed = seed
        self._server = server
        self._statistics = statistics
        self._silence: Audio = np.zeros((HOP * self.hops, 1), np.float32)
        self._signals: dict[str, Audio] = {
            "audio": np.zeros((1, 1, HOP * self.hops), np.float32),
            "noise": np.zeros((1, model.noise_channels, self.hops), np.float32),
            "f_prior": np.zeros((1, 1, self.hops), np.float32),
            "f_target": np.full((1, 1, self.hops), model.f_target, np.float32),
        }
        self._frame = 0
        self._sequence: int | None = None

    def generate(self, audio: Audio, f_prior: NDArray[np.float32], f_target: float) -> Audio:
        """Take one step ``(480 * hops, 1)``."""
        self._signals["audio"][0] = audio.T
        self._signals["f_prior"][0, 0] = f_prior
        self._signals["f_target"].fill(f_target)
        fill_noise_frames(self.seed, self._frame, 0, self._signals["noise"][0])
        self._frame += self.hops
        high_band = self._infer(end=False)[0].T
        if not np.isfinite(high_band).all():
            self._end()
            self._statistics.degraded_blocks += self.hops
            return self._silence
        return np.ascontiguousarray(high_band)

    def reset(self) -> None:
        """Forget the past: the next step is the first."""
        self._end()
        self._frame = 0

    def resume(self, frame: int) -> None:
        """Go on at another hop; what the server remembers stays."""
        self._frame = frame

    def close(self) -> None:
        """Let the server forget the stream; it would anyway, after a while."""
        self._end()

    def _end(self) -> None:
        if self._sequence is not None:
            # A sequence ends with a step, not after one; nobody listens to this one.
            self._infer(end=True)
            self._sequence = None

    def _infer(self, end: bool) -> Audio:
        start = self._sequence is None
        if self._sequence is None:
            self._sequence = next(self._sequences)
        return self._server.infer(self._signals, self._sequence, start=start, end=end)


def enhance(server: Server, model: ServedModel, sound: Audio, rate: int, seed: int = 0) -> Audio:
    """Send a mono sound ``(samples,)`` through the server; returns it at 48 kHz, aligned."""
    statistics = Statistics()
    source = TritonSource(server, model, seed, statistics)
    engine = Engine(
        source,
        rate / 2,
        model.f_target,
        1.0,
        statistics,
    )
    before = StreamingResampler(rate, SAMPLE_RATE)
    delay = before.delay + source.overlap
    whole = round(len(sound) * SAMPLE_RATE / rate)
    # Silence pushes out what is still inside, and fills the last step.
    rest = np.zeros((delay + engine.step_samples) * rate // SAMPLE_RATE + rate // 50, np.float32)
    wide = before.process(np.concatenate([sound, rest])[:, None])
    step = engine.step_samples
    out = np.zeros((len(wide) // step * step, 1), np.float32)
    for start in range(0, len(out), step):
        engine.step(wide[start : start + step], out[start : start + step])
    source.close()
    times = statistics.step_ms
    print(
        f"{statistics.steps} steps, round trip p50 {times.p50:.2f} ms, p99 {times.p99:.2f} ms, "
        f"content up to {engine.cutoff_hz:.0f} Hz",
        file=sys.stderr,
    )
    return out[delay : delay + whole, 0]


def main() -> None:
    """Read the options and enhance one file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--url", default="localhost:8001")
    parser.add_argument("--model", default="rtsr_small")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    import soundfile

    try:
        sound, rate = soundfile.read(arguments.input, dtype="float32", always_2d=True)
        if sound.shape[1] != 1:
            parser.error("the example takes mono files; every channel would be a stream of its own")
        check_different(arguments.input, arguments.output)
        server = TritonServer(arguments.url, arguments.model)
        wide = enhance(server, server.model, sound[:, 0], rate, arguments.seed)
        server.close()
        soundfile.write(arguments.output, wide, SAMPLE_RATE)
    except (RtsrError, soundfile.SoundFileError) as error:
        parser.exit(2, f"rtsr: {error}\n")


if __name__ == "__main__":
    main()
