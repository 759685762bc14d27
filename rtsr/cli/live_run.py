"""What happens around a live session while it plays: screen, keys, knobs, page, figures."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rtsr.ending import ending_signals
from rtsr.errors import RtsrError

if TYPE_CHECKING:
    from rtsr.cli.knobs import Knobs
    from rtsr.live.controls.midi.listener import MidiControls
    from rtsr.live.monitor.stats_file import StatsFile
    from rtsr.live.session import LiveSession
    from rtsr.live.settings import LiveSettings

# An event that is waited for for ever does not let signals through on every system.
_LONGEST_WAIT = 1.0


class Page:
    """The page's options; its address is bound before anything is opened.

    Args:
        listen: host and port; port 0 takes a free one.
        token: the secret; drawn if it is empty.

    Raises:
        MissingDependencyError: the packages that serve it are not installed.
        RtsrError: the address is not available.
    """

    def __init__(self, listen: tuple[str, int], token: str) -> None:
        from rtsr.page.serve import access_for, address_of, bind

        self._bound = bind(*listen)
        self._access = access_for(listen[0], self._bound, token)
        self.address = address_of(self._bound, self._access)

    def serve(
        self, session: LiveSession, midi: MidiControls | None, path: Path
    ) -> contextlib.AbstractContextManager[None]:
        """Return a context in which the page is there.

        Args:
            session: that runs.
            midi: the knobs that are listened to already.
            path: of the map, where knobs that are learnt on the page are written.
        """
        from rtsr.page.learning import Learning
        from rtsr.page.live import live_page

        learning = Learning(session.controls, path, midi)
        return live_page(session, learning, self._bound, self._access)


def play(
    settings: LiveSettings,
    stopped: threading.Event,
    seconds: float | None,
    quiet: bool,
    json_stats: str | None,
    every: bool,
    knobs: Knobs,
    page: Page | None = None,
    kept_colour: Path | None = None,
) -> None:
    """Run a session until the time is over, the event is set or a key ends it.

    Raises:
        RtsrError: the session, the MIDI port or the file of figures cannot be opened; or the colour
            cannot be written.
    """
    from rtsr.cli.progress import waiting
    from rtsr.live.monitor.stats_file import STDOUT, StatsFile
    from rtsr.live.session import LiveSession
    from rtsr.live.shared.native_messages import stderr_for_python_alone

    watched = not quiet and json_stats != STDOUT
    with (
        StatsFile(json_stats) as stats,
        stderr_for_python_alone(),
        contextlib.ExitStack() as starting,
    ):
        starting.enter_context(waiting("rtsr: loading the model, opening devices", watched))
        session = LiveSession(settings)
        if stopped.is_set():
            # Loading takes a second or two; whoever stopped it meanwhile wants no sound any more.
            raise KeyboardInterrupt
        with (
            contextlib.ExitStack() as afterwards,
            session,
            knobs.connect(session.controls) as midi,
            contextlib.ExitStack() as shown,
        ):
            starting.close()
            if kept_colour is not None:
                # However the session ends, and before its figures, which may not be writable.
                say_kept = _say if watched else lambda sentence: None
                afterwards.callback(_keep_colour, session, kept_colour, say_kept)
            clock = Clock(seconds)
            say: Callable[[str], None] = _say
            if every:
                clock.call(1.0, lambda: _write_line(stats, session))
            if page is not None:
                # Above the screen, where no other notice takes its place.
                _say(f"the page is at {page.address}")
            # Figures and pictures cannot share stdout.
            if watched:
                say = _show(session, stopped, clock, shown)
            if page is not None:
                shown.enter_context(page.serve(session, midi, knobs.path))
            if midi is not None and knobs.learn is not None:
                _learn(midi, knobs.learn, knobs.path, say)
            clock.run(stopped)
        stats.write(session.report())
    if watched:
        from rtsr.live.monitor.summary import summary

        _say(summary(session.report()))


def measure(settings: LiveSettings, json_stats: str | None, quiet: bool) -> None:
    """Send a click round and print what was measured.

    Raises:
        RtsrError: see :func:`rtsr.live.loopback.measure_latency`.
    """
    from rtsr.cli.progress import waiting
    from rtsr.live.loopback import measure_latency
    from rtsr.live.monitor.stats_file import STDOUT, StatsFile

    with StatsFile(json_stats) as stats:
        with waiting("rtsr: sending a click from the output to the input", not quiet):
            result = measure_latency(settings)
        stats.write(result.as_dict())
    typer.echo(result.sentence(), err=json_stats == STDOUT)


class Clock:
    """What happens while the sound runs, which needs nothing from here."""

    def __init__(self, seconds: float | None) -> None:
        self._started = time.monotonic()
        self._end = math.inf if seconds is None else self._started + seconds
        self._tasks: list[tuple[float, Callable[[], None]]] = []

    def call(self, seconds: float, task: Callable[[], None]) -> None:
        """Have something done now and every so many seconds."""
        self._tasks.append((seconds, task))

    def run(self, stopped: threading.Event) -> None:
        """Until the time is over or the event is set."""
        due = [self._started] * len(self._tasks)
        while not stopped.is_set():
            now = time.monotonic()
            if now >= self._end:
                return
            for index, (seconds, task) in enumerate(self._tasks):
                if now >= due[index]:
                    # Behind time nothing is made up for.
                    due[index] = max(due[index] + seconds, now)
                    task()
            stopped.wait(min(max(0.0, min([*due, self._end]) - time.monotonic()), _LONGEST_WAIT))


def _write_line(stats: StatsFile, session: LiveSession) -> None:
    # A full disk does not end the sound; the last line complains if it still is.
    with contextlib.suppress(RtsrError):
        stats.write(session.report())


def _say(sentence: str) -> None:
    typer.echo(f"rtsr: {sentence}", err=True)


def _show(
    session: LiveSession, stopped: threading.Event, clock: Clock, shown: contextlib.ExitStack
) -> Callable[[str], None]:
    """Screen and keys, as far as there is a terminal for them; else one line.

    Returns:
        What shows a sentence in the same place.
    """
    from rtsr.live.controls.keyboard import Keyboard, KeyControls
    from rtsr.live.monitor.screen import PICTURES_PER_SECOND, LiveScreen

    keys = KeyControls(session.controls, stopped.set)
    screen = shown.enter_context(LiveScreen(keys))
    shown.enter_context(Keyboard(keys))
    if screen.usable:
        clock.call(1.0 / PICTURES_PER_SECOND, lambda: screen.show(session.snapshot()))
        return screen.notice
    snapshot = session.snapshot()
    _say(
        f"from '{snapshot.input_name}' to '{snapshot.output_name}' with {snapshot.fallback_level}, "
        f"{snapshot.latency_total_ms:.1f} ms; Ctrl-C ends it."
    )
    return _say


def _keep_colour(session: LiveSession, path: Path, say: Callable[[str], None]) -> None:
    """Write what a session has learnt, unless that is nothing."""
    from rtsr.colour.auto import AutoColour

    colour = session.colour
    if not isinstance(colour, AutoColour) or not colour.learnt_hops or colour.learnt is None:
        say(f"nothing was learnt of the input's colour; '{path}' is not written.")
        return
    try:
        colour.learnt.save(path)
    except OSError as error:
        raise RtsrError(
            f"The colour cannot be written to '{path}': {error.strerror or error}."
        ) from None
    say(f"the colour rests on {colour.learnt.seconds:.1f} s of sound now, in '{path}'.")


def _learn(midi: MidiControls, control: str, path: Path, say: Callable[[str], None]) -> None:
    """Wait for a knob in another thread, while the sound, the screen and the clock go on."""

    def learn() -> None:
        try:
            say(midi.learn(control, path).learnt(path))
        except RtsrError as error:
            say(str(error))

    say(f"move the knob for {control} on '{midi.port_name}'.")
    threading.Thread(target=learn, name="rtsr-learn", daemon=True).start()


@contextlib.contextmanager
def until_signal() -> Iterator[threading.Event]:
    """Yield an event that SIGINT, SIGTERM and SIGHUP set; the second one interrupts at once."""
    stopped = threading.Event()

    def stop(number: int, frame: Any) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()

    before = {number: signal.signal(number, stop) for number in ending_signals()}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
