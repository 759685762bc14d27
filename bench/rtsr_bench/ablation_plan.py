"""What an ablation compares: variants of one training run, and how each is judged."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from rtsr.train.settings import TrainSettings
from rtsr_bench.validation import MAX_SECONDS, TABLE_METRICS


@dataclass(frozen=True)
class Evaluation:
    """What is rendered of each variant, and how it is judged.

    Attributes:
        cutoffs_hz: of the 16-bit inputs, files at twice this rate.
        euler_steps: renderings of the variant's weights, one for each number of Euler steps.
        teacher_euler_steps: the same with the flow as it was before its refinement.
        latent_noise: decodings of the truth's latent with noise of these standard deviations.
        clips_per_domain: of the valid split, evenly taken; 0 for all.
        max_seconds: of each clip, its loudest part.
        metrics: names from :data:`rtsr.quality.METRICS`.
    """

    cutoffs_hz: tuple[float, ...] = (4000.0, 8000.0)
    euler_steps: tuple[int, ...] = (1,)
    teacher_euler_steps: tuple[int, ...] = ()
    latent_noise: tuple[float, ...] = ()
    clips_per_domain: int = 0
    max_seconds: float = MAX_SECONDS
    metrics: tuple[str, ...] = TABLE_METRICS

    def protocol(self) -> dict[str, Any]:
        """What scores depend on, beside the weights and the rendering."""
        return {
            "clips_per_domain": self.clips_per_domain,
            "max_seconds": self.max_seconds,
            "metrics": list(self.metrics),
        }


@dataclass(frozen=True)
class Variant:
    """One training run: all its settings, and the variant that it goes on from."""

    name: str
    settings: TrainSettings
    evaluation: Evaluation
    parent: str | None = None
    note: str = ""

    @property
    def folder(self) -> str:
        """Its name as that of a folder."""
        return folder_name(self.name)

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps per stage, those of its parents included."""
        assert self.settings.steps is not None
        return self.settings.steps


@dataclass(frozen=True)
class Plan:
    """All variants, in the order in which they are trained."""

    title: str
    reference: str
    variants: tuple[Variant, ...]
    note: str = ""

    def variant(self, name: str) -> Variant:
        """The variant of that name."""
        return next(variant for variant in self.variants if variant.name == name)


def folder_name(name: str) -> str:
    """A name as that of a folder: small letters, digits, dots and hyphens."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")
