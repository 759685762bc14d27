"""What holds PortAudio, which is one for the whole program."""

from __future__ import annotations

import signal
import sys
import threading

import pytest

from rtsr.live.device import portaudio


@pytest.mark.skipif(sys.platform == "win32", reason="there, signals have no mask")
def test_signals_that_end_the_program_wait_while_portaudio_is_held() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with portaudio.undisturbed():
            with portaudio.undisturbed():
                signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
            assert heard == []
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
