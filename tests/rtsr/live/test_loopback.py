"""The click that measures the latency, on a simulated chain of devices and cable."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from rtsr.live.device.latency import StreamLatency
from rtsr.live.loopback import _Clicker, find_clicks
from rtsr.live.shared.timing import TimelineClock


class Chain:
    """A worker whose output comes back into its input, a hop at a time, without waiting.

    Args:
        way_round: frames after which what is captured is captured again.
    """

    def __init__(self, clicker: _Clicker, clock: TimelineClock, way_round: int) -> None:
        self._clicker = clicker
        self._hop = clock.hop
        self._lag = clock.lag
        # From being played on the timeline to being captured.
        self._cable = way_round - clock.lag
        self._captured = np.zeros(0, np.float32)

    def run(self, ended: threading.Event) -> None:
        hop = 0
        self._captured = np.zeros(self._cable, np.float32)
        dry = np.zeros(self._lag, np.float32)
        while not ended.is_set():
            # No time goes by between two clicks.
            if self._clicker._number is None:
                time.sleep(0.001)
                continue
            audio = self._captured[hop * self._hop : (hop + 1) * self._hop, None]
            dry = np.concatenate([dry, audio[:, 0]])
            out, dry = dry[: self._hop, None].copy(), dry[self._hop :]
            self._clicker(hop, audio, out)
            self._captured = np.concatenate([self._captured, out[:, 0]])
            hop += 1


@pytest.mark.parametrize("rate", [48000, 96000])
@pytest.mark.parametrize(
    ("block", "allowance_ms"), [(128, 5.0), (4096, 5.0), (8192, 1000.0), (128, 250.0)]
)
def test_a_click_is_waited_for_as_long_as_the_way_round_takes(
    block: int, allowance_ms: float, rate: int
) -> None:
    clock = TimelineClock(rate)
    latency = StreamLatency.one_device(block, rate, allowance_ms, clock)
    # Buffers of the device that it does not tell of, one block each way.
    way_round = round(latency.total_frames) + 2 * block
    clicker = _Clicker()
    ended = threading.Event()
    worker = threading.Thread(target=Chain(clicker, clock, way_round).run, args=(ended,))
    worker.start()
    try:
        # The second one finds nothing of the first.
        for _ in range(2):
            assert clicker.once(latency)
            arrivals, levels = find_clicks(clicker.recorded, rate)
            assert len(arrivals) >= 2
            assert arrivals[0] == way_round - clock.lag
            assert set(np.diff(arrivals)) == {way_round}
            assert levels == pytest.approx([1.0] * len(levels), rel=1e-3)
    finally:
        ended.set()
        worker.join()
