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
        signals: inputs by name, row ``i`` belongs to slot ``i``.
        high_band: the output, likewise.
    """

    signals: dict[str, Array]
    high_band: Array

    def run(self, due: Indices, held: Indices) -> None:
        """Take a step of the slots in ``due``; those in ``held`` keep their states."""

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
        audio, noise, f_prior, f_target, high_band: as those of ``OnnxStep``; row ``i`` belongs to
            slot ``i``.
        model, metadata, provider: likewise.

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
        self.model = step.model
        self.metadata = step.metadata
        self.provider = step.provider
        self._slots: Slots = (
            HostSlots(step.memory) if isinstance(step.memory, HostMemory) else DeviceSlots(step)
        )
        signals = self._slots.signals
        self.audio: Array = signals["audio"]
        self.noise: Array = signals["noise"]
        self.f_prior: Array = signals["f_prior"]
        self.f_target: Array = signals["f_target"]
        self.f_target.fill(self.metadata.f_target_default)
        self.high_band: Array = self._slots.high_band
        everybody = np.arange(slots)
        for _ in range(_WARM_UP_STEPS):
            self.run(everybody, everybody[:0])
        self.reset()

    def run(self, due: Indices, held: Indices) -> Array:
        """Take a step of some slots; returns :attr:`high_band`, where only their rows count.

        Args:
            due: those that take part, each once.
            held: those that have a stream and do not; they keep their states.
        """
        self._slots.run(due, held)
        return self.high_band

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
