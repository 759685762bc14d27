"""How many telephone calls this machine carries: PCMU packets in, Opus packets out, in real time.

    python examples/call_load.py                      16 calls, 10 seconds
    python examples/call_load.py --calls 8 --seconds 3600 --call-seconds 30

Every call sends a packet of speech every 20 ms, at its own moment, into one engine, as the SIP and
WebRTC servers do. With --call-seconds callers hang up after about so long and others come. Printed
is what a server would have seen: how long a packet took from its arrival to the last packet that
holds its sound, and what was lost, late or without the new band.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import resource
import time
from array import array
from importlib import resources

import numpy as np
import soundfile

from rtsr.call.encoders import open_encoder
from rtsr.call.engine import CallEngine
from rtsr.call.formats import OPUS, PCMU, Packet
from rtsr.call.receiver import Receiver
from rtsr.call.sender import Sender
from rtsr.errors import RtsrError

PERIOD = 0.020


def voice() -> list[bytes]:
    """Return the packaged voice in payloads of 20 ms."""
    path = resources.files("rtsr").joinpath("demo_data", "speech_8k.wav")
    sound, _ = soundfile.read(str(path), dtype="float32")
    encoder = open_encoder(PCMU)
    return [encoder.encode(sound[i : i + 160, None]) for i in range(0, len(sound) - 159, 160)]


async def call(
    engine: CallEngine, payloads: list[bytes], seconds: float, times: array[float]
) -> None:
    """One call from its beginning to its end."""
    sent: list[Packet] = []
    line = await engine.open(Receiver({0: PCMU}), Sender(OPUS, 111), sent.append)
    loop = asyncio.get_running_loop()
    start = loop.time()
    for index in range(round(seconds / PERIOD)):
        await asyncio.sleep(max(0.0, start + PERIOD * index - loop.time()))
        payload = payloads[index % len(payloads)]
        line.receive(Packet(0, index % 2**16, 160 * index % 2**32, payload, ssrc=1))
        sent.clear()
        if index % 1000 == 999:
            times.extend(line.path.processing_ms)
            line.path.processing_ms.clear()
    await asyncio.sleep(0.1)
    times.extend(line.path.processing_ms)
    line.close()


async def caller(engine, payloads, number, arguments, times) -> None:
    """Somebody who calls again and again until the time is over."""
    chance = np.random.default_rng(number)
    await asyncio.sleep(PERIOD * number / arguments.calls)
    end = time.monotonic() + arguments.seconds
    while (left := end - time.monotonic()) > 0.5:
        length = (
            arguments.call_seconds * chance.uniform(0.5, 1.5) if arguments.call_seconds else left
        )
        await call(engine, payloads, min(left, length), times)


def memory_mb() -> float:
    """Return the most memory that this process has had at any moment."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def memory_after(seconds: float) -> float:
    """Return the memory in MB after a while."""
    await asyncio.sleep(seconds)
    return memory_mb()


async def run(arguments: argparse.Namespace) -> None:
    """Carry the calls and print how it went."""
    # Four bytes each: a list would take 32, some 40 MB in an hour of eight calls.
    times: array[float] = array("f")
    options = {"model": arguments.model, "threads": arguments.threads}
    async with CallEngine(arguments.calls, **options) as engine:
        payloads = voice()
        cpu, start = time.process_time(), time.monotonic()
        early = asyncio.create_task(memory_after(arguments.seconds / 4.0))
        callers = (caller(engine, payloads, n, arguments, times) for n in range(arguments.calls))
        await asyncio.gather(*callers)
        busy = (time.process_time() - cpu) / (time.monotonic() - start)
        totals = engine.totals()
        gc.collect()
        memory, grown = memory_mb(), memory_mb() - await early
        p50, p99, p999, longest = np.percentile(times, [50, 99, 99.9, 100])
        print(f"{arguments.calls} calls at once, {engine.taken} in all, {totals.received} packets")
        print(f"a packet     p50 {p50:.2f}, p99 {p99:.2f}, p99.9 {p999:.2f}, max {longest:.2f} ms")
        step = engine.step_seconds / engine.steps
        print(f"the batch    {engine.steps} steps, {1e3 * step:.2f} ms in the mean")
        print(f"this process {100 * busy:.0f} % of a core")
        print(f"trouble      {totals.missed} deadlines missed, {totals.sheds} calls left out,")
        print(f"             {totals.fallback_seconds:.2f} s without new band,")
        print(f"             {totals.late} packets late")
        print(f"at the end   {engine.calls} calls, {engine.batch.free} places free,")
        print(f"             {memory:.0f} MB, {grown:+.1f} MB since the first quarter")


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument(
        "--call-seconds", type=float, help="mean length; the whole time if left out"
    )
    parser.add_argument("--model", default="small-int8")
    parser.add_argument("--threads", type=int, default=1)
    try:
        asyncio.run(run(parser.parse_args()))
    except RtsrError as error:
        parser.exit(2, f"rtsr: {error}\n")


if __name__ == "__main__":
    main()
