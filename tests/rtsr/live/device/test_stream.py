"""Device streams, nearly always on a real sound server."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rtsr.errors import RtsrError
from rtsr.live.device import jack, portaudio
from rtsr.live.device import stream as stream_module
from rtsr.live.device.devices import Device
from rtsr.live.device.stream import DeviceStream
from rtsr.live.device.stream_format import StreamRequest, choose_format, find_devices
from rtsr.live.shared.memory import LiveMemory

HOP, OVERLAP = 480, 120


class Worker(threading.Thread):
    """Stands in for the engine: what was captured, delayed by the overlap, times two."""

    def __init__(self, memory: LiveMemory) -> None:
        super().__init__(daemon=True)
        self.memory = memory
        self.stopped = threading.Event()

    def run(self) -> None:
        block = np.zeros((HOP, self.memory.channels), np.float32)
        hops = 0
        while not self.stopped.wait(0.001):
            while self.memory.capture.written >= (hops + 1) * HOP:
                skipped = OVERLAP if hops == 0 else 0
                block[:skipped] = 0.0
                self.memory.capture.read(hops * HOP - OVERLAP + skipped, block[skipped:])
                self.memory.playback.write(2.0 * block)
                hops += 1

    def __enter__(self) -> Worker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.join()


@pytest.fixture
def memory(request: pytest.FixtureRequest) -> Iterator[LiveMemory]:
    with LiveMemory.create(getattr(request, "param", 1)) as memory:
        yield memory


def remember_for_two_seconds(stream: DeviceStream) -> None:
    until = time.monotonic() + 2.0
    while time.monotonic() < until:
        stream.remember_connections()
        time.sleep(0.1)


def count(memory: LiveMemory, name: str) -> int:
    return int(memory.callback[name])


def wait_for(condition: Any, seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(condition())


# Any other server spoils cycles on a busy machine without a word to the clients that were in time.
@pytest.mark.alone
@pytest.mark.parametrize(
    "jack_server", [{"period": n, "synchronous": True} for n in (32, 128, 1024)], indirect=True
)
@pytest.mark.parametrize("memory", [1, 2], indirect=True)
def test_what_is_recorded_is_what_the_worker_made_after_the_stated_latency(
    jack_server: Any, jack_player: Any, memory: LiveMemory
) -> None:
    sound = np.random.default_rng(1).uniform(-0.4, 0.4, 48000).astype(np.float32)
    last = memory.channels - 1
    with DeviceStream(memory) as stream, Worker(memory):
        shift = round(stream.latency.engine_frames)
        # On a busy machine the worker may be late, and even a patient server may lose a cycle.
        for _ in range(3):
            before = count(memory, "dry_frames")
            recording = jack_player.run(sound, into=f"rtsr:in_{last}", out_of=f"rtsr:out_{last}")
            dry = count(memory, "dry_frames") - before
            if dry == len(recording.gaps) == 0:
                break
    assert stream.latency.block == jack_server.period
    assert len(recording.gaps) == 0
    different = recording.sound[shift:] != 2.0 * sound[:-shift]
    assert np.count_nonzero(different) <= min(dry, len(sound) // 2)
    np.testing.assert_array_equal(recording.sound[:shift], 0.0)


@pytest.mark.alone
def test_python_cannot_delay_the_callback(jack_server: Any, memory: LiveMemory) -> None:
    with DeviceStream(memory):
        assert wait_for(lambda: count(memory, "callbacks") > 50)
        late = count(memory, "late_callbacks")
        before = count(memory, "callbacks")
        end = time.monotonic() + 2.0
        while time.monotonic() < end:  # holds the interpreter's lock throughout
            pass
        calls = count(memory, "callbacks") - before
        late = count(memory, "late_callbacks") - late
    # A busy machine makes the server itself lose cycles, which it says; a callback in Python would
    # be late every time.
    lost = count(memory, "input_overflows")
    assert calls > 100
    assert late <= 2 * lost + 0.02 * calls


class Pair(DeviceStream):
    """Two streams, as for two sound cards; its one clock is then followed as if unknown."""

    duplex = False  # type: ignore[assignment]


@pytest.mark.alone
def test_two_streams_keep_the_stated_latency(
    jack_server: Any, jack_player: Any, memory: LiveMemory
) -> None:
    sound = np.random.default_rng(2).uniform(-0.4, 0.4, 4 * 48000).astype(np.float32)
    with Pair(memory) as stream, Worker(memory):
        recording = jack_player.run(sound)
        stated = stream.latency.engine_frames
    # Where the second half of what was heard lies in what was played.
    heard = recording.sound[2 * 48000 : 2 * 48000 + 32768]
    played = sound[2 * 48000 - 8192 : 2 * 48000 + 32768]
    spectrum = np.fft.rfft(played) * np.conj(np.fft.rfft(heard, len(played)))
    measured = 8192 - int(np.argmax(np.fft.irfft(spectrum)))
    assert abs(measured - stated) <= 96
    assert count(memory, "resyncs") == 0
    assert abs(count(memory, "drift_ppb")) <= 1_000_000


def test_latency_follows_the_ports(jack_server: Any, jack_player: Any, memory: LiveMemory) -> None:
    with DeviceStream(memory) as stream:
        # To the dummy card: one period in, two out.
        parts = stream.latency.parts_ms
        assert parts["device_input"] == pytest.approx(1000 * 128 / 48000)
        assert parts["device_output"] == pytest.approx(2000 * 128 / 48000)
        assert stream.latency.total_ms == pytest.approx(sum(parts.values()))
        assert stream.latency.total_ms <= 30.0
        for port, other in (("rtsr:in_0", "system:capture_1"), ("rtsr:out_0", "system:playback_1")):
            jack_server.run("jack_disconnect", port, other)
        assert wait_for(lambda: stream.refresh_latency().device_output_s == 0.0)
        assert stream.latency.device_input_s == 0.0


def test_reopens_after_the_server_was_killed_and_restarted(
    jack_server: Any, memory: LiveMemory
) -> None:
    with DeviceStream(memory) as stream, Worker(memory):
        assert wait_for(lambda: count(memory, "callbacks") > 20)
        assert stream.active
        assert stream.silent_seconds < 0.5
        jack_server.kill()
        assert wait_for(lambda: not stream.active)
        with pytest.raises(RtsrError, match=r"'system' \(JACK .*\) is not there any more"):
            stream.reopen()
        with pytest.raises(RtsrError, match="is not there any more"):
            stream.reopen()
        assert not stream.active
        jack_server.start()
        before = count(memory, "callbacks")
        stream.reopen()
        assert wait_for(lambda: count(memory, "callbacks") > before + 20)
        assert stream.active
        assert memory.playback.written > 0


@pytest.mark.parametrize("ends", ["kill", "stop"])
def test_a_restarted_server_gets_the_connections_that_the_user_had_made(
    jack_server: Any, memory: LiveMemory, ends: str
) -> None:
    with DeviceStream(memory, output_channels=1) as stream:
        assert wait_for(lambda: count(memory, "callbacks") > 20)
        jack_server.run("jack_disconnect", "system:capture_1", "rtsr:in_0")
        jack_server.run("jack_connect", "rtsr:out_0", "system:playback_2")
        remember_for_two_seconds(stream)
        getattr(jack_server, ends)()
        while stream.active:
            stream.remember_connections()
        stream.close()
        jack_server.start()
        stream.reopen()
        links = jack_server.run("jack_lsp", "-c", "rtsr").split("\n")
        assert [line.strip() for line in links if line] == [
            "rtsr:in_0",
            "rtsr:out_0",
            "system:playback_1",
            "system:playback_2",
        ]


@pytest.mark.parametrize("period", [64, 1024])
def test_the_latency_follows_a_period_that_is_changed(
    jack_server: Any, memory: LiveMemory, period: int
) -> None:
    with DeviceStream(memory) as stream:
        assert wait_for(lambda: count(memory, "callbacks") > 20)
        assert not stream.has_other_block
        jack_server.set_period(period)
        assert wait_for(lambda: stream.has_other_block)
        stream.close()
        stream.reopen()
        before = count(memory, "callbacks")
        assert wait_for(lambda: count(memory, "callbacks") > before + 20)
        assert not stream.has_other_block
        assert stream.latency.block == period
        parts = stream.latency.parts_ms
        assert parts["device_input"] == pytest.approx(1000 * period / 48000)


@pytest.mark.parametrize("kind", [DeviceStream, Pair])
def test_the_latency_follows_a_device_whose_own_blocks_are_longer_than_expected(
    jack_server: Any, memory: LiveMemory, monkeypatch: pytest.MonkeyPatch, kind: type[DeviceStream]
) -> None:
    # As of a device that is no server, of which only PortAudio's calls tell.
    monkeypatch.setattr(stream_module.portaudio, "JACK", "another")
    monkeypatch.setattr(stream_module, "LARGEST_EXPECTED_BLOCK", 96)
    with kind(memory, block=0) as stream:
        assert stream.latency.block == 96
        assert wait_for(lambda: stream.has_other_block)
        stream.close()
        stream.reopen()
        before = count(memory, "callbacks")
        assert wait_for(lambda: count(memory, "callbacks") > before + 20)
        assert not stream.has_other_block
        assert stream.latency.block == 128


def test_closing_after_the_server_died_does_not_end_the_program(
    jack_server: Any, memory: LiveMemory
) -> None:
    stream = DeviceStream(memory)
    stream.start()
    assert wait_for(lambda: count(memory, "callbacks") > 20)
    jack_server.kill()
    stream.close()
    stream.close()
    assert not stream.active
    assert memory.callback_enabled


def test_one_session_opens_its_devices_again_while_another_sounds(jack_server: Any) -> None:
    with (
        LiveMemory.create(1) as memory,
        LiveMemory.create(1) as other_memory,
        DeviceStream(memory) as stream,
        DeviceStream(other_memory) as other,
    ):
        assert wait_for(lambda: count(other_memory, "callbacks") > 20)
        stream.reopen()
        before = count(memory, "callbacks")
        other_before = count(other_memory, "callbacks")
        assert wait_for(lambda: count(memory, "callbacks") > before + 20)
        assert wait_for(lambda: count(other_memory, "callbacks") > other_before + 20)
        assert stream.active
        assert other.active


def test_each_session_of_a_program_has_the_latency_and_connections_of_its_own_ports(
    jack_server: Any,
) -> None:
    with (
        LiveMemory.create(1) as memory,
        LiveMemory.create(1) as other_memory,
        DeviceStream(memory, output_channels=1) as stream,
        DeviceStream(other_memory, output_channels=1) as other,
    ):
        assert wait_for(lambda: count(other_memory, "callbacks") > 20)
        jack_server.run("jack_disconnect", "system:capture_1", "rtsr:in_1")
        jack_server.run("jack_connect", "rtsr:out_1", "system:playback_2")
        assert wait_for(lambda: other.refresh_latency().device_input_s == 0.0)
        assert stream.refresh_latency().device_input_s > 0.0
        remember_for_two_seconds(other)
        other.close()
        other.reopen()
        links = jack_server.run("jack_lsp", "-c", "rtsr").split("\n")
        # PortAudio counts on: the ports of a stream that has gone leave their numbers.
        assert [line.strip() for line in links if line] == [
            "rtsr:in_0",
            "system:capture_1",
            "rtsr:out_0",
            "system:playback_1",
            "rtsr:in_2",
            "rtsr:out_2",
            "system:playback_1",
            "system:playback_2",
        ]


class Looked(DeviceStream):
    """A stream that another session closes as soon as it is seen to sound."""

    output_device = None  # type: ignore[assignment]

    def __init__(self, host_api: str) -> None:
        self.output_device = SimpleNamespace(host_api=host_api)
        self.seen: list[str] = []
        self._expected_block = 128
        self._states = [SimpleNamespace(most_frames=256)]  # type: ignore[list-item]
        self._jack = SimpleNamespace(period=lambda: self.see(256))  # type: ignore[assignment]
        self._connections = SimpleNamespace(remember=lambda: self.see(None))  # type: ignore[assignment]
        self.other = threading.Thread(target=self._close_streams, daemon=True)

    def see(self, what: int | None) -> int | None:
        self.seen.append("open" if self._states else "closed")
        return what

    @property
    def _sounds(self) -> bool:
        self.other.start()
        self.other.join(0.2)
        return True

    def _close_streams(self) -> None:
        with portaudio.undisturbed():
            self._states.clear()


@pytest.mark.parametrize(
    ("host_api", "look"),
    [
        (portaudio.ALSA, lambda stream: stream.has_other_block),
        (portaudio.JACK, lambda stream: stream.has_other_block),
        (portaudio.JACK, lambda stream: stream.remember_connections() is None),
    ],
    ids=["blocks", "JACK's period", "JACK's connections"],
)
def test_no_other_session_closes_a_stream_that_is_being_looked_at(
    host_api: str, look: Callable[[DeviceStream], bool]
) -> None:
    stream = Looked(host_api)
    assert look(stream)
    assert "closed" not in stream.seen
    stream.other.join(5.0)
    assert not stream._states


def test_a_session_without_jack_does_not_look_for_its_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[int] = []
    monkeypatch.setattr(jack, "_library", lambda: looked.append(1))
    reader = jack.ServerReader()
    reader.close()
    assert not looked
    assert reader.period() is None
    assert looked


def test_opens_again_after_closing(jack_server: Any, memory: LiveMemory) -> None:
    for _ in range(2):
        with DeviceStream(memory) as stream:
            before = count(memory, "callbacks")
            assert wait_for(lambda before=before: count(memory, "callbacks") > before)
        assert not stream.active


def test_devices_that_were_asked_are_not_asked_again(
    jack_server: Any, memory: LiveMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = StreamRequest()
    chosen = choose_format(request, find_devices(request), 1)
    monkeypatch.setattr(Device, "rates", lambda *_: pytest.fail("it is asked for its rates"))
    with DeviceStream(memory, request, chosen) as stream:
        assert wait_for(lambda: count(memory, "callbacks") > 5)
        assert stream.rates == (48000, 48000)


@pytest.mark.parametrize("sample_format", ["int16", "int24", "float32"])
def test_formats(jack_server: Any, memory: LiveMemory, sample_format: str) -> None:
    with DeviceStream(memory, sample_format=sample_format, output_channels=1):
        assert wait_for(lambda: count(memory, "callbacks") > 5)
    assert count(memory, "clipped_samples") == 0


@pytest.mark.parametrize("jack_server", [{"rate": 44100}], indirect=True)
def test_a_device_at_another_rate_is_converted(jack_server: Any, memory: LiveMemory) -> None:
    with DeviceStream(memory) as stream, Worker(memory):
        assert wait_for(lambda: count(memory, "frames") > 44100 // 2)
        assert stream.rates == (44100, 44100)
        assert stream.latency.capture_resampler > 0
        assert stream.latency.playback_resampler > 0
        assert memory.capture.written == pytest.approx(
            count(memory, "capture_frames") * 48000 / 44100, abs=600
        )
    assert count(memory, "resyncs") == 0


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"rate": 44100}, "does not run at 44100 Hz, but at 48000 Hz"),
        ({"rate": 96000}, "does not run at 96000 Hz, but at 48000 Hz"),
        ({"rate": 64000}, "The rate must be one of 8000, .*, 192000 Hz, not 64000"),
        ({"input_channels": 3}, r"has 2 input channel\(s\), not 3; use --channels 2"),
        ({"output_channels": 5}, r"has 2 output channel\(s\), not 5"),
        ({"input_device": "no such thing"}, "No device's name contains 'no such thing'; there are"),
        ({"output_device": 99}, "There is no device 99; there are 0 'system'"),
        ({"block": 7}, "The device block must be 16 to 8192 frames, or 0"),
        ({"sample_format": "int8"}, "The sample format must be one of float32, int24, int16"),
    ],
)
def test_bad_input(
    jack_server: Any, memory: LiveMemory, fields: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(RtsrError, match=sentence) as caught:
        DeviceStream(memory, StreamRequest(**{"input_device": "system", **fields}))
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (-9985, "is busy or gone; close the program that uses it"),
        (-9999, "does not open .*; it may be busy or gone"),
        (-9997, "does not run at 48000 Hz"),
        (-9998, "does not offer 2 channels"),
        (-9994, "does not take int24 samples"),
        (-1, r"does not open \(strange\)"),
    ],
)
def test_refusals_are_one_sentence(code: int, sentence: str) -> None:
    error = Exception("Error opening Stream: strange [PaErrorCode]", code)
    text = portaudio.explain(error, "Device 3 'card'", 48000, "2 channels", "int24")
    assert text.startswith("Device 3 'card' ")
    assert text.endswith(".")
    assert re.search(sentence, text)
