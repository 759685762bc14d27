"""MIDI knobs that are bound to controls from a page."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

from rtsr.errors import RtsrError
from rtsr.live.controls.board import ControlBoard
from rtsr.live.controls.midi.listener import MidiControls
from rtsr.live.controls.midi.map import MidiMap, load_map
from rtsr.live.controls.midi.ports import MidiPort

__all__ = ["Learning"]


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
        self._begun: weakref.WeakSet[threading.Event] = weakref.WeakSet()
        self._is_closed = False

    def listen(self) -> None:
        """Let the knobs that the map knows turn the controls, if the device is there."""
        with contextlib.suppress(RtsrError):
            self._open()

    def begin(self, control: str) -> Callable[[], str]:
        """Begin to learn a knob; from now on :meth:`give_up` ends it.

        Returns:
            What opens the device, if need be, and waits for the knob: to be called in a thread. It
            returns a sentence that says which knob is bound, or raises :class:`RtsrError`: there
            is no device, or more than one; no knob is moved in time; another control is being
            learnt; it was given up; or the map cannot be read or written.
        """
        given_up = threading.Event()
        self._begun.add(given_up)

        def wait() -> str:
            midi = self._open()
            return midi.learn(control, self._path, given_up=given_up).learnt(self._path)

        return wait

    def give_up(self) -> None:
        """End all that was begun and has no knob yet; it raises."""
        for given_up in list(self._begun):
            given_up.set()
        if self._midi is not None:
            self._midi.give_up_learning()

    def bindings(self) -> dict[str, str]:
        """Return which knob turns each control that has one, in words."""
        if self._midi is None:
            return {}
        return {each.name: f"CC {each.cc}" for each in self._midi.midi_map.bindings}

    def close(self) -> None:
        """Give up what waits, and close the device if it was opened here."""
        self.give_up()
        with self._opening:
            self._is_closed = True
            self._midi = None
            if self._own is not None:
                self._own.close()
                self._own = None

    def _open(self) -> MidiControls:
        with self._opening:
            if self._is_closed:
                raise RtsrError("The page is closed.")
            if self._midi is None:
                known = load_map(self._path) if self._path.exists() else MidiMap()
                self._midi = self._own = MidiControls(self._board, known, self._port)
            return self._midi
