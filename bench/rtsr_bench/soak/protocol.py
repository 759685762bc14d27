"""Under what a soak runs."""

from __future__ import annotations

from dataclasses import dataclass

from rtsr.errors import ArgumentError

CLIPS = ("speech", "music")
_SHORTEST_SECONDS = 10.0


@dataclass(frozen=True)
class Protocol:
    """Under what a soak runs.

    Attributes:
        seconds: how long.
        gil_hog: whether the program's main thread spins in Python.
        load: programs beside it that only take time.
        model: the highest fallback level.
        clip: what is played.
        frames: of a cycle of the server.
        realtime: whether the server asks for real-time priority.
        screen: whether the screen is drawn.
        page: whether its page is open.
        colour: whether the clip is in full band and a colour is learnt of it.
    """

    seconds: float
    gil_hog: bool
    load: int
    model: str
    clip: str
    frames: int
    realtime: bool
    screen: bool
    page: bool = False
    colour: bool = False

    def check(self) -> None:
        """Raise :class:`ArgumentError` for what cannot be, named as the options are."""
        if not self.seconds >= _SHORTEST_SECONDS:
            raise ArgumentError(f"--minutes must be at least {_SHORTEST_SECONDS / 60.0:.2g}.")
        if self.clip not in CLIPS:
            raise ArgumentError(f"--clip must be one of {', '.join(CLIPS)}, not {self.clip!r}.")
        if self.load < 0:
            raise ArgumentError(f"--load must be 0 or more, not {self.load}.")
        if self.gil_hog and self.screen:
            raise ArgumentError(
                "--gil-hog runs the engine in a program without a screen; leave out one."
            )
        if self.page and (self.gil_hog or self.screen):
            # A terminal's screen shows the address, and no program reads it there.
            raise ArgumentError("--page is measured alone; leave out --gil-hog and --screen.")
        if self.colour and self.gil_hog:
            raise ArgumentError("--colour is measured with rtsr live alone; leave out --gil-hog.")
