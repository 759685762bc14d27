"""What a call costs: its parts per packet of 20 ms, without the model.

python -m pytest bench/test_call.py -q
"""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest

from rtsr.call.decoders import open_decoder
from rtsr.call.encoders import open_encoder
from rtsr.call.formats import G722, OPUS, PCMU, Packet
from rtsr.call.receiver import Receiver
from rtsr.timing import HOP, SAMPLE_RATE

CODECS = pytest.mark.parametrize("form", [PCMU, G722, OPUS], ids=lambda form: form.name)


def frame(form):
    encoder = open_encoder(form)
    noise = np.random.default_rng(0).standard_normal((encoder.frame_samples, 1))
    return encoder, (0.1 * noise).astype(np.float32)


@CODECS
def test_encode(benchmark, form):
    encoder, sound = frame(form)
    benchmark(encoder.encode, sound)


@CODECS
def test_decode(benchmark, form):
    encoder, sound = frame(form)
    payload = encoder.encode(sound)
    benchmark(open_decoder(form).decode, payload)


@CODECS
def test_receive_and_play(benchmark, form):
    encoder, sound = frame(form)
    payload = encoder.encode(sound)
    receiver = Receiver({0: form})
    ticks = form.clock_rate // 50
    numbers = count()

    def packet():
        number = next(numbers)
        receiver.receive(Packet(0, number % 2**16, number * ticks % 2**32, payload), 0.02 * number)
        return receiver.poll(0.02 * number)

    assert benchmark(packet)


def test_conceal(benchmark):
    from rtsr.call.concealment import Concealer

    concealer = Concealer(8000)
    _, sound = frame(PCMU)

    def lose():
        concealer.accept(sound)
        return concealer.continue_sound(160)

    benchmark(lose)


@pytest.mark.parametrize("due", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("model", ["small", "small-int8"])
def test_step_of_those_due(benchmark, model, due):
    """So many calls of a batch of 16 have a hop waiting, others every time.

    Processor time is what counts: --benchmark-timer=time.process_time.
    """
    from rtsr import BatchUpsampler

    with BatchUpsampler(16, model=model, provider="cpu", overload="wait") as batch:
        streams = [batch.open(SAMPLE_RATE) for _ in range(16)]
        hop = (0.05 * np.random.default_rng(0).standard_normal(HOP)).astype(np.float32)

        def push():
            for stream in streams[:due]:
                stream.pull()
                stream.push(hop)
            streams.extend(streams[:due])
            del streams[:due]

        assert benchmark.pedantic(batch.step, setup=push, rounds=100, warmup_rounds=16) == due


@pytest.mark.parametrize("runs", [1, 2], ids=["at once", "one by one"])
@pytest.mark.parametrize("calls", [1, 4, 16, 48])
@pytest.mark.parametrize("model", ["small", "small-int8"])
def test_packet_of_two_hops(benchmark, model, calls, runs):
    """Two hops of so many calls, which wait together or come one after the other.

    Processor time is what counts: --benchmark-timer=time.process_time.
    """
    from rtsr import BatchUpsampler

    with BatchUpsampler(calls, model=model, provider="cpu", overload="wait") as batch:
        streams = [batch.open(8000) for _ in range(calls)]
        packet = (0.05 * np.random.default_rng(0).standard_normal(160)).astype(np.float32)

        def serve():
            before = batch.statistics.steps
            for part in np.split(packet, runs):
                for stream in streams:
                    stream.push(part)
                assert batch.step() == calls
            for stream in streams:
                stream.pull()
            return batch.statistics.steps - before

        assert benchmark.pedantic(serve, rounds=60, warmup_rounds=5) == runs


@pytest.mark.parametrize("places", [8, 16])
@pytest.mark.parametrize("models", [("small",), ("small", "small-int8")], ids="+".join)
def test_step_full_batches(benchmark, models, places):
    """As many calls in one batch, or in one for each model, of which each has room for all.

    Processor time is what counts: --benchmark-timer=time.process_time.
    """
    from rtsr import BatchUpsampler

    batches = [
        BatchUpsampler(places, model=model, provider="cpu", overload="wait") for model in models
    ]
    streams = [batches[i % len(batches)].open(SAMPLE_RATE) for i in range(places)]
    hop = (0.05 * np.random.default_rng(0).standard_normal(HOP)).astype(np.float32)

    def push():
        for stream in streams:
            stream.pull()
            stream.push(hop)

    def step():
        return sum(batch.step() for batch in batches)

    assert benchmark.pedantic(step, setup=push, rounds=60, warmup_rounds=5) == places
    for batch in batches:
        batch.close()


def test_packet_around_the_network(benchmark):
    """What a packet of 20 ms takes but for the step: in, out, and Opus, a call's own part.

    Processor time is what counts: --benchmark-timer=time.process_time.
    """
    from rtsr import BatchUpsampler
    from rtsr.call.call_stream import CallStream
    from rtsr.call.path import MediaPath
    from rtsr.call.sender import Sender

    sent = []
    with BatchUpsampler(1, model="small-int8", provider="cpu", overload="wait") as batch:
        path = MediaPath(Receiver({0: PCMU}), CallStream(batch), Sender(OPUS, 111), sent.append)
        encoder, sound = frame(PCMU)
        payload = encoder.encode(sound)
        numbers = count()

        def take_finished_and_receive():
            number = next(numbers)
            path.advance(0.02 * number - 0.01)
            path.receive(Packet(0, number % 2**16, 160 * number % 2**32, payload), 0.02 * number)

        def step():
            batch.step()

        # By hand, since a run that times nothing has no rounds to warm up in.
        for _ in range(9):
            step()
            take_finished_and_receive()
        benchmark.pedantic(take_finished_and_receive, setup=step, rounds=500)
    assert len(sent) >= next(numbers) - 5
    assert path.stream.fallback_seconds == 0.0
