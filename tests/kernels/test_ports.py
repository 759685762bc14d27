"""The rings between callers and steps: what goes in comes out, in order, and is counted."""

from __future__ import annotations

import numpy as np
import pytest

from rtsr_kernels.limiter import KNEE
from rtsr_kernels.ports import (
    LARGEST_SAMPLE,
    OUTPUT_RATES,
    Ports,
    emit_rows,
    emit_silence,
    find_due,
    get_end,
    is_row_due,
    longest_wait,
    make_ports,
    pull_block,
    push_block,
    put_two_steps_first,
    readable,
    ring_capacity,
    set_end,
    start_port,
    take_rows,
)
from rtsr_kernels.resample import CHUNK_FRAMES, StreamingResampler
from rtsr_kernels.resample_design import phase_table

STEP = 480
CAPACITY = ring_capacity(2048)
NO_TAPS = np.zeros((1, 0), np.float32)


class Row:
    """One stream of the ports, pushing and pulling at 48 kHz."""

    def __init__(self, ports: Ports, row: int, slots: list[int], rate: int, limits: bool) -> None:
        self.ports, self.row = ports, row
        self.channels = len(slots)
        ports.slots[row, : len(slots)] = slots
        ports.values["channels"][row] = len(slots)
        start_port(ports, row, rate, limits, float(rate))
        self.histories = np.zeros((len(slots), 0), np.float32)
        self.line = np.zeros(CHUNK_FRAMES, np.float32)
        self.converted = np.zeros(CHUNK_FRAMES * 6 + 8, np.float32)

    def push(self, block: np.ndarray) -> int:
        _, repaired = push_block(
            block,
            self.ports.waiting[self.row],
            self.ports.waiting_data,
            self.ports.slots[self.row],
            self.histories,
            NO_TAPS,
            0,
            1,
            self.line,
            self.converted,
        )
        return repaired

    def pull(self, frames: int, dtype: type = np.float32) -> np.ndarray:
        out = np.full((frames, self.channels), 99, dtype)
        count, self.held = pull_block(
            self.ports.finished[self.row],
            self.ports.finished_data,
            self.ports.slots[self.row],
            out,
        )
        assert np.all(out[count:] == 99)
        return out[:count]


def make(
    channels: list[int], rates: list[int] | None = None, limits: bool = False
) -> tuple[Ports, list[Row]]:
    ports = make_ports(len(channels), sum(channels), STEP, CAPACITY)
    # Slots from the back, so that a row and its slot are never the same number by chance.
    free = list(range(sum(channels)))[::-1]
    rows = [
        Row(ports, row, [free.pop(0) for _ in range(count)], (rates or [48000] * 9)[row], limits)
        for row, count in enumerate(channels)
    ]
    return ports, rows


def step(ports: Ports, adds: bool = True) -> tuple[list[int], list[int]]:
    """Take a step that changes nothing; rows that were due and slots that were held."""
    streams, slots = len(ports.values), len(ports.finished_data)
    due, held = np.full(streams, -1), np.full(slots, -1)
    audio = np.full((slots, STEP), 55.0, np.float32)
    count, held_count = find_due(ports, STEP, due, held)
    take_rows(ports, due[:count], audio)
    emit_rows(ports, due[:count], audio, np.full(streams, adds))
    return due[:count].tolist(), held[:held_count].tolist()


def noise(frames: int, channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (frames, channels)).astype(np.float32)


@pytest.mark.parametrize("samples", [0, 1, 480, 2047, 2048, 2049, 14880, 16384])
def test_rings_hold_what_is_asked_and_lie_an_odd_number_of_cache_lines_apart(samples: int) -> None:
    capacity = ring_capacity(samples)
    assert samples <= capacity <= samples + 2 * 16
    assert capacity % 16 == 0
    assert capacity // 16 % 2 == 1


def test_rings_wrap_and_keep_every_channel_in_order() -> None:
    ports, rows = make([1, 3, 2])
    sounds = [noise(20 * STEP, row.channels, row.row) for row in rows]
    outs: list[list[np.ndarray]] = [[], [], []]
    random = np.random.default_rng(1)
    sent = [0, 0, 0]
    for _ in range(200):
        for index, row in enumerate(rows):
            length = int(random.integers(0, 600))
            if CAPACITY - readable(ports.waiting[index]) >= length:
                row.push(sounds[index][sent[index] : sent[index] + length])
                sent[index] += length
        step(ports)
        for index, row in enumerate(rows):
            outs[index].append(row.pull(int(random.integers(0, 900))))
    for out, sound in zip(outs, sounds, strict=True):
        got = np.concatenate(out)
        assert len(got) > 15 * STEP
        assert np.array_equal(got, sound[: len(got)])


def test_only_whole_steps_are_due_and_the_others_are_held() -> None:
    ports, rows = make([2, 1, 2])
    rows[0].push(noise(STEP - 1, 2))
    rows[1].push(noise(STEP, 1))
    due, held = step(ports)
    assert due == [1]
    assert sorted(held) == sorted([*ports.slots[0, :2], *ports.slots[2, :2]])
    assert ports.values["steps"].tolist() == [0, 1, 0]
    assert ports.values["held_steps"].tolist() == [1, 0, 1]
    rows[0].push(noise(1, 2))
    assert step(ports)[0] == [0]
    assert ports.values["held_steps"].tolist() == [1, 1, 2]


def test_no_step_leaves_the_counters_alone() -> None:
    ports, _ = make([1, 1])
    assert step(ports) == ([], [1, 0])
    assert ports.values["held_steps"].tolist() == [0, 0]


def test_closed_rows_are_neither_due_nor_held() -> None:
    ports, rows = make([1, 1])
    for row in rows:
        row.push(noise(STEP, 1))
    ports.values["is_open"][0] = False
    assert step(ports) == ([1], [])
    assert ports.values["held_steps"].tolist() == [0, 0]


def test_a_step_needs_room_behind() -> None:
    ports, rows = make([1])
    for _ in range(CAPACITY // STEP):
        rows[0].push(noise(STEP, 1))
        assert step(ports)[0] == [0]
    rows[0].push(noise(STEP, 1))
    room = CAPACITY - CAPACITY // STEP * STEP
    rows[0].pull(STEP - room - 1)
    assert not is_row_due(ports, 0, STEP)
    rows[0].pull(1)
    assert is_row_due(ports, 0, STEP)


def test_who_has_two_steps_waiting_and_room_for_them_comes_first() -> None:
    ports, rows = make([1, 2, 1, 1, 1, 1])
    # Two steps, one, three; two of a stream with room for one; an end within one step, and within
    # two.
    while CAPACITY - readable(ports.finished[3]) >= 2 * STEP:
        rows[3].push(noise(STEP, 1))
        step(ports)
    for row, end in ((4, STEP), (5, STEP + 1)):
        set_end(ports.waiting[row], end, 2 * STEP)
    for row, count in zip(rows, (960, 959, 1440, 960, 960, 960), strict=True):
        row.push(noise(count, row.channels))
    before = ports.values["steps"].copy()
    due, spare = np.array([0, 1, 2, 3, 4, 5]), np.zeros(6, np.int64)
    assert put_two_steps_first(ports, STEP, due, spare) == 3
    assert due.tolist() == [0, 2, 5, 1, 3, 4]
    assert (ports.values["steps"] - before).tolist() == [1, 0, 1, 0, 0, 1]
    assert put_two_steps_first(ports, STEP, due[:0], spare) == 0


def test_the_longest_wait_is_that_of_the_rows_asked_for() -> None:
    ports, rows = make([1, 1, 1])
    for row, length in zip(rows, (100, 900, 500), strict=True):
        row.push(noise(length, 1))
    assert longest_wait(ports, np.array([0, 2])) == 500
    assert longest_wait(ports, np.array([0, 1, 2])) == 900
    assert longest_wait(ports, np.array([], np.int64)) == 0


def test_a_finished_stream_ends_after_its_last_sample() -> None:
    ports, rows = make([1])
    sound = noise(700, 1)
    rows[0].push(sound)
    assert get_end(ports.waiting[0]) == -1
    set_end(ports.waiting[0], 1100, 700)
    assert get_end(ports.waiting[0]) == 1100
    taken = 0
    while step(ports)[0]:
        taken += 1
        assert taken < 9
    assert taken == 3
    out = rows[0].pull(5000)
    assert np.array_equal(out[:700], sound)
    assert np.all(out[700:] == 0.0)
    assert len(out) == 1100
    assert ports.values["emitted"][0] == 1100


def test_a_stream_that_is_being_finished_ends_when_its_last_block_is_there() -> None:
    ports, rows = make([1])
    sound = noise(2 * STEP + 300, 1)
    rows[0].push(sound[: STEP + 100])
    set_end(ports.waiting[0], 2 * STEP + 200, len(sound))
    assert [step(ports)[0] for _ in range(2)] == [[0], []]
    rows[0].push(sound[STEP + 100 :])
    assert [step(ports)[0] for _ in range(3)] == [[0], [0], []]
    assert np.array_equal(rows[0].pull(5000), sound[: 2 * STEP + 200])


def test_what_is_no_number_is_repaired_and_counted() -> None:
    ports, rows = make([2])
    block = noise(STEP, 2)
    expected = block.copy()
    broken = [np.nan, np.inf, -np.inf, 2e10, -2e10]
    for index, value in enumerate(broken):
        block[50 * index, index % 2] = value
        expected[50 * index, index % 2] = 0.0
    block[400] = expected[400] = [LARGEST_SAMPLE, -LARGEST_SAMPLE]
    assert rows[0].push(block) == len(broken)
    step(ports)
    assert np.array_equal(rows[0].pull(STEP), expected)


def test_integers_are_scaled_by_a_power_of_two_and_come_back() -> None:
    ports, rows = make([1])
    block = np.linspace(-32768, 32767, STEP).astype(np.int16)[:, None]
    assert rows[0].push(block) == 0
    step(ports)
    halves = rows[0].pull(100)
    assert np.array_equal(halves, block[:100].astype(np.float32) / 32768.0)
    assert np.array_equal(rows[0].pull(STEP, np.int16), block[100:])
    assert rows[0].held == 0


def test_integers_beyond_full_scale_are_held_and_counted() -> None:
    ports, rows = make([1])
    block = np.zeros((STEP, 1), np.float32)
    block[:6, 0] = [1.0, -1.0, 3.0, -3.0, 32767 / 32768, 0.5 / 32768]
    block[6:10, 0] = np.array([0.6, -0.6, 1.5, 2.5]) / 32768
    rows[0].push(block)
    step(ports)
    out = rows[0].pull(STEP, np.int16)
    assert out[:6, 0].tolist() == [32767, -32768, 32767, -32768, 32767, 0]
    assert out[6:10, 0].tolist() == [1, -1, 2, 2], "to the nearest, halves to the even one"
    assert rows[0].held == 3


@pytest.mark.parametrize("rate", OUTPUT_RATES)
def test_output_rates_give_what_the_resampler_gives(rate: int) -> None:
    """Streams of all rates side by side, so that a wrong table is another stream's."""
    ports, rows = make([1, 2, 1, 1, 1], list(OUTPUT_RATES))
    row = rows[OUTPUT_RATES.index(rate)]
    sounds = [noise(6 * STEP, other.channels, other.row) for other in rows]
    parts = []
    for index in range(6):
        for other, sound in zip(rows, sounds, strict=True):
            other.push(sound[index * STEP : (index + 1) * STEP])
        step(ports)
        for other in rows:
            out = other.pull(STEP)
            if other is row:
                parts.append(out)
    got = np.concatenate(parts)
    resampler = StreamingResampler(48000, rate, row.channels)
    assert np.array_equal(got, resampler.process(sounds[row.row]))
    assert ports.values["emitted"][row.row] == len(got) == 6 * STEP * rate // 48000


@pytest.mark.parametrize("rate", [8000, 44100])
def test_input_rates_give_what_the_resampler_gives(rate: int) -> None:
    ports, rows = make([2])
    table = phase_table(rate, 48000)
    resampler = StreamingResampler(rate, 48000, 2)
    rows[0].histories = np.zeros((2, table.shape[1] - 1 + 2 * CHUNK_FRAMES), np.float32)
    up, down = {8000: (6, 1), 44100: (160, 147)}[rate]
    assert table.shape[0] == up
    position, parts = down - 1, []
    sound = noise(rate // 10, 2)
    for start in range(0, len(sound), 97):
        position, _ = push_block(
            sound[start : start + 97],
            ports.waiting[0],
            ports.waiting_data,
            ports.slots[0],
            rows[0].histories,
            table,
            position,
            down,
            rows[0].line,
            rows[0].converted,
        )
        while step(ports)[0]:
            parts.append(rows[0].pull(STEP))
    got = np.concatenate(parts)
    assert len(got) == 4800 // STEP * STEP
    assert np.array_equal(got, resampler.process(sound)[: len(got)])


def test_silence_comes_in_front() -> None:
    ports, rows = make([2], [24000])
    emit_silence(ports, 0, 40)
    assert ports.values["emitted"][0] == 20
    assert np.array_equal(rows[0].pull(100), np.zeros((20, 2)))


def test_the_limiter_serves_who_wants_it_where_something_was_added() -> None:
    loud = np.full((STEP, 1), 0.95, np.float32)
    for limits, adds, is_same in ((True, True, False), (True, False, True), (False, True, True)):
        ports, rows = make([1, 1], limits=limits)
        rows[0].push(loud)
        step(ports, adds)
        out = rows[0].pull(STEP)
        assert np.array_equal(out, loud) == is_same
        assert (ports.values["limited"][0] > 0) != is_same
        assert ports.values["limited"][1] == 0
        assert ports.gains[1] == 1.0
    assert KNEE < 0.95


def test_the_limiter_goes_on_recovering_after_what_was_loud() -> None:
    ports, rows = make([2], limits=True)
    loud = np.full((STEP, 2), [0.1, 0.99], np.float32)
    for block in (loud, np.full((STEP, 2), 0.1, np.float32)):
        rows[0].push(block)
        step(ports)
    out = rows[0].pull(2 * STEP)
    assert np.all(out[:, 0] < 0.1)
    assert np.all(np.diff(out[STEP:, 0]) > 0.0)
    assert ports.values["limited"][0] == 2 * STEP


def test_a_stream_that_begins_in_a_used_row_is_fresh() -> None:
    ports, rows = make([1], [44100], limits=True)
    rows[0].push(np.full((2 * STEP - 7, 1), 3.0, np.float32))
    step(ports)
    set_end(ports.waiting[0], 5, 2 * STEP - 7)
    assert ports.gains[0] < 1.0
    start_port(ports, 0, 44100, True, 44100.0)
    assert ports.gains[0] == 1.0
    assert get_end(ports.waiting[0]) == -1
    assert readable(ports.waiting[0]) == readable(ports.finished[0]) == 0
    assert ports.values["limited"][0] == ports.values["steps"][0] == 0
    rows[0].push(np.zeros((STEP, 1), np.float32))
    step(ports)
    out = rows[0].pull(STEP)
    assert len(out) == 441
    assert np.all(out == 0.0)
