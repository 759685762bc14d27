"""Every class that enhances, against the plain engine, to the bit; and the engine by itself."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile

from rtsr import AutoColour, BatchUpsampler, Upsampler, enhance_file
from rtsr.colour.stream_colour import StreamColour
from rtsr.engine.hop_engine import HopEngine
from rtsr.engine.replicate import ReplicateSource
from rtsr.engine.sources import ModelSource
from rtsr.engine.statistics import Statistics
from rtsr.engine.stream_engine import Engine
from rtsr.live.controls.board import ControlBoard
from rtsr.live.worker.chain import LiveChain
from rtsr.runtime.models import find_model
from rtsr.runtime.session import OnnxStep

MakeSound = Callable[..., np.ndarray]
Plan = dict[int, dict[str, Any]]

HOP = 480
OVERLAP = 120


def _sound(make_sound: MakeSound, rate: int, seconds: float, channels: int, seed: int) -> Any:
    """Something loud, something silent, something between; each channel in its own time."""
    sound = make_sound(rate, seconds, cutoff=3600, channels=channels, level=0.3, seed=seed)
    random = np.random.default_rng(seed)
    for channel in range(channels):
        start, end = sorted(random.integers(0, len(sound), 2))
        sound[start:end, channel] *= random.choice([0.0, 0.0, 4e-5, 0.1])
    sound[len(sound) // 2 :: len(sound) // 3] = 0.9
    return sound


def _plan(seed: int, steps: int) -> Plan:
    """Controls that change, by the step before which they do."""
    random = np.random.default_rng(seed)
    plan: Plan = {}
    for step in range(1, steps):
        changes: dict[str, Any] = {}
        if random.random() < 0.25:
            changes["cutoff"] = random.choice([3400.0, 3600.0, 7000.0, 11000.0, 23000.0])
        elif random.random() < 0.1:
            changes["cutoff"] = None
        if random.random() < 0.25:
            changes["wet"] = float(random.choice([0.0, 0.4, 1.0]))
        if random.random() < 0.1:
            changes["ceiling"] = float(random.choice([3500.0, 16000.0, 22000.0]))
        plan[step] = changes
    return plan


def _set_plainly(plan: Plan) -> Callable[[Any, int], None]:
    def change(engine: Any, step: int) -> None:
        for name, value in plan.get(step, {}).items():
            if name == "cutoff":
                engine.set_cutoff(value)
            else:
                setattr(engine, {"ceiling": "f_target"}.get(name, name), value)

    return change


def _set(target: Any, changes: dict[str, Any]) -> None:
    for name, value in changes.items():
        setattr(target, name, value)


def _source(plain: ModuleType, model: str | Path, channels: int, seed: int, hops: int) -> Any:
    if model == "replicate":
        return ReplicateSource(channels, seed, hops)
    path = find_model(model).path if model == "small" else model
    return plain.PlainNetwork(path, channels, seed, hops)


def _target(model: str | Path) -> float:
    return float(find_model(model).metadata.f_target_default)


@pytest.fixture
def models(stand_in: Path, failing_model: Path) -> dict[str, Any]:
    return {"stand-in": stand_in, "failing": failing_model, "replicate": "replicate"}


@pytest.mark.parametrize(
    ("name", "rate", "hops", "channels", "output_rate"),
    [
        ("stand-in", 48000, 1, 1, 48000),
        ("stand-in", 8000, 2, 2, 48000),
        ("stand-in", 16000, 4, 1, 44100),
        ("stand-in", 44100, 1, 3, 16000),
        ("failing", 8000, 1, 1, 48000),
        ("failing", 48000, 2, 2, 24000),
        ("replicate", 8000, 1, 1, 48000),
        ("replicate", 22050, 2, 1, 32000),
    ],
)
def test_upsampler_gives_the_bits_of_the_plain_engine(
    plain: ModuleType,
    models: dict[str, Any],
    make_sound: MakeSound,
    name: str,
    rate: int,
    hops: int,
    channels: int,
    output_rate: int,
) -> None:
    model, seed = models[name], hops + channels
    sound = _sound(make_sound, rate, 0.3, channels, seed)
    plan = _plan(seed, 40)
    settings: dict[str, Any] = {"channels": channels, "seed": 5, "wet": 0.8, "cutoff": 3500.0}
    upsampler = Upsampler(
        rate, model=model, hops_per_step=hops, output_rate=output_rate, **settings
    )
    parts, start, done, step = [], 0, 0, HOP * hops
    random = np.random.default_rng(seed)
    while start < len(sound):
        # What is set counts from the next step that is taken.
        waiting = int(start * 48000 // rate) // step
        if waiting > done:
            for index in range(done + 1, waiting + 1):
                _set(upsampler, plan.get(index, {}))
            done = waiting
        length = int(random.integers(1, rate // 200))
        # Never two steps at once, so that every change finds its own.
        parts.append(upsampler.process(sound[start : start + length]))
        start += length
    last = done
    parts.append(upsampler.flush())
    got = np.concatenate(parts)[upsampler.latency.hop * output_rate // 48000 :]

    source = _source(plain, model, channels, 5, hops)
    engine = plain.PlainEngine(
        source, native_hz=rate / 2, f_target=_target(model), wet=0.8, cutoff=3500.0
    )
    kept = {index: changes for index, changes in plan.items() if index <= last}
    expected = plain.run_plainly(
        engine, sound, rate, output_rate, controls=_set_plainly(kept), tail=rate // 5
    )
    assert np.array_equal(got, expected[: len(got)])
    if name == "failing":
        assert upsampler.statistics.degraded_blocks > 0


def _run_batch(
    batch: BatchUpsampler, streams: list[Any], sounds: list[np.ndarray], plans: list[Plan]
) -> list[np.ndarray]:
    """Push 10 ms at a time and step; controls change before the step of their number."""
    parts: list[list[np.ndarray]] = [[] for _ in streams]
    taken = [0] * len(streams)
    for tick in range(200):
        for stream, sound in zip(streams, sounds, strict=True):
            size = stream.input_rate // 100
            block = sound[tick * size : (tick + 1) * size]
            if len(block):
                stream.push(block)
            else:
                stream.finish()
        for index, stream in enumerate(streams):
            if stream.is_due:
                if taken[index]:
                    _set(stream, plans[index].get(taken[index], {}))
                taken[index] += 1
        batch.step()
        for part, stream in zip(parts, streams, strict=True):
            part.append(stream.pull())
        if all(stream.is_done for stream in streams):
            break
    return [np.concatenate(part) for part in parts]


@pytest.mark.parametrize(("hops", "name"), [(1, "stand-in"), (2, "stand-in"), (1, "failing")])
def test_batch_gives_the_bits_of_the_plain_engine(
    plain: ModuleType, models: dict[str, Any], make_sound: MakeSound, hops: int, name: str
) -> None:
    model = models[name]
    formats = [(8000, 1, 48000), (48000, 2, 44100), (16000, 3, 48000), (24000, 1, 16000)]
    sounds = [
        _sound(make_sound, rate, 0.2, channels, seed)
        for seed, (rate, channels, _) in enumerate(formats)
    ]
    plans = [_plan(20 + index, 60) for index in range(len(formats))]
    with BatchUpsampler(8, model=model, hops_per_step=hops, overload="wait") as batch:
        streams = [
            batch.open(rate, channels=channels, seed=seed, cutoff=3500.0, output_rate=output_rate)
            for seed, (rate, channels, output_rate) in enumerate(formats)
        ]
        got = _run_batch(batch, streams, sounds, plans)
        degraded = [stream.statistics.degraded_blocks for stream in streams]
    for seed, (rate, channels, output_rate) in enumerate(formats):
        source = _source(plain, model, channels, seed, hops)
        engine = plain.PlainEngine(
            source, native_hz=rate / 2, f_target=_target(model), cutoff=3500.0
        )
        expected = plain.run_plainly(
            engine, sounds[seed], rate, output_rate, controls=_set_plainly(plans[seed])
        )
        assert np.array_equal(got[seed], expected[: len(got[seed])])
        assert len(got[seed]) > 0.2 * output_rate
        if name == "failing":
            assert degraded[seed] >= source.degraded * hops - 2 * hops
            assert degraded[seed] > 0


@pytest.mark.parametrize("channels", [1, 2])
def test_one_bad_hop_between_good_ones(
    plain: ModuleType, failing_model: Path, make_sound: MakeSound, channels: int
) -> None:
    """What rings of the hop before, in the filter and in the graph, is dropped."""
    sound = np.abs(make_sound(48000, 0.15, cutoff=3500, channels=channels, level=0.3)) + 0.01
    sound = sound.astype(np.float32)
    # A batch takes two hops at once: the first of two, the second, and both.
    for hop, place in ((4, 0), (7, 100), (10, 3), (11, 479)):
        sound[hop * HOP + place] = -0.2
    settings: dict[str, Any] = {"channels": channels, "cutoff": 3500.0}
    engine = plain.PlainEngine(
        _source(plain, failing_model, channels, 0, 1),
        f_target=_target(failing_model),
        cutoff=3500.0,
    )
    expected = plain.run_plainly(engine, sound, tail=0)
    upsampler = Upsampler(48000, model=failing_model, **settings)
    alone = upsampler.process(sound)[HOP:]
    assert np.array_equal(alone, expected[: len(alone)])
    assert upsampler.statistics.degraded_blocks == engine.source.degraded == 4
    with BatchUpsampler(3, model=failing_model, overload="wait") as batch:
        batch.open(48000)
        stream = batch.open(48000, **settings)
        stream.push(sound)
        while batch.step():
            pass
        got = stream.pull()
        assert stream.statistics.degraded_blocks == 4
    assert np.array_equal(got, expected[: len(got)])
    loud = np.abs(expected[OVERLAP:] - sound[:-OVERLAP]).reshape(-1)
    assert loud.max() > 0.0


def test_small_is_fed_as_plainly(plain: ModuleType, make_sound: MakeSound) -> None:
    """The network in use, whose batch items round on their own."""
    sound = make_sound(8000, 0.15, cutoff=3500, channels=2)
    with BatchUpsampler(3, model="small", overload="wait") as batch:
        stream = batch.open(8000, channels=2, seed=3)
        got = _run_batch(batch, [stream], [sound], [{}])[0]
    with Upsampler(8000, model="small", channels=2, seed=3) as upsampler:
        alone = np.concatenate([upsampler.process(sound), upsampler.flush()])[HOP:]
    engine = plain.PlainEngine(
        _source(plain, "small", 2, 3, 1), native_hz=4000.0, f_target=_target("small")
    )
    expected = plain.run_plainly(engine, sound, 8000)[: len(got)]
    assert np.abs(got - expected).max() <= 1e-5
    assert np.abs(alone - expected[: len(alone)]).max() <= 1e-5
    assert np.abs(expected).max() > 0.1


def test_measured_cutoffs_are_those_of_the_plain_engine(
    plain: ModuleType, stand_in: Path, make_sound: MakeSound
) -> None:
    """Content that ends at 3.5 kHz in a stream that could hold more: the crossover moves."""
    sound = make_sound(48000, 5.0, cutoff=3500, level=0.2)
    sound = np.concatenate([make_sound(48000, 1.0, cutoff=11000, level=0.2, seed=2), sound])
    with Upsampler(48000, model=stand_in, expected_cutoff=8000.0) as upsampler:
        got = upsampler.process(sound)[HOP:]
        found = upsampler.cutoff_hz
    engine = plain.PlainEngine(
        _source(plain, stand_in, 1, 0, 1), f_target=_target(stand_in), expected_cutoff=8000.0
    )
    expected = plain.run_plainly(engine, sound, tail=0)
    assert np.array_equal(got, expected[: len(got)])
    assert found == engine.detector.cutoff_hz != 8000.0


@pytest.mark.parametrize("name", ["stand-in", "failing", "replicate"])
def test_live_chain_gives_the_bits_of_the_plain_engine(
    plain: ModuleType, models: dict[str, Any], make_sound: MakeSound, name: str
) -> None:
    model, channels = models[name], 2
    sound = _sound(make_sound, 48000, 0.3, channels, 8)
    sound = sound[: len(sound) // HOP * HOP]
    statistics = Statistics()
    if name == "replicate":
        source: Any = ReplicateSource(channels, 0, 1)
    else:
        source = ModelSource(OnnxStep(model, batch=channels), 0, statistics)
    board = ControlBoard()
    board.set("cutoff_hz", 3500.0)
    chain = LiveChain({"base": source}, board, channels, 24000.0, statistics, f_target=20000.0)
    out = np.empty_like(sound)
    for start in range(0, len(sound), HOP):
        chain.step(sound[start : start + HOP], out[start : start + HOP], "base")
    engine = plain.PlainEngine(
        _source(plain, model, channels, 0, 1), f_target=20000.0, cutoff=3500.0
    )
    expected = plain.run_plainly(engine, sound, tail=0)
    assert np.array_equal(out, expected)
    assert (statistics.degraded_blocks > 0) == (name == "failing")


@pytest.mark.parametrize(("name", "output_rate"), [("stand-in", 48000), ("replicate", 44100)])
def test_a_file_holds_the_bits_of_the_plain_engine(
    plain: ModuleType,
    models: dict[str, Any],
    make_sound: MakeSound,
    tmp_path: Path,
    name: str,
    output_rate: int,
) -> None:
    sound = _sound(make_sound, 8000, 0.3, 2, 9)
    soundfile.write(tmp_path / "in.wav", sound, 8000, "FLOAT")
    report = enhance_file(
        tmp_path / "in.wav",
        tmp_path / "out.wav",
        model=models[name],
        cutoff=3500.0,
        wet=0.9,
        seed=2,
        output_rate=output_rate,
    )
    got, _ = soundfile.read(tmp_path / "out.wav", dtype="float32")
    engine = plain.PlainEngine(
        _source(plain, models[name], 2, 2, 16),
        native_hz=4000.0,
        f_target=_target(models[name]),
        wet=0.9,
        cutoff=3500.0,
    )
    expected = plain.run_plainly(engine, sound, 8000, output_rate)
    late = report.latency.algorithmic_samples - report.latency.hop * output_rate // 48000
    assert len(got) == round(0.3 * output_rate)
    assert np.array_equal(got, expected[late : late + len(got)])


# --- the engine by itself ---


class CheapSource:
    """A source that costs nothing: its high band is always the same."""

    name = "cheap"
    seed = 0
    overlap = OVERLAP

    def __init__(self, channels: int = 1, hops: int = 1, fails_at: int = -1) -> None:
        self.channels, self.hops, self.fails_at = channels, hops, fails_at
        self.statistics = Statistics()
        self._out = np.zeros((HOP * hops, channels), np.float32)
        self.taken = 0
        random = np.random.default_rng(0)
        self._loud = random.standard_normal(self._out.shape).astype(np.float32)

    def reset(self) -> None:
        self.taken = 0

    def resume(self, frame: int) -> None:
        pass

    def generate(self, audio: np.ndarray, f_prior: np.ndarray, f_target: float) -> np.ndarray:
        fails = self.taken == self.fails_at
        self._out[:] = 0.0 if fails else self._loud
        self.statistics.degraded_blocks += self.hops if fails else 0
        self.taken += 1
        return self._out


def _engine(source: CheapSource, **settings: Any) -> Engine:
    return Engine(source, 24000.0, 22000.0, 1.0, source.statistics, cutoff=4000.0, **settings)


def test_nothing_rings_into_a_degraded_hop() -> None:
    source = CheapSource(fails_at=5)
    engine = _engine(source)
    audio = np.full((HOP, 1), 0.25, np.float32)
    outs = []
    for _ in range(8):
        out = np.empty_like(audio)
        engine.step(audio, out)
        outs.append(out)
    assert np.all(outs[5] == 0.25)
    assert np.abs(outs[4] - 0.25).max() > 0.1
    assert np.abs(outs[6] - 0.25).max() > 0.1


def test_the_first_hop_is_like_after_a_reset() -> None:
    engine = _engine(CheapSource())
    audio = np.full((HOP, 1), 0.25, np.float32)
    first, again = np.empty_like(audio), np.empty_like(audio)
    engine.step(audio, first)
    for _ in range(5):
        engine.step(audio, again)
    engine.reset()
    engine.step(audio, again)
    assert np.array_equal(first, again)
    assert np.all(first[:OVERLAP] != 0.25)


@pytest.mark.parametrize("target", [3900.0, 4000.0, 4001.0])
def test_nothing_is_added_from_the_target_on(target: float) -> None:
    engine = _engine(CheapSource())
    engine.f_target = target
    audio, out = np.full((HOP, 1), 0.25, np.float32), np.empty((HOP, 1), np.float32)
    for _ in range(3):
        engine.step(audio, out)
    assert bool(np.all(out == 0.25)) == (target <= 4000.0)
    assert bool(engine.adds[0]) == (target > 4000.0)


def test_the_native_rate_bounds_a_given_cutoff() -> None:
    engine = _engine(CheapSource())
    audio, out = np.full((HOP, 1), 0.25, np.float32), np.empty((HOP, 1), np.float32)
    assert engine.cutoff_hz == 24000.0
    engine.step(audio, out)
    assert engine.cutoff_hz == 4000.0
    engine.native_hz = 3000.0
    engine.step(audio, out)
    assert engine.cutoff_hz == 3000.0
    assert engine.cutoff == 4000.0
    engine.cutoff = 2000.0
    engine.step(audio, out)
    assert engine.cutoff_hz == 2000.0


def test_resuming_takes_the_input_from_before_the_gap() -> None:
    engine = HopEngine(1, 2, 1, OVERLAP)
    engine.join(0, [1, 0], native_hz=24000.0, f_target=20000.0, cutoff=24000.0)
    audio = np.random.default_rng(0).standard_normal((2 * HOP, 2)).astype(np.float32)
    out = np.empty((HOP, 2), np.float32)
    engine.resume(0, audio[HOP - OVERLAP : HOP])
    engine.begin(audio[HOP:])
    engine.finish(audio[HOP:], np.zeros_like(out), out)
    assert np.array_equal(out, audio[HOP - OVERLAP : 2 * HOP - OVERLAP])


def test_who_joins_a_row_is_not_silent() -> None:
    engine = HopEngine(1, 1, 1, OVERLAP)
    audio, out = np.full((HOP, 1), 0.25, np.float32), np.empty((HOP, 1), np.float32)
    high = np.random.default_rng(0).standard_normal((HOP, 1)).astype(np.float32)
    for is_silent in (True, False):
        engine.join(0, [0], native_hz=24000.0, f_target=20000.0, cutoff=4000.0)
        if is_silent:
            engine.set_silent(0, True)
        engine.begin(audio)
        engine.finish(audio, high, out)
        assert bool(np.all(out[OVERLAP:] == 0.25)) == is_silent


@pytest.mark.slow
def test_memory_is_flat_over_a_hundred_thousand_steps(
    count_allocations: Callable[[], tuple[int, int]],
) -> None:
    engine = _engine(CheapSource())
    audio, out = np.full((HOP, 1), 0.25, np.float32), np.empty((HOP, 1), np.float32)

    def run(steps: int) -> None:
        for _ in range(steps):
            engine.step(audio, out)

    run(1000)
    before_run = count_allocations()
    run(1000)
    after = count_allocations()
    per_thousand = after[0] - before_run[0]
    run(95_000)
    assert count_allocations() == (after[0] + 95 * per_thousand, before_run[1])
    tracemalloc.start()
    try:
        run(500)
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        run(2500)
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert now - before < 2000
    # A hop of audio is 1920 bytes.
    assert peak - before < 4000


def test_compiled_calls_of_a_batch_step_allocate_nothing(
    stand_in: Path, count_allocations: Callable[[], tuple[int, int]]
) -> None:
    def per_step(count: int) -> float:
        with BatchUpsampler(8, model=stand_in, overload="wait") as batch:
            streams = [
                batch.open(48000, channels=2, output_rate=rate, cutoff=cutoff)
                for rate, cutoff in ((48000, 4000.0), (44100, None), (16000, 4000.0))
            ][:count]
            block, out = np.full((HOP, 2), 0.95, np.float32), np.empty((HOP, 2), np.float32)
            taken = 0
            for index in range(320):
                for stream in streams:
                    stream.push(block)
                before = count_allocations()
                batch.step()
                after = count_allocations()
                assert after[1] == before[1]
                if index >= 20:
                    taken += after[0] - before[0]
                for stream in streams:
                    stream.pull_into(out)
            return taken / 300

    # What is passed is the same for one stream and for three.
    assert per_step(1) == per_step(3)


def test_a_colour_that_another_thread_takes_away_within_a_step(
    make_sound: MakeSound, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step ends with the colour that it has begun with."""
    sound = make_sound(48000, 0.01, cutoff=3600)
    engine = HopEngine(1, 1, 1, OVERLAP)
    engine.join(0, [0], native_hz=24000.0, f_target=22000.0, cutoff=4000.0, colour=AutoColour())
    taken = []

    def may_skip(colour: StreamColour, hops: int) -> bool:
        engine.set_colour(0, None)
        taken.append(colour)
        return False

    monkeypatch.setattr(StreamColour, "may_skip", may_skip)
    out = np.empty_like(sound)
    engine.begin(sound)
    engine.finish(sound, np.zeros_like(sound), out)
    assert len(taken) == 1
    assert engine.colour(0) is None
    assert np.array_equal(out[OVERLAP:], sound[:-OVERLAP])
