"""Audio kernels in compiled Python: ring, resampler, overlap-add, cross-fades, high-pass, noise.

Everything here is float32 audio as C-contiguous `(frames, channels)`, releases the GIL, allocates
nothing on the way of a block and knows no other package of the project.
"""

from __future__ import annotations

from .crossfade import (
    crossfade_equal_power,
    crossfade_equal_power_ramp,
    crossfade_linear,
    crossfade_linear_ramp,
)
from .highpass import apply_sos, highpass_sos, highpass_state
from .noise import fill_noise, fill_noise_frames
from .overlap_add import overlap_add
from .resample import SUPPORTED_RATES, StreamingResampler
from .ring import Ring, ring_read, ring_skip, ring_write

__all__ = [
    "SUPPORTED_RATES",
    "Ring",
    "StreamingResampler",
    "apply_sos",
    "crossfade_equal_power",
    "crossfade_equal_power_ramp",
    "crossfade_linear",
    "crossfade_linear_ramp",
    "fill_noise",
    "fill_noise_frames",
    "highpass_sos",
    "highpass_state",
    "overlap_add",
    "ring_read",
    "ring_skip",
    "ring_write",
]
