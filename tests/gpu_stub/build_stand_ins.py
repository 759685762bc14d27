"""Builds stand-ins for NVIDIA's libraries, which ONNX Runtime's CUDA provider then loads.

    python tests/gpu_stub/build_stand_ins.py PROVIDER.so FOLDER

``PROVIDER.so`` is ``onnxruntime/capi/libonnxruntime_providers_cuda.so``. Its own text says which
functions it wants; those that ``cuda_stand_in.c`` does not have return success. With
``LD_LIBRARY_PATH=FOLDER`` (or the libraries loaded beforehand) sessions start, copy and capture,
and what their kernels would have computed is whatever was there.
"""

from __future__ import annotations

import mmap
import re
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("cuda_stand_in.c")
ALL = "libcuda_stand_in.so"
#: What is linked by name, and what is opened later.
LIBRARIES = (
    *("libcuda.so.1", "libcudart.so.13", "libcublas.so.13", "libcublasLt.so.13"),
    *("libcurand.so.10", "libcudnn.so.9", "libcufft.so.12", "libnvrtc.so.13"),
)
_WANTED = re.compile(
    rb"\0((?:__cuda|cuda|cublas|cudnn|curand|cufft|nvrtc|cu[A-Z])[A-Za-z0-9_]+)(?=\0)"
)
_WRITTEN = re.compile(r"^EXPORT [\w *]*?\*?(\w+)\(", re.MULTILINE)
# These give back a handle through their first argument.
_CREATES = re.compile(r"(?:cudnn|cublas)(?:Lt)?\w*Create(?:_v2)?|cudnnCreate\w+")


class NoCompilerError(Exception):
    """There is no C compiler on this machine."""


def build(provider: Path, folder: Path) -> list[Path]:
    """Compile the stand-ins.

    Args:
        provider: the library whose needs are met.
        folder: where they are put; made if it is not there.

    Returns:
        The libraries in an order in which each finds those that it needs.

    Raises:
        NoCompilerError: neither cc nor gcc is there.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise NoCompilerError("there is no C compiler (cc or gcc)")
    folder.mkdir(parents=True, exist_ok=True)
    written = set(_WRITTEN.findall(SOURCE.read_text()))
    with provider.open("rb") as handle:
        text = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        wanted = {match.group(1).decode() for match in _WANTED.finditer(text)}
    rest = folder / "rest.c"
    rest.write_text("".join(map(_function, sorted(wanted - written))))
    shared = [compiler, "-shared", "-fPIC", "-O1"]
    everything = folder / ALL
    _run(*shared, "-Wall", "-Wextra", "-pthread", str(SOURCE), "-x", "c", "-w", str(rest),
         "-o", str(everything), f"-Wl,-soname,{ALL}")  # fmt: skip
    empty = folder / "empty.c"
    empty.write_text("static int nothing;\n")
    for name in LIBRARIES:
        _run(*shared, "-w", str(empty), "-o", str(folder / name), f"-Wl,-soname,{name}",
             f"-L{folder}", "-Wl,--no-as-needed", f"-l:{ALL}", "-Wl,-rpath,$ORIGIN")  # fmt: skip
    return [everything, *(folder / name for name in LIBRARIES)]


def _function(name: str) -> str:
    if _CREATES.fullmatch(name):
        return f"int {name}(void **made) {{ *made = (void *)0x5150; return 0; }}\n"
    return f"int {name}(void) {{ return 0; }}\n"


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    build(Path(sys.argv[1]), Path(sys.argv[2]))
