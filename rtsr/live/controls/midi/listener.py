"""MIDI knobs move the controls of a live session."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from queue import Empty, SimpleQueue

from rtsr.closing import Closing
from rtsr.errors import RtsrError
from rtsr.live.controls.board import ControlBoard, find_control
from rtsr.live.controls.midi.knob import Knob
from rtsr.live.controls.midi.map import HIGHEST_CC, Binding, MidiMap, load_map, save_map
from rtsr.live.controls.midi.ports import MidiPort, PortReader, choose_port

_log = logging.getLogger(__name__)

# As often as the engine takes a new hop: a knob could not be heard sooner.
_READ_SECONDS = 0.01
# Where only names tell that a device was away, one that comes back sooner than this is not noticed;
# USB needs longer.
_LOOK_SECONDS = 0.1
_CONTROL_CHANGE = 0xB0


class Attempt:
    """One learning of a knob; whoever began it may give it up, also before it waits.

    Attributes:
        moved: MIDI channel and CC number of the knob that was moved, or ``None`` to give up.
        is_given_up: whether that was asked for.
    """

    def __init__(self) -> None:
        self.moved: SimpleQueue[tuple[int, int] | None] = SimpleQueue()
        self.is_given_up = False

    def give_up(self) -> None:
        """End the learning, from any thread; :meth:`MidiControls.learn` raises."""
        self.is_given_up = True
        self.moved.put(None)


class MidiControls(Closing):
    """Listens to one MIDI device and stores what its knobs say on a control board.

    A device that disappears is taken up again when it comes back; until then the controls stay
    as they are.

    Args:
        board: where values are stored.
        midi_map: which knob moves which control.
        port: one that was chosen before, or number or part of the name of the MIDI port; the only
            device if ``None``.
        system: MIDI system to look for it in: ``auto`` for all, ``alsa``, ``jack``, ``coremidi``,
            ``winmm``.
        poll_seconds: how often to check whether a device that was away is there.

    Raises:
        MissingDependencyError: python-rtmidi is not installed.
        RtsrError: the port is not there, is ambiguous or cannot be opened.
    """

    def __init__(
        self,
        board: ControlBoard,
        midi_map: MidiMap,
        port: MidiPort | str | int | None = None,
        *,
        system: str = "auto",
        poll_seconds: float = 1.0,
    ) -> None:
        self._board = board
        self._poll_seconds = poll_seconds
        self._learning: Attempt | None = None
        chosen = port if isinstance(port, MidiPort) else choose_port(port, system)
        self._reader = PortReader(chosen)
        self._use(midi_map)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="rtsr-midi", daemon=True)
        self._thread.start()

    @property
    def port_name(self) -> str:
        """The port that is listened to, also while its device is away."""
        return self._reader.port.name

    @property
    def connected(self) -> bool:
        """Whether the device was there at the last check."""
        return self._reader.connected

    @property
    def midi_map(self) -> MidiMap:
        """The map in use, with what was learned."""
        return self._map

    def learn(
        self,
        control: str,
        path: Path,
        timeout: float = 30.0,
        attempt: Attempt | None = None,
    ) -> Binding:
        """Bind the next knob that is moved to a control, and write the map to a file.

        The controls rest meanwhile. The file is replaced as a whole; its comments stay.

        Args:
            control: to be moved.
            path: of the map.
            timeout: seconds in which the knob must be moved.
            attempt: by which it can be given up.

        Returns:
            The new binding, which is in effect at once.

        Raises:
            RtsrError: there is no such control, another one is being learnt, no knob was moved in
                ``timeout`` seconds, it was given up, or the file cannot be written.
        """
        find_control(control)
        if self._learning is not None:
            raise RtsrError("Another knob is being learnt; move that one first, or give it up.")
        self._learning = attempt = attempt or Attempt()
        try:
            knob = attempt.moved.get(timeout=timeout)
        except Empty:
            raise RtsrError(
                f"No knob of '{self.port_name}' was moved in {timeout:g} s; move the one that is "
                f"to be {control}, and check that it sends control changes."
            ) from None
        finally:
            self._learning = None
        if knob is None:
            raise RtsrError(f"Learning a knob for {control} was given up.")
        channel, cc = knob
        # Another page may have learnt a knob since this map was read.
        known = load_map(path) if path.exists() else self._map
        learned = known.learned(control, channel, cc)
        save_map(path, learned)
        self._use(learned)
        return next(binding for binding in learned.bindings if binding.name == control)

    def follow(self, midi_map: MidiMap) -> None:
        """Take a map that was written by somebody else; knobs of one that is the same go on."""
        if midi_map != self._map:
            self._use(midi_map)

    def give_up_learning(self) -> None:
        """End a :meth:`learn` that waits in another thread, whoever began it; it raises."""
        learning = self._learning
        if learning is not None:
            learning.give_up()

    def close(self) -> None:
        """Stop listening."""
        self.give_up_learning()
        self._stopping.set()
        self._thread.join()
        self._reader.close()

    def _use(self, midi_map: MidiMap) -> None:
        self._map = midi_map
        self._knobs = [Knob(binding, self._board) for binding in midi_map.bindings]

    def _listen(self) -> None:
        next_check = time.monotonic()
        while not self._stopping.wait(_READ_SECONDS):
            for message in self._reader.read():
                try:
                    self._handle(message)
                except Exception:
                    # Without this thread every other knob would be dead, too.
                    _log.exception(
                        "The MIDI message %s cannot be followed; it is left out", message
                    )
            if time.monotonic() >= next_check:
                # Trying to connect costs JACK a cycle at times, looking at names does not.
                looks_again = _LOOK_SECONDS if self._reader.check() else self._poll_seconds
                next_check = time.monotonic() + looks_again

    def _handle(self, message: list[int]) -> None:
        if len(message) != 3 or message[0] & 0xF0 != _CONTROL_CHANGE or message[1] > HIGHEST_CC:
            return
        channel, cc = (message[0] & 0x0F) + 1, message[1]
        learning = self._learning
        if learning is not None:
            learning.moved.put((channel, cc))
            return
        for knob in self._knobs:
            if knob.binding.is_moved_by(channel, cc):
                knob.turned(message[2])
