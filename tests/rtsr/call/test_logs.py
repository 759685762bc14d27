"""What the log of a server says, and how often."""

from __future__ import annotations

import asyncio

import pytest

from rtsr.call.logs import log_task_failures


def test_a_failure_that_goes_on_is_told_now_and_then(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail() -> None:
        loop = asyncio.get_running_loop()
        log_task_failures(loop)
        for seconds in (100.0, 109.0, 111.0):
            monkeypatch.setattr(loop, "time", lambda seconds=seconds: seconds)
            for _ in range(1000):
                loop.call_exception_handler({"exception": OSError(24, "Too many open files")})
            loop.call_exception_handler({"message": "another one"})
        monkeypatch.undo()

    asyncio.run(fail())
    reasons = [record.__dict__["reason"] for record in caplog.records]
    assert reasons == ["OSError: [Errno 24] Too many open files", "another one"] * 2
