"""The log of a server: one JSON object a line, about calls and never about who calls."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from typing import Any

__all__ = ["log_task_failures", "log_to_stderr"]

#: What a record may add to its message. Nothing else of it is written.
FIELDS = ("call", "codec", "seconds", "status", "reason")

_AGAIN_SECONDS = 10.0

_log = logging.getLogger("rtsr.call")


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        entry: dict[str, Any] = {
            "time": moment,
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        for name in FIELDS:
            if hasattr(record, name):
                entry[name] = getattr(record, name)
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            frame = error.__traceback__
            while frame is not None and frame.tb_next is not None:
                frame = frame.tb_next
            entry["error"] = f"{type(error).__name__}: {error}"
            if frame is not None:
                code = frame.tb_frame.f_code
                entry["at"] = f"{code.co_filename}:{frame.tb_lineno} {code.co_name}"
        return json.dumps(entry)


def log_to_stderr() -> None:
    """Write what happens to calls on stderr; other packages only from warnings up.

    aiosipua and aiortc name people and addresses in theirs, so that they stay out of it.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter())
    for name in ("rtsr.call", "rtsr.page", "rtsr.certificate"):
        own = logging.getLogger(name)
        own.handlers = [handler]
        own.propagate = False
        own.setLevel(logging.INFO)
    for name in ("aiosipua", "aiortc", "aioice", "uvicorn", "asyncio"):
        other = logging.getLogger(name)
        other.handlers = [logging.NullHandler()]
        other.propagate = False


def log_task_failures(loop: asyncio.AbstractEventLoop) -> None:
    """Log failures of tasks without an awaiter, such as those of a connection that broke off.

    Each is logged once every :data:`_AGAIN_SECONDS`: of connections that cannot be accepted while
    too many are open, asyncio tells thousands of times a second.
    """
    told: dict[str, float] = {}

    def on_failure(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        reason = f"{type(error).__name__}: {error}" if error else str(context.get("message"))
        now = loop.time()
        for old in [each for each, at in told.items() if now - at >= _AGAIN_SECONDS]:
            del told[old]
        if reason not in told:
            told[reason] = now
            _log.warning("a task of a connection failed", extra={"reason": reason})

    loop.set_exception_handler(on_failure)
