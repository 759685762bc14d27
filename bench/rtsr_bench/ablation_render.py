"""A checkpoint's sound without exporting it: any number of Euler steps, or the autoencoder alone.

The way of a file is the engine's own, with detector, crossover and gate; only the network's step
is torch's instead of ONNX Runtime's, and takes more hops at a time, which changes nothing but
rounding.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import soundfile
import torch
from torch import Tensor

from rtsr.bandwidth import measure_cutoff_stream
from rtsr.model.config import HOP, OVERLAP, SAMPLE_RATE
from rtsr.model.generator import Generator
from rtsr.quality.audio import read_audio
from rtsr.runtime.engine import Engine
from rtsr.runtime.session import OnnxStep
from rtsr.runtime.source import ModelSource
from rtsr.runtime.statistics import Statistics
from rtsr.train.degrade import LOSSLESS_NOISE_FLOOR, Degraded
from rtsr.train.stages import Batch, autoencode
from rtsr_bench.ridge import fit_length
from rtsr_bench.validation import write_whole
from rtsr_kernels.resample import StreamingResampler

#: where the output ends: as in all published ablations, so that new ones can be laid beside them
CEILING_HZ = 22_000.0
#: hops of one step; a torch step has costs of its own that many hops share
HOPS = 25


class TorchStep:
    """A generator in the place of an exported graph: what :class:`OnnxStep` offers a source."""

    provider = "torch"

    def __init__(self, generator: Generator, euler_steps: int = 1, hops: int = HOPS) -> None:
        self.model = SimpleNamespace(name=generator.config.name)
        self.metadata = SimpleNamespace(overlap=OVERLAP)
        self.audio = np.zeros((1, 1, HOP * hops), np.float32)
        self.noise = np.zeros((1, generator.config.noise_channels, hops), np.float32)
        self.f_prior = np.zeros((1, 1, hops), np.float32)
        self.f_target = np.zeros((1, 1, hops), np.float32)
        self.high_band = np.zeros((1, 1, HOP * hops), np.float32)
        self._generator, self._euler_steps = generator, euler_steps
        self._device = next(generator.parameters()).device
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next step is the first."""
        self._state = self._generator.initial_state(1, self._euler_steps)

    @torch.inference_mode()
    def run(self) -> np.ndarray:
        """Take one step from the arrays of this object: ``(1, 1, 480 * hops)``."""
        audio, noise, f_prior, f_target = (
            torch.from_numpy(value).to(self._device)
            for value in (self.audio, self.noise, self.f_prior, self.f_target)
        )
        high_band, self._state = self._generator.step(audio, noise, f_prior, f_target, self._state)
        self.high_band[...] = high_band.cpu().numpy()
        return self.high_band


class Renderer:
    """Enhances files of one rate as ``rtsr enhance`` would, with ``euler_steps`` steps per frame.

    ``renderer(source, target)`` reads the first channel and writes 16 bits at 48 kHz, aligned with
    the input and as long.
    """

    def __init__(
        self, generator: Generator, input_rate: int, euler_steps: int = 1, seed: int = 0
    ) -> None:
        self._rate = input_rate
        statistics = Statistics()
        step = cast(OnnxStep, TorchStep(generator, euler_steps))
        source = ModelSource(step, seed, statistics)
        native = input_rate / 2
        self._engine = Engine(source, native, CEILING_HZ, 1.0, statistics)

    def __call__(self, source: Path, target: Path) -> None:
        """Enhance one file."""
        samples, rate = soundfile.read(source, dtype="float32", always_2d=True)
        if rate != self._rate:
            raise ValueError(f"{source} has {rate} Hz, the renderer was made for {self._rate} Hz")
        wide, delay = _to_engine_rate(np.ascontiguousarray(samples[:, :1]), rate)
        # The engine keeps what lies behind the overlap until the next step.
        delay += OVERLAP
        length = round(len(samples) * SAMPLE_RATE / rate)
        step = self._engine.step_samples
        steps = -(-(delay + length) // step)
        wide = np.concatenate([wide[: steps * step], np.zeros((steps * step, 1), np.float32)])
        self._engine.expected_cutoff = measure_cutoff_stream(
            [wide[: delay + length]], native_hz=rate / 2
        )
        self._engine.reset()
        out = np.empty((steps * step, 1), np.float32)
        for first in range(0, len(out), step):
            self._engine.step(wide[first : first + step], out[first : first + step])
        write_whole(target, out[delay : delay + length], SAMPLE_RATE)


def _to_engine_rate(samples: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
    """The file at 48 kHz with some silence behind it, and by how many samples it is late."""
    resampler = StreamingResampler(rate, SAMPLE_RATE, 1)
    silence = np.zeros((rate // 10, 1), np.float32)
    return resampler.process(np.concatenate([samples, silence])), resampler.delay


def reconstruct_file(
    generator: Generator,
    source: Path,
    reference: Path,
    target: Path,
    *,
    cutoffs_hz: tuple[float, float],
    noise_level: float = 0.0,
    seed: int = 0,
) -> None:
    """Decode the truth's own latent, disturbed by noise, beside the low-resolution input.

    This is stage 1 as it was trained: what the autoencoder can do at best, and what is left of it
    when a flow misses the latent by ``noise_level`` (the latent has unit variance).

    Args:
        source: the narrow-band file.
        reference: the full-band truth.
        target: the file to write, 16 bits at 48 kHz, as long as the reference.
        cutoffs_hz: where the content of the input and of the truth ends.
        noise_level: standard deviation of the noise on the latent.
        seed: of all noise.
    """
    device = next(generator.parameters()).device
    truth = read_audio(reference)[:, 0]
    frames = -(-(len(truth) + OVERLAP) // HOP)
    narrow = fit_length(read_audio(source)[:, 0], len(truth))

    def block(samples: np.ndarray) -> Tensor:
        padded = np.zeros(frames * HOP, np.float32)
        padded[: len(samples)] = samples
        return torch.from_numpy(padded).to(device)[None, None]

    f_prior, f_target = (torch.tensor([cutoff], device=device) for cutoff in cutoffs_hz)
    floor = torch.tensor([LOSSLESS_NOISE_FLOOR], device=device)
    data = Degraded(
        block(truth), block(narrow), f_prior, f_target, f_target, floor, f_prior.tolist()
    )
    devices: list[Any] = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.inference_mode():
        torch.manual_seed(seed)
        pair = autoencode(generator, Batch(generator, data), noise_level)
    estimate = pair.estimate[0, : len(truth)].cpu().numpy()
    write_whole(target, estimate, SAMPLE_RATE)
