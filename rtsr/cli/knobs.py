"""MIDI knobs on the command line."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rtsr.live.controls.board import ControlBoard


class Knobs:
    """The MIDI options, checked before anything is opened.

    Args:
        port: number or part of the name; the only one if ``None``.
        path: of the map; the user's own if ``None``.
        learn: a control whose knob is to be learnt.
        on_page: whether a page may learn, too.

    Raises:
        MissingDependencyError: python-rtmidi is not installed.
        RtsrError: the map cannot be read, or there is no such port.
    """

    def __init__(
        self, port: str | None, path: Path | None, learn: str | None, on_page: bool = False
    ) -> None:
        from rtsr.live.controls.midi.map import MidiMap, default_map_path, load_map

        self.wanted = port is not None or path is not None or learn is not None
        self.path = path or default_map_path()
        self.learn = learn
        if not self.wanted:
            return
        from rtsr.live.controls.board import find_control
        from rtsr.live.controls.midi.ports import choose_port

        if learn is not None:
            find_control(learn)
        may_be_new = path is None or learn is not None or on_page
        if self.path.exists() or not may_be_new:
            self.map = load_map(self.path)
        else:
            self.map = MidiMap()
        # A wrong port, or no python-rtmidi, is better known before the sound starts.
        self.port = choose_port(port)

    def connect(self, board: ControlBoard) -> Any:
        """Return a context in which the knobs turn a session's controls."""
        if not self.wanted:
            return contextlib.nullcontext()
        from rtsr.live.controls.midi.listener import MidiControls

        return MidiControls(board, self.map, self.port)
