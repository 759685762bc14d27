"""Packets of many streams at once, into their waiting rings and out of their finished ones.

What `rtsr_kernels.ports.push_block` and `pull_block` do for one stream, here in one call for a row
of samples of each of many streams, which have one channel. The bits are the same.
"""

from __future__ import annotations

import numpy as np
from numba import float32, int16, int64, types, void

from .compiled import AUDIO, INDICES, INDICES_IN, SAMPLES, kernel
from .ports import PORTS, Ports, pull_block, push_block, readable
from .resample import TABLE

_ROWS_IN = types.Array(float32, 2, "A", readonly=True)
_INTEGER_ROWS_IN = types.Array(int16, 2, "A", readonly=True)
_ROWS = types.Array(float32, 2, "A")
_INTEGER_ROWS = types.Array(int16, 2, "A")


@kernel(int64(PORTS, INDICES_IN, INDICES_IN, int64, int64, int64, int64))
def first_without_room(
    ports: Ports,
    rows: np.ndarray,
    positions: np.ndarray,
    samples: int,
    up: int,
    down: int,
    reserved: int,
) -> int:
    """Return which of `rows` lacks room for so many samples, and `reserved` at 48 kHz; else -1.

    For the pushing thread only.

    Args:
        ports: of `rtsr_kernels.ports.make_ports`.
        rows: of streams that have the same input rate.
        positions: of their conversions, see `rtsr_kernels.resample.resample_line`.
        samples: to be pushed, at that rate.
        up: of the conversion.
        down: likewise.
        reserved: samples at 48 kHz that must stay free.
    """
    capacity = ports.waiting_data.shape[1]
    for index in range(rows.shape[0]):
        due = max(0, (samples * up - 1 - positions[index]) // down + 1)
        if due + reserved > capacity - readable(ports.waiting[rows[index]]):
            return index
    return -1


@kernel(
    [
        void(
            PORTS, INDICES_IN, blocks, INDICES_IN, AUDIO, TABLE, int64, INDICES, INDICES,
            SAMPLES, SAMPLES,
        )
        for blocks in (_ROWS_IN, _INTEGER_ROWS_IN)
    ]
)  # fmt: skip
def push_rows(
    ports: Ports,
    rows: np.ndarray,
    blocks: np.ndarray,
    places: np.ndarray,
    histories: np.ndarray,
    table: np.ndarray,
    down: int,
    positions: np.ndarray,
    repaired: np.ndarray,
    line: np.ndarray,
    converted: np.ndarray,
) -> None:
    """Append a block to the waiting ring of each of `rows`, which have room for it.

    For the pushing thread only.

    Args:
        ports: of `rtsr_kernels.ports.make_ports`.
        rows: of streams of one channel that have the same input rate; none twice.
        blocks: ``(blocks, samples)`` float32 in [-1, 1] or int16, of any layout.
        places: ``(rows,)``, which of `blocks` is for each of them.
        histories: ``(slots, samples)`` of the conversions.
        table: of the conversion, see `rtsr_kernels.ports.push_block`.
        down: likewise.
        positions: ``(rows,)``, likewise; those for the next blocks are left there.
        repaired: ``(rows,)``, filled with how many samples were repaired.
        line: scratch memory, likewise.
        converted: likewise.
    """
    for index in range(rows.shape[0]):
        row = rows[index]
        place = places[index]
        slot = ports.slots[row, 0]
        positions[index], repaired[index] = push_block(
            blocks[place : place + 1].T,
            ports.waiting[row],
            ports.waiting_data,
            ports.slots[row],
            histories[slot : slot + 1],
            table,
            positions[index],
            down,
            line,
            converted,
        )


@kernel([void(PORTS, INDICES_IN, out, INDICES, INDICES) for out in (_ROWS, _INTEGER_ROWS)])
def pull_rows(
    ports: Ports, rows: np.ndarray, out: np.ndarray, counts: np.ndarray, clipped: np.ndarray
) -> None:
    """Move finished samples of each of `rows` into the front of its row of `out`.

    For the pulling thread only.

    Args:
        ports: of `rtsr_kernels.ports.make_ports`.
        rows: of streams of one channel.
        out: ``(rows, samples)`` float32 or int16, of any layout.
        counts: ``(rows,)``, filled with how many samples were moved.
        clipped: ``(rows,)``, likewise with how many of them were clipped.
    """
    for index in range(rows.shape[0]):
        row = rows[index]
        counts[index], clipped[index] = pull_block(
            ports.finished[row], ports.finished_data, ports.slots[row], out[index : index + 1].T
        )
