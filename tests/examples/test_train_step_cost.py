"""Counting what a training step launches."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from example_run import load_example, run_example

torch = pytest.importorskip("torch")

from rtsr.train.schedule import STAGES  # noqa: E402
from rtsr.train.settings import TrainSettings  # noqa: E402

train_step = load_example("train_step_cost")


def _count(step: Any) -> float:
    trainer = SimpleNamespace(device=torch.device("cpu"), take_step=lambda fraction: step())
    return train_step.count_launches(trainer, 0.0)


def test_an_operator_counts_once_and_a_look_at_memory_does_not() -> None:
    x = torch.ones(4, 4)
    assert _count(lambda: x.add(1.0)) == 1
    assert _count(lambda: x[1:].T.unsqueeze(0)) == 0
    assert _count(lambda: (x[1:].exp() + 1.0).sum()) == 3


def test_an_operator_on_many_tensors_is_one() -> None:
    many = [torch.ones(3) for _ in range(20)]
    assert _count(lambda: torch._foreach_mul_(many, 0.5)) == 1


def test_backward_counts_too() -> None:
    x = torch.ones(4, requires_grad=True)

    def step() -> None:
        x.grad = None
        (x * 2.0).sum().backward()

    forward_only = _count(lambda: (x * 2.0).sum())
    assert _count(step) > forward_only


@pytest.mark.parametrize(
    ("stage", "fraction", "most"),
    [
        ("autoencoder", 0.0, 1110),
        ("flow", 0.0, 465),
        ("levels", 0.0, 710),
        ("levels", 0.4, 865),
        ("levels", 1.0, 1320),
        ("refinement", 0.0, 1610),
        ("refinement", 1.0, 1940),
    ],
)
def test_a_step_launches_no_more_than_was_counted(
    tmp_path: Path, stage: str, fraction: float, most: int
) -> None:
    """With 5 % to spare; few and short clips, which take about as many operators as others."""
    settings = TrainSettings(
        precision="fp32", batch=2, frames=32, level_batch=2, level_frames=64, levels_every=0
    )
    trainer = train_step.make_trainer(settings, tmp_path, "cpu")
    trainer.stage = STAGES.index(stage)
    # What is computed once is not counted.
    trainer.take_step(fraction)
    assert train_step.count_launches(trainer, fraction) <= most


def test_the_synthetic_corpus_can_be_drawn_from() -> None:
    import numpy as np

    corpus = train_step.synthetic_corpus()
    audio = corpus.draw(np.random.default_rng(0), 3, 4800).audio
    assert audio.shape == (3, 4800)
    assert audio.std() > 0.01


def test_each_kind_of_step_of_the_levels_stage_is_taken_with_its_own_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import rtsr.train.objective as objective
    from rtsr.train.trainer import Trainer

    done: list[str] = []

    def watch(owner: Any, name: str) -> None:
        watched = getattr(owner, name)

        def call(*arguments: Any, **rest: Any) -> Any:
            done.append(name)
            return watched(*arguments, **rest)

        monkeypatch.setattr(owner, name, call)

    for name in ("predictor_levels", "path_levels", "all_levels"):
        watch(objective, name)
    for name in ("draw_bands", "draw_batch"):
        watch(Trainer, name)
    # Counting takes more of the same steps, and far longer.
    monkeypatch.setattr(train_step, "count_launches", lambda *_: 0.0)
    kinds = []
    for line in train_step.measure_stages(["levels"], "small", 1, 1, 20, "cpu"):
        kinds.append((line.partition(":")[0], set(done)))
        done.clear()
    assert kinds == [
        ("levels, the band predictor alone", {"draw_bands", "predictor_levels"}),
        # The layers for sound other than speech learn beside every step of the level path.
        ("levels, the level path alone", {"draw_batch", "draw_bands", "path_levels"}),
        (
            "levels, the level path and the decoder's gains",
            {"draw_batch", "draw_bands", "all_levels"},
        ),
    ]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--stage", "sleep"], "invalid choice: 'sleep'"),
        (["--frames", "19"], "--frames must be at least 20, not 19"),
        (["--model", "large"], "large"),
        (["--device", "abacus"], "abacus"),
    ],
)
def test_options_that_cannot_be_are_refused(options: list[str], sentence: str) -> None:
    done = run_example("train_step_cost.py", *options)
    assert done.returncode == 2
    assert sentence in done.stderr


def test_the_program_prints_a_line_for_each_kind_of_step() -> None:
    options = ["--stage", "flow", "--steps", "1", "--batch", "1", "--frames", "20"]
    done = run_example("train_step_cost.py", *options, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("flow: ")
    assert " launches, " in line
