"""The whole receiving end of a call in asyncio, without a network: jitter, loss, and full band.

    python examples/call_without_network.py enhanced.wav
    python examples/call_without_network.py enhanced.wav --loss 0.05 --jitter-ms 40

Packets of G.711, as a telephone sends them, come late, out of order or not at all. They go through
the engine that `rtsr call` uses, and come out as Opus packets, which are decoded and written. An
application with sockets of its own replaces `network` and `receive`.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from importlib import resources
from pathlib import Path

import numpy as np
import soundfile

from rtsr.call.decoders import open_decoder
from rtsr.call.encoders import open_encoder
from rtsr.call.engine import CallEngine, Line
from rtsr.call.formats import OPUS, PCMU, Packet
from rtsr.call.receiver import Receiver
from rtsr.call.sender import Sender
from rtsr.errors import RtsrError


async def network(line: Line, loss: float, jitter: float) -> None:
    """Send the packaged voice, a packet every 20 ms, over a bad network."""
    path = resources.files("rtsr").joinpath("demo_data", "speech_8k.wav")
    sound, _ = soundfile.read(str(path), dtype="float32")
    encoder, chance = open_encoder(PCMU), random.Random(0)
    loop = asyncio.get_running_loop()
    start = loop.time()
    for number in range(len(sound) // 160):
        payload = encoder.encode(sound[160 * number : 160 * (number + 1), None])
        packet = Packet(0, number, 160 * number, payload)
        if chance.random() >= loss:
            at = start + 0.02 * number + jitter * chance.random()
            loop.call_at(at, line.receive, packet)
    await asyncio.sleep(0.02 * len(sound) / 160 + jitter + 0.2)


async def run(arguments: argparse.Namespace) -> None:
    """Carry the call and say how it went."""
    opus = open_decoder(OPUS)
    received = [np.zeros((0, 1), np.float32)]

    def receive(packet: Packet) -> None:
        received.append(opus.decode(packet.payload))

    async with CallEngine(1, model=arguments.model, deadline_ms=arguments.deadline_ms) as engine:
        line = await engine.open(Receiver({0: PCMU}), Sender(OPUS, 111), receive)
        await network(line, arguments.loss, arguments.jitter_ms / 1000.0)
        receiver = line.path.receiver
        counts = receiver.counts
        print(f"received     {counts.received} packets, {counts.lost} were lost or too late")
        print(
            f"waiting      {receiver.wait_ms:.1f} ms, for a jitter of {receiver.jitter_ms:.1f} ms"
        )
        print(f"made up      {counts.concealed_seconds:.2f} s")
        print(f"not enhanced {line.path.stream.fallback_seconds:.2f} s")
    sound = np.concatenate(received)
    soundfile.write(arguments.output, sound, 48000)
    print(f"wrote        {arguments.output}, {len(sound) / 48000:.2f} s")


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--loss", type=float, default=0.03, help="share of packets, 0 to 1")
    parser.add_argument("--jitter-ms", type=float, default=30.0)
    parser.add_argument("--deadline-ms", type=float, default=40.0)
    parser.add_argument("--model", default="small")
    try:
        arguments = parser.parse_args()
        if not (0 <= arguments.loss <= 1 and 0 <= arguments.jitter_ms <= 1000):
            parser.error("--loss takes 0 to 1, --jitter-ms 0 to 1000")
        asyncio.run(run(arguments))
    except (RtsrError, soundfile.SoundFileError) as error:
        raise SystemExit(f"call_without_network: {error}") from None


if __name__ == "__main__":
    main()
