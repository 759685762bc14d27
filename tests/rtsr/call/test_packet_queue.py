"""The order of packets: counters that wrap, doubles, senders that start again, and floods."""

from __future__ import annotations

import numpy as np
import pytest

from rtsr.call.formats import Packet
from rtsr.call.packet_queue import LARGEST_SEQUENCE_JUMP, PacketQueue


def packet(number, time=None, ssrc=7):
    time = 160 * number if time is None else time
    return Packet(0, number % 2**16, time % 2**32, bytes(160), ssrc=ssrc)


def numbers(queue):
    return [queue.pop().number for _ in range(len(queue))]


def test_packets_come_out_in_order_through_a_wrap_of_both_counters():
    queue, first = PacketQueue(), 2**16 - 20
    order = np.random.default_rng(0).permutation(np.arange(1, 40))
    queue.put(packet(first, 2**32 - 1600))
    for index in order:
        queued = queue.put(packet(first + index, 2**32 - 1600 + 160 * index))
        assert queued.time == 2**32 - 1600 + 160 * index
    assert queue.first().number == first
    assert numbers(queue) == list(range(first, first + 40))
    assert queue.first() is None


def test_an_older_packet_does_not_take_the_count_back():
    queue = PacketQueue()
    queue.put(packet(40000))
    queue.put(packet(40000 - LARGEST_SEQUENCE_JUMP))
    # From the newest, not from the one before.
    queue.put(packet(40000 + LARGEST_SEQUENCE_JUMP))
    assert queue.restarts == 0
    assert len(queue) == 3


@pytest.mark.parametrize("jump", [LARGEST_SEQUENCE_JUMP, -LARGEST_SEQUENCE_JUMP])
def test_a_larger_jump_is_a_sender_that_starts_again(jump):
    queue = PacketQueue()
    queue.put(packet(40000))
    queue.put(packet(40000 + jump))
    assert (queue.restarts, len(queue)) == (0, 2)
    queue = PacketQueue()
    queue.put(packet(40000))
    queue.put(packet(40000 + jump + (1 if jump > 0 else -1)))
    assert (queue.restarts, len(queue)) == (1, 1)


def test_another_source_starts_again_even_with_the_next_number():
    queue = PacketQueue()
    queue.put(packet(10))
    queue.put(packet(11, ssrc=8))
    assert (queue.restarts, numbers(queue)) == (1, [11])
    # Its numbers are its own.
    assert queue.put(packet(10, ssrc=8)) is not None
    assert queue.duplicates == 0


def test_doubles_are_counted_also_when_the_first_was_taken():
    queue = PacketQueue()
    for number in range(1000):
        assert queue.put(packet(number)) is not None
        queue.pop()
    for late in (999, 990, 800):
        assert queue.put(packet(late)) is None
    assert (queue.duplicates, len(queue)) == (3, 0)


def test_says_when_more_packets_wait_than_anybody_waits_for():
    queue = PacketQueue()
    for number in range(128):
        queue.put(packet(number))
        assert not queue.is_too_long
    queue.put(packet(128))
    assert queue.is_too_long
    assert numbers(queue) == list(range(129))
