"""Crossover: adds the generated high band to the dry signal, without a click and without a trace.

Where nothing is to be added, nothing is computed: the dry signal then passes bit for bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtsr.runtime.metadata import HOP
from rtsr_kernels.crossfade import crossfade_linear
from rtsr_kernels.highpass import apply_sos, highpass_sos, highpass_state

Audio = NDArray[np.float32]

# Half of one 16-bit step. A stretch that a 16-bit file can only store as zeros is silence, and
# whatever a model hears in it is not there.
SILENCE_PEAK = 0.5 / 32768.0
# The gate opens at once, since an attack must keep its high band, but not as a step.
_OPENING_SAMPLES = 64

_CLOSING_RAMP = np.linspace(1.0, 0.0, HOP + 1, dtype=np.float32)[1:]
_OPENING_RAMP = np.minimum(np.arange(1, HOP + 1, dtype=np.float32) / _OPENING_SAMPLES, 1.0)
_RISING = np.arange(1, HOP + 1, dtype=np.float32) / np.float32(HOP)


class HighBandMixer:
    """Filters the high band of one hop above the cutoff and adds it to the dry hop.

    A new cutoff is faded in over one hop (10 ms), so is a new wet gain. Silence closes a gate for
    its channel within one hop.
    """

    def __init__(self, channels: int) -> None:
        self._filtered: Audio = np.zeros((HOP, channels), np.float32)
        self._incoming: Audio = np.zeros((HOP, channels), np.float32)
        self._gain: Audio = np.zeros((HOP, channels), np.float32)
        self._highest: Audio = np.zeros(channels, np.float32)
        self._lowest: Audio = np.zeros(channels, np.float32)
        self._states = [highpass_state(channels), highpass_state(channels)]
        self._open = np.zeros(channels, bool)
        self.reset()

    def reset(self) -> None:
        """Forget the past: the next hop is the first, its cutoff applies at once."""
        self._fresh = True
        self._cutoff: float | None = None
        self._wet = 0.0
        self._open[:] = False
        self.clear_filter()

    def clear_filter(self) -> None:
        """Drop what still rings in the high-pass."""
        for state in self._states:
            state.fill(0.0)

    def add(self, high_band: Audio, dry: Audio, cutoff: float | None, wet: float) -> None:
        """Add ``high_band`` to ``dry`` in place, both ``(480, channels)``.

        Args:
            cutoff: Hz above which the high band is let through; ``None`` lets nothing through.
            wet: gain of the high band.
        """
        if self._fresh:
            self._fresh = False
            self._cutoff = cutoff
            self._wet = wet
        if cutoff is None and self._cutoff is None:
            self._wet = wet
            self._follow_gate(dry)
            return
        self._filter(high_band, cutoff)
        if self._apply_gains(dry, wet):
            np.add(dry, self._filtered, out=dry)

    def _filter(self, high_band: Audio, cutoff: float | None) -> None:
        before = self._cutoff
        self._pass(high_band, before, self._states[0], self._filtered)
        if cutoff == before:
            return
        # The new filter starts empty; it is faded in while it settles.
        self._states[1].fill(0.0)
        self._pass(high_band, cutoff, self._states[1], self._incoming)
        crossfade_linear(self._filtered, self._incoming, self._filtered)
        self._states.reverse()
        self._cutoff = cutoff

    @staticmethod
    def _pass(block: Audio, cutoff: float | None, state: NDArray[np.float64], out: Audio) -> None:
        if cutoff is None:
            out.fill(0.0)
        else:
            apply_sos(highpass_sos(cutoff), state, block, out)

    def _follow_gate(self, dry: Audio) -> NDArray[np.bool_]:
        dry.max(axis=0, out=self._highest)
        dry.min(axis=0, out=self._lowest)
        was_open = self._open
        self._open = (self._highest >= SILENCE_PEAK) | (self._lowest <= -SILENCE_PEAK)
        return was_open

    def _apply_gains(self, dry: Audio, wet: float) -> bool:
        """Scale the filtered hop by wet gain and gate; false when nothing is left to add."""
        was_open = self._follow_gate(dry)
        wet_before, self._wet = self._wet, wet
        if (wet_before == 0.0 and wet == 0.0) or not (was_open | self._open).any():
            return False
        if not (was_open & self._open).all():
            gain = self._gain
            gain[...] = 1.0
            for channel, (before, now) in enumerate(zip(was_open, self._open, strict=True)):
                if before and not now:
                    gain[:, channel] = _CLOSING_RAMP
                elif now and not before:
                    gain[:, channel] = _OPENING_RAMP
                elif not now:
                    gain[:, channel] = 0.0
            np.multiply(self._filtered, gain, out=self._filtered)
        if wet_before != wet:
            ramp = wet_before + (wet - wet_before) * _RISING
            np.multiply(self._filtered, ramp[:, None].astype(np.float32), out=self._filtered)
        elif wet != 1.0:
            np.multiply(self._filtered, np.float32(wet), out=self._filtered)
        return True
