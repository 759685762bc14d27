"""Packs what a GPU machine without a network needs beside this source tree: ``make gpu-pack``.

    python bench/gpu/pack.py --python 3.12 --architecture 90
    python bench/gpu/pack.py --recordings DIR --start start.pt     also what training needs

Writes tars into ``.gpu-pack`` (git ignores it), in parts that are small enough for one transfer:

    1-evidence.tar.xz   ONNX Runtime for GPUs and small packages in ``site/``, models to time
    2-audio.tar         recordings to learn from
    3-train.tar         more of them, some to score on, the start, the settings

Each holds ``pack.json``, by which the scripts beside this file know what they were given.
"""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

sys.path.insert(0, str(Path(__file__).parent))
from trim_provider import TrimError, trim

ROOT = Path(__file__).resolve().parents[2]
PROVIDER = "onnxruntime/capi/libonnxruntime_providers_cuda.so"
#: What runs nothing here, and is large.
_LEFT_OUT = ("transformers", "quantization", "tools", "datasets", "backend")
#: What a machine with PyTorch, SciPy and numba still lacks; no package here needs another's wheel.
_PACKAGES = (
    *("soundfile", "soxr", "typer", "rich", "click", "shellingham", "pygments"),
    *("markdown-it-py", "mdurl", "annotated-doc", "typing-extensions"),
    # For the tests that only a GPU can answer; the last two for Python 3.10.
    *("pytest", "pluggy", "iniconfig", "packaging", "exceptiongroup", "tomli"),
)
_VALID_CLIPS = 6
MANIFEST = "manifest.csv"
SETTINGS = Path(__file__).with_name("train.toml")


class PackError(Exception):
    """It cannot be packed; one sentence."""


def build_evidence(folder: Path, python: str, architecture: int | None) -> dict[str, Any]:
    """Fill ``folder`` with ``site/`` and ``models/``."""
    site, models = folder / "site", folder / "models"
    constraints = ["-c", str(ROOT / "constraints.txt")]
    target = ["--target", str(site), "--python-version", python, "--only-binary=:all:"]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", *constraints, *target]
    done = subprocess.run([*pip, "onnxruntime-gpu", *_PACKAGES], check=False)
    if done.returncode:
        raise PackError(f"pip found no packages for Python {python}; see its message above.")
    for name in _LEFT_OUT:
        shutil.rmtree(site / "onnxruntime" / name, ignore_errors=True)
    for provider in site.glob("onnxruntime/capi/*tensorrt*"):
        provider.unlink()
    if architecture is not None:
        trim(site / PROVIDER, architecture)
    _describe_rtsr(site)
    models.mkdir()
    _write_models(models)
    return {"python": python, "architecture": architecture}


def _describe_rtsr(site: Path) -> None:
    """Return what ``pip install -e .`` would leave: version, and packages of commands."""
    found = metadata.distribution("rtsr")
    folder = site / f"rtsr-{found.version}.dist-info"
    folder.mkdir()
    for name in ("METADATA", "entry_points.txt"):
        (folder / name).write_text(found.read_text(name) or "")


def _write_models(folder: Path) -> None:
    """`small` as the present exporter writes it, a `base` to be timed, and both in fp16.

    `base` has fresh weights, on which its times do not depend, rounded to powers of two, which
    pack into a fraction.
    """
    import onnx
    import torch

    from rtsr.model import CONFIGURATIONS
    from rtsr.model.config import ModelConfig
    from rtsr.model.generator import seeded
    from rtsr.runtime.models import find_model
    from rtsr_export.graph import build_graph
    from rtsr_export.graph_file import read_graph
    from rtsr_export.precision import convert
    from rtsr_export.restore import restore

    shipped = find_model("small")
    config = ModelConfig.from_dict(dict(shipped.metadata.configuration))
    small = restore(read_graph(shipped.path), config)
    base = seeded(CONFIGURATIONS["base"], 0)
    with torch.no_grad():
        for parameter in base.parameters():
            mantissa, exponent = torch.frexp(parameter)
            parameter.copy_(torch.ldexp(torch.sign(mantissa), exponent - 1))
    fresh = {"version": "0", "note": "fresh weights, to be timed and not listened to"}
    for name, generator, card in (("small", small, shipped.metadata.card), ("base", base, fresh)):
        model = build_graph(generator, card)
        onnx.save(model, folder / f"{name}.onnx")
        onnx.save(convert(model, "fp16"), folder / f"{name}-fp16.onnx")


def choose_recordings(
    rows: list[dict[str, str]], sizes: dict[str, int], budget: int, seed: int = 0
) -> list[dict[str, str]]:
    """Choose recordings that fit into a budget of bytes, the domains taking turns."""
    random = np.random.default_rng(seed)
    domains: dict[str, list[dict[str, str]]] = {}
    for index in random.permutation(len(rows)):
        domains.setdefault(rows[index].get("domain", ""), []).append(rows[index])
    chosen, left = [], budget
    while domains:
        for name in list(domains):
            row = domains[name].pop()
            if sizes[row["path"]] <= left:
                chosen.append(row)
                left -= sizes[row["path"]]
            if not domains[name]:
                del domains[name]
    return chosen


def build_training(
    recordings: Path, start: Path, settings: Path, budget: int, folders: tuple[Path, Path]
) -> None:
    """Share recordings out over two folders; the second also gets all the rest."""
    manifest = recordings / MANIFEST
    if not manifest.is_file():
        raise PackError(f"There is no {manifest}; docs/training.md says what it holds.")
    if not start.is_file():
        raise PackError(f"There is no checkpoint {start}; `rtsr export small {start}` makes one.")
    with manifest.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows = [row for row in rows if (recordings / row["path"]).is_file()]
    sizes = {row["path"]: (recordings / row["path"]).stat().st_size for row in rows}
    valid = [row for row in rows if row["split"] == "valid"]
    valid = choose_recordings(valid, sizes, budget // 8)[:_VALID_CLIPS]
    taken = sum(sizes[row["path"]] for row in valid) + start.stat().st_size
    train = [row for row in rows if row["split"] == "train"]
    if not train or not valid:
        raise PackError(f"{manifest} must have recordings of the splits train and valid.")
    if taken >= budget:
        raise PackError(f"{start} leaves no room for recordings; `rtsr train --slim` writes less.")
    first = choose_recordings(train, sizes, budget)
    rest = [row for row in train if row not in first]
    second = choose_recordings(rest, sizes, budget - taken, seed=1)
    for folder, chosen in zip(folders, (first, [*second, *valid]), strict=True):
        for row in chosen:
            target = folder / "audio" / row["path"]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(recordings / row["path"], target)
    whole = [*first, *second, *valid]
    with (folders[1] / "audio" / MANIFEST).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(whole[0]))
        writer.writeheader()
        writer.writerows(whole)
    shutil.copy(start, folders[1] / "start.pt")
    shutil.copy(settings, folders[1] / "train.toml")


def write_tar(folder: Path, tar: Path, most_mib: float) -> list[Path]:
    """Pack a folder, in numbered parts if it is too large for one transfer; returns the files."""
    for old in (tar, *tar.parent.glob(f"{tar.name}.[0-9][0-9]")):
        old.unlink(missing_ok=True)
    # Best compression takes minutes for a tenth.
    how: dict[str, Any] = {"mode": "w:xz", "preset": 3} if tar.suffix == ".xz" else {"mode": "w"}
    with tarfile.open(tar, **how) as file:
        for entry in sorted(folder.iterdir()):
            file.add(entry, entry.name)
    most = int(most_mib * 2**20)
    files = [tar]
    if tar.stat().st_size > most:
        content = tar.read_bytes()
        tar.unlink()
        files = []
        for index, begin in enumerate(range(0, len(content), most)):
            files.append(tar.with_name(f"{tar.name}.{index:02}"))
            files[-1].write_bytes(content[begin : begin + most])
    for one in files:
        print(f"{one.name}: {one.stat().st_size / 2**20:.1f} MiB")
    return files


def pack(
    python: str,
    architecture: int | None,
    recordings: Path | None,
    start: Path,
    settings: Path,
    out: Path,
    most_mib: float,
    parts: Iterable[str],
) -> None:
    """Write the tars."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        folders = [Path(work) / name for name in ("one", "two", "three")]
        for folder in folders:
            folder.mkdir()
        facts = {"format": 1, "python": python, "architecture": architecture}
        if "evidence" in parts:
            build_evidence(folders[0], python, architecture)
            (folders[0] / "pack.json").write_text(json.dumps({**facts, "part": "evidence"}))
            write_tar(folders[0], out / "1-evidence.tar.xz", most_mib)
        if recordings is not None:
            build_training(
                recordings, start, settings, int(0.97 * most_mib * 2**20), (folders[1], folders[2])
            )
            for folder, name in ((folders[1], "2-audio"), (folders[2], "3-train")):
                (folder / "pack.json").write_text(json.dumps({**facts, "part": name[2:]}))
                write_tar(folder, out / f"{name}.tar", most_mib)


def _command(
    python: Annotated[str, typer.Option(help="Of the GPU machine.")] = "3.12",
    architecture: Annotated[
        int, typer.Option(help="Of its GPU: 90 for an H100; 0 keeps the code for all.")
    ] = 90,
    recordings: Annotated[
        Path | None, typer.Option(help="Folder with manifest.csv, to train on.")
    ] = None,
    start: Annotated[Path, typer.Option(help="Checkpoint to begin with.")] = Path("start.pt"),
    settings: Annotated[Path, typer.Option(help="Of the training.")] = SETTINGS,
    out: Annotated[Path, typer.Option(help="Folder for the tars.")] = ROOT / ".gpu-pack",
    most_mib: Annotated[float, typer.Option(help="That one transfer takes.")] = 55.0,
    only_training: Annotated[bool, typer.Option(help="Leave 1-evidence as it is.")] = False,
) -> None:
    """Pack what a GPU machine without a network needs."""
    parts = () if only_training else ("evidence",)
    try:
        if only_training and recordings is None:
            raise PackError(
                "--only-training packs recordings; say where they are: --recordings DIR."
            )
        pack(python, architecture or None, recordings, start, settings, out, most_mib, parts)
    except (PackError, TrimError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    typer.run(_command)
