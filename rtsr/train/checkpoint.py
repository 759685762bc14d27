"""Checkpoints: written beside and renamed, so that the last good one survives anything."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from torch import nn

from rtsr.errors import RtsrError
from rtsr.model.config import ModelConfig
from rtsr.model.generator import Generator

FORMAT = 1


class MovingAverage:
    """Exponential moving average of a module's weights, with a warm-up of its own."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        # Weights are changed in place, so these are views of the module's own.
        self._present = {name: value.detach() for name, value in module.state_dict().items()}
        self.values = {name: value.clone() for name, value in self._present.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Follow the module by one step."""
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 10.0))
        torch._foreach_lerp_(list(self.values.values()), list(self._present.values()), 1.0 - decay)

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps and the averaged values, for a checkpoint."""
        return {"steps": self.steps, "values": self.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.steps = state["steps"]
        for name, value in state["values"].items():
            self.values[name].copy_(value)


def slim(content: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a checkpoint that export, or the start of another run, needs."""
    kept = {name: content[name] for name in ("model_config", "ema", "facts")}
    return {**kept, "teacher": None, "discriminators": None}


class _Written:
    """A file for PyTorch, which does not say why it could not be written: that is noted here.

    PyTorch asks for no more of a file than these two.
    """

    def __init__(self, file: BinaryIO, failures: list[OSError]) -> None:
        self._file, self._failures = file, failures

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self._failures.append(error)
            raise

    def flush(self) -> None:
        self._file.flush()


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` so that ``path`` always holds a whole checkpoint.

    Raises:
        RtsrError: the folder cannot be written or the disk is full.
    """
    beside = path.with_name(f".{path.name}.part")
    failures: list[OSError] = []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            noted = cast(BinaryIO, _Written(file, failures))
            torch.save({"format": FORMAT, **content}, noted)
        os.replace(beside, path)
    except (OSError, RuntimeError) as error:
        with suppress(OSError):  # of a folder that is none, or is gone
            beside.unlink(missing_ok=True)
        reason = failures[0] if failures else error
        text = (reason.strerror if isinstance(reason, OSError) else None) or str(reason)
        raise RtsrError(f"Cannot write the checkpoint {path}: {text}.") from error


def load_checkpoint(path: Path, device: str = "cpu") -> dict[str, Any]:
    """Read a checkpoint; raises RtsrError when it is missing, damaged or not one of ours."""
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except OSError as error:
        raise RtsrError(f"Cannot read the checkpoint {path}: {error.strerror}.") from error
    except Exception as error:  # what unpickling arbitrary bytes raises has no common base
        raise RtsrError(f"{path} is damaged or is no checkpoint of rtsr train.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RtsrError(f"{path} is not a checkpoint of this version of rtsr train.")
    return content


def load_generator(path: Path, mean_with: Sequence[Path] = ()) -> tuple[Generator, dict[str, Any]]:
    """Return the averaged generator of a checkpoint and the facts of its training.

    Args:
        path: the checkpoint.
        mean_with: more of the same model: the weights are the mean of all of them (a "model soup",
            Wortsman et al. 2022, arXiv 2203.05482, section 3, of states of one run or of runs that
            went on from one state; others have no mean that works).

    Raises:
        RtsrError: a checkpoint is missing, damaged, or of another model than the first.
    """
    content = load_checkpoint(path)
    try:
        generator = Generator(ModelConfig.from_dict(content["model_config"]))
        weights = content["ema"]["values"]
        generator.load_state_dict(weights)
        facts = content["facts"]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RtsrError(f"{path} is not a checkpoint of this version of rtsr train.") from error
    if mean_with:
        others = [load_checkpoint(other) for other in mean_with]
        for other, there in zip(mean_with, others, strict=True):
            if there["model_config"] != content["model_config"]:
                raise RtsrError(f"{other} is of another model than {path}; they have no mean.")
        for name, value in weights.items():
            alike = [there["ema"]["values"][name].float() for there in others]
            value.copy_(torch.stack([value.float(), *alike]).mean(dim=0))
        generator.load_state_dict(weights)
        facts = {**facts, "mean_with": [there["facts"] for there in others]}
    return generator.eval(), facts
