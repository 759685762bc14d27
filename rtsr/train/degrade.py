"""Batched simulation of band-limited recordings on the training device.

Varied filters, bit depths and cutoffs matter as much as the network: AudioLBM's ablation without
them is 0.37 worse in LSD. Everything above the cutoff is really removed and the rest is rounded
to 8-24 bits or companded, because a network trained on clean float input learns to read traces
that no real file holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from rtsr.timing import SAMPLE_RATE
from rtsr.train.codec_versions import CodecRows
from rtsr.train.device import placed, sent
from rtsr.train.g711 import telephone
from rtsr.train.low_passes import analog_responses, draw_low_passes, low_pass_gains
from rtsr.train.room import draw_rooms

TELEPHONE_HZ = 4000.0
#: the end that is given where none is known
OPEN_END_HZ = SAMPLE_RATE / 2
#: Mean power of a bin (white noise of unit variance has one) below which a recording is not
#: reliable: rounding to 16 bits, or parts that a coder may have left out as inaudible.
LOSSLESS_NOISE_FLOOR = 10.0**-10.5
LOSSY_NOISE_FLOOR = 10.0**-8.5
#: of an equaliser
KNOTS = 8


@dataclass(frozen=True)
class DegradeConfig:
    """How inputs are degraded; shares are probabilities per clip.

    ``codec_share`` of the clips take their input from a codec-degraded version, where such versions
    were prepared; ``companding_share`` of those below 4 kHz go through G.711.

    ``told_share`` of the clips give the model the frequency where their reference ends; the others
    give it :data:`OPEN_END_HZ`, as at run-time. Losses compare all up to their own end only.

    ``room_share`` of the clips get a random room (:mod:`rtsr.train.room`), reference and input.
    ``speed_share`` of the clips that are not codec-degraded are played at another speed, from
    ``lowest_speed`` to ``highest_speed``: faster ones reach higher frequencies.
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
    """One batch of references and inputs.

    ``reference`` and ``narrow`` are audio ``(batch, 1, samples)``. Per clip ``(batch,)``:
    ``f_prior`` in Hz as the run-time would measure it, ``f_end`` where the reference ends,
    ``f_target`` the same or :data:`OPEN_END_HZ` where that is withheld, and ``noise_floor``, the
    power of a bin below which the reference is not reliable. ``cutoffs_hz`` is ``f_prior`` as
    Python numbers, so that nothing need be read from a GPU.
    """

    reference: Tensor
    narrow: Tensor
    f_prior: Tensor
    f_target: Tensor
    f_end: Tensor
    noise_floor: Tensor
    cutoffs_hz: list[float]


@lru_cache(maxsize=8)
def frequency_axis(samples: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return what all spectra of one length share, on the device.

    Returns:
        Frequencies in Hz ``(bins,)``, octaves above 1 kHz ``(bins,)`` of them (from 100 Hz up),
        and what turns the knots of an equaliser into its decibels, ``(knots, bins)``.
    """
    frequencies = np.fft.rfftfreq(samples, 1.0 / SAMPLE_RATE)
    octave = np.log2(np.maximum(frequencies, 60.0) / 60.0)
    position = octave / octave[-1] * (KNOTS - 1)
    hats = np.maximum(1.0 - np.abs(position - np.arange(KNOTS)[:, None]), 0.0)
    octaves = np.log2(np.maximum(frequencies, 100.0) / 1000.0)
    return (
        torch.from_numpy(frequencies).float().to(device),
        torch.from_numpy(octaves).float().to(device),
        torch.from_numpy(hats).float().to(device),
    )


def amplitude(decibels: Tensor) -> Tensor:
    """Return factors of amplitude for decibels."""
    return (decibels * (math.log(10.0) / 20.0)).exp()


def draw_knots(rng: np.random.Generator) -> np.ndarray:
    """Decibels at eight places over the octaves: another microphone, another room.

    One half are +-5 dB at every octave by itself, the other half walk up and down from octave to
    octave, as a tilt does.
    """
    if rng.random() < 0.5:
        return rng.uniform(-5.0, 5.0, KNOTS)
    knots = rng.normal(0.0, 2.5, KNOTS).cumsum()
    return (knots - knots.mean()).clip(-10.0, 10.0)


def draw_floor(rng: np.random.Generator) -> tuple[float, float]:
    """Draw a noise floor: its tilt in dB per octave, and -95 to -60 dBFS at 1 kHz."""
    tilt = float(rng.uniform(-4.0, 1.0))
    return tilt, float(rng.uniform(-95.0, -60.0))


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


def _quantise(audio: Tensor, bits: Tensor, dither: Tensor) -> Tensor:
    """Round to ``bits`` with triangular dither of two steps, as ``(batch, samples)``."""
    step = 2.0 ** (1.0 - bits)[:, None]
    return ((audio / step + dither).round() * step).clamp(-1.0, 1.0)


def degrade(
    clips: Tensor,
    ends: np.ndarray,
    config: DegradeConfig,
    rng: np.random.Generator,
    codec_rows: CodecRows | None = None,
    lossy: np.ndarray | None = None,
) -> Degraded:
    """Make reference and band-limited input from clips that end at ``ends`` Hz.

    Args:
        clips: ``(batch, samples)`` in [-1, 1], on the device that does the work.
        ends: ``(batch,)`` Hz.
        rng: the only source of randomness, apart from torch's for noise.
        config: shares and ranges of the degradations.
        codec_rows: rows whose input is codec-degraded. They keep their spectrum and get no second
            clip and no noise floor, which the coder's input did not have; the gain is the same for
            both.
        lossy: ``(batch,)`` bool, clips whose recording was lossy already; none if absent.
    """
    batch, samples = clips.shape
    ends = np.array(ends, dtype=np.float64)
    coded = None
    is_codec_row = np.zeros(batch, bool)
    if codec_rows is not None:
        is_codec_row[codec_rows.rows] = True
        coded = _Coded(_rows(codec_rows.rows, clips.device), placed(codec_rows.audio, clips.device))
    lossy = np.zeros(batch, bool) if lossy is None else lossy
    clips, ends, lossy = mix(clips, ends, lossy, config, rng, ~is_codec_row)
    spectrum, gain = _recorded(clips, ends, config, rng, is_codec_row, coded)
    reference = torch.fft.irfft(spectrum, samples)

    cutoffs = draw_cutoffs(ends, config, rng)
    jitter = 1.0 + rng.uniform(-config.cutoff_jitter, config.cutoff_jitter, batch)
    if codec_rows is not None:
        cutoffs[codec_rows.rows] = codec_rows.cutoffs_hz
        jitter[codec_rows.rows] = 1.0
    if coded is not None:
        coded.audio = coded.audio * gain[coded.rows]
    narrow = _narrowed(spectrum, samples, cutoffs, config, rng, is_codec_row, coded)

    given_ends = np.where(rng.random(batch) < config.told_share, ends, OPEN_END_HZ)
    unreliable = np.where(lossy, LOSSY_NOISE_FLOOR, LOSSLESS_NOISE_FLOOR)
    given_cutoffs = (cutoffs * jitter).astype(np.float32)
    f_prior, f_target, f_end, noise_floor = placed(
        np.stack([given_cutoffs, given_ends, ends, unreliable]), clips.device
    )
    return Degraded(
        reference=reference[:, None],
        narrow=narrow[:, None],
        f_prior=f_prior,
        f_target=f_target,
        f_end=f_end,
        noise_floor=noise_floor * gain[:, 0].square(),
        cutoffs_hz=given_cutoffs.tolist(),
    )


@dataclass
class _Coded:
    """Rows of a batch on the device, and their coded versions ``(rows, samples)``."""

    rows: Tensor
    audio: Tensor


def _recorded(
    clips: Tensor,
    ends: np.ndarray,
    config: DegradeConfig,
    rng: np.random.Generator,
    is_codec_row: np.ndarray,
    coded: _Coded | None,
) -> tuple[Tensor, Tensor]:
    """Record clips with another microphone, room, noise floor and level.

    Returns:
        the spectra of the references, ``(batch, bins)``, and each clip's gain ``(batch, 1)``.
    """
    batch, samples = clips.shape
    device = clips.device
    frequencies, octaves, hats = frequency_axis(samples, device)
    knots = np.zeros((batch, KNOTS))
    tilts, floors_db = np.zeros(batch), np.full(batch, -np.inf)
    for row in np.flatnonzero(~is_codec_row):
        if rng.random() < config.equalizer_share:
            knots[row] = draw_knots(rng)
        if rng.random() < config.floor_share:
            tilts[row], floors_db[row] = draw_floor(rng)
    spectrum = torch.fft.rfft(clips) * amplitude(placed(knots, device) @ hats)
    in_rooms = np.flatnonzero(~is_codec_row & (rng.random(batch) < config.room_share))
    if len(in_rooms):
        rows = _rows(in_rooms, device)
        spectrum[rows] = spectrum[rows] * draw_rooms(len(in_rooms), samples, rng, device)
    noise = torch.fft.rfft(torch.randn(batch, samples, device=device))
    peak = _peak(torch.fft.irfft(spectrum, samples))
    if coded is not None:
        # A coder overshoots, and neither side may be clipped.
        peak[coded.rows] = torch.maximum(peak[coded.rows], _peak(coded.audio))
    loudest_db, end, tilt, floor_db = placed(
        np.stack([rng.uniform(-30.0, -0.5, batch), ends, tilts, floors_db])[:, :, None], device
    )
    gain = (amplitude(loudest_db) / peak.clamp(min=1e-3)).clamp(max=8.0)
    floors = amplitude(floor_db + tilt * octaves) * (frequencies < end)
    return spectrum * gain + noise * floors, gain


def _narrowed(
    spectrum: Tensor,
    samples: int,
    cutoffs: np.ndarray,
    config: DegradeConfig,
    rng: np.random.Generator,
    is_codec_row: np.ndarray,
    coded: _Coded | None,
) -> Tensor:
    """Take spectra ``(batch, bins)`` down to their cutoffs and few bits; ``(batch, samples)``."""
    batch, device = len(cutoffs), spectrum.device
    frequencies, _, _ = frequency_axis(samples, device)
    low_passes = draw_low_passes(cutoffs, ~is_codec_row, config.analog_share, rng)
    bits = rng.choice([8.0, 12.0, 14.0, 16.0, 24.0], batch, p=[0.04, 0.06, 0.1, 0.6, 0.2])
    is_call = (
        (cutoffs <= TELEPHONE_HZ) & (rng.random(batch) < config.companding_share) & ~is_codec_row
    )
    gains = low_pass_gains(frequencies, cutoffs, low_passes.slope_starts)
    narrow_spectrum = spectrum * gains
    if low_passes.rows:
        analog = _rows(np.array(low_passes.rows), device)
        responses = analog_responses(frequencies, low_passes)
        narrow_spectrum[analog] = narrow_spectrum[analog] * responses
    narrow = torch.fft.irfft(narrow_spectrum, samples)
    dither = torch.rand(batch, samples, device=device) - torch.rand(batch, samples, device=device)
    rounded = _quantise(narrow, placed(bits, device), dither)
    if is_call.any():
        calls = _rows(np.flatnonzero(is_call), device)
        is_a_law = sent(torch.from_numpy(rng.random(len(calls)) < 0.5), device)
        rounded[calls] = telephone(narrow[calls], is_a_law)
    if coded is not None:
        rounded[coded.rows] = coded.audio
    return torch.fft.irfft(torch.fft.rfft(rounded) * (gains > 0.0), samples)


def _rows(places: np.ndarray, device: torch.device) -> Tensor:
    return sent(torch.from_numpy(places), device)


def _peak(audio: Tensor) -> Tensor:
    return audio.abs().amax(dim=1, keepdim=True)


def mix(
    clips: Tensor,
    ends: np.ndarray,
    lossy: np.ndarray,
    config: DegradeConfig,
    rng: np.random.Generator,
    allowed: np.ndarray,
) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Add a neighbour, 0 to 20 dB below, to some allowed clips: real sound is rarely alone."""
    is_mixed = allowed & (rng.random(len(ends)) < config.mix_share)
    gains = placed(is_mixed * 10.0 ** (rng.uniform(-20.0, 0.0, len(ends)) / 20.0), clips.device)
    mixed = clips + gains[:, None] * clips.roll(1, 0)
    return (
        mixed,
        np.where(is_mixed, np.minimum(ends, np.roll(ends, 1)), ends),
        np.where(is_mixed, lossy | np.roll(lossy, 1), lossy),
    )
