"""Low-passes between a recording and its narrow-band version: of converters and of resamplers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from scipy import signal
from torch import Tensor

from rtsr.train.device import placed

#: Poles of the steepest analog filter.
MOST_POLES = 10
#: Zeros, poles and gain at 1 rad/s.
Prototype = tuple[np.ndarray, np.ndarray, float]


@dataclass
class LowPasses:
    """The random low-passes of a batch.

    Attributes:
        slope_starts: ``(batch,)`` Hz where each clip's linear-phase low-pass begins to fall, its
            cutoff for one without a slope.
        rows: clips that an analog filter is before.
        edges: of these, the filter's band edge in Hz.
        prototypes: likewise, the filter itself.
    """

    slope_starts: np.ndarray
    rows: list[int] = field(default_factory=list)
    edges: list[float] = field(default_factory=list)
    prototypes: list[Prototype] = field(default_factory=list)


def draw_low_passes(
    cutoffs: np.ndarray, is_filtered: np.ndarray, analog_share: float, rng: np.random.Generator
) -> LowPasses:
    """Draw the low-passes of the filtered clips, an analog one for a share of them."""
    drawn = LowPasses(cutoffs.copy())
    for row in np.flatnonzero(is_filtered):
        drawn.slope_starts[row] = cutoffs[row] * rng.uniform(0.84, 0.97)
        if rng.random() < analog_share:
            drawn.rows.append(int(row))
            drawn.edges.append(cutoffs[row] * rng.uniform(0.8, 1.05))
            kind = str(rng.choice(["butterworth", "bessel", "chebyshev", "elliptic"]))
            ripple = float(rng.choice([0.05, 0.2, 0.5, 1.0]))
            drawn.prototypes.append(analog_prototype(kind, int(rng.integers(2, 11)), ripple))
    return drawn


@lru_cache(maxsize=256)
def analog_prototype(kind: str, order: int, ripple: float) -> Prototype:
    """Return zeros, poles and gain of an analog low-pass with its band edge at 1 rad/s."""
    if kind == "butterworth":
        return signal.buttap(order)
    if kind == "bessel":
        return signal.besselap(order, norm="mag")
    if kind == "chebyshev":
        return signal.cheb1ap(order, ripple)
    return signal.ellipap(order, ripple, 50.0 + 10.0 * order % 40)


def low_pass_gains(frequencies: Tensor, cutoffs: np.ndarray, starts: np.ndarray) -> Tensor:
    """Return gains ``(batch, bins)`` of linear-phase low-passes that reach zero at the cutoff."""
    start, cutoff = placed(np.stack([starts, cutoffs])[:, :, None], frequencies.device)
    # A low-pass without a slope has no width to divide by; the comparison below is all of it.
    position = ((frequencies - start) / (cutoff - start).clamp(min=1e-3)).clamp(0.0, 1.0)
    return (0.5 + 0.5 * (math.pi * position).cos()) * (frequencies < cutoff)


def analog_responses(frequencies: Tensor, drawn: LowPasses) -> Tensor:
    """Return responses ``(rows, bins)`` of the analog filters, all at once.

    A factor per pole, ``(a s + b) / (s - p)``: ``a s + b`` is ``s - z`` where there is a zero and
    one where there is none, and both sides are ``s + 1`` where there is no pole.
    """
    count = len(drawn.rows)
    slopes = np.ones((count, MOST_POLES), np.complex64)
    offsets = np.ones((count, MOST_POLES), np.complex64)
    poles = np.full((count, MOST_POLES), -1.0, np.complex64)
    gains = np.empty(count)
    for row, (zeros, own, gain) in enumerate(drawn.prototypes):
        slopes[row, : len(own)] = 0.0
        slopes[row, : len(zeros)] = 1.0
        offsets[row, : len(zeros)] = -np.asarray(zeros)
        poles[row, : len(own)] = own
        gains[row] = gain
    device = frequencies.device
    slope, offset, pole = torch.from_numpy(np.stack([slopes, offsets, poles])).to(
        device, non_blocking=True
    )
    scale, gain = placed(np.stack([1.0 / np.array(drawn.edges), gains])[:, :, None], device)
    s = torch.complex(torch.zeros((), device=device), frequencies * scale)
    response = torch.complex(gain.expand_as(s), torch.zeros((), device=device))
    for k in range(max(len(own) for _, own, _ in drawn.prototypes)):
        zero = torch.addcmul(offset[:, k, None], slope[:, k, None], s)
        response = response * zero / (s - pole[:, k, None])
    return response
