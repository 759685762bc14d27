"""Slots of a batch: those that are due move on, all others stay, whatever is run for it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rtsr.batch.device_slots import DeviceSlots
from rtsr.batch.host_slots import row_counts
from rtsr.batch.select_graph import select_graph
from rtsr.batch.slots import Slots, SlotStep
from rtsr.batch.step_signals import StepSignals
from rtsr.runtime.session import OnnxStep

# Matrix products round by the size of the batch.
TOLERANCE = 1e-5
SLOTS = 5


def _indices(*slots: int) -> np.ndarray:
    return np.array(slots, np.int64)


def _slots_of(model: str, on_device: bool, count: int) -> Slots:
    if on_device:  # what a state in another memory needs, with the CPU as that device
        return DeviceSlots(OnnxStep(model, provider="cpu", batch=count))
    return SlotStep(model, provider="cpu", slots=count)


def _fill(slots: Slots, random: np.random.Generator) -> None:
    for part in slots.parts:
        part.audio[...] = 0.1 * random.standard_normal(part.audio.shape)
        part.noise[...] = random.standard_normal(part.noise.shape)
        part.f_prior.fill(4000.0)
        part.f_target.fill(20000.0)


@pytest.mark.parametrize("on_device", [False, True], ids=["host", "device"])
def test_a_step_and_a_clearing_touch_their_slots_only(model: str, on_device: bool) -> None:
    slots = _slots_of(model, on_device, 4)
    random = np.random.default_rng(0)
    for _ in range(5):
        _fill(slots, random)
        slots.run(_indices(0, 1, 2, 3), _indices())
    before = slots.state()
    _fill(slots, random)
    slots.run(_indices(0, 2), _indices(1, 3))
    after = slots.state()
    for name, state in after.items():
        assert np.array_equal(state[[1, 3]], before[name][[1, 3]])
    for slot in (0, 2):
        assert any(np.abs(after[name][slot] - before[name][slot]).max() > 0 for name in after)
    slots.clear(_indices(0, 3))
    for name, state in slots.state().items():
        assert not state[[0, 3]].any()
        assert np.array_equal(state[[1, 2]], after[name][[1, 2]])
    slots.clear(_indices())
    slots.reset()
    assert not any(state.any() for state in slots.state().values())


def _inputs(part: StepSignals) -> tuple[np.ndarray, ...]:
    return part.audio, part.noise, part.f_prior, part.f_target


@st.composite
def _schedule(draw: st.DrawFn, count: int) -> list[tuple[str, list[int]]]:
    some = st.lists(st.integers(0, count - 1), unique=True, min_size=1, max_size=count)
    one = st.tuples(st.sampled_from(["run", "run", "run two", "clear"]), some)
    return draw(st.lists(one, min_size=1, max_size=25))


@pytest.fixture(scope="module")
def sessions(stand_in: Any) -> tuple[dict[str, Slots], list[OnnxStep]]:
    kinds = {kind: _slots_of(str(stand_in), kind == "device", SLOTS) for kind in ("host", "device")}
    return kinds, [OnnxStep(stand_in, provider="cpu") for _ in range(SLOTS)]


@pytest.mark.parametrize("kind", ["host", "device"])
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_order_of_steps_and_clearings_is_each_slot_alone(
    kind: str, sessions: tuple[dict[str, Slots], list[OnnxStep]], data: st.DataObject
) -> None:
    slots, alone = sessions[0][kind], sessions[1]
    random = np.random.default_rng(0)
    slots.reset()
    for step in alone:
        step.reset()
    for action, chosen in data.draw(_schedule(SLOTS)):
        if action == "clear":
            slots.clear(_indices(*chosen))
            for slot in chosen:
                alone[slot].reset()
            continue
        _fill(slots, random)
        steps = min(2, len(slots.parts)) if action == "run two" else 1
        slots.run(_indices(*chosen), _indices(*(set(range(SLOTS)) - set(chosen))), steps)
        for slot in chosen:
            for part in slots.parts[:steps]:
                expected = alone[slot].step(*(value[slot : slot + 1] for value in _inputs(part)))
                assert np.abs(part.high_band[slot] - expected[0]).max() <= TOLERANCE
    for name, state in slots.state().items():
        for slot in range(SLOTS):
            assert np.abs(state[slot] - alone[slot].state()[name][0]).max() <= TOLERANCE


def test_slots_step_like_a_session_alone(model: str) -> None:
    slots, alone = SlotStep(model, slots=3, provider="cpu"), OnnxStep(model, provider="cpu")
    random = np.random.default_rng(1)
    assert len(slots.parts) == 2
    for step in range(60):
        _fill(slots, random)
        # Every third is a stall of slot 1, and the others come and go as well.
        due = (
            {0: [0, 1], 1: [1], 2: [0, 2]}[step % 3]
            if step < 30
            else [[2, 1], [1, 0, 2], [0]][step % 3]
        )
        steps = 1 + step % 5 % 2
        slots.run(_indices(*due), _indices(*({0, 1, 2} - set(due))), steps)
        if 1 not in due:
            continue
        for part in slots.parts[:steps]:
            expected = alone.step(*(value[1:2] for value in _inputs(part)))
            assert np.abs(part.high_band[1:2] - expected).max() <= TOLERANCE


@pytest.mark.parametrize(("hops", "parts"), [(1, 2), (2, 1), (4, 1)])
def test_only_steps_of_one_hop_are_taken_two_at_once(hops: int, parts: int, stand_in: Any) -> None:
    slots = SlotStep(stand_in, provider="cpu", slots=2, hops_per_step=hops)
    assert len(slots.parts) == parts
    assert all(part.audio.shape == (2, 1, 480 * hops) for part in slots.parts)


def test_many_slots_are_rounded_up_and_nobody_else_moves_on(stand_in: Any) -> None:
    count = 300
    counts = row_counts(count)
    assert counts[:64] == list(range(1, 65))
    assert counts[-1] == count
    assert all(b <= max(a + 1, a * 17 / 16) for a, b in itertools.pairwise(counts))
    assert row_counts(3) == [1, 2, 3]
    assert len(row_counts(16384)) < 200
    slots = _slots_of(str(stand_in), False, count)
    random = np.random.default_rng(2)
    last: dict[int, int] = {}
    before = slots.state()
    for step in range(20):
        due = random.permutation(count)[: random.integers(60, 200)]
        _fill(slots, random)
        slots.run(due.astype(np.int64), _indices(), 1 + step % 2)
        after = slots.state()
        others = np.setdiff1d(np.arange(count), due)
        for name, state in after.items():
            assert np.array_equal(state[others], before[name][others])
        assert all(
            any((state[slot] != before[name][slot]).any() for name, state in after.items())
            for slot in due
        )
        before = after
        last.update(dict.fromkeys(due.tolist(), step))
    assert len(last) == count


def test_graph_that_selects_rows_is_valid_onnx() -> None:
    import onnx

    model = onnx.load_from_string(select_graph({"a": (300, 1, 7), "b": (300, 4), "c.d": (300, 2)}))
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Where"] * 3
    assert {value.name for value in model.graph.output} == {"result.a", "result.b", "result.c.d"}
