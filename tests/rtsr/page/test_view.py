"""What goes in and out over a page's WebSocket, from a real server to a real client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest

websockets = pytest.importorskip("websockets", reason="the extra page is not installed")

from desk import Desk, midi_server  # noqa: E402
from starlette.routing import WebSocketRoute  # noqa: E402

from rtsr.errors import RtsrError  # noqa: E402
from rtsr.live.controls.board import ControlBoard  # noqa: E402
from rtsr.page import learning as page_learning  # noqa: E402
from rtsr.page.access import Access  # noqa: E402
from rtsr.page.application import Frame, PageApplication  # noqa: E402
from rtsr.page.learning import Learning  # noqa: E402
from rtsr.page.serve import PageThread, bind  # noqa: E402
from rtsr.page.view import about, show  # noqa: E402


class Board:
    """A subject that is nothing but controls."""

    is_over = False
    names = ("wet", "tilt_db")

    def __init__(self, learning: Learning | None = None) -> None:
        self.board = ControlBoard()
        self.learning = learning
        self.text = ""

    def about(self) -> dict[str, Any]:
        return about(self.text, self.board, self.names, learns=self.learning is not None)

    def now(self) -> dict[str, Any]:
        return {"kind": "now", "controls": {name: self.board.get(name) for name in self.names}}

    def turn(self, name: str, value: float | str) -> None:
        self.board.set(name, value)

    def check(self, name: str, value: float | str) -> None:
        self.board.check(name, value)


def talk(subject: Board, conversation: Callable[..., Awaitable[None]], pages: int = 1) -> None:
    bound = bind("127.0.0.1", 0)
    page = PageApplication(Frame("", "live.js", "", ""), Access(("127.0.0.1",), "secret"))

    async def view(socket: Any) -> None:
        await show(page, socket, subject)

    async def run() -> None:
        address = f"ws://127.0.0.1:{bound.getsockname()[1]}/view"
        bearer = {"Authorization": "Bearer secret"}
        async with contextlib.AsyncExitStack() as open_ones:
            connections = [
                websockets.connect(address, additional_headers=bearer) for _ in range(pages)
            ]
            await conversation(*[await open_ones.enter_async_context(c) for c in connections])

    with PageThread(page.build([WebSocketRoute("/view", view)]), bound):
        asyncio.run(run())
        subject.is_over = True


async def until(socket: Any, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    async def wanted() -> dict[str, Any]:
        while True:
            message: dict[str, Any] = json.loads(await socket.recv())
            if condition(message):
                return message

    # Messages come all the time, so that each by itself is no sign of the wanted one.
    return await asyncio.wait_for(wanted(), 30)


def test_a_binary_message_is_answered_by_a_sentence_and_the_page_goes_on() -> None:
    async def conversation(socket: Any) -> None:
        await socket.send(b'{"set": {"wet": 0.5}}')
        answer = await until(socket, lambda m: "error" in m)
        assert answer["error"] == "A message is text, one JSON object; this one is binary."
        await socket.send('{"set": {"wet": 0.25}}')
        await until(socket, lambda m: m.get("controls", {}).get("wet") == 0.25)

    talk(Board(), conversation)


def test_a_message_that_is_refused_turns_nothing() -> None:
    async def conversation(socket: Any) -> None:
        for refused, sentence in (
            ({"set": {"wet": 0.5, "nosuch": 1}}, "no control 'nosuch'"),
            ({"set": {"wet": 0.5, "seed": 1.5}}, "'seed' takes"),
            ({"set": {"wet": 0.5, "tilt_db": True}}, "takes a number"),
            ({"set": {"wet": 0.5, "pad": "y" * 4100}}, "at most 4096 characters"),
        ):
            await socket.send(json.dumps(refused))
            answer = await until(socket, lambda m: "error" in m)
            assert sentence in answer["error"]
        now = await until(socket, lambda m: m.get("kind") == "now")
        assert now["controls"]["wet"] == 1.0

    talk(Board(), conversation)


def test_what_is_told_first_is_told_again_once_it_has_changed() -> None:
    subject = Board()

    async def conversation(socket: Any) -> None:
        assert (await until(socket, lambda m: m.get("kind") == "about"))["text"] == ""
        looks = 0
        subject.text = "blocks of 1024 frames"
        while True:
            message = json.loads(await asyncio.wait_for(socket.recv(), 30))
            if message["kind"] == "about":
                break
            looks += 1
            assert looks <= 20
        assert message["text"] == "blocks of 1024 frames"
        # Once is enough.
        for _ in range(12):
            message = json.loads(await asyncio.wait_for(socket.recv(), 30))
            assert message["kind"] == "now"

    talk(subject, conversation)


def test_pages_that_learn_keep_no_other_one_waiting() -> None:
    may_end = threading.Event()

    class Slow:
        """Knobs that nobody moves."""

        is_given_up = False

        def begin(self, control: str) -> Slow:
            return self

        def wait(self) -> str:
            return str(may_end.wait(120))

        def give_up(self) -> None:
            may_end.set()

    async def conversation(socket: Any) -> None:
        # More than threads that an event loop has for work that waits.
        for _ in range(33):
            await socket.send('{"learn": "wet"}')
            await until(socket, lambda m: m.get("learning") == "wet")
        await socket.send('{"set": {"wet": 0.25}}')
        await until(socket, lambda m: m.get("controls", {}).get("wet") == 0.25)
        assert not may_end.is_set()

    talk(Board(cast(Learning, Slow())), conversation)


def test_a_page_gives_up_what_it_has_begun_and_nothing_of_others() -> None:
    class Knob:
        """One that nobody moves."""

        def __init__(self) -> None:
            self.over = threading.Event()

        @property
        def is_given_up(self) -> bool:
            return self.over.is_set()

        def wait(self) -> str:
            assert self.over.wait(60)
            raise RtsrError("It was given up.")

        def give_up(self) -> None:
            self.over.set()

    begun: dict[str, Knob] = {}

    class Knobs:
        def begin(self, control: str) -> Knob:
            return begun.setdefault(control, Knob())

    async def conversation(one: Any, other: Any) -> None:
        for socket, control in ((one, "wet"), (other, "tilt_db")):
            await socket.send(json.dumps({"learn": control}))
            await until(socket, lambda m: "learning" in m)
        await one.send('{"learn": null}')
        end = await until(one, lambda m: "learning" in m)
        assert end == {"kind": "given_up", "text": "It was given up.", "learning": None}
        # A page that has nothing to give up, or goes away, ends nothing either.
        await one.send('{"learn": null}')
        await one.send("[]")
        await until(one, lambda m: "error" in m)
        await one.close()
        assert not begun["tilt_db"].is_given_up
        await other.send('{"learn": null}')
        await until(other, lambda m: m.get("kind") == "given_up")

    talk(Board(cast(Learning, Knobs())), conversation, pages=2)


def test_what_is_shown_says_which_messages_are_in_it() -> None:
    async def conversation(socket: Any) -> None:
        assert (await until(socket, lambda m: m.get("kind") == "now"))["taken"] == 0
        for message in ('{"set": {"wet": 0.5}}', "[]", '{"set": {"wet": 0.25}}'):
            await socket.send(message)
        now = await until(socket, lambda m: m.get("taken") == 3)
        assert now["controls"]["wet"] == 0.25

    talk(Board(), conversation)


def test_a_learn_that_is_cancelled_while_the_device_opens_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rtmidi", reason="python-rtmidi is not installed")
    if shutil.which("jackd") is None:
        pytest.skip("jackd is not installed (Debian: jackd2)")
    is_opening, may_open = threading.Event(), threading.Event()

    class SlowDevice(page_learning.MidiControls):
        def __init__(self, *arguments: Any) -> None:
            is_opening.set()
            assert may_open.wait(30)
            super().__init__(*arguments)

    monkeypatch.setattr(page_learning, "MidiControls", SlowDevice)

    async def conversation(socket: Any) -> None:
        await socket.send('{"learn": "wet"}')
        await until(socket, lambda m: m.get("learning") == "wet")
        assert await asyncio.to_thread(is_opening.wait, 30)
        await socket.send('{"learn": null}')
        # Messages are taken in order: once this is answered, the one before was taken.
        await socket.send("[]")
        await until(socket, lambda m: "one JSON object" in m.get("error", ""))
        may_open.set()
        end = await until(socket, lambda m: "learning" in m)
        sentence = "Learning a knob for wet was given up."
        assert end == {"kind": "given_up", "text": sentence, "learning": None}
        # The device is open now, and the next knob is learnt.
        await socket.send('{"learn": "tilt_db"}')
        await until(socket, lambda m: m.get("learning") == "tilt_db")
        for _ in range(20):
            desk.send(0xB0, 30, 64)
            await asyncio.sleep(0.05)
        await until(socket, lambda m: m.get("kind") == "learnt")
        # The page of another call, which knew that knob for another control, goes by the file.
        assert others.bindings() == {"tilt_db": "CC 30"}
        stood = other.get("level_db")
        desk.send(0xB0, 30, 100)
        deadline = time.monotonic() + 10
        while other.get("tilt_db") == 0.0 and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        assert other.get("tilt_db") != 0.0
        assert other.get("level_db") == stood

    path = tmp_path / "map.toml"
    path.write_text('[[control]]\nname = "level_db"\ncc = 30\n')
    with midi_server():
        desk = Desk("desk")
        subject = Board()
        other = ControlBoard()
        others = Learning(other, path)
        may_open.set()
        others.listen()
        assert others.bindings() == {"level_db": "CC 30"}
        is_opening.clear()
        may_open.clear()
        subject.learning = Learning(subject.board, path)
        talk(subject, conversation)
        subject.learning.close()
        others.close()
        desk.put_away()
    assert "tilt_db" in path.read_text()
    assert "wet" not in path.read_text()
