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


def decline(centres: Tensor, f_prior: Tensor) -> Tensor:
    """Weights ``(batch, 1, bins)`` of bins of equal width, falling above the cutoff.

    The ear's filters widen in proportion to frequency (Glasberg and Moore 1990, eq. 3), so a bin at
    twice the cutoff counts half.
    """
    return (f_prior[:, None, None] / centres.clamp(min=1.0)).clamp(max=1.0)


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

    centres: Tensor
    of_one_bank: Tensor
    bins: Tensor
    factors: Tensor

    RESOLUTIONS = ((256, 24), (512, 40), (1024, 80), (2048, 160))
    SMOOTH = (1024, 48)
    SMOOTH_FRAMES = 15
    #: window lengths whose single bins are compared
    FINE = (1024, 2048)
    #: window lengths and their steps
    STEPS = (
        *((n_fft, n_fft // 4) for n_fft, _ in RESOLUTIONS),
        (hop_pattern.N_FFT, hop_pattern.STEP),
    )

    def __init__(self, weights: LossWeights) -> None:
        super().__init__()
        all_centres = []
        for n_fft, bands in (*self.RESOLUTIONS, self.SMOOTH):
            bank, centres = mel_bank(bands, n_fft)
            self.register_buffer(f"bank_{n_fft}_{bands}", bank, persistent=False)
            all_centres.append(centres)
        # Of all banks in one row, so that they are masked, and their errors weighted, at once.
        self.sizes = [len(centres) for centres in all_centres]
        self.register_buffer("centres", torch.cat(all_centres), persistent=False)
        of_one_bank = torch.block_diag(*(torch.ones(size, size) for size in self.sizes))
        self.register_buffer("of_one_bank", of_one_bank, persistent=False)
        fine = [torch.arange(n_fft // 2 + 1) * SAMPLE_RATE / n_fft for n_fft in self.FINE]
        self.register_buffer("bins", torch.cat(fine), persistent=False)
        factors = torch.tensor([getattr(weights, name) for name in TERMS])
        self.register_buffer("factors", factors, persistent=False)
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
        frames = audio.unfold(1, n_fft, step) * getattr(self, f"window_{n_fft}")
        return torch.view_as_real(torch.fft.rfft(frames)).square().sum(dim=3)

    def forward(
        self, spectra: Powers, f_prior: Tensor, f_end: Tensor, noise_floor: Tensor
    ) -> dict[str, Tensor]:
        """Compare spectra from :meth:`powers`; returns every term unweighted, and ``total``.

        ``noise_floor`` is the power below which the reference is not reliable, ``(batch,)``: it is
        added to both signals, so that levels below it are equal.
        """
        floors = noise_floor.clamp(min=LEAST_POWER)[:, None, None]
        mask = band_mask(self.centres, f_prior, f_end)
        # One per bank and clip, shared among the bands that are compared.
        shares = (mask / (mask @ self.of_one_bank + 1e-6))[:, 0]
        masks = mask.split(self.sizes, dim=2)
        logs = {}
        for n_fft, bands in self.RESOLUTIONS:
            bank = getattr(self, f"bank_{n_fft}_{bands}")
            logs[n_fft] = tuple((power @ bank + floors).log() for power in spectra[n_fft])
        apart = [(estimate - reference).abs().mean(dim=1) for estimate, reference in logs.values()]

        smoothed = self._smoothed(spectra[self.SMOOTH[0]], floors)
        difference = smoothed[0] - smoothed[1]
        apart.append(difference.abs().mean(dim=1))
        # The mean error per clip and band is the most audible one.
        level = (difference.mean(dim=1).abs() * shares[:, -self.SMOOTH[1] :]).sum(dim=1)

        clips = len(f_prior)
        mel, smooth = (torch.cat(apart, dim=1) * shares).split(
            [sum(self.sizes[:-1]), self.sizes[-1]], dim=1
        )
        at_smooth = [n_fft for n_fft, _ in self.RESOLUTIONS].index(self.SMOOTH[0])
        terms = {
            "bins": self._bins(spectra, f_prior, f_end, floors),
            "mel": mel.sum() / (clips * len(self.RESOLUTIONS)),
            "loudness": loudness_error(logs[self.SMOOTH[0]], masks[at_smooth]),
            "smooth": smooth.sum() / clips,
            "level": level.mean(),
            "shape": dissimilarity(*smoothed, masks[-1]).mean(),
            "tonality": tonality.tonal_difference(spectra[tonality.N_FFT], f_prior, f_end),
            "hop": self.hop_pattern(spectra[hop_pattern.N_FFT], f_prior, f_end),
        }
        total = (torch.stack([terms[name] for name in TERMS]) * self.factors).sum()
        return {**terms, "total": total}

    def _bins(self, spectra: Powers, f_prior: Tensor, f_end: Tensor, floors: Tensor) -> Tensor:
        weights = band_mask(self.bins, f_prior, f_end) * decline(self.bins, f_prior)
        sizes = [n_fft // 2 + 1 for n_fft in self.FINE]
        distances = []
        for n_fft, weight in zip(self.FINE, weights.split(sizes, dim=2), strict=True):
            estimate, reference = ((power + floors).log() for power in spectra[n_fft])
            distances.append(spectral_distance(estimate, reference, weight))
        return torch.stack(distances).mean()

    def _smoothed(self, powers: tuple[Tensor, Tensor], floors: Tensor) -> tuple[Tensor, Tensor]:
        """Log energies over 80 ms of both signals, ``(batch, frames, bands)``."""
        bank = getattr(self, "bank_{}_{}".format(*self.SMOOTH))

        def smoothed(power: Tensor) -> Tensor:
            energy = (power @ bank).transpose(1, 2)
            energy = functional.avg_pool1d(energy, self.SMOOTH_FRAMES, 4).transpose(1, 2)
            return (energy + floors).log()

        return smoothed(powers[0]), smoothed(powers[1])


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
