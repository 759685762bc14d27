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
from rtsr.colour.bands import CUTOFFS_HZ, NARROW_RATES
from rtsr.colour.colour import Colour
from rtsr.colour.degrade import convert_rate, degrade
from rtsr.colour.estimate import ErrorSums, estimate_gains
from rtsr.colour.reference import SILENCE_DB, Reference
from rtsr.colour.spectrum import spectrum_of
from rtsr.errors import ArgumentError, AudioFormatError
from rtsr.runtime.models import Model
from rtsr.timing import SAMPLE_RATE
from rtsr.upsampler import Upsampler

Audio = NDArray[np.float32]
#: A sound file, or samples in [-1, 1] ``(samples,)`` or ``(samples, channels)`` and their rate.
Recording: TypeAlias = str | Path | tuple[NDArray[Any], int]
Progress = Callable[[int, int], None]

LEAST_SECONDS = 10.0
#: More than this of all recordings together is not listened to.
MOST_SECONDS = 120.0
#: Below this a recording has no full band: 32 kHz recordings and MP3 of 128 kbit/s still have one.
FULL_BAND_FROM_HZ = 15000.0

_LEAST_SOUND_SECONDS = 2.0
# Channels that leave less than this share of the louder one's power cancel each other.
_LEAST_LEFT = 0.1
# What is left of two minutes for one more recording; less is too little to be of use.
_SHORTEST_REST_SECONDS = 1.0
# Beyond this a sample is no sound, but of another scale or broken.
_HIGHEST_SAMPLE = 8.0
# Single broken samples are passed over; with more of them the rest is not to be trusted either.
_MOST_UNUSABLE = 0.01


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
        AudioFormatError: a recording cannot be read, has no full band, or more than 1 % of its
            samples are beyond 8 or no numbers.
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
        sums = ErrorSums()
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
            sums.add(*reference.compare(enhanced, cutoff_hz, ends_hz))
            done += 1
            if progress is not None:
                progress(done, steps)
        gains = estimate_gains(sums, cutoff_hz)
        rows.append(tuple(float(gain) for gain in gains))
    assert found is not None
    heard = spectrum_of(np.concatenate([_in_mono(sound) for sound, _ in sounds]))
    return Colour(
        found.metadata.name,
        found.metadata.weights_sha256,
        seconds,
        tuple(rows),
        tuple(heard.levels_db.tolist()),
    )


def _read_all(recordings: Sequence[Recording]) -> list[tuple[Audio, float]]:
    """Return each recording ``(samples, channels)`` at 48 kHz, and where its content ends in Hz."""
    sounds: list[tuple[Audio, float]] = []
    seconds, left = 0.0, MOST_SECONDS
    for number, recording in enumerate(recordings, 1):
        # What is left of two minutes may be silent, or a vowel, and the recording is neither.
        judged = max(left, LEAST_SECONDS) if left >= _SHORTEST_REST_SECONDS else 0.0
        if isinstance(recording, str | Path):
            name = f"Recording '{recording}'"
            samples, rate = _read_file(Path(recording), judged)
        else:
            name = f"Recording {number}"
            samples, rate = _check_samples(recording, name)
            samples = samples[: round(judged * rate)]
        if not len(samples):
            continue
        wide, own_hz = read_recording(samples, rate, name)
        taken = len(samples) / rate
        if taken > left:
            taken, wide = left, wide[: round(left * SAMPLE_RATE)]
        seconds += taken
        left -= taken
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
    loudest = _loudest(samples)
    if not np.abs(loudest).max() > 10.0 ** (SILENCE_DB / 20.0):
        raise ArgumentError(f"{name} is silent; a colour is learnt from sound.")
    own_hz = measure_cutoff(loudest, rate)
    if own_hz < narrowest_hz:
        raise AudioFormatError(
            f"{name} ends at {own_hz / 1000.0:.1f} kHz; full-band sound is needed, up to "
            f"{narrowest_hz / 1000.0:g} kHz or more."
        )
    return convert_rate(samples, rate, SAMPLE_RATE), own_hz


def _loudest(samples: Audio) -> Audio:
    return samples[:, int(np.argmax(np.square(samples).sum(axis=0)))]


def _in_mono(sound: Audio) -> Audio:
    """Return the mean of the channels ``(samples, 1)``, or one where they cancel each other."""
    mono, loudest = sound.mean(axis=1), _loudest(sound)
    is_left = np.square(mono).sum() > _LEAST_LEFT * np.square(loudest).sum()
    return np.asarray((mono if is_left else loudest)[:, None])


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
        return _usable(np.concatenate(blocks), f"Recording '{path}'"), file.rate


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
    return _usable(array, name), int(rate)


def _usable(samples: NDArray[np.floating], name: str) -> Audio:
    """Return the samples as float32, single ones that are no usable numbers as silence.

    Raises:
        AudioFormatError: there are too many of them; ``name`` is the subject of the sentence.
    """
    is_usable = np.abs(samples) <= _HIGHEST_SAMPLE
    share = 1.0 - float(is_usable.mean()) if is_usable.size else 0.0
    if share > _MOST_UNUSABLE:
        raise AudioFormatError(
            f"{name} has samples beyond full scale, or that are no numbers "
            f"({100.0 * share:.0f} %); full scale is 1.0."
        )
    return np.where(is_usable, samples, 0.0).astype(np.float32)


def _enhance(upsampler: Upsampler, narrow: Audio, length: int) -> Audio:
    """Return the enhanced sound, aligned with the 48 kHz original and as long."""
    late = upsampler.latency.algorithmic_samples
    wide = np.concatenate([upsampler.process(narrow), upsampler.flush()])[late:]
    wide = wide.reshape(len(wide), -1)[:length]
    return np.pad(wide, ((0, length - len(wide)), (0, 0)))
