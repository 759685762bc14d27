"""The worker as a thread of the program: for programs that embed a session.

It shares the interpreter's lock with everything else in the program, so whatever the program does
in Python can make it late. Sound goes on even then, as dry signal.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable

from rtsr.errors import RtsrError
from rtsr.live.shared.memory import LiveMemory
from rtsr.live.worker.settings import WorkerSettings
from rtsr.live.worker.worker import HopListener, Worker, make_worker

_log = logging.getLogger(__name__)


class WorkerThread:
    """Starts and watches worker threads, as :class:`~rtsr.live.worker.process.WorkerProcess` does.

    Args:
        on_end: called as soon as a worker has ended.
        on_hop: see :class:`~rtsr.live.worker.worker.Worker`.
    """

    def __init__(
        self,
        memory: LiveMemory,
        on_end: Callable[[], None] | None = None,
        on_hop: HopListener | None = None,
    ) -> None:
        self._memory = memory
        self._on_end = on_end or (lambda: None)
        self._on_hop = on_hop
        self._thread: threading.Thread | None = None
        self._worker: Worker | None = None
        self.error: str | None = None

    def prepare(self) -> None:
        """Nothing to do: this program's imports are the worker's."""

    def start(self, memory_name: str, settings: WorkerSettings) -> None:
        """Start a worker; whether it became ready, the memory says."""
        self.error = None
        self._worker = None
        self._thread = threading.Thread(
            target=self._run, args=(settings,), name="rtsr-worker", daemon=True
        )
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether the newest worker has come to its end."""
        return self._thread is not None and not self._thread.is_alive()

    def wait(self, seconds: float) -> bool:
        """Wait for the newest worker's end; whether it came."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self.ended

    def kill(self) -> None:
        """Ask the thread to end after its present hop: it cannot be killed."""
        if self._worker is not None:
            self._worker.stop()

    def close(self) -> None:
        """End the worker."""
        self.kill()
        if self._thread is not None:
            self._thread.join(2.0)

    def _run(self, settings: WorkerSettings) -> None:
        try:
            worker = make_worker(self._memory, settings, self._on_hop)
            self._worker = worker
            worker.run()
        except RtsrError as error:
            self.error = str(error)
        except Exception as error:
            _log.exception("the worker failed")
            self.error = f"The worker failed ({type(error).__name__}: {error})."
        finally:
            with contextlib.suppress(Exception):
                self._on_end()
