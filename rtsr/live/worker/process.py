"""The worker as a process of its own, forked from a server that has everything imported.

Importing takes half a second, building and warming a session a tenth of that. So the session does
not start workers itself: a small program, the fork server, imports what a worker needs and then
waits for orders on its stdin. A worker that died is replaced by a fork of it. Where there is no
fork (Windows) the fork server becomes the worker, and a restart costs a new one.

The fork server is a plain child process and not one of :mod:`multiprocessing`'s, because those
import the main program once more, which no program that embeds a session should have to guard
against, and which costs time at every restart.

Orders are lines of JSON, so are the answers: ``{"started": pid}``, ``{"error": sentence}`` and
``{"ended": pid, "code": exit code}``. The end of stdin tells the fork server that
the session is gone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import IO, Any

from rtsr.live.worker.settings import WorkerSettings

_log = logging.getLogger(__name__)

_CAN_FORK = hasattr(os, "fork")
_END_SECONDS = 2.0
# One step runs on one thread; pools of idle ones only cost memory, and do not survive a fork.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class WorkerProcess:
    """Starts, watches and ends worker processes, one at a time.

    Args:
        on_end: called from a thread of this object as soon as a worker has ended.
    """

    def __init__(self, on_end: Callable[[], None] | None = None) -> None:
        self._on_end = on_end or (lambda: None)
        self._fork_server: subprocess.Popen[bytes] | None = None
        self._changed = threading.Condition()
        self._pid = 0
        self.error: str | None = None
        self.exit_code: int | None = None

    def prepare(self) -> None:
        """Start the fork server, if there is none; its imports go on while this program does."""
        if self._fork_server is not None and self._fork_server.poll() is None:
            return
        environment = {**os.environ, **dict.fromkeys(_ONE_THREAD, "1")}
        # The same places to import from, or a program that extended them would lose its rtsr.
        environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
        fork_server = subprocess.Popen(
            [sys.executable, "-m", "rtsr.live.worker.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Which need not be file descriptor 2, see `stderr_for_python_alone`.
            stderr=_stderr(),
            env=environment,
            # Ctrl-C is for the session, which then ends its worker in good order.
            start_new_session=True,
        )
        self._fork_server = fork_server
        threading.Thread(
            target=self._listen, args=(fork_server,), name="rtsr-worker-watch", daemon=True
        ).start()

    def start(self, memory_name: str, settings: WorkerSettings) -> None:
        """Start a worker; whether it became ready, shared memory says."""
        self.prepare()
        assert self._fork_server is not None
        assert self._fork_server.stdin is not None
        with self._changed:
            self._pid = 0
            self.error = None
            self.exit_code = None
        order = json.dumps({"memory": memory_name, "settings": asdict(settings)})
        # A fork server that is gone is noticed by its listener.
        with contextlib.suppress(OSError):
            self._fork_server.stdin.write(order.encode() + b"\n")
            self._fork_server.stdin.flush()

    @property
    def ended(self) -> bool:
        """Whether the newest worker has come to its end."""
        with self._changed:
            return self.exit_code is not None

    def wait(self, seconds: float) -> bool:
        """Wait for the newest worker's end; whether it came."""
        with self._changed:
            return self._changed.wait_for(lambda: self.exit_code is not None, seconds)

    def kill(self) -> None:
        """End the newest worker at once, whatever it is doing."""
        with self._changed:
            pid = 0 if self.exit_code is not None else self._pid
        if pid:
            with contextlib.suppress(OSError):
                os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))

    def close(self) -> None:
        """End the worker, politely first, and the fork server."""
        fork_server, self._fork_server = self._fork_server, None
        if fork_server is None:
            return
        assert fork_server.stdin is not None
        with contextlib.suppress(OSError):
            fork_server.stdin.close()
        try:
            fork_server.wait(2.0 * _END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            fork_server.kill()
            fork_server.wait()

    def _listen(self, fork_server: subprocess.Popen[bytes]) -> None:
        assert fork_server.stdout is not None
        with fork_server.stdout:
            for line in fork_server.stdout:
                self._take(json.loads(line))
        fork_server.wait()
        if self._fork_server is fork_server and self.exit_code is None:
            # It took its worker with it: on Windows it was the worker.
            self._end(fork_server.returncode)

    def _take(self, answer: dict[str, Any]) -> None:
        if "started" in answer:
            with self._changed:
                self._pid = answer["started"]
        elif "error" in answer:
            self.error = answer["error"]
        elif answer.get("ended") == self._pid:
            self._end(answer["code"])

    def _end(self, code: int) -> None:
        with self._changed:
            self.exit_code = code
            self._changed.notify_all()
        self._on_end()


def _stderr() -> int | None:
    """Return the descriptor of Python's stderr; `None` (to inherit 2) where it has none."""
    try:
        return sys.stderr.fileno() if sys.stderr is not None else None
    except (OSError, ValueError):
        return None


class _ForkServer:
    """The other side: forks workers on demand and tells when they end."""

    def __init__(self, orders: IO[bytes], answers: int) -> None:
        self._orders = orders
        self._answers = answers
        self._workers: set[int] = set()

    def run(self) -> None:
        """Serve until stdin ends, then end the workers."""
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._orders, selectors.EVENT_READ)
            selector.register(wake_read, selectors.EVENT_READ)
            serving = True
            while serving:
                for key, _ in selector.select():
                    if key.fileobj is self._orders:
                        line = self._orders.readline()
                        serving = bool(line)
                        if line:
                            self._fork(line)
                    else:
                        with contextlib.suppress(BlockingIOError):
                            os.read(wake_read, 512)
                        self._reap()
        self._end_workers()

    def _fork(self, line: bytes) -> None:
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _become_worker(line, self._answers)
        self._workers.add(pid)
        _answer(self._answers, {"started": pid})
        self._reap()

    def _reap(self) -> None:
        for pid in list(self._workers):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._workers.discard(pid)
                code = os.waitstatus_to_exitcode(status)
                _answer(self._answers, {"ended": pid, "code": code})

    def _end_workers(self) -> None:
        import time

        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self._workers:
                os.kill(pid, number)
            deadline = time.monotonic() + _END_SECONDS
            while self._workers and time.monotonic() < deadline:
                time.sleep(0.005)
                self._reap()


def _become_worker(line: bytes, answers: int) -> None:
    """Run one worker and leave the process; never returns."""
    from rtsr.errors import RtsrError
    from rtsr.live.worker.worker import worker_main

    code = 1
    try:
        order = json.loads(line)
        worker_main(order["memory"], WorkerSettings(**order["settings"]))
        code = 0
    except RtsrError as error:
        _answer(answers, {"error": str(error)})
    except BaseException as error:
        _log.exception("the worker failed")
        _answer(answers, {"error": f"The worker failed ({type(error).__name__}: {error})."})
    finally:
        sys.stderr.flush()
        # Not through the interpreter's own end: what was inherited belongs to the fork server.
        os._exit(code)


def _answer(answers: int, message: dict[str, Any]) -> None:
    # The session may be gone; then nobody wants to know. Short lines arrive whole.
    with contextlib.suppress(OSError):
        os.write(answers, json.dumps(message).encode() + b"\n")


def _main() -> None:
    # What a library prints must not get between the answers.
    answers = os.dup(1)
    os.dup2(2, 1)
    for name in ("SIGINT", "SIGHUP", "SIGPIPE"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    from rtsr.live.worker import worker

    worker.import_everything()
    # Unbuffered: what select() does not see must not hide in a buffer.
    with open(0, "rb", buffering=0, closefd=False) as orders:
        if _CAN_FORK:
            _ForkServer(orders, answers).run()
            sys.stderr.flush()
            # The session waits for this end. The interpreter's own would first take down all that
            # was imported, which nobody needs.
            os._exit(0)
        line = orders.readline()
        if line:
            _answer(answers, {"started": os.getpid()})
            _become_worker(line, answers)


if __name__ == "__main__":
    _main()
