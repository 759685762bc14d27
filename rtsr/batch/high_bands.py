"""The high bands of a batch's streams, from its network or from what stands for it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rtsr.batch.replicate import BatchReplicate
from rtsr.batch.row_levels import (
    DRY_INDEX,
    NETWORK_INDEX,
    REPLICATE_INDEX,
    RowLevels,
    RowStep,
)
from rtsr.batch.shedding import LEVELS, Plan
from rtsr.batch.slots import SlotStep
from rtsr.engine.network_rows import network_rows
from rtsr.timing import HOP
from rtsr_kernels.network_rows import check_rows, fill_rows, list_slots

Audio = NDArray[np.float32]
Rows = NDArray[np.int64]


class HighBand(NamedTuple):
    """What came of one step.

    Attributes:
        audio: ``(slots, samples)``.
        unusable: rows for which it is silent because the network gave no sound.
        levels: of the step's rows.
    """

    audio: Audio
    unusable: Rows
    levels: RowStep


class HighBands:
    """Makes what a plan asks for, for streams that take one step or several in turn.

    For each of these :meth:`prepare`, then once :meth:`run`, then for each :meth:`finish`. Each
    stream fades from the level that it was at, in the first of its steps that has another one.

    Args:
        step: of the network; ``prepare`` expects the audio in its parts.
        streams: that the batch has at most.

    Attributes:
        network: signals of the first of these steps.
        values: scalars of each stream, see `rtsr_kernels.network_rows.VALUES`.
        slots: of its channels.
        replicate: what stands for the network where there is no time for it.
    """

    def __init__(self, step: SlotStep, streams: int) -> None:
        first = network_rows(step.parts[0], streams)
        # The streams of all of them are the same; what a step has found of them is its own.
        self._networks = [first] + [
            network_rows(part, streams)._replace(values=first.values, slots=first.slots)
            for part in step.parts[1:]
        ]
        self._step = step
        self.values = first.values
        self.slots = first.slots
        self.network = first
        self.replicate = BatchReplicate(self._networks)
        _, _, samples = first.audio.shape
        self._hops = samples // HOP
        self._silence: Audio = np.zeros((step.slots, samples), np.float32)
        self._outputs: list[dict[int, Audio]] = [
            {DRY_INDEX: self._silence, NETWORK_INDEX: network.high_band[:, 0]}
            for network in self._networks
        ]
        self._mixed: Audio = np.zeros_like(self._silence)
        self._levels = RowLevels(streams, self._hops)
        self._steps: list[RowStep] = []
        self._run_slots = np.zeros(step.slots, np.int64)
        self._unusable: list[Rows] = []
        # Two levels' bands are alike in level but not in detail: powers add. Against nothing,
        # amplitudes.
        angle = np.pi / 2 * np.minimum((np.arange(samples) + 0.5) / HOP, 1.0)
        self._fall, self._rise = np.cos(angle), np.sin(angle)

    def join(self, row: int, slots: list[int], level: str) -> None:
        """Let a stream begin at this level; the past of its slots was that of others, or nobody."""
        self._levels.join(row, level)
        self._step.clear(np.array(slots, np.int64))
        self.replicate.clear(slots)

    def leave(self, row: int) -> None:
        """Let the stream of a row end."""
        self._levels.leave(row)

    def prepare(self, plan: Plan, rows: Rows, f_prior: Audio, number: int) -> None:
        """Make or feed all but the network for one of the steps of ``rows``.

        Args:
            plan: of this step.
            rows: of the streams that take it.
            f_prior: ``(streams, hops)``, Hz where the content of each hop ends.
            number: of the step among those that are taken in turn.
        """
        step = self._levels.step(plan, rows)
        del self._steps[number:]
        self._steps.append(step)
        if step.all_network:
            fill_rows(self._networks[number], rows, f_prior)
            return
        replicated = (step.before == REPLICATE_INDEX) | (step.after == REPLICATE_INDEX)
        if replicated.any():
            self._outputs[number][REPLICATE_INDEX] = self.replicate.run(
                rows[replicated], f_prior, number
            )
        fill_rows(self._networks[number], rows[step.network], f_prior)
        self.values["frame"][rows[~step.network]] += self._hops

    def run(self, rows: Rows, held: NDArray[np.int64]) -> None:
        """Run the network, for whom it is to run, for all the steps of ``rows`` that were prepared.

        Where it gives what is no sound, the step is silent and the next one begins anew.

        Args:
            rows: of the streams that take them.
            held: slots that have a stream and do not.
        """
        first, steps = self._steps[0], len(self._steps)
        self._unusable = [rows[:0]] * steps
        if not first.all_network:
            if first.starts.any():
                self._step.clear(self._slots_of(rows[first.starts]))
            # Who only fades it out has it in the first of them alone. Who goes without it need not
            # be held: what it remembers of them is out of date, and cleared before it is used.
            if not self._steps[-1].network.all():
                steps = 1
            rows = rows[first.network]
            if not len(rows):
                return
        self._step.run(self._slots_of(rows), held, steps)
        for number in range(steps):
            if not check_rows(self._networks[number], rows):
                continue
            unusable = rows[self.values["is_unusable"][rows]]
            self._unusable[number] = unusable
            slots = self._slots_of(unusable)
            self._step.clear(slots)
            if number + 1 < steps:
                # What followed was made of what was no sound.
                self._step.run(slots, held, 1, number + 1)

    def finish(self, rows: Rows, number: int) -> HighBand:
        """Return the high band of one of the steps of ``rows`` that were run."""
        levels = self._steps[number]
        outputs, unusable = self._outputs[number], self._unusable[number]
        if levels.all_network:
            return HighBand(outputs[NETWORK_INDEX], unusable, levels)
        for old in range(len(LEVELS)):
            for new in range(len(LEVELS)):
                alike = rows[(levels.before == old) & (levels.after == new)]
                if len(alike):
                    slots = self._slots_of(alike)
                    self._mixed[slots] = self._faded(outputs, slots, old, new)
        return HighBand(self._mixed, unusable, levels)

    def _faded(
        self, outputs: dict[int, Audio], slots: NDArray[np.int64], old: int, new: int
    ) -> Audio:
        if old == new:
            return outputs[new][slots]
        fall, rise = self._fall, self._rise
        if DRY_INDEX in (old, new):
            fall, rise = fall**2, rise**2
        faded: Audio = (fall * outputs[old][slots] + rise * outputs[new][slots]).astype(np.float32)
        return faded

    def _slots_of(self, rows: Rows) -> NDArray[np.int64]:
        return self._run_slots[: list_slots(self._networks[0], rows, self._run_slots)]
