"""MIDI knobs that are bound to controls from a page."""

from __future__ import annotations

import contextlib
import threading
import weakref
from pathlib import Path

from rtsr.errors import RtsrError
from rtsr.live.controls.board import ControlBoard
from rtsr.live.controls.midi.listener import Attempt, MidiControls
from rtsr.live.controls.midi.map import MidiMap, load_map
from rtsr.live.controls.midi.ports import MidiPort

__all__ = ["KnobToLearn", "Learning"]


class Learning:
    """Binds knobs of this machine's MIDI device to the controls of one board.

    Args:
        board: what the knobs turn.
        path: of the map, where what is learnt is written.
        midi: a device that is listened to already; else one is opened by :meth:`listen`, or when
            the first knob is to be learnt.
        port: which one; the only one there is if ``None``.
    """

    def __init__(
        self,
        board: ControlBoard,
        path: Path,
        midi: MidiControls | None = None,
        port: MidiPort | None = None,
    ) -> None:
        self._board = board
        self._path = path
        self._port = port
        self._midi = midi
        self._own: MidiControls | None = None
        self._opening = threading.Lock()
        self._begun: weakref.WeakSet[Attempt] = weakref.WeakSet()
        self._is_closed = False
        self._read = self._written()

    def listen(self) -> None:
        """Let the knobs that the map knows turn the controls, if the device is there."""
        with contextlib.suppress(RtsrError):
            self._open()

    def begin(self, control: str) -> KnobToLearn:
        """Begin to learn a knob; from now on it can be given up."""
        attempt = Attempt()
        self._begun.add(attempt)
        return KnobToLearn(self, control, attempt)

    def learn(self, control: str, attempt: Attempt) -> str:
        """Do what :meth:`KnobToLearn.wait` says."""
        return self._open().learn(control, self._path, attempt=attempt).learnt(self._path)

    def bindings(self) -> dict[str, str]:
        """Return which knob turns each control that has one, in words, by the newest map."""
        midi = self._midi
        if midi is None:
            return {}
        written = self._written()
        if written is not None and written != self._read:
            # Another page has learnt a knob, which turns something else here no longer.
            self._read = written
            with contextlib.suppress(RtsrError):
                midi.follow(load_map(self._path))
        return {each.name: f"CC {each.cc}" for each in midi.midi_map.bindings}

    def close(self) -> None:
        """Give up what waits, and close the device if it was opened here."""
        for attempt in list(self._begun):
            attempt.give_up()
        with self._opening:
            self._is_closed = True
            self._midi = None
            if self._own is not None:
                self._own.close()
                self._own = None

    def _written(self) -> tuple[int, int] | None:
        """Return what tells one state of the map's file from another; ``None`` without a file."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def _open(self) -> MidiControls:
        with self._opening:
            if self._is_closed:
                raise RtsrError("The page is closed.")
            if self._midi is None:
                self._read = self._written()
                known = load_map(self._path) if self._path.exists() else MidiMap()
                self._midi = self._own = MidiControls(self._board, known, self._port)
            return self._midi


class KnobToLearn:
    """One knob that is to be learnt, from :meth:`Learning.begin`.

    Args:
        learning: that began it.
        control: to be turned by the knob.
        attempt: by which it is given up.
    """

    def __init__(self, learning: Learning, control: str, attempt: Attempt) -> None:
        self._learning = learning
        self._control = control
        self._attempt = attempt

    @property
    def is_given_up(self) -> bool:
        """Whether it was given up, by the page or because all is over."""
        return self._attempt.is_given_up

    def wait(self) -> str:
        """Open the device, if need be, and wait for the knob; to be called in a thread.

        Returns:
            A sentence that says which knob is bound.

        Raises:
            RtsrError: there is no device, or more than one; no knob is moved in time; another
                control is being learnt; it was given up; or the map cannot be read or written.
        """
        return self._learning.learn(self._control, self._attempt)

    def give_up(self) -> None:
        """End it, and nothing that others have begun; :meth:`wait` raises."""
        self._attempt.give_up()
