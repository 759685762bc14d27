"""Measurement of the latency of the whole chain, with a click through a loop-back cable.

The output has to be connected to the input. One click is added to what the engine plays. It comes
back into the input, goes through the engine as any sound does, is played, comes back again: from
one arrival to the next is exactly the time from the input through the engine to the output and the
cable, which is what is stated.
"""

from __future__ import annotations

import math
import threading
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsr.errors import RtsrError
from rtsr.live.device.latency import StreamLatency
from rtsr.live.session import LiveSession
from rtsr.live.settings import LiveSettings
from rtsr.timing import HOP, SAMPLE_RATE

Audio = NDArray[np.float32]

_CLICK_PEAK = 0.25
# Silence before it, until the one before has died away; as long beyond the way round once.
_QUIET_HOPS = 50
# Beyond the way round twice, for devices that take longer than they state.
_LISTEN_HOPS = 50
# A second each or more: time to connect programs by hand, which have no ports before they run.
TRIALS = 8
# Of the click's own energy: below it is noise, or another sound.
_ALIKE = 0.5
_HOP_SECONDS = HOP / SAMPLE_RATE


@dataclass(frozen=True)
class LatencyResult:
    """What was measured, and what was stated.

    Attributes:
        measured_samples: from arrival to arrival.
        stated_samples: of the engine and of the devices, as they tell.
        engine_samples: the engine's part of it, which is exact.
        loss_db: of the click on one way round, through converters and cable.
        rate: Hz at which samples are counted: 48000, or the rate beyond that is worked at.
    """

    measured_samples: int
    stated_samples: float
    engine_samples: float
    loss_db: float
    rate: int = SAMPLE_RATE

    @property
    def measured_ms(self) -> float:
        """Measured latency in milliseconds."""
        return 1000.0 * self.measured_samples / self.rate

    @property
    def stated_ms(self) -> float:
        """Stated latency in milliseconds."""
        return 1000.0 * self.stated_samples / self.rate

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **asdict(self),
            "measured_ms": round(self.measured_ms, 4),
            "stated_ms": round(self.stated_ms, 4),
        }

    def sentence(self) -> str:
        """For people."""
        beyond = self.measured_samples - self.engine_samples
        return (
            f"measured {self.measured_ms:.2f} ms ({self.measured_samples} samples), "
            f"stated {self.stated_ms:.2f} ms; {1000.0 * self.engine_samples / self.rate:.2f} ms of "
            f"it are rtsr, the other {beyond:.0f} samples devices and cable, stated as "
            f"{self.stated_samples - self.engine_samples:.0f}"
        )


def click(rate: int = SAMPLE_RATE) -> Audio:
    """4 ms of a sweep down from 3 kHz, unlike anything else on a line, float32, at ``rate`` Hz.

    It stays below every cutoff, so that it passes as dry signal, whatever the level.
    """
    count = rate // 250
    time = np.arange(count) / rate
    phase = 2.0 * np.pi * (3000.0 * time - 0.5 * 2500.0 / time[-1] * time**2)
    sweep: Audio = (_CLICK_PEAK * np.hanning(count) * np.sin(phase)).astype(np.float32)
    return sweep


class _Clicker:
    """Listens to every hop in the worker: adds a click when asked, keeps what comes in after it."""

    def __init__(self) -> None:
        self.recorded: Audio = np.zeros(0, np.float32)
        self._done = threading.Event()
        self._number: int | None = None
        self._listens = 0
        self._click: Audio = np.zeros(0, np.float32)

    def once(self, latency: StreamLatency) -> bool:
        """Send one click and listen until it may have come twice, by the stated latency.

        Returns:
            false if the device stopped meanwhile.
        """
        # A device that does not tell of its buffers has about a block in them each way.
        way_round = math.ceil((latency.total_frames + 2 * latency.block) / latency.hop)
        quiet = _QUIET_HOPS + way_round
        self._listens = _LISTEN_HOPS + 2 * way_round
        self.recorded = np.zeros(self._listens * latency.hop, np.float32)
        self._click = click(latency.clock.rate)
        self._done.clear()
        # Last: the worker takes it as the word to begin.
        self._number = -quiet
        return self._done.wait(10.0 + (quiet + self._listens) * _HOP_SECONDS)

    def __call__(self, hop: int, audio: Audio, out: Audio) -> None:
        number = self._number
        if number is None or number < 0:
            # Silence: a cable that amplifies would make an old click louder every time.
            out.fill(0.0)
        if number is None:
            return
        if number == 0:
            out[: len(self._click)] += self._click[:, None]
        if number >= 0:
            length = len(out)
            self.recorded[number * length : (number + 1) * length] = audio[:, 0]
        number += 1
        self._number = number if number < self._listens else None
        if self._number is None:
            self._done.set()


def measure_latency(settings: LiveSettings) -> LatencyResult:
    """Send clicks round until one comes back; see the module.

    Raises:
        RtsrError: none came back, or only once; or the session cannot start.
    """
    clicker = _Clicker()
    wanted = replace(settings, worker="thread", controls={**settings.controls, "wet": 0.0})
    arrivals: list[int] = []
    levels: list[float] = []
    with LiveSession(wanted, on_hop=clicker) as session:
        for _ in range(TRIALS):
            # JACK's latencies change when somebody connects the ports.
            stated = session.latency
            rate = stated.clock.rate
            if not clicker.once(stated):
                raise RtsrError("The device stopped while the click was under way; try again.")
            arrivals, levels = find_clicks(clicker.recorded, rate)
            if len(arrivals) > 1:
                break
    latency = session.report()["latency"]
    if len(arrivals) < 2:
        what = "came back only once" if arrivals else "did not come back"
        raise RtsrError(
            f"The click {what}; connect the output to the input (with a cable, or with "
            "`jack_connect`), turn echo cancellation off, and check the levels."
        )
    return LatencyResult(
        measured_samples=arrivals[1] - arrivals[0],
        stated_samples=latency["total_samples"],
        engine_samples=latency["algorithmic_samples"],
        loss_db=round(20.0 * float(np.log10(levels[0] / levels[1])), 2),
        rate=rate,
    )


def find_clicks(recorded: Audio, rate: int = SAMPLE_RATE) -> tuple[list[int], list[float]]:
    """Where clicks begin in ``(samples,)``, and their levels against the one that was sent."""
    pattern = click(rate).astype(np.float64)
    hop = round(rate * _HOP_SECONDS)
    energy = float(pattern @ pattern)
    level = np.correlate(recorded.astype(np.float64), pattern, "valid") / energy
    # Cauchy-Schwarz: 1 where the sound is the click and nothing but the click, of any level.
    power = np.convolve(np.square(recorded, dtype=np.float64), np.ones(pattern.size), "valid")
    likeness = np.abs(level) * np.sqrt(energy / np.maximum(power, 1e-12))
    arrivals: list[int] = []
    levels: list[float] = []
    start = 0
    while True:
        found = np.flatnonzero(likeness[start:] > _ALIKE)
        if not len(found):
            return arrivals, levels
        first = start + int(found[0])
        best = first + int(np.argmax(np.abs(level[first : first + hop])))
        arrivals.append(best)
        levels.append(float(np.abs(level[best])))
        start = best + hop
