"""Frames, masked spectra and the running level: the network's input features."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rtsr.model import single_frame
from rtsr.model.bands import band_interpolation, band_means
from rtsr.model.fourier import RealTransform
from rtsr.model.streaming import State, StreamingModule, tensor
from rtsr.timing import HOP, SAMPLE_RATE

ANALYSIS_FRAME = 1024
RECENT_FALL = 128
LOOK_BACK_HOPS = 2
MASK_RAMP_HZ = 150.0
LEVEL_DECAY_FRAMES = 20.0
LOWEST_LEVEL = 1e-5


class FrameHistory(StreamingModule):
    """Cuts the stream into overlapping frames: the newest 1440 samples at every hop."""

    def initial_state(self, batch: int) -> State:
        """Return the newest samples so far, zeros ``(batch, 960)``."""
        return {"audio": self.zeros(batch, LOOK_BACK_HOPS * HOP)}

    def step(self, audio: Tensor, state: State) -> tuple[Tensor, State]:
        """Map ``(batch, 1, 480 * frames)`` to ``(batch, frames, 1440)``, newest sample last."""
        past = torch.cat([tensor(state, "audio"), audio.flatten(1)], dim=1)
        following: State = {"audio": past[:, -LOOK_BACK_HOPS * HOP :]}
        return single_frame.frames_of_hops(past, HOP), following


def analysis_window() -> Tensor:
    """Return a window ``(1024,)``: long sine-squared rise, short fall at the end, unit mean square.

    A long history costs no latency; the short fall keeps the newest samples effective.
    """
    rise = ANALYSIS_FRAME - RECENT_FALL
    up = torch.sin((torch.arange(rise) + 0.5) * math.pi / 2 / rise) ** 2
    down = torch.cos((torch.arange(RECENT_FALL) + 0.5) * math.pi / 2 / RECENT_FALL) ** 2
    window = torch.cat([up, down])
    return window / window.square().mean().sqrt()


def bin_frequencies(size: int) -> Tensor:
    """Return the centre frequencies in Hz of the ``size / 2 + 1`` bins at 48 kHz."""
    return torch.arange(size // 2 + 1) * (SAMPLE_RATE / size)


class MaskedSpectrum(nn.Module):
    """Spectrum of the newest 1024 samples with everything above the cutoff set to zero.

    Without the mask a network learns to read the last traces above the cutoff, which real
    8- and 16-bit inputs do not have.
    """

    window: Tensor
    frequencies: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.transform = RealTransform(32, 32)
        self.register_buffer("window", analysis_window(), persistent=False)
        self.register_buffer("frequencies", bin_frequencies(ANALYSIS_FRAME), persistent=False)

    def forward(self, frames: Tensor, cutoff: Tensor) -> Tensor:
        """Transform frames and mask what lies above the cutoff.

        Args:
            frames: ``(batch, frames, 1440)``.
            cutoff: Hz, ``(batch, frames, 1)``.

        Returns:
            Real and imaginary parts ``(batch, frames, 2, 513)``.
        """
        parts = self.transform(frames[..., -ANALYSIS_FRAME:] * self.window)
        return parts * below(cutoff, self.frequencies)[:, :, None]


def below(cutoff: Tensor, frequencies: Tensor) -> Tensor:
    """Return low-pass gains ``(batch, frames, bins)`` for cutoffs in Hz ``(batch, frames, 1)``."""
    return (cutoff / MASK_RAMP_HZ - frequencies / MASK_RAMP_HZ).clamp(0.0, 1.0)


class RunningLevel(StreamingModule):
    """Root mean square over the last 64 frames, weighted towards the newest.

    Dividing the features by it and multiplying the output with it makes the engine follow the
    level of the input exactly. It is a finite causal filter on frame energies, never below
    -100 dBFS, not a per-chunk statistic.
    """

    weights: Tensor

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window
        age = torch.arange(window - 1, -1, -1, dtype=torch.float32)
        weights = torch.exp(-age / LEVEL_DECAY_FRAMES)
        self.register_buffer("weights", (weights / weights.sum())[:, None], persistent=False)

    def initial_state(self, batch: int) -> State:
        """Return the energies of the newest frames so far, zeros ``(batch, window - 1, 1)``."""
        return {"energies": self.zeros(batch, self.window - 1, 1)}

    def step(self, energy: Tensor, state: State) -> tuple[Tensor, State]:
        """Map frame energies ``(batch, frames, 1)`` to levels of the same shape."""
        energies = torch.cat([tensor(state, "energies"), energy], dim=1)
        with torch.autocast(energy.device.type, enabled=False):
            mean = self._windows(energies) @ self.weights
        return (mean + LOWEST_LEVEL**2).sqrt(), {"energies": energies[:, -(self.window - 1) :]}

    def _windows(self, energies: Tensor) -> Tensor:
        """Return the newest ``window`` energies at each frame, ``(batch, frames, window)``."""
        if torch.onnx.is_in_onnx_export():
            return single_frame.flat_windows(energies, self.window)
        return energies[:, :, 0].unfold(1, self.window, 1)


class SpectralEnergy(nn.Module):
    """Mean square of the windowed samples, from half a spectrum by Parseval's theorem."""

    weights: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Inner bins stand for two.
        weights = torch.full((ANALYSIS_FRAME // 2 + 1, 1), 2.0 / ANALYSIS_FRAME)
        weights[0] = weights[-1] = 1.0 / ANALYSIS_FRAME
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, parts: Tensor) -> Tensor:
        """Map ``(batch, frames, 2, 513)`` to ``(batch, frames, 1)``."""
        with torch.autocast(parts.device.type, enabled=False):
            return parts.square().sum(dim=2) @ self.weights


class BandPower(nn.Module):
    """Mean power of a bin in each band: what levels are predicted from."""

    means: Tensor
    sizes: Tensor

    def __init__(self, bands: int) -> None:
        super().__init__()
        bins = ANALYSIS_FRAME // 2 + 1
        self.register_buffer("means", band_means(bands, bins), persistent=False)
        sizes = band_interpolation(bands, bins).sum(dim=1, keepdim=True)
        self.register_buffer("sizes", sizes * (2.0 / ANALYSIS_FRAME), persistent=False)

    def energy(self, power: Tensor) -> Tensor:
        """Return the mean square ``(batch, frames, 1)`` that :class:`SpectralEnergy` would find.

        The bins at the ends, which stand for one and not for two, are counted as the others are.
        """
        with torch.autocast(power.device.type, enabled=False):
            return power @ self.sizes

    def forward(self, parts: Tensor) -> Tensor:
        """Map spectra ``(batch, frames, 2, 513)`` to ``(batch, frames, bands)``."""
        with torch.autocast(parts.device.type, enabled=False):
            return parts.square().sum(dim=2) @ self.means


class Features(nn.Module):
    """Log magnitude and compressed real and imaginary parts, relative to the running level."""

    CHANNELS = 3 * (ANALYSIS_FRAME // 2 + 1)
    LEAST_POWER = 1e-9

    def forward(self, parts: Tensor, level: Tensor) -> Tensor:
        """Compute the features of a block.

        Args:
            parts: spectra ``(batch, frames, 2, 513)``.
            level: running level ``(batch, frames, 1)``.

        Returns:
            Features ``(batch, frames, 1539)``.
        """
        parts = parts / level[..., None]
        log_power = torch.log(parts.square().sum(dim=2, keepdim=True) + self.LEAST_POWER)
        # |X|^-0.7 from the logarithm computed above: compresses the magnitude to |X|^0.3.
        compressed = parts * torch.exp(-0.35 * log_power)
        return torch.cat([0.15 * log_power + 1.2, compressed], dim=2).flatten(2)
