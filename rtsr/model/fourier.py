"""Discrete Fourier transforms as products with constant real matrices.

A transform of ``rows * columns`` points runs as two small matrix products with a twiddle product
between them (Cooley and Tukey 1965), so that the graph holds kilobytes of constants instead of
megabytes and no complex operator. All transforms are orthonormal over the full spectrum: white
noise of unit variance gives bins of unit mean power.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def _rotation(angle: Tensor) -> tuple[Tensor, Tensor]:
    return angle.cos().float(), angle.sin().float()


class RealTransform(nn.Module):
    """``rows * columns`` real samples to ``rows * columns / 2 + 1`` bins, real and imaginary.

    With sample ``n = columns * a + b`` and bin ``k = p + rows * q``, the sum over ``a`` is a
    product with a ``rows``-point matrix, the sum over ``b`` one with a ``columns``-point matrix.
    """

    first: Tensor
    twiddle_real: Tensor
    twiddle_imag: Tensor
    second: Tensor

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns
        self.size = rows * columns
        self.bins = self.size // 2 + 1
        kept = -(-self.bins // rows)
        p = torch.arange(rows, dtype=torch.float64)
        b = torch.arange(columns, dtype=torch.float64)
        q = torch.arange(kept, dtype=torch.float64)
        first = _rotation(-2 * math.pi * torch.outer(p, p) / rows)
        twiddle = _rotation(-2 * math.pi * torch.outer(p, b) / self.size)
        second = _rotation(-2 * math.pi * torch.outer(b, q) / columns)
        scale = self.size**-0.5
        self.register_buffer("first", torch.cat(first), persistent=False)
        self.register_buffer("twiddle_real", twiddle[0] * scale, persistent=False)
        self.register_buffer("twiddle_imag", twiddle[1] * scale, persistent=False)
        both = torch.cat([second[0], second[1]], dim=1)
        turned = torch.cat([-second[1], second[0]], dim=1)
        self.register_buffer("second", torch.cat([both, turned]), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``(batch, frames, size)`` to two tensors ``(batch, frames, bins)``."""
        batch, frames = x.shape[0], x.shape[1]
        with torch.autocast(x.device.type, enabled=False):
            stacked = self.first @ x.float().reshape(batch, frames, self.rows, self.columns)
            real, imag = stacked[..., : self.rows, :], stacked[..., self.rows :, :]
            turned_real = real * self.twiddle_real - imag * self.twiddle_imag
            turned_imag = real * self.twiddle_imag + imag * self.twiddle_real
            spectrum = torch.cat([turned_real, turned_imag], dim=-1) @ self.second
            kept = self.second.shape[1] // 2
            real, imag = spectrum[..., :kept], spectrum[..., kept:]
            real = real.transpose(2, 3).reshape(batch, frames, kept * self.rows)
            imag = imag.transpose(2, 3).reshape(batch, frames, kept * self.rows)
        return real[..., : self.bins], imag[..., : self.bins]


class InverseRealTransform(nn.Module):
    """Undoes :class:`RealTransform`: bins ``(batch, frames, size / 2 + 1)`` back to samples."""

    inner: Tensor
    twiddle_real: Tensor
    twiddle_imag: Tensor
    outer: Tensor
    mirror: Tensor

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns
        self.size = rows * columns
        self.bins = self.size // 2 + 1
        self.kept = -(-self.bins // rows)
        # Bin k = p + rows * q is summed over q first, then over p.
        q = torch.arange(self.kept, dtype=torch.float64)
        b = torch.arange(columns, dtype=torch.float64)
        p = torch.arange(rows, dtype=torch.float64)
        inner = _rotation(2 * math.pi * torch.outer(b, q) / columns)
        twiddle = _rotation(2 * math.pi * torch.outer(b, p) / self.size)
        outer = _rotation(2 * math.pi * torch.outer(p, p) / rows)
        scale = self.size**-0.5
        self.register_buffer(
            "inner",
            torch.cat([torch.cat([inner[0], -inner[1]], 1), torch.cat([inner[1], inner[0]], 1)]),
            persistent=False,
        )
        self.register_buffer("twiddle_real", twiddle[0] * scale, persistent=False)
        self.register_buffer("twiddle_imag", twiddle[1] * scale, persistent=False)
        self.register_buffer("outer", torch.cat([outer[0], -outer[1]]), persistent=False)
        # A real signal's upper half mirrors the lower one: count inner bins twice.
        weight = torch.full((self.bins,), 2.0)
        weight[0] = weight[-1] = 1.0
        self.register_buffer("mirror", weight, persistent=False)

    def forward(self, real: Tensor, imag: Tensor) -> Tensor:
        """Map two tensors ``(batch, frames, bins)`` to ``(batch, frames, size)``."""
        batch, frames = real.shape[0], real.shape[1]
        with torch.autocast(real.device.type, enabled=False):
            missing = self.kept * self.rows - self.bins
            planes = [
                nn.functional.pad(part.float() * self.mirror, (0, missing)).reshape(
                    batch, frames, self.kept, self.rows
                )
                for part in (real, imag)
            ]
            summed = self.inner @ torch.cat(planes, dim=2)
            real, imag = summed[..., : self.columns, :], summed[..., self.columns :, :]
            turned_real = real * self.twiddle_real - imag * self.twiddle_imag
            turned_imag = real * self.twiddle_imag + imag * self.twiddle_real
            samples = torch.cat([turned_real, turned_imag], dim=-1) @ self.outer
        # Sample n = b + columns * a.
        return samples.transpose(2, 3).reshape(batch, frames, self.size)
