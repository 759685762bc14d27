"""A network that loses, delays and doubles packets, in simulated time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import resources

import numpy as np
import soundfile

from rtsr.call.encoders import open_encoder
from rtsr.call.formats import PCMU, Packet, PayloadFormat
from rtsr.call.receiver import Chunk, Receiver

TICK = 0.001


def speech(rate: int = 8000, seconds: float | None = None) -> np.ndarray:
    """The packaged voice, mono float32 ``(samples,)``, over and over if need be."""
    path = resources.files("rtsr").joinpath("demo_data", "speech_8k.wav")
    sound, _ = soundfile.read(str(path), dtype="float32")
    if seconds is not None:
        sound = np.resize(sound, round(8000 * seconds))
    if rate != 8000:
        from scipy.signal import resample_poly

        sound = resample_poly(sound, rate, 8000).astype(np.float32)
    return sound


def packets(
    sound: np.ndarray,
    form: PayloadFormat = PCMU,
    payload_type: int = 0,
    *,
    first_number: int = 65530,
    first_time: int = 2**32 - 1600,
    ssrc: int = 7,
    bitrate: int = 64_000,
) -> list[Packet]:
    """Packets of 20 ms; counters wrap around soon after the beginning."""
    encoder = open_encoder(form, 1, bitrate)
    size = encoder.frame_samples
    ticks = size * form.clock_rate // form.sample_rate
    return [
        Packet(
            payload_type,
            (first_number + index) % 2**16,
            (first_time + index * ticks) % 2**32,
            encoder.encode(sound[index * size : (index + 1) * size, None]),
            marker=index == 0,
            ssrc=ssrc,
        )
        for index in range(len(sound) // size)
    ]


def sent(
    stream: Iterable[Packet],
    *,
    start: float = 100.0,
    loss: float = 0.0,
    jitter: Callable[[np.random.Generator], float] = lambda chance: 0.0,
    doubled: float = 0.0,
    drift: float = 0.0,
    seed: int = 0,
) -> list[tuple[float, Packet]]:
    """When each packet arrives, one every 20 ms of a clock that runs ``drift`` fast."""
    chance = np.random.default_rng(seed)
    arrivals = []
    for index, packet in enumerate(stream):
        at = start + 0.020 * index * (1.0 - drift) + jitter(chance)
        if chance.random() >= loss:
            arrivals.append((at, packet))
        if chance.random() < doubled:
            arrivals.append((at + 0.003, packet))
    return sorted(arrivals, key=lambda arrival: arrival[0])


def heard(
    receiver: Receiver, arrivals: list[tuple[float, Packet]], after: float = 0.3
) -> list[tuple[float, Chunk]]:
    """What the receiver plays and when, looking at the clock every millisecond."""
    played: list[tuple[float, Chunk]] = []
    waiting = list(arrivals)
    now, end = waiting[0][0], waiting[-1][0] + after + TICK
    while now < end:
        while waiting and waiting[0][0] <= now:
            receiver.receive(waiting[0][1], waiting[0][0])
            played += [(now, chunk) for chunk in receiver.poll(waiting.pop(0)[0])]
        played += [(now, chunk) for chunk in receiver.poll(now)]
        now += TICK
    return played


def sound_of(played: list[tuple[float, Chunk]]) -> np.ndarray:
    """All of it in a row, mono ``(samples,)``."""
    return np.concatenate([chunk.sound[:, 0] for _, chunk in played])
