"""Graphs as files: read with errors that say what is wrong, written whole or not at all."""

from __future__ import annotations

import os
import tempfile
import zlib
from pathlib import Path

import onnx

from rtsr.errors import ModelError
from rtsr.runtime.metadata import CHECKSUM_KEY, check_checksum, checksum_text, read_metadata


def read_graph(path: Path) -> onnx.ModelProto:
    """Load one of rtsr's graphs.

    Raises:
        ModelError: the file is not there, damaged, changed since it was exported, or not one of
            rtsr's.
    """
    read_metadata(path)
    # What is made of it is written with a checksum of its own, which would hide the damage.
    check_checksum(path)
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's and the checker's errors have no common base
        reason = " ".join(str(error).split()).rstrip(".")[:200]
        raise ModelError(f"Model file '{path}' is damaged ({reason}); export it again.") from None
    return model


def write_graph(model: onnx.ModelProto, path: Path) -> None:
    """Write beside, then rename: a file under the final name is always whole.

    The checksum of the graph is written into it, by which a later change of the weights is noticed.

    Raises:
        OSError: the folder cannot be written.
    """
    write_checksum(model)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(model.SerializeToString())
        os.chmod(beside, 0o644)
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


def write_checksum(model: onnx.ModelProto) -> None:
    """Put the checksum of the graph into a model's metadata, in place of an earlier one."""
    for entry in [one for one in model.metadata_props if one.key == CHECKSUM_KEY]:
        model.metadata_props.remove(entry)
    crc32 = zlib.crc32(model.graph.SerializeToString())
    model.metadata_props.add(key=CHECKSUM_KEY, value=checksum_text(crc32))
