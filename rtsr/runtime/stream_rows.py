"""One stream's rows of a graph's signals: filled before a run, read after it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from rtsr.runtime.session import OnnxStep
from rtsr_kernels.noise import fill_noise_frames

Audio = NDArray[np.float32]

# All channels of a stream share one noise, or a stereo image would fall apart above the cutoff.
_SHARED_STREAM = 0


class StreamRows:
    """The items of a batch that hold the channels of one stream.

    A step is :meth:`fill`, then a run of the graph, then :meth:`collect`.

    Args:
        step: the graph with its signals.
        rows: the item of each channel.
    """

    def __init__(self, step: OnnxStep, rows: Sequence[int]) -> None:
        self._several = len(rows) > 1
        self._runs = list(_runs(rows))
        self._audio = [step.audio[run, 0] for _, run in self._runs]
        self._noise = [step.noise[run] for _, run in self._runs]
        self._f_prior = [step.f_prior[run, 0] for _, run in self._runs]
        self._f_target = [step.f_target[run, 0] for _, run in self._runs]
        self.reset()

    def reset(self) -> None:
        """Forget the past: the next step is the first."""
        self._alike = self._several

    def fill(
        self, audio: Audio, f_prior: NDArray[np.float32], f_target: float, seed: int, frame: int
    ) -> None:
        """Put the signals of a step into the rows.

        Args:
            audio, f_prior, f_target: as for :meth:`rtsr.runtime.source.HighBandSource.generate`.
            seed: of the noise.
            frame: index of the step's first hop.
        """
        first = self._noise[0][0]
        fill_noise_frames(seed, frame, _SHARED_STREAM, first)
        for index, (channels, _) in enumerate(self._runs):
            np.copyto(self._audio[index], audio[:, channels].T)
            np.copyto(self._f_prior[index], f_prior)
            self._f_target[index].fill(f_target)
            if self._several:
                np.copyto(self._noise[index], first)
        # A matrix product may round each item of a batch in its own way. Channels that have been
        # the same so far must stay so to the last bit, or mono in two channels would not be mono.
        self._alike = self._alike and bool((audio[:, 1:] == audio[:, :1]).all())

    def collect(self, high_band: Audio, out: Audio) -> bool:
        """Read what a run made of the rows; whether it can be used.

        Args:
            high_band: of the graph, ``(batch, 1, 480 * hops)``.
            out: ``(480 * hops, channels)``; silence if the result cannot be used.
        """
        if not all(_is_finite(high_band[run]) for _, run in self._runs):
            out.fill(0.0)
            return False
        if self._alike:
            np.copyto(out, high_band[self._runs[0][1]][0].T)
            return True
        for channels, run in self._runs:
            np.copyto(out[:, channels], high_band[run, 0].T)
        return True

    def silence(self) -> None:
        """Leave no sound in the rows."""
        for rows in self._audio:
            rows.fill(0.0)


def _runs(rows: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """Channels and rows in stretches where both go up by one: each is one copy instead of many."""
    start = 0
    for end in range(1, len(rows) + 1):
        if end == len(rows) or rows[end] != rows[end - 1] + 1:
            yield slice(start, end), slice(rows[start], rows[end - 1] + 1)
            start = end


def _is_finite(values: Audio) -> bool:
    # An infinity or a NaN fails this comparison.
    return bool(values.max() < np.inf and values.min() > -np.inf)
