"""What the tests of calls share; the helpers lie beside it, in files of their own."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def servers_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the log that a test's server begins on stderr end with the test."""
    for name in ("rtsr.call", "rtsr.page", "rtsr.certificate"):
        logger = logging.getLogger(name)
        for kept in ("handlers", "propagate", "level"):
            monkeypatch.setattr(logger, kept, getattr(logger, kept))


@pytest.fixture(scope="module")
def batch() -> Iterator[object]:
    """The shipped model with room for two calls, which nothing sheds: their time is simulated."""
    from rtsr import BatchUpsampler

    with BatchUpsampler(2, provider="cpu", overload="wait") as batch:
        yield batch


@pytest.fixture(scope="module")
def running(stand_in: Path) -> Iterator[Any]:
    """A SIP bridge with room for two calls, and the telephone that it calls."""
    from sip_ends import Running

    with Running(str(stand_in)) as running:
        yield running


@pytest.fixture
def peer(running: Any) -> Iterator[Any]:
    """A caller of that bridge; afterwards no call is left and every place is free."""
    from sip_ends import Peer

    peer = Peer(running.port)
    yield peer
    peer.close()
    running.until(lambda: running.bridge.calls == 0)
    assert running.engine.batch.free == 2


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let SIP sessions be as short as 2 s."""
    from rtsr.call.sip import session_timer

    monkeypatch.setattr(session_timer, "SHORTEST_SECONDS", 2)
