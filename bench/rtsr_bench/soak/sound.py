"""What a soak recorded against what it played: how late it came, and whether it was whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtsr.errors import RtsrError
from rtsr.timing import HOP, SAMPLE_RATE

Audio = NDArray[np.float32]

#: frames of a scored window: 10 ms
WINDOW = HOP
# Every fallback level leaves alone what lies below the clip's cutoff; a generated band begins 15 %
# below what is taken for it.
_LOW_SHARE = 0.6
# A window is broken if this share of its energy, or more than 1 dB, is not what was played. So
# seldom reaches 64 frames of silence or of another time.
_ALIKE = 0.95
_LEVEL_DB = 1.0
# Quieter windows than this against the clip's mean say nothing, unless so much came in them.
_AUDIBLE, _MUCH = 1e-3, 1e-2
_CHUNK_SECONDS = 20


@dataclass(frozen=True)
class SoundScore:
    """How the sound came through.

    Attributes:
        latency_samples: from the player to the recorder, at the beginning.
        latency_end_samples: at the end.
        windows: of 10 ms that were scored: with sound in what was played, or much in what came.
        broken: of these, in which something was missing or came at another time.
        longest_broken_ms: the longest stretch of them.
        excused: windows that were left out, since the player or the recorder lost a cycle.
    """

    latency_samples: int
    latency_end_samples: int
    windows: int
    broken: int
    longest_broken_ms: float
    excused: int


def measure_latency(clip: Audio, recorded: Audio, first: int) -> int:
    """Return the frames by which `recorded` `(frames,)` lags behind the clip that plays in a loop.

    `recorded` holds at least one round; `first` is the server's count at its first frame; frame `f`
    played `f mod len`.
    """
    length = len(clip)
    whole = recorded[: len(recorded) // length * length].reshape(-1, length)
    # Circular: the recording's rounds added up are one round that begins at `first`.
    round_ = np.roll(whole.mean(axis=0, dtype=np.float64), first % length)
    spectrum = np.fft.rfft(round_) * np.conj(np.fft.rfft(clip))
    return int(np.argmax(np.fft.irfft(spectrum, length)))


def score_sound(
    clip: Audio, recorded: Audio, first: int, gaps: NDArray[np.int64], cutoff_hz: float
) -> SoundScore:
    """Compare everything that was recorded, except its first second, with what was played.

    Args:
        clip: float32 ``(frames,)``, played in a loop.
        recorded: float32 ``(frames,)``, at least a second more than one round; may be mapped.
        first: the server's count at its first frame.
        gaps: ``(gaps, 2)``, see :attr:`rtsr_bench.soak.player.SoakPlayer.gaps`.
        cutoff_hz: of the clip.

    Raises:
        RtsrError: less was recorded; a server that loses its cycles records nothing.
    """
    length = len(clip)
    if len(recorded) < SAMPLE_RATE + length:
        needed = 1.0 + length / SAMPLE_RATE
        raise RtsrError(
            f"Only {len(recorded) / SAMPLE_RATE:.1f} s of sound came back; {needed:.1f} s are "
            "needed to score it. Soak longer, or on a machine that is less busy."
        )
    recorded, first = recorded[SAMPLE_RATE:], first + SAMPLE_RATE
    latency = measure_latency(clip, recorded[:length], first)
    at_end = len(recorded) - length
    latency_end = measure_latency(clip, recorded[at_end:], first + at_end)
    excused = _excused(len(recorded), first, gaps, latency)
    # Of every window, whether it has sound and whether that is broken.
    judged = np.zeros((len(recorded) // WINDOW, 2), bool)
    chunk = _CHUNK_SECONDS * SAMPLE_RATE
    margin = WINDOW * 4
    rounds = np.tile(clip, (chunk + 2 * margin) // length + 2)
    for start in range(0, len(judged) * WINDOW, chunk):
        low = max(0, start - margin)
        part = recorded[low : start + chunk + margin]
        at = (first + low - latency) % length
        found = _judge(part, rounds[at : at + len(part)], cutoff_hz)
        skip = (start - low) // WINDOW
        target = judged[start // WINDOW : (start + chunk) // WINDOW]
        target[:] = found[skip : skip + len(target)]
    scored, broken = (judged & ~excused[:, None]).T
    return SoundScore(
        latency_samples=latency,
        latency_end_samples=latency_end,
        windows=int(scored.sum()),
        broken=int(broken.sum()),
        longest_broken_ms=_longest(broken) * 1000.0 * WINDOW / SAMPLE_RATE,
        excused=int(excused.sum()),
    )


def _judge(recorded: Audio, played: Audio, cutoff_hz: float) -> NDArray[np.bool_]:
    """Return ``(windows, 2)``: whether the low bands have sound, and whether they differ there."""
    from scipy.signal import butter, sosfiltfilt

    sos = butter(6, _LOW_SHARE * cutoff_hz, fs=SAMPLE_RATE, output="sos")
    count = len(recorded) // WINDOW
    shape = (count, WINDOW)
    low = sosfiltfilt(sos, recorded.astype(np.float64))[: count * WINDOW].reshape(shape)
    reference = sosfiltfilt(sos, played.astype(np.float64))[: count * WINDOW].reshape(shape)
    energy = np.square(reference).sum(axis=1)
    power = np.square(low).sum(axis=1)
    mean = max(float(energy.mean()), 1e-12)
    audible = (energy > _AUDIBLE * mean) | (power > _MUCH * mean)
    product = (low * reference).sum(axis=1)
    likeness = product / np.sqrt(np.maximum(energy * power, 1e-24))
    level = np.abs(10.0 * np.log10(np.maximum(power, 1e-12) / np.maximum(energy, 1e-12)))
    differs = (likeness < _ALIKE) | (level > _LEVEL_DB)
    return np.stack([audible, audible & differs], axis=1)


def _excused(frames: int, first: int, gaps: NDArray[np.int64], latency: int) -> NDArray[np.bool_]:
    """Windows within reach of a cycle that player or recorder lost, there and later."""
    windows = np.zeros(frames // WINDOW, bool)
    for start, count in gaps:
        low = int(start - first) // WINDOW - 2
        high = int(start + count + latency - first) // WINDOW + 3
        windows[max(0, low) : max(0, high)] = True
    return windows


def _longest(values: NDArray[np.bool_]) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], values.astype(np.int8), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))
