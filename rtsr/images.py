"""Images: what a simple resampler leaves above half of its input's rate, the band below mirrored.

The decoder of Opus at 48 kHz, as every call in a browser has it, leaves them up to 1.2 times that
frequency, where they look like content of their own. They are not: in every frame they are the
mirrored band below times the same falling curve. In recordings that reach further the two bands
differ by 3 dB and more from frame to frame, in those that went through the resampler by 1 dB.
"""

from __future__ import annotations

import numpy as np
from numba import float64, int64, types, void
from numpy.typing import NDArray

from rtsr.band_limit import COMMON_NYQUIST_HZ, HZ_PER_BIN
from rtsr_kernels.compiled import kernel

#: Images are looked for above these, at distances of 5 to 16 % of them.
NYQUISTS_HZ = COMMON_NYQUIST_HZ[:4]
NEAREST, FURTHEST, BINS = 0.047, 0.164, 11
#: Where a wall behind images may stand, as a share of the frequency that they are mirrored at.
FURTHEST_WALL = 1.3
#: Deviation of the two bands' ratio that images may have, and by how much they fall at least.
STEADY_DB = 1.3
FALLS_DB = 9.0
HIGHEST_DB = -3.0
#: What the resampler in libopus leaves at the nearest, the middle and the furthest distance
#: (measured). What fits it this well needs no wall behind it: a decoder that clips hides the wall.
OPUS_DB = (-6.8, -12.4, -20.6)
FITS_DB = 2.0
FITS_STEADY_DB = 1.0
#: Active frames until the curve is known, until it has been compared often enough, and that count.
LEARN_FRAMES = 30
ENOUGH_FRAMES = 80
MEMORY_FRAMES = 200

_LEAST_POWER = 1e-11
_POWER = types.Array(float64, 1, "C")
_MIRRORS = types.Array(int64, 1, "C")
_OFFSETS = types.Array(int64, 2, "C")
_TABLE = types.Array(float64, 2, "C")


@kernel(void(_POWER, _MIRRORS, _OFFSETS, _TABLE, _TABLE, _TABLE))
def _compare(
    power: NDArray[np.float64],
    mirrors: NDArray[np.int64],
    offsets: NDArray[np.int64],
    above: NDArray[np.float64],
    below: NDArray[np.float64],
    ratio: NDArray[np.float64],
) -> None:
    """Take one frame into the averages of both bands, and the deviation of their ratio.

    A row per mirror: ``ratio[row]`` holds the frames so far, and mean and variance in dB.
    """
    for row in range(mirrors.size):
        mirror = mirrors[row]
        total_above, total_below = 0.0, 0.0
        for i in range(BINS):
            total_above += power[mirror + offsets[row, i]]
            total_below += power[mirror - offsets[row, i]]
        if total_above < _LEAST_POWER or total_below < _LEAST_POWER:
            continue
        count = ratio[row, 0] + 1.0
        ratio[row, 0] = count
        share = 1.0 / min(count, MEMORY_FRAMES)
        expected = 0.0
        for i in range(BINS):
            # Relative powers, so that a few loud frames do not make the curve alone.
            up = power[mirror + offsets[row, i]] / total_below
            low = power[mirror - offsets[row, i]] / total_below
            above[row, i] += share * (up - above[row, i])
            below[row, i] += share * (low - below[row, i])
            if below[row, i] > 0.0:
                expected += low * above[row, i] / below[row, i]
        if count <= LEARN_FRAMES or expected <= 0.0:
            continue
        share = 1.0 / min(count - LEARN_FRAMES, MEMORY_FRAMES)
        step = 10.0 * np.log10(total_above / total_below / expected) - ratio[row, 1]
        ratio[row, 1] += share * step
        ratio[row, 2] = (1.0 - share) * (ratio[row, 2] + share * step * step)


class ImageDetector:
    """Remembers, for the common rates, how alike a spectrum is on both sides of half the rate."""

    def __init__(self) -> None:
        mirrors = np.array(NYQUISTS_HZ) / HZ_PER_BIN
        shares = np.linspace(NEAREST, FURTHEST, BINS)
        self._mirrors = np.round(mirrors).astype(np.int64)
        self._offsets = np.round(mirrors[:, None] * shares).astype(np.int64)
        self._above = np.zeros((len(self._mirrors), BINS))
        self._below = np.zeros_like(self._above)
        self._ratio = np.zeros((len(self._mirrors), 3))

    def reset(self) -> None:
        """Forget everything."""
        for table in (self._above, self._below, self._ratio):
            table.fill(0.0)

    def update(self, power: NDArray[np.float64]) -> None:
        """Take the power spectrum of one active frame, ``(513,)`` bins of 46.875 Hz."""
        _compare(power, self._mirrors, self._offsets, self._above, self._below, self._ratio)

    def mirrored_at(self, wall_hz: float) -> float | None:
        """Half of the rate whose images end at a wall; ``None`` if what is there is content.

        Args:
            wall_hz: where the spectrum seems to end, in Hz; 24000 where it does not.
        """
        for row, nyquist in enumerate(NYQUISTS_HZ):
            if wall_hz > FURTHEST_WALL * nyquist:
                if self._are_those_of_opus(row):
                    return nyquist
            elif wall_hz > nyquist:
                return nyquist if self._are_images(row) else None
        return None

    def _are_images(self, row: int) -> bool:
        nearest, _, furthest = self._curve_db(row)
        return (
            self._is_steady(row, STEADY_DB)
            and nearest < HIGHEST_DB
            and nearest - furthest > FALLS_DB
        )

    def _are_those_of_opus(self, row: int) -> bool:
        return self._is_steady(row, FITS_STEADY_DB) and all(
            abs(here - known) < FITS_DB
            for here, known in zip(self._curve_db(row), OPUS_DB, strict=True)
        )

    def _is_steady(self, row: int, deviation_db: float) -> bool:
        frames, _, variance = self._ratio[row]
        return bool(frames >= ENOUGH_FRAMES and variance <= deviation_db**2)

    def _curve_db(self, row: int) -> list[float]:
        return [
            float(10.0 * np.log10((self._above[row, i] + 1e-12) / (self._below[row, i] + 1e-12)))
            for i in (0, BINS // 2, BINS - 1)
        ]
