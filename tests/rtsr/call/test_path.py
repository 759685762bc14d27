"""A call from packet to packet: delay by click, codecs that change, loads that are too much."""

from __future__ import annotations

import os
import sys
import time

import numpy as np
import pytest
from network import TICK, packets, sent, speech
from scipy.signal import resample_poly

from rtsr.call.band_controls import NAMES
from rtsr.call.call_stream import CallStream
from rtsr.call.decoders import open_decoder
from rtsr.call.dry_path import DELAY_SAMPLES, RESAMPLING_SAMPLES, DryPath
from rtsr.call.formats import G722, OPUS, PCMU, TELEPHONE_EVENT, Packet
from rtsr.call.keys import KeyReader
from rtsr.call.path import DEADLINE, MediaPath
from rtsr.call.receiver import Chunk, Origin, Receiver
from rtsr.call.sender import Sender

FORMATS = {0: PCMU, 9: G722, 96: OPUS, 101: TELEPHONE_EVENT}


class Ear:
    """Takes the place of a sender and keeps the sound as it is."""

    sent = waiting = excess = 0
    format = OPUS

    def __init__(self):
        self.parts, self.pauses = [], []

    def push(self, sound):
        self.parts.append(sound)
        return []

    def pause(self, seconds):
        self.pauses.append(seconds)

    def close(self):
        pass

    @property
    def sound(self):
        return np.concatenate(self.parts)[:, 0]


def call(path, arrivals, batch=None, after=0.0, stalls=()):
    """Run a call; the batch steps at once but in the stalls, spans of time in seconds."""
    waiting = list(arrivals)
    now, end = waiting[0][0], waiting[-1][0] + after + TICK
    while now < end:
        while waiting and waiting[0][0] <= now:
            path.receive(waiting.pop(0)[1], now)
        path.advance(now)
        if batch is not None and not any(start <= now < stop for start, stop in stalls):
            while batch.step():
                pass
            path.deliver(now)
        now += TICK


def listen(batch, arrivals, channels=1, **options):
    ear = Ear()
    path = MediaPath(Receiver(FORMATS, channels), CallStream(batch, channels=channels), ear, print)
    call(path, arrivals, batch, **options)
    path.close()
    return ear.sound, path


def band_db(sound, low, high, rate=48000):
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)))) ** 2
    frequency = np.fft.rfftfreq(len(sound), 1 / rate)
    return 10 * np.log10(spectrum[(frequency >= low) & (frequency < high)].sum() + 1e-12)


@pytest.mark.parametrize("enhanced", [True, False], ids=["enhanced", "dry"])
def test_a_click_takes_185_samples_at_8_khz(batch, enhanced):
    assert DELAY_SAMPLES == 185
    sound = np.zeros(16000, np.float32)
    sound[8000] = 0.9
    got, _ = listen(batch if enhanced else None, sent(packets(sound)))
    click = np.zeros(97)
    click[48] = 1.0
    at = int(np.argmax(np.correlate(got, lowpass(click), "same")))
    assert at - 48000 == 185
    assert len(got) == 96000


def lowpass(click):
    spectrum = np.fft.rfft(click, 4096)
    spectrum[int(3500 / 48000 * 4096) :] = 0
    return np.fft.irfft(spectrum, 4096)[:97]


def test_the_new_band_is_there_and_the_low_band_is_what_came(batch):
    arrivals = sent(packets(speech(8000, 3.0)))
    wide, path = listen(batch, arrivals)
    dry, _ = listen(None, arrivals)
    assert band_db(wide, 4500, 8000) > band_db(dry, 4500, 8000) + 20
    assert abs(band_db(wide, 100, 3200) - band_db(dry, 100, 3200)) < 0.1
    assert path.stream.fallback_seconds == 0.0
    assert path.missed == 0


@pytest.mark.parametrize(("form", "size"), [(OPUS, 960), (PCMU, 160)])
@pytest.mark.parametrize("quiet", [True, False], ids=["pauses", "no pause"])
def test_half_a_packet_waits_for_another_only_until_the_next_pause(form, size, quiet):
    words = speech(8000, 6.0)
    if quiet:
        words[8000:16000] *= 1e-3
    else:
        words += 0.02 * np.random.default_rng(0).standard_normal(len(words)).astype(np.float32)
    # The first packet has half of the usual sound, as after a wait that grew by a hop.
    stream = packets(words[80:])
    first, payload = stream[0], packets(words[:160])[0].payload[:80]
    half = Packet(0, first.sequence_number - 1, first.timestamp - 80, payload, ssrc=7)
    arrivals = [(99.99, half), *sent(stream)]
    out, sender = [], Sender(form, 96)
    path = MediaPath(Receiver(FORMATS), CallStream(None), sender, out.append)
    waits = []
    for now, packet in arrivals:
        path.receive(packet, now)
        waits.append(sender.waiting)
    assert set(waits[10:40]) == {size // 2}
    assert set(waits[110:]) == {0 if quiet else size // 2}
    # All packets are whole and in order, a packet for each that came.
    assert np.all(
        np.diff([each.timestamp for each in out]) % 2**32 == (960 if form is OPUS else 160)
    )
    assert len(out) == len(stream)


def test_packets_of_one_hop_wait_for_each_other_and_nothing_is_cut():
    stream = packets(np.zeros(8000, np.float32))
    hops = [
        Packet(0, 2 * i + part, 160 * i + 80 * part, packet.payload[80 * part :][:80], ssrc=7)
        for i, packet in enumerate(stream)
        for part in (0, 1)
    ]
    out = []
    path = MediaPath(Receiver(FORMATS), CallStream(None), Sender(OPUS, 96), out.append)
    for index, packet in enumerate(hops):
        path.receive(packet, 100 + 0.01 * index)
    assert len(out) == len(stream)


def test_two_channels_stay_two(batch):
    left = speech(48000, 1.0)
    from rtsr.call.encoders import open_encoder

    encoder = open_encoder(OPUS, 2, 96_000)
    stereo = np.stack([left, 0 * left], axis=1)
    stream = [
        (100 + 0.02 * i, Packet(96, i, 960 * i, encoder.encode(stereo[960 * i : 960 * (i + 1)])))
        for i in range(50)
    ]
    ear = Ear()
    path = MediaPath(Receiver(FORMATS, 2), CallStream(batch, 48000, 2), ear, print)
    call(path, stream, batch)
    path.close()
    got = np.concatenate(ear.parts)
    assert got.shape == (48000, 2)
    assert np.abs(got[:, 0]).max() > 10 * np.abs(got[:, 1]).max()


def test_codecs_change_in_mid_call_without_a_gap_or_a_click(batch):
    per = 100
    first = packets(speech(8000, 2.0))
    second = packets(speech(16000, 2.0), G722, 9, first_number=65530 + per,
                     first_time=2**32 - 1600 + per * 160)  # fmt: skip
    third = packets(speech(48000, 2.0), OPUS, 96, first_number=65530 + 2 * per, first_time=5)
    free = batch.free
    got, path = listen(batch, sent(first + second + third))
    assert len(got) == 6 * 48000
    assert batch.free == free
    assert path.stream.fallback_seconds < 0.05
    usual = np.abs(np.diff(got)).max()
    for seam in (2 * 48000, 4 * 48000):
        assert np.abs(np.diff(got[seam - 480 : seam + 1440])).max() < 0.5 * usual
    # G.722 ends at 7 kHz, and the new band begins there.
    assert band_db(got[3 * 48000 : 4 * 48000], 8500, 12000) > band_db(
        speech(48000, 1.0), 8500, 12000
    )


@pytest.mark.parametrize("order", [(8000, 16000, 8000, 48000, 8000), (48000, 8000, 16000, 48000)])
def test_sound_stays_equally_late_through_changes_of_rate(order):
    path, out, clicks, pushed = DryPath(1), [], [], 0
    for rate in order:
        for packet in range(5):
            sound = np.zeros((rate // 50, 1), np.float32)
            if packet == 2:
                sound[0] = 1.0
                clicks.append(pushed)
            out.append(path.process(Chunk(sound, rate, None, Origin.DECODED)))
            pushed += 960
    heard = np.abs(np.concatenate(out)[:, 0])
    for click in clicks:
        assert np.argmax(heard[click : click + 960]) == RESAMPLING_SAMPLES


@pytest.mark.parametrize(("rate", "minutes"), [(11025, 2), (16000, 2), (22050, 2), (44100, 60)])
def test_sound_in_blocks_of_any_length_is_no_later_at_its_end(rate, minutes):
    stream = CallStream(None)
    chance = np.random.default_rng(rate)
    silence = np.zeros((rate // 2, 1), np.float32)
    came = left = 0
    while came < 60 * minutes * rate:
        block = silence[: chance.integers(1, len(silence))]
        stream.push(Chunk(block, rate, None, Origin.DECODED))
        came += len(block)
        left += len(stream.take())
    assert left == came * 48000 // rate
    assert stream.waiting == 0
    # What is kept is the sound that the new band comes later by.
    assert stream._dry.end - stream._dry.start <= DELAY_SAMPLES


def test_a_block_that_a_batch_has_no_room_for_goes_out_dry_and_in_time(batch):
    stream = CallStream(batch)
    try:
        stream.push(Chunk(np.zeros((8000, 1), np.float32), 8000, None, Origin.DECODED))
        assert len(stream.take(everything=True)) == 48000
        assert stream.waiting == 0
    finally:
        stream.close()


def test_sound_stays_equally_late_where_a_new_rate_begins_with_single_samples():
    path, out, click = DryPath(1), [], np.zeros((160, 1), np.float32)
    click[0] = 1.0
    out += [path.process(Chunk(np.zeros((960, 1), np.float32), 48000, None, Origin.DECODED))]
    for _ in range(20):
        out += [path.process(Chunk(np.zeros((1, 1), np.float32), 8000, None, Origin.DECODED))]
    out += [path.process(Chunk(click, 8000, None, Origin.DECODED))]
    assert path.worth == 960 + 120 + 960
    heard = np.abs(np.concatenate(out)[:, 0])
    assert np.argmax(heard) == 960 + 120 + RESAMPLING_SAMPLES


# Where the sound becomes narrower the network takes a hop to believe it.
@pytest.mark.parametrize(("wide_first", "dip_db"), [(False, 10.0), (True, 25.0)])
def test_the_new_band_goes_on_where_the_codec_changes(batch, wide_first, dip_db):
    noise = 0.05 * np.random.default_rng(0).standard_normal(32000)
    wide = noise.astype(np.float32)
    narrow = resample_poly(noise, 1, 2).astype(np.float32)
    first = packets(narrow[:8000])
    second = packets(wide[16000:], G722, 9, first_number=65530 + 50,
                     first_time=2**32 - 1600 + 50 * 160)  # fmt: skip
    if wide_first:
        first = packets(wide[:16000], G722, 9)
        second = packets(narrow[8000:], first_number=65530 + 50,
                         first_time=2**32 - 1600 + 50 * 160)  # fmt: skip
    got, _ = listen(batch, sent(first + second))
    frames = got[: len(got) // 240 * 240].reshape(-1, 240)
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(240), axis=1)))
    # Above both codecs, from 9 kHz, every 5 ms; where the change is, and well before and after.
    level = 10 * np.log10(power[:, 45:].sum(axis=1) + 1e-20)
    usual = min(np.median(level[120:190]), np.median(level[260:]))
    assert level[198:215].min() > usual - dip_db


@pytest.mark.parametrize("leaves", [False, True])
def test_a_place_that_comes_or_goes_within_a_call_leaves_no_seam(batch, leaves):
    arrivals = sent(packets(speech(8000, 4.0)))
    dry, ear = Ear(), Ear()
    call(MediaPath(Receiver(FORMATS), CallStream(None), dry, print), arrivals, batch)
    stream = CallStream(batch if leaves else None)
    path = MediaPath(Receiver(FORMATS), stream, ear, print)
    call(path, arrivals[:100], batch)
    if leaves:
        stream.leave()
        assert batch.free == batch.capacity
    else:
        stream.join(CallStream(batch))
    call(path, arrivals[100:], batch)
    path.close()
    count = min(len(dry.sound), len(ear.sound))
    band = ear.sound[:count] - dry.sound[:count]
    turn = 2 * 48000
    quiet, loud = (band[turn + 960 :], band[:turn]) if leaves else (band[:turn], band[turn + 960 :])
    assert np.abs(quiet).max() < 1e-6
    # What is added begins or ends within 20 ms, lies above the telephone's band, and is in time.
    assert band_db(loud, 4500, 8000) > band_db(loud, 200, 3000) + 20.0
    around = band[turn - 2400 : turn + 2400]
    assert (
        band_db(around, 200, 3000) < band_db(dry.sound[turn - 2400 : turn + 2400], 200, 3000) - 30
    )


@pytest.mark.parametrize(
    ("form", "payload_type", "from_hz"), [(PCMU, 0, 4500), (G722, 9, 8500)], ids=["PCMU", "G722"]
)
def test_after_loss_the_new_band_does_not_burst(batch, make_sound, form, payload_type, from_hz):
    # The packaged voice has nothing of what G.722 carries above 4 kHz.
    said = speech(8000, 6.0) if form is PCMU else make_sound(form.sample_rate, 6.0)[:, 0]
    stream = packets(said, form, payload_type)
    whole, _ = listen(batch, sent(stream))
    lossy, path = listen(batch, sent(stream, loss=0.1, seed=2))
    assert path.receiver.counts.lost > 15
    length = min(len(whole), len(lossy)) // 960 * 960

    def loudest(sound):
        spectrum = np.fft.rfft(sound[:length])
        spectrum[: int(from_hz / 48000 * length)] = 0
        band = np.fft.irfft(spectrum, length).reshape(-1, 480)
        return np.sqrt((band**2).mean(axis=1)).max()

    assert loudest(lossy) < 2.0 * loudest(whole)


def test_a_batch_that_stands_still_is_heard_as_the_dry_sound(batch):
    arrivals = sent(packets(speech(8000, 4.0)))
    got, path = listen(batch, arrivals, stalls=[(101.0, 101.1)], after=0.05)
    dry, _ = listen(None, arrivals, after=0.05)
    assert path.missed > 0
    assert 0.02 < path.stream.fallback_seconds < 0.4
    assert len(got) == pytest.approx(len(dry), abs=480)
    length = min(len(got), len(dry))
    assert band_db((got - dry)[:length], 100, 3000) < band_db(dry, 100, 3000) - 30
    assert band_db(got[3 * 48000 :], 4500, 8000) > band_db(dry[3 * 48000 :], 4500, 8000) + 20


def test_a_call_that_is_late_again_and_again_is_left_out_and_comes_back(batch):
    stalls = [(101.0 + 0.2 * i, 101.1 + 0.2 * i) for i in range(6)]
    got, path = listen(batch, sent(packets(speech(8000, 12.0))), stalls=stalls)
    assert path.sheds == 1
    assert not path.stream.left_out
    assert path.stream.fallback_seconds == pytest.approx(5.4, abs=0.8)
    dry, _ = listen(None, sent(packets(speech(8000, 12.0))))
    length = min(len(got), len(dry))
    assert band_db((got - dry)[:length], 100, 3000) < band_db(dry, 100, 3000) - 30
    assert band_db(got[10 * 48000 :], 4500, 8000) > band_db(dry[10 * 48000 :], 4500, 8000) + 20


class Overloaded:
    """A call whose batch has sound waiting and never steps, and the clock that it is asked by."""

    def __init__(self, batch):
        self.path = MediaPath(Receiver(FORMATS), CallStream(batch), Ear(), print)
        self.now = 100.0

    def miss(self, after):
        """Let another deadline pass, so many seconds behind the last one."""
        sound = np.zeros((160, 1), np.float32)
        while self.path.stream._batch.step():
            pass
        self.path.stream.take()
        self.path.stream.push(Chunk(sound, 8000, None, Origin.DECODED))
        self.now += after
        self.path._pushed.append((self.path.stream.pushed, self.now - DEADLINE - 0.001))
        self.path.deliver(self.now)

    def rest(self):
        """Seconds for which the call is left out from now on."""
        assert self.path.stream.left_out
        began = self.now
        while self.path.stream.left_out:
            self.now += 0.5
            self.path.deliver(self.now)
        return self.now - began


def test_deadlines_that_one_stall_misses_are_one_miss(batch):
    call_ = Overloaded(batch)
    for _ in range(5):
        # Four within two seconds are too many; these are three.
        for after in (0.7, 0.04, 0.04):
            call_.miss(after)
    assert (call_.path.missed, call_.path.sheds) == (15, 0)
    call_.now += 2.0
    for _ in range(4):
        assert call_.path.sheds == 0
        call_.miss(0.3)
    assert call_.path.sheds == 1
    call_.path.close()


def test_a_call_whose_batch_misses_every_deadline_is_left_out_soon(batch):
    call_ = Overloaded(batch)
    while not call_.path.sheds and call_.now < 101.0:
        call_.miss(0.02)
    assert 100.2 < call_.now < 100.5
    call_.path.close()


def test_a_call_that_is_late_when_it_comes_back_rests_for_longer_and_longer(batch):
    call_ = Overloaded(batch)

    def rest():
        for _ in range(4):
            call_.miss(0.2)
        return call_.rest()

    assert [rest() for _ in range(6)] == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]
    # Who kept up for as long as it had rested begins anew.
    call_.now += 61.0
    assert [rest(), rest()] == [5.0, 10.0]
    call_.path.close()


def test_bypass_and_wet_turn_without_a_click(batch):
    ear = Ear()
    path = MediaPath(Receiver(FORMATS), CallStream(batch), ear, print)
    arrivals = sent(packets(speech(8000, 4.0)))
    call(path, arrivals[:100], batch)
    path.stream.controls.set("bypass", 1)
    call(path, arrivals[100:], batch)
    path.close()
    dry, _ = listen(None, arrivals)
    got = ear.sound
    assert np.array_equal(got[2 * 48000 + 1440 :], dry[2 * 48000 + 1440 : len(got)])
    assert path.stream.fallback_seconds == 0.0


KNOBS = {
    "wet": 0.3, "level_db": -9.0, "tilt_db": -4.0, "ceiling_hz": 9000.0, "gate_dbfs": -30.0,
    "bypass": 1.0, "seed": 7.0,
}  # fmt: skip


def test_every_knob_of_a_call_changes_what_is_heard(batch):
    assert set(KNOBS) == set(NAMES)
    # Quiet enough for the gate.
    arrivals = sent(packets(0.02 * speech(8000, 1.5)))

    def heard(name=None):
        ear = Ear()
        path = MediaPath(Receiver(FORMATS), CallStream(batch), ear, print)
        if name is not None:
            path.stream.controls.set(name, KNOBS[name])
        call(path, arrivals, batch)
        path.close()
        return ear.sound

    plain = heard()
    for name in NAMES:
        assert np.abs(heard(name) - plain).max() > 1e-5, name


def test_another_seed_is_another_texture_of_the_same_level(batch):
    arrivals = sent(packets(speech(8000, 4.0)))

    def heard(seed):
        ear = Ear()
        path = MediaPath(Receiver(FORMATS), CallStream(batch), ear, print)
        call(path, arrivals[:100], batch)
        path.stream.controls.set("seed", seed)
        call(path, arrivals[100:], batch)
        path.close()
        return ear.sound

    before, after = heard(0), heard(7)
    assert np.array_equal(before[:94000], after[:94000])
    turned = slice(100_000, None)
    assert np.abs(before - after)[turned].max() > 1e-3
    levels = [band_db(sound[turned], 4500, 8000) for sound in (before, after)]
    assert levels[0] == pytest.approx(levels[1], abs=1.0)


@pytest.mark.parametrize(("form", "payload_type"), [(PCMU, 0), (G722, 9), (OPUS, 111)])
def test_packets_go_out_in_order_and_as_the_codec_has_them(batch, form, payload_type):
    out = []
    sender = Sender(form, payload_type, event_type=101, event_rate=form.clock_rate)
    path = MediaPath(Receiver(FORMATS), CallStream(batch), sender, out.append)
    call(path, sent(packets(speech(8000, 2.0))), batch)
    path.close()
    assert len(out) == 100
    numbers = np.diff([p.sequence_number for p in out]) % 2**16
    times = np.diff([p.timestamp for p in out]) % 2**32
    assert set(numbers) == {1}
    assert set(times) == {form.clock_rate // 50}
    assert [p.marker for p in out] == [True] + [False] * 99
    assert {p.payload_type for p in out} == {payload_type}
    decoder = open_decoder(form)
    sound = np.concatenate([decoder.decode(p.payload) for p in out])
    assert len(sound) == 2 * form.sample_rate
    assert np.abs(sound).max() > 0.1


def presses(events):
    """Of each press that a far end sees: key, whether it is marked, its length, its end."""
    found, segment, before = [], None, 0
    for packet in events:
        key, duration = packet.payload[0], int.from_bytes(packet.payload[2:], "big")
        if packet.timestamp != segment:
            follows = segment is not None and (packet.timestamp - segment) % 2**32 == 0xFFFF
            if follows and found[-1][0] == key and not found[-1][3] and not packet.marker:
                before += 0xFFFF
                assert found[-1][2] == before
            else:
                found.append([key, packet.marker, 0, False])
                before = 0
        segment = packet.timestamp
        assert found[-1][0] == key
        found[-1][2:] = before + duration, bool(packet.payload[1] & 128)
    return [tuple(each) for each in found]


def held(seconds, rate, key=5, first=0, time=1000, longest=0xFFFF):
    """The packets of a key that is held, in segments of at most the longest."""
    count, made, begun = round(50 * seconds), [], 0
    for i in range(1, count + 3):
        at = min(i, count) * rate // 50
        if at - begun > longest:
            begun += longest
        flags = 128 + 10 if i >= count else 10
        payload = bytes([key, flags]) + (at - begun).to_bytes(2, "big")
        made.append(
            Packet(101, (first + i) % 2**16, (time + begun) % 2**32, payload, i == 1, ssrc=7)
        )
    return made


@pytest.mark.parametrize(("there", "here"), [(48000, 8000), (8000, 48000), (48000, 48000)])
@pytest.mark.parametrize("seconds", [0.2, 1.36, 1.38, 2.0, 7.0])
def test_a_key_that_is_held_for_longer_than_its_field_can_say_is_one_press(there, here, seconds):
    sender = Sender(OPUS, 111, event_type=110, event_rate=here)
    out, near, far = [], KeyReader(), KeyReader()
    for packet in held(seconds, there, time=2**32 - 40000):
        sender.push(np.zeros((960, 1), np.float32))
        out += sender.event(packet, there, near.read(packet))
    assert presses(out) == [(5, True, round(seconds * here), True)]
    assert [far.read(packet).key for packet in out].count("5") == 1
    # What ends a segment says neither that the press is over nor that another one begins.
    assert sum(packet.marker for packet in out) == 1
    assert sum(packet.payload[1] >> 7 for packet in out) == 3


def test_a_length_of_a_clock_that_nobody_has_is_answered_by_few_packets():
    sender = Sender(OPUS, 111, event_type=110, event_rate=48000)
    packet = Packet(101, 1, 0, bytes([5, 10, 255, 255]), True, ssrc=7)
    assert len(sender.event(packet, 1, KeyReader().read(packet))) == 9


def test_a_press_whose_end_was_lost_does_not_swallow_the_next_one():
    reader = KeyReader()
    first, second = held(0.4, 8000)[:5], held(0.4, 8000, time=200_000)
    second[0] = Packet(101, 1, second[0].timestamp, second[0].payload, False, ssrc=7)
    assert [key for each in first + second if (key := reader.read(each).key)] == ["5", "5"]


@pytest.mark.parametrize("late", [0.1, 0.25, 1.0])
def test_a_late_packet_of_an_older_press_is_not_passed_on(late):
    out = []
    sender = Sender(PCMU, 0, event_type=101)
    path = MediaPath(Receiver(FORMATS), CallStream(None), sender, out.append)
    voice = packets(speech(8000, 2.0), first_number=0, first_time=0)
    arrivals = []
    for number, packet in enumerate(voice):
        at = 100.0 + 0.02 * number
        for key, begin in ((1, 20), (2, 32)):
            if begin <= number < begin + 6:
                part = held(0.08, 8000, key, time=160 * begin)[number - begin]
                wait = late if (key, number) == (1, 25) else 0.0
                part = Packet(101, number, part.timestamp, part.payload, part.marker, ssrc=7)
                arrivals.append((at + wait, part))
                break
        else:
            sound = Packet(0, number, packet.timestamp, packet.payload, ssrc=7)
            arrivals.append((at, sound))
    arrivals.sort(key=lambda arrival: arrival[0])
    call(path, arrivals, after=0.5)
    events = [packet for packet in out if packet.payload_type == 101]
    assert [each[:2] for each in presses(events)] == [(1, True), (2, True)]
    assert path.keys == 2


def test_who_is_on_hold_is_sent_no_keys():
    sender = Sender(PCMU, 0, event_type=101)
    sender.is_held = True
    reader, (first, *rest) = KeyReader(), held(0.2, 8000)
    assert sender.event(first, 8000, reader.read(first)) == []
    sender.is_held = False
    # The rest of a press is one that begins now.
    sender.push(np.zeros((4800, 1), np.float32))
    out = [packet for each in rest for packet in sender.event(each, 8000, reader.read(each))]
    assert [packet.marker for packet in out] == [True] + [False] * (len(rest) - 1)
    assert {packet.timestamp for packet in out} == {sender._time}


def test_a_key_goes_out_with_the_clock_of_the_other_side():
    out = []
    sender = Sender(OPUS, 111, event_type=110, event_rate=48000)
    path = MediaPath(Receiver(FORMATS), CallStream(None), sender, out.append)
    stream = sent(packets(speech(8000, 1.0)))
    number, time = stream[-1][1].sequence_number + 1, stream[-1][1].timestamp + 160
    keys = [(stream[-1][0] + 0.02 * (i + 1), Packet(101, (number + i) % 2**16, time % 2**32,
             bytes([11, 10, 0, 80 * (i + 1)]), ssrc=7)) for i in range(3)]  # fmt: skip
    call(path, stream + keys, after=0.1)
    events = [p for p in out if p.payload_type == 110]
    assert [p.payload for p in events] == [
        bytes([11, 10, *divmod(480 * i, 256)]) for i in (1, 2, 3)
    ]
    assert len({p.timestamp for p in events}) == 1
    assert [p.marker for p in events] == [True, False, False]
    numbers = np.diff([p.sequence_number for p in out]) % 2**16
    assert set(numbers) == {1}


def test_each_press_of_a_key_is_counted_and_reported_once():
    path = MediaPath(Receiver(FORMATS), CallStream(None), None, lambda packet: None)
    pressed = []
    path.on_key = pressed.append
    stream = sent(packets(speech(8000, 1.0)))
    number, time = stream[-1][1].sequence_number, stream[-1][1].timestamp
    # Event, its time, flags and marker. A press ends three times; one that is too long for the
    # counter goes on under another time; one whose packets are too short or that is no key counts
    # as none.
    events = [
        (5, 160, 0, True), (5, 160, 0, False), *[(5, 160, 128, False)] * 3,
        (5, 960, 0, False), (5, 960, 128, False),
        (11, 1600, 0, True), (11, 67135, 0, False), (11, 67135, 128, False),
        (15, 67295, 0, True), (5, 68000, 0, True), (16, 68800, 0, True),
    ]  # fmt: skip
    keys = [
        (stream[-1][0] + 0.02 * (i + 1), Packet(101, (number + 1 + i) % 2**16,
         (time + at) % 2**32, bytes([event, flags, 0, 80]), marker, ssrc=7))
        for i, (event, at, flags, marker) in enumerate(events)
    ]  # fmt: skip
    keys.append(
        (keys[-1][0] + 0.02, Packet(101, (number + 1 + len(keys)) % 2**16, 0, b"\1\0\0", ssrc=7))
    )
    call(path, stream + keys, after=10.0)
    assert pressed == ["5", "5", "#", "D", "5"]
    assert path.keys == 5


def test_a_late_packet_of_an_older_press_is_no_press():
    reader = KeyReader()

    def read(event, time, flags=0, ssrc=7):
        payload = bytes([event, flags, 0, 80])
        return reader.read(Packet(101, 0, time % 2**32, payload, ssrc=ssrc)).key

    # The clock wraps around between the two presses.
    assert [read(1, -80), read(1, -80, 128), read(2, 800)] == ["1", None, "2"]
    assert [read(1, -80, 128), read(2, 880 - 80), read(2, 800, 128)] == [None] * 3
    assert read(2, 1600) == "2"
    # Who counts anew is not late, be it by another name or far behind.
    assert read(3, 800, ssrc=8) == "3"
    assert read(4, 800 - 2**30, ssrc=8) == "4"


def test_an_error_in_who_is_told_of_a_key_loses_neither_keys_nor_sound(caplog):
    out, told = [], []
    path = MediaPath(
        Receiver(FORMATS), CallStream(None), Sender(OPUS, 111, event_type=110), out.append
    )

    def fail(key):
        told.append(key)
        raise ValueError("no such menu")

    path.on_key = fail
    stream = sent(packets(speech(8000, 1.0)))
    number, time = stream[-1][1].sequence_number + 1, stream[-1][1].timestamp + 160
    at = stream[-1][0] + 0.02
    # Both come at once.
    keys = [
        (at, Packet(101, (number + i) % 2**16, (time + 80 * i) % 2**32, bytes([i, 128, 0, 80]),
         True, ssrc=7))
        for i in range(2)
    ]  # fmt: skip
    call(path, stream + keys, after=0.5)
    assert told == ["0", "1"]
    assert len([packet for packet in out if packet.payload_type == 110]) == 2
    assert path.keys == 2
    assert [record.message for record in caplog.records] == ["a key was not taken"] * 2


@pytest.mark.parametrize("silent", [False, True])
def test_timestamps_wrap_around(monkeypatch, silent):
    monkeypatch.setattr("secrets.randbits", lambda bits: 2**bits - 1)
    sender = Sender(OPUS, 96)
    if silent:
        sender.pause(0.02)
    packets = sender.push(speech(48000, 0.06)[:, None])
    first = 959 if silent else 2**32 - 1
    assert [each.timestamp for each in packets] == [(first + 960 * k) % 2**32 for k in range(3)]


def test_a_pause_moves_the_timestamps_of_what_follows():
    out = []
    path = MediaPath(Receiver(FORMATS), CallStream(None), Sender(OPUS, 111), out.append)
    stream = sent(packets(speech(8000, 2.0)))
    later = [(at + 3.0, Packet(0, p.sequence_number, (p.timestamp + 24000) % 2**32, p.payload,
              ssrc=7)) for at, p in stream[50:]]  # fmt: skip
    call(path, stream[:50] + later)
    total = (out[-1].timestamp - out[0].timestamp) % 2**32 / 48000
    assert total == pytest.approx(4.98, abs=0.05)
    assert [p.marker for p in out].count(True) == 2


def test_a_rest_of_a_hop_is_not_late():
    assert DEADLINE > 0.020
    sound = speech(8000, 1.0)
    stream = [
        (100 + 0.025 * i, Packet(0, i, 200 * i, bytes([255]) * 200))
        for i in range(len(sound) // 200)
    ]
    path = MediaPath(Receiver(FORMATS), CallStream(None), Ear(), print)
    call(path, stream)
    assert path.missed == 0


def test_a_batch_that_stands_still_for_seconds_is_survived(batch):
    arrivals = sent(packets(speech(8000, 8.0)))
    ear = Ear()
    path = MediaPath(Receiver(FORMATS), CallStream(batch), ear, print, deadline=0.2)
    call(path, arrivals, batch, stalls=[(101.0, 104.0)])
    path.close()
    dry, _ = listen(None, arrivals)
    got = ear.sound
    length = min(len(got), len(dry))
    assert length > 7.9 * 48000
    assert band_db((got - dry)[:length], 100, 3000) < band_db(dry, 100, 3000) - 30
    # The call is left out for a while after such a stall, and comes back.
    assert 2.9 < path.stream.fallback_seconds < 6.5
    assert band_db(got[7 * 48000 :], 4500, 8000) > band_db(dry[7 * 48000 :], 4500, 8000) + 20


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_calls_that_are_over_leave_no_threads_behind(batch):
    def threads():
        return len(os.listdir("/proc/self/task"))

    def over():
        path = MediaPath(Receiver(FORMATS), CallStream(batch), Sender(OPUS, 96), heard.append)
        call(path, sent(packets(speech(8000, 0.2))), batch)
        path.close()
        return path

    heard = []
    # What is known of a call outlives it, as until its last SIP message cannot be repeated.
    known = [over()]
    before = threads()
    known += [over() for _ in range(4)]
    end = time.monotonic() + 5.0
    while threads() > before and time.monotonic() < end:
        time.sleep(0.05)
    assert threads() <= before
    assert len(heard) == sum(path.sender.sent for path in known) > 0
    assert known[0].sender.push(np.zeros((960, 1), np.float32)) == []
    # What is agreed on too late opens no other one.
    for path in known:
        path.sender.change(PCMU, 0)
        path.sender.change(OPUS, 96, bitrate=24_000)
    assert threads() <= before
    assert known[0].sender.push(np.zeros((960, 1), np.float32)) == []
