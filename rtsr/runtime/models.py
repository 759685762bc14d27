"""Models by name or by path: what is bundled with the package, and where a file lies."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from rtsr.errors import ModelError
from rtsr.runtime import replicate_file
from rtsr.runtime.metadata import ModelMetadata, read_metadata

SUFFIX = ".onnx"


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
    """Names and files of the networks in the package, smallest file first."""
    folder = resources.files("rtsr").joinpath("weights")
    if not folder.is_dir():
        return {}
    files = [Path(str(entry)) for entry in folder.iterdir() if entry.name.endswith(SUFFIX)]
    return {path.stem: path for path in sorted(files, key=lambda path: path.stat().st_size)}


def names() -> list[str]:
    """Everything that can be run by name: the bundled networks, and ``replicate``."""
    return [*bundled(), replicate_file.NAME]


def find_model(name_or_path: str | Path) -> Model:
    """Find the model of that name (see :func:`names`), or the exported graph at that path.

    Raises:
        ModelError: no such model, or the file is not one of rtsr's.
    """
    text = str(name_or_path)
    networks = bundled()
    if text in networks:
        return Model(text, networks[text], read_metadata(networks[text]))
    if text == replicate_file.NAME:
        file = replicate_file.bundled_path()
        return Model(text, file, replicate_file.read_facts(file))
    path = Path(name_or_path)
    looks_like_a_path = path.suffix == SUFFIX or len(path.parts) > 1
    if path.is_file() or (looks_like_a_path and path.exists()):
        return Model(text, path, read_metadata(path))
    if looks_like_a_path:
        raise ModelError(f"Model file '{path}' does not exist.")
    known = ", ".join(names())
    raise ModelError(
        f"Model {text!r} is unknown; bundled: {known}; or give the path of an {SUFFIX} file."
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
