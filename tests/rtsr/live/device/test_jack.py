"""What a JACK server says of itself, and what is believed of one that says nothing."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest

from rtsr.ending import ending_signals
from rtsr.live.controls.midi import ports
from rtsr.live.device import jack, portaudio

pytestmark = pytest.mark.parametrize("jack_server", [{"period": 32}], indirect=True)


def test_it_knows_the_server_and_its_clients(jack_server: Any) -> None:
    assert jack.period() == 32
    assert jack.has_client("system")
    assert not jack.has_client("nobody")
    assert jack.port_latency("nobody", jack.Ports(("in_0",), ("out_0",)), 48000) is None


def test_where_the_server_is_there_but_takes_nobody_in_no_client_is_taken_for_lost(
    jack_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jack, "_NAME", "longer than any that JACK accepts" * 2)
    assert jack.period() is None
    assert jack.has_client("system")


def test_without_a_server_there_is_no_client(jack_server: Any) -> None:
    jack_server.stop()
    assert jack.period() is None
    assert not jack.has_client("system")


def _read_and_leave() -> None:
    reader = jack.ServerReader()
    assert reader.connections("system", ("capture_1",))
    reader.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there, signals have no mask")
@pytest.mark.parametrize(
    "use",
    [jack.period, _read_and_leave, portaudio.restart, lambda: ports.list_ports("jack")],
    ids=["a question", "a reader", "PortAudio", "MIDI"],
)
def test_signals_that_end_a_program_do_not_stay_blocked(
    jack_server: Any, use: Callable[[], object]
) -> None:
    # JACK's library keeps what its first client finds blocked, and blocks it when the last leaves.
    with portaudio.undisturbed():
        portaudio.load()._terminate()
        first = jack.ServerReader()
        first.connections("system", ("capture_1",))
    use()
    first.close()
    use()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with portaudio.undisturbed():
        portaudio.restart()
    assert not blocked & set(ending_signals())
