"""Leaves out of ONNX Runtime's CUDA provider the kernels for all GPUs but one kind.

A wheel carries every kernel for a dozen kinds of GPU, and a transfer of some megabytes has room for
one. Code lies in the section ``.nv_fatbin``: containers (magic 0xBA55ED50) of entries, each for one
architecture. Offsets stay, since the provider holds addresses of containers; what is left out
becomes zeros, which compress to nothing.

    python bench/gpu/trim_provider.py libonnxruntime_providers_cuda.so 90
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

_MAGIC = 0xBA55ED50
_ARCHITECTURE_AT = 28


class TrimError(Exception):
    """The file is no provider with code for that GPU; one sentence."""


def trim(library: Path, architecture: int) -> int:
    """Keep the code for one architecture, in place; returns how many bytes became zeros.

    A container without code for it keeps its smallest entry: it must not be empty.

    Args:
        library: ``libonnxruntime_providers_cuda.so``.
        architecture: ``90`` for compute capability 9.0.

    Raises:
        TrimError: there is nothing to keep.
    """
    data = bytearray(library.read_bytes())
    first, size = _section(data, b".nv_fatbin")
    place, kept_any, freed = first, False, 0
    while place + 16 <= first + size:
        magic, _, header, length = struct.unpack_from("<IHHQ", data, place)
        if magic != _MAGIC:
            place += 8
            continue
        begin, end = place + header, place + header + length
        entries = _entries(data, begin, end)
        kept = [entry for kind, entry in entries if kind == architecture]
        kept_any |= bool(kept)
        if not kept and entries:
            kept = [min((entry for _, entry in entries), key=len)]
        body = b"".join(kept)
        data[begin:end] = body + bytes(length - len(body))
        struct.pack_into("<Q", data, place + 8, len(body))
        freed += length - len(body)
        place = (end + 7) // 8 * 8
    if not kept_any:
        raise TrimError(f"{library.name} has no code for a GPU of architecture {architecture}.")
    library.write_bytes(data)
    return freed


def _entries(data: bytearray, place: int, end: int) -> list[tuple[int, bytes]]:
    found = []
    while place + 64 <= end:
        _, _, header, length = struct.unpack_from("<HHIQ", data, place)
        (architecture,) = struct.unpack_from("<I", data, place + _ARCHITECTURE_AT)
        found.append((architecture, bytes(data[place : place + header + length])))
        place += header + length
    return found


def _section(data: bytearray, name: bytes) -> tuple[int, int]:
    """Offset and size of a section of a 64-bit ELF file."""
    if data[:5] != b"\x7fELF\x02":
        raise TrimError(
            "That is no 64-bit ELF file, so it is no provider of ONNX Runtime on Linux."
        )
    (table,) = struct.unpack_from("<Q", data, 0x28)
    entry_size, count, names_index = struct.unpack_from("<HHH", data, 0x3A)
    headers = [
        struct.unpack_from("<IIQQQQ", data, table + index * entry_size) for index in range(count)
    ]
    names = headers[names_index][4]
    for header in headers:
        begin = names + header[0]
        if bytes(data[begin : begin + len(name) + 1]) == name + b"\0":
            return header[4], header[5]
    raise TrimError("That library has no code for GPUs.")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        print(f"left out {trim(Path(sys.argv[1]), int(sys.argv[2])) / 2**20:.0f} MiB")
    except TrimError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
