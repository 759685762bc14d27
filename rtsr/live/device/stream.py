"""The open sound devices of a live session: one duplex stream, or two streams and two clocks."""

from __future__ import annotations

import contextlib
import time
import weakref
from dataclasses import replace
from typing import Any

from rtsr.errors import RtsrError
from rtsr.live.callback.callback import PORTAUDIO_CALLBACK
from rtsr.live.callback.clock import monotonic_clock
from rtsr.live.callback.state import CallbackState
from rtsr.live.device import jack, portaudio
from rtsr.live.device.connections import JackConnections
from rtsr.live.device.devices import Device
from rtsr.live.device.latency import StreamLatency
from rtsr.live.device.stream_format import (
    StreamFormat,
    StreamRequest,
    choose_format,
    find_devices,
)
from rtsr.live.shared.memory import LiveMemory

# The fade to silence before a stream closes: 64 frames at the device's slowest, and its buffers.
_FADE_SECONDS = 0.02
# Without a fixed block the device's own is not known before it calls.
LARGEST_EXPECTED_BLOCK = 1024
# Less, and a server's client library falls behind real time (seen with PulseAudio 16's null sink).
_SERVER_BLOCK = 512
_SERVER_LATENCY = 0.05
# Its blocks come several at a time, half a buffer's worth (25 ms measured with that latency).
_SERVER_BURSTS_MS = 30.0
# An idle null sink of PulseAudio finishes a block of two seconds before it takes anything new.
_SERVER_START_NS = 2_500_000_000
# Longer than the largest block and every burst.
_CALLING_SECONDS = 1.0

_all: weakref.WeakSet[DeviceStream] = weakref.WeakSet()


class DeviceStream:
    """Connects a session's memory with its devices; open after construction, until `start` silent.

    A device that vanishes shows as `active` being false or as `silent_seconds` growing; `reopen`
    then looks for it again. The memory must outlive the stream: `close` first.

    Args:
        memory: of the session; its channels are the engine's.
        request: see `StreamRequest`; also given by its fields as keywords.
        chosen: what `choose_format` has made of the request, so that devices are not asked again.

    Raises:
        RtsrError: PortAudio or the device is not there, is busy, or cannot do what was asked for.
    """

    def __init__(
        self,
        memory: LiveMemory,
        request: StreamRequest | None = None,
        chosen: StreamFormat | None = None,
        **fields: Any,
    ) -> None:
        self.memory = memory
        self.request = replace(request or StreamRequest(), **fields)
        self.request.check()
        self._streams: list[Any] = []
        self._states: list[CallbackState] = []
        self._opened_ns = time.monotonic_ns()
        self._latency = StreamLatency(block=0)
        # Frames of the playing device, as the latency allows for them, and as they were seen.
        self._expected_block = 0
        self._longest_block = 0
        self._jack = jack.ServerReader()
        self._jack_name: str | None = None
        self._ports = jack.Ports()
        self._connections: JackConnections | None = None
        with portaudio.undisturbed():
            if chosen is None:
                self._format = choose_format(
                    self.request, find_devices(self.request), memory.channels
                )
            else:
                # Another session may have started PortAudio anew meanwhile.
                self._format = replace(chosen, devices=chosen.devices.listed_again())
            self._open()
            _all.add(self)

    @property
    def input_device(self) -> Device:
        """The device that captures."""
        return self._format.devices.source

    @property
    def output_device(self) -> Device:
        """The device that plays."""
        return self._format.devices.sink

    @property
    def duplex(self) -> bool:
        """Whether one stream, on one clock, does both."""
        return self._format.devices.on_one_clock

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
    def has_other_block(self) -> bool:
        """Whether blocks are not any more those that the latency is for; `reopen` adapts it.

        A JACK server's period can be changed while it runs, and a device that chooses its blocks
        itself may choose longer ones than were expected.
        """
        # Another session that opens its devices again may close this one's streams.
        with portaudio.undisturbed():
            if not self._sounds:
                return False
            if self.output_device.host_api == portaudio.JACK:
                # PortAudio cuts a longer period into calls of the one before.
                return self._jack.period() not in (None, self._expected_block)
            # The last one plays.
            return self._states[-1].most_frames > self._expected_block

    @property
    def rates(self) -> tuple[int, int]:
        """Hz of the capturing and of the playing device."""
        return self._format.rates

    def start(self) -> None:
        """Let the sound run.

        Raises:
            RtsrError: a device does not start; everything is closed then.
        """
        self._opened_ns = time.monotonic_ns()
        if self._format.devices.on_server:
            self._opened_ns += _SERVER_START_NS
        try:
            with portaudio.undisturbed():
                for stream in self._streams:
                    self._started(stream)
            # PortAudio asks for JACK's latencies before it connects its ports.
            self._connect()
            self.refresh_latency()
        except BaseException:
            self._close_streams()
            raise

    def remember_connections(self) -> None:
        """Note what JACK's ports are connected with, for `reopen`; to be called often."""
        # As `has_other_block` does.
        with portaudio.undisturbed():
            if self._connections is not None and self._sounds:
                self._connections.remember()

    def refresh_latency(self) -> StreamLatency:
        """`latency` once more, after JACK's ports have been connected otherwise."""
        # Without PortAudio, which another thread may be starting anew at this moment.
        if self._streams and self._jack_name is not None:
            seconds = jack.port_latency(self._jack_name, self._ports, self.rates[0])
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
        with portaudio.undisturbed():
            self._close_streams()
            others = [stream for stream in _all if stream is not self]
            if not any(stream._sounds for stream in others):
                # What would outlive PortAudio's end would be a pointer to nowhere.
                for stream in others:
                    stream._close_streams()
                portaudio.restart()
            self._format = replace(self._format, devices=self._format.devices.without_gone())
            devices = self._format.devices.listed_again()
            self._format = choose_format(self.request, devices, self.memory.channels)
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
            self._connections = JackConnections(self._jack, self._jack_name, self._ports)
        else:
            self._connections.restore(self._jack_name, self._ports)

    def _open(self) -> None:
        on_jack = self._format.devices.on_jack
        name = self._jack_name = portaudio.jack_client_name() if on_jack else None
        before = self._jack.ports(name) if name is not None else jack.Ports()
        try:
            if self.duplex:
                self._open_duplex()
            else:
                self._open_pair()
        except BaseException:
            self._close_streams()
            raise
        # Of all streams of this program, which are ports of one client, PortAudio numbers them.
        if name is not None:
            self._ports = self._jack.ports(name).without(before)

    def _open_duplex(self) -> None:
        inputs, outputs = self._format.inputs, self._format.outputs
        rate = self.rates[0]
        block = self._expected_block = self._largest_block(self.output_device, rate)
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

    def _open_pair(self) -> None:
        inputs, outputs = self._format.inputs, self._format.outputs
        source, sink = self.input_device, self.output_device
        rates = self.rates
        blocks = (self._largest_block(source, rates[0]), self._largest_block(sink, rates[1]))
        self._expected_block = blocks[1]
        bursts = _SERVER_BURSTS_MS if self._format.devices.on_server else 0.0
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
        devices = self._format.devices
        of_one = {"input": devices.source.label, "output": devices.sink.label}
        device = of_one.get(kind, devices.label)
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
        expected = int(min(max(suggested, 128.0), LARGEST_EXPECTED_BLOCK))
        return max(expected, self._longest_block)

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
        return _SERVER_LATENCY if device.is_sound_server else "low"

    @property
    def _sounds(self) -> bool:
        return self.active and self.silent_seconds < _CALLING_SECONDS

    def _close_streams(self) -> None:
        """Abort and close what is open, dead or alive."""
        with portaudio.undisturbed():
            on_jack = portaudio.JACK in (self.input_device.host_api, self.output_device.host_api)
            lost = bool(self._streams) and on_jack
            lost = lost and (self._died() or portaudio.server_is_lost())
            self._jack.close(lost)
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
            if self._states:
                self._longest_block = max(self._longest_block, self._states[-1].most_frames)
            self._states.clear()

    def _died(self) -> bool:
        """Whether a stream has ended that nobody stopped."""
        sounddevice = portaudio.load()
        try:
            return any(not stream.active and not stream.stopped for stream in self._streams)
        except sounddevice.PortAudioError:
            return True
