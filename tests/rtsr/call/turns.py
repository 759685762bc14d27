"""Words with pauses between them, and what of them is in a recording."""

from __future__ import annotations

import numpy as np
from network import speech
from scipy.signal import resample_poly


def spoken() -> np.ndarray:
    """The packaged voice from where it begins, 0.4 s."""
    voice = speech(48000)
    levels = np.abs(voice[: len(voice) // 240 * 240]).reshape(-1, 240).max(axis=1)
    start = 240 * int(np.argmax(levels > 0.01))
    return voice[start : start + 19200]


def db(sound: np.ndarray) -> float:
    """Level of a sound, dBFS."""
    return float(10 * np.log10(np.mean(np.square(sound, dtype=np.float64)) + 1e-20))


def in_turns(rate: int, seconds: float) -> np.ndarray:
    """Words of 0.4 s, each followed by 1.6 s in which nobody speaks."""
    turn = np.concatenate([spoken(), np.zeros(48000 * 16 // 10, np.float32)])
    if rate != 48000:
        turn = resample_poly(turn, rate, 48000)
    return np.tile(turn, round(seconds / 2.0)).astype(np.float32)


def onsets(sound: np.ndarray) -> list[int]:
    """Where sound begins after at least 150 ms below -40 dBFS."""
    levels = [db(sound[i : i + 240]) for i in range(0, len(sound) - 240, 240)]
    found, quiet = [], 0
    for index, level in enumerate(levels):
        if level > -40 and quiet >= 30:
            found.append(240 * index)
        quiet = 0 if level > -40 else quiet + 1
    return found


def beginning_db(sound: np.ndarray) -> tuple[float, int]:
    """Level of the first 60 ms of the words in a sound, the median over them; how many."""
    begins = [at for at in onsets(sound) if at + 2880 <= len(sound)]
    return float(np.median([db(sound[at : at + 2880]) for at in begins])), len(begins)
