"""Losses on the restored band: spectra, bands, smoothed energies, tonality, what hops repeat.

Several views because each alone fails: log magnitudes of single bins teach the median, which is
too quiet for noisy sounds; band energies teach the level but no structure; energies over 80 ms are
what a listener (and ViSQOL's gammatone frames) compare, in level and in shape.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from rtsr.timing import SAMPLE_RATE
from rtsr.train import hop_pattern, tonality
from rtsr.train.filter_bank import mel_bank
from rtsr.train.loudness import loudness_error
from rtsr.train.similarity import dissimilarity

LEAST_POWER = 1e-10
#: Random projections of `sliced_wasserstein`.
DIRECTIONS = 32

TERMS = ("bins", "mel", "loudness", "smooth", "level", "shape", "tonality", "hop")

Powers = dict[int, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class LossWeights:
    """Weights of the spectral losses."""

    bins: float = 0.6
    mel: float = 1.0
    loudness: float = 1.0
    smooth: float = 1.5
    level: float = 0.5
    shape: float = 2.0
    tonality: float = 1.0
    hop: float = 1.0


def band_mask(centres: Tensor, f_prior: Tensor, f_end: Tensor) -> Tensor:
    """``(batch, 1, bands)``: one between the crossover's start and where the reference ends."""
    low, high = 0.86 * f_prior[:, None], 0.98 * f_end[:, None]
    return ((centres > low) & (centres < high)).float()[:, None]


def bin_weights(centres: Tensor, f_prior: Tensor, f_end: Tensor) -> Tensor:
    """As :func:`band_mask` for bins of equal width, falling with frequency above the cutoff.

    The ear's filters widen in proportion to frequency (Glasberg and Moore 1990, eq. 3), so a bin at
    twice the cutoff counts half.
    """
    decline = (f_prior[:, None, None] / centres.clamp(min=1.0)).clamp(max=1.0)
    return band_mask(centres, f_prior, f_end) * decline


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over what the mask keeps, every clip with the same weight."""
    per_clip = (values * mask).sum((1, 2)) / (mask.sum((1, 2)) * values.shape[1] + 1e-3)
    return per_clip.mean()


def spectral_distance(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """Weighted root mean square over bins of two log spectra, mean over frames.

    Both spectra are ``(batch, frames, bins)``, the weights ``(batch, 1, bins)``.

    That is the log-spectral distance (Gray and Markel 1976, eq. 4 with p = 2) on natural
    logarithms of power. Unlike a mean of absolute values it is least at the mean of the
    logarithm, not at its median, which holes in the reference leave far behind.
    """
    per_frame = ((a - b).square() * mask).sum(2) / (mask.sum(2) + 1e-3)
    # The root's slope is infinite at zero.
    return ((per_frame + 1e-8).sqrt() - 1e-4).mean()


class SpectralLoss(nn.Module):
    """Weighted sum of all views at window lengths from 3 to 43 ms."""

    RESOLUTIONS = ((256, 24), (512, 40), (1024, 80), (2048, 160))
    SMOOTH = (1024, 48)
    SMOOTH_FRAMES = 15
    #: window lengths and their steps
    STEPS = (
        *((n_fft, n_fft // 4) for n_fft, _ in RESOLUTIONS),
        (hop_pattern.N_FFT, hop_pattern.STEP),
    )

    def __init__(self, weights: LossWeights) -> None:
        super().__init__()
        self.weights = weights
        for n_fft, bands in (*self.RESOLUTIONS, self.SMOOTH):
            bank, centres = mel_bank(bands, n_fft)
            self.register_buffer(f"bank_{n_fft}_{bands}", bank, persistent=False)
            self.register_buffer(f"centres_{n_fft}_{bands}", centres, persistent=False)
        for n_fft, _ in self.STEPS:
            window = torch.hann_window(n_fft)
            scale = 1.0 / window.square().sum().sqrt()
            self.register_buffer(f"window_{n_fft}", window * scale, persistent=False)
        self.hop_pattern = hop_pattern.HopPattern()

    def powers(self, estimate: Tensor, reference: Tensor) -> Powers:
        """Power spectra of both signals ``(batch, samples)`` at every window length."""
        return {
            n_fft: (self._power(estimate, n_fft, step), self._power(reference, n_fft, step))
            for n_fft, step in self.STEPS
        }

    def _power(self, audio: Tensor, n_fft: int, step: int) -> Tensor:
        """``(batch, samples)`` to power ``(batch, frames, bins)``; unit noise has power one."""
        spectrum = torch.stft(
            audio,
            n_fft,
            step,
            window=getattr(self, f"window_{n_fft}"),
            center=False,
            return_complex=True,
        )
        return (spectrum.real.square() + spectrum.imag.square()).transpose(1, 2)

    def forward(
        self, spectra: Powers, f_prior: Tensor, f_end: Tensor, noise_floor: Tensor
    ) -> dict[str, Tensor]:
        """Compare spectra from :meth:`powers`; returns every term unweighted, and ``total``.

        ``noise_floor`` is the power below which the reference is not reliable, ``(batch,)``: it is
        added to both signals, so that levels below it are equal.
        """
        floors = noise_floor.clamp(min=LEAST_POWER)[:, None, None]
        terms = {name: f_prior.new_zeros(()) for name in TERMS}
        for n_fft, bands in self.RESOLUTIONS:
            powers = spectra[n_fft]
            bank = getattr(self, f"bank_{n_fft}_{bands}")
            mask = band_mask(getattr(self, f"centres_{n_fft}_{bands}"), f_prior, f_end)
            log = [(power @ bank + floors).log() for power in powers]
            share = 1.0 / len(self.RESOLUTIONS)
            terms["mel"] = terms["mel"] + share * masked_mean((log[0] - log[1]).abs(), mask)
            if n_fft >= 1024:
                frequency = torch.arange(n_fft // 2 + 1, device=mask.device) * SAMPLE_RATE / n_fft
                fine = [(power + floors).log() for power in powers]
                bin_mask = bin_weights(frequency, f_prior, f_end)
                terms["bins"] = terms["bins"] + 0.5 * spectral_distance(fine[0], fine[1], bin_mask)
            if n_fft == self.SMOOTH[0]:
                terms["loudness"] = loudness_error((log[0], log[1]), mask)
                terms.update(self._smoothed(powers, f_prior, f_end, floors))
        terms["tonality"] = tonality.tonal_difference(spectra[tonality.N_FFT], f_prior, f_end)
        terms["hop"] = self.hop_pattern(spectra[hop_pattern.N_FFT], f_prior, f_end)
        terms["total"] = sum(
            (getattr(self.weights, name) * terms[name] for name in TERMS), f_prior.new_zeros(())
        )
        return terms

    def _smoothed(
        self,
        powers: tuple[Tensor, Tensor],
        f_prior: Tensor,
        f_end: Tensor,
        floors: Tensor | float,
    ) -> dict[str, Tensor]:
        n_fft, bands = self.SMOOTH
        bank = getattr(self, f"bank_{n_fft}_{bands}")
        mask = band_mask(getattr(self, f"centres_{n_fft}_{bands}"), f_prior, f_end)
        logs = []
        for power in powers:
            energy = (power @ bank).transpose(1, 2)
            energy = functional.avg_pool1d(energy, self.SMOOTH_FRAMES, 4).transpose(1, 2)
            logs.append((energy + floors).log())
        difference = logs[0] - logs[1]
        # The mean error per clip and band is the most audible one.
        level = difference.mean(dim=1, keepdim=True).abs()
        return {
            "smooth": masked_mean(difference.abs(), mask),
            "level": masked_mean(level, mask),
            "shape": dissimilarity(logs[0], logs[1], mask),
        }


def sliced_wasserstein(a: Tensor, b: Tensor) -> Tensor:
    """Distance of two sets of latent frames as distributions (Bonneel et al. 2015, eq. 9).

    Args:
        a: latents ``(batch, frames, latent)``.
        b: likewise.
    """
    channels = a.shape[2]
    random = functional.normalize(torch.randn(channels, DIRECTIONS, device=a.device), dim=0)
    flat = [x.reshape(-1, channels).float() @ random for x in (a, b)]
    return (flat[0].sort(0).values - flat[1].sort(0).values).abs().mean()
