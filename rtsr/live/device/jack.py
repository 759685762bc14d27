"""What PortAudio does not tell about a JACK server: its period, ports' latencies, connections.

JACK's library keeps the signals that are blocked when its first client opens and blocks them again,
for good, when its last one closes: whoever opens or closes one puts the thread's signals back.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rtsr.ending import held_back

_NAME = "rtsr-query"
_NO_START_SERVER = 1
_SERVER_FAILED = 0x10
# What is taken for lost is lost: a busy server gets some time to answer.
_ATTEMPTS = 3
_PAUSE_SECONDS = 0.05
_CAPTURE_LATENCY, _PLAYBACK_LATENCY = 0, 1
# How PortAudio names its ports, before their numbers.
_INPUT, _OUTPUT = "in_", "out_"

_numbers = itertools.count(1)


class _LatencyRange(ctypes.Structure):
    _fields_ = [("min", ctypes.c_uint32), ("max", ctypes.c_uint32)]


def period() -> int | None:
    """Frames per cycle of the running server; `None` if there is none."""
    with _client() as (library, client, _):
        return int(library.jack_get_buffer_size(client)) if client else None


def has_client(name: str) -> bool:
    """Whether the running server knows a client of that name.

    A server that is there and takes in nobody who could ask it may know one.
    """
    for attempt in range(_ATTEMPTS):
        time.sleep(attempt * _PAUSE_SECONDS)
        if _may_have_client(name):
            return True
    return False


def _may_have_client(name: str) -> bool:
    with _client() as (library, client, refused):
        if not client:
            return refused
        uuid = library.jack_get_uuid_for_client_name(client, name.encode())
        if not uuid:
            return False
        library.jack_free(uuid)
        return True


def port_latency(client_name: str, ports: Ports, rate: int) -> tuple[float, float] | None:
    """Seconds from the converter to a stream's first input port, and from its first output on.

    Both depend on what the ports are connected with: to another program they are zero. `None` if
    there are no such ports.
    """
    with _client() as (library, client, _):
        if not (client and ports.inputs and ports.outputs):
            return None
        seconds = []
        for port, mode in (
            (ports.inputs[0], _CAPTURE_LATENCY),
            (ports.outputs[0], _PLAYBACK_LATENCY),
        ):
            handle = library.jack_port_by_name(client, f"{client_name}:{port}".encode())
            if not handle:
                return None
            span = _LatencyRange()
            library.jack_port_get_latency_range(handle, mode, ctypes.byref(span))
            seconds.append(span.max / rate)
        return seconds[0], seconds[1]


@dataclass(frozen=True)
class Ports:
    """Names of a stream's ports, without the client's name, in the order of its channels."""

    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """Those of both sides."""
        return (*self.inputs, *self.outputs)

    def without(self, others: Ports) -> Ports:
        """Return the ports that are not among those of another stream, or of another time."""
        known = set(others.all)
        return Ports(
            tuple(port for port in self.inputs if port not in known),
            tuple(port for port in self.outputs if port not in known),
        )


Connections = dict[str, frozenset[str]]
"""Names of a client's own ports, without the client's name, and what each is connected with."""


class ServerReader:
    """Reads what there is on a server, as often as one likes.

    It stays a client of the server, but an inactive one: JACK's graph and its period lie in shared
    memory, so that reading them costs neither the server nor the other clients anything.
    """

    def __init__(self) -> None:
        # Looked for when a server is asked: a session without JACK has no use for it.
        self._library: Any = None
        self._client: Any = None

    def period(self) -> int | None:
        """Frames per cycle; `None` where there is no server."""
        client = self._joined()
        return int(self._library.jack_get_buffer_size(client)) if client else None

    def ports(self, client_name: str) -> Ports:
        """Return the ports of all streams of a client, in the order in which they were made."""
        client = self._joined()
        names = _port_names(self._library, client) if client else []
        own = f"{client_name}:"
        short = sorted(
            (name.removeprefix(own) for name in names if name.startswith(own)), key=_number_of
        )
        return Ports(
            tuple(port for port in short if port.startswith(_INPUT)),
            tuple(port for port in short if port.startswith(_OUTPUT)),
        )

    def connections(self, client_name: str, ports: tuple[str, ...]) -> Connections | None:
        """Return the connections of these ports; `None` where the server or a port is not there."""
        client = self._joined()
        return _connections(self._library, client, client_name, ports) if client else None

    def _joined(self) -> Any:
        if self._client is None:
            self._library = self._library or _library()
            if self._library is not None:
                self._client, _ = _open(self._library)
        return self._client

    def close(self, server_is_lost: bool = False) -> None:
        """Leave the server; whatever reads next joins it, or another one, again.

        Args:
            server_is_lost: whether it has gone. JACK's library frees the clients of such a server
                by itself, as soon as anybody looks for another one.
        """
        if self._client and not server_is_lost:
            _close(self._library, self._client)
        self._client = None


def restore_connections(client_name: str, wanted: Connections) -> None:
    """Connect a client's ports as they were, and with nothing else.

    What a port was connected with and is not there is left out.
    """
    with _client() as (library, client, _):
        present = _connections(library, client, client_name, tuple(wanted)) if client else None
        if present is None:
            return
        for port, others in wanted.items():
            own = f"{client_name}:{port}"
            for connect, names in (
                (library.jack_disconnect, present[port] - others),
                (library.jack_connect, others - present[port]),
            ):
                for other in names:
                    # Sound flows from an output port to an input port.
                    pair = (other, own) if port.startswith(_INPUT) else (own, other)
                    connect(client, pair[0].encode(), pair[1].encode())


def _connections(
    library: Any, client: Any, client_name: str, ports: tuple[str, ...]
) -> Connections | None:
    found: Connections = {}
    for port in ports if client else ():
        handle = library.jack_port_by_name(client, f"{client_name}:{port}".encode())
        if not handle:
            return None
        names = library.jack_port_get_all_connections(client, handle)
        found[port] = frozenset(_taken_names(library, names))
    return found or None


def _port_names(library: Any, client: Any) -> list[str]:
    return _taken_names(library, library.jack_get_ports(client, None, None, 0))


def _taken_names(library: Any, names: Any) -> list[str]:
    """Return the names of an array of JACK's, which is given back."""
    if not names:
        return []
    taken = [name.decode() for name in itertools.takewhile(bool, names)]
    library.jack_free(names)
    return taken


def _number_of(port: str) -> int:
    number = port.rpartition("_")[2]
    return int(number) if number.isdecimal() else 0


@contextlib.contextmanager
def _client() -> Iterator[tuple[Any, Any, bool]]:
    """Open a short-lived client of the default server.

    Yields:
        the library and a handle, both may be `None`, and whether there is a server that refused.
    """
    library = _library()
    client, refused = None, False
    if library is not None:
        client, status = _open(library)
        refused = not client and not status & _SERVER_FAILED
    try:
        yield library, client, refused
    finally:
        if client:
            _close(library, client)


def _open(library: Any) -> tuple[Any, int]:
    status = ctypes.c_int()
    with held_back():
        client = library.jack_client_open(_own_name(), _NO_START_SERVER, ctypes.byref(status))
    return client, status.value


def _close(library: Any, client: Any) -> None:
    with held_back():
        library.jack_client_close(client)


def _own_name() -> bytes:
    # JACK makes a file of it that all servers of a machine share.
    return f"{_NAME}-{os.getpid()}-{next(_numbers)}".encode()


def _library() -> Any:
    name = ctypes.util.find_library("jack") or ("libjack.so.0" if os.name == "posix" else None)
    try:
        library = ctypes.CDLL(name) if name else None
        if library is not None:
            _declare(library)
    except (OSError, AttributeError):
        return None
    return library


def _declare(library: Any) -> None:
    pointer = ctypes.c_void_p
    library.jack_client_open.restype = pointer
    library.jack_client_open.argtypes = [ctypes.c_char_p, ctypes.c_int, pointer]
    library.jack_client_close.argtypes = [pointer]
    library.jack_get_buffer_size.restype = ctypes.c_uint32
    library.jack_get_buffer_size.argtypes = [pointer]
    library.jack_get_uuid_for_client_name.restype = pointer
    library.jack_get_uuid_for_client_name.argtypes = [pointer, ctypes.c_char_p]
    library.jack_free.argtypes = [pointer]
    library.jack_free.restype = None
    library.jack_get_ports.restype = ctypes.POINTER(ctypes.c_char_p)
    library.jack_get_ports.argtypes = [pointer, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong]
    library.jack_port_by_name.restype = pointer
    library.jack_port_by_name.argtypes = [pointer, ctypes.c_char_p]
    library.jack_port_get_all_connections.restype = ctypes.POINTER(ctypes.c_char_p)
    library.jack_port_get_all_connections.argtypes = [pointer, pointer]
    for function in (library.jack_connect, library.jack_disconnect):
        function.argtypes = [pointer, ctypes.c_char_p, ctypes.c_char_p]
    library.jack_port_get_latency_range.restype = None
    library.jack_port_get_latency_range.argtypes = [pointer, ctypes.c_int, pointer]
