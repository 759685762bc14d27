"""A colour that is learnt by itself, from streams that are wider at times than at others."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rtsr.colour.bands import BANDS, CUTOFFS_HZ
from rtsr.colour.colour import Colour
from rtsr.colour.estimate import ErrorSums, estimate_gains
from rtsr.colour.reference import SILENCE_DB
from rtsr.colour.spectrum import LongTermSpectrum
from rtsr.errors import ArgumentError, RtsrError
from rtsr.timing import HOP, SAMPLE_RATE

Audio = NDArray[np.float32]
Levels = NDArray[np.float64]

#: Hops of an excerpt, and how many of them only let the network find into it.
EXCERPT_HOPS, LEAD_IN_HOPS = 160, 40

# All sound is learnt from until there is so much of it, then one excerpt in ten.
_EAGER_SECONDS = 20.0
_ONE_IN = 10
# More seconds than this do not make it surer, for voices and rooms change.
_MOST_SECONDS = 60.0
# By so much the loudest frame is forgotten with each excerpt.
_FORGOTTEN_DB = 0.5


@dataclass(frozen=True)
class Excerpt:
    """What is learnt from at a time.

    Attributes:
        sound: ``(76800, 1)``, 1.6 s at 48 kHz; the first 0.4 s were in the last one, too.
        own_hz: where its content ends.
    """

    sound: Audio
    own_hz: float


@dataclass(frozen=True)
class Lesson:
    """What an excerpt has shown.

    Attributes:
        errors: by cutoff in Hz, what :class:`~rtsr.colour.estimate.ErrorSums` takes.
        loudest_db: level of its loudest frame.
        sound_hops: how many of its hops had sound.
    """

    errors: dict[float, tuple[Levels, NDArray[np.bool_]]]
    loudest_db: float
    sound_hops: int


class Learner(Protocol):
    """Runs a model on narrow versions of excerpts."""

    model: str
    weights_sha256: str

    def submit(self, auto: AutoColour, excerpt: Excerpt) -> bool:
        """Let a thread of its own learn from an excerpt; false if it is too busy."""

    def study(self, excerpt: Excerpt, loudest_db: float) -> Lesson:
        """Learn from an excerpt at once."""


class AutoColour:
    """A colour that is learnt while streams run, whenever they are wider than they may become.

    Given to a stream, it listens while the content of the input reaches further up than the lowest
    cutoff: excerpts of 1.6 s are made narrow, enhanced and compared with what they were, by a
    thread of its own, which no stream waits for. When the content narrows, what was learnt is used.
    It may be given to one stream after another, as when a call changes its codec, and to several at
    once if they have the same source.

    Args:
        start: what is known already, as saved at the end of the last call; one without a spectrum
            is used in full, and so is what becomes of it.
        waits: whether the stream waits while something is learnt, so that the same sound gives the
            same output; for files and tests. Each second of the first twenty then takes some
            0.15 s more, each later one a tenth of that.

    Attributes:
        heard_hops: hops of 10 ms whose content was wide enough to learn from.
        learnt_hops: those with sound that it was learnt from.
        skipped_hops: those that were given up because the thread was busy, or because too many
            waited for the sound after them.

    Raises:
        ArgumentError: ``start`` is no colour.
    """

    __slots__ = (
        "__weakref__",
        "_learner",
        "_learnt",
        "_lock",
        "_loudest_db",
        "_seconds",
        "_spectrum",
        "_start",
        "_sums",
        "_waits",
        "heard",
        "heard_hops",
        "learnt_hops",
        "skipped_hops",
    )

    def __init__(self, start: Colour | None = None, *, waits: bool = False) -> None:
        if start is not None and not isinstance(start, Colour):
            raise ArgumentError(
                f"An AutoColour starts from a Colour or None, not from a {type(start).__name__}."
            )
        self.heard_hops = 0
        self.learnt_hops = 0
        self.skipped_hops = 0
        self._start = start
        self._waits = bool(waits)
        self._learnt: Colour | None = None
        self._learner: Learner | None = None
        self._lock = threading.Lock()
        self._sums = {cutoff_hz: ErrorSums() for cutoff_hz in CUTOFFS_HZ}
        self._spectrum = LongTermSpectrum(_MOST_SECONDS)
        #: Of the streams that it was given to, one after another.
        self.heard = LongTermSpectrum()
        self._loudest_db = SILENCE_DB
        self._seconds = 0.0

    @property
    def learnt(self) -> Colour | None:
        """The colour as of now, what it started from included; ``None`` while there is none."""
        return self._start if self._learnt is None else self._learnt

    @property
    def rest(self) -> int:
        """Excerpts to leave out before the next one."""
        return 0 if self._seconds < _EAGER_SECONDS else _ONE_IN - 1

    def bind(self, learner: Learner) -> None:
        """Say which model it is for; called by what it is given to.

        Raises:
            ArgumentError: it was learnt for another one.
        """
        if self._start is not None:
            self._start.check_weights(learner.model, learner.weights_sha256)
        if self._learner is not None and self._learner.weights_sha256 != learner.weights_sha256:
            raise ArgumentError(
                f"This AutoColour learns for model '{self._learner.model}', not for model "
                f"'{learner.model}'; make another one."
            )
        self._learner = learner

    def take(self, excerpt: Excerpt) -> None:
        """Learn from an excerpt, now or soon, or count it as skipped; called by streams."""
        assert self._learner is not None
        if self._waits:
            self.learn(excerpt)
        elif not self._learner.submit(self, excerpt):
            self.skipped_hops += EXCERPT_HOPS - LEAD_IN_HOPS

    def learn(self, excerpt: Excerpt) -> None:
        """Learn from an excerpt in the calling thread."""
        assert self._learner is not None
        lesson = self._learner.study(excerpt, self._loudest_db)
        with self._lock:
            self._loudest_db = max(self._loudest_db - _FORGOTTEN_DB, lesson.loudest_db)
            if lesson.sound_hops:
                self._add(excerpt, lesson)

    def __reduce__(self) -> Any:
        raise RtsrError(
            "An AutoColour cannot be copied or pickled, for it learns in this process; save what "
            "it has learnt (`learnt`) and start another one from that."
        )

    def _add(self, excerpt: Excerpt, lesson: Lesson) -> None:
        assert self._learner is not None
        seconds = lesson.sound_hops * HOP / SAMPLE_RATE
        share = min(1.0, _MOST_SECONDS / (self._seconds + seconds))
        for cutoff_hz, errors in lesson.errors.items():
            self._sums[cutoff_hz].fade(share)
            self._sums[cutoff_hz].add(*errors)
        for start in range(LEAD_IN_HOPS * HOP, len(excerpt.sound), HOP):
            self._spectrum.add(excerpt.sound[start : start + HOP, 0])
        self._seconds = share * self._seconds + seconds
        self.learnt_hops += lesson.sound_hops
        gains = np.array(
            [estimate_gains(self._sums[cutoff_hz], cutoff_hz) for cutoff_hz in CUTOFFS_HZ]
        )
        spectrum: Levels | None = self._spectrum.levels_db
        known, start_from = self._seconds, self._start
        if start_from is not None:
            # What was known before counts by its seconds, too.
            before = min(start_from.seconds, _MOST_SECONDS)
            old = before / (before + self._seconds)
            # Not all that was heard reached beyond each cutoff, and one beyond which nothing new
            # was heard keeps its gains.
            frames = np.array([self._sums[cutoff_hz].frames for cutoff_hz in CUTOFFS_HZ])
            heard = frames * HOP / SAMPLE_RATE
            olds = np.where(heard > 0.0, before / np.maximum(before + heard, 1e-9), 1.0)[:, None]
            gains = olds * np.array(start_from.gains_db) + (1.0 - olds) * gains
            # What was to be used on every stream stays so: a spectrum of the little that was heard
            # since does not rest on all these seconds.
            spectrum = (
                None
                if start_from.spectrum_db is None
                else old * np.array(start_from.spectrum_db) + (1.0 - old) * self._spectrum.levels_db
            )
            known += before
        self._learnt = Colour(
            self._learner.model,
            self._learner.weights_sha256,
            known,
            tuple(tuple(row) for row in gains.reshape(-1, BANDS).tolist()),
            None if spectrum is None else tuple(spectrum.tolist()),
        )
