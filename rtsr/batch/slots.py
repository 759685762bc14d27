"""One graph for many streams: each item of the batch is a slot that streams take and give back.

What keeps streams apart is what happens to their states in a step: a slot whose stream has nothing
due keeps the state that it has, and a slot that a stream takes starts from zeros. Here is the one
place where the CPU and devices differ: the CPU runs what is due alone, a device one static shape.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rtsr.batch.device_slots import DeviceSlots
from rtsr.batch.host_slots import HostSlots, row_counts
from rtsr.batch.step_signals import StepSignals
from rtsr.runtime.models import Model
from rtsr.runtime.providers import select as providers
from rtsr.runtime.session import OnnxStep
from rtsr.runtime.step_memory import HostMemory

Array = NDArray[np.float32]
Indices = NDArray[np.int64]

_WARM_UP_STEPS = 4


class Slots(Protocol):
    """What either kind of memory does for :class:`SlotStep`.

    Attributes:
        parts: signals of each of the steps that one run may take in turn.
    """

    parts: tuple[StepSignals, ...]

    def run(self, due: Indices, held: Indices, steps: int = 1, first: int = 0) -> None:
        """Take steps of the slots in ``due``; those in ``held`` keep their states."""

    def clear(self, slots: Indices) -> None:
        """Zero the states of these slots."""

    def reset(self) -> None:
        """Zero all states."""

    def state(self) -> dict[str, Array]:
        """Copy the states as the next step will see them, by name, slots first."""


class SlotStep:
    """A graph whose batch items hold the states of unrelated streams.

    Args:
        model, provider, hops_per_step, threads: as for :class:`~rtsr.runtime.session.OnnxStep`.
        slots: items of the batch; each takes one channel of audio.

    Attributes:
        parts: signals of each of the steps that one run may take in turn: two on the CPU where a
            step is one hop and has one thread, else one.
        slots: how many there are.
        model, metadata, provider: as those of ``OnnxStep``.

    Raises:
        ModelError, ProviderError, MissingDependencyError: as for ``OnnxStep``.
    """

    def __init__(
        self,
        model: Model | str | Path,
        *,
        slots: int,
        provider: str = providers.AUTO,
        hops_per_step: int = 1,
        threads: int = 1,
    ) -> None:
        step = OnnxStep(
            model,
            provider=provider,
            batch=slots,
            hops_per_step=hops_per_step,
            threads=threads,
            row_counts=row_counts(slots),
        )
        self._step = step
        self.slots = slots
        self.model = step.model
        self.metadata = step.metadata
        self.provider = step.provider
        self._slots: Slots
        if isinstance(step.memory, HostMemory):
            memories = [step.memory]
            # With more threads a session has a pool of its own, and two of them would take turns.
            if hops_per_step == threads == 1:
                memories.append(self._longer(step, slots))
            self._slots = HostSlots(memories)
        else:
            self._slots = DeviceSlots(step)
        self.parts = self._slots.parts
        for part in self.parts:
            part.f_target.fill(self.metadata.f_target_default)
        everybody = np.arange(slots)
        for steps in range(1, len(self.parts) + 1):
            for _ in range(_WARM_UP_STEPS):
                self.run(everybody, everybody[:0], steps)
        self.reset()

    @staticmethod
    def _longer(step: OnnxStep, slots: int) -> HostMemory:
        """Open the session that takes two hops at once, on the state of the one that takes one."""
        assert isinstance(step.memory, HostMemory)
        longer = OnnxStep(
            step.model,
            provider=providers.CPU,
            batch=slots,
            hops_per_step=2,
            row_counts=row_counts(slots),
            state_of=step.memory,
        )
        assert isinstance(longer.memory, HostMemory)
        return longer.memory

    def run(self, due: Indices, held: Indices, steps: int = 1, first: int = 0) -> None:
        """Take steps of some slots, from and into their rows of as many :attr:`parts`.

        Args:
            due: those that take part, each once.
            held: those that have a stream and do not; they keep their states.
            steps: how many each of them takes.
            first: number of the first one's part.
        """
        self._slots.run(due, held, steps, first)

    def clear(self, slots: Indices) -> None:
        """Zero the states of these slots: their next step is the first."""
        self._slots.clear(slots)

    def reset(self) -> None:
        """Forget everything: the next step of every slot is the first."""
        self._slots.reset()

    def state(self) -> dict[str, Array]:
        """Copy the states as the next step will see them, by name, slots first."""
        return self._slots.state()

    def prepare_thread(self) -> None:
        """See :meth:`OnnxStep.prepare_thread <rtsr.runtime.session.OnnxStep.prepare_thread>`."""
        self._step.prepare_thread()
