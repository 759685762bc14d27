"""The live page in a real Chromium, over a session whose state the test chooses."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, cast

import numpy as np
import pytest

pytest.importorskip("websockets", reason="the extra page is not installed")

from browser import Browser, chromium
from starlette.routing import WebSocketRoute

from rtsr.errors import RtsrError
from rtsr.live.controls.board import ControlBoard
from rtsr.live.monitor.report import WAITING, FallbackChange, LiveSnapshot
from rtsr.live.session import LiveSession
from rtsr.page.access import Access
from rtsr.page.application import Frame, PageApplication
from rtsr.page.learning import Learning
from rtsr.page.live import LiveSubject
from rtsr.page.serve import PageThread, bind
from rtsr.page.view import show

pytestmark = pytest.mark.skipif(chromium() is None, reason="there is no Chromium here")

# The chart, the sockets, and a network that takes its time in both directions.
KEEP = """
globalThis.sockets = [];
globalThis.lagMs = 0;
const later = (act) => (lagMs ? setTimeout(act, lagMs) : act());
globalThis.WebSocket = class extends WebSocket {
  constructor(...given) { super(...given); sockets.push(this); }
  send(message) { later(() => super.send(message)); }
  set onmessage(take) {
    this.taker = take;
    super.onmessage = (event) => later(() => {
      const message = JSON.parse(event.data);
      if (message.kind === 'about') globalThis.toldAbout = message;
      take(event);
    });
  }
};
addEventListener('DOMContentLoaded', () => {
  globalThis.uPlot = class extends uPlot {
    constructor(...given) { super(...given); globalThis.chart = this; }
  };
});
"""
# Whether some part of the chart has a colour of the style sheet.
HAS_COLOUR = """
(() => {
  const canvas = document.querySelector('#spectrum canvas'), brush = canvas.getContext('2d');
  brush.fillStyle = getComputedStyle(document.documentElement).getPropertyValue('%s');
  const [r, g, b] = brush.fillStyle.match(/\\w\\w/g).map((each) => parseInt(each, 16));
  const { data } = brush.getImageData(0, 0, canvas.width, canvas.height);
  for (let i = 0; i < data.length; i += 4)
    if (data[i] === r && data[i + 1] === g && data[i + 2] === b && data[i + 3] === 255) return true;
  return false;
})()
"""


def content(name: str) -> str:
    return f"document.getElementById('{name}').textContent"


class Session:
    """What a page sees of a live session."""

    def __init__(self, top_hz: float = 24000.0) -> None:
        levels = ("small", "replicate", "dry")
        self.controls = ControlBoard(None, levels, top_hz)
        self.state = LiveSnapshot(
            seconds=1.0,
            fallback_level="small",
            fallback_levels=levels,
            cutoff_hz=4000.0,
            top_hz=top_hz,
            latency_ms={"hop": 10.0},
            in_spectrum=np.linspace(-30, -90, 64).astype(np.float32),
            out_spectrum=np.linspace(-30, -60, 64).astype(np.float32),
        )

    def snapshot(self) -> LiveSnapshot:
        return dataclasses.replace(self.state, controls=self.controls.as_dict())

    def change(self, **facts: Any) -> None:
        self.state = dataclasses.replace(self.state, **facts)


class Knobs:
    """MIDI knobs that nobody moves."""

    def bindings(self) -> dict[str, str]:
        return {}

    def begin(self, control: str) -> Knob:
        return Knob()


class Knob:
    def __init__(self) -> None:
        self._over = threading.Event()

    @property
    def is_given_up(self) -> bool:
        return self._over.is_set()

    def wait(self) -> str:
        self._over.wait(60)
        raise RtsrError("Learning a knob for level_db was given up.")

    def give_up(self) -> None:
        self._over.set()


class Served:
    """The page of a session that can be exchanged for another one."""

    def __init__(self, session: Session) -> None:
        self.start(session)

    def start(self, session: Session) -> None:
        self.subject = LiveSubject(cast(LiveSession, session), cast(Learning, Knobs()))

    def end(self) -> None:
        self.subject.is_over = True


@contextlib.contextmanager
def served(session: Session) -> Iterator[tuple[Served, str]]:
    bound = bind("127.0.0.1", 0)
    page = PageApplication(Frame("", "live.js", "", ""), Access(("127.0.0.1",), "secret"))
    now = Served(session)

    async def view(socket: Any) -> None:
        await show(page, socket, now.subject)

    with PageThread(page.build([WebSocketRoute("/view", view)]), bound):
        yield now, f"http://127.0.0.1:{bound.getsockname()[1]}/?token=secret"
        now.end()
        # Pages are looked after ten times a second.
        time.sleep(0.3)


Visit = Callable[[Browser, Served], Awaitable[None]]
Look = Callable[[Session, Visit], None]


@pytest.fixture(scope="module")
def look() -> Iterator[Look]:
    """Opens the page of a session, in one browser for all tests, and does what it is given."""
    # Whoever speaks with the browser belongs to one loop.
    loop = asyncio.new_event_loop()
    browser = Browser(None)

    async def run(address: str, now: Served, visit: Visit) -> None:
        await browser.open(address)
        await browser.until("lookedAt && document.getElementById('latency').tFoot.rows.length")
        await visit(browser, now)

    def look(session: Session, visit: Visit) -> None:
        with served(session) as (now, address):
            loop.run_until_complete(run(address, now, visit))

    loop.run_until_complete(browser.__aenter__())
    try:
        keep = browser.send("Page.addScriptToEvaluateOnNewDocument", source=KEEP)
        loop.run_until_complete(keep)
        yield look
    finally:
        loop.run_until_complete(browser.__aexit__())
        loop.close()


def test_what_is_said_is_what_is_heard(look: Look) -> None:
    session = Session()

    async def visit(browser: Browser, _: Served) -> None:
        async def until(fallback: str, kind: str, added: str) -> None:
            await browser.until(f"{content('fallback')} === {fallback!r}", 5)
            assert await browser.run("document.getElementById('fallback').className") == kind
            assert (await browser.run(content("cutoff"))).endswith(f"; {added}.")

        small, nothing = "small adds what is above", "nothing is added"
        await until("The new band is on.", "", small)
        session.controls.set("model", "dry")
        session.change(fallback_level="dry")
        await until("Nothing is added: the fallback level is dry.", "", nothing)
        late = FallbackChange(3.0, "small", "dry", "late steps")
        session.controls.set("model", "small")
        session.change(fallback_level_changes=(late,))
        await until("dry in place of small (late steps).", "bad", nothing)
        session.change(fallback_level="small", state=WAITING)
        await until("No sound: waiting for the device.", "bad", nothing)
        session.change(state="restarting the worker")
        await until("The sound goes out as it came: restarting the worker.", "bad", nothing)
        session.change(state="playing")
        session.controls.set("bypass", 1)
        await until("The sound goes out as it came: bypass is on.", "bad", nothing)
        session.controls.set("bypass", 0)
        session.controls.set("wet", 0)
        await until("Nothing is added: Amount is 0 %.", "", nothing)
        session.controls.set("wet", 1)
        session.change(cutoff_hz=24000.0)
        await until("Nothing is added: what comes in leaves nothing above it.", "", nothing)
        role = "document.getElementById('fallback').getAttribute('role')"
        assert await browser.run(role) == "status"

    look(session, visit)


def test_fields_show_what_is_so_and_sentences_go_by_labels(look: Look) -> None:
    session = Session()

    async def visit(browser: Browser, _: Served) -> None:
        chosen = "document.getElementById('knob-model').selectedOptions[0].textContent"
        await browser.run("document.getElementById('knob-model').focus()")
        session.controls.set("model", "replicate")
        await browser.until(f"{chosen} === 'replicate'", 5)
        seed = "document.getElementById('knob-seed')"
        await browser.run(f"{seed}.focus()")
        session.controls.set("seed", 77)
        await browser.until(f"{seed}.value === '77'", 5)
        # Half a number is left alone until it is whole.
        typed = f"{seed}.value = '500000000'; {seed}.dispatchEvent(new Event('input'))"
        await browser.run(typed)
        await asyncio.sleep(0.4)
        assert await browser.run(f"{seed}.value") == "500000000"
        await browser.run(f"{seed}.value = '5000000000'; {seed}.dispatchEvent(new Event('change'))")
        await browser.until(f"{content('note')}.startsWith('Texture takes whole numbers')", 5)
        await browser.until(f"{seed}.value === '77'", 5)
        assert await browser.run("document.activeElement.id") == "knob-seed"
        learn = "document.getElementById('learn-level_db')"
        await browser.run(f"{learn}.click()")
        await browser.until(f"{learn}.textContent === 'Cancel'", 5)
        await browser.run(f"{learn}.click()")
        await browser.until(f"{learn}.textContent === 'Learn'", 5)
        assert await browser.run(content("note")) == "No knob was learnt."
        assert await browser.run("document.getElementById('note').className") == ""
        learnt = '{ kind: "learnt", text: "CC 30 of channel 1 is tilt_db now." }'
        said = f"new MessageEvent('message', {{ data: JSON.stringify({learnt}) }})"
        await browser.run(f"sockets[0].dispatchEvent({said})")
        await browser.until(f"{content('note')} === 'CC 30 of channel 1 is Brightness now.'", 5)

    look(session, visit)


def test_nothing_turns_back_while_the_network_takes_its_time(look: Look) -> None:
    session = Session()
    spoken = "document.getElementById('knob-level_db').getAttribute('aria-valuetext')"
    switch = "document.getElementById('ab')"

    async def visit(browser: Browser, _: Served) -> None:
        await browser.run(
            "globalThis.said = ['0 dB 0 dB']; new MutationObserver(() => {"
            f" const both = {content('value-level_db')} + ' ' + {spoken};"
            " if (said.at(-1) !== both) said.push(both); })"
            ".observe(document.getElementById('knobs'),"
            " { subtree: true, childList: true, attributes: true, characterData: true });"
            "lagMs = 300; document.getElementById('knob-level_db').focus()"
        )
        for _ in range(3):
            await browser.key("ArrowRight")
            await asyncio.sleep(0.12)
        await browser.until("lookedAt.controls.level_db === 1.5")
        # Not between the text that is seen and the one that is spoken.
        whole = [each for each in await browser.run("said") if len(set(each.split())) == 2]
        assert whole == ["0 dB 0 dB", "0.5 dB 0.5 dB", "1 dB 1 dB", "1.5 dB 1.5 dB"]
        # Others still turn it.
        session.controls.set("level_db", -6)
        await browser.until(f"{content('value-level_db')} === '-6 dB'", 5)
        await browser.run(f"{switch}.click(); setTimeout(() => {switch}.click(), 200)")
        assert await browser.run(f"{switch}.getAttribute('aria-checked')") == "false"
        taken = await browser.run("lookedAt.taken")
        await browser.until(f"lookedAt.taken === {taken + 2}", 5)
        assert session.controls.get("bypass") == 0.0
        assert await browser.run(f"{switch}.getAttribute('aria-checked')") == "true"

    look(session, visit)


def test_what_is_told_again_leaves_what_is_being_turned_alone(look: Look) -> None:
    session = Session()
    knob = "document.getElementById('knob-level_db')"
    about = "document.getElementById('about')"
    learning = f"{content('note')} === 'Move the MIDI knob for Amount.'"

    async def visit(browser: Browser, _: Served) -> None:
        await browser.run(
            "globalThis.again = (change) => { const [socket] = sockets;"
            " socket.taker({ data: JSON.stringify(change(structuredClone(toldAbout))) }); };"
            f"document.getElementById('learn-wet').click(); {knob}.focus(); {knob}.was = true"
        )
        await browser.until(learning)
        await browser.run("again((about) => ({ ...about, text: 'Other blocks.' }))")
        await browser.until(f"{about}.textContent === 'Other blocks.'")
        assert await browser.run(f"{knob}.was && document.activeElement === {knob}")
        assert await browser.run(learning)
        # Other ranges are other knobs, which keep the focus.
        await browser.run(
            "again((about) => { about.controls.find(({ name }) => name === 'level_db').high = 3;"
            " return about; })"
        )
        assert not await browser.run(f"{knob}.was")
        assert await browser.run(f"Number({knob}.max)") == 3
        assert await browser.run(f"document.activeElement === {knob}")
        assert await browser.run(learning)

    look(session, visit)


def test_a_session_that_comes_after_is_shown_as_its_own_and_the_last_one_as_over(
    look: Look,
) -> None:
    async def scheme(browser: Browser, name: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": name}]
        await browser.send("Emulation.setEmulatedMedia", features=features)

    async def visit(browser: Browser, now: Served) -> None:
        await scheme(browser, "light")
        learn = "document.getElementById('learn-wet')"
        assert await browser.run("chart.scales.x.max") == 24000
        # Curves differ by more than their colours, and so do their names.
        dashed = await browser.run("chart.series.slice(1).map((each) => !!each.dash)")
        assert dashed == [False, True]
        for name, style in (("before", "dotted"), ("after", "none"), ("edge", "dashed")):
            mark = f"getComputedStyle(document.querySelector('.legend .{name}'), '::before')"
            assert await browser.run(f"{mark}.borderTopStyle") == style
        await browser.run(f"{learn}.click()")
        await browser.until(f"{learn}.textContent === 'Cancel'", 5)
        now.start(Session(48000.0))
        await browser.run("sockets[0].close()")
        await browser.until("sockets.length === 2 && !document.getElementById('ab').disabled")
        await browser.until("chart.scales.x.max === 48000", 5)
        # What was begun to be learnt is given up with the connection.
        await browser.until(f"{learn}.textContent === 'Learn'", 5)
        now.end()
        await browser.until(f"{content('state')}.startsWith('The session is over.')", 5)
        assert await browser.run(HAS_COLOUR % "--after")
        # The chart takes the system's colours also when nothing comes any more.
        await scheme(browser, "dark")
        await browser.until(HAS_COLOUR % "--after", 5)
        await asyncio.sleep(2.2)
        assert await browser.run("sockets.length") == 2

    look(Session(), visit)
