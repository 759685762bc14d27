"""The ``replicate`` level: a high band without a network, where there is no time for one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtsr.errors import ProviderError
from rtsr.runtime import replicate_file
from rtsr.runtime.models import find_model
from rtsr.runtime.providers import select as providers
from rtsr.timing import HOP, OVERLAP
from rtsr_kernels.highpass import LOWEST_CUTOFF_HZ
from rtsr_kernels.replicate import SCRATCH_ROWS, replicate_hop
from rtsr_kernels.replicate_design import ANALYSIS, BANDS, CONTEXT, bands_below

Audio = NDArray[np.float32]


class ReplicateSource:
    """Spectral band replication with a predicted envelope, see :mod:`rtsr_kernels.replicate`.

    The same timing as a network's, some 0.1 ms per hop and channel, no ONNX Runtime. Twice the
    input gives twice the output. Nothing in a step can fail.

    Args:
        channels: of audio; all share one noise, each has its own envelope.
        seed: of the noise.
        hops: of 480 samples per step.
        provider: ``auto`` or ``cpu``; asking for a GPU is refused.
        weights: other than the bundled ones.

    Attributes:
        seed: may be changed between two steps.
        frame: index of the next hop; noise belongs to a frame, however steps cut the stream.

    Raises:
        ModelError: the weights are missing or damaged.
        ProviderError: another provider was asked for.
    """

    def __init__(
        self,
        channels: int,
        seed: int,
        hops: int = 1,
        *,
        provider: str = providers.AUTO,
        weights: replicate_file.ReplicateWeights | None = None,
    ) -> None:
        _check_provider(provider)
        self.model = find_model(replicate_file.NAME)
        self.provider = providers.CPU
        self.name = replicate_file.NAME
        self.channels = channels
        self.hops = hops
        self.overlap = OVERLAP
        self.seed = seed
        self._weights = replicate_file.bundled_weights() if weights is None else weights
        self._history = np.zeros((channels, ANALYSIS), np.float32)
        self._contexts = np.zeros((channels, CONTEXT, BANDS))
        self._tails = np.zeros((channels, OVERLAP), np.float32)
        self._noise = np.zeros(ANALYSIS, np.float32)
        self._scratch = np.zeros((SCRATCH_ROWS, ANALYSIS))
        self._high_band: Audio = np.zeros((HOP * hops, channels), np.float32)
        self.reset()

    def reset(self) -> None:
        """Forget the past: the next step is the first."""
        self.frame = 0
        for state in (self._history, self._contexts, self._tails):
            state.fill(0.0)

    def resume(self, frame: int) -> None:
        """Go on at another hop; what it keeps of the past stays."""
        self.frame = frame

    def generate(self, audio: Audio, f_prior: NDArray[np.float32], f_target: float) -> Audio:
        """Take one step, see :meth:`rtsr.engine.sources.HighBandSource.generate`."""
        for hop in range(self.hops):
            part = slice(hop * HOP, (hop + 1) * HOP)
            cutoff = max(float(f_prior[hop]), LOWEST_CUTOFF_HZ)
            replicate_hop(
                audio[part],
                self._history,
                self._contexts,
                self._tails,
                self._noise,
                self._scratch,
                self._weights.regression,
                self._weights.replica_share,
                self.seed,
                self.frame,
                bands_below(cutoff),
                cutoff,
                f_target,
                self._high_band[part],
            )
            self.frame += 1
        return self._high_band


def _check_provider(provider: str) -> None:
    name, _ = providers.parse_provider(provider)
    if name in (providers.AUTO, providers.CPU):
        return
    raise ProviderError(
        f"Model '{replicate_file.NAME}' is no network and runs on the CPU; "
        f"use provider 'cpu', not {provider!r}."
    )
