"""Single keys from a terminal, without waiting for Enter and without printing them."""

from __future__ import annotations

import atexit
import os
import select
import sys
import time
from typing import Protocol

# Bytes after an escape come at once; a person's escape key is alone.
_REST_OF_SEQUENCE_SECONDS = 0.03
# How soon a program that was put back into the foreground reads keys again.
_POLL_SECONDS = 0.5

_SEQUENCES = {
    "[A": "up",
    "[B": "down",
    "[C": "right",
    "[D": "left",
    "[H": "home",
    "[F": "end",
    "[1~": "home",
    "[4~": "end",
    "[5~": "page-up",
    "[6~": "page-down",
    "[7~": "home",
    "[8~": "end",
}
# The second half of what Windows sends after 0x00 or 0xE0.
_WINDOWS = {
    "H": "up",
    "P": "down",
    "M": "right",
    "K": "left",
    "G": "home",
    "O": "end",
    "I": "page-up",
    "Q": "page-down",
}


class Terminal(Protocol):
    """What keys are read from."""

    def read_keys(self) -> list[str]:
        """Return the keys pressed next; empty after half a second without one, or when woken."""

    def wake(self) -> None:
        """Make a waiting ``read_keys`` return."""

    def close(self) -> None:
        """Put the terminal back into the state it was found in."""


def open_terminal() -> Terminal | None:
    """Return the terminal that stdin is, or ``None`` if it is a file or pipe."""
    if sys.stdin is None or sys.stdin.closed or not sys.stdin.isatty():
        return None
    return WindowsTerminal() if sys.platform == "win32" else PosixTerminal(sys.stdin.fileno())


class PosixTerminal:
    """A terminal in cbreak mode: keys come one by one, Ctrl-C and Ctrl-Z work as always."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._before: list | None = None
        self._waking, self._wake = os.pipe()
        self._closed = False
        atexit.register(self.close)

    def read_keys(self) -> list[str]:
        """Return the keys pressed next, see :class:`Terminal`."""
        if not self._foreground():
            # Reading now would stop the whole program (SIGTTIN), and with it the sound.
            select.select([self._waking], [], [], _POLL_SECONDS)
            return []
        self._one_key_mode()
        if not self._ready(_POLL_SECONDS):
            return []
        try:
            data = os.read(self._descriptor, 256)
            # An escape sequence may come in two parts over a slow line.
            while data and _open_ended(data) and self._ready(_REST_OF_SEQUENCE_SECONDS):
                data += os.read(self._descriptor, 256)
        except OSError:
            data = b""
        if not data:
            # The terminal was closed, or emptied; the session goes on without keys.
            time.sleep(_POLL_SECONDS)
        return decode_keys(data)

    def wake(self) -> None:
        """Make a waiting ``read_keys`` return."""
        if not self._closed:
            os.write(self._wake, b"w")

    def close(self) -> None:
        """Put the terminal back into the state it was found in."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        self._restore()
        os.close(self._waking)
        os.close(self._wake)

    def _ready(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._descriptor, self._waking], [], [], seconds)
        return self._descriptor in ready and self._waking not in ready

    def _foreground(self) -> bool:
        try:
            return os.tcgetpgrp(self._descriptor) == os.getpgrp()
        except OSError:
            return False

    def _one_key_mode(self) -> None:
        """Set the mode again where needed: a shell resets it while the program is suspended."""
        import termios

        try:
            present = termios.tcgetattr(self._descriptor)
            if present[3] & (termios.ICANON | termios.ECHO) == 0:
                return
            if self._before is None:
                self._before = termios.tcgetattr(self._descriptor)
            present[3] &= ~(termios.ICANON | termios.ECHO)
            # Ctrl-C empties the queue, perhaps just before a read, which must then not wait.
            present[6][termios.VMIN] = 0
            present[6][termios.VTIME] = 0
            termios.tcsetattr(self._descriptor, termios.TCSANOW, present)
        except termios.error:
            return

    def _restore(self) -> None:
        import termios

        if self._before is None or not self._foreground():
            return
        try:
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)
        except termios.error:
            return


class WindowsTerminal:
    """The console's keys; it has no mode that would have to be put back."""

    def __init__(self) -> None:
        self._woken = False

    def read_keys(self) -> list[str]:
        """Return the keys pressed next, see :class:`Terminal`."""
        import msvcrt

        until = time.monotonic() + _POLL_SECONDS
        while not self._woken and time.monotonic() < until:
            if msvcrt.kbhit():  # type: ignore[attr-defined]
                key = msvcrt.getwch()  # type: ignore[attr-defined]
                if key in ("\x00", "\xe0"):
                    name = _WINDOWS.get(msvcrt.getwch())  # type: ignore[attr-defined]
                    return [name] if name else []
                return [key]
            time.sleep(0.02)
        return []

    def wake(self) -> None:
        """Make a waiting ``read_keys`` return."""
        self._woken = True

    def close(self) -> None:
        """Stop reading."""
        self._woken = True


def decode_keys(data: bytes) -> list[str]:
    """Characters, and names of the keys that terminals send as escape sequences.

    A sequence that is not known, with its letters and digits, gives nothing: its letters are no
    keys that were pressed.
    """
    text = data.decode("utf-8", errors="ignore")
    keys: list[str] = []
    start = 0
    while start < len(text):
        if text[start] != "\x1b":
            keys.append(text[start])
            start += 1
            continue
        end = _sequence_end(text, start)
        name = _SEQUENCES.get(text[start + 1 : end].replace("O", "[", 1))
        if name is not None:
            keys.append(name)
        start = end
    return keys


def _sequence_end(text: str, start: int) -> int:
    """Where an escape sequence ends: CSI (``ESC [ ... letter``), SS3 (``ESC O letter``) or Alt."""
    following = text[start + 1 : start + 2]
    if following == "O":
        return min(len(text), start + 3)
    if following == "[":
        end = start + 2
        while end < len(text) and not 0x40 <= ord(text[end]) <= 0x7E:
            end += 1
        return min(len(text), end + 1)
    return min(len(text), start + (1 if following in ("", "\x1b") else 2))


def _open_ended(data: bytes) -> bool:
    last = data.rfind(b"\x1b")
    if last < 0:
        return False
    tail = data[last + 1 :]
    return tail in (b"", b"[", b"O") or (
        tail.startswith(b"[") and not any(0x40 <= byte <= 0x7E for byte in tail[1:])
    )
