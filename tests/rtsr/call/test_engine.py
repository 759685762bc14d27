"""Many calls in one process, in real time: places, refusals, counts and neighbours."""

from __future__ import annotations

import asyncio
import gc
import time
from types import SimpleNamespace

import numpy as np
import pytest
from network import packets, speech

from rtsr.batch.upsampler import BatchUpsampler
from rtsr.call import engine as engine_module
from rtsr.call.engine import BusyError, CallEngine, Totals
from rtsr.call.formats import OPUS, PCMU, TELEPHONE_EVENT, Packet
from rtsr.call.metrics import exposition
from rtsr.call.path import MediaPath
from rtsr.call.receiver import Receiver
from rtsr.call.reports import FarReports
from rtsr.call.sender import Sender
from rtsr.colour.auto import AutoColour
from rtsr.errors import ArgumentError, AudioFormatError, RtsrError

pytestmark = pytest.mark.clocked


@pytest.fixture
def quick(stand_in):
    """Options of an engine whose model takes no time, on a machine that may be busy."""
    return {"model": str(stand_in), "provider": "cpu", "deadline_ms": 200}


def test_each_metric_counts_what_it_is_called_by():
    """Every fact of a call has a value of its own, so that none can stand for another."""
    counts = SimpleNamespace(received=101, lost=102, late=103, malformed=104, concealed_seconds=105)
    colour = AutoColour()
    colour.learnt_hops, colour.skipped_hops = 10600, 10700
    path = SimpleNamespace(
        receiver=SimpleNamespace(counts=counts, duplicates=108),
        sender=SimpleNamespace(sent=109, unsent_seconds=110),
        stream=SimpleNamespace(colour=colour, fallback_seconds=111),
        missed=112,
        sheds=113,
        keys=114,
        far=FarReports(115, 116, 0.5, 117.0, 0.5, 118, 119.0),
    )
    totals = Totals()
    for _ in range(2):
        totals.add(path)
    engine = SimpleNamespace(
        calls=120, capacity=121, taken=122, refused=123, steps=124, step_seconds=125,
        totals=lambda: totals,
    )  # fmt: skip
    assert values_of(exposition(engine)) == {
        "rtsr_calls": 120,
        "rtsr_calls_capacity": 121,
        "rtsr_calls_taken_total": 122,
        "rtsr_calls_refused_total": 123,
        "rtsr_steps_total": 124,
        "rtsr_step_seconds_count": 124,
        "rtsr_step_seconds_sum": 125,
        "rtsr_packets_received_total": 2 * 101,
        "rtsr_packets_lost_total": 2 * 102,
        "rtsr_packets_late_total": 2 * 103,
        "rtsr_packets_malformed_total": 2 * 104,
        "rtsr_concealed_seconds_total": 2 * 105,
        "rtsr_colour_learnt_seconds_total": 2 * 106,
        "rtsr_colour_skipped_seconds_total": 2 * 107,
        "rtsr_packets_duplicate_total": 2 * 108,
        "rtsr_packets_sent_total": 2 * 109,
        "rtsr_dtx_seconds_total": 2 * 110,
        "rtsr_fallback_seconds_total": 2 * 111,
        "rtsr_deadlines_missed_total": 2 * 112,
        "rtsr_calls_shed_total": 2 * 113,
        "rtsr_keys_total": 2 * 114,
        "rtsr_far_jitter_seconds_count": 2 * 115,
        "rtsr_far_packets_lost_total": 2 * 116,
        "rtsr_far_jitter_seconds_sum": 2 * 117,
        "rtsr_round_trip_seconds_count": 2 * 118,
        "rtsr_round_trip_seconds_sum": 2 * 119,
    }


async def opened(engine, out=None, **options):
    take = [].append if out is None else out.append
    return await engine.open(Receiver({0: PCMU}), Sender(OPUS, 111), take, **options)


async def until(condition):
    """Wait for something to happen."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.01)


async def talk(line, seconds):
    loop = asyncio.get_running_loop()
    start = loop.time()
    for index, packet in enumerate(packets(speech(8000, seconds))):
        await asyncio.sleep(max(0.0, start + 0.02 * index - loop.time()))
        line.receive(packet)


def test_calls_at_once_all_get_their_sound(quick):
    async def run():
        async with CallEngine(6, **quick) as engine:
            outs = [[] for _ in range(6)]
            began = engine.loop.time()
            lines = [await opened(engine, out) for out in outs]
            await asyncio.gather(*(talk(line, 2.0) for line in lines))
            await asyncio.sleep(0.3)
            # What a machine that stands still makes late is concealed, as what follows the last is.
            most = (engine.loop.time() - began) / 0.02 + 2
            for line, out in zip(lines, outs, strict=True):
                removed = line.path.receiver.counts.removed_seconds
                assert 99 - removed / 0.02 <= len(out) <= most
            totals = engine.totals()
            assert totals.received == 600
            assert totals.fallback_seconds == 0.0
            # Shared: alone each would have taken 200.
            assert 200 <= engine.steps < 1200
            for line in lines:
                line.close()
            assert engine.totals().received == 600
            assert engine.batch.free == 6

    asyncio.run(run())


def test_finished_sound_leaves_before_anything_else_happens(quick, monkeypatch):
    # Neither a timer nor another packet has the line look for it.
    monkeypatch.setattr(engine_module.Line, "_set_timer", lambda line, loop: None)

    async def run():
        async with CallEngine(2, **quick) as engine:
            out = []
            line = await opened(engine, out)
            await opened(engine)
            line.receive(packets(speech(8000, 0.02))[0])
            end = time.monotonic() + 10.0
            while not out:
                assert time.monotonic() < end, "it was not handed on"
                await asyncio.sleep(0.005)
            assert len(line.path.processing_ms) == 1
            assert line.path.stream.fallback_seconds == 0.0

    asyncio.run(run())


def test_a_full_engine_refuses_and_a_call_that_ends_makes_room(quick):
    async def run():
        async with CallEngine(2, **quick) as engine:
            first, _ = await opened(engine), await opened(engine)
            with pytest.raises(BusyError, match="All 2 lines are busy"):
                await opened(engine)
            with pytest.raises(BusyError):
                await engine.open_sound(8000)
            first.close()
            first.close()
            await opened(engine)
            assert (engine.taken, engine.refused, engine.calls) == (3, 2, 2)

    asyncio.run(run())


def test_a_call_that_is_given_up_while_it_opens_takes_no_place(quick):
    async def run():
        async with CallEngine(1, **quick) as engine:
            for wait in (0.0, 0.0005, 0.002, 0.01):
                task = asyncio.ensure_future(opened(engine))
                await asyncio.sleep(wait)
                task.cancel()
                line = (await asyncio.gather(task, return_exceptions=True))[0]
                if not isinstance(line, BaseException):
                    line.close()
                for _ in range(200):
                    if engine.batch.free == 1:
                        break
                    await asyncio.sleep(0.01)
                assert (engine.batch.free, engine.calls) == (1, 0)

    asyncio.run(run())


def test_hundreds_of_calls_come_and_go_and_nothing_stays(quick):
    async def run():
        async with CallEngine(4, **quick) as engine:
            stream = packets(speech(8000, 0.2))

            async def caller(number):
                for _ in range(number):
                    line = await opened(engine)
                    for packet in stream:
                        line.receive(packet)
                        await asyncio.sleep(0.001)
                    line.close()

            await caller(3)
            gc.collect()
            before = len(gc.get_objects())
            await asyncio.gather(*(caller(25) for _ in range(4)))
            gc.collect()
            assert len(gc.get_objects()) < before + 1000
            assert (engine.calls, engine.batch.free, engine.taken) == (0, 4, 103)

    asyncio.run(run())


def test_a_call_with_broken_packets_leaves_its_neighbour_alone(quick):
    async def run(hostile):
        async with CallEngine(2, **quick) as engine:
            out = []
            good, bad = await opened(engine, out), await opened(engine)
            chance = np.random.default_rng(0)

            async def attack():
                for number in range(400):
                    payload = chance.bytes(int(chance.integers(0, 2000)))
                    numbers = chance.integers(0, 2**16, 2)
                    bad.receive(Packet(0, int(numbers[0]), int(numbers[1]) * 9999, payload))
                    if number % 8 == 0:
                        await asyncio.sleep(0.01)

            await asyncio.gather(talk(good, 1.0), *([attack()] if hostile else []))
            await asyncio.sleep(0.1)
            return good.path.receiver.counts, len(out)

    counts, sent = asyncio.run(run(True))
    assert counts.received == 50
    assert counts.malformed == counts.lost == 0
    assert sent >= 49


def test_an_error_within_one_line_is_logged_and_ends_nothing(quick, caplog, monkeypatch):
    receive = MediaPath.receive

    async def run():
        async with CallEngine(2, **quick) as engine:
            out = []
            good, bad = await opened(engine, out), await opened(engine, name="broken")

            def fail(path, packet, now):
                if path is bad.path:
                    raise ZeroDivisionError("on purpose")
                receive(path, packet, now)

            monkeypatch.setattr(MediaPath, "receive", fail)
            await asyncio.gather(talk(good, 0.5), talk(bad, 0.5))
            await asyncio.sleep(0.1)
            assert len(out) >= 24

    asyncio.run(run())
    assert "an error in a call was caught" in caplog.text


def test_a_step_that_fails_is_logged_and_the_next_ones_are_taken(quick, caplog, monkeypatch):
    async def run():
        async with CallEngine(1, **quick) as engine:
            out, failed = [], []
            line = await opened(engine, out)

            def fail(batch):
                failed.append(batch)
                raise ZeroDivisionError("on purpose")

            with monkeypatch.context() as failing:
                failing.setattr(BatchUpsampler, "step", fail)
                await talk(line, 0.2)
                await until(lambda: failed)
            before = engine.steps
            await talk(line, 1.0)
            await asyncio.sleep(0.3)
            assert engine.steps > before
            assert len(out) >= 50

    asyncio.run(run())
    assert "the batch could not step" in caplog.text


def test_who_vanishes_is_noticed(quick, monkeypatch):
    monkeypatch.setattr(engine_module, "SILENT_SECONDS", 0.5)

    async def run():
        async with CallEngine(1, **quick) as engine:
            line = await opened(engine)
            gone = asyncio.Event()
            line.on_silence = gone.set
            started = time.monotonic()
            await talk(line, 1.0)
            assert not gone.is_set()
            await asyncio.wait_for(gone.wait(), 5.0)
            assert time.monotonic() - started > 1.4

    asyncio.run(run())


def values_of(text):
    """Each value of ``/metrics`` by its name."""
    from prometheus_client.parser import text_string_to_metric_families

    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_metrics_are_what_prometheus_reads(quick):
    async def run():
        async with CallEngine(2, **quick) as engine:
            line = await opened(engine)
            await talk(line, 0.5)
            return exposition(engine)

    values = values_of(asyncio.run(run()))
    assert values["rtsr_calls"] == 1
    assert values["rtsr_calls_capacity"] == 2
    assert values["rtsr_packets_received_total"] == 25
    assert values["rtsr_fallback_seconds_total"] == 0
    assert values["rtsr_steps_total"] == values["rtsr_step_seconds_count"] > 10


def test_packets_of_both_directions_are_counted(quick):
    async def run():
        async with CallEngine(1, **quick) as engine:
            out = []
            plain = engine.open_plain(Receiver({0: PCMU}), Sender(OPUS, 111), out.append)
            said = packets(speech(8000, 0.4))
            for index, packet in enumerate(said):
                if index != 5:
                    plain.receive(packet)
                await asyncio.sleep(0.02)
            plain.receive(Packet(77, 99, 0, b"?", ssrc=said[0].ssrc))
            await until(lambda: engine.totals().sent >= len(said))
            for _ in range(2):
                totals = engine.totals()
                assert (totals.received, totals.malformed) == (len(said) - 1, 1)
                # What would follow the last one counts as lost for a while, too.
                assert totals.lost == plain.path.receiver.counts.lost >= 1
                assert totals.sent == len(out)
                assert totals.concealed_seconds > 0.0
                # It has no new band that could be missing.
                assert (totals.fallback_seconds, totals.missed) == (0.0, 0)
                plain.close()

    asyncio.run(run())


def test_keys_of_both_ends_are_counted(quick):
    async def run():
        async with CallEngine(1, **quick) as engine:
            formats = {0: PCMU, 101: TELEPHONE_EVENT}
            line = await engine.open(Receiver(formats), None, lambda packet: None)
            plain = engine.open_plain(Receiver(formats), None, lambda packet: None)
            for each, presses in ((line, 1), (plain, 2)):
                for i in range(presses):
                    each.receive(Packet(101, i, 1600 * i, bytes([i, 128, 0, 80]), True, ssrc=7))
                each.receive(Packet(0, presses, 1600 * presses, bytes([255]) * 160, ssrc=7))
            await asyncio.sleep(1.0)
            assert (line.path.keys, plain.path.keys) == (1, 2)
            assert engine.totals().keys == 3
            plain.close()
            line.close()
            assert engine.totals().keys == 3

    asyncio.run(run())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"capacity": 0}, "1 to 256 calls, not 0"),
        ({"capacity": 300}, "1 to 256 calls, not 300"),
        ({"channels": 3}, "1 or 2 channels, not 3"),
        ({"deadline_ms": 1}, "5 to 200 ms for the batch, not 1"),
        ({"deadline_ms": float("nan")}, "5 to 200 ms for the batch, not nan"),
        ({"deadline_ms": 10**400}, "5 to 200 ms for the batch, not inf"),
        ({"deadline_ms": "x"}, "deadline must be a number, not 'x'"),
        ({"capacity": "x"}, "number of calls must be an integer, not 'x'"),
        ({"capacity": 1.5}, "number of calls must be an integer, not 1.5"),
        ({"channels": None}, "number of channels must be an integer, not None"),
    ],
)
def test_refuses_what_no_engine_can_be(options, sentence):
    with pytest.raises(ArgumentError, match=sentence):
        CallEngine(**{"capacity": 1, **options})


def test_an_engine_that_cannot_keep_up_still_lets_callers_in_and_out(quick, monkeypatch):
    step = BatchUpsampler.step

    def slow_step(batch):
        time.sleep(0.025)
        return step(batch)

    async def run():
        async with CallEngine(4, **quick) as engine:
            monkeypatch.setattr(BatchUpsampler, "step", slow_step)
            outs = [[] for _ in range(3)]
            lines = [await opened(engine, out) for out in outs]
            talking = asyncio.gather(*(talk(line, 2.0) for line in lines))
            await asyncio.sleep(1.0)
            other = await asyncio.wait_for(opened(engine), 2.0)
            other.close()
            await talking
            await asyncio.sleep(0.5)
            assert engine.totals().fallback_seconds > 0.5
            assert all(len(out) > 90 for out in outs)
            for line in lines:
                line.close()
            assert engine.batch.free == 4

    asyncio.run(run())


def test_decoded_sound_goes_in_and_comes_out_six_times_as_long(quick):
    async def run():
        async with CallEngine(1, **quick) as engine:
            line = await engine.open_sound(8000)
            line.controls.set("wet", 0.0)
            voice = speech(8000, 1.0)
            parts = [await line.enhance(voice[i : i + 160]) for i in range(0, 8000, 160)]
            assert [part.shape for part in parts] == [(960,)] * 50
            assert line.fallback_seconds == 0.0
            with pytest.raises(RtsrError, match="floating-point"):
                await line.enhance(np.zeros(160, np.int16))
            with pytest.raises(RtsrError, match="does not fit"):
                await line.enhance(np.zeros((160, 2), np.float32))
            await line.enhance(np.full(160, np.nan, np.float32))
            line.close()
            line.close()
            assert engine.batch.free == 1
            with pytest.raises(RtsrError, match="is closed"):
                await line.enhance(voice[:160])
            return np.concatenate(parts), voice

    wide, voice = asyncio.run(run())
    # 185 samples later, what came in.
    late = wide[185::6][: len(voice) - 31]
    assert np.corrcoef(late, voice[: len(late)])[0, 1] > 0.99


@pytest.mark.parametrize("seconds", [1.0, 3.05])
def test_a_long_block_is_enhanced_whole_and_the_next_one_is_in_time(quick, seconds):
    async def run():
        async with CallEngine(1, **quick) as engine:
            line = await engine.open_sound(8000)
            block = await line.enhance(speech(8000, seconds))
            assert block.shape == (round(48000 * seconds),)
            assert line.fallback_seconds == 0.0
            line.controls.set("wet", 0.0)
            await line.enhance(np.zeros(160, np.float32))
            click = np.zeros(160, np.float32)
            click[20] = 0.5
            return await line.enhance(click)

    heard = np.abs(asyncio.run(run()))
    assert abs(int(heard.argmax()) - (6 * 20 + 185)) <= 6


def test_a_long_block_that_is_given_up_comes_with_the_next_one(quick):
    async def run():
        async with CallEngine(1, **quick) as engine:
            line = await engine.open_sound(8000)
            enhancing = asyncio.ensure_future(line.enhance(speech(8000, 1.0)))
            await asyncio.sleep(0)
            enhancing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await enhancing
            return await line.enhance(np.zeros(160, np.float32))

    assert len(asyncio.run(run())) == 48000 + 960


def test_a_silent_call_that_cannot_be_ended_keeps_no_other_one(quick, monkeypatch, caplog):
    monkeypatch.setattr(engine_module, "SILENT_SECONDS", 0.2)
    monkeypatch.setattr(engine_module, "WATCH_SECONDS", 0.05)

    async def run():
        async with CallEngine(2, **quick) as engine:
            first, second = await opened(engine), await opened(engine)
            ended = []

            def fail():
                raise OSError("the far end cannot be told")

            first.on_silence = fail
            second.on_silence = lambda: ended.append(1)
            # Again and again, as long as nobody is heard.
            await until(lambda: ended.count(1) >= 2)
            first.on_silence = lambda: ended.append(2)
            await until(lambda: ended.count(1) >= 5)
            assert 2 in ended

    asyncio.run(run())
    assert "a silent call was not ended whole" in caplog.text


@pytest.mark.parametrize("rate", [0, 3000, 96000])
def test_a_rate_that_is_not_accepted_costs_no_place(quick, rate):
    async def run():
        async with CallEngine(1, **quick) as engine:
            with pytest.raises(AudioFormatError, match="not supported"):
                await engine.open_sound(rate)
            line = await engine.open_sound(8000)
            with pytest.raises(AudioFormatError, match="not supported"):
                line.rate = rate

    asyncio.run(run())


def test_an_engine_runs_from_its_start_to_its_end_and_says_so(quick):
    async def run():
        engine = CallEngine(1, **quick)

        async def refused():
            for opening in (opened(engine), engine.open_sound(8000)):
                with pytest.raises(RtsrError, match="does not run; open calls within"):
                    await opening
            with pytest.raises(RtsrError, match="does not run"):
                engine.open_plain(Receiver({0: PCMU}), None, [].append)

        await refused()
        engine.start()
        with pytest.raises(RtsrError, match="started once; make another one"):
            engine.start()
        line = await opened(engine)
        await engine.stop()
        assert line.is_closed
        await engine.stop()
        await refused()
        with pytest.raises(RtsrError, match="started once"):
            engine.start()
        # One that never began is closed all the same.
        idle = CallEngine(1, **quick)
        await idle.stop()
        with pytest.raises(RtsrError, match="closed"):
            idle.batch.open(8000)

    asyncio.run(run())


def test_a_call_that_comes_while_the_engine_stops_is_refused(quick):
    async def run():
        async with CallEngine(2, **quick) as engine:
            # The step that is under way holds who wants to join.
            with engine.batch._rows.lock:
                opening = asyncio.create_task(opened(engine))
                await asyncio.sleep(0.1)
                stopping = asyncio.create_task(engine.stop())
                await asyncio.sleep(0.1)
            with pytest.raises(RtsrError, match="does not run"):
                await opening
            await stopping
            assert engine.lines == ()

    asyncio.run(run())
