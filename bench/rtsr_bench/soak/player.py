"""Plays a clip in a loop into JACK and records what comes back, without Python in between.

A player that lost a cycle itself could not tell whether the engine did. So its process callbacks
are compiled, as the engine's is. They are two clients: with one, JACK would see a loop and put a
period of delay into it.

Frame `f` of the server's count plays frame `f mod length` of the clip, and what is recorded at
frame `f` lies at `f mod CAPACITY`: nothing has to be started at the same time.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import IO, Any

import numpy as np
from numba import cfunc, float32, int32, int64, intp, njit, uint32, void
from numpy.typing import NDArray

from rtsr.errors import MissingDependencyError, RtsrError
from rtsr.live.shared.pointers import carray, frames_at, pointer_to

Audio = NDArray[np.float32]

CAPACITY = 1 << 19
"""Frames that the recorder keeps until they are fetched: eleven seconds."""

_GAPS_KEPT = 4096
_WORDS = 8 + 2 * _GAPS_KEPT
_CLIENT, _PORT, _AUDIO, _LENGTH, _NEXT, _GAPS = range(6)
_FIRST_GAP = 8
_SIGNATURE = int32(uint32, intp)
_CONNECT_SECONDS = 20.0


def load_jack() -> Any:
    """Return the module of JACK-Client.

    Raises:
        MissingDependencyError: it is not installed.
        RtsrError: JACK's own library is not.
    """
    try:
        import jack
    except ImportError as error:
        raise MissingDependencyError("Playing into JACK", "dev") from error
    except OSError as error:
        raise RtsrError("JACK is not installed; on Debian it is the package jackd2.") from error
    return jack


class SoakPlayer:
    """A player and a recorder on the default JACK server; plays while it is a context.

    Args:
        clip: float32 ``(frames,)`` at the server's rate.
        into: the port to play into.
        out_of: the port to record. Nothing else stays connected to the two.

    Raises:
        RtsrError: there is no server, or a port does not appear.
    """

    def __init__(self, clip: Audio, into: str, out_of: str) -> None:
        self._jack = load_jack()
        self._clip = np.ascontiguousarray(clip, np.float32)
        self._kept = np.zeros(CAPACITY, np.float32)
        self._ports = (into, out_of)
        self._fetched = -1
        self.xruns = 0

    def __enter__(self) -> SoakPlayer:
        jack = self._jack
        try:
            self._player = jack.Client("rtsr-player", no_start_server=True)
            self._recorder = jack.Client("rtsr-recorder", no_start_server=True)
        except jack.JackError as error:
            raise RtsrError(f"There is no JACK server to play into ({error}).") from error
        out = self._player.outports.register("out")
        capture = self._recorder.inports.register("in")
        self._callbacks = _compile(jack)
        self._states = (
            self._prepare(self._player, out, self._clip, self._callbacks[0]),
            self._prepare(self._recorder, capture, self._kept, self._callbacks[1]),
        )
        self._recorder.set_xrun_callback(self._count_xrun)
        self._player.activate()
        self._recorder.activate()
        sink, origin = (self._wait_for(name) for name in self._ports)
        # Also what the engine plays to: else it would state the latency of that.
        for port in self._player.get_all_connections(sink):
            self._player.disconnect(port, sink)
        for port in self._player.get_all_connections(origin):
            self._player.disconnect(origin, port)
        self._player.connect(out, sink)
        self._recorder.connect(origin, capture)
        return self

    def __exit__(self, *_: object) -> None:
        for client in (self._player, self._recorder):
            client.deactivate()
            client.close()

    @property
    def next_frame(self) -> int:
        """The server's count at the end of what has been recorded."""
        return int(self._states[1][_NEXT])

    @property
    def gaps(self) -> NDArray[np.int64]:
        """First frame and number of frames ``(gaps, 2)`` that player or recorder missed."""
        found = []
        for state in self._states:
            count = min(int(state[_GAPS]), _GAPS_KEPT)
            found.append(state[_FIRST_GAP : _FIRST_GAP + 2 * count].reshape(-1, 2))
        return np.concatenate(found)

    def fetch(self, file: IO[bytes]) -> int:
        """Append what was recorded since the last call; returns the first frame ever fetched."""
        end = self.next_frame
        if self._fetched < 0:
            self._fetched = self._first = end
        start = max(self._fetched, end - CAPACITY)
        if start > self._fetched:
            np.zeros(start - self._fetched, np.float32).tofile(file)
        low, high = start % CAPACITY, end % CAPACITY
        parts = [self._kept[low:high]] if low <= high else [self._kept[low:], self._kept[:high]]
        for part in parts:
            file.write(part.tobytes())
        self._fetched = end
        return self._first

    def _prepare(self, client: Any, port: Any, audio: Audio, callback: Any) -> NDArray[np.int64]:
        jack = self._jack
        state = np.zeros(_WORDS, np.int64)
        state[_CLIENT] = int(jack._ffi.cast("intptr_t", client._ptr))
        state[_PORT] = int(jack._ffi.cast("intptr_t", port._ptr))
        state[_AUDIO], state[_LENGTH], state[_NEXT] = audio.ctypes.data, len(audio), -1
        failed = jack._lib.jack_set_process_callback(
            client._ptr,
            jack._ffi.cast("JackProcessCallback", callback.address),
            jack._ffi.cast("void*", state.ctypes.data),
        )
        if failed:
            raise RtsrError("JACK does not take the player's callback.")
        return state

    def _count_xrun(self, delay: float) -> None:
        self.xruns += 1

    def _wait_for(self, name: str) -> Any:
        deadline = time.monotonic() + _CONNECT_SECONDS
        while True:
            try:
                return self._player.get_port_by_name(name)
            except self._jack.JackError:
                if time.monotonic() > deadline:
                    raise RtsrError(f"JACK port '{name}' does not appear.") from None
                time.sleep(0.05)


@njit(int64(int64[::1], int64))
def _unwrapped(words: NDArray[np.int64], now: int) -> int:
    """Return JACK's count of frames with what its 32 bits leave out, which is a day at 48 kHz."""
    following = words[_NEXT]
    if following < 0:
        return now
    ahead = (now - following) & 0xFFFFFFFF
    return following + (ahead - (1 << 32) if ahead >= 1 << 31 else ahead)


@njit(void(int64[::1], int64, int64))
def _count(words: NDArray[np.int64], now: int, frames: int) -> None:
    """Note the cycle, and the one before it if that was lost."""
    if 0 <= words[_NEXT] < now:
        place = _FIRST_GAP + 2 * (words[_GAPS] % _GAPS_KEPT)
        words[place] = words[_NEXT]
        words[place + 1] = now - words[_NEXT]
        words[_GAPS] += 1
    words[_NEXT] = now + frames


def _compile(jack: Any) -> tuple[Any, Any]:
    """Return the process callbacks of the player and of the recorder."""

    def function(name: str, result: Any, *kinds: Any) -> Any:
        address = int(jack._ffi.cast("intptr_t", getattr(jack._lib, name)))
        return ctypes.CFUNCTYPE(result, *kinds)(address)

    word, unsigned = ctypes.c_int64, ctypes.c_uint32
    port_buffer: Callable[[int, int], int] = function("jack_port_get_buffer", word, word, unsigned)
    last_frame: Callable[[int], int] = function("jack_last_frame_time", unsigned, word)

    def play(frames: int, argument: int) -> int:
        words = carray(pointer_to(argument), (_WORDS,), int64)
        now = _unwrapped(words, last_frame(words[_CLIENT]))
        buffer = frames_at(port_buffer(words[_PORT], frames), frames, 1)
        length = words[_LENGTH]
        clip = frames_at(words[_AUDIO], length, 1)
        for frame in range(frames):
            buffer[frame, 0] = clip[(now + frame) % length, 0]
        _count(words, int(now), int(frames))
        return 0

    def record(frames: int, argument: int) -> int:
        words = carray(pointer_to(argument), (_WORDS,), int64)
        now = _unwrapped(words, last_frame(words[_CLIENT]))
        buffer = frames_at(port_buffer(words[_PORT], frames), frames, 1)
        length = words[_LENGTH]
        kept = frames_at(words[_AUDIO], length, 1)
        # What was not recorded is not to be mistaken for what lay here before.
        if 0 <= words[_NEXT] < now:
            for frame in range(words[_NEXT], min(now, words[_NEXT] + length)):
                kept[frame % length, 0] = float32(0.0)
        for frame in range(frames):
            kept[(now + frame) % length, 0] = buffer[frame, 0]
        _count(words, int(now), int(frames))
        return 0

    return cfunc(_SIGNATURE)(play), cfunc(_SIGNATURE)(record)
