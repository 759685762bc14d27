"""What a stream is to be opened with, and what its devices make of that."""

from __future__ import annotations

import numbers
import re
from dataclasses import dataclass, replace

from rtsr.arguments import check_integer, check_real, shown
from rtsr.errors import ArgumentError, RtsrError
from rtsr.live.callback.sample_formats import FORMATS
from rtsr.live.device import portaudio
from rtsr.live.device.devices import (
    Device,
    Kind,
    choose_rate,
    default_channels,
    find_device,
    list_devices,
)
from rtsr.live.device.latency import DEFAULT_ALLOWANCE_MS
from rtsr.timing import SAMPLE_RATE

# PortAudio appends the numbers of ALSA's card and of its device. A card that is plugged in again
# may get another number; which device of the card it is stays.
_CARD = re.compile(r" \(hw:\d+,(\d+)\)$")


@dataclass(frozen=True)
class StreamRequest:
    """What is asked of a stream.

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

    def check(self) -> None:
        """Raise `ArgumentError` for what no device could do."""
        for name, device in (("input", self.input_device), ("output", self.output_device)):
            if not (device is None or isinstance(device, str | numbers.Integral)):
                raise ArgumentError(
                    f"The {name} device is given by its number or a part of its name, "
                    f"not as {device!r}."
                )
        if self.sample_format not in tuple(FORMATS):
            raise ArgumentError(
                f"The sample format must be one of {', '.join(FORMATS)}, "
                f"not {self.sample_format!r}."
            )
        check_integer("device block", self.block)
        if not (self.block == 0 or 16 <= self.block <= 8192):
            raise ArgumentError(
                f"The device block must be 16 to 8192 frames, or 0 for the device's own, "
                f"not {self.block}."
            )
        check_real("allowance for a step", self.allowance_ms)
        if not 0.0 <= self.allowance_ms <= 1000.0:
            raise ArgumentError(
                f"The allowance for a step must be 0 to 1000 ms, not {shown(self.allowance_ms)}."
            )


@dataclass(frozen=True)
class DevicePair:
    """The device that captures and the one that plays, which may be the same.

    Attributes:
        source: captures.
        sink: plays.
        listed: all devices that have been there since these two were found.
    """

    source: Device
    sink: Device
    listed: tuple[Device, ...] = ()

    @property
    def on_server(self) -> bool:
        """Whether a sound server stands behind one of them."""
        return self.source.is_sound_server or self.sink.is_sound_server

    @property
    def on_jack(self) -> bool:
        """Whether both are ports of a JACK server."""
        return self.source.host_api == self.sink.host_api == portaudio.JACK

    @property
    def on_one_clock(self) -> bool:
        """Whether one stream captures with one and plays with the other."""
        # Reading and writing a server in turn, PortAudio waits for one while the other runs dry.
        if self.on_server:
            return False
        source, sink = self.source, self.sink
        return source.number == sink.number or (
            source.host_api == sink.host_api and source.host_api in portaudio.ONE_CLOCK_HOST_APIS
        )

    @property
    def label(self) -> str:
        """How a sentence calls them."""
        if self.source == self.sink:
            return self.source.label
        return f"{self.source.label} with {self.sink.label}"

    def without_gone(self) -> DevicePair:
        """Return the pair with those of `listed` that PortAudio still lists."""
        present = {(device.name, device.host_api) for device in list_devices()}
        return replace(
            self,
            listed=tuple(
                device for device in self.listed if (device.name, device.host_api) in present
            ),
        )

    def listed_again(self) -> DevicePair:
        """Return the same devices in PortAudio's present list: it numbers them anew at its start.

        ALSA, too, may have numbered a card anew that was plugged in again. It is not mistaken for
        one like it that has been there all the time.

        Raises:
            RtsrError: one is not there any more, or several may be the one.
        """
        devices = list_devices()
        return DevicePair(
            _same(devices, self.source, "input", self.listed),
            _same(devices, self.sink, "output", self.listed),
            tuple(devices),
        )


@dataclass(frozen=True)
class StreamFormat:
    """What the devices of a stream are opened with.

    Attributes:
        devices: to open.
        channels: of the engine between them.
        inputs: channels to capture.
        outputs: channels to play.
        rates: Hz of the capturing and of the playing device.
    """

    devices: DevicePair
    channels: int
    inputs: int
    outputs: int
    rates: tuple[int, int]


def find_devices(request: StreamRequest) -> DevicePair:
    """Return the devices that a request means.

    Raises:
        RtsrError: no device fits, or several do; they are listed.
    """
    return DevicePair(
        find_device(request.input_device, "input"),
        find_device(request.output_device, "output"),
        tuple(list_devices()),
    )


def choose_format(
    request: StreamRequest, devices: DevicePair, channels: int | None = None
) -> StreamFormat:
    """Ask devices, which may take them some ten milliseconds, and return what to open them with.

    Args:
        request: says what is wanted.
        devices: that will be opened.
        channels: of the engine; two where both devices have two if ``None``.

    Raises:
        ArgumentError: two rates are wanted of what has one.
        RtsrError: a device lacks the rate or the channels; the sentence names what it has.
    """
    source, sink = devices.source, devices.sink
    if channels is None:
        channels = default_channels(source, sink)
    inputs = request.input_channels or channels
    outputs = request.output_channels
    if outputs is None:
        outputs = channels if channels > 1 else min(2, sink.output_channels)
    _check_channels(source, "input", inputs)
    _check_channels(sink, "output", outputs)
    return StreamFormat(
        devices, channels, inputs, outputs, _choose_rates(request, devices, inputs, outputs)
    )


def _choose_rates(
    request: StreamRequest, devices: DevicePair, inputs: int, outputs: int
) -> tuple[int, int]:
    source, sink, form = devices.source, devices.sink, request.sample_format
    if not devices.on_one_clock:
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


def _check_channels(device: Device, kind: Kind, wanted: int) -> None:
    there = device.channels(kind)
    if wanted > there:
        raise RtsrError(
            f"{device.label} has {there} {kind} channel(s), not {wanted}; "
            f"use --channels {there} or another device."
        )


def _same(devices: list[Device], known: Device, kind: Kind, before: tuple[Device, ...]) -> Device:
    """Return the device that was known by the list ``before``, in the list of now.

    Raises:
        RtsrError: it is not there, or several may be it.
    """
    usable = [
        device for device in devices if device.host_api == known.host_api and device.channels(kind)
    ]
    same = [device for device in usable if device.name == known.name]
    if same:
        return next((device for device in same if device.number == known.number), same[0])
    # What had its name already while the known one was there is another one like it.
    others = {device.name for device in before if device.host_api == known.host_api}
    alike = [
        device
        for device in usable
        if device.name not in others and _without_card(device) == _without_card(known)
    ]
    if len(alike) > 1:
        raise RtsrError(
            f"'{known.name}' ({known.host_api}) is not there any more, and any of "
            f"{', '.join(device.label for device in alike)} may be the same; connect only one of "
            "them."
        )
    if not alike:
        raise RtsrError(
            f"'{known.name}' ({known.host_api}) is not there any more; connect it again."
        )
    return alike[0]


def _without_card(device: Device) -> str:
    """Return what stays of a device's name when its card gets another number."""
    return _CARD.sub(r" (hw:,\1)", device.name)
