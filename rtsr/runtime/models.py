"""Models by name or by path: what is bundled with the package, and where a file lies."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from rtsr.errors import ModelError
from rtsr.runtime.metadata import ModelMetadata, read_metadata

SUFFIX = ".onnx"


@dataclass(frozen=True)
class Model:
    """One model that can be run: what to call it, its file, what it says about itself."""

    name: str
    path: Path
    metadata: ModelMetadata


def bundled() -> dict[str, Path]:
    """Names and files of the models in the package, smallest file first."""
    folder = resources.files("rtsr").joinpath("weights")
    if not folder.is_dir():
        return {}
    files = [Path(str(entry)) for entry in folder.iterdir() if entry.name.endswith(SUFFIX)]
    return {path.stem: path for path in sorted(files, key=lambda path: path.stat().st_size)}


def find_model(name_or_path: str | Path) -> Model:
    """The model of that name, or the exported graph at that path.

    Raises:
        ModelError: no such model, or the file is not one of rtsr's.
    """
    text = str(name_or_path)
    names = bundled()
    if text in names:
        return Model(text, names[text], read_metadata(names[text]))
    path = Path(name_or_path)
    looks_like_a_path = path.suffix == SUFFIX or len(path.parts) > 1
    if path.is_file() or (looks_like_a_path and path.exists()):
        return Model(text, path, read_metadata(path))
    if looks_like_a_path:
        raise ModelError(f"Model file '{path}' does not exist.")
    known = ", ".join(names) or "none in this installation"
    raise ModelError(
        f"Model {text!r} is unknown; bundled: {known}; or give the path of an {SUFFIX} file."
    )
