"""Packets of many streams of a batch at once: what each of them does, without a call for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rtsr.batch.rows import RESERVED_FRAMES
from rtsr.batch.stream import BatchStream
from rtsr.engine.ports import BlockPort, InputConversion, as_samples
from rtsr.errors import ArgumentError, AudioFormatError
from rtsr.timing import SAMPLE_RATE
from rtsr_kernels.port_rows import first_without_room, pull_rows, push_rows
from rtsr_kernels.ports import Ports
from rtsr_kernels.resample import CHUNK_FRAMES

_LOWEST_RATE = 8000


@dataclass
class _OneRate:
    """The streams of a call that have the same input rate.

    Attributes:
        places: ``(streams,)`` int64, where they stand in the call.
        rows: ``(streams,)`` int64, in the batch.
        positions: ``(streams,)`` int64, of their conversions.
    """

    conversion: InputConversion
    places: NDArray[np.int64]
    rows: NDArray[np.int64]
    positions: NDArray[np.int64]

    def only(self, is_kept: NDArray[np.bool_]) -> _OneRate:
        """Return those streams that are to be kept."""
        kept = self.places[is_kept], self.rows[is_kept], self.positions[is_kept]
        return _OneRate(self.conversion, *kept)


class Packets:
    """The ways of many streams into their batch and out of it.

    Args:
        ports: of the batch.
        histories: ``(slots, INPUT_HISTORY)``, of the conversions of streams of one channel.
    """

    def __init__(self, ports: Ports, histories: NDArray[np.float32]) -> None:
        self._ports = ports
        self._histories = histories

    def push(self, streams: Sequence[BatchStream], blocks: ArrayLike) -> None:
        """Push a row of ``blocks`` into each stream; see `BatchUpsampler.push_many`."""
        ports = self._ports_of(streams, BatchStream.port_to_push)
        audio, integers = _rows_of_samples(blocks, len(ports))
        samples = audio.shape[1]
        rates = _by_rate(ports)
        for rate in rates:
            conversion = rate.conversion
            lacking = first_without_room(
                self._ports, rate.rows, rate.positions, samples, conversion.up, conversion.down,
                RESERVED_FRAMES,
            )  # fmt: skip
            if lacking >= 0:
                raise streams[rate.places[lacking]].no_room(samples)
        # Into the next block of these another sound is faded first, which is rare.
        fading = np.array([port.is_fading for port in ports], np.bool_)
        for place in np.flatnonzero(fading).tolist():
            port = ports[place]
            block = port.frames(audio[place])
            port.accept()
            port.push(block)
        line = np.empty(CHUNK_FRAMES, np.float32)
        converted = np.empty(CHUNK_FRAMES * SAMPLE_RATE // _LOWEST_RATE + 8, np.float32)
        for rate in rates:
            plain = rate.only(~fading[rate.places])
            repaired = np.zeros(len(plain.rows), np.int64)
            push_rows(
                self._ports, plain.rows, audio, plain.places, self._histories,
                plain.conversion.table, plain.conversion.down, plain.positions, repaired, line,
                converted,
            )  # fmt: skip
            noted = zip(
                plain.places.tolist(), plain.positions.tolist(), repaired.tolist(), strict=True
            )
            for place, position, unusable in noted:
                ports[place].has_pushed(samples, position, unusable, integers)

    def pull(self, streams: Sequence[BatchStream], out: NDArray[Any]) -> NDArray[np.int64]:
        """Fill a row of ``out`` from each stream; see `BatchUpsampler.pull_many`."""
        ports = self._ports_of(streams, BatchStream.port_to_pull)
        accepted = f"Samples are pulled into float32 or int16 ({len(ports)}, samples), not into"
        if not isinstance(out, np.ndarray):
            raise AudioFormatError(f"{accepted} a {type(out).__name__}.")
        fits = out.ndim == 2 and len(out) == len(ports) and out.flags.writeable
        if not fits or out.dtype not in (np.float32, np.int16):
            raise AudioFormatError(f"{accepted} {out.dtype} {out.shape}.")
        rows = np.array([port.row for port in ports], np.int64)
        counts, clipped = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
        pull_rows(self._ports, rows, out, counts, clipped)
        changed = (clipped > 0) | (self._ports.values["limited"][rows] > 0)
        for place in np.flatnonzero(changed).tolist():
            ports[place].has_pulled(int(clipped[place]))
        return counts

    def _ports_of(
        self, streams: Sequence[BatchStream], port_of: Callable[[BatchStream], BlockPort]
    ) -> list[BlockPort]:
        """Return the port of each stream, all of which must be fit for one call."""
        ports = []
        for stream in streams:
            if not isinstance(stream, BatchStream):
                raise ArgumentError(
                    f"Many streams at once are a list of what open() gave, not of {stream!r}."
                )
            port = port_of(stream)
            if port.ports is not self._ports:
                raise ArgumentError("A stream of another batch stands in the list of streams.")
            if port.channels != 1:
                raise ArgumentError(
                    f"Many streams at once have one channel each, and one of these has "
                    f"{port.channels}; push and pull it by itself."
                )
            ports.append(port)
        if len({port.row for port in ports}) < len(ports):
            raise ArgumentError("A stream stands twice in the list of streams.")
        return ports


def _rows_of_samples(blocks: ArrayLike, streams: int) -> tuple[NDArray[Any], bool]:
    """Return ``(streams, samples)`` of float32 or int16, and whether they are integers."""
    try:
        audio, integers = as_samples(blocks)
    except ValueError:
        # Of packets of several lengths NumPy makes no array.
        shape = "packets of several lengths"
    else:
        if audio.ndim == 2 and len(audio) == streams:
            return audio, integers
        if not streams and not audio.size:
            return np.zeros((0, 0), np.float32), False
        shape = f"blocks of shape {audio.shape}"
    raise AudioFormatError(
        f"The packets of {streams} streams are ({streams}, samples), not {shape}; "
        "push those of another length in another call."
    )


def _by_rate(ports: Sequence[BlockPort]) -> list[_OneRate]:
    """Sort the streams of a call by their input rate."""
    places: dict[int, list[int]] = {}
    for place, port in enumerate(ports):
        places.setdefault(port.conversion.rate, []).append(place)
    return [
        _OneRate(
            ports[mine[0]].conversion,
            np.array(mine, np.int64),
            np.array([ports[place].row for place in mine], np.int64),
            np.array([ports[place].conversion.position for place in mine], np.int64),
        )
        for mine in places.values()
    ]
