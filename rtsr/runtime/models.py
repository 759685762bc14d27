"""Models by name or by path: what is bundled with the package, and where a file lies."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from rtsr.errors import ModelError
from rtsr.runtime import replicate_file
from rtsr.runtime.metadata import ModelMetadata, read_metadata
from rtsr.timing import SAMPLE_RATE

SUFFIX = ".onnx"
#: Name of the network that makes octaves beyond 48 kHz.
OCTAVE = "octave"


@dataclass(frozen=True)
class Model:
    """One model that can be run: what to call it, its file, what it says about itself."""

    name: str
    path: Path
    metadata: ModelMetadata

    @property
    def is_network(self) -> bool:
        """Whether it is an ONNX graph; ``replicate`` is not."""
        return self.path.suffix == SUFFIX


def bundled() -> dict[str, Path]:
    """Return names and files of the networks in the package up to 48 kHz, smallest first."""
    return _networks_in("weights")


def bundled_octaves() -> dict[str, Path]:
    """Return names and files of the networks in the package for octaves beyond 48 kHz."""
    return _networks_in("weights", "octaves")


def names() -> list[str]:
    """Return what runs up to 48 kHz by name: the bundled networks, and ``replicate``."""
    return [*bundled(), replicate_file.NAME]


def find_model(name_or_path: str | Path) -> Model:
    """Find the model of that name, or the exported graph at that path.

    Names are those of :func:`names` and :func:`bundled_octaves`.

    Raises:
        ModelError: no such model, or the file is not one of rtsr's.
    """
    if not isinstance(name_or_path, str | Path):
        raise ModelError(f"A model is given by its name or path, not as {name_or_path!r}.")
    text = str(name_or_path)
    networks = {**bundled(), **bundled_octaves()}
    if text in networks:
        return Model(text, networks[text], read_metadata(networks[text]))
    if text == replicate_file.NAME:
        file = replicate_file.bundled_path()
        return Model(text, file, replicate_file.read_facts(file))
    path = Path(name_or_path)
    looks_like_a_path = path.suffix == SUFFIX or len(path.parts) > 1
    if _is_there(path, looks_like_a_path):
        return Model(text, path, read_metadata(path))
    if looks_like_a_path:
        raise ModelError(f"Model file '{path}' does not exist.")
    known = ", ".join((*names(), *bundled_octaves()))
    raise ModelError(
        f"Model {text!r} is unknown; bundled: {known}; or give the path of an {SUFFIX} file."
    )


def find_octave_model(model: str | Path | Model, octaves: int = 1) -> str | Path | Model:
    """Return what makes octaves beyond 48 kHz where nothing else is asked for.

    Beside the bundled networks that is the bundled one for octaves, which has learnt to make one at
    a time; `replicate` and networks of one's own make theirs.

    Args:
        model: for up to 48 kHz.
        octaves: how many are made at once.
    """
    path = (model if isinstance(model, Model) else find_model(model)).path
    is_fit = octaves == 1 and OCTAVE in bundled_octaves()
    return OCTAVE if is_fit and path in bundled().values() else model


def check_up_to_48_khz(model: str | Path | Model) -> None:
    """Raise :class:`ModelError` for a network that makes octaves beyond 48 kHz only.

    That is the bundled one, and those whose training says so (``rtsr train --stage``).

    It has learnt what lies above 12 kHz of its own clock, and nothing of a voice at 8 kHz.
    """
    found = model if isinstance(model, Model) else find_model(model)
    training = found.metadata.card.get("training")
    rate = training.get("octave_rate") if isinstance(training, dict) else None
    is_trained_so = isinstance(rate, int) and rate > SAMPLE_RATE
    if is_trained_so or found.path in bundled_octaves().values():
        raise ModelError(
            f"Model '{found.name}' makes octaves beyond 48 kHz only; give it as octave_model "
            f"(--octave-model), or use one of {', '.join(names())}."
        )


def why_not_on_gpu(model: Model, purpose: str) -> str | None:
    """Say why a GPU cannot run a model and what to take instead; ``None`` if it can.

    Args:
        model: as it was found.
        purpose: what it was wanted for, ``provider 'cuda'``.
    """
    if not model.metadata.is_for_cpu:
        return None
    precision = model.metadata.precision
    other = model.path.with_name(model.path.stem.removesuffix(f"-{precision}") + SUFFIX)
    such_as = ""
    if other != model.path and other.is_file():
        such_as = f", such as '{other.stem if model.name == model.path.stem else other}'"
    return (
        f"Model '{model.name}' is {precision}, which runs on the CPU only; GPUs have no kernels "
        f"for it: for {purpose} take its fp32 or fp16 file{such_as}."
    )


def _is_there(path: Path, looks_like_a_path: bool) -> bool:
    """Whether a file lies there; where it looks like a path anything is taken for one.

    Raises:
        ModelError: the system does not let us look, or no file can have that name.
    """
    try:
        return path.is_file() or (looks_like_a_path and path.exists())
    except OSError as error:
        reason = error.strerror or "it cannot be looked for"
        raise ModelError(f"Model file '{path}' cannot be opened: {reason}.") from None


def _networks_in(*folders: str) -> dict[str, Path]:
    folder = resources.files("rtsr").joinpath(*folders)
    if not folder.is_dir():
        return {}
    files = [Path(str(entry)) for entry in folder.iterdir() if entry.name.endswith(SUFFIX)]
    return {path.stem: path for path in sorted(files, key=lambda path: path.stat().st_size)}
