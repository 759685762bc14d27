"""How long a level is fed before it is heard, where nobody says so."""

from __future__ import annotations

import numpy as np

from rtsr.engine.statistics import Statistics
from rtsr.live.controls.board import ControlBoard
from rtsr.live.worker.chain import LiveChain
from rtsr.timing import OVERLAP

HOP = 480


class _Counting:
    """A silent source that notes the hops it was asked for."""

    channels = hops = 1
    overlap = OVERLAP
    seed = 0

    def __init__(self, name: str) -> None:
        self.name = name
        self.frame = 0
        self.asked: list[int] = []

    def reset(self) -> None:
        self.asked.clear()
        self.frame = 0

    def resume(self, frame: int) -> None:
        self.frame = frame

    def generate(self, audio: np.ndarray, f_prior: np.ndarray, f_target: float) -> np.ndarray:
        self.asked.append(self.frame)
        self.frame += 1
        return np.zeros((HOP, 1), np.float32)


def _chain() -> tuple[LiveChain, _Counting, _Counting]:
    better, lesser = _Counting("better"), _Counting("lesser")
    board = ControlBoard(fallback_levels=("better", "lesser", "dry"))
    board.set("cutoff_hz", 4000.0)
    chain = LiveChain({"better": better, "lesser": lesser}, board, 1, 24000.0, Statistics())
    return chain, better, lesser


def _step(chain: LiveChain, level: str) -> None:
    out = np.empty((HOP, 1), np.float32)
    chain.step(np.full((HOP, 1), 0.1, np.float32), out, level)


def test_a_better_level_is_fed_with_twenty_hops_first() -> None:
    chain, better, _ = _chain()
    for _ in range(5):
        _step(chain, "lesser")
    heard_after = 0
    while chain.level != "better":
        _step(chain, "better")
        heard_after += 1
        assert heard_after < 50
    assert heard_after == 21
    assert better.asked == list(range(5, 26))


def test_a_lesser_level_takes_in_four_hops_of_the_past_at_once() -> None:
    chain, _, lesser = _chain()
    for _ in range(10):
        _step(chain, "better")
    _step(chain, "lesser")
    assert chain.level == "lesser"
    assert lesser.asked == [6, 7, 8, 9, 10]
