"""The page in a real Chromium, whose microphone is a recording of a voice."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.server
import io
import json
import threading
from pathlib import Path

import av
import mouth_to_ear
import numpy as np
import pytest
import soundfile
from browser import Browser, chromium
from network import speech
from resemblance import resemblance
from scipy.signal import fftconvolve, resample_poly
from server import TOKEN, running_server
from turns import beginning_db, in_turns, onsets

pytest.importorskip("aiortc", reason='calls need the extra "call", and Python 3.11 or newer')

pytestmark = [
    pytest.mark.clocked,
    pytest.mark.skipif(chromium() is None, reason="there is no Chromium here"),
]

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
# Nothing is beyond the edge, and no name of a curve is broken into two lines.
FITS = """
document.documentElement.scrollWidth <= document.documentElement.clientWidth
  && [...document.querySelectorAll('.legend span')].every((e) => e.getClientRects().length === 1)
"""
STATE = "document.getElementById('state').textContent"

# A page that would rather not be sent silence, and is told that the server would rather not, too.
ASK_FOR_DTX = r"""
(() => {
  const asking = ({ type, sdp }) => ({ type, sdp: !globalThis.asksForDtx ? sdp : sdp
    .replace(/a=fmtp:111 .*\r\n/g, '')
    .replace(/(a=rtpmap:111 opus.*\r\n)/g, '$1a=fmtp:111 useinbandfec=1;usedtx=1\r\n') });
  globalThis.RTCPeerConnection = class extends RTCPeerConnection {
    constructor(...given) { super(...given); globalThis.made = this; }
    async createOffer(...given) { return asking(await super.createOffer(...given)); }
    async setRemoteDescription(answer) { return super.setRemoteDescription(asking(answer)); }
  };
})()
"""
# Ten times a second: packets that came, packets that were sent, packets that were lost.
COUNT = """
(async () => {
  const rows = [], end = performance.now() + %d;
  while (performance.now() < end) {
    const all = [...(await made.getStats()).values()];
    const came = all.find((each) => each.type === 'inbound-rtp');
    const sent = all.find((each) => each.type === 'outbound-rtp');
    rows.push([came.packetsReceived, sent.packetsSent, came.packetsLost]);
    await new Promise((done) => setTimeout(done, 100));
  }
  return rows;
})()
"""


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
    return decoded(await browser.run(RECORD % round(1000 * seconds)))


def decoded(recording):
    """The sound of what ``RECORD`` gives, ``(samples,)`` at 48 kHz."""
    data = base64.b64decode(recording)
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
            sound = await recorded(browser, 12.0)
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
    assert len(got) > 11 * 48000
    expected = aligned(got, wide)
    assert resemblance(got, expected) > 0.9
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
            await browser.run("document.getElementById('knob-wet').value = 1")
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


def test_the_page_shows_what_is_learnt_of_the_callers_colour(stand_in, microphone):
    async def run(server):
        async with Browser(microphone) as browser:
            await called(browser, server)
            shown = await browser.run("document.getElementById('health').innerText")
            await hang_up(browser)
            return shown.split()

    for colour in ((), ("--colour", "auto")):
        with running_server("--model", str(stand_in), *colour) as server:
            shown = asyncio.run(run(server))
        assert ("Colour" in shown) is bool(colour)


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
            await browser.open(f"{server.address}/?token={TOKEN}")
            await browser.key("Tab")
            # Not in a call, where another choice would change nothing.
            reached = {await browser.run("document.activeElement.id")}
            await called(browser, server)
            assert await browser.run("document.activeElement.id") == "call"
            assert await browser.run("document.getElementById('codec').disabled")
            await browser.run("document.activeElement.blur()")
            for _ in range(16):
                await browser.key("Tab")
                reached.add(await browser.run("document.activeElement.id"))
            tree = (await browser.send("Accessibility.getFullAXTree"))["nodes"]
            fits = [await browser.run(FITS)]
            await browser.send(
                "Emulation.setDeviceMetricsOverride",
                width=390, height=844, deviceScaleFactor=1, mobile=True,
            )  # fmt: skip
            # The chart follows the window's width in its own time.
            await browser.until(FITS)
            fits.append(await browser.run(FITS))
            # Of large letters a word may be broken, but nothing is beyond the edge.
            await browser.run("document.documentElement.style.fontSize = '32px'")
            await browser.until(f"({FITS.split('&&')[0]})")
            await hang_up(browser)
        return reached, tree, fits

    reached, tree, fits = asyncio.run(run())
    knobs = {f"knob-{name}" for name in ("wet", "level_db", "tilt_db", "ceiling_hz", "gate_dbfs")}
    assert {"codec", "call", "ab", "out"} | knobs <= reached
    roles = ("button", "slider", "switch", "combobox")
    named = [node for node in tree if node.get("role", {}).get("value") in roles]
    assert len(named) >= 8
    assert all(node.get("name", {}).get("value") for node in named)
    assert fits == [True, True]


def test_a_knob_is_turned_back_by_key_and_what_it_does_not_take_is_said(server, microphone):
    async def run():
        async with Browser(microphone) as browser:
            await called(browser, server)
            level = "document.getElementById('value-level_db')"
            await browser.run("document.getElementById('knob-level_db').focus()")
            for key, value in (("ArrowRight", 0.5), ("ArrowLeft", 0), ("ArrowLeft", -0.5)):
                await browser.key(key)
                await browser.until(f"lookedAt.controls.level_db === {value}")
                assert await browser.run(f"{level}.textContent") == f"{value} dB"
            await browser.run("document.getElementById('knob-seed').focus()")
            await browser.run(
                "document.activeElement.value = '7.5';"
                "document.activeElement.dispatchEvent(new Event('change'))"
            )
            note = "document.getElementById('note')"
            await browser.until(f"{note}.textContent.includes('whole numbers')")
            await browser.run("document.getElementById('knob-level_db').focus()")
            await browser.until("document.getElementById('knob-seed').value === '0'")
            await browser.key("ArrowRight")
            await browser.until(f"{note}.textContent === ''")
            # Others turn knobs, too: what they do is not read aloud, one's own is said by the knob.
            nodes = (await browser.send("Accessibility.getFullAXTree"))["nodes"]
            properties = [
                {each["name"]: each["value"].get("value") for each in node.get("properties", [])}
                for node in nodes
                if node.get("role", {}).get("value") == "status"
            ]
            assert len(properties) >= 8
            assert sum(each.get("live") == "polite" for each in properties) == 3
            await hang_up(browser)
            assert await browser.run("document.getElementById('fallback').textContent.trim()") == ""

    asyncio.run(run())


def test_the_legend_keeps_its_colours_where_the_system_has_its_own(server):
    async def run():
        async with Browser(None) as browser:
            await browser.open(f"{server.address}/?token={TOKEN}")
            await browser.send(
                "Emulation.setEmulatedMedia",
                features=[{"name": "forced-colors", "value": "active"}],
            )
            colours = await browser.run(
                "[...document.querySelectorAll('.legend span')]"
                ".map((e) => getComputedStyle(e).color)"
            )
            assert len(set(colours)) == 3

    asyncio.run(run())


@contextlib.contextmanager
def another_site(link):
    """The address of a page with a link, as a message in a browser is."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(f'<a id="link" href="{link}">Call</a>'.encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        yield f"http://localhost:{site.server_address[1]}/"
        site.shutdown()


def test_a_link_on_another_site_opens_the_page_and_a_wrong_one_is_told_so(server):
    async def run():
        async with Browser(None) as browser:
            await browser.open(f"{server.address}/?token=wrong")
            alert = "document.querySelector('[role=alert]').textContent"
            assert (await browser.run(alert)).startswith("Open the address that rtsr printed")
            with another_site(f"{server.address}/?token={TOKEN}") as site:
                await browser.open(site)
                await browser.run("document.getElementById('link').click()")
                await browser.until("document.readyState === 'complete' && location.search === ''")
                await browser.until("document.getElementById('call') !== null")

    asyncio.run(run())


def test_the_page_says_what_is_missing_for_a_call(stand_in, microphone):
    async def run():
        async with Browser(microphone) as browser:
            with running_server("--model", str(stand_in)) as server:
                await browser.open(f"{server.address}/?token={TOKEN}")
                # As browsers have it on a page of another machine without HTTPS.
                devices = "Object.defineProperty(navigator, 'mediaDevices', {{ value: {} }})"
                call = "document.getElementById('call').click()"
                await browser.run("globalThis.devices = navigator.mediaDevices")
                await browser.run(devices.format("undefined, configurable: true"))
                await browser.run(call)
                await browser.until(f"{STATE}.includes('HTTPS')")
                await browser.run(devices.format("devices"))
            await browser.run(call)
            await browser.until(f"{STATE}.startsWith('The server does not answer')")

    asyncio.run(run())


def test_a_call_outlasts_a_network_that_is_gone_for_a_while(stand_in, microphone):
    async def run():
        with running_server("--model", str(stand_in)) as server:
            async with Browser(microphone) as browser:
                await browser.send("Page.addScriptToEvaluateOnNewDocument", source=ASK_FOR_DTX)
                await called(browser, server)
                # What the browser tells while nothing comes, and what when it comes again.
                for state, sentence in (
                    ("disconnected", "Nothing comes through any more; waiting."),
                    ("connected", "The call is on."),
                ):
                    await browser.run(
                        f"Object.defineProperty(made, 'connectionState', {{ value: '{state}',"
                        " configurable: true }); made.onconnectionstatechange()"
                    )
                    assert await browser.run(STATE) == sentence
                assert server.metric("rtsr_calls") == 1.0
                await hang_up(browser)

    asyncio.run(run())


@contextlib.asynccontextmanager
async def cuttable(port):
    """A way to a server of this machine: its own port, and what breaks all connections over it."""
    open_ones = []

    async def carry(reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader, writer):
        there, back = await asyncio.open_connection("127.0.0.1", port)
        open_ones.extend((writer, back))
        await asyncio.gather(carry(reader, back), carry(there, writer))

    def cut():
        for writer in open_ones:
            writer.transport.abort()
        open_ones.clear()

    way = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield way.sockets[0].getsockname()[1], cut
    finally:
        way.close()
        cut()
        await asyncio.sleep(0.1)


def test_a_call_outlasts_its_pages_connection(stand_in, microphone):
    sees = "!document.getElementById('ab').disabled"

    async def run():
        with running_server("--model", str(stand_in)) as server:
            async with cuttable(server.port) as (port, cut), Browser(microphone) as browser:
                await browser.open(f"http://127.0.0.1:{port}/?token={TOKEN}")
                await browser.run("document.getElementById('call').click()")
                await browser.until(f"{STATE} === 'The call is on.'")
                for _ in range(2):
                    await browser.until(sees)
                    cut()
                    await browser.until(f"!({sees})")
                    # The sound goes another way.
                    assert await browser.run(STATE) == "The call is on."
                    assert server.metric("rtsr_calls") == 1.0
                await browser.until(sees)
                await hang_up(browser)
                assert server.metric("rtsr_calls") == 0.0
                assert await browser.run("document.getElementById('ab').disabled")

    asyncio.run(run())


def test_a_call_that_ends_while_its_page_is_cut_off_ends_there_too(stand_in, microphone):
    async def run():
        with running_server("--model", str(stand_in)) as server:
            async with cuttable(server.port) as (port, cut), Browser(microphone) as browser:
                await browser.open(f"http://127.0.0.1:{port}/?token={TOKEN}")
                await browser.run(
                    "fetch = ((real) => async (...given) => { const got = await real(...given);"
                    " if (given[0] === '/calls')"
                    " globalThis.answered = await got.clone().json(); return got; })(fetch)"
                )
                await browser.run("document.getElementById('call').click()")
                await browser.until(f"{STATE} === 'The call is on.'")
                name = await browser.run("answered.call")
                cut()
                assert server.ask("DELETE", f"/calls/{name}")[0] == 204
                await browser.until(f"{STATE} === 'The call was ended by the server.'")

    asyncio.run(run())


# A server that takes its time for its answer, and what it says to whoever hangs up.
SLOW = """
answers = fetch;
fetch = async (...given) => {
  const got = await answers(...given);
  if (given[1].method === 'DELETE') globalThis.hungUp = got.status;
  else await new Promise((done) => { globalThis.answer = done; });
  return got;
};
"""
# One that answers, and what is said about the sound meanwhile.
LISTEN = """
fetch = async (...given) => {
  const got = await answers(...given);
  if (given[0] === '/calls') globalThis.answered = await got.clone().json();
  return got;
};
globalThis.said = [];
new MutationObserver(() => {
  said.push(['cutoff', 'fallback'].map((id) => document.getElementById(id).textContent));
}).observe(document.getElementById('fallback'), { childList: true });
0
"""


def test_the_page_before_a_call_while_it_is_made_and_when_it_ends(server, microphone):
    call = "document.getElementById('call')"

    async def run():
        async with Browser(microphone) as browser:
            await browser.open(f"{server.address}/?token={TOKEN}")
            # There is nothing to be seen, switched or turned yet.
            nodes = (await browser.send("Accessibility.getFullAXTree"))["nodes"]
            roles = {node.get("role", {}).get("value") for node in nodes if not node["ignored"]}
            assert "combobox" in roles
            assert not {"image", "switch", "table"} & roles
            assert not await browser.run("document.body.innerText.includes('Arrow keys')")

            await browser.run(f"{SLOW}; {call}.focus(); {call}.click()")
            await browser.until("!!globalThis.answer")
            assert await browser.run(STATE) == "Calling…"
            assert await browser.run(f"{call}.textContent") == "Hang up"
            # The second half of a double click.
            await browser.run(f"{call}.dispatchEvent(new MouseEvent('click', {{ detail: 2 }}))")
            assert await browser.run(STATE) == "Calling…"
            await browser.key("Enter")
            assert await browser.run(STATE) == "The call was given up."
            assert await browser.run(f"{call}.textContent") == "Call"
            assert not await browser.run("document.getElementById('codec').disabled")
            # The call that was made meanwhile is ended as soon as its name is known.
            assert server.metric("rtsr_calls") == 1.0
            await browser.run("answer()")
            await browser.until("globalThis.hungUp === 204")
            assert server.metric("rtsr_calls") == 0.0
            assert await browser.run(STATE) == "The call was given up."

            await browser.run(LISTEN)
            await browser.run(f"{call}.click()")
            await browser.until(f"{STATE} === 'The call is on.'")
            await browser.until("lookedAt && lookedAt.codec_in === 'PCMU'")
            await browser.until("said.some(([cutoff]) => cutoff.startsWith('PCMU comes in'))")
            nothing = "Nothing comes in yet; opus goes out."
            for cutoff, fallback in await browser.run("said"):
                assert cutoff == nothing or cutoff.startswith("PCMU comes in and ends at ")
                assert ("nothing has come in yet" in fallback) == (cutoff == nothing)
            await browser.run("document.getElementById('knob-tilt_db').focus()")
            name = await browser.run("answered.call")
            assert (await asyncio.to_thread(server.ask, "DELETE", f"/calls/{name}"))[0] == 204
            await browser.until(f"{STATE} === 'The call was ended by the server.'")
            assert await browser.run("document.activeElement.id") == "call"
            assert await browser.run("document.getElementById('out').srcObject === null")

            await browser.key("Enter")
            await browser.until(f"{STATE} === 'The call is on.'")
            await browser.send(
                "Browser.setPermission",
                permission={"name": "microphone"}, setting="denied", origin=server.address,
            )  # fmt: skip
            await browser.until(f"{STATE} === 'The microphone is gone, and the call is over.'")
            assert await browser.run("document.getElementById('state').className") == "bad"
            await browser.until(f"{call}.textContent === 'Call'")

    asyncio.run(run())


def likeness(sound, other):
    """Correlation of two sounds where they fit best, at most 1."""
    match = fftconvolve(sound, other[::-1])
    return np.abs(match).max() / np.sqrt(np.sum(sound**2) * np.sum(other**2))


@pytest.mark.alone
def test_silence_is_not_sent_in_either_direction_and_words_are_as_without_dtx(server, tmp_path):
    microphone = tmp_path / "words.wav"
    soundfile.write(microphone, in_turns(48000, 2.0), 48000, subtype="PCM_16")

    async def run():
        calls = []
        async with Browser(microphone) as browser:
            await browser.send("Page.addScriptToEvaluateOnNewDocument", source=ASK_FOR_DTX)
            await browser.open(f"{server.address}/?token={TOKEN}")
            await browser.run("document.getElementById('codec').value = 'opus'")
            for asks in ("false", "true"):
                await browser.run(f"asksForDtx = {asks}; document.getElementById('call').click()")
                await browser.until(f"{STATE} === 'The call is on.'")
                await asyncio.sleep(2.0)
                both = f"Promise.all([{RECORD % 6500}, {COUNT % 6500}])"
                recording, rows = await browser.run(both)
                now = json.loads(await browser.run("JSON.stringify(lookedAt)"))
                facts = await browser.run("document.getElementById('health').innerText")
                await hang_up(browser)
                calls.append((decoded(recording), np.array(rows), now, facts))
        return calls

    before = server.metric("rtsr_dtx_seconds_total")
    (whole, all_packets, then, _), (sound, packets, now, facts) = asyncio.run(run())
    # Without: 50 packets a second, in words and between them. With: 0.6 s of every 2 s.
    assert then["unsent_seconds"] is None
    assert now["unsent_seconds"] > 3.0
    assert server.metric("rtsr_dtx_seconds_total") - before >= now["unsent_seconds"]
    assert f"Silence not sent\n{now['unsent_seconds']} s" in facts
    for direction in (0, 1):
        usual, few = np.ptp(all_packets[:, direction]), np.ptp(packets[:, direction])
        assert usual > 250
        assert 40 < few < 0.55 * usual
        pauses = np.diff(packets[:, direction]) == 0
        assert np.mean(pauses) > 0.3
        assert np.mean(np.diff(all_packets[:, direction]) == 0) < 0.1
    # Nothing looks lost or has to be made up, on either end.
    assert packets[-1, 2] == 0
    assert now["lost"] == 0
    assert now["concealed_seconds"] < 0.2
    words, begun = ([x[at - 960 : at + 24000] for at in onsets(x)[:-1]] for x in (whole, sound))
    assert len(begun) >= 2
    # A browser that itself has no time plays a word in pieces; not all of them.
    assert max(likeness(word, other) for word in words for other in begun) > 0.95
    assert beginning_db(sound)[0] == pytest.approx(beginning_db(whole)[0], abs=2.0)
    for band, within_db in (((300, 3400), 1.5), ((4000, 8000), 3.0)):
        levels = [np.median([band_db(word, *band) for word in each]) for each in (words, begun)]
        assert abs(levels[0] - levels[1]) < within_db


# What a page's own script does to press keys: the browser sends them in place of its sound.
PRESS = """
new Promise((done, failed) => {
  const { dtmf } = made.getSenders().find((each) => each.track);
  if (!dtmf.canInsertDTMF) failed(new Error('no keys were agreed on'));
  dtmf.ontonechange = ({ tone }) => tone || done();
  dtmf.insertDTMF('%s', 200, 100);
})
"""


@pytest.mark.alone
@pytest.mark.parametrize("codec", ["PCMU", "opus"])
def test_keys_of_a_browser_are_counted_and_disturb_no_sound(server, microphone, codec):
    async def run():
        async with Browser(microphone) as browser:
            await browser.send("Page.addScriptToEvaluateOnNewDocument", source=ASK_FOR_DTX)
            await browser.open(f"{server.address}/?token={TOKEN}")
            await browser.run(f"document.getElementById('codec').value = '{codec}'")
            await browser.run("document.getElementById('call').click()")
            await browser.until(f"{STATE} === 'The call is on.'")
            await asyncio.sleep(2.0)
            before = json.loads(await browser.run("JSON.stringify(lookedAt)"))
            recording, _ = await browser.run(f"Promise.all([{RECORD % 5000}, {PRESS % '1155*#A'}])")
            await browser.until("lookedAt.keys === 7")
            now = json.loads(await browser.run("JSON.stringify(lookedAt)"))
            facts = await browser.run("document.getElementById('health').innerText")
            await hang_up(browser)
        return decoded(recording), before, now, facts

    pressed = server.metric("rtsr_keys_total")
    sound, before, now, facts = asyncio.run(run())
    assert before["keys"] == 0
    assert "Keys pressed\n7" in facts
    assert server.metric("rtsr_keys_total") - pressed == 7
    # Seven keys of 200 ms: their time is neither lost nor made up as if it were.
    assert now["lost"] == before["lost"]
    assert now["concealed_seconds"] - before["concealed_seconds"] < 0.2
    assert np.abs(sound).max() < 1.2 * np.abs(speech(48000)).max()


@pytest.mark.alone
def test_every_click_is_heard_and_timed(server, tmp_path):
    microphone = tmp_path / "clicks.wav"
    mouth_to_ear.write_clicks(microphone)
    found = asyncio.run(mouth_to_ear.measured(server.address, microphone, "PCMU", 5, 3.0))
    assert len(found.delays_ms) == found.clicks >= 4
    assert found.lost == (0, 0)
    # A packet, the window and a hop of the browser's playback cannot be avoided.
    assert 35.0 < np.median(found.delays_ms) < mouth_to_ear.PERIOD * 1000.0
    assert found.parts_ms["browser: jitter buffer"] > 0.0
    assert found.devices_ms > 0.0
