"""The metadata of an exported graph: the JSON object under the metadata key ``rtsr``.

It is read straight from the protobuf, without ONNX and without ONNX Runtime, skipping over the
weights: listing models needs neither, and a file that is not ours is refused before it is loaded.
Field numbers are those of ``ModelProto`` and ``StringStringEntryProto`` in the ONNX specification
(https://github.com/onnx/onnx/blob/main/onnx/onnx.proto), the encoding is
https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from rtsr.errors import ModelError
from rtsr.timing import HOP, SAMPLE_RATE

KEY = "rtsr"
#: CRC-32 of the serialised graph, eight hexadecimal digits.
CHECKSUM_KEY = "rtsr.graph_crc32"
FORMAT = 1
#: No output ends lower, in Hz: not by default, and by no ceiling.
LOWEST_TARGET_HZ = 500.0

_IR_VERSION, _GRAPH, _METADATA_PROPS = 1, 7, 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LONGEST_ENTRY = 1 << 24
# Far above any model that runs in real time; what lies beyond would only fail later, in allocation.
_MOST_NOISE_CHANNELS = 1 << 16
_MOST_STATE_VALUES = 1 << 26

# What values of a wrong kind or size, and text that is nested too deeply, raise when they are read.
_DAMAGES = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class ModelMetadata:
    """The facts of one exported graph that the engine needs, and its card.

    Attributes:
        latency_samples: algorithmic latency at 48 kHz with one hop per step (hop + overlap).
        states: shape of each state tensor for a batch of one; a fresh state is all zeros.
        f_target_default: frequency in Hz where the output ends unless a ceiling is asked for.
        precision: of the weights, ``fp32``, ``fp16`` or ``int8``; inputs and outputs are float32.
        weights_sha256: of the trained weights, the same in every precision: what a colour fits.
            That a file still holds them, :func:`check_checksum` says.
        card: training facts and measured metrics, as the export wrote them.
    """

    name: str
    version: str
    overlap: int
    latency_samples: int
    noise_channels: int
    states: dict[str, tuple[int, ...]]
    f_target_default: float
    parameters: int
    licence: str
    weights_sha256: str
    sample_rate: int = SAMPLE_RATE
    hop: int = HOP
    precision: str = "fp32"
    configuration: dict[str, Any] = field(default_factory=dict)
    card: dict[str, Any] = field(default_factory=dict)

    @property
    def is_for_cpu(self) -> bool:
        """Whether a GPU would hand most of the graph back to the CPU: it cannot multiply int8."""
        return self.precision == "int8"


def read_metadata(path: Path) -> ModelMetadata:
    """Read and check the metadata of an ``.onnx`` file.

    Raises:
        ModelError: the file is not there, not ONNX, or was not exported by rtsr in this format.
    """
    try:
        with path.open("rb") as file:
            entries = dict(_metadata_entries(file))
    except OSError as error:
        reason = error.strerror or "it cannot be read"
        raise ModelError(f"Model file '{path}' cannot be opened: {reason}.") from None
    except _NotProtobufError:
        raise ModelError(
            f"Model file '{path}' is not an ONNX model; rtsr runs .onnx files written by "
            "`rtsr export`."
        ) from None
    if KEY not in entries:
        raise ModelError(
            f"Model file '{path}' is an ONNX model but not one of rtsr's (no '{KEY}' metadata); "
            "use a bundled model (`rtsr models`) or one written by `rtsr export`."
        )
    metadata = parse_metadata(entries[KEY], str(path))
    if not metadata.noise_channels:
        raise ModelError(
            f"Model file '{path}' has damaged '{KEY}' metadata (noise_channels is 0); "
            "export it again."
        )
    return metadata


def check_checksum(path: Path) -> None:
    """Refuse a file whose graph is not the one that was exported; one without a checksum passes.

    Raises:
        ModelError: weights or operators were changed or damaged since, or it cannot be read.
    """
    try:
        with path.open("rb") as file:
            fields = list(_fields(file))
            wanted = dict(_metadata_entries(file)).get(CHECKSUM_KEY)
            if wanted is None:
                return
            found = 0
            for number, start, length in fields:
                if number == _GRAPH:
                    file.seek(start)
                    found = zlib.crc32(file.read(length), found)
    except OSError as error:
        reason = error.strerror or "it cannot be read"
        raise ModelError(f"Model file '{path}' cannot be opened: {reason}.") from None
    except _NotProtobufError:
        raise ModelError(f"Model file '{path}' is damaged; export it again.") from None
    if checksum_text(found) != wanted:
        raise ModelError(
            f"The weights of model file '{path}' were changed or damaged since it was exported; "
            "export it again, or fetch it anew."
        )


def checksum_text(crc32: int) -> str:
    """Write a checksum as it stands under :data:`CHECKSUM_KEY`."""
    return f"{crc32:08x}"


def parse_metadata(text: str, origin: str) -> ModelMetadata:
    """Check the JSON text of the ``rtsr`` key; ``origin`` names the file in the error."""
    try:
        values = json.loads(text)
        found = values["format"]
        if found != FORMAT:
            raise ModelError(
                f"Model file '{origin}' has format {found!r}, this rtsr reads format {FORMAT}; "
                "export the model again with this version."
            )
        metadata = ModelMetadata(
            name=str(values["name"]),
            version=str(values["version"]),
            overlap=int(values["overlap"]),
            latency_samples=int(values["latency_samples"]),
            noise_channels=int(values["noise_channels"]),
            states={
                str(name): tuple(int(size) for size in shape)
                for name, shape in values["states"].items()
            },
            f_target_default=float(values["f_target_default"]),
            parameters=int(values["parameters"]),
            licence=str(values["licence"]),
            weights_sha256=str(values["weights_sha256"]),
            sample_rate=int(values["sample_rate"]),
            hop=int(values["hop"]),
            precision=str(values.get("precision", "fp32")),
            configuration=dict(values.get("configuration") or {}),
            card=dict(values.get("card") or {}),
        )
    except _DAMAGES as error:
        raise ModelError(
            f"Model file '{origin}' has damaged '{KEY}' metadata ({error}); export it again."
        ) from None
    if metadata.sample_rate != SAMPLE_RATE or metadata.hop != HOP:
        raise ModelError(
            f"Model file '{origin}' works at {metadata.sample_rate} Hz in hops of {metadata.hop}; "
            f"rtsr runs models at {SAMPLE_RATE} Hz in hops of {HOP}."
        )
    if fault := _fault(metadata):
        raise ModelError(
            f"Model file '{origin}' has damaged '{KEY}' metadata ({fault}); export it again."
        )
    if metadata.latency_samples != metadata.hop + metadata.overlap or metadata.overlap < 0:
        raise ModelError(
            f"Model file '{origin}' states a latency of {metadata.latency_samples} samples, but "
            f"its hop and overlap add up to {metadata.hop + metadata.overlap}; export it again."
        )
    return metadata


def _fault(metadata: ModelMetadata) -> str | None:
    """Name the first value that no exported graph can have, ``None`` if there is none."""
    if not 0 <= metadata.noise_channels <= _MOST_NOISE_CHANNELS:
        return f"noise_channels is {metadata.noise_channels}"
    if not LOWEST_TARGET_HZ <= metadata.f_target_default <= SAMPLE_RATE / 2:
        return f"f_target_default is {metadata.f_target_default:g} Hz"
    if metadata.overlap > HOP:
        return f"overlap is {metadata.overlap}, more than a hop"
    values = 0
    for name, shape in metadata.states.items():
        if any(size < 1 for size in shape):
            return f"state {name!r} has shape {list(shape)}"
        values += math.prod(shape)
    if values > _MOST_STATE_VALUES:
        return f"its state holds {values} values"
    return None


class _NotProtobufError(Exception):
    """The bytes are not a protobuf message that could be an ONNX model."""


def _metadata_entries(file: BinaryIO) -> Iterator[tuple[str, str]]:
    for number, start, length in _fields(file):
        if number == _METADATA_PROPS and length <= _LONGEST_ENTRY:
            file.seek(start)
            yield _string_entry(file.read(length))


def _fields(file: BinaryIO) -> Iterator[tuple[int, int, int]]:
    """Yield number, first byte and length of every field of an ONNX model that has a length."""
    size = file.seek(0, 2)
    position, seen = 0, set()
    while position < size:
        file.seek(position)
        number, wire_type = divmod(_varint(file), 8)
        # ModelProto's fields end at 26: some room for later ones, and text files still fail here.
        if not 1 <= number <= 64:
            raise _NotProtobufError
        seen.add(number)
        if wire_type == _VARINT:
            _varint(file)
            position = file.tell()
        elif wire_type in (_FIXED64, _FIXED32):
            position = file.tell() + (8 if wire_type == _FIXED64 else 4)
        elif wire_type == _BYTES:
            length = _varint(file)
            start = file.tell()
            position = start + length
            if position > size:
                raise _NotProtobufError
            yield number, start, length
        else:
            raise _NotProtobufError
    # Every ONNX model has these two; a short text may still be a valid message of other fields.
    if not {_IR_VERSION, _GRAPH} <= seen or position != size:
        raise _NotProtobufError


def _string_entry(data: bytes) -> tuple[str, str]:
    file = BytesIO(data)
    parts = {1: "", 2: ""}
    while file.tell() < len(data):
        number, wire_type = divmod(_varint(file), 8)
        if wire_type != _BYTES:
            raise _NotProtobufError
        length = _varint(file)
        if length > len(data) - file.tell():
            raise _NotProtobufError
        raw = file.read(length)
        try:
            parts[number] = raw.decode()
        except UnicodeDecodeError:
            raise _NotProtobufError from None
    return parts[1], parts[2]


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise _NotProtobufError
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise _NotProtobufError
