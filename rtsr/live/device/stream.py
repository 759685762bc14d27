"""The open sound devices of a live session: one duplex stream, or two streams and two clocks."""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from dataclasses import dataclass, replace
from typing import Any

from rtsr.errors import ArgumentError, RtsrError
from rtsr.live.callback.callback import PORTAUDIO_CALLBACK
from rtsr.live.callback.clock import monotonic_clock
from rtsr.live.callback.sample_formats import FORMATS
from rtsr.live.callback.state import CallbackState
from rtsr.live.device import jack, portaudio
from rtsr.live.device.connections import JackConnections
from rtsr.live.device.devices import Device, Kind, choose_rate, find_device, list_devices
from rtsr.live.device.latency import DEFAULT_ALLOWANCE_MS, StreamLatency
from rtsr.live.shared.memory import LiveMemory
from rtsr.timing import SAMPLE_RATE

# The fade to silence before a stream closes: 64 frames at the device's slowest, and its buffers.
_FADE_SECONDS = 0.02
# Without a fixed block the device's own is not known before it calls.
_LARGEST_EXPECTED_BLOCK = 1024
# Less, and a server's client library falls behind real time (seen with PulseAudio 16's null sink).
_SERVER_BLOCK = 512
_SERVER_LATENCY = 0.05
# Its blocks come several at a time, half a buffer's worth (25 ms measured with that latency).
_SERVER_BURSTS_MS = 30.0
# An idle null sink of PulseAudio finishes a block of two seconds before it takes anything new.
_SERVER_START_NS = 2_500_000_000
# Longer than the largest block and every burst.
_CALLING_SECONDS = 1.0

# PortAudio is one for the whole program, and starting it anew takes every session's streams away.
_portaudio_lock = threading.RLock()
_all: weakref.WeakSet[DeviceStream] = weakref.WeakSet()


@dataclass(frozen=True)
class StreamRequest:
    """What a stream is opened with.

    Attributes:
        input_device: number or part of the name of the device to capture with; the default if
            `None`.
        output_device: the one to play with.
        rate: Hz of both devices; 48 kHz where they can, else what they like best, if `None`.
        output_rate: Hz of the playing device, if that is another; one device has one rate. An input
            device that can then goes with it, where it is beyond 48 kHz and `rate` is `None`.
        block: frames per call, 0 for whatever the device likes; JACK always calls with its
            server's period.
        sample_format: `float32`, `int24` or `int16`.
        input_channels: to capture; as many as the engine has if `None`.
        output_channels: to play; as many as the engine has, or two for a mono engine, if `None`.
        allowance_ms: time that a step of the engine may take; part of the latency.
        suggested_latency: seconds, or `low` or `high`, for PortAudio.
    """

    input_device: int | str | None = None
    output_device: int | str | None = None
    rate: int | None = None
    output_rate: int | None = None
    block: int = 128
    sample_format: str = "float32"
    input_channels: int | None = None
    output_channels: int | None = None
    allowance_ms: float = DEFAULT_ALLOWANCE_MS
    suggested_latency: float | str = "low"

    def check(self) -> None:
        """Raise `ArgumentError` for what no device could do."""
        if self.sample_format not in FORMATS:
            raise ArgumentError(
                f"The sample format must be one of {', '.join(FORMATS)}, "
                f"not {self.sample_format!r}."
            )
        if not (self.block == 0 or 16 <= self.block <= 8192):
            raise ArgumentError(
                f"The device block must be 16 to 8192 frames, or 0 for the device's own, "
                f"not {self.block}."
            )
        if not 0.0 <= self.allowance_ms <= 1000.0:
            raise ArgumentError(
                f"The allowance for a step must be 0 to 1000 ms, not {self.allowance_ms:g}."
            )


def choose_rates(
    request: StreamRequest, source: Device, sink: Device, inputs: int, outputs: int
) -> tuple[int, int]:
    """Return the rates in Hz to open two devices with, the capturing one's first.

    Args:
        request: says which rates are wanted.
        source: captures.
        sink: plays.
        inputs: channels to capture.
        outputs: channels to play.

    Raises:
        ArgumentError: two rates are wanted of what has one.
        RtsrError: a device does not have the rate; the sentence names those that work.
    """
    form = request.sample_format
    if not are_duplex(source, sink):
        played = choose_rate(sink, "output", request.output_rate or request.rate, outputs, form)
        preferred = max(played, SAMPLE_RATE)
        return choose_rate(source, "input", request.rate, inputs, form, preferred), played
    wanted = request.output_rate or request.rate
    if request.rate is not None and request.rate != wanted:
        raise ArgumentError(
            f"{source.label} captures and plays on one clock, at one rate: give {request.rate} or "
            f"{wanted} Hz, not both."
        )
    rate = choose_rate(source, "input", wanted, inputs, form)
    return rate, choose_rate(sink, "output", rate, outputs, form)


def are_duplex(source: Device, sink: Device) -> bool:
    """Whether one stream, on one clock, captures with one device and plays with the other."""
    # Reading and writing a server in turn, PortAudio waits for one while the other runs dry.
    if source.is_sound_server or sink.is_sound_server:
        return False
    return source.number == sink.number or (
        source.host_api == sink.host_api and source.host_api in portaudio.ONE_CLOCK_HOST_APIS
    )


class DeviceStream:
    """Connects a session's memory with its devices; open after construction, until `start` silent.

    A device that vanishes shows as `active` being false or as `silent_seconds` growing; `reopen`
    then looks for it again. The memory must outlive the stream: `close` first.

    Args:
        memory: of the session; its channels are the engine's.
        request: see `StreamRequest`; also given by its fields as keywords.

    Raises:
        RtsrError: PortAudio or the device is not there, is busy, or cannot do what was asked for.
    """

    def __init__(
        self, memory: LiveMemory, request: StreamRequest | None = None, **fields: Any
    ) -> None:
        self.memory = memory
        self.request = replace(request or StreamRequest(), **fields)
        self.request.check()
        self._streams: list[Any] = []
        self._states: list[CallbackState] = []
        self._opened_ns = time.monotonic_ns()
        self._rates = (SAMPLE_RATE, SAMPLE_RATE)
        self._latency = StreamLatency(block=0)
        self._jack_name: str | None = None
        self._connections: JackConnections | None = None
        with _portaudio_lock:
            self.input_device, self.output_device = self._find()
            self._open()
            _all.add(self)

    @property
    def duplex(self) -> bool:
        """Whether one stream, on one clock, does both."""
        return are_duplex(self.input_device, self.output_device)

    @property
    def latency(self) -> StreamLatency:
        """Latency of this stream, in parts."""
        return self._latency

    @property
    def active(self) -> bool:
        """Whether every stream runs, as far as PortAudio knows."""
        sounddevice = portaudio.load()
        try:
            return bool(self._streams) and all(stream.active for stream in self._streams)
        except sounddevice.PortAudioError:
            return False

    @property
    def silent_seconds(self) -> float:
        """Time since a device last called; of two devices, the one that has been silent longer."""
        times = ("capture_time_ns", "playback_time_ns")
        # A stream that has just been opened gets as long as any other for its first call.
        oldest = min(max(int(self.memory.callback[name]), self._opened_ns) for name in times)
        return max(0.0, (time.monotonic_ns() - oldest) * 1e-9)

    @property
    def rates(self) -> tuple[int, int]:
        """Hz of the capturing and of the playing device."""
        return self._rates

    def start(self) -> None:
        """Let the sound run.

        Raises:
            RtsrError: a device does not start; everything is closed then.
        """
        self._opened_ns = time.monotonic_ns()
        if self._on_server:
            self._opened_ns += _SERVER_START_NS
        try:
            with _portaudio_lock:
                for stream in self._streams:
                    self._started(stream)
            # PortAudio asks for JACK's latencies before it connects its ports.
            self._jack_name = portaudio.jack_client_name() if self._on_jack() else None
            self._connect()
            self.refresh_latency()
        except BaseException:
            self._close_streams()
            raise

    def remember_connections(self) -> None:
        """Note what JACK's ports are connected with, for `reopen`; to be called often."""
        if self._connections is not None and self._jack_name is not None and self._sounds:
            self._connections.remember(self._jack_name)

    def refresh_latency(self) -> StreamLatency:
        """`latency` once more, after JACK's ports have been connected otherwise."""
        # Without PortAudio, which another thread may be starting anew at this moment.
        if self._streams and self._jack_name is not None:
            seconds = jack.port_latency(self._jack_name, self._rates[0])
            if seconds is not None:
                self._latency = replace(
                    self._latency, device_input_s=seconds[0], device_output_s=seconds[1]
                )
        return self._latency

    def close(self) -> None:
        """Fade out, stop and close. Never raises; the memory is free to be closed afterwards."""
        if not self._streams:
            return
        was_enabled = self.memory.callback_enabled
        if self.active and self.silent_seconds < 0.1:
            self.memory.callback_enabled = False
            time.sleep(_FADE_SECONDS + 2.0 * self._latency.block / self.memory.clock.rate)
        self._close_streams()
        self.memory.callback_enabled = was_enabled

    def reopen(self) -> None:
        """Close, list the devices that there are now, open the same ones again and start.

        PortAudio learns of new devices only by starting anew, which closes every stream of this
        program. So a device that was plugged in while another session sounds is not seen; one that
        stayed in PortAudio's list is. Frames go on being counted from where they were.

        Raises:
            RtsrError: the devices are not there (yet); `reopen` may be called again.
        """
        with _portaudio_lock:
            self._close_streams()
            others = [stream for stream in _all if stream is not self]
            if not any(stream._sounds for stream in others):
                # What would outlive PortAudio's end would be a pointer to nowhere.
                for stream in others:
                    stream._close_streams()
                portaudio.restart()
            self.input_device, self.output_device = self._find_again()
            self._open()
            self.start()

    def __enter__(self) -> DeviceStream:
        if not self.active:
            self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connect(self) -> None:
        """Undo what PortAudio connects by itself when a stream takes another one's place."""
        if self._jack_name is None:
            return
        if self._connections is None:
            self._connections = JackConnections(*self._channels())
        else:
            self._connections.restore(self._jack_name)

    def _find(self) -> tuple[Device, Device]:
        request = self.request
        return find_device(request.input_device, "input"), find_device(
            request.output_device, "output"
        )

    def _find_again(self) -> tuple[Device, Device]:
        """By name: numbers are dealt anew whenever PortAudio starts."""
        devices = list_devices()
        found = []
        kinds: tuple[tuple[Kind, Device], ...] = (
            ("input", self.input_device),
            ("output", self.output_device),
        )
        for kind, known in kinds:
            same = [
                device
                for device in devices
                if (device.name, device.host_api) == (known.name, known.host_api)
                and device.channels(kind)
            ]
            if not same:
                raise RtsrError(
                    f"'{known.name}' ({known.host_api}) is not there any more; connect it again."
                )
            numbers = [device.number for device in same]
            found.append(same[numbers.index(known.number)] if known.number in numbers else same[0])
        return found[0], found[1]

    def _channels(self) -> tuple[int, int]:
        engine = self.memory.channels
        inputs = self.request.input_channels or engine
        outputs = self.request.output_channels
        if outputs is None:
            outputs = engine if engine > 1 else min(2, self.output_device.output_channels)
        sides: tuple[tuple[Device, Kind, int], ...] = (
            (self.input_device, "input", inputs),
            (self.output_device, "output", outputs),
        )
        for device, kind, wanted in sides:
            there = device.channels(kind)
            if wanted > there:
                raise RtsrError(
                    f"{device.label} has {there} {kind} channel(s), not {wanted}; "
                    f"use --channels {there} or another device."
                )
        return inputs, outputs

    def _open(self) -> None:
        inputs, outputs = self._channels()
        self._rates = choose_rates(
            self.request, self.input_device, self.output_device, inputs, outputs
        )
        try:
            if self.duplex:
                self._open_duplex(inputs, outputs)
            else:
                self._open_pair(inputs, outputs)
        except BaseException:
            self._close_streams()
            raise

    def _open_duplex(self, inputs: int, outputs: int) -> None:
        rate = self._rates[0]
        block = self._largest_block(self.output_device, rate)
        latency = StreamLatency.one_device(
            block, rate, self.request.allowance_ms, self.memory.clock
        )
        state = self._state(
            rate=rate, input_channels=inputs, output_channels=outputs, delay=latency.delay
        )
        devices = (self.input_device.number, self.output_device.number)
        stream = self._stream("duplex", devices, (inputs, outputs), rate, state)
        self._latency = replace(
            latency,
            capture_resampler=state.input_delay,
            playback_resampler=state.output_delay,
            device_input_s=max(0.0, stream.latency[0]),
            device_output_s=max(0.0, stream.latency[1]),
        )

    def _open_pair(self, inputs: int, outputs: int) -> None:
        source, sink = self.input_device, self.output_device
        rates = self._rates
        blocks = (self._largest_block(source, rates[0]), self._largest_block(sink, rates[1]))
        bursts = _SERVER_BURSTS_MS if self._on_server else 0.0
        latency = StreamLatency.two_devices(
            blocks[1], rates[1], self.request.allowance_ms, bursts, self.memory.clock
        )
        capture = self._state(rate=rates[0], input_channels=inputs)
        playback = self._state(
            rate=rates[1],
            output_channels=outputs,
            delay=latency.delay,
            two_clocks=True,
            capture_block=blocks[0] * self.memory.clock.rate // rates[0],
        )
        input_stream = self._stream("input", source.number, inputs, rates[0], capture)
        output_stream = self._stream("output", sink.number, outputs, rates[1], playback)
        self._latency = replace(
            latency,
            capture_resampler=capture.input_delay,
            playback_resampler=playback.output_delay,
            device_input_s=max(0.0, input_stream.latency),
            device_output_s=max(0.0, output_stream.latency),
        )

    def _state(self, **settings: Any) -> CallbackState:
        clock = monotonic_clock()
        if clock is None and settings.get("two_clocks"):
            raise RtsrError("Two devices need a clock that this system lacks; use one device.")
        state = CallbackState(
            self.memory,
            input_format=self.request.sample_format,
            output_format=self.request.sample_format,
            clock=clock.address if clock is not None else 0,
            **settings,
        )
        self._states.append(state)
        return state

    def _stream(
        self, kind: str, device: Any, channels: Any, rate: int, state: CallbackState
    ) -> Any:
        calling = self.output_device if kind == "output" else self.input_device
        sounddevice = portaudio.load()
        try:
            stream = sounddevice._StreamBase(
                kind=kind,
                samplerate=rate,
                blocksize=self._block(calling),
                device=device,
                channels=channels,
                dtype=self.request.sample_format,
                latency=self._suggested_latency(calling),
                # Integers are to arrive as they left the engine.
                dither_off=True,
                callback=sounddevice._ffi.cast("PaStreamCallback*", PORTAUDIO_CALLBACK.address),
                userdata=sounddevice._ffi.cast("void*", state.address),
            )
        except (sounddevice.PortAudioError, ValueError) as error:
            raise self._refusal(error, kind, channels, rate) from error
        self._streams.append(stream)
        return stream

    def _started(self, stream: Any) -> None:
        sounddevice = portaudio.load()
        try:
            stream.start()
        except sounddevice.PortAudioError as error:
            raise self._refusal(error, "", stream.channels, round(stream.samplerate)) from error

    def _refusal(self, error: Exception, kind: str, channels: Any, rate: int) -> RtsrError:
        device = self.input_device.label if kind == "input" else self.output_device.label
        if kind not in ("input", "output") and self.input_device != self.output_device:
            device = f"{self.input_device.label} with {self.output_device.label}"
        counts = channels if isinstance(channels, tuple) else (channels,)
        wanted = " and ".join(f"{count} channel(s)" for count in dict.fromkeys(counts))
        return RtsrError(portaudio.explain(error, device, rate, wanted, self.request.sample_format))

    def _largest_block(self, device: Device, rate: int) -> int:
        """Most frames that a call may ask for."""
        period = jack.period() if device.host_api == portaudio.JACK else None
        block = self._block(device) if period is None else period
        if block:
            return block
        suggested = max(device.input_latency_ms, device.output_latency_ms) * rate / 1000.0
        return int(min(max(suggested, 128.0), _LARGEST_EXPECTED_BLOCK))

    def _block(self, device: Device) -> int:
        """Frames per call to ask PortAudio for, 0 to leave it to the device."""
        # JACK calls once per cycle of its own; any other block than that one PortAudio would
        # gather from several or cut from one, both at the cost of a block of latency.
        if device.host_api == portaudio.JACK:
            return 0
        if device.is_sound_server and self.request.block:
            return max(self.request.block, _SERVER_BLOCK)
        return self.request.block

    def _suggested_latency(self, device: Device) -> float | str:
        suggested = self.request.suggested_latency
        if device.is_sound_server and suggested == "low":
            return _SERVER_LATENCY
        return suggested

    @property
    def _on_server(self) -> bool:
        return self.input_device.is_sound_server or self.output_device.is_sound_server

    @property
    def _sounds(self) -> bool:
        return self.active and self.silent_seconds < _CALLING_SECONDS

    def _on_jack(self) -> bool:
        return self.input_device.host_api == self.output_device.host_api == portaudio.JACK

    def _close_streams(self) -> None:
        """Abort and close what is open, dead or alive."""
        with _portaudio_lock:
            on_jack = portaudio.JACK in (self.input_device.host_api, self.output_device.host_api)
            lost = bool(self._streams) and on_jack
            lost = lost and (self._died() or portaudio.server_is_lost())
            if self._connections is not None:
                self._connections.close(lost)
            if lost:
                # Closing them would end this program, see there.
                self._streams.clear()
                with contextlib.suppress(RtsrError):
                    portaudio.abandon()
            for stream in self._streams:
                for step in (stream.abort, stream.close):
                    with contextlib.suppress(Exception):
                        step(ignore_errors=True)
            self._streams.clear()
            # Only now may the memory that the callbacks worked on go.
            self._states.clear()

    def _died(self) -> bool:
        """Whether a stream has ended that nobody stopped."""
        sounddevice = portaudio.load()
        try:
            return any(not stream.active and not stream.stopped for stream in self._streams)
        except sounddevice.PortAudioError:
            return True
