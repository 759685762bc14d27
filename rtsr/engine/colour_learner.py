"""Learning from excerpts of running streams, beside them: one thread for each model."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import queue
import sys
import threading
import weakref

import numpy as np
from numpy.typing import NDArray

from rtsr.colour.auto import LEAD_IN_HOPS, AutoColour, Excerpt, Lesson
from rtsr.colour.bands import CUTOFFS_HZ, NARROW_RATES
from rtsr.colour.colour import Colour
from rtsr.colour.degrade import convert_rate, degrade
from rtsr.colour.excerpts import LEAST_RATIO
from rtsr.colour.reference import Reference
from rtsr.engine.hop_engine import HopEngine
from rtsr.engine.network_rows import network_rows, start_rows
from rtsr.errors import ArgumentError
from rtsr.runtime.models import Model
from rtsr.runtime.session import OnnxStep
from rtsr.timing import SAMPLE_RATE
from rtsr_kernels.network_rows import fill_rows

__all__ = ["AUTO", "ModelLearner", "resolve_colour"]

_log = logging.getLogger(__name__)

Audio = NDArray[np.float32]

#: What stands for a new :class:`~rtsr.colour.auto.AutoColour`.
AUTO = "auto"

_HOPS_PER_STEP = 4
# Excerpts that wait at most; each is 0.3 MB and some 0.2 s of work.
_MOST_WAITING = 16
_IDLE_SECONDS = 5.0
_LOWEST_PRIORITY = 19
# Next to where content ends a band has lost some of it.
_END_SHARE = 0.95
# Content up to here counts as full band for the detector, whatever there is above.
_HIGHEST_HZ = 20000.0


class ModelLearner:
    """Runs a model on narrow versions of excerpts, on the CPU.

    Args:
        model: that colours are learnt for.
    """

    def __init__(self, model: Model) -> None:
        self.model = model.metadata.name
        self.weights_sha256 = model.metadata.weights_sha256
        self._model = model
        self.begin()

    def begin(self) -> None:
        """Begin with nothing that waits; a forked process has no thread, and may have held locks.

        What the parent has yet to learn from is not learnt twice.
        """
        self._prediction: _Prediction | None = None
        self._prediction_lock = threading.Lock()
        self._excerpts: queue.Queue[tuple[AutoColour, Excerpt] | None] = queue.Queue(_MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._thread_lock = threading.Lock()
        self._stopping = False

    def submit(self, auto: AutoColour, excerpt: Excerpt) -> bool:
        """Let the thread learn from an excerpt; false if too many wait already."""
        try:
            self._excerpts.put_nowait((auto, excerpt))
        except queue.Full:
            return False
        with self._thread_lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="rtsr-colour", daemon=True)
                self._thread.start()
        return True

    def study(self, excerpt: Excerpt, loudest_db: float) -> Lesson:
        """Enhance narrow versions of an excerpt and compare them with it.

        Args:
            excerpt: to learn from.
            loudest_db: level of the loudest frame of its stream.
        """
        sound, own_hz = excerpt.sound, excerpt.own_hz
        reference = Reference(sound, own_hz, loudest_db)
        # Where the sound hardly reaches beyond a cutoff, there is nothing to compare.
        rates = [rate for rate in NARROW_RATES if own_hz >= LEAST_RATIO * rate / 2]
        narrow = np.zeros((len(NARROW_RATES), len(sound)), np.float32)
        for row, rate in enumerate(rates):
            narrow[row] = convert_rate(degrade(sound, rate), rate, SAMPLE_RATE)[:, 0]
        with self._prediction_lock:
            if self._prediction is None:
                self._prediction = _Prediction(self._model)
            enhanced = self._prediction.enhance(narrow)
        if not np.isfinite(enhanced).all():
            # A network that fails on a sound teaches nothing about it.
            return Lesson({}, reference.loudest_db, 0)
        ends_hz = min(_END_SHARE * own_hz, _HIGHEST_HZ, self._model.metadata.f_target_default)
        errors = {
            cutoff_hz: reference.compare(line[:, None], cutoff_hz, ends_hz, first=LEAD_IN_HOPS)
            for line, cutoff_hz in zip(enhanced[: len(rates)], CUTOFFS_HZ, strict=False)
        }
        sound_hops = max((len(found) for found, _ in errors.values()), default=0)
        return Lesson(errors, reference.loudest_db, sound_hops)

    def stop(self) -> None:
        """End the thread after the excerpt that it is at."""
        self._stopping = True
        thread = self._thread
        if thread is None:
            return
        # Wakes it; where there is no room it is awake.
        with contextlib.suppress(queue.Full):
            self._excerpts.put_nowait(None)
        thread.join(2.0)

    def _run(self) -> None:
        if sys.platform == "linux":
            # Elsewhere a thread has no priority of its own; sound that is due goes first.
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)
        while not self._stopping:
            try:
                waiting = self._excerpts.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                with self._thread_lock:
                    if self._excerpts.empty():
                        self._thread = None
                        return
                continue
            if waiting is None:
                return
            try:
                waiting[0].learn(waiting[1])
            except Exception:
                # The streams go on with what is known.
                _log.exception("nothing was learnt from an excerpt")
            # What nobody uses any longer need not stay while nothing comes.
            del waiting


class _Prediction:
    """The engine for all cutoffs at once, one row for each."""

    def __init__(self, model: Model) -> None:
        count = len(CUTOFFS_HZ)
        self._session = OnnxStep(
            model, provider="cpu", batch=count, hops_per_step=_HOPS_PER_STEP, threads=1
        )
        self._f_target = model.metadata.f_target_default
        self._rows = np.arange(count)
        self._network = network_rows(self._session, count)
        self._hops = HopEngine(count, count, _HOPS_PER_STEP, model.metadata.overlap, 1)

    def enhance(self, narrow: Audio) -> Audio:
        """Enhance ``(cutoffs, samples)`` at 48 kHz, whole steps long.

        What comes back is aligned; its last 2.5 ms are silent.
        """
        self._session.reset()
        for row, cutoff_hz in enumerate(CUTOFFS_HZ):
            start_rows(self._network, row, [row], 0, self._f_target)
            self._hops.join(
                row, [row], native_hz=cutoff_hz, f_target=self._f_target, cutoff=cutoff_hz
            )
        audio, high_band = self._session.audio[:, 0], self._session.high_band[:, 0]
        late, step = self._hops.overlap, self._hops.step_samples
        enhanced = np.zeros((len(narrow), narrow.shape[1] + late), np.float32)
        out = np.zeros((len(narrow), step), np.float32)
        for start in range(0, narrow.shape[1], step):
            audio[:] = narrow[:, start : start + step]
            f_prior = self._hops.begin_rows(self._rows, audio)
            fill_rows(self._network, self._rows, f_prior)
            self._session.run()
            self._hops.finish_rows(self._rows, audio, high_band, out)
            enhanced[:, start : start + step] = out
        return enhanced[:, late:]


def resolve_colour(
    colour: Colour | AutoColour | str | None, model: Model
) -> Colour | AutoColour | None:
    """Return what a stream is given for its argument ``colour``, ready to be used with ``model``.

    Raises:
        ArgumentError: it is no colour, was learnt for another model, or ``model`` is no network.
    """
    if isinstance(colour, str):
        if colour != AUTO:
            raise ArgumentError(
                f"A colour comes from learn_colour or read_colour, or is {AUTO!r}, not {colour!r}."
            )
        colour = AutoColour()
    if isinstance(colour, AutoColour):
        if not model.is_network:
            raise ArgumentError(
                f"A colour is learnt by itself for networks, not for '{model.name}'; "
                "give it one that `rtsr colour learn` made."
            )
        colour.bind(_learner_of(model))
    else:
        _check_colour(colour, model)
    return colour


def _check_colour(colour: Colour | None, model: Model) -> None:
    """Raise :class:`ArgumentError` unless a colour is one, and was learnt for this model."""
    if colour is None:
        return
    if not isinstance(colour, Colour):
        raise ArgumentError(
            f"A colour comes from learn_colour or read_colour; this is a {type(colour).__name__}."
        )
    colour.check_weights(model.metadata.name, model.metadata.weights_sha256)


_learners: weakref.WeakValueDictionary[str, ModelLearner] = weakref.WeakValueDictionary()
_learners_lock = threading.Lock()


def _learner_of(model: Model) -> ModelLearner:
    """Return the learner of a model; all streams of a process share it."""
    key = model.metadata.weights_sha256
    with _learners_lock:
        learner = _learners.get(key)
        if learner is None:
            learner = _learners[key] = ModelLearner(model)
        return learner


def _begin_in_child() -> None:
    global _learners_lock
    _learners_lock = threading.Lock()
    for learner in list(_learners.values()):
        learner.begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)


@atexit.register
def _stop_all() -> None:
    """End the threads, which would otherwise run on in an interpreter that goes away."""
    for learner in list(_learners.values()):
        learner.stop()
