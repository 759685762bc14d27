"""Many real-time streams through a Triton server: how long is a step away, and does it keep up?

    python examples/triton_load.py                    8 streams for 10 seconds, localhost:8001
    python examples/triton_load.py --streams 1 --seconds 30 --url voice.example:8001

Every stream sends a step as soon as its sound is there, every 10 ms with one hop in a request, each
at a moment of its own, as calls do. What is printed is the time from a request to its answer as
this client sees it: gRPC both ways, the wait for others who share the batch, and the step. The
streams are threads of one Python process; beyond some dozens start several of these.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time

import numpy as np
from triton_client import Audio, ServedModel, TritonServer, TritonSource

from rtsr.engine.statistics import Statistics
from rtsr.errors import RtsrError
from rtsr.timing import HOP, SAMPLE_RATE

CUTOFF = 3400.0


class RealTimeStream(threading.Thread):
    """One stream that sends noise step by step, and notes when each answer came.

    Attributes:
        times_ms: from each request to its answer.
        late: steps that were answered after the next one was due.
        error: what ended the stream before its time.
    """

    def __init__(self, url: str, model: str, seed: int, seconds: float) -> None:
        super().__init__(daemon=True)
        self.times_ms: list[float] = []
        self.late = 0
        self.error: RtsrError | None = None
        self._server = TritonServer(url, model)
        self._served: ServedModel = self._server.model
        self._seed = seed
        self._period = self._served.hops * HOP / SAMPLE_RATE
        self._begin = 0.0
        self._steps = max(1, round(seconds / self._period))

    def start_at(self, moment: float) -> None:
        """Begin within a period after that moment of ``time.perf_counter``."""
        self._begin = moment + self._period * float(np.random.default_rng(self._seed).random())
        self.start()

    def run(self) -> None:
        """Send all steps, each at its time."""
        source = TritonSource(self._server, self._served, self._seed, Statistics())
        samples = self._served.hops * HOP
        sound: Audio = np.random.default_rng(self._seed).standard_normal((samples, 1), np.float32)
        sound *= 0.1
        f_prior = np.full(self._served.hops, CUTOFF, np.float32)
        try:
            for step in range(self._steps):
                due = self._begin + step * self._period
                time.sleep(max(0.0, due - time.perf_counter()))
                sent = time.perf_counter()
                source.generate(sound, f_prior, self._served.f_target)
                answered = time.perf_counter()
                self.times_ms.append((answered - sent) * 1e3)
                self.late += answered > due + self._period
            source.close()
        except RtsrError as error:
            self.error = error
        self._server.close()


def run(arguments: argparse.Namespace) -> None:
    """Run all streams at once and print what they saw."""
    if arguments.streams < 1 or arguments.seconds <= 0:
        raise RtsrError("There must be one stream or more, for more than 0 seconds.")
    streams = [
        RealTimeStream(arguments.url, arguments.model, seed, arguments.seconds)
        for seed in range(arguments.streams)
    ]
    moment = time.perf_counter() + 0.1
    for stream in streams:
        stream.start_at(moment)
    for stream in streams:
        stream.join()
    for stream in streams:
        if stream.error is not None:
            raise stream.error
    times = np.concatenate([stream.times_ms for stream in streams])
    p50, p99, longest = np.percentile(times, [50, 99, 100])
    late = sum(stream.late for stream in streams)
    print(
        f"{len(streams)} stream(s), {len(times)} steps: round trip p50 {p50:.2f} ms, "
        f"p99 {p99:.2f} ms, max {longest:.2f} ms; {late} answered after the next was due"
    )


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--url", default="localhost:8001")
    parser.add_argument("--model", default="rtsr_small")
    arguments = parser.parse_args()
    # Threads that wait for answers must not wait for one another.
    sys.setswitchinterval(0.0005)
    try:
        run(arguments)
    except RtsrError as error:
        parser.exit(2, f"rtsr: {error}\n")


if __name__ == "__main__":
    main()
