"""Training that feeds a GPU: nothing in a step waits, filters come in batches."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal

torch = pytest.importorskip("torch")

from small_run import TINY, corpus  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from rtsr.cli.app import app  # noqa: E402
from rtsr.errors import RtsrError  # noqa: E402
from rtsr.train import low_passes  # noqa: E402
from rtsr.train.checkpoint import load_generator  # noqa: E402
from rtsr.train.device import placed  # noqa: E402
from rtsr.train.trainer import CHECKPOINT, Trainer  # noqa: E402


class _NothingIsRead(TorchDispatchMode):
    """Refuses what would make a program wait for a device: reading a value from it."""

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        assert function is not torch.ops.aten._local_scalar_dense.default, "a value is read"
        assert function is not torch.ops.aten.nonzero.default, "a size depends on values"
        return function(*arguments, **(keywords or {}))


@pytest.mark.parametrize(("stage", "fraction"), [(0, 1.0), (1, 0.0), (2, 0.0), (2, 1.0), (3, 1.0)])
def test_a_step_reads_no_value_from_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: int, fraction: float
) -> None:
    trainer = Trainer(TINY, corpus(), corpus(), tmp_path, "cpu")
    trainer.stage = stage
    # The first step of an optimiser makes its state.
    trainer.take_step(fraction)
    for name in ("tolist", "numpy", "cpu", "item"):
        monkeypatch.setattr(torch.Tensor, name, lambda *_: pytest.fail("a tensor is read"))
    with _NothingIsRead():
        terms = trainer.take_step(fraction)
    assert terms


def test_a_value_that_is_read_is_noticed() -> None:
    with pytest.raises(AssertionError, match="a value is read"), _NothingIsRead():
        bool(torch.ones(()) > 0.0)


def test_a_step_whose_gradients_are_not_finite_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(TINY, corpus(), corpus(), tmp_path, "cpu")
    trainer.take_step(0.0)
    before = {name: value.clone() for name, value in trainer.generator.state_dict().items()}
    handle = trainer.generator.encoder.enter.weight.register_hook(lambda grad: grad * math.nan)
    trainer.take_step(0.0)
    handle.remove()
    after = trainer.generator.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    trainer.take_step(0.0)
    assert not torch.equal(trainer.generator.encoder.enter.weight, before["encoder.enter.weight"])


def test_a_run_goes_on_from_an_optimiser_of_single_kernels(tmp_path: Path) -> None:
    """As checkpoints were written before."""
    trainer = Trainer(TINY, corpus(), corpus(), tmp_path, "cpu")
    trainer.take_step(0.0)
    trainer.save()
    content = torch.load(tmp_path / CHECKPOINT)
    for name in ("optimizer", "discriminator_optimizer"):
        for group in content[name]["param_groups"]:
            group["fused"] = None
    torch.save(content, tmp_path / CHECKPOINT)
    again = Trainer(TINY, corpus(), corpus(), tmp_path, "cpu")
    assert again.resume()
    assert all(group["fused"] for group in again.optimizer.param_groups)
    for one in (trainer, again):
        torch.manual_seed(0)
        one.take_step(0.0)
    for name, value in trainer.generator.state_dict().items():
        assert torch.equal(again.generator.state_dict()[name], value)


def test_a_slim_checkpoint_is_enough_to_export_and_to_grow_from(tmp_path: Path) -> None:
    settings = replace(TINY, steps=(1, 1, 1, 1))
    trainer = Trainer(settings, corpus(), corpus(), tmp_path, "cpu", keep_slim=True)
    trainer.run(math.inf)
    whole, slim = tmp_path / CHECKPOINT, tmp_path / "slim.pt"
    assert slim.stat().st_size < whole.stat().st_size / 3
    (expected, facts), (found, same) = load_generator(whole), load_generator(slim)
    assert same == facts
    for name, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], value)
    grown = Trainer(settings, corpus(), corpus(), tmp_path / "grown", "cpu")
    grown.grow_from(slim)
    assert grown.grown_from["stage"] == "refinement"
    slim.replace(whole)
    with pytest.raises(RtsrError, match="no run to go on with"):
        Trainer(settings, corpus(), corpus(), tmp_path, "cpu").resume()


@pytest.mark.parametrize(
    ("kind", "design"),
    [
        ("butterworth", lambda: scipy.signal.butter(7, 1.0, analog=True)),
        ("bessel", lambda: scipy.signal.bessel(4, 1.0, analog=True, norm="mag")),
        ("chebyshev", lambda: scipy.signal.cheby1(3, 0.5, 1.0, analog=True)),
        ("elliptic", lambda: scipy.signal.ellip(10, 0.5, 50.0 + 100 % 40, 1.0, analog=True)),
    ],
    ids=["butterworth", "bessel", "chebyshev", "elliptic"],
)
def test_analog_filters_are_those_of_the_textbook(kind: str, design: Any) -> None:
    orders = {"butterworth": 7, "bessel": 4, "chebyshev": 3, "elliptic": 10}
    other = low_passes.analog_prototype("butterworth", 2, 0.5)
    filters = low_passes.LowPasses(
        np.array([4000.0, 8000.0]),
        [0, 1],
        [4000.0, 8000.0],
        [low_passes.analog_prototype(kind, orders[kind], 0.5), other],
    )
    hz = torch.arange(0.0, 24_000.0, 50.0)
    found = low_passes.analog_responses(hz, filters).numpy()
    for row, (edge, (b, a)) in enumerate(
        [(4000.0, design()), (8000.0, scipy.signal.butter(2, 1.0, analog=True))]
    ):
        _, expected = scipy.signal.freqs(b, a, hz.numpy() / edge)
        np.testing.assert_allclose(found[row], expected, atol=2e-4)


def test_a_low_pass_is_zero_from_its_cutoff_on_also_without_a_slope() -> None:
    hz = torch.arange(0.0, 24_000.0, 100.0)
    gains = low_passes.low_pass_gains(hz, np.array([8000.0, 8000.0]), np.array([7000.0, 8000.0]))
    assert gains[:, hz <= 7000.0].eq(1.0).all()
    assert gains[:, hz >= 8000.0].eq(0.0).all()
    assert gains[0, hz == 7500.0].item() == pytest.approx(0.5, abs=1e-6)
    assert gains[1, hz < 8000.0].eq(1.0).all()


@pytest.mark.parametrize("workers", ["0", "-3", "1000"])
def test_a_number_of_workers_that_cannot_be(tmp_path: Path, workers: str) -> None:
    done = CliRunner().invoke(
        app, ["train", str(tmp_path), "--out", str(tmp_path / "run"), "--workers", workers]
    )
    assert done.exit_code == 2
    assert f"--workers is {workers}; it must be 1 to 256" in done.stderr


def test_a_gpu_is_sent_pinned_memory_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies out of other memory are waited for, `non_blocking` or not."""
    pinned: list[torch.Tensor] = []
    arrived: list[tuple[torch.Tensor, bool]] = []

    def pin(values: torch.Tensor) -> torch.Tensor:
        pinned.append(values.clone())
        return pinned[-1]

    def to(values: torch.Tensor, device: torch.device, non_blocking: bool) -> torch.Tensor:
        arrived.append((values, non_blocking))
        return values

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "to", to)
    for device, is_pinned in (("cuda", True), ("cpu", False)):
        pinned.clear()
        arrived.clear()
        placed(np.arange(3), torch.device(device))
        ((values, non_blocking),) = arrived
        assert non_blocking
        assert any(values is one for one in pinned) is is_pinned
