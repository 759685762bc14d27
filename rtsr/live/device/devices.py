"""Which audio devices there are, what they can do, and which one a user means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from rtsr.arguments import check_integer
from rtsr.errors import ArgumentError, RtsrError
from rtsr.live.callback.sample_formats import FORMATS
from rtsr.live.device import portaudio
from rtsr.timing import HIGH_RATES, SAMPLE_RATE
from rtsr_kernels.resample import SUPPORTED_RATES

#: Rates in Hz of devices that rtsr converts, lowest first.
DEVICE_RATES = (*SUPPORTED_RATES, *HIGH_RATES)

Kind = Literal["input", "output"]
_VERB = {"input": "capture", "output": "play"}
# `default` is whatever the system was set up with, on a desktop nearly always one of the others.
_SOUND_SERVERS = ("pulse", "pipewire", "default")


@dataclass(frozen=True)
class Device:
    """One device as PortAudio lists it.

    Attributes:
        number: what `--input` and `--output` take; changes when devices come and go.
        name: of the device.
        host_api: of the system's sound interface, such as `ALSA`.
        input_channels: how many it captures.
        output_channels: how many it plays.
        default_rate: Hz it likes best.
        input_latency_ms: the lowest that PortAudio suggests.
        output_latency_ms: likewise.
    """

    number: int
    name: str
    host_api: str
    input_channels: int
    output_channels: int
    default_rate: int
    input_latency_ms: float
    output_latency_ms: float

    @property
    def label(self) -> str:
        """How a sentence calls it."""
        return f"Device {self.number} '{self.name}' ({self.host_api})"

    @property
    def is_sound_server(self) -> bool:
        """Whether a sound server behind ALSA plays for it: PulseAudio, or PipeWire in its place."""
        return self.host_api == portaudio.ALSA and self.name in _SOUND_SERVERS

    def channels(self, kind: Kind) -> int:
        """Channels in that direction."""
        return self.input_channels if kind == "input" else self.output_channels

    def rates(self, kind: Kind, channels: int = 1, sample_format: str = "float32") -> list[int]:
        """Rates in Hz that work, of those that rtsr converts, lowest first.

        An open device may refuse what it would take when it is free.
        """
        if not self.channels(kind):
            return []
        sounddevice = portaudio.load()
        check = getattr(sounddevice, f"check_{kind}_settings")
        working = []
        for rate in DEVICE_RATES:
            try:
                check(self.number, channels=channels, dtype=sample_format, samplerate=rate)
            except (sounddevice.PortAudioError, ValueError):
                continue
            working.append(rate)
        return working


def list_devices() -> list[Device]:
    """All devices, in PortAudio's order. `RtsrError` if PortAudio is not there."""
    sounddevice = portaudio.load()
    host_apis = [api["name"] for api in sounddevice.query_hostapis()]
    return [
        Device(
            number=number,
            name=" ".join(device["name"].split()),
            host_api=host_apis[device["hostapi"]],
            input_channels=device["max_input_channels"],
            output_channels=device["max_output_channels"],
            default_rate=round(device["default_samplerate"]),
            input_latency_ms=1000.0 * max(0.0, device["default_low_input_latency"]),
            output_latency_ms=1000.0 * max(0.0, device["default_low_output_latency"]),
        )
        for number, device in enumerate(sounddevice.query_devices())
    ]


def host_apis() -> list[str]:
    """Names of the sound interfaces that PortAudio was built for."""
    return [api["name"] for api in portaudio.load().query_hostapis()]


def default_device(kind: Kind, devices: list[Device] | None = None) -> Device | None:
    """Return what rtsr uses unless told otherwise; `None` if there is no such device at all.

    A running JACK server comes first: who started one wants it used. Then the system's default, and
    then that of any host API; PortAudio itself gives up if its first host API has no device.
    """
    sounddevice = portaudio.load()
    devices = list_devices() if devices is None else devices
    defaults = {api["name"]: api[f"default_{kind}_device"] for api in sounddevice.query_hostapis()}
    getter = f"Pa_GetDefault{kind.capitalize()}Device"
    numbers = [
        defaults.get(portaudio.JACK, -1),
        getattr(sounddevice._lib, getter)(),
        *defaults.values(),
    ]
    for number in numbers:
        if 0 <= number < len(devices) and devices[number].channels(kind):
            return devices[number]
    return next((device for device in devices if device.channels(kind)), None)


def find_device(wanted: int | str | None, kind: Kind) -> Device:
    """Return the device that a user means.

    Args:
        wanted: its number, a part of its name (and host API: all words must occur, in any case),
            or `None` for the default.
        kind: whether it is to capture (`input`) or to play (`output`).

    Raises:
        RtsrError: no device fits, or several do; they are listed.
    """
    devices = list_devices()
    usable = [device for device in devices if device.channels(kind)]
    if not usable:
        raise RtsrError(
            f"There is no device to {_VERB[kind]} with; connect one or start a sound server "
            f"(PortAudio looked for {', '.join(host_apis()) or 'none'})."
        )
    if wanted is None:
        device = default_device(kind, devices)
        assert device is not None
        return device
    if not isinstance(wanted, str) or wanted.strip().isdecimal():
        return _by_number(int(wanted), kind, devices, usable)
    return _by_name(wanted, kind, devices, usable)


def _by_number(number: int, kind: Kind, devices: list[Device], usable: list[Device]) -> Device:
    if not 0 <= number < len(devices):
        raise RtsrError(f"There is no device {number}; there are {_listing(usable)}.")
    if devices[number] not in usable:
        raise RtsrError(f"{devices[number].label} does not {_VERB[kind]}; try {_listing(usable)}.")
    return devices[number]


def _by_name(wanted: str, kind: Kind, devices: list[Device], usable: list[Device]) -> Device:
    text = wanted.strip().lower()
    if not text:
        raise ArgumentError(f"A device's name is empty; there are {_listing(usable)}.")
    exact = [device for device in usable if device.name.lower() == text]
    words = text.split()
    matches = exact or [
        device
        for device in usable
        if all(word in f"{device.name} {device.host_api}".lower() for word in words)
    ]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise RtsrError(
            f"'{wanted}' fits several devices, {_listing(matches)}; give more of the name or the "
            "number."
        )
    others = [
        device
        for device in devices
        if all(word in f"{device.name} {device.host_api}".lower() for word in words)
    ]
    if others:
        raise RtsrError(f"{others[0].label} does not {_VERB[kind]}; try {_listing(usable)}.")
    raise RtsrError(f"No device's name contains '{wanted}'; there are {_listing(usable)}.")


def _listing(devices: list[Device]) -> str:
    return ", ".join(f"{d.number} '{d.name}' ({d.host_api})" for d in devices)


def check_rate(wanted: int | None) -> None:
    """Raise `ArgumentError` for a rate that rtsr does not convert, whatever the device."""
    if wanted is None:
        return
    check_integer("rate", wanted)
    if wanted not in DEVICE_RATES:
        known = ", ".join(map(str, DEVICE_RATES))
        raise ArgumentError(f"The rate must be one of {known} Hz, not {wanted}.")


def choose_rate(
    device: Device,
    kind: Kind,
    wanted: int | None,
    channels: int,
    sample_format: str = "float32",
    preferred: int = SAMPLE_RATE,
) -> int:
    """Return the rate in Hz to open a device with: 48 kHz where it can, else what it likes best.

    Args:
        device: that is to be opened.
        kind: the direction.
        wanted: the only rate that will do, if it is not ``None``.
        channels: in that direction.
        sample_format: of its samples.
        preferred: rate that comes even before 48 kHz.

    Raises:
        ArgumentError: a rate or sample format that rtsr does not know.
        RtsrError: the wanted rate does not work, or none does; the sentence names those that do.
    """
    check_rate(wanted)
    if sample_format not in FORMATS:
        raise ArgumentError(
            f"The sample format must be one of {', '.join(FORMATS)}, not {sample_format!r}."
        )
    working = device.rates(kind, channels, sample_format)
    if wanted is not None:
        if wanted in working:
            return wanted
        if working:
            known = ", ".join(map(str, working))
            raise RtsrError(f"{device.label} does not run at {wanted} Hz, but at {known} Hz.")
    if not working:
        raise RtsrError(
            f"{device.label} runs at no rate that rtsr converts with {channels} channel(s) of "
            f"{sample_format}; it may be in use, see `rtsr devices`."
        )
    for rate in (preferred, SAMPLE_RATE, device.default_rate):
        if rate in working:
            return rate
    # What is nearest above, rather than four times as much.
    return next((rate for rate in working if rate > SAMPLE_RATE), working[-1])


def default_channels(source: Device, sink: Device) -> int:
    """Return the channels to enhance unless told otherwise: two where both devices have two."""
    return max(1, min(2, source.input_channels, sink.output_channels))


def describe(device: Device, used_for: list[str]) -> dict[str, Any]:
    """Return the device as an object for programs."""
    return {
        "number": device.number,
        "name": device.name,
        "host_api": device.host_api,
        "input_channels": device.input_channels,
        "output_channels": device.output_channels,
        "default_rate": device.default_rate,
        "input_rates": device.rates("input"),
        "output_rates": device.rates("output"),
        "input_latency_ms": round(device.input_latency_ms, 3),
        "output_latency_ms": round(device.output_latency_ms, 3),
        "used_for": used_for,
    }
