"""The guards, on stand-ins for a worker and a device."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from rtsr.errors import RtsrError
from rtsr.live import supervisor
from rtsr.live.shared.memory import LiveMemory
from rtsr.live.supervisor import DeviceGuard, WorkerGuard
from rtsr.live.worker.settings import WorkerSettings


class Host:
    """A worker host whose workers do what the test says."""

    def __init__(self, memory: LiveMemory) -> None:
        self.memory = memory
        self.started = 0
        self.killed = 0
        self.ended = False
        self.error: str | None = None
        self.becomes_ready = True

    def start(self, memory_name: str, settings: WorkerSettings) -> None:
        assert memory_name == self.memory.name
        self.started += 1
        self.ended = False
        if self.becomes_ready:
            words = self.memory.worker
            words["heartbeat_ns"] = time.monotonic_ns()
            words["ready"] = words["generation"]

    def wait(self, seconds: float) -> bool:
        return self.ended

    def kill(self) -> None:
        self.killed += 1


class Device:
    """A device that can be unplugged."""

    def __init__(self) -> None:
        self.active = True
        self.silent_seconds = 0.0
        self.has_other_block = False
        self.plugged = True
        self.opened = self.closed = 0

    def close(self) -> None:
        self.closed += 1

    def remember_connections(self) -> None:
        pass

    def reopen(self) -> None:
        if not self.plugged:
            raise RtsrError("It is not there.")
        self.opened += 1
        self.active = True
        self.silent_seconds = 0.0
        self.has_other_block = False


@pytest.fixture
def memory() -> Iterator[LiveMemory]:
    with LiveMemory.create(1) as memory:
        yield memory


@pytest.fixture
def host(memory: LiveMemory) -> Host:
    return Host(memory)


@pytest.fixture
def guard(memory: LiveMemory, host: Host) -> WorkerGuard:
    guard = WorkerGuard(memory, host, WorkerSettings())
    guard.start_worker()
    return guard


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_working_worker_is_left_alone(guard: WorkerGuard, host: Host) -> None:
    for _ in range(5):
        guard.check()
    assert (host.started, host.killed, guard.restarts) == (1, 0, 0)
    assert not guard.restarting


def test_a_dead_worker_is_replaced_at_once(guard: WorkerGuard, host: Host) -> None:
    host.ended = True
    assert guard.restarting
    guard.check()
    assert (host.started, guard.restarts) == (2, 1)
    assert guard.ready


def test_a_second_death_is_no_reason_to_wait(guard: WorkerGuard, host: Host) -> None:
    began = time.monotonic()
    for deaths in (1, 2):
        host.ended = True
        guard.check()
        assert guard.restarts == deaths
    assert time.monotonic() - began < 0.4


def test_silence_of_a_moment_is_no_reason(
    guard: WorkerGuard, host: Host, memory: LiveMemory
) -> None:
    memory.worker["heartbeat_ns"] = time.monotonic_ns() - 500_000_000
    guard.check()
    assert host.killed == 0


def test_a_silent_worker_is_killed_and_replaced(
    guard: WorkerGuard, host: Host, memory: LiveMemory
) -> None:
    memory.worker["heartbeat_ns"] = time.monotonic_ns() - 2_500_000_000
    guard.check()
    assert (host.killed, host.started, guard.restarts) == (1, 2, 1)


def test_a_worker_that_is_loading_gets_time(
    guard: WorkerGuard, host: Host, memory: LiveMemory
) -> None:
    host.becomes_ready = False
    host.ended = True
    guard.check()
    memory.worker["heartbeat_ns"] = 0
    guard.check()
    assert guard.restarting
    assert (host.killed, host.started) == (0, 2)


@pytest.mark.parametrize(("seconds", "replaced"), [(59.0, 0), (60.1, 1)])
def test_a_worker_that_hangs_while_it_starts_is_replaced(
    memory: LiveMemory, host: Host, seconds: float, replaced: int
) -> None:
    host.becomes_ready = False
    guard = WorkerGuard(memory, host, WorkerSettings())
    guard.start_worker()
    guard._started_ns -= round(1e9 * seconds)
    for _ in range(2):
        guard.check()
    assert (host.killed, guard.restarts, host.started - 1) == (replaced, replaced, replaced)


def test_one_that_always_dies_is_not_started_in_a_circle(
    guard: WorkerGuard, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "BACK_OFF_SECONDS", (0.0, 0.0, 0.3))
    began = time.monotonic()
    for _ in range(3):
        host.ended = True
        guard.check()
    assert guard.restarts == 3
    assert time.monotonic() - began > 0.5


def test_after_ten_seconds_of_work_a_death_is_no_reason_to_wait_again(
    guard: WorkerGuard, host: Host
) -> None:
    pauses: list[float] = []

    class Closing(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout or 0.0)
            return False

    guard._closing = Closing()

    def dies(after_seconds: float) -> None:
        guard._started_ns -= round(1e9 * after_seconds)
        host.ended = True
        guard.check()

    for _ in range(5):
        dies(after_seconds=9.0)
    assert pauses == [0.5, 2.0, 10.0]
    dies(after_seconds=10.1)
    dies(after_seconds=0.0)
    assert pauses == [0.5, 2.0, 10.0]
    assert guard.restarts == 7


def test_the_first_worker_is_waited_for_or_its_reason_is_given(
    memory: LiveMemory, host: Host
) -> None:
    host.becomes_ready = False
    guard = WorkerGuard(memory, host, WorkerSettings())
    guard.start_worker()
    with pytest.raises(RtsrError, match="not ready after 0 seconds"):
        guard.wait_until_ready(0.05)
    host.ended = True
    host.error = "The model is broken."
    with pytest.raises(RtsrError, match="The model is broken"):
        guard.wait_until_ready(1.0)


def test_a_nudge_is_acted_on_at_once(guard: WorkerGuard, host: Host) -> None:
    guard._seconds = 60.0
    guard.start()
    time.sleep(0.05)
    host.ended = True
    guard.nudge()
    wait_for(lambda: guard.restarts == 1, 1.0)
    guard.close()


@pytest.mark.parametrize("how", ["stopped", "silent"])
def test_a_device_is_opened_again_when_it_is_back(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "REOPEN_SECONDS", 0.02)
    device = Device()
    guard = DeviceGuard(device)
    guard.start()
    time.sleep(0.25)
    assert device.closed == 0
    device.plugged = False
    if how == "stopped":
        device.active = False
    else:
        device.silent_seconds = 3.0
    wait_for(lambda: guard.waiting)
    assert device.closed == 1
    device.plugged = True
    wait_for(lambda: guard.restarts == 1)
    wait_for(lambda: not guard.waiting)
    guard.close()
    assert (device.opened, device.closed) == (1, 1)


def test_a_device_whose_blocks_have_changed_is_opened_again_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "REOPEN_SECONDS", 60.0)
    device = Device()
    reopened = []
    guard = DeviceGuard(device, lambda: reopened.append(True))
    guard.check()
    assert (device.opened, device.closed) == (0, 0)
    device.has_other_block = True
    guard.check()
    guard.check()
    assert (device.opened, device.closed, guard.restarts, reopened) == (1, 1, 1, [True])
    assert not guard.waiting


def test_a_worker_is_replaced_when_the_device_has_come_back_as_another(
    guard: WorkerGuard, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "REOPEN_SECONDS", 0.02)
    settings = [WorkerSettings(), WorkerSettings(reserve_frames=1088)]
    for wanted, started in zip(settings, (1, 2), strict=True):
        device = Device()
        device.active = False
        device_guard = DeviceGuard(device, lambda wanted=wanted: guard.adapt(wanted))
        device_guard.check()
        assert device_guard.restarts == 1
        guard.check()
        guard.check()
        assert (host.started, guard.restarts) == (started, 0)


def test_a_guard_outlives_what_it_did_not_foresee(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "REOPEN_SECONDS", 0.02)
    monkeypatch.setattr(supervisor, "AFTER_ERROR_SECONDS", 0.02)
    device = Device()
    reopen = device.reopen
    attempts = []

    def fails_at_first() -> None:
        attempts.append(True)
        if len(attempts) == 1:
            raise OSError(28, "No space left on device")
        reopen()

    monkeypatch.setattr(device, "reopen", fails_at_first)
    device.active = False
    guard = DeviceGuard(device)
    guard.start()
    wait_for(lambda: guard.restarts == 1 and not guard.waiting)
    guard.close()
    assert "No space left" in caplog.text


def test_a_guard_can_be_closed_while_it_waits() -> None:
    device = Device()
    device.plugged = device.active = False
    guard = DeviceGuard(device)
    guard.start()
    wait_for(lambda: guard.waiting)
    guard.close()
    assert all(thread.name != "rtsr-device-guard" for thread in threading.enumerate())
