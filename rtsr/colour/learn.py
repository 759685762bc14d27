"""Learning a colour from full-band sound: degrade it, enhance it, compare levels per band."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rtsr.arguments import check_audio_format
from rtsr.audio.reader import open_input
from rtsr.bandwidth.file_cutoff import measure_cutoff
from rtsr.colour.bands import CUTOFFS_HZ, NARROW_RATES, colour_edges
from rtsr.colour.colour import Colour
from rtsr.colour.estimate import estimate_gains
from rtsr.errors import ArgumentError, AudioFormatError
from rtsr.quality.band_powers import (
    FRAMES_PER_SECOND,
    LOWEST_DB,
    SOUND_RANGE_DB,
    band_powers,
    decibels,
    level_errors,
)
from rtsr.runtime.models import Model
from rtsr.timing import SAMPLE_RATE
from rtsr.upsampler import Upsampler
from rtsr_kernels.resample import StreamingResampler

Audio = NDArray[np.float32]
Levels = NDArray[np.float64]
#: A sound file, or samples in [-1, 1] ``(samples,)`` or ``(samples, channels)`` and their rate.
Recording: TypeAlias = str | Path | tuple[NDArray[Any], int]
Progress = Callable[[int, int], None]

LEAST_SECONDS = 10.0
#: More than this of all recordings together is not listened to.
MOST_SECONDS = 120.0
#: Below this a recording has no full band: 32 kHz recordings and MP3 of 128 kbit/s still have one.
FULL_BAND_FROM_HZ = 15000.0

# The loudest frame of what counts as silence, over all frequencies.
_SILENCE_DB = -70.0
_LEAST_SOUND_SECONDS = 2.0
_DITHER_SEED = 1


def learn_colour(
    recordings: Sequence[Recording],
    *,
    model: Model | str | Path = "small",
    provider: str = "auto",
    progress: Progress | None = None,
) -> Colour:
    """Learn the gains that a model lacks on a voice, an instrument or a microphone.

    The sound is brought to 8, 11.025, 16 and 24 kHz at 16 bits and enhanced again. The mean
    difference in dB between its own level and the generated one, per band and over frames with
    sound, becomes a gain, drawn towards zero by how unsure it is
    (:func:`~rtsr.colour.estimate.estimate_gains`).

    Args:
        recordings: full-band sound of one voice or source, at least 10 s in all; the first two
            minutes are listened to. Files, or pairs of samples and their rate in Hz.
        model: as for :class:`~rtsr.upsampler.Upsampler`, whose colour it will be.
        provider: execution provider.
        progress: called with the steps done and the steps in total.

    Raises:
        AudioFormatError: a recording cannot be read, or has no full band.
        ArgumentError: less than 10 s, silence, or nothing at all is given.
        ModelError, ProviderError, MissingDependencyError: the model cannot be run.
    """
    if isinstance(recordings, str | Path) or not recordings:
        raise ArgumentError("A colour is learnt from a list of recordings; give at least one.")
    sounds = _read_all(recordings)
    levels = [Reference(sound, own_hz) for sound, own_hz in sounds]
    seconds = sum(level.sound_seconds for level in levels)
    if seconds < _LEAST_SOUND_SECONDS:
        raise ArgumentError(
            f"The recordings hold {seconds:.1f} s of sound beside silence; a colour needs at least "
            f"{_LEAST_SOUND_SECONDS:g} s."
        )
    steps, done, rows = len(NARROW_RATES) * len(sounds), 0, []
    found: Model | None = None
    for rate, cutoff_hz in zip(NARROW_RATES, CUTOFFS_HZ, strict=True):
        errors, is_measured = [], []
        for (sound, _), reference in zip(sounds, levels, strict=True):
            with Upsampler(
                rate,
                model=model if found is None else found,
                provider=provider,
                channels=sound.shape[1],
                hops_per_step=4,
                cutoff=cutoff_hz,
                limiter=False,
            ) as upsampler:
                found = upsampler.model
                enhanced = _enhance(upsampler, degrade(sound, rate), len(sound))
                ends_hz = min(reference.own_hz, upsampler.ceiling)
            error, measured = reference.compare(enhanced, cutoff_hz, ends_hz)
            errors.append(error)
            is_measured.append(measured)
            done += 1
            if progress is not None:
                progress(done, steps)
        gains = estimate_gains(np.concatenate(errors), np.concatenate(is_measured), cutoff_hz)
        rows.append(tuple(float(gain) for gain in gains))
    assert found is not None
    return Colour(found.metadata.name, found.metadata.weights_sha256, seconds, tuple(rows))


class Reference:
    """Band levels of a recording, and which of its frames have sound.

    Attributes:
        own_hz: where its content ends.
        sound_seconds: of frames with sound, as a mean over channels.
    """

    def __init__(self, sound: Audio, own_hz: float) -> None:
        self.own_hz = own_hz
        self._channels = []
        for channel in sound.T:
            bands, wholes = _powers(channel)
            least = max(wholes.max() * 10.0 ** (-SOUND_RANGE_DB / 10.0), 10.0 ** (_SILENCE_DB / 10))
            self._channels.append((bands, wholes >= least))
        frames = sum(int(has_sound.sum()) for _, has_sound in self._channels)
        self.sound_seconds = frames / FRAMES_PER_SECOND / sound.shape[1]

    def compare(
        self,
        enhanced: Audio,
        cutoff_hz: float,
        ends_hz: float,
        *,
        first: int = 0,
        last: int | None = None,
    ) -> tuple[Levels, NDArray[np.bool_]]:
        """Return the errors of frames with sound ``(frames, 24)`` in dB, and which count.

        Args:
            enhanced: ``(samples, channels)``, aligned.
            cutoff_hz: where the content of what was enhanced ended.
            ends_hz: above this nothing is compared.
            first: frame of 10 ms to begin with.
            last: the first frame that is left out again.
        """
        edges = colour_edges()
        # A band that the cutoff or the end of the content runs through tells of both sides.
        inside = (edges[:-1] >= cutoff_hz * 0.999) & (edges[1:] <= ends_hz)
        errors, measured = [], []
        for (reference, has_sound), channel in zip(self._channels, enhanced.T, strict=True):
            error = level_errors(reference, _powers(channel)[0])
            chosen = np.flatnonzero(has_sound)
            chosen = chosen[
                (chosen >= first) & (chosen < (len(has_sound) if last is None else last))
            ]
            errors.append(error[chosen])
            measured.append((inside & (decibels(reference) > LOWEST_DB))[chosen])
        return np.concatenate(errors), np.concatenate(measured)


def _read_all(recordings: Sequence[Recording]) -> list[tuple[Audio, float]]:
    """Return each recording ``(samples, channels)`` at 48 kHz, and where its content ends in Hz."""
    sounds: list[tuple[Audio, float]] = []
    seconds, left = 0.0, MOST_SECONDS
    for number, recording in enumerate(recordings, 1):
        if isinstance(recording, str | Path):
            name = f"Recording '{recording}'"
            samples, rate = _read_file(Path(recording), left)
        else:
            name = f"Recording {number}"
            samples, rate = _check_samples(recording, name)
            samples = samples[: round(left * rate)]
        if not len(samples):
            continue
        wide, own_hz = read_recording(samples, rate, name)
        seconds += len(samples) / rate
        left = max(0.0, left - len(samples) / rate)
        sounds.append((wide, own_hz))
    if seconds < LEAST_SECONDS:
        raise ArgumentError(
            f"A colour needs at least {LEAST_SECONDS:g} s of full-band sound, not {seconds:.1f} s; "
            "give a longer recording, or several of the same voice."
        )
    return sounds


def read_recording(
    samples: Audio, rate: int, name: str, narrowest_hz: float = FULL_BAND_FROM_HZ
) -> tuple[Audio, float]:
    """Return ``(samples, channels)`` at 48 kHz, and where their content ends in Hz.

    Raises:
        AudioFormatError: it ends below ``narrowest_hz``; ``name`` is the subject of the sentence.
        ArgumentError: there is silence alone.
    """
    loudest = samples[:, int(np.argmax(np.square(samples).sum(axis=0)))]
    if not np.abs(loudest).max() > 10.0 ** (_SILENCE_DB / 20.0):
        raise ArgumentError(f"{name} is silent; a colour is learnt from sound.")
    own_hz = measure_cutoff(loudest, rate)
    if own_hz < narrowest_hz:
        raise AudioFormatError(
            f"{name} ends at {own_hz / 1000.0:.1f} kHz; full-band sound is needed, up to "
            f"{narrowest_hz / 1000.0:g} kHz or more."
        )
    return _to_rate(samples, rate, SAMPLE_RATE), own_hz


def _read_file(path: Path, most_seconds: float) -> tuple[Audio, int]:
    with open_input(path) as file:
        check_audio_format(file.rate, SAMPLE_RATE, file.channels)
        blocks, missing = [], round(most_seconds * file.rate)
        for block in file.blocks():
            blocks.append(block[:missing])
            missing -= len(blocks[-1])
            if missing <= 0:
                break
        if not blocks:
            raise AudioFormatError(f"Recording '{path}' is damaged: nothing of it can be decoded.")
        return _usable(np.concatenate(blocks)), file.rate


def _check_samples(recording: Any, name: str) -> tuple[Audio, int]:
    try:
        samples, rate = recording
        array = np.asarray(samples)
    except (TypeError, ValueError):
        raise ArgumentError(
            f"{name} must be a file's path, or a pair of samples and their rate in Hz."
        ) from None
    if array.dtype == np.int16:
        array = array.astype(np.float32) / np.float32(32768.0)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.dtype.kind != "f":
        raise AudioFormatError(
            f"{name} must hold floating-point or 16-bit samples (samples,) or (samples, channels), "
            f"not {array.dtype} {array.shape}."
        )
    check_audio_format(rate, SAMPLE_RATE, array.shape[1])
    return _usable(array.astype(np.float32)), int(rate)


def _usable(samples: Audio) -> Audio:
    """Return the samples, those that are no usable numbers as silence."""
    return np.where(np.abs(samples) <= 8.0, samples, np.float32(0.0))


def _to_rate(samples: Audio, rate: int, new_rate: int) -> Audio:
    """Convert ``(samples, channels)`` and take the conversion's delay out."""
    if rate == new_rate:
        return samples
    resampler = StreamingResampler(rate, new_rate, samples.shape[1])
    tail = np.zeros((rate // 10, samples.shape[1]), np.float32)
    converted = resampler.process(np.concatenate([samples, tail]))
    length = round(len(samples) * new_rate / rate)
    return converted[resampler.delay : resampler.delay + length]


def degrade(sound: Audio, rate: int) -> Audio:
    """Return ``sound`` as a 16-bit file of another rate holds it, with triangular dither."""
    narrow = _to_rate(sound, SAMPLE_RATE, rate)
    random = np.random.default_rng(_DITHER_SEED)
    dither = random.random(narrow.shape) - random.random(narrow.shape)
    codes = np.clip(np.rint(narrow * 32768.0 + dither), -32768, 32767)
    return (codes / 32768.0).astype(np.float32)


def _enhance(upsampler: Upsampler, narrow: Audio, length: int) -> Audio:
    """Return the enhanced sound, aligned with the 48 kHz original and as long."""
    late = upsampler.latency.algorithmic_samples
    wide = np.concatenate([upsampler.process(narrow), upsampler.flush()])[late:]
    wide = wide.reshape(len(wide), -1)[:length]
    return np.pad(wide, ((0, length - len(wide)), (0, 0)))


def _powers(channel: Audio) -> tuple[Levels, Levels]:
    """Return powers of a colour's bands ``(frames, 24)`` and of whole frames ``(frames,)``."""
    return band_powers(channel.astype(np.float64), colour_edges())
