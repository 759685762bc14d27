"""Whether two ways of running one model give the same sound.

Such as a captured graph and single launches, or an engine and the CPU.

A CUDA graph replays what it saw, so a state or a signal that has moved since is replayed stale, and
nothing says so. Two hundred hops with a fresh start in the middle do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtsr.errors import ProviderError
from rtsr.runtime.models import Model
from rtsr.runtime.providers.options import AUTO, ProviderOptions, parse_provider
from rtsr.runtime.session import OnnxStep
from rtsr.timing import HOP
from rtsr_kernels.noise import fill_noise_frames

HOPS = 200
# Of the root mean square of the signal. Both run the same kernels, in an order that may differ.
TOLERANCE = 1e-4
# The same against the CPU, whose kernels are others, by precision. Half precision and TF32 keep the
# same ten bits of mantissa.
TOLERANCES_TO_CPU = {"fp32": 2e-3, "tf32": 0.1, "fp16": 0.1}

_NOISE_STREAM = 0
_LOUDNESS = (0.0, 0.01, 0.3, 1.0)


@dataclass(frozen=True)
class StepParity:
    """How far two ways of running a model are apart.

    Attributes:
        hops: that both were given.
        high_band: largest difference, relative to the root mean square of the first's output.
        state: the same for the tensor of the final state that differs most.
        captured: whether the first replayed a CUDA graph.
    """

    hops: int
    high_band: float
    state: float
    captured: bool

    @property
    def worst(self) -> float:
        """The larger of both."""
        # Unlike max, it keeps what is no number.
        return float(np.max([self.high_band, self.state]))


def measure_graph_parity(
    model: Model | str | Path,
    *,
    provider: str = AUTO,
    batch: int = 1,
    hops_per_step: int = 1,
    hops: int = HOPS,
    options: ProviderOptions | None = None,
) -> StepParity:
    """Run a model as it would be run, and once more without a CUDA graph.

    On a provider without graphs it compares two equal sessions, which must agree to the last bit.

    Args:
        model: as for ``OnnxStep``, like all arguments but ``hops``.
        provider: execution provider.
        batch: channels of audio.
        hops_per_step: 1, 2, 4, 8 or 16.
        hops: how long, rounded up to whole steps.
        options: instead of options in ``provider``.

    Raises:
        ModelError, ProviderError, MissingDependencyError: as for ``OnnxStep``.
    """
    name, parsed = parse_provider(provider)
    chosen = options or parsed
    first = OnnxStep(model, provider=name, batch=batch, hops_per_step=hops_per_step, options=chosen)
    second = OnnxStep(
        first.model,
        provider=first.provider,
        batch=batch,
        hops_per_step=hops_per_step,
        options=replace(chosen, graph=False),
    )
    return compare_steps(first, second, hops)


def compare_steps(first: OnnxStep, second: OnnxStep, hops: int = HOPS, seed: int = 0) -> StepParity:
    """Give both the same signals, hop after hop, and start both afresh half-way.

    Args:
        first: any step; its output sets the scale.
        second: another of the same shape.
        hops: how long, rounded up to whole steps.
        options: instead of options in ``provider``.
        seed: of the signals.
    """
    per_step = first.audio.shape[2] // HOP
    steps = -(-hops // per_step)
    random = np.random.default_rng(seed)
    first.reset()
    second.reset()
    squares, difference = 0.0, 0.0
    for index in range(steps):
        if index == steps // 2:
            first.reset()
            second.reset()
        _fill(first, random, seed, index * per_step, index < steps // 3)
        for name in ("audio", "noise", "f_prior", "f_target"):
            np.copyto(getattr(second, name), getattr(first, name))
        ours, theirs = first.run(), second.run()
        squares += float(np.mean(np.square(ours, dtype=np.float64)))
        difference = _largest(difference, ours, theirs)
    level = (squares / steps) ** 0.5
    return StepParity(
        hops=steps * per_step,
        high_band=difference / max(level, 1e-12),
        state=_state_difference(first.state(), second.state()),
        captured=first.cuda_graph,
    )


def tolerance_to_cpu(step: OnnxStep) -> float:
    """How far a step on an accelerator may be from the CPU, relative to the signal."""
    precision = step.metadata.precision
    if step.options.fp16:
        precision = "fp16"
    elif step.options.tf32 and precision == "fp32":
        precision = "tf32"
    return TOLERANCES_TO_CPU[precision]


def require_parity(parity: StepParity, what: str, tolerance: float = TOLERANCE) -> None:
    """Refuse two ways that differ.

    Args:
        parity: as it was measured.
        what: the subject of the sentence: ``A captured CUDA graph of 'small'``.
        tolerance: the largest difference that passes.

    Raises:
        ProviderError: they are further apart than the tolerance, or gave something unusable.
    """
    if not parity.worst <= tolerance:
        raise ProviderError(
            f"{what} differs by {parity.worst:.1e} of the signal over {parity.hops} hops, more "
            f"than {tolerance:.0e}; do not use it on this machine."
        )


def _fill(step: OnnxStep, random: np.random.Generator, seed: int, frame: int, low: bool) -> None:
    """Onsets and silences, noise of its own frames, and a cutoff that moves."""
    batch, _, samples = step.audio.shape
    hops = samples // HOP
    loudness = np.repeat(random.choice(_LOUDNESS, (batch, 1, hops)), HOP, axis=2)
    step.audio[...] = 0.1 * loudness * random.standard_normal(step.audio.shape)
    fill_noise_frames(seed, frame, _NOISE_STREAM, step.noise[0])
    step.noise[1:] = step.noise[0]
    step.f_prior.fill(4000.0 if low else 8000.0)
    step.f_target.fill(step.metadata.f_target_default)


def _largest(so_far: float, ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    # max() would drop a NaN in one of the two; this keeps it.
    return float(np.maximum(so_far, np.abs(ours - theirs).max()))


def _state_difference(
    ours: dict[str, NDArray[np.float32]], theirs: dict[str, NDArray[np.float32]]
) -> float:
    worst = 0.0
    for name, value in ours.items():
        level = max(float(np.sqrt(np.mean(np.square(value, dtype=np.float64)))), 1e-6)
        worst = _largest(worst, value / np.float32(level), theirs[name] / np.float32(level))
    return worst
