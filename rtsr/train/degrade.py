"""Batched simulation of band-limited recordings on the training device.

Varied filters, bit depths and cutoffs matter as much as the network: AudioLBM's ablation without
them is 0.37 worse in LSD. Everything above the cutoff is really removed and the rest is rounded
to 8-24 bits or companded, because a network trained on clean float input learns to read traces
that no real file holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy import signal
from torch import Tensor

from rtsr.model.config import SAMPLE_RATE
from rtsr.train.coded import CodedRows
from rtsr.train.g711 import a_law, mu_law
from rtsr.train.room import draw_rooms

#: Telephone coders work at 8 kHz: every so many samples of 48 kHz.
TELEPHONE_STEP = 6
TELEPHONE_HZ = 4000.0
#: the end that is told where none is known
OPEN_END_HZ = SAMPLE_RATE / 2
#: Mean power of a bin (white noise of unit variance has one) below which a recording says nothing:
#: the rounding to 16 bits, or what a coder may have left out because nobody hears it.
LOSSLESS_FLOOR = 10.0**-10.5
LOSSY_FLOOR = 10.0**-8.5


@dataclass(frozen=True)
class DegradeConfig:
    """How inputs are degraded; shares are probabilities per clip.

    ``codec_share`` of the clips take their input from a version that really went through a coder,
    where such versions were prepared; ``companding_share`` of those below 4 kHz are telephone
    coded on the fly.

    ``told_share`` of the clips tell the model where their truth ends; of the others it hears
    :data:`OPEN_END_HZ`, as nobody knows better live. All are judged up to their own end only.

    ``room_share`` of the clips stand in another room (:mod:`rtsr.train.room`), truth and input.
    ``speed_share`` of the clips that were not coded are played at another speed, from
    ``lowest_speed`` to ``highest_speed``: faster ones end higher, and teach the top.
    """

    lowest_hz: float = 1000.0
    highest_hz: float = 20000.0
    narrow_share: float = 0.35
    wide_share: float = 0.25
    analog_share: float = 0.4
    companding_share: float = 0.08
    codec_share: float = 0.12
    floor_share: float = 0.25
    equalizer_share: float = 0.4
    mix_share: float = 0.12
    room_share: float = 0.2
    speed_share: float = 0.3
    lowest_speed: float = 0.85
    highest_speed: float = 1.5
    told_share: float = 0.5
    cutoff_jitter: float = 0.03


@dataclass
class Degraded:
    """One batch: ``truth`` and ``narrow`` audio ``(batch, 1, samples)``; per clip ``(batch,)``:
    ``f_prior`` in Hz as the run-time would be told it, ``f_end`` where the truth ends, ``f_target``
    the same or :data:`OPEN_END_HZ` where that is kept back, and ``floor``, the power of a bin below
    which the truth says nothing."""

    truth: Tensor
    narrow: Tensor
    f_prior: Tensor
    f_target: Tensor
    f_end: Tensor
    floor: Tensor


@lru_cache(maxsize=256)
def _prototype(kind: str, order: int, ripple: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Zeros, poles and gain of an analog low-pass with its band edge at 1 rad/s."""
    if kind == "butterworth":
        return signal.buttap(order)
    if kind == "bessel":
        return signal.besselap(order, norm="mag")
    if kind == "chebyshev":
        return signal.cheb1ap(order, ripple)
    return signal.ellipap(order, ripple, 50.0 + 10.0 * order % 40)


def _analog_response(
    frequencies: np.ndarray, cutoff: float, rng: np.random.Generator
) -> np.ndarray:
    kind = str(rng.choice(["butterworth", "bessel", "chebyshev", "elliptic"]))
    ripple = float(rng.choice([0.05, 0.2, 0.5, 1.0]))
    zeros, poles, gain = _prototype(kind, int(rng.integers(2, 11)), ripple)
    s = (1j * frequencies / cutoff).astype(np.complex64)
    response = np.full_like(s, gain)
    for zero in zeros:
        response *= s - np.complex64(zero)
    for pole in poles:
        response /= s - np.complex64(pole)
    return response


def _resampler_response(
    frequencies: np.ndarray, cutoff: float, rng: np.random.Generator
) -> np.ndarray:
    """Linear-phase wall that is down at the cutoff and starts to fall at 84-97 % of it."""
    start = cutoff * rng.uniform(0.84, 0.97)
    position = ((frequencies - start) / (cutoff - start)).clip(0.0, 1.0)
    return (0.5 + 0.5 * np.cos(np.pi * position)).astype(np.float32)


def _equalizer(frequencies: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A smooth random response over octaves: another microphone, another room.

    One half are +-5 dB at every octave by itself, the other half walk up and down from octave to
    octave, as a tilt does.
    """
    if rng.random() < 0.5:
        knots = rng.uniform(-5.0, 5.0, 8)
    else:
        knots = rng.normal(0.0, 2.5, 8).cumsum()
        knots = (knots - knots.mean()).clip(-10.0, 10.0)
    octave = np.log2(np.maximum(frequencies, 60.0) / 60.0)
    gain_db = np.interp(octave, np.linspace(0.0, octave[-1], 8), knots)
    return (10.0 ** (gain_db / 20.0)).astype(np.float32)


def _floor_spectrum(frequencies: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Amplitude of a noise floor at -95 to -60 dBFS with a random tilt per octave."""
    tilt_db = rng.uniform(-4.0, 1.0) * np.log2(np.maximum(frequencies, 100.0) / 1000.0)
    return (10.0 ** ((rng.uniform(-95.0, -60.0) + tilt_db) / 20.0)).astype(np.float32)


def draw_cutoffs(ends: np.ndarray, config: DegradeConfig, rng: np.random.Generator) -> np.ndarray:
    """Draw each clip's cutoff in Hz, below 80 % of where its own content ends."""
    cutoffs = np.empty(len(ends))
    for index, end in enumerate(ends):
        kind = rng.random()
        if kind < config.narrow_share:
            cutoff = rng.choice([4000.0, 4000.0, rng.uniform(3200.0, 4100.0)])
        elif kind < config.narrow_share + config.wide_share:
            cutoff = rng.choice([8000.0, 8000.0, rng.uniform(6500.0, 8100.0)])
        else:
            cutoff = rng.uniform(config.lowest_hz, config.highest_hz)
        cutoffs[index] = min(cutoff, 0.8 * end)
    return cutoffs


def _telephone(audio: Tensor, is_a_law: Tensor) -> Tensor:
    """Eight bits at 8 kHz (ITU-T G.711) of audio ``(batch, samples)`` that ends below 4 kHz.

    What comes out is not filtered yet: it still has images above 4 kHz.
    """
    samples = audio[:, ::TELEPHONE_STEP]
    coded = torch.zeros_like(audio)
    decoded = torch.where(is_a_law[:, None], a_law(samples), mu_law(samples))
    coded[:, ::TELEPHONE_STEP] = TELEPHONE_STEP * decoded
    return coded


def _quantise(audio: Tensor, bits: Tensor, dither: Tensor) -> Tensor:
    """Round to ``bits`` with triangular dither of two steps, as ``(batch, samples)``."""
    step = 2.0 ** (1.0 - bits)[:, None]
    return ((audio / step + dither).round() * step).clamp(-1.0, 1.0)


def degrade(
    clips: Tensor,
    ends: np.ndarray,
    config: DegradeConfig,
    rng: np.random.Generator,
    coded: CodedRows | None = None,
    lossy: np.ndarray | None = None,
) -> Degraded:
    """Make truth and band-limited input from clips that end at ``ends`` Hz.

    Args:
        clips: ``(batch, samples)`` in [-1, 1], on the device that does the work.
        ends: ``(batch,)`` Hz.
        rng: the only source of chance, apart from torch's for noise.
        coded: rows whose input was coded beforehand. They keep their spectrum and get no neighbour
            and no floor, which the coder has not heard; the gain is the same for both.
        lossy: ``(batch,)`` bool, clips that a coder has been at before; none if absent.
    """
    batch, samples = clips.shape
    device = clips.device
    ends = np.array(ends, dtype=np.float64)
    frequencies = np.fft.rfftfreq(samples, 1.0 / SAMPLE_RATE)
    is_coded = np.zeros(batch, bool)
    if coded is not None:
        is_coded[coded.rows] = True
    lossy = np.zeros(batch, bool) if lossy is None else lossy
    clips, ends, lossy = _mix(clips, ends, lossy, config, rng, ~is_coded)

    shaping = np.ones((batch, len(frequencies)), np.float32)
    floors = np.zeros((batch, len(frequencies)), np.float32)
    for row in np.flatnonzero(~is_coded):
        if rng.random() < config.equalizer_share:
            shaping[row] = _equalizer(frequencies, rng)
        if rng.random() < config.floor_share:
            floors[row] = _floor_spectrum(frequencies, rng) * (frequencies < ends[row])
    spectrum = torch.fft.rfft(clips) * torch.from_numpy(shaping).to(device)
    in_rooms = np.flatnonzero(~is_coded & (rng.random(batch) < config.room_share))
    if len(in_rooms):
        rows = torch.from_numpy(in_rooms).to(device)
        spectrum[rows] = spectrum[rows] * draw_rooms(len(in_rooms), samples, rng, device)
    noise = torch.fft.rfft(torch.randn(batch, samples, device=device))
    peak = _peak(torch.fft.irfft(spectrum, samples))
    if coded is not None:
        rows = torch.from_numpy(coded.rows).to(device)
        heard = torch.from_numpy(coded.audio).to(device)
        # A coder overshoots, and neither side may be clipped.
        peak[rows] = torch.maximum(peak[rows], _peak(heard))
    loudest = torch.from_numpy(10.0 ** (rng.uniform(-30.0, -0.5, batch) / 20.0)).float().to(device)
    gain = (loudest[:, None] / peak.clamp(min=1e-3)).clamp(max=8.0)
    spectrum = spectrum * gain + noise * torch.from_numpy(floors).to(device)
    truth = torch.fft.irfft(spectrum, samples)

    cutoffs = draw_cutoffs(ends, config, rng)
    jitter = 1.0 + rng.uniform(-config.cutoff_jitter, config.cutoff_jitter, batch)
    if coded is not None:
        cutoffs[coded.rows] = coded.cutoffs_hz
        jitter[coded.rows] = 1.0
    walls, filters = _draw_filters(frequencies, cutoffs, is_coded, config, rng)
    bits = torch.from_numpy(
        rng.choice([8.0, 12.0, 14.0, 16.0, 24.0], batch, p=[0.04, 0.06, 0.1, 0.6, 0.2])
    ).float()
    is_call = (cutoffs <= TELEPHONE_HZ) & (rng.random(batch) < config.companding_share) & ~is_coded
    wall = torch.from_numpy(walls).to(device)
    narrow = torch.fft.irfft(spectrum * wall * torch.from_numpy(filters).to(device), samples)
    dither = torch.rand(batch, samples, device=device) - torch.rand(batch, samples, device=device)
    rounded = _quantise(narrow, bits.to(device), dither)
    if is_call.any():
        calls = torch.from_numpy(np.flatnonzero(is_call)).to(device)
        is_a_law = torch.from_numpy(rng.random(len(calls)) < 0.5).to(device)
        rounded[calls] = _telephone(narrow[calls], is_a_law)
    if coded is not None:
        rounded[rows] = heard * gain[rows]
    narrow = torch.fft.irfft(torch.fft.rfft(rounded) * (wall > 0.0), samples)

    told = np.where(rng.random(batch) < config.told_share, ends, OPEN_END_HZ)
    says_nothing = torch.from_numpy(np.where(lossy, LOSSY_FLOOR, LOSSLESS_FLOOR)).to(device)
    return Degraded(
        truth=truth[:, None],
        narrow=narrow[:, None],
        f_prior=torch.from_numpy(cutoffs * jitter).float().to(device),
        f_target=torch.from_numpy(told).float().to(device),
        f_end=torch.from_numpy(ends).float().to(device),
        floor=says_nothing.float() * gain[:, 0].square(),
    )


def _draw_filters(
    frequencies: np.ndarray,
    cutoffs: np.ndarray,
    is_coded: np.ndarray,
    config: DegradeConfig,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Each clip's wall and the response of the filter before it, ``(batch, bins)`` both."""
    walls = (frequencies < cutoffs[:, None]).astype(np.float32)
    filters = np.ones((len(cutoffs), len(frequencies)), np.complex64)
    for row in np.flatnonzero(~is_coded):
        walls[row] = _resampler_response(frequencies, cutoffs[row], rng)
        if rng.random() < config.analog_share:
            edge = cutoffs[row] * rng.uniform(0.8, 1.05)
            filters[row] = _analog_response(frequencies, edge, rng)
    return walls, filters


def _peak(audio: Tensor) -> Tensor:
    return audio.abs().amax(dim=1, keepdim=True)


def _mix(
    clips: Tensor,
    ends: np.ndarray,
    lossy: np.ndarray,
    config: DegradeConfig,
    rng: np.random.Generator,
    allowed: np.ndarray,
) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Add a neighbour, 0 to 20 dB below, to some allowed clips: real sound is rarely alone."""
    is_mixed = allowed & (rng.random(len(ends)) < config.mix_share)
    gains = torch.from_numpy(is_mixed * 10.0 ** (rng.uniform(-20.0, 0.0, len(ends)) / 20.0))
    mixed = clips + gains.float().to(clips.device)[:, None] * clips.roll(1, 0)
    return (
        mixed,
        np.where(is_mixed, np.minimum(ends, np.roll(ends, 1)), ends),
        np.where(is_mixed, lossy | np.roll(lossy, 1), lossy),
    )
