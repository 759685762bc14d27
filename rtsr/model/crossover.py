"""The crossover in training: the run-time's recursive high-pass, applied to long blocks.

Live, :mod:`rtsr_kernels.highpass` runs sample by sample. A long block is multiplied with the same
filter's frequency response instead, which is the same result up to rounding and differentiable.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import signal
from torch import Tensor

from rtsr.timing import SAMPLE_RATE
from rtsr_kernels.highpass import highpass_sos

CUTOFF_GRID_HZ = 25.0
# Long enough for the filter's ringing to die inside the padding instead of wrapping around.
TAIL_SAMPLES = 4096
# All cutoffs of one block length, 270 kB each for 1.28 s.
MOST_RESPONSES = 1024


class _Responses:
    """Cache of frequency responses by cutoff, size and device."""

    def __init__(self) -> None:
        self._stored: dict[tuple[float, int, str], Tensor] = {}

    def of(self, cutoffs: Sequence[float], size: int, device: torch.device) -> Tensor:
        """Return responses ``(cutoffs, size / 2 + 1)`` complex64; compute new ones together."""
        missing = [one for one in set(cutoffs) if (one, size, str(device)) not in self._stored]
        if missing:
            if len(self._stored) + len(missing) > MOST_RESPONSES:
                self._stored.clear()
                missing = list(set(cutoffs))
            for cutoff, response in zip(missing, _responses(missing, size, device), strict=True):
                self._stored[cutoff, size, str(device)] = response
        return torch.stack([self._stored[one, size, str(device)] for one in cutoffs])


_RESPONSES = _Responses()


def _responses(cutoffs: Sequence[float], size: int, device: torch.device) -> Tensor:
    """Compute the filters' responses at the ``size / 2 + 1`` bins, in double precision.

    On the host, where it takes milliseconds, since a device would be given every product by itself.
    """
    angles = 2.0 * np.pi / size * np.arange(size // 2 + 1)
    responses = [signal.sosfreqz(highpass_sos(cutoff), angles)[1] for cutoff in cutoffs]
    return torch.from_numpy(np.stack(responses).astype(np.complex64)).to(device, non_blocking=True)


def high_pass(high_band: Tensor, cutoffs: Sequence[float]) -> Tensor:
    """Filter ``(batch, 1, samples)``, item ``i`` above ``cutoffs[i]`` Hz (to the next 25 Hz).

    The cutoffs are Python numbers, because reading them from a GPU would synchronise with it.
    """
    samples = high_band.shape[2]
    size = samples + TAIL_SAMPLES
    size += -size % 4800
    snapped = [
        min(max(round(cutoff / CUTOFF_GRID_HZ) * CUTOFF_GRID_HZ, 100.0), SAMPLE_RATE / 2)
        for cutoff in cutoffs
    ]
    responses = _RESPONSES.of(snapped, size, high_band.device)
    spectrum = torch.fft.rfft(high_band[:, 0], size) * responses
    return torch.fft.irfft(spectrum, size)[:, None, :samples]
