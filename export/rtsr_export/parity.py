"""The parity chain: torch long block == torch hop by hop == ONNX in steps of 1, 4 and 16 hops."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import torch
from torch import Tensor

from rtsr.errors import RtsrError
from rtsr.model.generator import Generator
from rtsr.model.streaming import flatten
from rtsr.runtime.providers.select import load_onnxruntime
from rtsr.timing import HOP
from rtsr_export.graph import SIGNALS
from rtsr_kernels import fill_noise

HOPS_PER_STEP = (1, 4, 16)
TOLERANCE = 1e-4

# audio, noise, f_prior, f_target, as the generator takes them.
Signals = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Parity:
    """Largest differences against torch's long block, relative to its root mean square."""

    torch_hops: float
    onnx_hops: dict[int, float]

    @property
    def worst(self) -> float:
        """The largest of all differences."""
        # Unlike max, it keeps what is no number.
        return float(np.max([self.torch_hops, *self.onnx_hops.values()]))


def parity_signals(generator: Generator, batch: int, frames: int, seed: int) -> Signals:
    """Return audio with onsets and silences, keyed noise, and cutoffs that move while it plays."""
    random = np.random.default_rng(seed)
    audio = random.standard_normal((batch, 1, frames * HOP)).astype(np.float32) * 0.1
    loudness = np.repeat(random.choice([0.0, 0.01, 0.3, 1.0], (batch, 1, frames)), HOP, axis=2)
    noise = np.empty((batch, generator.config.noise_channels, frames), np.float32)
    values = np.empty(generator.config.noise_channels, np.float32)
    for frame in range(frames):
        fill_noise(seed, frame, 0, values)
        noise[:, :, frame] = values
    cutoff = np.where(np.arange(frames) < frames // 2, 4000.0, 8000.0).astype(np.float32)
    f_prior = np.broadcast_to(cutoff, (batch, 1, frames)).copy()
    return (
        torch.from_numpy(audio * loudness.astype(np.float32)),
        torch.from_numpy(noise),
        torch.from_numpy(f_prior),
        torch.full((batch, 1, frames), 22_000.0),
    )


def _cut(signals: Signals, first: int, hops: int) -> Signals:
    audio, noise, f_prior, f_target = signals
    frames = slice(first, first + hops)
    samples = audio[:, :, first * HOP : (first + hops) * HOP]
    return samples, noise[:, :, frames], f_prior[:, :, frames], f_target[:, :, frames]


@torch.no_grad()
def torch_long(generator: Generator, signals: Signals) -> np.ndarray:
    """Run the model over one long block: ``(batch, 1, samples)``."""
    state = generator.initial_state(signals[0].shape[0])
    return generator.step(*signals, state)[0].numpy()


@torch.no_grad()
def torch_hops(generator: Generator, signals: Signals, hops: int = 1) -> np.ndarray:
    """Run the same block in steps of ``hops`` hops."""
    state = generator.initial_state(signals[0].shape[0])
    blocks = []
    for first in range(0, signals[1].shape[2], hops):
        block, state = generator.step(*_cut(signals, first, hops), state)
        blocks.append(block.numpy())
    return np.concatenate(blocks, axis=2)


def onnx_hops(
    model: onnx.ModelProto, generator: Generator, signals: Signals, hops: int
) -> np.ndarray:
    """Run the same block through ONNX Runtime on the CPU in steps of ``hops`` hops."""
    onnxruntime = load_onnxruntime()
    batch = signals[0].shape[0]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    for name, size in (("batch", batch), ("frames", hops), ("samples", hops * HOP)):
        options.add_free_dimension_override_by_name(name, size)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    state = {
        f"state.{name}": value.numpy()
        for name, value in flatten(generator.initial_state(batch)).items()
    }
    outputs = [output.name for output in session.get_outputs()]
    blocks = []
    for first in range(0, signals[1].shape[2], hops):
        feed = {
            name: value.numpy()
            for name, value in zip(SIGNALS, _cut(signals, first, hops), strict=True)
        }
        results = dict(zip(outputs, session.run(outputs, {**feed, **state}), strict=True))
        state = {name: results[name.replace("state.", "next.", 1)] for name in state}
        blocks.append(results["high_band"])
    return np.concatenate(blocks, axis=2)


def measure_parity(
    generator: Generator, model: onnx.ModelProto, frames: int = 208, batch: int = 1, seed: int = 0
) -> Parity:
    """Run the whole chain and return every link's largest error."""
    signals = parity_signals(generator, batch, frames, seed)
    reference = torch_long(generator, signals)
    scale = float(np.sqrt(np.mean(np.square(reference)))) + 1e-12

    def error(block: np.ndarray) -> float:
        return float(np.abs(block - reference).max()) / scale

    return Parity(
        error(torch_hops(generator, signals)),
        {hops: error(onnx_hops(model, generator, signals, hops)) for hops in HOPS_PER_STEP},
    )


def require_parity(parity: Parity) -> None:
    """Raise RtsrError when any link of the chain is off by more than 1e-4 of the signal."""
    if not parity.worst <= TOLERANCE:
        raise RtsrError(
            f"The exported graph differs from the model by {parity.worst:.1e} of the signal, "
            f"more than {TOLERANCE:.0e}: {parity}; nothing was written."
        )
