"""PortAudio, by way of sounddevice: loading it, starting it anew, and saying what went wrong."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rtsr.ending import held_back
from rtsr.errors import MissingDependencyError, RtsrError
from rtsr.live.device import jack

JACK = "JACK Audio Connection Kit"
ALSA = "ALSA"
ONE_CLOCK_HOST_APIS = (JACK, "ASIO")
"""Host APIs whose devices all run on one clock, so that any two of them make a duplex stream."""

_lock = threading.RLock()

_CLIENT_NAME = b"rtsr"

_INVALID_RATE = -9997
_INVALID_CHANNELS = -9998
_INVALID_DEVICE = -9996
_FORMAT_NOT_SUPPORTED = -9994
_BAD_COMBINATION = -9993
_UNAVAILABLE = -9985
_INTERNAL = -9986
_HOST_ERROR = -9999


# Copies of the library that must never be unloaded, and handles of the functions that sounddevice
# does not know, of the copy in use last.
_abandoned: list[Any] = []
_extras: list[Any] = []
# What JACK calls this program, one item. Asked for while the server surely lives: once it died,
# PortAudio's client is freed by any attempt to reach another one.
_known_client_name = [_CLIENT_NAME.decode()]


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Hold PortAudio, and leave signals that end the program for afterwards.

    It is one for the whole program, and starting it anew takes every session's streams away. A
    signal that comes while a stream is opened interrupts what JACK's client library reads from its
    server, and of a call that fails there PortAudio makes an abort. Nor does a signal stay blocked
    that JACK's library blocks meanwhile.
    """
    with _lock, held_back():
        yield


def load() -> Any:
    """Return the module `sounddevice`, with PortAudio started.

    Raises:
        MissingDependencyError: sounddevice is not installed.
        RtsrError: the PortAudio library is not, or it does not start.
    """
    if "sounddevice" in sys.modules:
        return importlib.import_module("sounddevice")  # waits where a thread is importing it
    with undisturbed():
        return _load_afresh()


def _load_afresh() -> Any:
    try:
        sounddevice = importlib.import_module("sounddevice")
    except ImportError as error:
        raise MissingDependencyError("Sound from and to a device", "live") from error
    except OSError as error:
        raise RtsrError(
            "The PortAudio library is not installed; on Debian and Ubuntu it is the package "
            "libportaudio2, on Fedora portaudio, in Homebrew portaudio."
        ) from error
    except Exception as error:  # PortAudioError, of a module that is not there
        raise RtsrError(f"PortAudio does not start ({error}).") from error
    except BaseException:  # Ctrl-C
        _keep_loaded()
        raise
    atexit.register(_leave)
    named = _name_client(sounddevice._libname)
    _learn_client_name(sounddevice)
    if named:
        restart()
    return sounddevice


def restart() -> None:
    """List devices anew; PortAudio does so only when it starts. Every stream must be closed.

    Raises:
        RtsrError: PortAudio does not start again.
    """
    sounddevice = load()
    if server_is_lost():
        abandon()
        return
    with undisturbed():
        with contextlib.suppress(sounddevice.PortAudioError):
            sounddevice._terminate()
        _initialize(sounddevice)


def server_is_lost() -> bool:
    """Whether the JACK server that PortAudio is a client of has gone, or is now another one."""
    sounddevice = load()
    if not sounddevice._initialized:
        return False
    return _is_on_jack(sounddevice) and not jack.has_client(jack_client_name())


def abandon() -> None:
    """Leave PortAudio alone with a JACK server that died, and go on with a fresh copy of it.

    PortAudio asserts that it can unregister its ports when it closes a stream, and that it can
    leave the server when it ends; with a dead server it aborts the whole program instead. What it
    still holds, a closed socket and some memory, stays until the program ends.

    Raises:
        RtsrError: no fresh copy can be loaded.
    """
    sounddevice = load()
    path = _path_in_memory("libportaudio")
    if path is None:
        sounddevice._initialized = 0
        raise RtsrError("The JACK server is gone, and only a new start of rtsr finds another one.")
    # Of its own name, because the linker gives the copy it has for a file that it knows.
    with tempfile.TemporaryDirectory(prefix="rtsr-") as folder:
        copy = shutil.copy(path, folder)
        fresh = sounddevice._ffi.dlopen(str(copy))
        _name_client(str(copy))
    _abandoned.append(sounddevice._lib)
    sounddevice._lib = fresh
    sounddevice._initialized = 0
    with undisturbed():
        _initialize(sounddevice)


def jack_client_name() -> str:
    """Return what JACK calls this program: `rtsr`, or with a number if there are several."""
    return _known_client_name[0]


def reason(error: Exception) -> str:
    """Return what PortAudio says, without the words that only say where."""
    text = str(error.args[0]) if error.args else type(error).__name__
    host = error.args[2] if len(error.args) > 2 else None
    text = text.rpartition(": ")[2].split(" [")[0]
    if isinstance(host, tuple) and len(host) == 3 and host[2]:
        text = f"{text}; {host[2]}"
    return text.strip().rstrip(".").replace("\n", " ")


def explain(error: Exception, device: str, rate: int, channels: str, sample_format: str) -> str:
    """One sentence for a stream on `device` that did not open."""
    code = error.args[1] if len(error.args) > 1 else 0
    if code == _INVALID_RATE:
        return f"{device} does not run at {rate} Hz; see `rtsr devices` for rates that work."
    if code == _INVALID_CHANNELS:
        return f"{device} does not offer {channels}; see `rtsr devices` for what it has."
    if code == _FORMAT_NOT_SUPPORTED:
        return f"{device} does not take {sample_format} samples; try another --format."
    if code == _BAD_COMBINATION:
        return f"{device} cannot be opened together; choose devices of one host API."
    if code == _UNAVAILABLE:
        return f"{device} is busy or gone; close the program that uses it, or choose another."
    if code in (_INVALID_DEVICE, _INTERNAL, _HOST_ERROR):
        return (
            f"{device} does not open ({reason(error)}); it may be busy or gone, see `rtsr devices`."
        )
    return f"{device} does not open ({reason(error)})."


def _initialize(sounddevice: Any) -> None:
    try:
        sounddevice._initialize()
    except sounddevice.PortAudioError as error:
        raise RtsrError(f"PortAudio does not start again ({reason(error)}).") from error
    _learn_client_name(sounddevice)


def _is_on_jack(sounddevice: Any) -> bool:
    return any(api["name"] == JACK for api in sounddevice.query_hostapis())


def _learn_client_name(sounddevice: Any) -> None:
    # Asked without a server, PortAudio complains on stderr.
    if not _is_on_jack(sounddevice):
        return
    name = ctypes.c_char_p()
    with contextlib.suppress(AttributeError, IndexError, OSError, TypeError):
        if _extras[-1].PaJack_GetClientName(ctypes.byref(name)) == 0 and name.value:
            _known_client_name[0] = name.value.decode()


def _name_client(path: str) -> bool:
    """Have JACK call us by our name; whether PortAudio can and must be restarted for it."""
    try:
        library = ctypes.CDLL(path)
        _extras.append(library)
        # PortAudio keeps the pointer: the name has to live as long as this module.
        return bool(library.PaJack_SetClientName(ctypes.c_char_p(_CLIENT_NAME)) == 0)
    except (AttributeError, OSError, TypeError):
        return False


def _keep_loaded() -> None:
    """Leave PortAudio in order where sounddevice was interrupted while it starts it.

    A module that was not imported to its end lets go of its libraries, and JACK's threads would
    run on in one that is not there any more. What ctypes has opened stays.
    """
    path = _path_in_memory("libportaudio")
    if path is not None:
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(str(path)).Pa_Terminate()


def _path_in_memory(name: str) -> Path | None:
    """File of a library that this process has loaded; `None` where the system does not tell."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    paths = [line.partition("/")[1] + line.partition("/")[2] for line in lines if name in line]
    return next((Path(path) for path in paths if Path(path).is_file()), None)


def _leave() -> None:
    # sounddevice ends PortAudio at exit, which would abort for the reason that `abandon` gives.
    with contextlib.suppress(Exception):
        if server_is_lost():
            load()._initialized = 0
