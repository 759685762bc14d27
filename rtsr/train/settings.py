"""All settings of a training run, read from a TOML file and stored in every checkpoint."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from rtsr.errors import ArgumentError, RtsrError
from rtsr.model.config import CONFIGURATIONS, ModelConfig
from rtsr.train.corpus import DOMAIN_WEIGHTS
from rtsr.train.degrade import OPEN_END_HZ, DegradeConfig
from rtsr.train.levels import CONTOUR_FRAMES
from rtsr.train.losses import LossWeights
from rtsr.train.schedule import LEVELS, STAGES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


PRECISIONS = ("auto", "bf16", "tf32", "fp32")
_MOST = sys.float_info.max
_ANY, _SHARE, _COUNT = (0.0, _MOST), (0.0, 1.0), (1, _MOST)
#: the least and the greatest value of every number, both accepted
RANGES: Mapping[str, tuple[float, float]] = {
    "seed": (0, 2**63 - 1),
    "batch": _COUNT,
    # 15 windows of 2048 samples, 512 apart, are what the slowest discriminator hears at once.
    "frames": (20, _MOST),
    "level_batch": _COUNT,
    "level_frames": (CONTOUR_FRAMES, _MOST),
    "final_learning_rate": _SHARE,
    "warm_up_steps": _COUNT,
    "weight_decay": _ANY,
    # At 0 nothing would learn, and at an average's decay of 1 nothing would be averaged.
    "gradient_clip": (1e-6, _MOST),
    "ema_decay": (0.0, 0.999999),
    "checkpoint_minutes": _ANY,
    "adversarial_start": _ANY,
    "adversarial": _ANY,
    "feature_matching": _ANY,
    "discriminator_rate": _ANY,
    "distillation": _ANY,
    "distillation_every": _COUNT,
    "teacher_steps": _COUNT,
    "distribution": _ANY,
    "predictor_alone": _SHARE,
    "predictor_heard": _ANY,
    "path_alone": _SHARE,
    "levels": _ANY,
    "contours": _ANY,
    "levels_every": _ANY,
    **{f"losses.{entry.name}": _ANY for entry in fields(LossWeights)},
    **{
        f"degrade.{entry.name}": _SHARE
        for entry in fields(DegradeConfig)
        if entry.name.endswith("_share")
    },
    "degrade.lowest_hz": (20.0, OPEN_END_HZ),
    "degrade.highest_hz": (20.0, OPEN_END_HZ),
    # Cutoffs are at most 0.8 of where a recording ends, and are not told to lie above that.
    "degrade.cutoff_jitter": (0.0, 0.25),
}


@dataclass(frozen=True)
class TrainSettings:
    """One training run. Lengths are in 10 ms frames, times in minutes, rates per step.

    The stages share the minutes of a run by ``shares``, unless ``steps`` gives each its
    number of steps: then runs can be compared, on whatever machine they were made, and 0 leaves a
    stage out. Of the losses ``adversarial``, ``feature_matching``, ``distillation`` and
    ``distribution``, one of weight 0 is not computed. ``model_changes`` are settings of
    :class:`~rtsr.model.config.ModelConfig` that differ from those of ``model``.

    Steps that compare levels alone take ``level_batch`` clips of ``level_frames``. In the first
    ``predictor_alone`` of their stage only the band predictor learns, which learns nowhere else;
    there ``predictor_heard`` weighs how unlike the two would be heard (0 to 1) against decibels. In
    the first ``path_alone`` of what is left learns only the level path, which is quick; then all
    else. In refinement they take turns with whole steps, one in ``levels_every`` (0: never), and
    whole steps add the error of levels in dB with the weight ``levels``. ``contours`` weighs how
    unlike the contours of levels are (0 to 1) against decibels. With ``other_sound_alone`` nothing
    learns but the part of the band predictor for sound other than speech, in the stage of levels.
    ``domains`` are the shares in which clips are drawn.
    """

    model: str = "small"
    seed: int = 1
    batch: int = 12
    frames: int = 128
    level_batch: int = 16
    level_frames: int = 256
    domains: dict[str, float] = field(default_factory=lambda: dict(DOMAIN_WEIGHTS))
    shares: tuple[float, ...] = (0.2, 0.2, 0.2, 0.4)
    steps: tuple[int, ...] | None = None
    learning_rates: tuple[float, ...] = (1e-3, 1e-3, 1e-3, 7e-4)
    final_learning_rate: float = 0.03
    warm_up_steps: int = 200
    weight_decay: float = 0.01
    gradient_clip: float = 2.0
    ema_decay: float = 0.999
    precision: str = "auto"
    checkpoint_minutes: float = 5.0
    adversarial_start: float = 0.5
    adversarial: float = 0.3
    feature_matching: float = 1.0
    discriminator_rate: float = 3e-4
    distillation: float = 0.3
    distillation_every: int = 4
    teacher_steps: int = 4
    distribution: float = 0.3
    predictor_alone: float = 0.4
    predictor_heard: float = 60.0
    other_sound_alone: bool = False
    path_alone: float = 0.5
    levels: float = 0.1
    contours: float = 8.0
    levels_every: int = 2
    model_changes: dict[str, Any] = field(default_factory=dict)
    losses: LossWeights = field(default_factory=LossWeights)
    degrade: DegradeConfig = field(default_factory=DegradeConfig)

    def __post_init__(self) -> None:
        if self.model not in CONFIGURATIONS:
            raise ArgumentError(
                f"There is no model configuration {self.model!r}; "
                f"choose one of: {', '.join(CONFIGURATIONS)}."
            )
        if self.precision not in PRECISIONS:
            accepted = ", ".join(PRECISIONS)
            raise ArgumentError(f"precision is {self.precision!r}; accepted: {accepted}.")
        for name in ("shares", "learning_rates"):
            _check_stages(name, getattr(self, name), (int, float))
        if self.steps is not None:
            _check_stages("steps", self.steps, (int,))
        if not _are_shares(tuple(self.domains.values()), (int, float)):
            raise ArgumentError(
                f"The training setting 'domains' is {self.domains!r}; it must give shares, none "
                "below 0 and not all 0."
            )
        for name, (least, most) in RANGES.items():
            self._check_range(name, least, most)
        lowest, highest = self.degrade.lowest_hz, self.degrade.highest_hz
        if lowest > highest:
            raise ArgumentError(
                f"The training setting 'degrade.lowest_hz' is {lowest:g}; it must be at most "
                f"'degrade.highest_hz', which is {highest:g}."
            )
        lowest, highest = self.degrade.lowest_speed, self.degrade.highest_speed
        if not 0.5 <= lowest <= 1.0 <= highest <= 2.0:
            raise ArgumentError(
                f"The speeds of 'degrade' are {lowest:g} to {highest:g}; they must hold 1, the "
                "recording's own, and lie within 0.5 and 2."
            )
        config = self.model_config()
        if config.predictor_rank:
            raise ArgumentError(
                "Training does not teach a band regression ('predictor_rank'): "
                "`python -m rtsr.train.fit_band_regression` adds one to a trained model."
            )
        if self.other_sound_alone:
            taken = self.shares if self.steps is None else self.steps
            has_part = bool(config.predictor_width and config.predictor_other)
            if any(taken[:LEVELS] + taken[LEVELS + 1 :]) or not has_part:
                raise ArgumentError(
                    "With 'other_sound_alone' all of a run is the stage of levels (shares or steps "
                    "such as [0, 0, 1, 0]), and the model has 'predictor_width' and "
                    "'predictor_other'."
                )

    def _check_range(self, name: str, least: float, most: float) -> None:
        """Refuse a setting, or ``GROUP.NAME`` of a group, that is out of its range or NaN."""
        group, _, entry = name.rpartition(".")
        value = getattr(getattr(self, group) if group else self, entry)
        if least <= value <= most:
            return
        accepted = f"{_shown(least)} to {_shown(most)}"
        if most == _MOST:
            accepted = f"{_shown(least)} or more" + (", and finite" if value == math.inf else "")
        raise ArgumentError(
            f"The training setting {name!r} is {_shown(value)}; it must be {accepted}."
        )

    @property
    def predictor_share(self) -> float:
        """The share of the stage of levels in which only the band predictor learns."""
        return 1.0 if self.other_sound_alone else self.predictor_alone

    def model_config(self) -> ModelConfig:
        """Return the configuration of the model that is trained.

        Raises:
            ArgumentError: ``model_changes`` has an unknown setting or an invalid value.
        """
        try:
            config: ModelConfig = _fill(
                CONFIGURATIONS[self.model], self.model_changes, "model_changes."
            )
        except ArgumentError:
            raise
        except ValueError as error:
            raise ArgumentError(f"The settings in 'model_changes' cannot be: {error}.") from error
        return config

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as nested plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainSettings:
        """Build settings from nested plain values; raises ArgumentError for unknown names."""
        return _fill(cls(), values, "")


def _check_stages(name: str, values: Any, kinds: tuple[type, ...]) -> None:
    """Refuse anything but one number per stage, none negative and one above zero."""
    if not (
        isinstance(values, tuple) and len(values) == len(STAGES) and _are_shares(values, kinds)
    ):
        raise ArgumentError(
            f"The training setting {name!r} is {values!r}; it must be four "
            f"{'finite' if float in kinds else 'whole'} numbers, one per stage, none below 0 and "
            "not all 0."
        )


def _shown(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _are_shares(values: tuple[Any, ...], kinds: tuple[type, ...]) -> bool:
    """Whether all are finite numbers of these kinds, none below zero and one above."""
    are_numbers = all(isinstance(value, kinds) and not isinstance(value, bool) for value in values)
    return are_numbers and all(value >= 0 for value in values) and 0 < sum(values) <= _MOST


def _fill(defaults: Any, values: dict[str, Any], path: str) -> Any:
    known = {entry.name for entry in fields(defaults)}
    changes: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise ArgumentError(
                f"The training configuration has an unknown setting {path + name!r}; "
                f"known ones are: {', '.join(sorted(known))}."
            )
        present = getattr(defaults, name)
        if is_dataclass(present) and isinstance(value, dict):
            value = _fill(present, value, f"{path}{name}.")
        elif isinstance(present, tuple | None) and isinstance(value, list):
            value = tuple(value)
        elif isinstance(present, float) and type(value) is int:
            value = float(value)
        if present is not None and type(value) is not type(present):
            kind = "table" if isinstance(present, dict) or is_dataclass(present) else None
            raise ArgumentError(
                f"The training setting {path + name!r} is {value!r}; "
                f"it must be a {kind or type(present).__name__}."
            )
        changes[name] = value
    return replace(defaults, **changes)


def load_settings(path: Path) -> TrainSettings:
    """Read settings from TOML; raises RtsrError when it is missing, malformed or unknown."""
    return TrainSettings.from_dict(load_values(path))


def load_values(path: Path) -> dict[str, Any]:
    """Read the values that a TOML file names; raises RtsrError when it is missing or malformed."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise RtsrError(
            f"Cannot read the training configuration {path}: {error.strerror}."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RtsrError(f"The training configuration {path} is not valid TOML: {error}.") from error
