"""Overlap-add against the sum written out."""

from __future__ import annotations

import numpy as np
import pytest

from rtsr_kernels.overlap_add import overlap_add


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("hop", "overlap"), [(480, 120), (480, 0), (100, 100), (4, 10), (1, 7)], ids=str
)
def test_equals_the_plain_sum(hop: int, overlap: int, channels: int) -> None:
    frames = np.random.default_rng(1).integers(-99, 99, (12, hop + overlap, channels))
    expected = np.zeros((12 * hop + overlap, channels))
    for i, frame in enumerate(frames):
        expected[i * hop : i * hop + hop + overlap] += frame
    tail = np.zeros((overlap, channels), dtype=np.float32)
    out = np.empty((hop, channels), dtype=np.float32)
    for i, frame in enumerate(frames.astype(np.float32)):
        overlap_add(frame, tail, out)
        np.testing.assert_array_equal(out, expected[i * hop : (i + 1) * hop])
    np.testing.assert_array_equal(tail, expected[12 * hop :])


def test_windows_that_sum_to_one_restore_the_signal() -> None:
    ramp = np.sin(np.pi / 2 * (np.arange(120) + 0.5) / 120) ** 2
    window = np.concatenate([ramp, np.ones(360), ramp[::-1]])[:, None]
    audio = np.random.default_rng(2).standard_normal((4800 + 120, 1))
    tail = np.zeros((120, 1), dtype=np.float32)
    out = np.empty((480, 1), dtype=np.float32)
    for start in range(0, 4800, 480):
        frame = (audio[start : start + 600] * window).astype(np.float32)
        overlap_add(frame, tail, out)
        if start:
            np.testing.assert_allclose(out, audio[start : start + 480], atol=1e-6)


def test_refuses_shapes_that_do_not_fit() -> None:
    frame = np.zeros((600, 2), dtype=np.float32)
    for tail_shape, out_shape in [((119, 2), (480, 2)), ((120, 1), (480, 2)), ((120, 2), (480, 1))]:
        tail = np.zeros(tail_shape, dtype=np.float32)
        with pytest.raises(ValueError, match="as long as out and tail together"):
            overlap_add(frame, tail, np.zeros(out_shape, dtype=np.float32))
