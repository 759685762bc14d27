"""One graph for many streams: each item of the batch is a slot that streams take and give back.

The batch of a session is fixed, and one run steps every item in it. What keeps streams apart is
what happens to their state around a run: a slot whose stream has nothing due gets back the state it
had before, and a slot that a stream takes starts from zeros.
"""

from __future__ import annotations

from pathlib import Path

from rtsr.batch.slot_states import DeviceStates, HostStates, Slots, SlotStates
from rtsr.runtime.gpu_lock import GPU_LOCK
from rtsr.runtime.models import Model
from rtsr.runtime.providers import select as providers
from rtsr.runtime.session import OnnxStep


class SlotStep(OnnxStep):
    """A graph at one static shape whose batch items hold the states of unrelated streams.

    The signals are those of :class:`~rtsr.runtime.session.OnnxStep`, row ``i`` belongs to slot
    ``i``. A step is :meth:`run`, then :meth:`hold` for the slots that should not have taken part.

    Args:
        slots: items of the batch; each takes one channel of audio.
        model, provider, hops_per_step, threads: as for ``OnnxStep``.

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
        super().__init__(
            model,
            provider=provider,
            batch=slots,
            hops_per_step=hops_per_step,
            threads=threads,
        )
        self._rows: SlotStates = (
            HostStates(self._states) if self._device == "cpu" else self._device_states()
        )

    def hold(self, slots: Slots) -> None:
        """Give these slots back the states that they had before the last :meth:`run`."""
        self._rows.hold(slots, self._buffer)

    def clear(self, slots: Slots) -> None:
        """Zero the states of these slots: their next step is the first."""
        self._rows.clear(slots, self._buffer)

    def _device_states(self) -> DeviceStates:
        shapes = {name: zero.shape for name, zero in self._zeros.items()}
        with GPU_LOCK:
            return DeviceStates(
                providers.load_onnxruntime(),
                self.provider,
                self._device,
                self._states,
                shapes,
                self.options,
            )
