"""The engine's rate, hop and overlap, and the latency formula, in whole samples and in parts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from rtsr_kernels.timing import HOP, OVERLAP, SAMPLE_RATE

__all__ = [
    "HIGH_RATES",
    "HOP",
    "HOPS_PER_STEP",
    "HOP_MS",
    "OVERLAP",
    "SAMPLE_RATE",
    "Latency",
    "alignment_samples",
    "engine_rate",
    "octave_factor",
]

#: milliseconds of one step
HOP_MS = 1000.0 * HOP / SAMPLE_RATE
#: how many hops one step of a model may take
HOPS_PER_STEP = (1, 2, 4, 8, 16)
#: rates in Hz beyond the engine's own, which it takes by running on a faster clock
HIGH_RATES = (88200, 96000, 176400, 192000)


@dataclass(frozen=True)
class Latency:
    """Algorithmic latency of one :class:`~rtsr.upsampler.Upsampler` or stream of a batch, in parts.

    The first four parts are in samples at the engine's rate, which is 48 kHz unless the input's is
    higher::

        algorithmic_samples = resampler + hop + overlap               at the engine's rate out
        algorithmic_samples = (resampler + hop + overlap + alignment)
                              * output_rate / engine_rate + output_resampler
                              + octaves                           otherwise

    Output sample ``o`` belongs to input time ``(o - algorithmic_samples) / output_rate``. Time that
    computing takes and the buffers of a device come on top.

    Attributes:
        resampler: delay of the conversion of the input to 48 kHz; 0 for inputs from there on.
        hop: samples that must have arrived before a step can start: 480 per hop; 0 where whole
            steps arrive, so that none has to wait for others.
        overlap: samples of the newest synthesis frame that wait for the next one.
        alignment: padding that makes the total a whole number of output samples.
        output_resampler: delay of the conversion to ``output_rate``, in output samples.
        output_rate: rate in Hz of what comes out.
        octaves: delay of what lies beyond the engine's band, in output samples.
        engine_rate: rate in Hz that the engine runs at.
    """

    resampler: int
    hop: int
    overlap: int
    alignment: int = 0
    output_resampler: int = 0
    output_rate: int = SAMPLE_RATE
    octaves: int = 0
    engine_rate: int = SAMPLE_RATE

    @property
    def algorithmic_samples(self) -> int:
        """Total delay in samples of the output."""
        inner = Fraction(self.resampler + self.hop + self.overlap + self.alignment)
        whole = round(inner * self.output_rate / self.engine_rate)
        return whole + self.octaves + self.output_resampler

    @property
    def algorithmic_ms(self) -> float:
        """Total delay in milliseconds."""
        return 1000.0 * self.algorithmic_samples / self.output_rate

    @property
    def parts_ms(self) -> dict[str, float]:
        """Every part in milliseconds, in the order in which a sample meets them."""
        parts = {
            "resampler": self.resampler,
            "hop": self.hop,
            "overlap": self.overlap,
            "alignment": self.alignment,
        }
        milliseconds = {name: 1000.0 * count / self.engine_rate for name, count in parts.items()}
        if self.octaves:
            milliseconds["octaves"] = 1000.0 * self.octaves / self.output_rate
        milliseconds["output_resampler"] = 1000.0 * self.output_resampler / self.output_rate
        return milliseconds


def alignment_samples(inner: int, output_rate: int) -> int:
    """Return the padding at 48 kHz that makes ``inner`` samples whole at ``output_rate``."""
    whole = SAMPLE_RATE // math.gcd(SAMPLE_RATE, output_rate)
    return -inner % whole


def engine_rate(input_rate: int) -> int:
    """Return the rate in Hz that the engine runs at: 48000, or the input's own where it is higher.

    Beyond 48 kHz nothing is converted: the samples count as 48 kHz sound on a faster clock.
    """
    return max(input_rate, SAMPLE_RATE)


def octave_factor(input_rate: int, output_rate: int) -> int:
    """Return how many times the engine's rate the output's is: 1, or 2 or 4 for octaves beyond."""
    return max(1, output_rate // engine_rate(input_rate))
