"""Sound for packets that never came, from the sound before them.

The way of ITU-T G.711, Appendix I: the last pitch period goes on, after 10 ms the last two and
after 20 ms the last three, so that it does not buzz, and all of it fades out between 10 and 60 ms.
What comes after is comfort noise, if there is any. Unlike there nothing is delayed: the first
samples are bent to meet the last real one instead of being blended with them.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["Concealer", "best_period"]

Audio = NDArray[np.float32]

_SHORTEST_PERIOD_MS = 5.0
_LONGEST_PERIOD_MS = 15.0
_TEMPLATE_MS = 20.0
_HISTORY_MS = 65.0
_FADE_FROM_MS, _FADE_TO_MS = 10.0, 60.0
_BEND_MS = 2.0
_MERGE_MS = 5.0


def best_period(history: Audio, shortest: int, longest: int, template: int) -> int:
    """Return the lag in samples at which the end of ``history`` ``(samples,)`` repeats best.

    Normalised cross-correlation of the last ``template`` samples with those 'lag' earlier.
    """
    newest = history[-template:].astype(np.float64)
    past = history[-(template + longest) : len(history) - shortest].astype(np.float64)
    products = np.correlate(past, newest, "valid")
    squares = np.concatenate([[0.0], np.cumsum(past**2)])
    energies = squares[template:] - squares[:-template]
    # A quiet stretch resembles everything; what little noise it holds must not win.
    least = 1e-3 * float(newest @ newest) + 1e-9
    scores = products / np.sqrt(energies + least)
    return longest - int(np.argmax(scores))


class Concealer:
    """Keeps the newest sound of a stream, and continues it where packets are missing.

    Args:
        rate: Hz of the sound.
        channels: of the sound.
    """

    def __init__(self, rate: int, channels: int = 1) -> None:
        self.rate = rate
        self._history: Audio = np.zeros((self._samples(_HISTORY_MS), channels), np.float32)
        self._cycle: Audio = self._history[:0]
        self._source = self._history
        self._period = 1
        self._position = 0
        self._concealed = 0

    @property
    def concealed_ms(self) -> float:
        """Milliseconds that have been made up since the last real sound."""
        return 1000.0 * self._concealed / self.rate

    def continue_sound(self, samples: int, comfort: Audio | None = None) -> Audio:
        """Synthesise the next ``samples``, ``(samples, channels)``, from the past.

        Args:
            samples: how many.
            comfort: noise of this shape that is faded in as the sound is faded out.
        """
        out = np.empty((samples, self._history.shape[1]), np.float32)
        for start in range(0, samples, self._samples(10.0)):
            part = out[start : start + self._samples(10.0)]
            part[...] = self._repeat(len(part), self._concealed + start)
        instants = (self._concealed + np.arange(samples)) / self.rate * 1000.0
        gain = np.clip((_FADE_TO_MS - instants) / (_FADE_TO_MS - _FADE_FROM_MS), 0.0, 1.0)
        gain = gain[:, None].astype(np.float32)
        out *= gain
        if comfort is not None:
            out += np.sqrt(1.0 - gain**2) * comfort
        self._concealed += samples
        self._remember(out)
        return out

    def accept(self, sound: Audio) -> Audio:
        """Take real sound; after a gap its first milliseconds are faded in from what was made up.

        Returns:
            What to play: ``sound``, or a copy with another beginning.
        """
        if self._concealed:
            # A longer gap has led further away, so that it takes longer to come back.
            length = self._samples(min(10.0, _MERGE_MS + 0.1 * self.concealed_ms))
            length = min(len(sound), length)
            made_up = self.continue_sound(length)
            rising = ((np.arange(length) + 1) / (length + 1))[:, None].astype(np.float32)
            sound = sound.copy()
            sound[:length] = rising * sound[:length] + (1.0 - rising) * made_up
            self._concealed = 0
        self._remember(sound)
        return sound

    def accept_made_up(self, sound: Audio) -> None:
        """Take note of sound that the codec itself has made up, which needs no merging."""
        self._remember(sound)

    def _repeat(self, samples: int, elapsed: int) -> Audio:
        """Return samples from the cycle of the newest periods; the cycle grows every 10 ms."""
        periods = min(3, 1 + int(1000.0 * elapsed / self.rate // 10.0))
        starts_now = elapsed == 0
        if starts_now or len(self._cycle) < periods * self._period:
            self._make_cycle(periods, starts_now)
        index = (self._position + np.arange(samples)) % len(self._cycle)
        self._position = int((self._position + samples) % len(self._cycle))
        out = self._cycle[index]
        if starts_now:
            length = min(samples, self._samples(_BEND_MS))
            falling = (1.0 - np.arange(length) / length)[:, None].astype(np.float32)
            jump = self._history[-1] - self._source[-1 - self._period]
            out[:length] = np.clip(out[:length] + falling * jump, -1.0, 1.0)
        return out

    def _make_cycle(self, periods: int, starts_now: bool) -> None:
        if starts_now:
            # Later cycles come from the same real sound, not from what was made of it.
            self._source = self._history.copy()
            loudest = self._source[:, int(np.argmax(np.abs(self._source).sum(axis=0)))]
            self._period = best_period(
                loudest,
                self._samples(_SHORTEST_PERIOD_MS),
                self._samples(_LONGEST_PERIOD_MS),
                self._samples(_TEMPLATE_MS),
            )
        length = periods * self._period
        cycle = self._source[-length:].copy()
        # The end of the cycle is led over to what came before its beginning.
        seam = max(1, self._period // 4)
        before = self._source[-length - seam : -length]
        if len(before) == seam:
            rising = (np.arange(1, seam + 1) / (seam + 1))[:, None].astype(np.float32)
            cycle[-seam:] = (1.0 - rising) * cycle[-seam:] + rising * before
        # The same real sample stays next: what is longer is longer at its beginning.
        self._position = 0 if starts_now else self._position + length - len(self._cycle)
        self._cycle = cycle

    def _remember(self, sound: Audio) -> None:
        length = len(self._history)
        if len(sound) >= length:
            self._history[...] = sound[-length:]
        else:
            self._history[: length - len(sound)] = self._history[len(sound) :]
            self._history[length - len(sound) :] = sound

    def _samples(self, milliseconds: float) -> int:
        return math.ceil(milliseconds * self.rate / 1000.0)
