"""The sound of the high band: gain, tilt, ceiling and silence gate, all of them moving smoothly.

Filters here are first- and second-order sections whose coefficients run from one hop's value to the
next one's sample by sample, in forms that stay stable while they do. So a knob can be turned at any
speed without a click, and at its default each part is not computed at all: the high band then
passes bit for bit.
"""

from __future__ import annotations

import math

import numpy as np
from numba import float64, int64, types, void
from numpy.typing import NDArray

from rtsr.timing import SAMPLE_RATE
from rtsr_kernels.compiled import AUDIO, MATRIX_IN, VECTOR_IN, kernel

__all__ = ["SilenceGate", "Tone"]

Audio = NDArray[np.float32]

#: From here on the ceiling is the end of the band, and no filter runs.
OPEN_CEILING_HZ = 24000.0
# Nearer to half of the sample rate the filter's coefficients run away and its effect is nil.
_HIGHEST_CEILING_HZ = 23500.0
# Damping 1/Q of the sections of a Butterworth low-pass of eighth order. Bilinear, so it falls much
# faster than 48 dB per octave: 50 dB from 16 to 20 kHz.
_CEILING_DAMPING = 2.0 * np.sin(np.pi * (2.0 * np.arange(4) + 1.0) / 16.0)

# The tilt is four shelves of first order, fitted together: corner in Hz, and how many octaves of
# the slope each contributes. From 1 to 21 kHz their sum is a straight line over log frequency
# within 0.06 dB for any slope from -6 to 6 dB per octave, bilinear warping included.
_TILT_CORNERS_HZ = np.array([550.0, 2624.0, 8980.0, 18744.0])
_TILT_OCTAVES = np.array([2.608, 2.066, 1.755, 0.295])
# Nobody hears what a slope does around a higher point, and the gain elsewhere would be absurd.
_HIGHEST_ANCHOR_HZ = 20000.0
_TILT_WARPED = np.tan(np.pi * _TILT_CORNERS_HZ / SAMPLE_RATE)
_SECTIONS = 4

_STATE = types.Array(float64, 2, "C")
_STATES = types.Array(float64, 3, "C")


@kernel(void(AUDIO, float64, float64, int64))
def _ramp_gain(audio: np.ndarray, before: float, after: float, length: int) -> None:
    """Multiply in place; the gain moves within the first `length` frames, then it stays."""
    frames, channels = audio.shape
    for i in range(frames):
        gain = after
        if i + 1 < length:
            gain = before + (after - before) * ((i + 1) / length)
        for channel in range(channels):
            audio[i, channel] *= np.float32(gain)


@kernel(void(AUDIO, MATRIX_IN, MATRIX_IN, _STATE))
def _apply_tilt(
    audio: np.ndarray, before: np.ndarray, after: np.ndarray, state: np.ndarray
) -> None:
    """First-order sections `(4, 3)`, rows `b0 b1 a1`, in place; `state` is `(channels, 4)`.

    A first-order section between two stable ones is stable, so coefficients may be interpolated.
    """
    frames, channels = audio.shape
    for i in range(frames):
        share = (i + 1) / frames
        for channel in range(channels):
            value = float(audio[i, channel])
            for section in range(_SECTIONS):
                b0 = before[section, 0] + share * (after[section, 0] - before[section, 0])
                b1 = before[section, 1] + share * (after[section, 1] - before[section, 1])
                a1 = before[section, 2] + share * (after[section, 2] - before[section, 2])
                result = b0 * value + state[channel, section]
                kept = b1 * value - a1 * result
                state[channel, section] = kept if abs(kept) > 1e-30 else 0.0
                value = result
            audio[i, channel] = value


@kernel(void(AUDIO, float64, float64, VECTOR_IN, _STATES, float64, float64))
def _apply_ceiling(
    audio: np.ndarray,
    before: float,
    after: float,
    damping: np.ndarray,
    state: np.ndarray,
    share_before: float,
    share_after: float,
) -> None:
    """Low-pass sections in place, mixed with what came in; `state` is `(channels, 4, 2)`.

    State-variable filters with trapezoidal integrators (V. Zavalishin, "The Art of VA Filter
    Design", section 3.10): their memory is a signal, not a product of coefficients, so they may be
    modulated at audio rate. `before` and `after` are `tan(pi * f / rate)`.
    """
    frames, channels = audio.shape
    for i in range(frames):
        position = (i + 1) / frames
        g = before + position * (after - before)
        share = share_before + position * (share_after - share_before)
        for channel in range(channels):
            came_in = float(audio[i, channel])
            value = came_in
            for section in range(_SECTIONS):
                first = state[channel, section, 0]
                second = state[channel, section, 1]
                scale = 1.0 / (1.0 + g * (g + damping[section]))
                rest = value - second
                band = scale * (first + g * rest)
                low = second + g * band
                first = 2.0 * band - first
                second = 2.0 * low - second
                if abs(first) + abs(second) < 1e-30:
                    first = 0.0
                    second = 0.0
                state[channel, section, 0] = first
                state[channel, section, 1] = second
                value = low
            audio[i, channel] = came_in + share * (value - came_in)


def tilt_sections(tilt_db: float, around_hz: float) -> NDArray[np.float64]:
    """Coefficients `(4, 3)`, rows `b0 b1 a1`, of a slope in dB per octave; no slope: identity.

    A section is `(1 + A s) / (1 + s / A)` of the bilinear `s` at its corner, scaled to unit gain at
    `around_hz`. Scaled one by one, none is loud on the way from one setting to another.
    """
    root = 10.0 ** (tilt_db * _TILT_OCTAVES / 40.0)
    t = _TILT_WARPED
    s_squared = (math.tan(math.pi * min(around_hz, _HIGHEST_ANCHOR_HZ) / SAMPLE_RATE) / t) ** 2
    gain = np.sqrt((1.0 + s_squared / root**2) / (1.0 + s_squared * root**2))
    norm = t + 1.0 / root
    rows = [gain * (t + root) / norm, gain * (t - root) / norm, (t - 1.0 / root) / norm]
    return np.ascontiguousarray(np.stack(rows, axis=1))


class Tone:
    """Level, tilt and ceiling of the high band, hop by hop and in place.

    The slope turns around the cutoff: what is there keeps its level, and the higher octaves rise or
    fall against it.
    """

    def __init__(self, channels: int) -> None:
        self._tilt_state = np.zeros((channels, _SECTIONS))
        self._ceiling_state = np.zeros((channels, _SECTIONS, 2))
        self._identity = tilt_sections(0.0, 1000.0)
        self.reset()

    def reset(self) -> None:
        """Forget the past: the next hop's values apply from its first sample."""
        self._fresh = True
        self._tilt_state.fill(0.0)
        self._ceiling_state.fill(0.0)
        self._settled = True
        self._gain = 1.0
        self._tilt = 0.0
        self._around = 0.0
        self._sections = self._identity
        self._warped = 0.0
        self._share = 0.0

    def shape(
        self,
        high_band: Audio,
        level_db: float = 0.0,
        tilt_db: float = 0.0,
        ceiling_hz: float = OPEN_CEILING_HZ,
        cutoff_hz: float = 4000.0,
    ) -> None:
        """Change one hop ``(480, channels)``; the values are reached at its end.

        Args:
            high_band: changed in place.
            level_db: gain.
            tilt_db: dB per octave above the cutoff.
            ceiling_hz: where it is 3 dB down; :data:`OPEN_CEILING_HZ` and more leave it open.
            cutoff_hz: where the slope is anchored.
        """
        self._shape_gain(high_band, level_db)
        self._shape_tilt(high_band, tilt_db, cutoff_hz)
        self._shape_ceiling(high_band, ceiling_hz)
        self._fresh = False

    def _shape_gain(self, audio: Audio, level_db: float) -> None:
        gain = 10.0 ** (level_db / 20.0)
        before = gain if self._fresh else self._gain
        self._gain = gain
        if before != 1.0 or gain != 1.0:
            _ramp_gain(audio, before, gain, len(audio))

    def _shape_tilt(self, audio: Audio, tilt_db: float, around_hz: float) -> None:
        if self._settled and tilt_db == 0.0:
            return
        self._settled = False
        before = self._sections
        if tilt_db != self._tilt or around_hz != self._around:
            self._tilt, self._around = tilt_db, around_hz
            flat = tilt_db == 0.0
            self._sections = self._identity if flat else tilt_sections(tilt_db, around_hz)
            if self._fresh:
                before = self._sections
        _apply_tilt(audio, before, self._sections, self._tilt_state)
        # With the slope gone, what the sections still hold dies away within a hop; only then may
        # they be left out.
        if tilt_db == 0.0 and not self._tilt_state.any():
            self._settled = True

    def _shape_ceiling(self, audio: Audio, ceiling_hz: float) -> None:
        share = 0.0 if ceiling_hz >= OPEN_CEILING_HZ else 1.0
        share_before = share if self._fresh else self._share
        warped = math.tan(math.pi * min(ceiling_hz, _HIGHEST_CEILING_HZ) / SAMPLE_RATE)
        before = warped if self._fresh or self._share == 0.0 else self._warped
        self._share = share
        self._warped = warped
        if share_before == 0.0:
            if share == 0.0:
                return
            # It starts empty, and is faded in while it fills.
            self._ceiling_state.fill(0.0)
        _apply_ceiling(
            audio, before, warped, _CEILING_DAMPING, self._ceiling_state, share_before, share
        )


class SilenceGate:
    """Fades the high band out while the input is quieter than a threshold.

    Levels are root mean squares of the loudest channel over one hop, in dB of a full-scale sine's.
    The gate opens with the hop that is loud, over the overlap by which the input is ahead of the
    output, so no attack loses its high band. It closes after 200 ms that stayed 3 dB below the
    threshold, over 100 ms. One gate serves all channels, or the stereo image would lean.
    """

    OFF_DBFS = -100.0
    HYSTERESIS_DB = 3.0
    HOLD_HOPS = 20
    CLOSING_HOPS = 10

    def __init__(self, opening_frames: int) -> None:
        self._opening_frames = opening_frames
        self.reset()

    def reset(self) -> None:
        """Forget the past; the gate is open."""
        self._steps = self.CLOSING_HOPS
        self._quiet_hops = 0

    @property
    def share(self) -> float:
        """How far it is open at the end of the newest hop, 0 to 1."""
        return self._steps / self.CLOSING_HOPS

    def apply(self, high_band: Audio, audio: Audio, threshold_dbfs: float) -> None:
        """Scale one hop of the high band in place by what the newest input hop says."""
        before = self._steps
        self._steps = now = self._next(audio, threshold_dbfs)
        if before == now == self.CLOSING_HOPS:
            return
        length = self._opening_frames if now > before else len(high_band)
        _ramp_gain(high_band, before / self.CLOSING_HOPS, now / self.CLOSING_HOPS, length)

    def _next(self, audio: Audio, threshold_dbfs: float) -> int:
        off = threshold_dbfs <= self.OFF_DBFS
        level = 0.0 if off else level_dbfs(audio)
        if off or level >= threshold_dbfs:
            self._quiet_hops = 0
            return self.CLOSING_HOPS
        # Between the two levels a closed gate stays closed and an open one open.
        if level < threshold_dbfs - self.HYSTERESIS_DB:
            self._quiet_hops += 1
            if self._quiet_hops > self.HOLD_HOPS:
                return max(0, self._steps - 1)
        return self._steps


def level_dbfs(audio: Audio) -> float:
    """Root mean square of the loudest channel of ``(frames, channels)`` in dB of a full sine's."""
    power = max(float(np.vdot(column, column)) for column in audio.T) / max(1, len(audio))
    return 10.0 * math.log10(2.0 * power + 1e-20)
