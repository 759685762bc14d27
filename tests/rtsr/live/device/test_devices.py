"""Listing and choosing devices, with invented ones and on a real sound server."""

from __future__ import annotations

import importlib
import json
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from rtsr.cli.app import app
from rtsr.errors import ArgumentError, MissingDependencyError, RtsrError
from rtsr.live.device import devices, portaudio
from rtsr.live.device.devices import (
    Device,
    choose_rate,
    default_channels,
    default_device,
    find_device,
)
from rtsr.live.device.stream_format import (
    DevicePair,
    StreamRequest,
    choose_format,
    find_devices,
)


class PortAudioError(Exception):
    pass


class Studio:
    """What sounddevice would tell on a machine with these devices."""

    PortAudioError = PortAudioError
    _initialized = 1

    def __init__(self, *listed: tuple[str, int, int, int], apis: tuple[str, ...]) -> None:
        self.apis = apis
        self.listed = listed
        self.rates: dict[int, tuple[int, ...]] = {}
        self.most_channels_at: dict[int, int] = {}
        self._lib = SimpleNamespace(
            Pa_GetDefaultInputDevice=lambda: self.query_hostapis()[0]["default_input_device"],
            Pa_GetDefaultOutputDevice=lambda: self.query_hostapis()[0]["default_output_device"],
        )

    def query_devices(self) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "hostapi": api,
                "max_input_channels": inputs,
                "max_output_channels": outputs,
                "default_samplerate": 44100.0,
                "default_low_input_latency": 0.01,
                "default_low_output_latency": -1.0,
            }
            for name, api, inputs, outputs in self.listed
        ]

    def query_hostapis(self) -> list[dict[str, Any]]:
        def first(api: int, direction: int) -> int:
            fitting = [
                number
                for number, device in enumerate(self.listed)
                if device[1] == api and device[direction]
            ]
            return fitting[0] if fitting else -1

        return [
            {
                "name": name,
                "default_input_device": first(api, 2),
                "default_output_device": first(api, 3),
            }
            for api, name in enumerate(self.apis)
        ]

    def _check(self, device: int, channels: int, dtype: str, samplerate: int) -> None:
        if samplerate not in self.rates.get(device, (44100, 48000)):
            raise PortAudioError("Invalid sample rate", -9997)
        if channels > self.most_channels_at.get(samplerate, channels):
            raise PortAudioError("Invalid number of channels", -9998)

    check_input_settings = check_output_settings = _check


@pytest.fixture
def studio(monkeypatch: pytest.MonkeyPatch) -> Studio:
    invented = Studio(
        ("Built-in  Audio", 0, 2, 2),
        ("USB Microphone", 0, 1, 0),
        ("USB Speakers", 0, 0, 2),
        ("USB Microphone", 1, 1, 0),
        ("Cable", 1, 2, 2),
        apis=("MME", "WASAPI"),
    )
    monkeypatch.setattr(portaudio, "load", lambda: invented)
    return invented


@pytest.mark.parametrize(
    ("wanted", "kind", "number"),
    [
        (None, "input", 0),
        (1, "input", 1),
        ("2", "output", 2),
        ("speak", "output", 2),
        ("CABLE", "input", 4),
        ("built-in audio", "output", 0),
        ("micro wasapi", "input", 3),
        (" usb", "output", 2),
    ],
)
def test_finds_what_is_meant(studio: Studio, wanted: Any, kind: Any, number: int) -> None:
    assert find_device(wanted, kind).number == number


@pytest.mark.parametrize(
    ("wanted", "kind", "sentence"),
    [
        ("usb", "input", r"'usb' fits several devices, 1 'USB Microphone' \(MME\), 3 'USB Micro"),
        ("usb microphone", "input", "fits several devices"),
        ("violin", "output", "No device's name contains 'violin'; there are 0 'Built-in Audio'"),
        ("speakers", "input", r"Device 2 'USB Speakers' \(MME\) does not capture; try 0"),
        (1, "output", "Device 1 'USB Microphone' .* does not play; try 0"),
        (7, "input", "There is no device 7; there are 0"),
        (-1, "input", "There is no device -1"),
        ("  ", "input", "A device's name is empty; there are"),
        ("\u00b2", "input", "No device's name contains '\u00b2'; there are"),
    ],
)
def test_names_what_is_there(studio: Studio, wanted: Any, kind: Any, sentence: str) -> None:
    with pytest.raises(RtsrError, match=sentence) as caught:
        find_device(wanted, kind)
    assert str(caught.value).endswith(".")


def test_a_jack_server_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    studio = Studio(("card", 0, 2, 2), ("system", 1, 2, 2), apis=("ALSA", portaudio.JACK))
    monkeypatch.setattr(portaudio, "load", lambda: studio)
    for kind in ("input", "output"):
        chosen = default_device(kind)  # type: ignore[arg-type]
        assert chosen is not None
        assert chosen.name == "system"


def test_the_first_host_api_may_be_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    studio = Studio(("mic", 1, 1, 0), ("speakers", 2, 0, 2), apis=("ALSA", "OSS", "Pulse"))
    monkeypatch.setattr(portaudio, "load", lambda: studio)
    assert find_device(None, "input").name == "mic"
    assert find_device(None, "output").name == "speakers"


def test_no_device_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portaudio, "load", lambda: Studio(apis=("ALSA", "OSS")))
    with pytest.raises(RtsrError, match=r"no device to capture with; .* ALSA, OSS\)"):
        find_device(None, "input")
    result = CliRunner().invoke(app, ["devices"])
    assert result.exit_code == 0
    assert "No audio device was found" in result.output


def test_chooses_a_rate(studio: Studio) -> None:
    card = find_device(0, "input")
    assert choose_rate(card, "input", None, 1) == 48000
    assert choose_rate(card, "input", 44100, 1) == 44100
    studio.rates[0] = (16000, 44100)
    assert choose_rate(card, "input", None, 1) == 44100
    studio.rates[0] = (8000, 16000)
    assert choose_rate(card, "input", None, 1) == 16000
    with pytest.raises(RtsrError, match="does not run at 48000 Hz, but at 8000, 16000 Hz"):
        choose_rate(card, "input", 48000, 1)
    studio.rates[0] = ()
    with pytest.raises(RtsrError, match="runs at no rate that rtsr converts with 2 channel"):
        choose_rate(card, "input", None, 2)
    with pytest.raises(ArgumentError, match="The rate must be one of 8000"):
        choose_rate(card, "input", 64000, 1)


def test_a_device_beyond_48_khz_has_its_own_rate(studio: Studio) -> None:
    card = find_device(0, "output")
    studio.rates[0] = (48000, 96000)
    assert choose_rate(card, "output", None, 1) == 48000
    assert choose_rate(card, "output", 96000, 1) == 96000
    assert choose_rate(card, "output", None, 1, preferred=96000) == 96000
    studio.rates[0] = (88200, 96000, 192000)
    assert choose_rate(card, "output", None, 1) == 88200
    studio.rates[0] = (48000,)
    with pytest.raises(RtsrError, match="does not run at 96000 Hz, but at 48000 Hz"):
        choose_rate(card, "output", 96000, 1)


def test_two_devices_may_have_two_rates(studio: Studio) -> None:
    pair = DevicePair(find_device(1, "input"), find_device(2, "output"))
    studio.rates.update({1: (16000, 48000, 96000), 2: (48000, 96000)})

    def rates(**wanted: int) -> tuple[int, int]:
        return choose_format(StreamRequest(**wanted), pair).rates

    assert rates() == (48000, 48000)
    # What the microphone has beyond 24 kHz is worth having.
    assert rates(output_rate=96000) == (96000, 96000)
    assert rates(rate=48000, output_rate=96000) == (48000, 96000)
    studio.rates[1] = (16000, 48000)
    assert rates(output_rate=96000) == (48000, 96000)
    card = find_device(0, "input")
    with pytest.raises(ArgumentError, match="at one rate: give 44100 or 48000 Hz, not both"):
        choose_format(StreamRequest(rate=44100, output_rate=48000), DevicePair(card, card))


def test_a_rate_is_chosen_that_works_with_the_channels_to_be_opened(studio: Studio) -> None:
    pair = DevicePair(find_device(1, "input"), find_device(2, "output"))
    studio.rates.update({1: (48000,), 2: (44100, 48000)})
    # A mono engine plays to both sides of a stereo device.
    chosen = choose_format(StreamRequest(), pair)
    assert (chosen.channels, chosen.inputs, chosen.outputs) == (1, 1, 2)
    assert chosen.rates == (48000, 48000)
    studio.most_channels_at[48000] = 1
    assert choose_format(StreamRequest(), pair).rates == (48000, 44100)
    assert choose_format(StreamRequest(output_channels=1), pair).rates == (48000, 48000)


def test_more_channels_than_a_device_has_are_refused(studio: Studio) -> None:
    pair = DevicePair(find_device(1, "input"), find_device(2, "output"))
    with pytest.raises(RtsrError, match=r"has 1 input channel\(s\), not 2; use --channels 1"):
        choose_format(StreamRequest(), pair, 2)
    with pytest.raises(RtsrError, match=r"has 2 output channel\(s\), not 3"):
        choose_format(StreamRequest(output_channels=3), pair)


@pytest.mark.parametrize(
    ("source", "sink", "on_one_clock"),
    [
        (0, 0, True),
        (1, 2, False),
        (3, 3, True),
        (4, 4, False),
        (0, 4, False),
        (5, 6, True),
    ],
    ids=["one card", "two cards", "same card", "sound server", "card and server", "JACK's ports"],
)
def test_one_stream_serves_devices_on_one_clock(source: int, sink: int, on_one_clock: bool) -> None:
    names = [("card", "ALSA")] * 4 + [
        ("pulse", "ALSA"),
        ("a", portaudio.JACK),
        ("b", portaudio.JACK),
    ]
    listed = [Device(n, *name, 2, 2, 48000, 5.0, 5.0) for n, name in enumerate(names)]
    assert DevicePair(listed[source], listed[sink]).on_one_clock is on_one_clock


def _alsa(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Have PortAudio list these devices from now on."""
    listed = [(name, 0, 1, 2) for name in names]
    monkeypatch.setattr(portaudio, "load", lambda: Studio(*listed, apis=("ALSA",)))


def _same_again(pair: DevicePair) -> tuple[str, DevicePair]:
    """The name of the device that both sides of a pair have now, as at a look every half second."""
    seen = pair.without_gone()
    again = seen.listed_again()
    assert again.source == again.sink
    return again.source.name, again


def test_a_card_that_comes_back_under_another_number_is_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mic = "USB Mic: Audio"
    _alsa(monkeypatch, "Built-in: PCM (hw:0,0)", f"{mic} (hw:1,0)", f"{mic} (hw:1,1)")
    pair = find_devices(StreamRequest(input_device="hw:1,0", output_device="hw:1,0"))
    _alsa(monkeypatch, "Built-in: PCM (hw:0,0)", "USB Mic: Other (hw:1,0)")
    with pytest.raises(RtsrError, match=r"'USB Mic: Audio \(hw:1,0\)' \(ALSA\) is not there any"):
        _same_again(pair)
    _alsa(monkeypatch, "Built-in: PCM (hw:0,0)", f"{mic} (hw:12,1)", f"{mic} (hw:12,0)")
    name, pair = _same_again(pair)
    assert name == f"{mic} (hw:12,0)"
    # And once more, from the number that it has now.
    _alsa(monkeypatch, f"{mic} (hw:3,0)")
    assert _same_again(pair)[0] == f"{mic} (hw:3,0)"


def test_of_two_equal_devices_none_is_mistaken_for_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second, third, fourth = (f"USB Mic: Audio (hw:{card},0)" for card in (1, 2, 3, 4))
    _alsa(monkeypatch, second, first)
    pair = find_devices(StreamRequest(input_device="hw:2,0", output_device="hw:2,0"))
    assert _same_again(pair)[0] == second
    # Unplugged. The other one was there before and still is.
    _alsa(monkeypatch, first)
    with pytest.raises(RtsrError, match="is not there any more; connect it again"):
        _same_again(pair)
    _alsa(monkeypatch, first, third)
    assert _same_again(pair)[0] == third
    _alsa(monkeypatch, third, fourth)
    with pytest.raises(RtsrError, match=r"any of Device 0 .*\(hw:3,0\).* may be the same"):
        _same_again(pair)
    # Both were away, and nothing tells which has come back but that only one has been asked for.
    _alsa(monkeypatch)
    pair = pair.without_gone()
    _alsa(monkeypatch, first)
    assert _same_again(pair)[0] == first


@pytest.mark.parametrize(
    ("inputs", "outputs", "channels"),
    [(1, 2, 1), (2, 2, 2), (2, 1, 1), (32, 32, 2)],
    ids=["mono microphone", "stereo", "mono loudspeaker", "sound server"],
)
def test_stereo_is_the_default_where_both_devices_have_two_channels(
    inputs: int, outputs: int, channels: int
) -> None:
    source = Device(0, "source", "ALSA", inputs, 0, 48000, 5.0, 0.0)
    sink = Device(1, "sink", "ALSA", 0, outputs, 48000, 0.0, 5.0)
    assert default_channels(source, sink) == channels


def test_lists_for_programs(studio: Studio) -> None:
    studio.rates[1] = (16000,)
    result = CliRunner().invoke(app, ["devices", "--json"])
    assert result.exit_code == 0
    listed = json.loads(result.stdout)
    assert listed["host_apis"] == ["MME", "WASAPI"]
    first, second, *_ = listed["devices"]
    assert first["name"] == "Built-in Audio"
    assert first["used_for"] == ["input", "output"]
    assert first["output_rates"] == [44100, 48000]
    assert (first["input_latency_ms"], first["output_latency_ms"]) == (10.0, 0.0)
    assert second["used_for"] == []
    assert (second["input_rates"], second["output_rates"]) == ([16000], [])


def test_lists_for_people(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    result = CliRunner().invoke(app, ["devices"])
    assert result.exit_code == 0
    rows = [row for row in result.output.splitlines() if "Built-in Audio" in row]
    assert len(rows) == 1
    for part in ("MME", "44.1 48", "10.0 ms / 0.0 ms", "input and output"):
        assert part in rows[0]


def test_lists_a_real_server(jack_server: Any) -> None:
    result = CliRunner().invoke(app, ["devices", "--json"])
    assert result.exit_code == 0
    system = next(
        device
        for device in json.loads(result.stdout)["devices"]
        if device["host_api"] == portaudio.JACK and device["name"] == "system"
    )
    assert system["input_rates"] == system["output_rates"] == [48000]
    assert (system["input_channels"], system["output_channels"]) == (2, 2)
    assert system["used_for"] == ["input", "output"]


@pytest.mark.parametrize(
    ("failure", "kind", "sentence"),
    [
        (ImportError("sounddevice"), MissingDependencyError, r'pip install "rtsr\[live\]"'),
        (OSError("PortAudio library not found"), RtsrError, "libportaudio2"),
        (PortAudioError("Error initializing PortAudio"), RtsrError, "PortAudio does not start"),
    ],
)
def test_without_portaudio(
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception,
    kind: type[Exception],
    sentence: str,
) -> None:
    known = importlib.import_module

    def refuse(name: str, package: str | None = None) -> Any:
        if name == "sounddevice":
            raise failure
        return known(name, package)

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(kind, match=sentence):
        devices.list_devices()
