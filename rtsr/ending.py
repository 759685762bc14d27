"""Which signals end a program that runs until it is told to stop."""

from __future__ import annotations

import signal

__all__ = ["ending_signals"]


def ending_signals() -> list[signal.Signals]:
    """Return those that this system has; under nohup SIGHUP is ignored, and stays so."""
    found = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]
    hang_up = getattr(signal, "SIGHUP", None)
    if hang_up is not None and signal.getsignal(hang_up) is signal.SIG_IGN:
        found.remove(hang_up)
    return [each for each in found if each is not None]
