"""The page in a real Chromium, whose microphone is a recording of a voice."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from browser import Browser, chromium
from network import speech
from scipy.signal import fftconvolve, resample_poly
from server import TOKEN, running_server

pytestmark = pytest.mark.skipif(chromium() is None, reason="there is no Chromium here")

RECORD = """
new Promise((done) => {
  const recorder = new MediaRecorder(document.getElementById('out').srcObject,
    { mimeType: 'audio/webm;codecs=opus', audioBitsPerSecond: 256000 });
  const parts = [];
  recorder.ondataavailable = (event) => parts.push(event.data);
  recorder.onstop = async () => {
    const bytes = new Uint8Array(await new Blob(parts).arrayBuffer());
    let text = '';
    for (let i = 0; i < bytes.length; i += 8192)
      text += String.fromCharCode(...bytes.subarray(i, i + 8192));
    done(btoa(text));
  };
  recorder.start();
  setTimeout(() => recorder.stop(), %d);
})
"""
STATE = "document.getElementById('state').textContent"


@pytest.fixture(scope="module")
def server():
    with running_server("--calls", "2") as server:
        yield server


@pytest.fixture(scope="module")
def microphone(tmp_path_factory):
    path = tmp_path_factory.mktemp("microphone") / "voice.wav"
    soundfile.write(path, speech(48000), 48000, subtype="PCM_16")
    return path


async def recorded(browser, seconds):
    """What the browser hears for so long, ``(samples,)`` at 48 kHz."""
    data = base64.b64decode(await browser.run(RECORD % round(1000 * seconds)))
    with av.open(io.BytesIO(data)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
    return np.concatenate([np.atleast_2d(frame)[0] for frame in frames]).astype(np.float64)


async def called(browser, server):
    await browser.open(f"{server.address}/?token={TOKEN}")
    await browser.run("document.getElementById('call').focus()")
    await browser.key("Enter")
    await browser.until(f"{STATE} === 'The call is on.'")
    await browser.until("document.getElementById('latency').tFoot.rows.length === 1")
    await asyncio.sleep(1.5)


async def hang_up(browser):
    await browser.run("document.getElementById('call').click()")
    await browser.until(f"{STATE} === 'The call is over.'")
    await asyncio.sleep(0.5)


def band_db(sound, low, high):
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)))) ** 2
    frequency = np.fft.rfftfreq(len(sound), 1 / 48000)
    return 10 * np.log10(spectrum[(frequency >= low) & (frequency < high)].sum() + 1e-20)


def aligned(recording, reference):
    """The stretch of a looped reference that fits the recording best, by the low band."""
    loop = np.concatenate([reference] * (2 + len(recording) // len(reference)))
    narrow = [resample_poly(x, 1, 8) for x in (recording, loop)]
    match = fftconvolve(narrow[1], narrow[0][::-1], "valid")
    start = 8 * int(np.argmax(match[: len(reference) // 8]))
    return loop[start : start + len(recording)]


@pytest.mark.alone
def test_a_browser_hears_what_enhance_makes_of_the_same_voice(server, microphone, tmp_path):
    from rtsr import enhance_file

    narrow = tmp_path / "narrow.wav"
    soundfile.write(narrow, speech(8000), 8000, subtype="PCM_16")
    enhance_file(narrow, tmp_path / "wide.wav")
    wide, _ = soundfile.read(tmp_path / "wide.wav")

    async def run():
        async with Browser(microphone) as browser:
            await called(browser, server)
            sound = await recorded(browser, 8.0)
            now = json.loads(await browser.run("JSON.stringify(lookedAt)"))
            await browser.picture(tmp_path / "page.png")
            await hang_up(browser)
        return sound, now

    got, now = asyncio.run(run())
    assert now["codec_in"] == "PCMU"
    assert now["codec_out"] == "opus"
    parts = now["latency_ms"]
    assert sum(v for k, v in parts.items() if k != "total") == pytest.approx(
        parts["total"], abs=0.1
    )
    assert len(got) > 7 * 48000
    expected = aligned(got, wide)
    gain = band_db(got, 300, 3000) - band_db(expected, 300, 3000)
    assert abs(gain) < 3.0
    assert abs(band_db(got, 4000, 8000) - band_db(expected, 4000, 8000)) < 6.0
    assert Path(tmp_path / "page.png").stat().st_size > 20_000


@pytest.mark.alone
def test_a_knob_and_the_switch_change_what_the_browser_hears(server, microphone):
    async def run():
        async with Browser(microphone) as browser:
            await called(browser, server)
            full = await recorded(browser, 4.0)
            await browser.run("document.getElementById('knob-wet').focus()")
            await browser.key("Home")
            await browser.until("document.getElementById('value-wet').textContent === '0 %'")
            await asyncio.sleep(0.5)
            none = await recorded(browser, 4.0)
            await browser.run("document.getElementById('knob-wet').value = 1000")
            await browser.run(
                "document.getElementById('knob-wet').dispatchEvent(new Event('input'))"
            )
            await browser.run("document.getElementById('ab').click()")
            checked = "document.getElementById('ab').getAttribute('aria-checked')"
            await browser.until(f"{checked} === 'false'")
            await asyncio.sleep(0.5)
            bypassed = await recorded(browser, 4.0)
            await hang_up(browser)
        return full, none, bypassed

    full, none, bypassed = asyncio.run(run())
    for quiet in (none, bypassed):
        assert band_db(full, 4600, 8000) > band_db(quiet, 4600, 8000) + 12
        assert abs(band_db(full, 300, 3000) - band_db(quiet, 300, 3000)) < 3.0
    assert server.metric("rtsr_calls") == 0.0


def test_without_a_microphone_the_page_says_so(server):
    async def run():
        async with Browser(None, "--deny-permission-prompts") as browser:
            await browser.open(f"{server.address}/?token={TOKEN}")
            await browser.run("document.getElementById('call').click()")
            await browser.until(f"{STATE}.startsWith('There is no microphone')")
        assert server.metric("rtsr_calls") == 0.0

    asyncio.run(run())


def test_everything_on_the_page_has_a_name_and_can_be_reached_by_key(server, microphone):
    async def run():
        async with Browser(microphone) as browser:
            await called(browser, server)
            await browser.run("document.activeElement.blur()")
            reached = set()
            for _ in range(16):
                await browser.key("Tab")
                reached.add(await browser.run("document.activeElement.id"))
            tree = (await browser.send("Accessibility.getFullAXTree"))["nodes"]
            wide = await browser.run(
                "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
            )
            await hang_up(browser)
        return reached, tree, wide

    reached, tree, wide = asyncio.run(run())
    knobs = {f"knob-{name}" for name in ("wet", "level_db", "tilt_db", "ceiling_hz", "gate_dbfs")}
    assert {"codec", "call", "ab", "out"} | knobs <= reached
    roles = ("button", "slider", "switch", "combobox")
    named = [node for node in tree if node.get("role", {}).get("value") in roles]
    assert len(named) >= 8
    assert all(node.get("name", {}).get("value") for node in named)
    assert wide
