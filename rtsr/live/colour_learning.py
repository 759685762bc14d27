"""Learning the colour of a live session's input, in the session's program.

The worker, which has a deadline, is another process and only takes what was learnt; the audio
callback needs no Python. So nothing that is due waits for any of this.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtsr.colour.activity import SoundActivity
from rtsr.colour.auto import AutoColour
from rtsr.colour.excerpts import ExcerptCollector
from rtsr.live.shared.memory import LiveMemory
from rtsr.live.supervisor import Guard
from rtsr.timing import SAMPLE_RATE
from rtsr_kernels.band_limit import FULL_BAND_HZ
from rtsr_kernels.resample import StreamingResampler

_LISTENS_EVERY_SECONDS = 0.1
# The memory holds 1.4 s; whoever comes later than this has missed something.
_MOST_HOPS_BEHIND = 100


class ColourLearning(Guard):
    """A thread that hears the captured sound, and gives the worker what is learnt of it.

    Args:
        memory: of the session.
        auto: what learns, bound to the session's model.
    """

    def __init__(self, memory: LiveMemory, auto: AutoColour) -> None:
        super().__init__("rtsr-live-colour", _LISTENS_EVERY_SECONDS)
        self._memory = memory
        self._auto = auto
        self._collector = ExcerptCollector(auto)
        self._activity = SoundActivity()
        clock = memory.clock
        self._hop = clock.hop
        self._audio: NDArray[np.float32] = np.zeros((clock.hop, memory.channels), np.float32)
        # What is learnt lies below 24 kHz. On the clock of its rate, which is any clock.
        self._narrow: StreamingResampler | None = None
        if clock.factor > 1:
            self._narrow = StreamingResampler(SAMPLE_RATE, SAMPLE_RATE // clock.factor, 1)
        self._next_hop = 0
        # What is known at the start the session has written before its worker started.
        self._given = auto.learnt

    def check(self) -> None:
        """Hear what the worker has measured since the last time, and tell it what is new."""
        words = self._memory.worker
        # What the worker is not done with, it has not found the end of the content of.
        end = int(words["next_hop"])
        cutoff_hz = min(float(words["cutoff_hz"]), FULL_BAND_HZ)
        if end - self._next_hop > _MOST_HOPS_BEHIND:
            self._miss(end)
        while self._next_hop < end:
            if self._memory.capture.read(self._next_hop * self._hop, self._audio) < self._hop:
                self._miss(end)
                break
            mono = self._audio.mean(axis=1)
            if self._narrow is not None:
                mono = self._narrow.process(mono[:, None])[:, 0]
            self._collector.add(mono, cutoff_hz, self._activity.hop_has_sound(mono))
            self._next_hop += 1
        learnt = self._auto.learnt
        if learnt is not None and learnt is not self._given:
            self._memory.colour.write(learnt)
            self._given = learnt

    def _miss(self, hop: int) -> None:
        self._collector.break_off()
        if self._narrow is not None:
            self._narrow.reset()
        self._next_hop = hop
