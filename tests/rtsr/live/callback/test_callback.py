"""The compiled audio callback, called through C with buffers of our own and a clock of our own."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from rtsr.live.callback.callback import PORTAUDIO_CALLBACK
from rtsr.live.callback.state import CallbackState
from rtsr.live.device.latency import StreamLatency
from rtsr.live.shared.counters import CALLBACK_COUNTERS
from rtsr.live.shared.memory import LiveMemory
from rtsr.timing import OVERLAP

HOP = 480
CLOCK = ctypes.CFUNCTYPE(ctypes.c_double)


class Clock:
    """`double clock(void)` that tells what the test wants."""

    def __init__(self) -> None:
        self.now = 100.0
        self._function = CLOCK(lambda: self.now)
        self.address = ctypes.cast(self._function, ctypes.c_void_p).value or 0


class Worker:
    """Stands in for the engine: what was captured, as late as it would be, times `gain`."""

    def __init__(self, memory: LiveMemory, gain: float = 1.0) -> None:
        self.memory = memory
        self.gain = gain
        self.hops = 0
        self.hop, self.lag = memory.clock.hop, memory.clock.lag
        self.block = np.zeros((self.hop, memory.channels), np.float32)

    def work(self, hops: int = 1000) -> None:
        """Process up to so many of the hops that have arrived."""
        hop = self.hop
        while hops and self.memory.capture.written >= (self.hops + 1) * hop:
            self.block.fill(0.0)
            start = self.hops * hop - self.lag
            skipped = max(0, -start)
            assert self.memory.capture.read(start + skipped, self.block[skipped:]) == hop - skipped
            self.memory.playback.write(self.block * np.float32(self.gain))
            self.hops += 1
            hops -= 1


def call(
    state: CallbackState, source: np.ndarray | None, sink: np.ndarray | None, flags: int = 0
) -> None:
    present = source if source is not None else sink
    assert present is not None
    addresses = [0 if array is None else array.ctypes.data for array in (source, sink)]
    frames = len(present)
    assert PORTAUDIO_CALLBACK.ctypes(*addresses, frames, 0, flags, state.address) == 0


def run(
    state: CallbackState,
    source: np.ndarray,
    blocks: Sequence[int],
    worker: Worker | None,
    output_channels: int,
) -> np.ndarray:
    """Pass all of `source` through a duplex callback, blocks in turn; `(frames, channels)`."""
    sink = np.full((len(source), output_channels), 99, source.dtype)
    start = turn = 0
    while start < len(source):
        stop = min(len(source), start + blocks[turn % len(blocks)])
        call(state, source[start:stop], sink[start:stop])
        if worker is not None:
            worker.work()
        start, turn = stop, turn + 1
    return sink


def sine(rate: float, seconds: float, hertz: float = 997.0, shift: float = 0.0) -> np.ndarray:
    """Sine at half of full scale, `shift` seconds late, silent before its start: `(frames, 1)`."""
    time = np.arange(round(rate * seconds)) / rate - shift
    return (0.5 * np.sin(2 * np.pi * hertz * time) * (time >= 0)).astype(np.float32)[:, None]


@pytest.fixture
def memory(request: pytest.FixtureRequest) -> Iterator[LiveMemory]:
    with LiveMemory.create(getattr(request, "param", 1)) as memory:
        yield memory


def counted(memory: LiveMemory) -> dict[str, int]:
    return {name: int(memory.callback[name]) for name in CALLBACK_COUNTERS.names}


@pytest.mark.parametrize(
    "blocks",
    [[32], [128], [441], [2048], [5000], [1, 7, 300, 2048, 64, 33]],
    ids=lambda blocks: "-".join(map(str, blocks)),
)
@pytest.mark.parametrize("memory", [1, 2, 8], indirect=True, ids=lambda n: f"{n}-channels")
def test_plays_the_enhanced_signal_after_the_stated_delay(
    memory: LiveMemory, blocks: list[int]
) -> None:
    channels = memory.channels
    latency = StreamLatency.one_device(max(blocks), 48000, 5.0)
    state = CallbackState(
        memory, input_channels=channels, output_channels=channels, delay=latency.delay
    )
    source = np.random.default_rng(1).standard_normal((24000, channels)).astype(np.float32)
    sink = run(state, source, blocks, Worker(memory, gain=2.0), channels)

    shift = round(latency.engine_frames)
    assert shift == latency.delay + OVERLAP
    np.testing.assert_array_equal(sink[:shift], 0.0)
    np.testing.assert_array_equal(sink[shift:], 2.0 * source[:-shift])
    seen = counted(memory)
    assert seen["underrun_blocks"] == seen["dry_frames"] == 0
    assert seen["capture_frames"] == seen["frames"] == 24000
    assert seen["first_signal_frame"] == 0
    assert seen["played_position"] == 24000 - latency.delay
    assert seen["enhanced_frames"] == 24000 - latency.delay
    # What the formula promises: a step may take the allowance, whatever the block.
    assert seen["fill_min"] >= min(max(blocks), 5000) + 64


@pytest.mark.parametrize("device_rate", [96000, 192000, 48000])
@pytest.mark.parametrize("rate", [96000, 192000])
def test_beyond_48_khz_everything_is_as_late_as_stated(rate: int, device_rate: int) -> None:
    with LiveMemory.create(1, rate) as memory:
        latency = StreamLatency.one_device(500, device_rate, 5.0, memory.clock)
        state = CallbackState(
            memory, rate=device_rate, input_channels=1, output_channels=1, delay=latency.delay
        )
        late = latency.engine_frames + state.input_delay + state.output_delay
        source = sine(device_rate, 0.3)
        # Without a worker it is the dry sound.
        heard = run(state, source, [500], None, 1)
        assert memory.capture.written == pytest.approx(0.3 * rate, abs=1)
        if device_rate == rate:
            assert late == latency.delay + memory.clock.lag
            np.testing.assert_array_equal(heard[round(late) :], source[: -round(late)])
        expected = sine(device_rate, 0.3, shift=late / rate)
        steady = device_rate // 10
        assert np.max(np.abs(heard - expected)[steady:]) < 2e-3
        assert memory.callback["underrun_frames"] > 0
        assert memory.callback["silent_frames"] == pytest.approx(latency.delay, abs=rate // 1000)


@pytest.mark.parametrize("sample_format", ["int16", "int24", "float32"])
@pytest.mark.parametrize("channels", [1, 2, 3, 8])
def test_formats_pass_unchanged(sample_format: str, channels: int) -> None:
    rng = np.random.default_rng(2)
    frames = 4096
    if sample_format == "float32":
        source = rng.standard_normal((frames, channels)).astype(np.float32)
    elif sample_format == "int16":
        source = rng.integers(-32768, 32768, (frames, channels)).astype(np.int16)
        source[:2, 0] = (-32768, 32767)
    else:
        # Three bytes per sample; any three are one.
        source = rng.integers(0, 256, (frames, 3 * channels)).astype(np.uint8)
    with LiveMemory.create(channels) as memory:
        latency = StreamLatency.one_device(256, 48000, 5.0)
        state = CallbackState(
            memory,
            input_channels=channels,
            output_channels=channels,
            input_format=sample_format,
            output_format=sample_format,
            delay=latency.delay,
        )
        sink = run(state, source, [256], Worker(memory), source.shape[1])
        shift = round(latency.engine_frames)
        np.testing.assert_array_equal(sink[shift:], source[:-shift])
        np.testing.assert_array_equal(sink[:shift], 0)
        assert memory.callback["clipped_samples"] == 0


@pytest.mark.parametrize(("engine", "device"), [(1, 2), (1, 8), (2, 1), (2, 6), (3, 2)])
def test_devices_with_another_number_of_channels(engine: int, device: int) -> None:
    source = np.random.default_rng(3).standard_normal((4096, engine)).astype(np.float32)
    with LiveMemory.create(engine) as memory:
        latency = StreamLatency.one_device(128, 48000, 5.0)
        state = CallbackState(
            memory, input_channels=engine, output_channels=device, delay=latency.delay
        )
        sink = run(state, source, [128], Worker(memory), device)
    shift = round(latency.engine_frames)
    for channel in range(device):
        want = (
            source[:-shift, 0 if engine == 1 else channel] if channel < engine or engine == 1 else 0
        )
        np.testing.assert_array_equal(sink[shift:, channel], want)


@pytest.mark.parametrize(("sample_format", "top"), [("int16", 32767), ("int24", 8388607)])
def test_what_is_too_loud_is_held_and_counted(
    memory: LiveMemory, sample_format: str, top: int
) -> None:
    state = CallbackState(
        memory, input_channels=1, output_channels=1, output_format=sample_format, delay=784
    )
    worker = Worker(memory)
    width = 2 if sample_format == "int16" else 3
    sink = np.zeros((480, width), np.uint8)
    for level in (3.0, -3.0, np.nan):
        source = np.full((480, 1), level, np.float32)
        for _ in range(6):
            call(state, source, sink)
            worker.work()
        value = int.from_bytes(sink[-1].tobytes(), "little", signed=True)
        assert value == (0 if np.isnan(level) else top if level > 0 else -top - 1)
    assert memory.callback["clipped_samples"] > 0
    assert memory.callback["repaired_samples"] == 6 * 480


@pytest.mark.parametrize("block", [16, 32, 128, 512, 2048])
def test_a_late_worker_is_bridged_by_the_dry_signal(memory: LiveMemory, block: int) -> None:
    latency = StreamLatency.one_device(block, 48000, 5.0)
    state = CallbackState(memory, input_channels=1, output_channels=1, delay=latency.delay)
    worker = Worker(memory, gain=2.0)
    ones = np.ones((48000, 1), np.float32)
    parts = []
    for works, frames in ((True, 9600), (False, 9600), (True, 9600)):
        source = ones[: frames // block * block]
        parts.append(run(state, source, [block], worker if works else None, 1)[:, 0])
    heard = np.concatenate(parts)[round(latency.engine_frames) :]
    # Dry is 1, enhanced is 2: never silent, never a step, and wholly dry in between.
    steps = np.diff(heard)
    assert heard.min() == 1.0
    assert heard.max() == 2.0
    assert steps.min() >= -1.001 / 64
    assert steps.max() <= 1.001 / 480
    assert heard[0] == heard[-1] == 2.0
    seen = counted(memory)
    assert seen["underrun_events"] == 1
    assert 0 < seen["underrun_blocks"] <= 9600 // block
    assert 9600 - 4096 < seen["underrun_frames"] <= 9600
    assert seen["fill_min"] == 0


def test_a_worker_that_goes_on_elsewhere_is_faded_in(memory: LiveMemory) -> None:
    state = CallbackState(memory, input_channels=1, output_channels=1, delay=912)
    worker = Worker(memory, gain=2.0)
    ones = np.ones((9600, 1), np.float32)
    heard = [run(state, ones, [128], worker, 1), run(state, ones, [128], None, 1)]
    worker.hops = memory.capture.written // HOP
    memory.playback.seek(worker.hops * HOP)
    heard.append(run(state, ones, [128], worker, 1))
    steps = np.diff(np.concatenate(heard)[1032:, 0])
    assert steps.min() >= -1.001 / 64
    assert steps.max() <= 1.001 / 480
    assert heard[-1][-1] == 2.0


def test_disabled_fades_to_silence_and_back(memory: LiveMemory) -> None:
    state = CallbackState(memory, input_channels=1, output_channels=1, delay=912)
    worker = Worker(memory)
    ones = np.ones((4800, 1), np.float32)
    heard = [run(state, ones, [32], worker, 1)]
    memory.callback_enabled = False
    heard.append(run(state, ones, [32], worker, 1))
    memory.callback_enabled = True
    heard.append(run(state, ones, [32], worker, 1))
    assert [part[-1, 0] for part in heard] == [1.0, 0.0, 1.0]
    steps = np.diff(np.concatenate(heard)[1032:, 0])
    assert np.abs(steps).max() <= 1.001 / 64


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 32000, 44100])
def test_other_rates_keep_the_stated_latency(memory: LiveMemory, rate: int) -> None:
    latency = StreamLatency.one_device(200, rate, 5.0)
    state = CallbackState(
        memory, rate=rate, input_channels=1, output_channels=1, delay=latency.delay
    )
    frames = latency.engine_frames + state.input_delay + state.output_delay
    source = sine(rate, 1.5)
    sink = run(state, source, [200, 37, 128], Worker(memory), 1)
    want = sine(rate, 1.5, shift=frames / 48000)
    settled = slice(rate // 2, None)
    residual = np.sqrt(np.mean((sink[settled] - want[settled]) ** 2))
    # A microsecond of error alone would be -64 dB; the filters' ripple is 0.1 dB.
    assert 20 * np.log10(residual / 0.35) < -38
    phase = np.vdot(np.exp(2j * np.pi * 997 * np.arange(rate) / rate), sink[-rate:, 0]) / np.vdot(
        np.exp(2j * np.pi * 997 * np.arange(rate) / rate), want[-rate:, 0]
    )
    assert abs(np.angle(phase)) / (2 * np.pi * 997) < 0.2 / 48000
    seen = counted(memory)
    assert seen["underrun_blocks"] == seen["resyncs"] == 0


class TwoDevices:
    """A capturing and a playing device with clocks of their own, and scheduling jitter."""

    def __init__(
        self,
        memory: LiveMemory,
        block: int,
        ppm: float,
        jitter: float,
        rates: tuple[int, int] = (48000, 48000),
    ) -> None:
        self.clock = Clock()
        captures, plays = self.rates = rates
        self.latency = StreamLatency.two_devices(block, plays, 5.0, clock=memory.clock)
        self.capture = CallbackState(
            memory, rate=captures, input_channels=1, clock=self.clock.address
        )
        self.playback = CallbackState(
            memory,
            rate=plays,
            output_channels=1,
            delay=self.latency.delay,
            two_clocks=True,
            capture_block=block * memory.clock.rate // captures,
            clock=self.clock.address,
        )
        self.memory = memory
        self.block = block
        self.worker = Worker(memory)
        self.jitter = jitter
        self.rng = np.random.default_rng(4)
        self.period = [block / captures, block / plays / (1 + ppm * 1e-6)]
        self.due = [100.0, 100.0 + 0.4 * block / captures]
        self.captured = 0
        self.captures = True

    def run(self, seconds: float) -> np.ndarray:
        heard = []
        end = self.due[0] + seconds
        while min(self.due) < end:
            side = int(self.due[1] < self.due[0])
            self.clock.now = self.due[side] + self.jitter * self.rng.random()
            if side == 0:
                time = (self.captured + np.arange(self.block)) / self.rates[0]
                source = (0.5 * np.sin(2 * np.pi * 997 * time)).astype(np.float32)[:, None]
                if self.captures:
                    call(self.capture, source, None)
                    self.captured += self.block
                    self.worker.work()
            else:
                sink = np.zeros((self.block, 1), np.float32)
                call(self.playback, None, sink)
                heard.append(sink)
            self.due[side] += self.period[side]
        return np.concatenate(heard)[:, 0]


def assert_clocks_are_followed(devices: TwoDevices, ppm: float, most_db: float = -80.0) -> None:
    """Run until the loop has settled; what is then heard beside the sine is below `most_db`."""
    devices.run(60.0)
    before = counted(devices.memory)
    heard = devices.run(3.0)
    seen = counted(devices.memory)
    assert abs(seen["drift_ppb"] + ppm * 1000) < 40_000
    assert seen["resyncs"] == 0
    assert seen["underrun_frames"] - before["underrun_frames"] == 0
    # At the pitch that the correction gives it is one unbroken sine.
    hertz = 997 * (1 + 1e-9 * seen["drift_ppb"])
    rate = devices.rates[1]
    short = heard[-rate // 5 :].reshape(20, rate // 100)
    basis = np.exp(2j * np.pi * hertz * np.arange(rate // 100) / rate)
    pair = np.stack([basis.real, basis.imag], axis=1)
    fit = np.linalg.lstsq(pair, short.T, rcond=None)[0]
    residual = np.sqrt(np.mean((short.T - pair @ fit) ** 2, axis=0))
    assert 20 * np.log10(residual.max() / 0.35) < most_db


@pytest.mark.parametrize("ppm", [-200, 200])
@pytest.mark.parametrize("block", [128, 512])
def test_two_clocks_are_followed(memory: LiveMemory, ppm: float, block: int) -> None:
    assert_clocks_are_followed(TwoDevices(memory, block, ppm, jitter=0.002), ppm)


@pytest.mark.parametrize(
    ("rates", "ppm", "most_db"),
    # The conversion from 48 to 96 kHz keeps images 75 dB down.
    [((96000, 96000), -200, -80), ((48000, 96000), 200, -74), ((192000, 192000), 200, -80)],
    ids=["96 kHz", "48 to 96 kHz", "192 kHz"],
)
def test_two_clocks_are_followed_beyond_48_khz(
    rates: tuple[int, int], ppm: float, most_db: float
) -> None:
    with LiveMemory.create(1, rates[1]) as memory:
        devices = TwoDevices(memory, 1024, ppm, jitter=0.002, rates=rates)
        assert_clocks_are_followed(devices, ppm, most_db)


def test_a_device_that_fills_its_buffers_first_finds_its_place(memory: LiveMemory) -> None:
    devices = TwoDevices(memory, 512, ppm=0, jitter=0.0)
    devices.run(0.012)
    for _ in range(4):
        sink = np.ones((512, 1), np.float32)
        call(devices.playback, None, sink)
        np.testing.assert_array_equal(sink, 0.0)
    np.testing.assert_array_equal(devices.run(0.15), 0.0)
    heard = devices.run(1.0)
    assert np.abs(heard[-480:]).max() > 0.49
    # The clock stands at the next call; the last one came a block before the capturing device's.
    captured = (devices.due[1] - 100.0) * 48000
    ahead = int(memory.callback["played_position"]) + devices.latency.delay - captured
    assert abs(ahead) < 24
    seen = counted(memory)
    assert seen["resyncs"] == seen["underrun_frames"] == 0


def test_a_pause_of_the_capturing_device_ends_in_silence_and_one_jump(memory: LiveMemory) -> None:
    devices = TwoDevices(memory, 128, ppm=50, jitter=0.001)
    devices.run(3.0)
    devices.captures = False
    heard = devices.run(1.0)
    assert np.abs(np.diff(heard)).max() < 0.1
    np.testing.assert_array_equal(heard[-24000:], 0.0)
    devices.captures = True
    heard = devices.run(2.0)
    assert memory.callback["resyncs"] == 1
    assert np.abs(np.diff(heard)).max() < 0.1
    assert np.abs(heard[-480:]).max() > 0.49


def test_a_call_without_frames_changes_nothing(memory: LiveMemory) -> None:
    devices = TwoDevices(memory, 128, ppm=0.0, jitter=0.0)
    devices.run(0.1)
    before = counted(memory)
    for state in (devices.capture, devices.playback):
        nothing = np.zeros((0, 1), np.float32)
        call(state, *((nothing, None) if state is devices.capture else (None, nothing)))
    assert counted(memory) == before


def test_counts_late_calls_but_not_bursts(memory: LiveMemory) -> None:
    clock = Clock()
    state = CallbackState(
        memory, input_channels=1, output_channels=1, delay=912, clock=clock.address
    )
    source = np.zeros((48, 1), np.float32)
    sink = np.zeros_like(source)

    def calls(*milliseconds: float) -> int:
        before = int(memory.callback["late_callbacks"])
        for wait in milliseconds:
            clock.now += wait / 1000
            call(state, source, sink)
        return int(memory.callback["late_callbacks"] - before)

    assert calls(*[1.0] * 100) == 0
    assert calls(1.9, 0.1, 1.0) == 0
    assert calls(2.1) == 1
    assert calls(1.0, 1.0, 1.0) == 0
    assert calls(*[0.0, 0.0, 0.0, 4.0] * 20) == 0
    assert calls(8.0) == 1
    assert memory.callback_histogram.sum() == memory.callback["callbacks"]


def test_measures_its_own_time(memory: LiveMemory) -> None:
    clock = Clock()
    ticks = iter(np.arange(10) * 37e-6 + 5.0)
    told = CLOCK(lambda: next(ticks))
    clock.address = ctypes.cast(told, ctypes.c_void_p).value or 0
    state = CallbackState(memory, input_channels=1, clock=clock.address)
    for _ in range(5):
        call(state, np.zeros((48, 1), np.float32), None)
    assert memory.capture_histogram.sum() == 5
    assert memory.capture_histogram[36:38].sum() == 5
    assert memory.callback_histogram.sum() == 0


def test_counts_what_portaudio_flags(memory: LiveMemory) -> None:
    state = CallbackState(memory, input_channels=1, output_channels=1, delay=912)
    block = np.zeros((48, 1), np.float32)
    for flags in (1, 2, 2, 4, 8, 16, 31, 0):
        call(state, block, block.copy(), flags)
    names = ("input_underflows", "input_overflows", "output_underflows", "output_overflows")
    assert [counted(memory)[name] for name in (*names, "priming")] == [2, 3, 2, 2, 2]


def test_unusable_input_is_silence(memory: LiveMemory) -> None:
    state = CallbackState(memory, input_channels=1)
    block = np.array([0.0, np.nan, np.inf, -np.inf, 1e30, 0.5], np.float32)[:, None]
    call(state, block, None)
    out = np.empty((6, 1), np.float32)
    assert memory.capture.read(0, out) == 6
    np.testing.assert_array_equal(out[:, 0], [0, 0, 0, 0, 0, 0.5])
    assert counted(memory)["repaired_samples"] == 4
    assert counted(memory)["first_signal_frame"] == 5


def test_missing_input_is_silence(memory: LiveMemory) -> None:
    # PortAudio may call a duplex stream without input while it fills the output's buffers.
    state = CallbackState(memory, input_channels=1, output_channels=1, delay=912)
    call(state, None, np.ones((256, 1), np.float32))
    assert memory.capture.written == 256
