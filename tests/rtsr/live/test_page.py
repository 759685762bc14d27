"""The page of `rtsr live` in a real browser, while a real sound server plays."""

from __future__ import annotations

import asyncio
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Browser, chromium
from desk import Desk

from rtsr import Colour
from rtsr.runtime.models import find_model

websockets = pytest.importorskip("websockets", reason="the extra page is not installed")

RATE = 48000
TOKEN = "a-token-for-tests"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
KNOBS = (
    *("wet", "level_db", "tilt_db", "ceiling_hz", "gate_dbfs", "colour", "cutoff_hz"),
    *("model", "seed"),
)

pytestmark = pytest.mark.parametrize("jack_server", [{"synchronous": True}], indirect=True)


class LivePage:
    """`rtsr live --page` on a port of its own."""

    def __init__(self, program: Any) -> None:
        self.program = program
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.netloc = f"127.0.0.1:{free.getsockname()[1]}"

    def start(self, *options: str) -> None:
        self.program.start(
            *("--cutoff", "4000", "--no-governor", "--page"),
            *("--listen", self.netloc, "--token", TOKEN, *options),
        )

    def view(self, **headers: str) -> Any:
        return websockets.connect(f"ws://{self.netloc}/view", additional_headers=headers)

    def status(self, path: str, headers: dict[str, str]) -> int:
        request = urllib.request.Request(f"http://{self.netloc}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code


@pytest.fixture
def page(live: Any) -> LivePage:
    return LivePage(live)


@pytest.fixture
def desk(jack_server: Any) -> Iterator[Desk]:
    pytest.importorskip("rtmidi", reason="python-rtmidi is not installed")
    desk = Desk("desk")
    yield desk
    desk.put_away()


def longest_run(values: np.ndarray) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], values.astype(np.int8), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def high_band_db(audio: np.ndarray) -> np.ndarray:
    """Level above 5 kHz of every 10 ms, against the median of the loudest half, in dB."""
    frames = audio[: len(audio) // 480 * 480].reshape(-1, 480)
    spectra = np.fft.rfft(frames * np.hanning(480), axis=1)
    power = np.square(np.abs(spectra[:, 50:])).sum(axis=1)
    return 10.0 * np.log10(power / np.quantile(power, 0.75) + 1e-20)


async def message(view: Any, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The next message that is the wanted one."""
    while True:
        found = json.loads(await asyncio.wait_for(view.recv(), 20))
        if wanted(found):
            return dict(found)


async def refusal(page: LivePage, headers: dict[str, str]) -> int:
    """Status with which a WebSocket is refused; 0 if it is not."""
    try:
        async with page.view(**headers) as view:
            await message(view, lambda m: m.get("kind") == "about")
            return 0
    except websockets.InvalidStatus as refused:
        return int(refused.response.status_code)


@pytest.mark.skipif(chromium() is None, reason="there is no Chromium here")
def test_a_knob_turned_in_the_browser_is_heard_and_everything_is_reached_by_key(
    page: LivePage, desk: Desk, jack_player: Any, make_sound: Callable[..., Any], tmp_path: Path
) -> None:
    async def watch() -> dict[str, Any]:
        async with Browser(None) as browser:
            await browser.open(f"http://{page.netloc}/?token={TOKEN}")
            await browser.until("lookedAt && document.getElementById('latency').tFoot.rows.length")
            jack_player.start(make_sound(RATE, 7.0, cutoff=4000.0)[:, 0])
            await browser.until("Math.max(...lookedAt.in_db) > -40")
            await asyncio.sleep(0.5)
            await browser.run("document.getElementById('knob-wet').focus()")
            await browser.key("Home")
            await browser.until("document.getElementById('value-wet').textContent === '0 %'")
            await browser.until("lookedAt.controls.wet === 0")
            await asyncio.sleep(1.0)
            await browser.key("End")
            await browser.until("lookedAt.controls.wet === 1")
            reached = set()
            await browser.run("document.activeElement.blur()")
            for _ in range(20):
                await browser.key("Tab")
                reached.add(await browser.run("document.activeElement.id"))
            tree = (await browser.send("Accessibility.getFullAXTree"))["nodes"]
            await browser.run("document.getElementById('learn-tilt_db').click()")
            await browser.until("document.getElementById('note').textContent.startsWith('Move')")
            desk.send(0xB2, 30, 64)
            await browser.until("document.getElementById('note').className === 'good'")
            await browser.until("document.getElementById('learn-tilt_db').textContent === 'CC 30'")
            desk.send(0xB2, 30, 127)
            await browser.until("lookedAt.controls.tilt_db === 6")
            pictures = {}
            for name, width, scheme in (("wide", 1200, "light"), ("phone", 390, "dark")):
                await browser.send(
                    "Emulation.setEmulatedMedia",
                    features=[{"name": "prefers-color-scheme", "value": scheme}],
                )
                await browser.send(
                    "Emulation.setDeviceMetricsOverride",
                    width=width, height=900, deviceScaleFactor=1, mobile=width < 500,
                )  # fmt: skip
                await asyncio.sleep(0.3)
                pictures[name] = await browser.run(
                    "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
                )
                await browser.picture(tmp_path / f"{name}.png")
            now = json.loads(await browser.run("JSON.stringify(lookedAt)"))
        return {"reached": reached, "tree": tree, "fits": pictures, "now": now}

    midi_map = tmp_path / "map.toml"
    page.start("--midi", "desk", "--midi-map", str(midi_map), "--learn", "wet")
    # `--learn` of the command line is over before the page wants to.
    desk.send(0xB0, 21, 127)
    seen = asyncio.run(watch())
    recording = jack_player.wait()
    page.program.stop()

    plain = high_band_db(recording.sound[RATE // 2 :]) < -30.0
    assert 80 <= longest_run(plain) <= 400
    assert longest_run(~plain) > 80
    assert {f"knob-{name}" for name in KNOBS} | {"ab", "learn-wet"} <= seen["reached"]
    roles = ("button", "slider", "switch", "combobox", "spinbutton")
    named = [node for node in seen["tree"] if node.get("role", {}).get("value") in roles]
    assert len(named) >= 15
    assert all(node.get("name", {}).get("value") for node in named)
    assert seen["fits"] == {"wide": True, "phone": True}
    assert 'name = "tilt_db"\ncc = 30' in midi_map.read_text()
    parts = seen["now"]["latency_ms"]
    assert sum(v for k, v in parts.items() if k != "total") == pytest.approx(parts["total"])
    # JACK's connections, and so the latency, change when the player goes.
    stated = [line["latency"]["total_ms"] for line in page.program.figures()]
    assert min(abs(parts["total"] - total) for total in stated) < 0.05
    assert seen["now"]["step_p50_ms"] > 0.0
    assert seen["now"]["cutoff_hz"] == 4000.0


def test_programs_with_the_token_steer_it_and_nobody_without(page: LivePage) -> None:
    async def steer() -> None:
        async with page.view(**BEARER) as view:
            about = await message(view, lambda m: m.get("kind") == "about")
            names = [control["name"] for control in about["controls"]]
            assert names == list(page.program.figures()[-1]["controls"])
            model = next(each for each in about["controls"] if each["kind"] == "choice")
            assert model["choices"] == ["small", "replicate", "dry"]
            await view.send('{"set": {"model": "dry", "seed": 7}}')
            now = await message(
                view,
                lambda m: (m.get("last_change") or "").startswith("small to dry"),
            )
            assert (now["fallback_level"], now["fallback"]) == ("dry", None)
            await view.send('{"set": {"bypass": 1}}')
            await message(view, lambda m: "bypass is on" in (m.get("fallback") or ""))
            for wrong, sentence in (
                ('{"set": {"wet": 2}}', "takes 0 to 1"),
                ('{"set": {"wet": NaN}}', "takes 0 to 1"),
                ('{"set": {"wet": true}}', "takes a number"),
                ('{"set": {"seed": 1' + 400 * "0" + "}}", "takes whole numbers"),
                ('{"set": {"model": "large"}}', "one of small, replicate, dry"),
                ('{"set": {"volume": 1}}', "There is no control 'volume'"),
                ('{"learn": "volume"}', "There is no control 'volume' here; there are wet,"),
                ('{"learn": []}', "There is no control [] here"),
                ('{"learn": "wet"}', "There is no MIDI device here"),
                ("[]", "one JSON object"),
            ):
                await view.send(wrong)
                error = await message(view, lambda m: "error" in m)
                assert sentence in error["error"]

    page.start()
    asyncio.run(steer())
    cookie = {"Cookie": f"rtsr_token_{page.netloc.split(':')[1]}={TOKEN}"}
    origin = {"Origin": f"http://{page.netloc}"}
    for headers, status in (
        ({}, 403),
        (origin, 403),
        (cookie, 403),
        ({**cookie, "Origin": "http://evil.example"}, 403),
        ({**cookie, "Origin": "http://127.0.0.1:1"}, 403),
        ({**cookie, **origin}, 0),
        (BEARER, 0),
    ):
        assert asyncio.run(refusal(page, headers)) == status, headers
    assert page.status("/", {}) == 401
    assert page.status("/", {**BEARER, "Host": "evil.example"}) == 421
    assert page.status("/", cookie) == 200
    assert page.status("/page/live.js", {}) == 200
    assert page.program.stop()["controls"]["seed"] == 7.0


def test_programs_see_what_is_known_of_the_colour(page: LivePage, tmp_path: Path) -> None:
    weights = find_model("small").metadata.weights_sha256
    Colour("small", weights, 12.0, ((3.0,) * 24,) * 4).save(tmp_path / "me.json")

    async def look() -> dict[str, Any]:
        async with page.view(**BEARER) as view:
            now = await message(view, lambda m: m.get("kind") == "now" and "100 %" in str(m))
            return dict(now["colour"])

    page.start("--colour", str(tmp_path / "me.json"))
    colour = asyncio.run(look())
    page.program.stop()
    assert colour["text"] == "12.0 s learnt, 100 % used"
    assert colour["gains_db"] == [3.0] * 24
    assert (colour["bands_hz"][0], colour["bands_hz"][-1]) == (4000, 24000)


@pytest.mark.skipif(chromium() is None, reason="there is no Chromium here")
def test_names_of_facts_keep_their_width_and_buttons_have_one(
    page: LivePage, tmp_path: Path
) -> None:
    weights = find_model("small").metadata.weights_sha256
    Colour("small", weights, 12.0, ((3.0,) * 24,) * 4).save(tmp_path / "me.json")

    async def look() -> tuple[dict[str, float], set[int]]:
        async with Browser(None) as browser:
            await browser.open(f"http://{page.netloc}/?token={TOKEN}")
            health = "document.getElementById('health').textContent"
            await browser.until(f"{health}.includes('+3.0 dB')")
            height = "term.offsetHeight / parseFloat(getComputedStyle(term).lineHeight)"
            terms = "[...document.querySelectorAll('#health dt')]"
            pairs = await browser.run(f"{terms}.map((term) => [term.textContent, {height}])")
            widths = await browser.run(
                "[...document.querySelectorAll('.learn')].map((button) => button.offsetWidth)"
            )
            return dict(pairs), set(widths)

    page.start("--colour", str(tmp_path / "me.json"))
    lines, widths = asyncio.run(look())
    page.program.stop()
    assert len(widths) <= 1
    assert len(lines) >= 16
    assert max(lines.values()) < 2.5, lines


@pytest.mark.skipif(chromium() is None, reason="there is no Chromium here")
def test_a_page_that_has_lost_its_connection_comes_back(page: LivePage) -> None:
    keep = """
    globalThis.sockets = [];
    globalThis.WebSocket = class extends WebSocket {
      constructor(...given) { super(...given); sockets.push(this); }
    };
    """
    state = "document.getElementById('state').textContent"

    async def look() -> None:
        async with Browser(None) as browser:
            await browser.send("Page.addScriptToEvaluateOnNewDocument", source=keep)
            await browser.open(f"http://{page.netloc}/?token={TOKEN}")
            await browser.until(f"{state}.startsWith('Playing from')")
            await browser.run("document.getElementById('knob-tilt_db').focus()")
            await browser.run("sockets[0].close()")
            await browser.until(f"{state}.startsWith('The connection is lost and tried again.')")
            await browser.until(f"{state}.startsWith('Playing from')")
            assert await browser.run("document.activeElement.id") == "knob-tilt_db"
            await browser.key("End")
            await browser.until("lookedAt.controls.tilt_db === 6")
            await asyncio.to_thread(page.program.stop)
            await browser.until(f"{state}.startsWith('The session is over.')")
            assert await browser.run("sockets.length") == 2

    page.start("--model", "dry")
    asyncio.run(look())


def test_it_ends_at_once_with_a_page_open_that_learns(page: LivePage, desk: Desk) -> None:
    async def look() -> float:
        async with page.view(**BEARER) as view:
            await view.send('{"learn": "wet"}')
            await message(view, lambda m: m.get("learning") == "wet")
            await view.send('{"learn": null}')
            end = await message(view, lambda m: m.get("kind") == "given_up")
            assert end["text"] == "Learning a knob for wet was given up."
            await view.send('{"learn": "wet"}')
            await message(view, lambda m: m.get("learning") == "wet")
            started = time.monotonic()
            await asyncio.to_thread(page.program.stop)
            return time.monotonic() - started

    page.start("--model", "dry", "--midi", "desk")
    # A knob is waited for for 30 s.
    assert asyncio.run(look()) < 20.0


def test_an_address_in_use_is_one_sentence(page: LivePage, capsys: Any) -> None:
    from rtsr.cli.app import app

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SystemExit) as ended:
            app(["live", "--page", "--listen", f"127.0.0.1:{taken.getsockname()[1]}"])
    assert ended.value.code == 2
    assert "Address already in use" in capsys.readouterr().err
