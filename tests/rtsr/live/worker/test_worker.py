"""The worker, its process and its guard, on a memory that a test fills instead of a device."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from rtsr.colour.colour import Colour
from rtsr.errors import RtsrError
from rtsr.live.controls.board import ControlBoard
from rtsr.live.device.latency import StreamLatency
from rtsr.live.monitor.history import FallbackHistory
from rtsr.live.settings import LiveSettings
from rtsr.live.shared.events import EventKind
from rtsr.live.shared.memory import LiveMemory
from rtsr.live.supervisor import WorkerGuard
from rtsr.live.worker.fallback_levels import fallback_levels_of
from rtsr.live.worker.process import WorkerProcess
from rtsr.live.worker.settings import WorkerSettings
from rtsr.live.worker.thread import WorkerThread
from rtsr.live.worker.worker import Worker
from rtsr.runtime.models import find_model
from rtsr.upsampler import Upsampler

pytestmark = pytest.mark.clocked

HOP, OVERLAP = 480, 120
CUTOFF = 4000.0


class Tape:
    """Plays the device's part: frames go in as they would be captured, or all at once."""

    def __init__(self, memory: LiveMemory, sound: np.ndarray) -> None:
        self.memory = memory
        self.sound = sound
        self.hops = 0

    def play(self, hops: int, wait: bool = True) -> None:
        for _ in range(hops):
            part = self.sound[self.hops * HOP : (self.hops + 1) * HOP]
            self.memory.capture.write(np.ascontiguousarray(part))
            self.hops += 1
            if wait:
                self.wait_until(lambda: self.memory.playback.written >= self.hops * HOP)

    def played(self, start: int, stop: int) -> np.ndarray:
        """The enhanced frames from hop to hop."""
        out = np.zeros(((stop - start) * HOP, self.memory.channels), np.float32)
        assert self.memory.playback.read(start * HOP, out) == len(out)
        return out

    @staticmethod
    def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.001)


@pytest.fixture(params=[1, 2])
def channels(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture
def memory(channels: int) -> Iterator[LiveMemory]:
    with LiveMemory.create(channels) as memory:
        yield memory


@pytest.fixture
def sound(make_sound: Callable[..., np.ndarray], channels: int) -> np.ndarray:
    return make_sound(48000, 2.0, cutoff=CUTOFF, channels=channels)


@pytest.fixture
def settings(stand_in: Path, channels: int) -> WorkerSettings:
    return WorkerSettings(channels=channels, model=str(stand_in), raise_priority=False)


def _board(memory: LiveMemory, fallback_levels: Sequence[str]) -> ControlBoard:
    """As a session leaves it that was told the cutoff."""
    board = ControlBoard(memory.controls, fallback_levels)
    board.reset()
    board.set("cutoff_hz", CUTOFF)
    return board


@pytest.fixture
def tape(memory: LiveMemory, sound: np.ndarray, settings: WorkerSettings) -> Tape:
    _board(memory, fallback_levels_of(settings.model))
    return Tape(memory, sound)


@pytest.fixture
def guard(memory: LiveMemory, settings: WorkerSettings, tape: Tape) -> Iterator[WorkerGuard]:
    host = WorkerProcess(lambda: guard.nudge())
    guard = WorkerGuard(memory, host, settings)
    guard.start_worker()
    guard.wait_until_ready(30.0)
    guard.start()
    yield guard
    guard.close()
    host.close()


@pytest.fixture
def thread(memory: LiveMemory, settings: WorkerSettings, tape: Tape) -> Iterator[WorkerGuard]:
    host = WorkerThread(memory)
    guard = WorkerGuard(memory, host, settings)
    guard.start_worker()
    guard.wait_until_ready(30.0)
    yield guard
    host.close()


def expected(sound: np.ndarray, model: str, hops: int) -> np.ndarray:
    """What the upsampler makes of the sound, aligned with the playback timeline."""
    with Upsampler(48000, model=model, channels=sound.shape[1], cutoff=CUTOFF) as upsampler:
        out = upsampler.process(sound[: (hops + 1) * HOP])
    return out[HOP : (hops + 1) * HOP].reshape(-1, sound.shape[1])


def test_it_makes_the_same_samples_as_an_upsampler(
    thread: WorkerGuard, tape: Tape, settings: WorkerSettings
) -> None:
    tape.play(100)
    wanted = expected(tape.sound, settings.model, 100)
    np.testing.assert_array_equal(tape.played(0, 100), wanted)
    words = tape.memory.worker
    assert words["steps"] == tape.memory.step_histogram.sum() == 100
    assert words["overruns"] == words["late_steps"] == 0
    assert words["cutoff_hz"] == CUTOFF


def test_a_process_makes_the_same_samples(
    guard: WorkerGuard, tape: Tape, settings: WorkerSettings
) -> None:
    tape.play(50)
    np.testing.assert_array_equal(tape.played(0, 50), expected(tape.sound, settings.model, 50))
    assert tape.memory.worker["pid"] not in (0, os.getpid())


def test_what_is_too_old_is_skipped_and_what_follows_fits(thread: WorkerGuard, tape: Tape) -> None:
    tape.play(20)
    # As if the worker had slept for 40 hops: all at once.
    tape.play(40, wait=False)
    tape.wait_until(lambda: tape.memory.playback.written >= 60 * HOP)
    skipped = int(tape.memory.worker["overruns"])
    assert 0 < skipped <= 39
    tape.play(10)
    # The dry part is the sound itself, without a seam: below the cutoff nothing was touched.
    out = tape.played(61, 70)
    dry = tape.sound[61 * HOP - OVERLAP : 70 * HOP - OVERLAP]
    spectrum = np.abs(np.fft.rfft((out - dry)[:, 0]))
    low = round(0.8 * CUTOFF * len(out) / 48000)
    assert spectrum[:low].max() < 1e-2 * np.abs(np.fft.rfft(dry[:, 0])).max()
    kinds = [event.kind for event in tape.memory.events.read()]
    assert EventKind.HOPS_SKIPPED in kinds


@pytest.mark.parametrize("model", ["replicate", "dry"])
@pytest.mark.parametrize("rate", [96000, 192000])
def test_beyond_48_khz_full_band_comes_out_as_it_came_in(rate: int, model: str) -> None:
    with LiveMemory.create(1, rate) as memory:
        clock = memory.clock
        levels = fallback_levels_of(model, clock.factor)
        ControlBoard(memory.controls, levels, rate / 2).reset()
        settings = LiveSettings(model=model, raise_priority=False)
        host = WorkerThread(memory)
        guard = WorkerGuard(memory, host, settings.for_worker(rate / 2, 0, 0))
        guard.start_worker()
        guard.wait_until_ready(30.0)
        sound = np.random.default_rng(0).normal(0.0, 0.1, (20 * clock.hop, 1)).astype(np.float32)
        for hop in range(20):
            memory.capture.write(sound[hop * clock.hop : (hop + 1) * clock.hop])
            Tape.wait_until(lambda hop=hop: memory.worker["next_hop"] > hop)
        host.close()
        played = np.zeros_like(sound)
        assert memory.playback.read(0, played) == len(played)
        assert np.array_equal(played[clock.lag :], sound[: -clock.lag])
        assert memory.worker["steps"] == 20
        assert memory.worker["overruns"] == 0


@pytest.mark.parametrize("cutoff_hz", [4000, 30000])
def test_beyond_48_khz_a_worker_begins_where_the_one_before_it_had_measured(cutoff_hz: int) -> None:
    with LiveMemory.create(1, 96000) as memory:
        ControlBoard(memory.controls, fallback_levels_of("replicate", 2), 48000).reset()
        memory.worker["cutoff_hz"] = cutoff_hz
        host = WorkerThread(memory)
        settings = LiveSettings(model="replicate", raise_priority=False)
        guard = WorkerGuard(memory, host, settings.for_worker(48000, 0, 0))
        guard.start_worker()
        guard.wait_until_ready(30.0)
        memory.capture.write(np.zeros((memory.clock.hop, 1), np.float32))
        Tape.wait_until(lambda: memory.worker["next_hop"] == 1)
        host.close()
        assert memory.worker["cutoff_hz"] == cutoff_hz


@pytest.mark.parametrize("channels", [1])
def test_a_thread_that_replaces_another_uses_the_colour_too(
    tape: Tape, settings: WorkerSettings
) -> None:
    facts = find_model(settings.model).metadata
    memory = tape.memory
    memory.colour.write(Colour(facts.name, facts.weights_sha256, 12.0, ((6.0,) * 24,) * 4))
    host = WorkerThread(memory)
    guard = WorkerGuard(memory, host, settings)
    shares = []
    for _ in range(2):
        guard.start_worker()
        guard.wait_until_ready(30.0)
        tape.play(3)
        host.close()
        shares.append(int(memory.worker["colour_permille"]))
    assert shares == [1000, 1000]


def test_late_hops_are_counted(thread: WorkerGuard, tape: Tape) -> None:
    tape.memory.callback["callbacks"] = 1
    tape.memory.callback["played_position"] = 10 * HOP
    tape.play(12)
    assert tape.memory.worker["late_steps"] == 10


@pytest.mark.alone
@pytest.mark.parametrize("block", [1024, 4096])
def test_a_block_of_several_hops_is_no_reason_to_skip_or_to_step_down(
    make_sound: Callable[..., np.ndarray], block: int
) -> None:
    with LiveMemory.create(1) as memory:
        fallback_levels = fallback_levels_of("replicate")
        _board(memory, fallback_levels)
        latency = StreamLatency.one_device(block, 48000, 5.0)
        settings = LiveSettings(model="replicate", raise_priority=False)
        host = WorkerThread(memory)
        reserve = latency.block + latency.look_ahead
        guard = WorkerGuard(
            memory, host, settings.for_worker(24000.0, reserve, latency.delay // HOP)
        )
        guard.start_worker()
        guard.wait_until_ready(30.0)
        sound = make_sound(48000, 2.0, cutoff=CUTOFF, channels=1)
        blocks = len(sound) // block
        memory.callback["callbacks"] = 1
        for place in range(0, blocks * block, block):
            memory.callback["played_position"] = place - latency.delay + block
            memory.capture.write(np.ascontiguousarray(sound[place : place + block]))
            hops = (place + block) // HOP
            Tape.wait_until(lambda hops=hops: memory.worker["next_hop"] >= hops)
        host.close()
        assert memory.worker["overruns"] == memory.worker["late_steps"] == 0
        assert memory.worker["steps"] == blocks * block // HOP
        kinds = {event.kind for event in memory.events.read()}
        assert kinds == {EventKind.WORKER_READY}


def test_a_killed_process_is_replaced_and_goes_on_at_the_newest_hop(
    guard: WorkerGuard, tape: Tape, settings: WorkerSettings
) -> None:
    tape.play(60)
    os.kill(int(tape.memory.worker["pid"]), signal.SIGKILL)
    killed = time.monotonic()
    tape.play(30, wait=False)
    tape.wait_until(lambda: tape.memory.playback.written >= 90 * HOP)
    # Not the figure of a quiet machine (0.2 s), but a sign that nothing is imported anew.
    assert time.monotonic() - killed < 2.0
    assert guard.restarts == 1
    tape.play(40)
    # With the past it went through, its sound is that of an undisturbed worker soon.
    np.testing.assert_allclose(
        tape.played(110, 130), expected(tape.sound, settings.model, 130)[110 * HOP :], atol=1e-6
    )
    assert tape.memory.playback.start > 60 * HOP


def test_a_stopped_process_goes_on_by_itself(guard: WorkerGuard, tape: Tape) -> None:
    tape.play(20)
    pid = int(tape.memory.worker["pid"])
    os.kill(pid, signal.SIGSTOP)
    tape.play(30, wait=False)
    time.sleep(0.3)
    os.kill(pid, signal.SIGCONT)
    tape.wait_until(lambda: tape.memory.playback.written >= 50 * HOP)
    assert guard.restarts == 0
    assert tape.memory.worker["pid"] == pid


def test_a_process_that_hangs_is_replaced(guard: WorkerGuard, tape: Tape) -> None:
    tape.play(5)
    pid = int(tape.memory.worker["pid"])
    os.kill(pid, signal.SIGSTOP)
    tape.wait_until(lambda: guard.restarts == 1 and guard.ready, 10.0)
    tape.play(5)
    assert tape.memory.worker["pid"] != pid


def test_controls_and_levels_are_followed_and_logged(
    memory: LiveMemory, sound: np.ndarray, channels: int
) -> None:
    fallback_levels = fallback_levels_of("replicate")
    board = _board(memory, fallback_levels)
    # Without its governor, which a busy machine would have a word with.
    settings = WorkerSettings(channels=channels, model="replicate", governor=False)
    started = time.monotonic_ns()
    host = WorkerThread(memory)
    guard = WorkerGuard(memory, host, settings)
    guard.start_worker()
    guard.wait_until_ready(30.0)
    tape = Tape(memory, sound)
    tape.play(30)
    enhanced = tape.played(20, 30)
    board.set("model", "dry")
    tape.play(30)
    dry = tape.played(50, 60)
    host.close()
    np.testing.assert_array_equal(dry, sound[50 * HOP - OVERLAP : 60 * HOP - OVERLAP])
    assert not np.array_equal(enhanced, sound[20 * HOP - OVERLAP : 30 * HOP - OVERLAP])
    history = FallbackHistory(memory.events, fallback_levels, started, fallback_levels[0])
    history.follow()
    assert [(change.from_level, change.to_level, change.cause) for change in history.changes] == [
        ("replicate", "dry", "wanted")
    ]
    assert set(history.seconds(time.monotonic_ns())) == {"replicate", "dry"}
    assert memory.worker["fallback_level"] == 1


@pytest.mark.parametrize("host_kind", [WorkerProcess, WorkerThread])
def test_a_worker_that_cannot_start_says_why(host_kind: type, failing_model: Path) -> None:
    with LiveMemory.create(1) as memory:
        ControlBoard(memory.controls).reset()
        host = host_kind(memory) if host_kind is WorkerThread else host_kind()
        settings = WorkerSettings(model=str(failing_model), provider="no such provider")
        guard = WorkerGuard(memory, host, settings)
        guard.start_worker()
        with pytest.raises(RtsrError, match="no such provider"):
            guard.wait_until_ready(30.0)
        host.close()


def test_the_fork_server_ends_with_the_session(
    memory: LiveMemory, settings: WorkerSettings, tape: Tape
) -> None:
    host = WorkerProcess()
    guard = WorkerGuard(memory, host, settings)
    guard.start_worker()
    guard.wait_until_ready(30.0)
    pid = int(memory.worker["pid"])
    os.kill(pid, 0)
    host.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_no_worker_outlives_a_fork_server_that_was_killed(guard: WorkerGuard, tape: Tape) -> None:
    tape.play(5)
    words = tape.memory.worker
    worker = int(words["pid"])
    fork_server = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
    assert fork_server != os.getpid()
    os.kill(fork_server, signal.SIGKILL)
    # It ends, and a new fork server has another one.
    tape.wait_until(lambda: guard.restarts == 1 and guard.ready)
    tape.play(5)
    assert words["pid"] != worker


def test_a_superseded_worker_ends(memory: LiveMemory, settings: WorkerSettings, tape: Tape) -> None:
    host = WorkerThread(memory)
    guard = WorkerGuard(memory, host, settings)
    guard.start_worker()
    guard.wait_until_ready(30.0)
    memory.worker["generation"] += 1
    assert host.wait(2.0)


def test_a_listener_may_change_what_is_played(
    memory: LiveMemory, settings: WorkerSettings, tape: Tape
) -> None:
    hops: list[int] = []

    def listen(hop: int, audio: np.ndarray, out: np.ndarray) -> None:
        hops.append(hop)
        out.fill(0.5)

    worker = Worker(memory, settings, listen)
    tape.play(3, wait=False)
    worker_ends_after(worker, lambda: memory.playback.written == 3 * HOP)
    assert hops == [0, 1, 2]
    np.testing.assert_array_equal(tape.played(0, 3), 0.5)


@pytest.mark.parametrize("channels", [1])
def test_what_a_worker_before_it_has_written_stays(memory: LiveMemory, sound: np.ndarray) -> None:
    _board(memory, fallback_levels_of("dry"))
    tape = Tape(memory, sound)
    hops: list[int] = []

    def mark(hop: int, audio: np.ndarray, out: np.ndarray) -> None:
        hops.append(hop)
        out.fill(hop + 0.5 * (hop in hops[:-1]))

    settings = WorkerSettings(model="dry", raise_priority=False)
    tape.play(20, wait=False)
    for hop in range(10):
        memory.playback.write(np.full((HOP, 1), hop, np.float32))
    # It goes through the past from hop 12 on; the one before it had made ten.
    worker = Worker(memory, settings, mark)
    worker_ends_after(worker, lambda: memory.playback.written == 20 * HOP)
    assert hops == list(range(12, 20))
    # The next one goes through hops that there are.
    worker = Worker(memory, settings, mark)
    tape.play(3, wait=False)
    worker_ends_after(worker, lambda: memory.playback.written >= 23 * HOP)
    assert hops[8:] == list(range(15, 23))
    assert memory.playback.written == 23 * HOP
    np.testing.assert_array_equal(tape.played(12, 23)[::HOP, 0], np.arange(12, 23))


@pytest.mark.parametrize("channels", [1])
def test_the_past_that_a_worker_goes_through_first_is_not_too_late(
    memory: LiveMemory, sound: np.ndarray
) -> None:
    _board(memory, fallback_levels_of("dry"))
    tape = Tape(memory, sound)
    tape.play(20, wait=False)
    hops: list[int] = []
    settings = WorkerSettings(model="dry", raise_priority=False, most_hops_behind=2)
    worker = Worker(memory, settings, lambda hop, audio, out: hops.append(hop))
    worker_ends_after(worker, lambda: len(hops) == 8)
    assert hops == list(range(12, 20))
    assert memory.worker["overruns"] == 0


@pytest.mark.parametrize("channels", [1])
def test_processor_time_goes_on_from_that_of_the_workers_before(
    memory: LiveMemory, sound: np.ndarray
) -> None:
    _board(memory, fallback_levels_of("dry"))
    memory.worker["cpu_ns"] = 10**12
    worker = Worker(memory, WorkerSettings(model="dry", raise_priority=False))
    Tape(memory, sound).play(3, wait=False)
    worker_ends_after(worker, lambda: memory.playback.written == 3 * HOP)
    # Of its thread alone, since it shares this program's process.
    assert 0 < memory.worker["cpu_ns"] - 10**12 < time.process_time_ns() // 2


_PROGRAM = """
import sys, threading, time
from rtsr.live.worker.settings import WorkerSettings
from rtsr.live.worker.worker import worker_main

def compute():
    while time.thread_time() < 0.5:
        pass

# Stands for the further threads of a network's step.
thread = threading.Thread(target=compute)
thread.start()
thread.join()
worker_main(sys.argv[1], WorkerSettings(model="dry", raise_priority=False))
print(time.thread_time_ns(), time.process_time_ns())
"""


@pytest.mark.parametrize("channels", [1])
def test_processor_time_of_a_process_is_that_of_all_its_threads(
    memory: LiveMemory, sound: np.ndarray
) -> None:
    _board(memory, fallback_levels_of("dry"))
    words = memory.worker
    words["generation"] = 1
    command = [sys.executable, "-c", _PROGRAM, memory.name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        Tape.wait_until(lambda: bool(words["ready"]) or process.poll() is not None, 60.0)
        Tape(memory, sound).play(3)
        words["stop"] = 1
        assert process.stdout is not None
        of_thread, of_process = map(int, process.stdout.read().split())
    assert of_process - of_thread > 450_000_000
    assert of_process - 100_000_000 < words["cpu_ns"] <= of_process


def worker_ends_after(worker: Worker, condition: Callable[[], bool]) -> None:
    import threading

    thread = threading.Thread(target=worker.run)
    thread.start()
    Tape.wait_until(condition)
    worker.stop()
    thread.join(2.0)
    assert not thread.is_alive()
