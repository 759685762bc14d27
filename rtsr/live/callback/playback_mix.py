"""What is heard at a position: the enhanced signal, or the dry one where it has not come in time.

Dry and enhanced signal are delay-matched and have the same low band, so a linear cross-fade between
them is right. The enhanced signal's gain at a frame is limited by how many enhanced frames lie
ahead of it, over the look-ahead: it has reached zero when they run out, however suddenly the worker
stopped, and a worker that is only a little late costs a shallow dip. Back up it takes a hop.
"""

from __future__ import annotations

import numpy as np
from numba import boolean, float32, int64

from rtsr.live.callback.state import COUNTERS, STATE
from rtsr.live.shared.pointers import carray, frames_at, pointer_to
from rtsr.timing import HOP
from rtsr_kernels.compiled import AUDIO, INDICES, kernel
from rtsr_kernels.timeline import HEADER_WORDS, timeline_read, timeline_start, timeline_written


@kernel(INDICES(int64, int64))
def words_at(address: int, count: int) -> np.ndarray:
    """int64 `(count,)` at `address`, without a copy. Nothing is checked."""
    return carray(pointer_to(address), (count,), int64)


@kernel(int64(STATE, int64))
def enhanced_ahead(state: np.ndarray, position: int) -> int:
    """Frames from `position` on that the worker has written, 0 if it has left that one out."""
    header = words_at(state[0].playback_header, HEADER_WORDS)
    # The write index first: a seek stores the start before it.
    ahead = timeline_written(header) - position
    if position < timeline_start(header):
        return 0
    return max(0, ahead)


@kernel(int64(STATE, COUNTERS, int64, AUDIO, boolean))
def mix(
    state: np.ndarray, counters: np.ndarray, position: int, out: np.ndarray, falling: bool
) -> int:
    """Fill `out` `(frames, channels)` with what is to be heard from playback frame `position` on.

    `falling` fades it to silence over the look-ahead, which may take several calls. Returns 1
    if enhanced frames were missing, or so few ahead that the fade to dry began, else 0.
    """
    c = counters[0]
    s = state[0]
    total, channels = out.shape
    capture_header = words_at(s.capture_header, HEADER_WORDS)
    capture_data = frames_at(s.capture_data, s.timeline_frames, channels)
    playback_header = words_at(s.playback_header, HEADER_WORDS)
    playback_data = frames_at(s.playback_data, s.timeline_frames, channels)
    rise = 1.0 / (HOP * s.timeline_factor)
    fall = 1.0 / s.look_ahead

    # Nothing is wanted from before the start.
    early = min(total, max(0, -position))
    out[:early] = 0.0
    c.silent_frames += early
    if early == total:
        return 0
    sound = out[early:]
    position += early
    count = total - early

    before = min(count, max(0, s.lag - position))
    sound[:before] = 0.0
    dry_start = position + before - s.lag
    dry_ahead = before + max(0, timeline_written(capture_header) - dry_start)
    dry = before
    if before < count:
        dry += timeline_read(capture_header, capture_data, dry_start, sound[before:])
        if dry == before:
            dry_ahead = before
    sound[dry:] = 0.0
    c.silent_frames += count - dry

    ahead = enhanced_ahead(state, position)
    wet = frames_at(s.wet_block, count, channels)
    enhanced = 0
    if ahead > 0:
        enhanced = timeline_read(playback_header, playback_data, position, wet)
        if enhanced == 0:
            ahead = 0

    gain = s.gain
    presence = s.presence
    undiluted = 0
    for frame in range(count):
        gain = min(gain + rise, 1.0, max(0.0, (ahead - frame) * fall))
        presence = max(0.0, presence - fall) if falling else min(presence + rise, 1.0)
        presence = min(presence, max(0.0, (dry_ahead - frame) * fall))
        if gain == 1.0:
            undiluted += 1
            for channel in range(channels):
                sound[frame, channel] = wet[frame, channel]
        elif gain > 0.0:
            share = float32(gain)
            for channel in range(channels):
                difference = wet[frame, channel] - sound[frame, channel]
                sound[frame, channel] += share * difference
        if presence < 1.0:
            level = float32(presence)
            for channel in range(channels):
                sound[frame, channel] *= level
    s.gain = gain
    s.presence = presence
    c.enhanced_frames += undiluted
    c.dry_frames += count - undiluted
    # Without input there is nothing that the worker could have enhanced.
    if dry < count:
        return 0
    c.underrun_frames += count - enhanced
    return int64(ahead - (count - 1) < s.look_ahead)
