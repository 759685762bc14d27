"""Graphs as files: read with errors that say what is wrong, written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import onnx

from rtsr.errors import ModelError
from rtsr.runtime.metadata import read_metadata


def read_graph(path: Path) -> onnx.ModelProto:
    """Load one of rtsr's graphs.

    Raises:
        ModelError: the file is not there, damaged, or not one of rtsr's.
    """
    read_metadata(path)
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's and the checker's errors have no common base
        reason = " ".join(str(error).split()).rstrip(".")[:200]
        raise ModelError(f"Model file '{path}' is damaged ({reason}); export it again.") from None
    return model


def write_graph(model: onnx.ModelProto, path: Path) -> None:
    """Write beside, then rename: a file under the final name is always whole.

    Raises:
        OSError: the folder cannot be written.
    """
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(model.SerializeToString())
        os.chmod(beside, 0o644)
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise
