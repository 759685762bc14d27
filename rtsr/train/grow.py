"""Begin a wider, deeper model from the weights of a trained narrower one.

Net2Net (Chen, Goodfellow and Shlens 2016, arXiv 1511.05641, sections 2.2 and 2.3): every channel is
repeated, what reads it shares its weight out over the repetitions, and added blocks begin as the
identity. The grown model computes what the narrow one computed, and then learns on. Free bins of
the decoder are the exception: they may be left out, and what they carried is to be learnt again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtsr.errors import ArgumentError, RtsrError
from rtsr.model.config import ModelConfig
from rtsr.model.excitation import BINS
from rtsr.model.generator import Generator, seeded
from rtsr.train.checkpoint import load_checkpoint
from rtsr.train.discriminators import Discriminators
from rtsr.train.schedule import REFINEMENT, STAGES

#: spread of the random split of a repeated channel's weight, relative to the weights' own
SPLIT_NOISE = 0.3
#: attention bias of ages that the narrow model could not see: as good as absent, but trainable
UNSEEN_AGE_BIAS = -8.0
#: what the carriers' log gains begin with where free bins are left out: about half of their share
CARRIER_LIFT = 0.7

Weights = dict[str, Tensor]


@dataclass
class Start:
    """What a refinement begins with.

    Attributes:
        teacher, discriminators: ``None`` where the checkpoint was restored from a graph.
        facts: of the training before, the ``model`` it was of, and whether ``free_bins_left_out``.
    """

    generator: Generator
    teacher: Generator | None
    discriminators: Weights | None
    facts: dict[str, Any]


def load_start(path: Path, wide: ModelConfig, seed: int = 0) -> Start:
    """Read a checkpoint and grow what is in it.

    Raises:
        RtsrError: it cannot be read, has not reached its refinement, or cannot be grown.
    """
    content = load_checkpoint(path)
    try:
        facts, taught, discriminators = (
            content[key] for key in ("facts", "teacher", "discriminators")
        )
        if not was_refined(facts):
            raise RtsrError(f"{path} has not reached its refinement yet; train it further first.")
        narrow = ModelConfig.from_dict(content["model_config"])
        grown = grow(content["ema"]["values"], narrow, wide, seed)
        teacher = grow(taught, narrow, wide, seed) if taught is not None else None
        if discriminators is not None:
            Discriminators().load_state_dict(discriminators)
    except ArgumentError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RtsrError(f"{path} is not a checkpoint of this version of rtsr train.") from error
    before = {"model": narrow.name, **facts}
    if _leaves_free_bins_out(narrow, wide):
        before["free_bins_left_out"] = True
    return Start(grown, teacher, discriminators, before)


def was_refined(facts: dict[str, Any]) -> bool:
    """Say whether a training's facts are those of a refined model: what it grew from was one."""
    return facts["stage"] == STAGES[REFINEMENT] or "grown_from" in facts


def grow(weights: Weights, narrow: ModelConfig, wide: ModelConfig, seed: int = 0) -> Generator:
    """Return a generator of configuration ``wide`` that computes the same as ``weights``.

    Except for free bins, where ``wide`` has none, and for what predicts levels where ``weights``
    had no such part: that has to be trained first.

    Args:
        weights: the ``state_dict`` of a generator.
        narrow: the configuration of ``weights``.
        wide: its widths are whole multiples of those of ``narrow``; blocks may be more.
        seed: of the split of repeated channels and of added blocks.

    Raises:
        ArgumentError: the one configuration cannot be grown from the other.
        RuntimeError: the weights are not those of ``narrow``.
    """
    _check(narrow, wide)
    Generator(narrow).load_state_dict(weights)
    if _leaves_free_bins_out(narrow, wide):
        weights = _without_free_bins(weights, narrow)
    grown = seeded(wide, seed)
    chance = torch.Generator().manual_seed(seed)
    values = grown.state_dict()
    for name, value in values.items():
        if name in weights:
            inputs = _repeated_inputs(name, narrow)
            values[name] = _widened(name, weights[name].float().cpu(), value, inputs, chance)
        elif name.endswith("scale") and not name.startswith(("level_path", "band_predictor")):
            # An added block adds nothing until its scale has learned to.
            values[name] = torch.zeros_like(value)
    grown.load_state_dict(values)
    return grown


def _check(narrow: ModelConfig, wide: ModelConfig) -> None:
    for name in ("encoder_width", "flow_width", "flow_middle", "attention_heads", "decoder_width"):
        small, large = getattr(narrow, name), getattr(wide, name)
        if large % small:
            raise ArgumentError(
                f"Growing needs whole multiples: {name} is {small} in the trained model and "
                f"{large} in {wide.name!r}; choose a multiple of {small}."
            )
    if wide.flow_middle // wide.attention_heads != narrow.flow_middle // narrow.attention_heads:
        raise ArgumentError("Growing keeps the width of an attention head; change attention_heads.")
    if wide.decoder_free_bins and not narrow.decoder_free_bins:
        raise ArgumentError("Growing adds no free bins: the trained model's decoder has none.")
    for name in ("encoder_blocks", "decoder_blocks", "attention_window"):
        if getattr(wide, name) < getattr(narrow, name):
            raise ArgumentError(
                f"Growing cannot shrink: {name} is {getattr(narrow, name)} in the trained model "
                f"and {getattr(wide, name)} in {wide.name!r}."
            )
    # What predicts levels can be added, but not changed; the band predictor may be left out.
    parts = ["level"] if narrow.level_width else []
    parts += ["predictor"] if narrow.predictor_width and wide.predictor_width else []
    kept = [f"{part}_{size}" for part in parts for size in ("width", "blocks", "memory")]
    # Its part for other sound takes what the level path has heard, too.
    has_other = narrow.predictor_other and wide.predictor_width
    kept += ["predictor_other", "level_width"] if has_other else []
    for name in (*kept, "latent", "flow_blocks", "expansion", "kernel", "gain_bands",
                 "envelope_points",
                 "level_window", "prior", "prior_scale"):  # fmt: skip
        if getattr(wide, name) != getattr(narrow, name):
            raise ArgumentError(
                f"Growing keeps {name}: it is {getattr(narrow, name)!r} in the trained model and "
                f"{getattr(wide, name)!r} in {wide.name!r}."
            )


def _leaves_free_bins_out(narrow: ModelConfig, wide: ModelConfig) -> bool:
    return narrow.decoder_free_bins and not wide.decoder_free_bins


def _without_free_bins(weights: Weights, narrow: ModelConfig) -> Weights:
    weight, bias = (weights[f"decoder.head.{name}"][2 * BINS :] for name in ("weight", "bias"))
    bias = bias.clone()
    bias[: 3 * narrow.gain_bands] += CARRIER_LIFT
    return {**weights, "decoder.head.weight": weight, "decoder.head.bias": bias}


def _repeated_inputs(name: str, narrow: ModelConfig) -> int:
    """How many of a weight's inputs come first and are not repeated."""
    return narrow.latent if name == "decoder.enter.weight" else 0


def _chunks(name: str) -> int:
    """Parts that a weight's outputs fall into, each to be repeated on its own."""
    return 3 if re.search(r"\.project\.(weight|bias)$", name) else 1


def _widened(
    name: str, value: Tensor, like: Tensor, unrepeated: int, chance: torch.Generator
) -> Tensor:
    """``value`` in the shape of ``like``, so that repeated channels carry equal signals."""
    if name.endswith("age_bias"):
        wide = torch.full_like(like, UNSEEN_AGE_BIAS)
        wide[:, : value.shape[1]] = value.repeat(like.shape[0] // value.shape[0], 1)
        return wide
    if value.dim() > 0 and like.shape[0] != value.shape[0]:
        times = like.shape[0] // value.shape[0]
        parts = value.chunk(_chunks(name), dim=0)
        value = torch.cat([part.repeat(times, *(1,) * (part.dim() - 1)) for part in parts])
    if value.dim() > 1 and like.shape[1] != value.shape[1]:
        kept, shared = value[:, :unrepeated], value[:, unrepeated:]
        times = (like.shape[1] - unrepeated) // shared.shape[1]
        value = torch.cat([kept, _shared_out(shared, times, chance)], dim=1)
    return value.reshape(like.shape)


def _shared_out(weight: Tensor, times: int, chance: torch.Generator) -> Tensor:
    """Repeat inputs; the parts add up to the weight and differ, or they would learn the same."""
    spread = SPLIT_NOISE * weight.std()
    parts = [torch.randn(weight.shape, generator=chance) * spread for _ in range(times)]
    mean = torch.stack(parts).mean(dim=0)
    return torch.cat([weight / times + part - mean for part in parts], dim=1)
