"""The high bands of a batch's streams, from its network or from what stands for it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtsr.batch.replicate import BatchReplicate
from rtsr.batch.shedding import DRY, NETWORK, REPLICATE, Plan
from rtsr.batch.slots import SlotStep
from rtsr.engine.network_rows import network_rows
from rtsr.timing import HOP
from rtsr_kernels.network_rows import check_rows, fill_rows, list_slots

Audio = NDArray[np.float32]
Rows = NDArray[np.int64]


class HighBands:
    """Makes what a plan asks for, for streams that take one step or several in turn.

    For each of these :meth:`prepare`, then once :meth:`run`, then for each :meth:`finish`.

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
        self._outputs: list[dict[str, Audio]] = [
            {DRY: self._silence, NETWORK: network.high_band[:, 0]} for network in self._networks
        ]
        self._run_slots = np.zeros(step.slots, np.int64)
        self._unusable: list[Rows] = []
        # Two levels' bands are alike in level but not in detail: powers add. Against nothing,
        # amplitudes.
        angle = np.pi / 2 * np.minimum((np.arange(samples) + 0.5) / HOP, 1.0)
        self._fall, self._rise = np.cos(angle), np.sin(angle)

    def clear(self, slots: list[int]) -> None:
        """Forget the past of these slots, which was that of others, or of nobody."""
        self._step.clear(np.array(slots, np.int64))
        self.replicate.clear(slots)

    def prepare(self, plan: Plan, rows: Rows, f_prior: Audio, number: int) -> None:
        """Make or feed all but the network for one of the steps of ``rows``.

        Args:
            plan: of this step.
            rows: of the streams that take it.
            f_prior: ``(streams, hops)``, Hz where the content of each hop ends.
            number: of the step among those that are taken in turn.
        """
        if plan.replicate:
            self._outputs[number][REPLICATE] = self.replicate.run(rows, f_prior, number)
        if plan.network:
            fill_rows(self._networks[number], rows, f_prior)
        else:
            self.values["frame"][rows] += self._hops

    def run(self, plan: Plan, rows: Rows, held: NDArray[np.int64], steps: int) -> None:
        """Run the network, if it is to run, for all the steps of ``rows`` that were prepared.

        Where it gives what is no sound, the step is silent and the next one begins anew.

        Args:
            plan: of the first of these steps.
            rows: of the streams that take them.
            held: slots that have a stream and do not.
            steps: that each of ``rows`` takes.
        """
        self._unusable = [rows[:0]] * steps
        if not plan.network:
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

    def finish(self, plan: Plan, number: int) -> tuple[Audio, Rows]:
        """Return the high band ``(slots, samples)`` of one of the steps that were run.

        The second item are the rows for which it is silent because the network gave no sound.
        """
        outputs, unusable = self._outputs[number], self._unusable[number]
        if plan.before == plan.after:
            return outputs[plan.after], unusable
        fall, rise = self._fall, self._rise
        if DRY in (plan.before, plan.after):
            fall, rise = fall**2, rise**2
        faded = fall * outputs[plan.before] + rise * outputs[plan.after]
        return faded.astype(np.float32), unusable

    def _slots_of(self, rows: Rows) -> NDArray[np.int64]:
        return self._run_slots[: list_slots(self._networks[0], rows, self._run_slots)]
