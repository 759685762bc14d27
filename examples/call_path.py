"""The receiving end of a call: 20 ms packets of 8 kHz speech in, 20 ms of 48 kHz sound out.

    python examples/call_path.py                           the packaged voice, in real time
    python examples/call_path.py call.wav enhanced.wav     your own mono recording at 8 kHz
    python examples/call_path.py --seconds 60              for a minute, over and over

Packets come by the clock, as from a network's jitter buffer. What is printed at the end is what
the call would have seen on this machine: how long each packet took, and whether one was late.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import numpy as np
import soundfile

from rtsr import Upsampler
from rtsr.audio.reader import native_name
from rtsr.errors import RtsrError
from rtsr.whole_file import check_different

RATE = 8000
PACKET_SECONDS = 0.020
PACKET = round(RATE * PACKET_SECONDS)


def read_voice(path: Path) -> np.ndarray:
    """Read a mono recording at 8 kHz, 16 bits ``(samples,)``, as a decoder (G.711) gives it."""
    voice, rate = soundfile.read(native_name(path), dtype="int16")
    if rate != RATE or voice.ndim != 1 or len(voice) < PACKET:
        raise RtsrError(f"'{path}' must hold at least 20 ms of mono sound at {RATE} Hz.")
    return voice


def packets(voice: np.ndarray, count: int) -> Iterator[np.ndarray]:
    """Packets of a voice, over and over, one every 20 ms.

    Every packet has its own point in time, counted from the first. Sleeping 20 ms after each
    instead would add up all the time spent in between, and the call would fall behind.
    """
    whole = len(voice) // PACKET
    start = time.perf_counter()
    for number in range(count):
        due = start + number * PACKET_SECONDS
        time.sleep(max(0.0, due - time.perf_counter()))
        first = number % whole * PACKET
        yield voice[first : first + PACKET]


def receive(upsampler: Upsampler, voice: Iterator[np.ndarray], play: soundfile.SoundFile) -> None:
    """Enhance packets as they come, and print how it went."""
    busy, arrivals = [], []
    for packet in voice:
        began = time.perf_counter()
        sound = upsampler.process(packet.astype(np.float32) / 32768.0)
        busy.append(time.perf_counter() - began)
        arrivals.append(began)
        play.write(sound)  # exactly 960 samples: the sound card's turn
    play.write(upsampler.flush())

    offset = np.array(arrivals) - np.arange(len(arrivals)) * PACKET_SECONDS
    wake = (offset - offset.min()) * 1e3
    done = wake + np.array(busy) * 1e3
    p50, p99, longest = np.percentile(busy, [50, 99, 100]) * 1e3
    print(f"{len(busy)} packets of 20 ms in {arrivals[-1] - arrivals[0] + PACKET_SECONDS:.2f} s")
    print(f"per packet     p50 {p50:.2f}, p99 {p99:.2f}, max {longest:.2f} ms of 20")
    print(f"woken up       p50 {np.median(wake):.2f}, max {wake.max():.2f} ms after the packet")
    print(f"too late       {np.count_nonzero(done > PACKET_SECONDS * 1e3)} packets")
    parts = " + ".join(f"{name} {ms:.2f}" for name, ms in upsampler.latency.parts_ms.items() if ms)
    print(f"latency        {upsampler.latency.algorithmic_ms:.2f} ms = {parts}")
    print(f"content ended  at {upsampler.cutoff_hz:.0f} Hz")


def main() -> None:
    """Read the arguments and take the call."""
    demo = Path(str(resources.files("rtsr").joinpath("demo_data", "speech_8k.wav")))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", nargs="?", type=Path, default=demo)
    parser.add_argument("output", nargs="?", type=Path, default=Path("call-48k.wav"))
    parser.add_argument("--model", default="small")
    parser.add_argument("--seconds", type=float, help="length of the call; the file's if left out")
    arguments = parser.parse_args()
    try:
        voice = read_voice(arguments.input)
        check_different(arguments.input, arguments.output)
        seconds = len(voice) / RATE if arguments.seconds is None else arguments.seconds
        if not PACKET_SECONDS <= seconds <= 86400.0:
            parser.error("a call has at least one packet of 20 ms, and lasts a day at most")
        count = int(seconds / PACKET_SECONDS)
        with (
            Upsampler(RATE, model=arguments.model, blocks_are_hops=True) as upsampler,
            soundfile.SoundFile(arguments.output, "w", 48000, 1, "PCM_16") as play,
        ):
            # What was made so far stays: the collector need not look through it during the call.
            gc.collect()
            gc.freeze()
            receive(upsampler, packets(voice, count), play)
    except (RtsrError, soundfile.SoundFileError) as error:
        raise SystemExit(f"call_path: {error}") from None
    print(f"wrote          {arguments.output}")


if __name__ == "__main__":
    main()
