"""Discrete Fourier transforms as products with constant real matrices.

A transform of ``rows * columns`` points runs as two small matrix products with a twiddle product
between them (Cooley and Tukey 1965), so that the graph holds kilobytes of constants instead of
megabytes and no complex operator. All transforms are orthonormal over the full spectrum: white
noise of unit variance gives bins of unit mean power.

A complex number times a twiddle takes four real products. The first matrix therefore gives its
real and imaginary parts twice, the twiddles are stored in the same order, and the second matrix
sums the four: in a graph of one frame, fewer operators are worth more than fewer multiplications.

The constant is the right factor of every product: with a matrix on the right, one product serves
the whole batch, while one on the left makes ONNX Runtime send tables of addresses to a GPU.
The transpositions that this takes are part of the products (``FusedMatMul``).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def _rotation(angle: Tensor) -> tuple[Tensor, Tensor]:
    return angle.cos(), angle.sin()


class RealTransform(nn.Module):
    """Transform of ``rows * columns`` real samples to ``rows * columns / 2 + 1`` complex bins.

    With sample ``n = columns * a + b`` and bin ``k = p + rows * q``, the sum over ``a`` is a
    product with a ``rows``-point matrix, the sum over ``b`` one with a ``columns``-point matrix.
    """

    first: Tensor
    twiddle: Tensor
    second: Tensor

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns
        self.size = rows * columns
        self.bins = self.size // 2 + 1
        self.used_columns = -(-self.bins // rows)
        p = torch.arange(rows, dtype=torch.float64)
        b = torch.arange(columns, dtype=torch.float64)
        q = torch.arange(self.used_columns, dtype=torch.float64)
        real, imag = _rotation(-2 * math.pi * torch.outer(p, p) / rows)
        first = torch.cat([real, imag, real, imag], dim=1)
        real, imag = _rotation(-2 * math.pi * torch.outer(b, p) / self.size)
        twiddle = torch.cat([real, imag, imag, real], dim=1) * self.size**-0.5
        real, imag = _rotation(-2 * math.pi * torch.outer(b, q) / columns)
        plain, turned = torch.cat([real, imag], 1), torch.cat([-imag, real], 1)
        second = torch.stack([plain, -plain, turned, turned], dim=1)
        self.register_buffer("first", first.float(), persistent=False)
        self.register_buffer("twiddle", twiddle.float(), persistent=False)
        self.register_buffer("second", second.flatten(0, 1).float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., size)`` to real and imaginary parts ``(..., 2, bins)``."""
        with torch.autocast(x.device.type, enabled=False):
            samples = x.float().reshape(-1, self.rows, self.columns)
            partial = (samples.transpose(1, 2) @ self.first) * self.twiddle
            partial = partial.reshape(-1, 4 * self.columns, self.rows).transpose(1, 2)
            spectrum = (partial @ self.second).reshape(-1, self.rows, 2, self.used_columns)
            spectrum = spectrum.permute(0, 2, 3, 1).reshape(
                *x.shape[:-1], 2, self.used_columns * self.rows
            )
        return spectrum[..., : self.bins]


class InverseRealTransform(nn.Module):
    """Inverse of :class:`RealTransform`: bins ``(..., 2, bins)`` back to samples."""

    inner: Tensor
    twiddle: Tensor
    outer: Tensor
    mirror: Tensor

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns
        self.size = rows * columns
        self.bins = self.size // 2 + 1
        self.used_columns = -(-self.bins // rows)
        # Bin k = p + rows * q is summed over q first, then over p.
        q = torch.arange(self.used_columns, dtype=torch.float64)
        b = torch.arange(columns, dtype=torch.float64)
        p = torch.arange(rows, dtype=torch.float64)
        real, imag = _rotation(2 * math.pi * torch.outer(b, q) / columns)
        plain, turned = torch.cat([real, -imag], 1), torch.cat([imag, real], 1)
        inner = torch.cat([plain, turned, plain, turned]).T.contiguous()
        real, imag = _rotation(2 * math.pi * torch.outer(p, b) / self.size)
        twiddle = torch.cat([real, imag, imag, real], dim=1) * self.size**-0.5
        real, imag = _rotation(2 * math.pi * torch.outer(p, p) / rows)
        # Only the real part of the last product is ever needed: samples are real.
        outer = torch.stack([real, -real, -imag, -imag], dim=1).flatten(0, 1)
        self.register_buffer("inner", inner.float(), persistent=False)
        self.register_buffer("twiddle", twiddle.float(), persistent=False)
        self.register_buffer("outer", outer.float(), persistent=False)
        # A real signal's upper half mirrors the lower one: count inner bins twice.
        weight = torch.full((self.bins,), 2.0)
        weight[0] = weight[-1] = 1.0
        self.register_buffer("mirror", weight, persistent=False)

    def forward(self, spectrum: Tensor) -> Tensor:
        """Map real and imaginary parts ``(..., 2, bins)`` to samples ``(..., size)``."""
        missing = self.used_columns * self.rows - self.bins
        with torch.autocast(spectrum.device.type, enabled=False):
            planes = nn.functional.pad(spectrum.float() * self.mirror, (0, missing))
            planes = planes.reshape(-1, 2 * self.used_columns, self.rows)
            partial = (planes.transpose(1, 2) @ self.inner) * self.twiddle
            partial = partial.reshape(-1, 4 * self.rows, self.columns).transpose(1, 2)
            samples = partial @ self.outer
        # Sample n = b + columns * a.
        return samples.transpose(1, 2).reshape(*spectrum.shape[:-2], self.size)
