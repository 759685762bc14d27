"""How many telephone calls this machine carries: PCMU packets in, Opus packets out, in real time.

    python examples/call_load.py                      16 calls, 10 seconds
    python examples/call_load.py --calls 8 --seconds 3600 --call-seconds 30

The callers are a process of their own. Each sends a packet of speech every 20 ms, at its own
moment, over UDP to a socket of its own here, as the SIP bridge has them, and gets Opus back. All of
them go into one engine. With --call-seconds callers hang up after about so long and others come.

Printed is what happens in this process: how long a packet took from its arrival at the socket to
the Opus packet of its place, in which its sound is 3.85 ms later; the same without its wait in the
jitter buffer, which is as long as the callers were late at times; and what was lost, late or
without the new band.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import gc
import multiprocessing
import resource
import select
import socket
import struct
import time
from array import array
from collections.abc import MutableSequence
from importlib import resources
from multiprocessing.connection import Connection

import numpy as np
import soundfile

from rtsr.call.encoders import open_encoder
from rtsr.call.engine import CallEngine
from rtsr.call.formats import OPUS, PCMU, Packet
from rtsr.call.receiver import Chunk, Origin, Receiver
from rtsr.call.reports import FarReports
from rtsr.call.sender import Sender
from rtsr.call.sip.control import ReportWriter
from rtsr.call.sip.media_socket import MediaSocket
from rtsr.errors import RtsrError
from rtsr.timing import SAMPLE_RATE

HOST = "127.0.0.1"
PERIOD = 0.020
RTP_HEADER = struct.Struct("!BBHII")
OPUS_TYPE = 111
# A caller's newest packets whose times are remembered: five seconds of them.
REMEMBERED = 256


def voice() -> list[bytes]:
    """Return the packaged voice in payloads of 20 ms."""
    path = resources.files("rtsr").joinpath("demo_data", "speech_8k.wav")
    sound, _ = soundfile.read(str(path), dtype="float32")
    encoder = open_encoder(PCMU)
    return [encoder.encode(sound[i : i + 160, None]) for i in range(0, len(sound) - 159, 160)]


async def open_socket(take) -> MediaSocket:
    """Return the bridge's end of a call on a free port."""
    reports = ReportWriter(FarReports())
    reports.formats = {0: PCMU, OPUS_TYPE: OPUS}
    return await MediaSocket.open(HOST, take, reports)


# The callers' process. It is no part of what is measured, so that it does as little as it can.


class Caller:
    """One caller's part of a call; what comes back is left to the system to throw away."""

    def __init__(self, number: int, port: int, packets: int) -> None:
        self.number = number
        self.left = packets
        self.start = time.monotonic()
        self._index = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        self._address = (HOST, port)

    @property
    def next_at(self) -> float:
        """When the next packet is to be sent."""
        return self.start + PERIOD * self._index

    def speak(self, payloads: list[bytes], sent_at: MutableSequence[float]) -> None:
        """Send a packet, the last one too."""
        index = self._index
        header = RTP_HEADER.pack(0x80, 0, index % 2**16, 160 * index % 2**32, 1)
        # On this machine what is sent has arrived.
        sent_at[self.number * REMEMBERED + index % REMEMBERED] = time.monotonic()
        self._socket.sendto(header + payloads[index % len(payloads)], self._address)
        self._index += 1
        self.left -= 1
        if not self.left:
            self._socket.close()


def callers(orders: Connection, sent_at: MutableSequence[float]) -> None:
    """Make the calls that are ordered, until there are no more; say what CPU time they took."""
    payloads = voice()
    # A collection would hold up all calls at once, and nothing here makes any garbage for it.
    gc.disable()
    orders.send("ready")
    cpu = time.process_time()
    calls: list[Caller] = []
    is_open = True
    while is_open or calls:
        first = min(calls, key=lambda call: call.next_at, default=None)
        wait = None if first is None else max(0.0, first.next_at - time.monotonic())
        if select.select([orders] if is_open else [], [], [], wait)[0]:
            order = orders.recv()
            if order is None:
                is_open = False
            else:
                calls.append(Caller(*order))
        elif first is not None:
            first.speak(payloads, sent_at)
            if not first.left:
                calls.remove(first)
    orders.send(time.process_time() - cpu)


# The process that is measured.


class TimedReceiver(Receiver):
    """A receiver that knows where in its sound that of each packet ends.

    Attributes:
        ends: index of the first sample behind a packet's sound, when the packet arrived, and how
            many seconds of jitter buffer it then had.
    """

    def __init__(self, number: int, sent_at: MutableSequence[float]) -> None:
        super().__init__({0: PCMU})
        self.ends: collections.deque[tuple[int, float, float]] = collections.deque()
        self._number, self._sent_at = number, sent_at
        self._arrived: dict[float, float] = {}
        self._samples = 0

    def receive(self, packet: Packet, now: float) -> None:
        """Take a packet that was read from its socket at ``now`` and had come there before."""
        place = packet.sequence_number % REMEMBERED
        self._arrived[now] = self._sent_at[self._number * REMEMBERED + place]
        super().receive(packet, now)

    def poll(self, now: float) -> list[Chunk]:
        """Return the sound that is due."""
        chunks = super().poll(now)
        for chunk in chunks:
            if chunk.origin is not Origin.TAIL:
                self._samples += len(chunk.sound) * SAMPLE_RATE // chunk.rate
            if chunk.arrival is not None:
                arrived = self._arrived.pop(chunk.arrival)
                self.ends.append((self._samples, arrived, now - chunk.arrival))
        return chunks


class Times:
    """What packets took, in ms: all in all, and without the jitter buffer."""

    def __init__(self) -> None:
        # Four bytes each: a list would take 32, some 80 MB in an hour of eight calls.
        self.whole, self.without_wait = array("f"), array("f")


class TimedSender(Sender):
    """A sender that notes how old a packet is whose sound is complete in what is sent."""

    def __init__(self, receiver: TimedReceiver, times: Times) -> None:
        super().__init__(OPUS, OPUS_TYPE)
        self._ends, self._times = receiver.ends, times
        self._samples = 0

    def push(self, sound) -> list[Packet]:
        """Return the packets that are complete."""
        packets = super().push(sound)
        self._samples += len(sound)
        while self._ends and self._ends[0][0] <= self._samples - self.waiting:
            _, arrived, waited = self._ends.popleft()
            took = time.monotonic() - arrived
            self._times.whole.append(1e3 * took)
            self._times.without_wait.append(1e3 * (took - waited))
        return packets


async def call(engine, orders, sent_at, number, seconds, times) -> None:
    """One call from its beginning to its end."""
    receiver = TimedReceiver(number, sent_at)
    media = await open_socket(lambda packet: line.receive(packet))
    line = await engine.open(receiver, TimedSender(receiver, times), media.send)
    orders.send((number, media.address[1], round(seconds / PERIOD)))
    await asyncio.sleep(seconds + 0.1)
    line.close()
    media.close()


async def place(engine, orders, sent_at, number, arguments, times) -> None:
    """Take call after call until the time is over."""
    chance = np.random.default_rng(number)
    await asyncio.sleep(PERIOD * number / arguments.calls)
    end = time.monotonic() + arguments.seconds
    while (left := end - time.monotonic()) > 0.5:
        mean = arguments.call_seconds
        length = left if mean is None else mean * chance.uniform(0.5, 1.5)
        await call(engine, orders, sent_at, number, min(left, length), times)


def memory_mb() -> float:
    """Return the most memory that this process has had at any moment."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def memory_after(seconds: float) -> float:
    """Return the memory in MB after a while."""
    await asyncio.sleep(seconds)
    return memory_mb()


def spread(times: array[float]) -> str:
    """Return how times in ms are distributed."""
    p50, p99, p999, longest = np.percentile(times, [50, 99, 99.9, 100])
    return f"p50 {p50:.2f}, p99 {p99:.2f}, p99.9 {p999:.2f}, max {longest:.2f} ms"


async def run(arguments: argparse.Namespace) -> None:
    """Carry the calls and print how it went."""
    times = Times()
    options = {"model": arguments.model, "threads": arguments.threads}
    async with CallEngine(arguments.calls, **options) as engine:
        # A fresh process, as a fork would share the engine's memory and threads.
        fresh = multiprocessing.get_context("spawn")
        sent_at = fresh.RawArray("d", arguments.calls * REMEMBERED)
        orders, theirs = fresh.Pipe()
        process = fresh.Process(target=callers, args=(theirs, sent_at), daemon=True)
        process.start()
        # Without an end of it here, callers that have failed are noticed.
        theirs.close()
        await asyncio.to_thread(orders.recv)
        cpu, start = time.process_time(), time.monotonic()
        early = asyncio.create_task(memory_after(arguments.seconds / 4.0))
        numbers = range(arguments.calls)
        await asyncio.gather(
            *(place(engine, orders, sent_at, n, arguments, times) for n in numbers)
        )
        lasted = time.monotonic() - start
        busy = (time.process_time() - cpu) / lasted
        orders.send(None)
        callers_busy = await asyncio.to_thread(orders.recv) / lasted
        await asyncio.to_thread(process.join)
        totals = engine.totals()
        gc.collect()
        memory, grown = memory_mb(), memory_mb() - await early
        print(f"{arguments.calls} calls at once, {engine.taken} in all, {totals.received} packets")
        print(f"a packet     {spread(times.whole)}")
        print(f"without wait {spread(times.without_wait)}")
        step = engine.step_seconds / engine.steps
        print(f"the batch    {engine.steps} steps, {1e3 * step:.2f} ms in the mean")
        print(f"this process {100 * busy:.0f} % of a core, the callers {100 * callers_busy:.0f} %")
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
    arguments = parser.parse_args()
    lengths = arguments.seconds, arguments.call_seconds
    if not all(length is None or length >= 1.0 for length in lengths):
        parser.error("calls last 1 s or more")
    try:
        asyncio.run(run(arguments))
    except RtsrError as error:
        parser.exit(2, f"rtsr: {error}\n")
    except (EOFError, BrokenPipeError):
        parser.exit(2, "rtsr: The callers' process has ended before its time.\n")


if __name__ == "__main__":
    main()
