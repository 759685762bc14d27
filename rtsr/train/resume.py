"""Which checkpoints a run can go on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rtsr.errors import RtsrError
from rtsr.model.config import ModelConfig
from rtsr.timing import SAMPLE_RATE
from rtsr.train.schedule import STAGES
from rtsr.train.settings import TrainSettings

#: those of checkpoints that do not name theirs
STAGES_BEFORE = ("autoencoder", "flow", "refinement")


def check_is_of_this_run(
    content: dict[str, Any], path: Path, settings: TrainSettings, octave_rate: int
) -> None:
    """Raise :class:`RtsrError` where a checkpoint is none to go on with."""
    if differing := sorted(_differences(content, path, settings.model_config())):
        raise RtsrError(
            f"{path} was trained with another model configuration ({', '.join(differing)}); "
            "choose another --out folder or the configuration it was begun with."
        )
    theirs = content.get("octave_rate", SAMPLE_RATE)
    if theirs != octave_rate:
        raise RtsrError(
            f"{path} is trained for sound up to {theirs // 2} Hz, not {octave_rate // 2} "
            "Hz; go on with its --stage, or choose another --out folder."
        )
    if "optimizer" not in content:
        raise RtsrError(
            f"{path} was restored from an exported graph and is no run to go on with; move it "
            "and begin one with --grow-from."
        )
    stages = content.get("stages", STAGES_BEFORE)
    if list(stages) != list(STAGES):
        raise RtsrError(
            f"{path} was trained in the stages {', '.join(stages)}, and this version has "
            f"{', '.join(STAGES)}; begin a run with --grow-from {path}, if it reached its "
            "refinement, or with another --out folder."
        )
    before = content["settings"].get("other_sound_alone", False)
    if before != settings.other_sound_alone:
        raise RtsrError(
            f"{path} is a run with other_sound_alone = {str(before).lower()}; go on with that, "
            "or choose another --out folder."
        )


def _differences(content: dict[str, Any], path: Path, ours: ModelConfig) -> set[str]:
    """Names of the model's settings in which a checkpoint differs; absent ones are defaults."""
    try:
        theirs = ModelConfig.from_dict(content["model_config"]).to_dict()
    except (KeyError, TypeError, ValueError) as error:
        raise RtsrError(f"{path} is not a checkpoint of this version of rtsr train.") from error
    return {name for name, value in ours.to_dict().items() if value != theirs[name]}
