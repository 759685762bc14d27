"""What threads may do together, what is refused, and what cannot be copied."""

from __future__ import annotations

import copy
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtsr import BatchUpsampler, RtsrError, Upsampler


def test_a_second_thread_in_process_is_refused(stand_in: Path) -> None:
    upsampler = Upsampler(8000, model=stand_in)
    inside, go_on = threading.Event(), threading.Event()
    engine = upsampler._engine
    assert engine is not None
    generate = engine._source.generate

    def held(*arguments: Any) -> Any:
        inside.set()
        assert go_on.wait(20)
        return generate(*arguments)

    engine._source.generate = held
    first: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: first.append(upsampler.process(np.ones(80, "f4"))))
    thread.start()
    assert inside.wait(20)
    for use in (
        lambda: upsampler.process(np.ones(80, np.float32)),
        upsampler.flush,
        upsampler.reset,
        lambda: setattr(upsampler, "input_rate", 16000),
    ):
        with pytest.raises(RtsrError, match="in use by another thread") as caught:
            use()
        assert str(caught.value).count(".") == 1
    # What is only looked at from time to time may be set at any time.
    upsampler.wet, upsampler.cutoff, upsampler.ceiling = 0.5, 3500.0, 16000.0
    go_on.set()
    thread.join(20)
    # The first is unharmed, and so is what follows, also after an error.
    assert len(first[0]) == 480
    assert upsampler.input_rate == 8000
    with pytest.raises(RtsrError):
        upsampler.process(np.ones((80, 2), np.float32))
    assert len(upsampler.process(np.ones(80, np.float32))) == 480


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, pickle.dumps])
def test_nothing_can_be_copied_or_pickled(how: Any, stand_in: Path) -> None:
    with BatchUpsampler(1, model=stand_in) as batch:
        things = [Upsampler(8000, model=stand_in), batch, batch.open(8000)]
        for thing in things:
            with pytest.raises(RtsrError, match="cannot be copied or pickled"):
                how(thing)


def test_many_threads_open_push_step_pull_and_close(stand_in: Path) -> None:
    """Each caller's sound comes out as if it were alone, whatever the others do meanwhile."""
    problems: list[BaseException] = []
    stop = threading.Event()
    rng = np.random.default_rng(0)
    sounds = [rng.uniform(-0.3, 0.3, 1600).astype(np.float32) for _ in range(6)]
    results: dict[int, list[np.ndarray]] = {index: [] for index in range(6)}

    def call(batch: BatchUpsampler, index: int) -> None:
        try:
            for _ in range(3):
                stream = batch.open(8000, seed=index, cutoff=3500.0)
                parts, sent = [], 0
                while not stream.is_done:
                    if sent < len(sounds[index]):
                        try:
                            stream.push(sounds[index][sent : sent + 133])
                            sent += 133
                        except RtsrError:
                            stop.wait(0.002)
                    else:
                        stream.finish()
                        stop.wait(0.001)
                    parts.append(stream.pull())
                parts.append(stream.pull())
                stream.close()
                results[index].append(np.concatenate(parts))
        except BaseException as error:
            problems.append(error)

    def step(batch: BatchUpsampler) -> None:
        while not stop.is_set():
            if not batch.step():
                stop.wait(0.001)

    with BatchUpsampler(6, model=stand_in, overload="wait") as batch:
        stepping = threading.Thread(target=step, args=(batch,))
        calls = [threading.Thread(target=call, args=(batch, index)) for index in range(6)]
        for thread in (stepping, *calls):
            thread.start()
        for thread in calls:
            thread.join(60)
        stop.set()
        stepping.join(20)
        assert not problems
        assert batch.free == 6
    for index, outs in results.items():
        upsampler = Upsampler(8000, model=stand_in, seed=index, cutoff=3500.0)
        expected = np.concatenate([upsampler.process(sounds[index]), upsampler.flush()])[480:]
        assert len(outs) == 3
        for out in outs:
            assert np.array_equal(out, expected)
