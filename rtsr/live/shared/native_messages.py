"""What system libraries of sound print to stderr by themselves, kept off the user's terminal."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import sys
from collections.abc import Iterator
from functools import cache


@cache
def silence_alsa_and_jack() -> None:
    """Keep ALSA and JACK from printing that a device is not there, from now on.

    They do so at every check, into the middle of the screen. A handler in Python could be called
    from one of their threads while the interpreter ends, so each gets a function of its own
    library that takes nothing and changes nothing. Call it when the libraries are loaded.
    """
    if not sys.platform.startswith("linux"):
        return
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        paths = {line.split(maxsplit=5)[-1].strip() for line in maps if ".so" in line}
    for path in paths:
        name = path.rpartition("/")[2]
        try:
            if name.startswith("libjack"):
                library = ctypes.CDLL(path)
                library.jack_set_error_function(library.jack_get_version_string)
                library.jack_set_info_function(library.jack_get_version_string)
            elif name.startswith("libasound"):
                library = ctypes.CDLL(path)
                library.snd_lib_error_set_handler(library.snd_asoundlib_version)
        except (OSError, AttributeError):
            continue


@contextlib.contextmanager
def stderr_for_python_alone() -> Iterator[None]:
    """Let only Python write to the program's stderr for a while, and no system library.

    PortAudio prints every call of ALSA that fails, from threads of its own, and has no way to turn
    that off: some sixty lines when a sound server dies. For whole programs; where stderr is not
    file descriptor 2, nothing is changed.
    """
    try:
        is_plain = sys.stderr is not None and sys.stderr.fileno() == 2
    except (OSError, ValueError):
        is_plain = False
    if not is_plain:
        yield
        return
    plain = sys.stderr
    plain.flush()
    with os.fdopen(os.dup(2), "w", encoding=plain.encoding, errors=plain.errors) as own:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        sys.stderr = own
        _move_faulthandler()
        try:
            yield
        finally:
            own.flush()
            os.dup2(own.fileno(), 2)
            sys.stderr = plain
            _move_faulthandler()


def _move_faulthandler() -> None:
    if faulthandler.is_enabled():
        faulthandler.enable()
