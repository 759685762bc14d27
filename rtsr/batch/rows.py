"""The inside of a batch, which it shares with its streams and nobody else sees."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsr.batch.high_bands import HighBands
from rtsr.batch.slots import SlotStep
from rtsr.colour.auto import AutoColour
from rtsr.colour.colour import Colour
from rtsr.engine.hop_engine import HopEngine
from rtsr.engine.network_rows import start_rows
from rtsr.engine.ports import stream_latency
from rtsr.errors import BatchFullError
from rtsr.timing import SAMPLE_RATE, Latency
from rtsr_kernels.ports import is_row_due, make_ports, ring_capacity

Audio = NDArray[np.float32]

# Silence behind the last sample: longer than any resampler's memory.
TAIL_MS = 20
RESERVED_FRAMES = 2 * TAIL_MS * SAMPLE_RATE // 1000


class BatchRows:
    """One row for each stream of a batch, and one slot for each of its channels.

    Args:
        step: of the network.
        hops_per_step: of it.
        buffer_ms: how much sound may wait on either side of a stream.

    Attributes:
        lock: held during a step; what a step reads is set under it.
        model: what makes the high bands.
        parts: ``(slots, samples)``, sound of each of the steps that are taken in turn.
        step_samples: at 48 kHz, of a step.
        engine: all but the network.
        high_bands: of the network, or of what stands for it.
        ports: where sound comes in and goes out.
    """

    def __init__(self, step: SlotStep, hops_per_step: int, buffer_ms: int) -> None:
        self.lock = threading.Lock()
        self.model = step.model
        self.parts: list[Audio] = [part.audio[:, 0] for part in step.parts]
        self.step_samples = self.parts[0].shape[1]
        self.engine = HopEngine(
            step.slots, step.slots, hops_per_step, step.metadata.overlap, ahead=len(step.parts)
        )
        self.high_bands = HighBands(step, step.slots)
        waiting = SAMPLE_RATE * buffer_ms // 1000 + 2 * self.step_samples + RESERVED_FRAMES
        self.ports = make_ports(step.slots, step.slots, self.step_samples, ring_capacity(waiting))
        self._capacity = step.slots
        self._f_target = step.metadata.f_target_default
        # The lowest free one last, for pop.
        self._free = list(range(step.slots))[::-1]
        self._free_rows = list(range(step.slots))[::-1]

    @property
    def free(self) -> int:
        """Slots that no stream has."""
        return len(self._free)

    def latency(self, input_rate: int, output_rate: int, alignment: int | None = None) -> Latency:
        """Return the latency of a stream, see `BatchUpsampler.latency`."""
        return stream_latency(
            input_rate,
            output_rate,
            self.step_samples,
            self.engine.overlap,
            waits_for_hop=True,
            alignment=alignment,
        )

    def take(self, channels: int) -> tuple[int, list[int]]:
        """Take a row, and a slot for each channel; under the lock.

        Raises:
            BatchFullError: there are not so many.
        """
        if channels > len(self._free):
            raise BatchFullError(
                f"A stream of {channels} channel{'' if channels == 1 else 's'} does not fit: "
                f"{len(self._free)} of {self._capacity} slots are free; close a stream or make "
                "a larger batch."
            )
        return self._free_rows.pop(), [self._free.pop() for _ in range(channels)]

    def begin(
        self,
        row: int,
        slots: list[int],
        level: str,
        *,
        native_hz: float,
        seed: int,
        wet: float,
        cutoff: float | None,
        ceiling: float | None,
        expected_cutoff: float | None,
        colour: Colour | AutoColour | None,
    ) -> None:
        """Let a stream begin in a row that was taken; under the lock.

        Args:
            row: which.
            slots: of its channels.
            level: of the high band that the batch makes now.
            native_hz: half of the rate that its sound has.
            seed: of the noise.
            wet: gain of the high band.
            cutoff: Hz where its content ends; ``None`` measures it.
            ceiling: Hz where its output ends; ``None`` leaves that to the model.
            expected_cutoff: Hz where the measuring begins.
            colour: of the high band.
        """
        f_target = self._f_target if ceiling is None else ceiling
        self.engine.join(
            row,
            slots,
            native_hz=native_hz,
            f_target=f_target,
            wet=wet,
            cutoff=cutoff,
            expected_cutoff=expected_cutoff,
            colour=colour,
        )
        start_rows(self.high_bands.network, row, slots, seed, f_target)
        self.high_bands.join(row, slots, level)

    def remove(self, row: int, slots: list[int]) -> None:
        """Let the stream of a row end, and give its place back; under the lock."""
        self.high_bands.leave(row)
        # A device goes on running them.
        for part in self.parts:
            part[slots] = 0.0
        self.give_back(row, slots)

    def give_back(self, row: int, slots: list[int]) -> None:
        """Give back what was taken; under the lock."""
        # What a colour has learnt need not stay until somebody takes the row again.
        self.engine.set_colour(row, None)
        self.ports.values["is_open"][row] = False
        self._free.extend(reversed(slots))
        self._free_rows.append(row)

    def set_target(self, row: int, f_target: float) -> None:
        """Set where a row's output should end, in Hz."""
        self.engine.set_target(row, f_target)
        self.high_bands.values["f_target"][row] = f_target

    def seed_of(self, row: int) -> int:
        """Return the seed of a row's noise."""
        return int(self.high_bands.values["seed"][row])

    def set_seed(self, row: int, seed: int) -> None:
        """Set the seed of a row's noise."""
        self.high_bands.values["seed"][row] = seed

    def counted(self, row: int) -> NDArray[Any]:
        """Return what was counted of a row, see `rtsr_kernels.ports.VALUES`."""
        counted: NDArray[Any] = self.ports.values[row]
        return counted

    def is_due(self, row: int) -> bool:
        """Whether the next step takes a row along."""
        return bool(is_row_due(self.ports, row, self.step_samples))
