"""Fill and read the rows of a network's batch, which hold the channels of many streams."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import boolean, float32, from_dtype, int64, types, void
from numpy.typing import NDArray

from .compiled import AUDIO, AUDIO_IN, INDICES, INDICES_IN, SAMPLES, kernel
from .noise import fill_noise_line

# All channels of a stream share one noise, which keeps the stereo image above the cutoff.
_SHARED_STREAM = 0
_LARGEST = np.finfo(np.float32).max

VALUES = np.dtype(
    [
        ("channels", np.int64),
        ("seed", np.int64),
        ("frame", np.int64),
        ("f_target", np.float64),
        ("are_alike", np.bool_),
        ("is_unusable", np.bool_),
    ],
    align=True,
)
"""Scalars of one stream.

``frame`` is the index of its next hop, of which the noise is a function; ``are_alike`` says that
its channels have been identical in all that was filled in so far, ``is_unusable`` that the last
step's result was not finite.
"""
SIGNALS = types.Array(float32, 3, "C")


class NetworkRows(NamedTuple):
    """Signals of a network, one item of the batch per slot, and the stream that each belongs to."""

    values: NDArray[Any]
    """``(streams,)`` of `VALUES`."""
    slots: NDArray[np.int64]
    """``(streams, 8)``: the slot of each channel."""
    audio: NDArray[np.float32]
    """``(slots, 1, 480 * hops)``."""
    noise: NDArray[np.float32]
    """``(slots, noise channels, hops)``."""
    f_prior: NDArray[np.float32]
    """``(slots, 1, hops)``."""
    f_target: NDArray[np.float32]
    """``(slots, 1, hops)``."""
    high_band: NDArray[np.float32]
    """``(slots, 1, 480 * hops)``: the network's output."""
    line: NDArray[np.float32]
    """``(noise channels,)``: scratch memory where a step has several hops."""
    alike: NDArray[np.bool_]
    """``(streams,)``: whether channels have been identical up to the end of this step."""


ROWS = types.NamedTuple(
    [
        types.Array(from_dtype(VALUES), 1, "C"),
        types.Array(int64, 2, "C"),
        SIGNALS,
        SIGNALS,
        SIGNALS,
        SIGNALS,
        SIGNALS,
        SAMPLES,
        types.Array(boolean, 1, "C"),
    ],
    NetworkRows,
)
"""numba's type of `NetworkRows`."""


@kernel(boolean(ROWS, int64, int64))
def _is_like_first(network: NetworkRows, row: int, channel: int) -> bool:
    first = network.audio[network.slots[row, 0], 0]
    other = network.audio[network.slots[row, channel], 0]
    same = True
    for i in range(first.shape[0]):
        same = same and first[i] == other[i]
    return same


@kernel(void(ROWS, INDICES_IN, AUDIO_IN))
def fill_rows(network: NetworkRows, rows: np.ndarray, f_prior: np.ndarray) -> None:
    """Fill in noise and cutoffs of a step; the audio is there already.

    Args:
        network: the signals.
        rows: of the streams that take part.
        f_prior: ``(streams, hops)``, Hz where the content of each hop ends.
    """
    noise = network.noise
    _, noise_channels, hops = noise.shape
    for index in range(rows.shape[0]):
        row = rows[index]
        values = network.values[row]
        first = network.slots[row, 0]
        for hop in range(hops):
            line = noise[first].reshape(noise_channels) if hops == 1 else network.line
            fill_noise_line(values.seed, values.frame + hop, _SHARED_STREAM, line)
            if hops > 1:
                for i in range(noise_channels):
                    noise[first, i, hop] = line[i]
        for channel in range(values.channels):
            slot = network.slots[row, channel]
            for hop in range(hops):
                network.f_prior[slot, 0, hop] = f_prior[row, hop]
                network.f_target[slot, 0, hop] = float32(values.f_target)
            if channel:
                noise[slot] = noise[first]
                # A matrix product may round each item of a batch in its own way. Channels that have
                # been the same so far must stay so to the last bit, or mono in two channels would
                # not be mono.
                values.are_alike = values.are_alike and _is_like_first(network, row, channel)
        network.alike[row] = values.are_alike
        values.frame += hops


@kernel(boolean(SAMPLES))
def _is_finite(line: np.ndarray) -> bool:
    broken = False
    for i in range(line.shape[0]):
        # A NaN fails this comparison, too.
        broken |= not abs(line[i]) <= _LARGEST
    return not broken


@kernel(int64(ROWS, INDICES_IN))
def check_rows(network: NetworkRows, rows: np.ndarray) -> int:
    """Check the network's output; return for how many of the streams it is not finite.

    There it is replaced by silence, and ``is_unusable`` is set. Channels of a stream that have been
    identical so far get identical output.
    """
    unusable = 0
    for index in range(rows.shape[0]):
        row = rows[index]
        values = network.values[row]
        values.is_unusable = False
        for channel in range(values.channels):
            if not _is_finite(network.high_band[network.slots[row, channel], 0]):
                values.is_unusable = True
        unusable += int(values.is_unusable)
        first = network.slots[row, 0]
        for channel in range(values.channels):
            slot = network.slots[row, channel]
            if values.is_unusable:
                network.high_band[slot, 0, :] = np.float32(0.0)
            elif channel and network.alike[row]:
                network.high_band[slot, 0] = network.high_band[first, 0]
    return unusable


@kernel(void(ROWS, int64, AUDIO_IN))
def fill_audio(network: NetworkRows, row: int, audio: np.ndarray) -> None:
    """Copy ``(480 * hops, channels)`` of one stream into its slots."""
    for channel in range(audio.shape[1]):
        line = network.audio[network.slots[row, channel], 0]
        for i in range(line.shape[0]):
            line[i] = audio[i, channel]


@kernel(void(ROWS, int64, AUDIO))
def read_high_band(network: NetworkRows, row: int, out: np.ndarray) -> None:
    """Copy ``(480 * hops, channels)`` of one stream from its slots."""
    for channel in range(out.shape[1]):
        line = network.high_band[network.slots[row, channel], 0]
        for i in range(line.shape[0]):
            out[i, channel] = line[i]


@kernel(int64(ROWS, INDICES_IN, INDICES))
def list_slots(network: NetworkRows, rows: np.ndarray, slots: np.ndarray) -> int:
    """Fill in the slots of all channels of these streams; returns how many they are."""
    count = 0
    for index in range(rows.shape[0]):
        for channel in range(network.values[rows[index]].channels):
            slots[count] = network.slots[rows[index], channel]
            count += 1
    return count
