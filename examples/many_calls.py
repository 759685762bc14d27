"""Many calls at once on the CPU: do they keep up with the clock, and how much time is left?

    python examples/many_calls.py                     16 calls of 8 kHz, 5 seconds
    python examples/many_calls.py --calls 32 --threads 2 --seconds 10

Every 10 ms each call delivers a packet; the batch takes one step, each call gets its enhanced
packet back. Now and then somebody hangs up and somebody else calls. The clock is the wall clock:
what is printed at the end is what a server would have seen on this machine.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from rtsr import BatchStream, BatchUpsampler
from rtsr.errors import RtsrError

RATE = 8000
PACKET = RATE // 100
PERIOD = 0.010


def speech_like(seconds: float, seed: int) -> np.ndarray:
    """Noise with the slope and the syllables of speech below 3.4 kHz, float32 ``(samples,)``."""
    samples = round(RATE * seconds)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(samples))
    frequency = np.fft.rfftfreq(samples, 1.0 / RATE)
    spectrum *= (frequency > 80.0) * (frequency < 3400.0) / np.maximum(frequency, 100.0)
    sound = np.fft.irfft(spectrum, samples)
    sound *= 0.6 + 0.4 * np.sin(2.0 * np.pi * 4.0 * np.arange(samples) / RATE + seed)
    return (0.1 * sound / sound.std()).astype(np.float32)


class Call:
    """Somebody on the line: a stream of the batch and what they say, over and over."""

    def __init__(self, batch: BatchUpsampler, seed: int) -> None:
        self.stream: BatchStream = batch.open(RATE, seed=seed)
        self._sound = speech_like(1.0, seed)
        self._position = 0
        self._out = np.empty((960, 1), np.float32)

    def speak(self) -> None:
        """Deliver the next 10 ms."""
        self.stream.push(self._sound[self._position : self._position + PACKET])
        self._position = (self._position + PACKET) % len(self._sound)

    def listen(self) -> int:
        """Take the enhanced samples that are there."""
        return self.stream.pull_into(self._out)


def run(arguments: argparse.Namespace) -> None:
    """Serve the calls for the given time and print how it went."""
    if not PERIOD <= arguments.seconds <= 86400.0:
        raise RtsrError(f"The calls last {PERIOD:g} s to a day, not {arguments.seconds:g} s.")
    with BatchUpsampler(
        arguments.calls,
        model=arguments.model,
        provider=arguments.provider,
        threads=arguments.threads,
        # What is asked is whether the model keeps up, so nothing takes its place.
        overload="wait",
    ) as batch:
        calls = [Call(batch, seed) for seed in range(arguments.calls)]
        hops = round(arguments.seconds / PERIOD)
        busy = np.zeros(hops)
        late = received = 0
        start = time.perf_counter()
        for hop in range(hops):
            due = start + hop * PERIOD
            time.sleep(max(0.0, due - time.perf_counter()))
            began = time.perf_counter()
            for call in calls:
                call.speak()
            batch.step()
            received += sum(call.listen() for call in calls)
            if hop % 100 == 99:  # once a second somebody hangs up and somebody else calls
                gone = (hop // 100) % len(calls)
                calls[gone].stream.close()
                calls[gone] = Call(batch, hop)
            ended = time.perf_counter()
            busy[hop] = ended - began
            late += ended > due + 2.0 * PERIOD
        elapsed = time.perf_counter() - start
        report(batch, arguments, busy, late, received, elapsed)


def report(
    batch: BatchUpsampler,
    arguments: argparse.Namespace,
    busy: np.ndarray,
    late: int,
    received: int,
    elapsed: float,
) -> None:
    """Print the times of a hop: packets in, resampling, model, mixing, packets out."""
    p50, p99, p99_9, longest = np.percentile(busy, [50, 99, 99.9, 100]) * 1e3
    step = batch.statistics.step_ms
    delivered = received / (arguments.calls * 48000)
    print(
        f"{arguments.calls} calls of {RATE} Hz, model {batch.model.name} on {batch.provider}, "
        f"{arguments.threads} thread(s), {elapsed:.1f} s"
    )
    print(
        f"  a hop of all calls   p50 {p50:6.2f}  p99 {p99:6.2f}  p99.9 {p99_9:6.2f}"
        f"  max {longest:6.2f} ms"
    )
    print(
        f"  of which the step    p50 {step.p50:6.2f}  p99 {step.p99:6.2f}  p99.9 {step.p99_9:6.2f}"
        f"  max {step.max:6.2f} ms"
    )
    print(
        f"  real-time margin     {PERIOD * 1e3 / p50:.2f}x at the median, "
        f"{PERIOD * 1e3 / p99:.2f}x at p99"
    )
    print(f"  hops a packet late   {late} of {len(busy)}")
    print(f"  sound delivered      {delivered:.2f} s to each call in {elapsed:.2f} s")


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--model", default="small")
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    try:
        run(parser.parse_args())
    except RtsrError as error:
        parser.exit(2, f"rtsr: {error}\n")


if __name__ == "__main__":
    main()
