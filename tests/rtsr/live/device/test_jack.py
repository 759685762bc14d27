"""What a JACK server says of itself, and what is believed of one that says nothing."""

from __future__ import annotations

from typing import Any

import pytest

from rtsr.live.device import jack

pytestmark = pytest.mark.parametrize("jack_server", [{"period": 32}], indirect=True)


def test_it_knows_the_server_and_its_clients(jack_server: Any) -> None:
    assert jack.period() == 32
    assert jack.has_client("system")
    assert not jack.has_client("nobody")
    assert jack.port_latency("nobody", 48000) is None


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
