"""Eight-bit companding of ITU-T G.711, as real coders do it: in segments, not as a smooth curve."""

from __future__ import annotations

import torch
from torch import Tensor

#: Telephone coders work at 8 kHz: one of their samples per this many at 48 kHz.
TELEPHONE_STEP = 6
#: Full scale of the two laws' magnitudes (G.711, tables 1a and 2a).
A_LAW_SCALE = 4096.0
MU_LAW_SCALE = 8192.0
#: The biased mu-law magnitude may not reach 2^13.
MU_LAW_BIAS = 33.0
MU_LAW_CLIP = 8158.0


def a_law(audio: Tensor) -> Tensor:
    """Code and decode audio in [-1, 1], any shape, by the A-law (G.711, tables 1a and 1b).

    Thirteen segments: steps of 2 / 4096 up to 1 / 64 of full scale, then 16 steps an octave.
    """
    magnitude = (audio.abs() * A_LAW_SCALE).clamp(max=A_LAW_SCALE - 1.0)
    step = torch.exp2(_octave(magnitude).clamp(min=5) - 4.0)
    decoded = (magnitude / step).floor() * step + 0.5 * step
    # The law has no zero: the smallest positive value stands for it.
    return torch.where(audio < 0.0, -decoded, decoded) / A_LAW_SCALE


def mu_law(audio: Tensor) -> Tensor:
    """Code and decode audio in [-1, 1], any shape, by the mu-law (G.711, tables 2a and 2b)."""
    biased = (audio.abs() * MU_LAW_SCALE).clamp(max=MU_LAW_CLIP) + MU_LAW_BIAS
    step = torch.exp2(_octave(biased) - 4.0)
    decoded = (biased / step).floor() * step + 0.5 * step - MU_LAW_BIAS
    return audio.sign() * decoded / MU_LAW_SCALE


def telephone(audio: Tensor, is_a_law: Tensor) -> Tensor:
    """Code and decode at 8 kHz the audio ``(batch, samples)`` at 48 kHz, which ends below 4 kHz.

    What comes out is not filtered yet: it still has images above 4 kHz.
    """
    samples = audio[:, ::TELEPHONE_STEP]
    coded = torch.zeros_like(audio)
    decoded = torch.where(is_a_law[:, None], a_law(samples), mu_law(samples))
    coded[:, ::TELEPHONE_STEP] = TELEPHONE_STEP * decoded
    return coded


def _octave(values: Tensor) -> Tensor:
    """Return the integer part of log2, exactly."""
    return torch.frexp(values).exponent.to(values.dtype) - 1.0
