"""Packets through bad networks: what is heard, when, and what is counted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network import heard, packets, sent, sound_of, speech

from rtsr.call.decoders import open_decoder
from rtsr.call.delay import DelayEstimator
from rtsr.call.formats import COMFORT_NOISE, G722, OPUS, PCMA, PCMU, TELEPHONE_EVENT, Packet
from rtsr.call.receiver import Origin, Receiver

FORMATS = {0: PCMU, 8: PCMA, 9: G722, 13: COMFORT_NOISE, 96: OPUS, 101: TELEPHONE_EVENT}
CODECS = pytest.mark.parametrize(
    ("form", "payload_type"), [(PCMU, 0), (PCMA, 8), (G722, 9), (OPUS, 96)]
)


def decoded(played):
    return [(now, chunk) for now, chunk in played if chunk.origin is Origin.DECODED]


def lags(played):
    """How far behind its place in the sound each chunk was played, in seconds."""
    lengths = [len(chunk.sound) / chunk.rate for _, chunk in played]
    starts = np.concatenate([[0.0], np.cumsum(lengths)[:-1]])
    return np.array([now for now, _ in played]) - starts


@CODECS
def test_plays_each_packet_the_moment_it_comes_where_nothing_holds_it_up(form, payload_type):
    arrivals = sent(packets(speech(form.sample_rate, 2.0), form, payload_type))
    played = decoded(heard(Receiver(FORMATS), arrivals))
    assert len(played) == len(arrivals)
    waits = [now - chunk.arrival for now, chunk in played]
    assert max(waits) < 1e-6


@pytest.mark.parametrize(("form", "payload_type", "least_db"), [(PCMU, 0, 30), (PCMA, 8, 30)])
def test_what_is_heard_is_what_was_said(form, payload_type, least_db):
    said = speech(8000, 2.0)
    got = sound_of(decoded(heard(Receiver(FORMATS), sent(packets(said, form, payload_type)))))
    error = got - said[: len(got)]
    assert 10 * np.log10(np.mean(said**2) / np.mean(error**2)) > least_db


@CODECS
@pytest.mark.parametrize("loss", [0.03, 0.10])
def test_fills_the_time_of_lost_packets_without_a_click(form, payload_type, loss):
    said = speech(form.sample_rate, 10.0)
    receiver = Receiver(FORMATS)
    arrivals = sent(packets(said, form, payload_type), loss=loss, seed=1)
    played = heard(receiver, arrivals, after=0.0)
    got = sound_of(played)
    duration = arrivals[-1][0] - arrivals[0][0]
    assert len(got) / form.sample_rate == pytest.approx(duration, abs=0.021)
    assert receiver.counts.lost == pytest.approx(500 * loss, abs=500 * loss * 0.5)
    assert receiver.counts.concealed_seconds == pytest.approx(0.02 * receiver.counts.lost, rel=0.1)
    # Opus itself may overshoot; a click would be a step that speech does not make.
    assert np.abs(np.diff(got)).max() <= 1.3 * np.abs(np.diff(said)).max()


@CODECS
def test_made_up_sound_resembles_what_was_lost(form, payload_type):
    stream = packets(vowel(form.sample_rate), form, payload_type)
    whole = sound_of(heard(Receiver(FORMATS), sent(stream), after=0.0))
    del stream[70]
    got = sound_of(heard(Receiver(FORMATS), sent_with_gap(stream, 70), after=0.0))
    size = form.sample_rate // 50
    lost = slice(70 * size, 71 * size)
    error = got[lost] - whole[lost]
    assert np.sqrt(np.mean(error**2) / np.mean(whole[lost] ** 2)) < 0.35


def vowel(rate):
    time = np.arange(3 * rate) / rate
    voice = 0.2 * sum(np.sin(2 * np.pi * 140 * k * time) / k for k in range(1, 12))
    return voice.astype(np.float32)


def test_what_opus_has_lost_its_own_decoder_makes_up():
    stream = packets(vowel(48000), OPUS, 96)
    decoder = open_decoder(OPUS)
    parts = [decoder.decode(packet.payload) for packet in stream[:70]]
    wanted = decoder.conceal(960)
    del stream[70]
    got = sound_of(heard(Receiver(FORMATS), sent_with_gap(stream, 70), after=0.0))
    assert np.array_equal(got[: 70 * 960], np.concatenate(parts)[:, 0])
    assert np.array_equal(got[70 * 960 : 71 * 960], wanted[:, 0])


def sent_with_gap(stream, index):
    return [(100.0 + 0.02 * (i + (i >= index)), packet) for i, packet in enumerate(stream)]


@pytest.mark.parametrize(("form", "payload_type"), [(PCMU, 0), (G722, 9)])
def test_made_up_sound_fades_to_silence_within_60_ms(form, payload_type):
    """That of codecs which make up nothing themselves."""
    rate = form.sample_rate
    loud = 0.3 * np.random.default_rng(0).standard_normal(rate).astype(np.float32)
    stream = sent(packets(np.clip(loud, -0.9, 0.9), form, payload_type))
    got = sound_of(heard(Receiver(FORMATS), stream, after=0.45))
    made_up = got[rate:]
    assert np.abs(made_up[: rate // 100]).max() > 0.1
    assert np.abs(made_up[6 * rate // 100 :]).max() < 1e-3


def test_waits_as_long_as_the_network_needs_and_no_longer():
    receiver = Receiver(FORMATS)
    stream = packets(speech(8000, 40.0))
    arrivals = sent(stream, jitter=lambda chance: 0.030 * chance.random(), loss=0.03)
    played = heard(receiver, arrivals)
    late = lags(played)[500:]
    assert 10.0 < receiver.wait_ms < 65.0
    assert receiver.counts.late <= 0.01 * len(stream)
    assert np.ptp(late) < 0.020  # no gap over 20 ms
    calm = sent(packets(speech(8000, 30.0)), start=arrivals[-1][0] + 0.02)
    calm = [(at, Packet(0, (p.sequence_number + 2000) % 2**16,
             (p.timestamp + 2000 * 160) % 2**32, p.payload, ssrc=7)) for at, p in calm]  # fmt: skip
    heard(receiver, calm)
    assert receiver.wait_ms < 20.0


@pytest.mark.parametrize("milliseconds", [10, 20])
def test_what_stands_for_a_lost_packet_comes_12_ms_late_at_most(milliseconds):
    # Noise, so that no pause is cut or stretched.
    sound = 0.1 * np.random.default_rng(0).standard_normal(8000 * 12).astype(np.float32)
    payload = b"".join(p.payload for p in packets(np.clip(sound, -0.9, 0.9)))
    size = 8 * milliseconds
    stream = [
        Packet(0, index, index * size, payload[index * size : (index + 1) * size], ssrc=7)
        for index in range(len(payload) // size)
    ]
    chance = np.random.default_rng(2)
    arrivals = [
        (100.0 + 0.001 * milliseconds * index, packet)
        for index, packet in enumerate(stream)
        if index < 5 or chance.random() > 0.05
    ]
    receiver = Receiver(FORMATS)
    played = heard(receiver, arrivals, after=0.0)
    assert receiver.counts.lost > 5
    # When each packet of 20 ms that leaves is whole.
    lengths = np.cumsum([len(chunk.sound) for _, chunk in played])
    times = np.array([now for now, _ in played])
    whole_at = times[np.searchsorted(lengths, np.arange(160, lengths[-1], 160))]
    assert np.diff(whole_at).max() < 0.0325


@pytest.mark.parametrize("drift", [5e-4, -5e-4])
def test_follows_a_clock_that_drifts(drift):
    receiver = Receiver(FORMATS)
    played = heard(receiver, sent(packets(speech(8000, 120.0)), drift=drift), after=0.0)
    assert receiver.counts.late == receiver.counts.lost == 0
    assert receiver.wait_ms < 22.0
    assert np.ptp(lags(played)) < 0.030  # 60 ms, were it not followed


def test_a_route_that_becomes_longer_costs_no_packet_for_long():
    stream = packets(speech(8000, 20.0))
    arrivals = [(at + (0.15 if i > 400 else 0.0), p) for i, (at, p) in enumerate(sent(stream))]
    receiver = Receiver(FORMATS)
    played = heard(receiver, arrivals)
    counts = receiver.counts
    assert counts.late < 20
    assert receiver.wait_ms < 20.0  # the new route is what counts now
    # What was inserted and not removed is by how much longer the sound is on its way.
    now, last = decoded(played)[-1]
    longer = 0.15 + now - last.arrival
    assert counts.inserted_seconds - counts.removed_seconds == pytest.approx(longer, abs=0.002)


@pytest.mark.parametrize("late", [0.05, 0.1, 0.3])
def test_a_packet_that_comes_late_is_lost_once(late):
    stream = sent(packets(speech(8000, 6.0)))
    arrivals = [(at + (late if index == 150 else 0.0), p) for index, (at, p) in enumerate(stream)]
    receiver = Receiver(FORMATS)
    heard(receiver, sorted(arrivals, key=lambda arrival: arrival[0]))
    assert (receiver.counts.late, receiver.counts.lost) == (1, 1)


@pytest.mark.parametrize(
    ("every", "still"),
    [(1.0, 0.1), (0.5, 0.03), (0.02, 0.001), (0.02, 0.02), (5.0, 0.35)],
    ids=str,
)
def test_a_sender_that_stands_still_now_and_then_is_heard_whole(every, still):
    stream = packets(speech(8000, 12.0))
    arrivals = [
        (at + still * int(0.02 * index / every + 1e-9), packet)
        for index, (at, packet) in enumerate(sent(stream))
    ]
    stood = arrivals[-1][0] - arrivals[0][0] - 0.02 * (len(stream) - 1)
    receiver = Receiver(FORMATS)
    played = decoded(heard(receiver, arrivals, after=0.1))
    counts = receiver.counts
    assert (counts.late, counts.lost, len(played)) == (0, 0, len(stream))
    # At the end, when nothing comes any more, sound is made up, too.
    assert counts.concealed_seconds <= stood + 0.15
    # Nothing that was said is cut out, and all of it is played soon.
    assert sum(len(chunk.sound) for _, chunk in played) >= 0.98 * 8000 * 12.0
    assert max(now - chunk.arrival for now, chunk in played) < 0.05


def test_five_packets_in_a_row_that_come_late_show_that_the_time_is_wrong():
    stream = sent(packets(noise(12.0)))
    # The clock of the sender goes back by 0.3 s: to times at which other sound has been played.
    back = [
        (at, Packet(0, p.sequence_number, (p.timestamp - 2400) % 2**32, p.payload, ssrc=7))
        for at, p in stream[400:]
    ]
    receiver = Receiver(FORMATS)
    played = decoded(heard(receiver, stream[:400] + back))
    # They were never heard, and none that came behind them is late.
    assert (receiver.counts.late, receiver.counts.lost, len(played)) == (5, 5, len(stream) - 5)


def noise(seconds):
    """Sound without a pause."""
    sound = 0.1 * np.random.default_rng(0).standard_normal(round(8000 * seconds))
    return np.clip(sound, -0.9, 0.9).astype(np.float32)


def test_a_wait_that_is_much_too_long_is_shortened_also_where_nobody_pauses():
    chance = np.random.default_rng(1)
    arrivals = [
        (at + (0.2 * chance.random() if index < 400 else 0.0), packet)
        for index, (at, packet) in enumerate(sent(packets(noise(28.0))))
    ]
    arrivals.sort(key=lambda arrival: arrival[0])
    receiver = Receiver(FORMATS)
    heard(receiver, arrivals[:400])
    assert receiver.wait_ms > 150.0
    assert receiver.counts.removed_seconds == 0.0
    played = decoded(heard(receiver, arrivals[400:]))
    # By a period of a voice at a time, until it is no longer wrong by so much.
    cuts = np.array([0.02 - len(chunk.sound) / 8000 for _, chunk in played])
    cuts = cuts[cuts > 1e-9]
    assert len(cuts) >= 10
    assert cuts.max() <= 0.01
    assert 50.0 < receiver.wait_ms < 65.0


def test_no_wait_is_so_long_that_nobody_could_converse():
    estimator = DelayEstimator()
    chance = np.random.default_rng(0)
    for index in range(1000):
        estimator.observe(0.02 * index, 0.02 * index + 3.0 * chance.random())
    assert estimator.target == 0.4


def held_up(stream, begins, lasts, every=1e9, from_second=3.0):
    """Arrivals of packets; what falls into a stall comes at its end, at once."""
    arrivals = []
    for index, packet in enumerate(stream):
        second = 0.02 * index
        into = (second - begins) % every if second >= from_second else -1.0
        waits = lasts - into if 0.0 <= into < lasts - 1e-9 else 0.0
        arrivals.append((100.0 + second + waits, packet))
    return arrivals


@pytest.mark.parametrize(("still", "milliseconds"), [(0.9, 2.5), (3.0, 10), (3.0, 20)])
def test_what_comes_behind_a_long_stall_is_heard(still, milliseconds):
    # Shorter packets fill the queue sooner.
    size = round(8 * milliseconds)
    payload = b"".join(packet.payload for packet in packets(speech(8000, still + 6.0)))
    arrivals = []
    for index in range(len(payload) // size):
        second = 0.001 * milliseconds * index
        part = payload[index * size : (index + 1) * size]
        waits = 2.0 + still - second if 2.0 <= second < 2.0 + still else 0.0
        arrivals.append((100.0 + second + waits, Packet(0, index, index * size, part, ssrc=7)))
    receiver = Receiver(FORMATS)
    played = decoded(heard(receiver, arrivals, after=0.6))
    behind = sum(len(c.sound) for _, c in played if c.arrival > 102.5 + still) / 8000
    assert behind >= 0.95 * 3.5
    # What is left of the stall is as long as the longest wait, or the queue; the rest is lost.
    left = min(0.4, 0.128 * milliseconds)
    assert receiver.counts.lost * milliseconds / 1000 == pytest.approx(still - left, abs=0.03)
    assert receiver.counts.lost + len(played) == len(arrivals)
    assert max(now - c.arrival for now, c in played) < 0.415


def test_a_bridge_that_stood_still_itself_goes_on_with_the_newest():
    stream = sent(packets(speech(8000, 9.0)))
    receiver = Receiver(FORMATS)
    heard(receiver, stream[:100])
    # Nobody asked for anything meanwhile, and its sockets kept everything.
    back = stream[300][0]
    for _, packet in stream[100:300]:
        receiver.receive(packet, back - 0.001)
    played = decoded(heard(receiver, stream[300:], after=0.5))
    counts = receiver.counts
    assert sum(len(c.sound) for _, c in played if c.arrival >= back) >= 0.95 * 8000 * 3.0
    assert counts.lost >= 170
    assert counts.late == 0
    assert max(now - c.arrival for now, c in played) < 0.415


@pytest.mark.parametrize(("every", "still"), [(1.0, 0.45), (4.0, 2.0)])
def test_stalls_do_not_add_up(every, still):
    stream = packets(speech(8000, 15.0))
    receiver = Receiver(FORMATS)
    played = decoded(heard(receiver, held_up(stream, 3.0, still, every)))
    stalls = 12.0 / every
    assert max(now - c.arrival for now, c in played) < 0.415
    share = 1.0 - stalls * max(0.0, still - 0.38) / 15.0
    assert sum(len(c.sound) for _, c in played) >= 0.95 * share * 8000 * 15.0
    assert receiver.wait_ms < 415.0


def test_a_sender_that_stops_its_clock_in_a_pause_is_heard_whole():
    stream = sent(packets(speech(8000, 6.0)))
    later = [(at + 5.0, packet) for at, packet in stream[150:]]
    receiver = Receiver(FORMATS)
    played = decoded(heard(receiver, stream[:150] + later))
    assert (receiver.counts.late, receiver.counts.lost, len(played)) == (0, 0, len(stream))
    assert max(now - c.arrival for now, c in played) < 0.01


def test_order_and_doubles_do_not_matter():
    stream = packets(speech(8000, 4.0))
    straight = sound_of(heard(Receiver(FORMATS), sent(stream), after=0.0))
    mixed = sent(stream, doubled=0.3)
    swapped = [(at + (0.023 if i % 10 == 3 else 0.0), p) for i, (at, p) in enumerate(mixed)]
    swapped.sort(key=lambda arrival: arrival[0])
    receiver = Receiver(FORMATS)
    got = sound_of(heard(receiver, swapped, after=0.2))
    assert receiver.duplicates > 20
    assert receiver.counts.lost <= 3
    assert len(got) >= len(straight) - 160


def test_a_change_of_codec_in_mid_call_leaves_no_gap():
    seconds, per = 3.0, 150
    first = packets(speech(8000, seconds))
    second = packets(speech(16000, seconds), G722, 9, first_number=65530 + per,
                     first_time=2**32 - 1600 + per * 160)  # fmt: skip
    third = packets(speech(48000, seconds), OPUS, 96, first_number=65530 + 2 * per, first_time=5)
    receiver = Receiver(FORMATS)
    played = heard(receiver, sent(first + second + third), after=0.0)
    assert receiver.counts.format_changes == 2
    assert receiver.counts.lost == receiver.counts.late == 0
    rates = [chunk.rate for _, chunk in played if chunk.origin is Origin.DECODED]
    assert rates == [8000] * per + [16000] * per + [48000] * per
    tails = [chunk for _, chunk in played if chunk.origin is Origin.TAIL]
    assert [(chunk.rate, len(chunk.sound)) for chunk in tails] == [(8000, 80), (16000, 160)]


def test_the_far_end_falls_silent_and_speaks_again():
    stream = sent(packets(speech(8000, 2.0)))
    noise = Packet(13, 200, 32000, bytes([60]), ssrc=7)
    first, rest = stream[:50], [(at + 2.0, p) for at, p in stream[50:]]
    receiver = Receiver(FORMATS)
    number, time = first[-1][1].sequence_number, first[-1][1].timestamp
    described = (first[-1][0] + 0.02, Packet(13, (number + 1) % 2**16, (time + 160) % 2**32,
                 noise.payload, ssrc=7))  # fmt: skip
    rest = [(at, Packet(0, (p.sequence_number + 1) % 2**16, (p.timestamp + 16000) % 2**32,
             p.payload, ssrc=7)) for at, p in rest]  # fmt: skip
    played = heard(receiver, [*first, described, *rest], after=0.0)
    comfort = np.concatenate([c.sound for _, c in played if c.origin is Origin.COMFORT])
    assert len(comfort) / 8000 == pytest.approx(2.0, abs=0.05)
    level = 20 * np.log10(np.sqrt(np.mean(comfort[2000:] ** 2)))
    assert level == pytest.approx(-60.0, abs=1.0)
    assert receiver.counts.lost == 0
    assert receiver.counts.concealed_seconds < 0.03


def test_a_long_pause_ends_the_sound_and_the_next_packet_says_for_how_long():
    stream = sent(packets(speech(8000, 2.0)))
    later = [(at + 3.0, Packet(0, p.sequence_number, (p.timestamp + 24000) % 2**32, p.payload,
              ssrc=7)) for at, p in stream[50:]]  # fmt: skip
    played = heard(Receiver(FORMATS), stream[:50] + later, after=0.0)
    pauses = [chunk.pause for _, chunk in played if chunk.pause]
    assert pauses == [pytest.approx(3.02 - 0.5, abs=0.03)]


def test_keys_that_were_pressed_are_passed_on_and_are_no_loss():
    stream = sent(packets(speech(8000, 2.0)))
    number, time = stream[49][1].sequence_number, stream[49][1].timestamp + 160
    keys = [
        (stream[49][0] + 0.02 * (i + 1), Packet(101, (number + 1 + i) % 2**16, time % 2**32,
         bytes([5, 10, i, 0]), marker=i == 0, ssrc=7))
        for i in range(5)
    ]  # fmt: skip
    rest = [(at + 0.1, Packet(0, (p.sequence_number + 5) % 2**16, (p.timestamp + 800) % 2**32,
             p.payload, ssrc=7)) for at, p in stream[50:]]  # fmt: skip
    receiver = Receiver(FORMATS)
    heard(receiver, stream[:50] + keys + rest)
    assert [packet.payload[0] for packet in receiver.events] == [5] * 5
    assert receiver.counts.lost == receiver.counts.late == 0


@pytest.mark.parametrize("seconds", [0.3, 0.6, 3.0])
def test_a_key_that_is_held_costs_no_sound_behind_it(seconds):
    stream = sent(packets(speech(8000, 3.0)))
    count = round(seconds / 0.02)
    last_at, last = stream[49]
    keys = [
        (last_at + 0.02 * (i + 1), Packet(101, (last.sequence_number + 1 + i) % 2**16,
         (last.timestamp + 160) % 2**32, bytes([5, 10]) + (160 * (i + 1)).to_bytes(2, "big"),
         marker=i == 0, ssrc=7))
        for i in range(count)
    ]  # fmt: skip
    rest = [(at + seconds, Packet(0, (p.sequence_number + count) % 2**16,
             (p.timestamp + 160 * count) % 2**32, p.payload, ssrc=7))
            for at, p in stream[50:]]  # fmt: skip
    receiver = Receiver(FORMATS)
    played = heard(receiver, stream[:50] + keys + rest)
    decoded = [chunk for _, chunk in played if chunk.origin is Origin.DECODED]
    assert sum(len(chunk.sound) for chunk in decoded) == 8000 * 3
    assert receiver.counts.late == receiver.counts.inserted_seconds == 0


@pytest.mark.parametrize(
    ("payload_type", "payload"),
    [
        (0, bytes(8 * 5000)),
        (9, bytes(8 * 5000)),
        (96, b"\xff\xff"),
        (96, b""),
        (0, b""),
        (77, b"1"),
    ],
    ids=["PCMU of 5 s", "G722 of 5 s", "no Opus", "empty Opus", "empty PCMU", "unknown type"],
)
def test_a_packet_that_cannot_be_is_counted_and_not_played(payload_type, payload):
    receiver = Receiver(FORMATS)
    stream = sent(packets(speech(8000, 1.0)))
    number = stream[-1][1].sequence_number
    bad = (stream[-1][0] + 0.01, Packet(payload_type, (number + 1) % 2**16, 9, payload, ssrc=7))
    played = heard(receiver, [*stream, bad], after=0.0)
    assert receiver.counts.malformed == 1
    assert len(decoded(played)) == 50


@pytest.mark.parametrize("ticks", [10**6, -(10**6), 2**31 - 1, 4000])
def test_timestamps_that_jump_are_played_on_without_a_hole(ticks):
    stream = sent(packets(speech(8000, 2.0)))
    jumped = [(at, Packet(0, p.sequence_number, (p.timestamp + ticks) % 2**32, p.payload, ssrc=7))
              for at, p in stream[50:]]  # fmt: skip
    receiver = Receiver(FORMATS)
    played = heard(receiver, stream[:50] + jumped, after=0.0)
    assert len(decoded(played)) >= 94
    assert np.ptp(lags(played)) < 0.55


def test_another_sender_takes_over():
    first = sent(packets(speech(8000, 1.0)))
    second = sent(packets(speech(8000, 1.0), ssrc=9, first_number=3, first_time=11), start=101.0)
    receiver = Receiver(FORMATS)
    played = heard(receiver, first + second, after=0.0)
    assert len(decoded(played)) == 100
    assert receiver.counts.lost == 0


PACKETS = st.builds(
    Packet,
    payload_type=st.sampled_from([0, 8, 9, 13, 96, 101, 55]),
    sequence_number=st.integers(0, 65535),
    timestamp=st.integers(0, 2**32 - 1),
    payload=st.binary(max_size=400),
    marker=st.booleans(),
    ssrc=st.integers(0, 2),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 200), PACKETS), max_size=40), st.sampled_from([1, 2]))
def test_nothing_that_a_peer_sends_raises_or_runs_away(steps, channels):
    receiver = Receiver(FORMATS, channels)
    now, total = 10.0, 0.0
    for wait, packet in steps:
        now += wait / 1000.0
        receiver.receive(packet, now)
        for chunk in receiver.poll(now):
            assert np.isfinite(chunk.sound).all()
            assert chunk.sound.shape[1] == channels
            assert np.abs(chunk.sound).max(initial=0.0) <= 2.0
            total += len(chunk.sound) / chunk.rate
    longest = 0.12 * len(steps) + (now - 10.0) + 1.0
    assert total <= longest
