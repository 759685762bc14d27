"""TensorRT engines on disk: what one is good for, and whether the one that lies there fits.

An engine is code for one GPU, made by one version of TensorRT from one model at one shape. That
takes minutes, so it is done by ``rtsr export --engine tensorrt``, and engines are only read here.
One lies in a folder of the user's cache, beside a manifest with everything that it depends on::

    tensorrt/engines/small-1a2b3c4d5e6f/<16 digits>/engine.onnx
                                                    manifest.json
    tensorrt/timing/<16 digits>/                    kernel times, shared by all models

``engine.onnx`` is what ONNX Runtime calls an EP context model: one node that holds the engine. To
load it can only succeed or fail; nothing is ever built from it.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any

from rtsr.errors import ProviderError
from rtsr.runtime.models import Model
from rtsr.runtime.providers import libraries as provider_libraries
from rtsr.runtime.providers.cache import user_cache
from rtsr.runtime.providers.cuda_driver import Gpu
from rtsr.runtime.providers.options import TENSORRT, ProviderOptions

FORMAT = 1
ENGINE_FILE = "engine.onnx"
MANIFEST_FILE = "manifest.json"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class EngineKey:
    """Everything that an engine depends on; two engines with one key are interchangeable.

    Attributes:
        gpu: name of the GPU.
        compute_capability: of the GPU, ``9.0`` for a Hopper.
        driver: version of the driver.
        tensorrt: version of TensorRT.
        onnxruntime: version of ONNX Runtime, whose optimiser and parser come before TensorRT.
        model: SHA-256 of the model's file.
        batch: items of the batch.
        hops: hops per step.
        fp16: whether half-precision kernels were allowed.
        format: of this cache.
    """

    gpu: str
    compute_capability: str
    driver: str
    tensorrt: str
    onnxruntime: str
    model: str
    batch: int
    hops: int
    fp16: bool
    format: int = FORMAT

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits: the name of the engine's folder."""
        return _digest(asdict(self))

    @property
    def timing_digest(self) -> str:
        """The same for the kernel times, which no model and no shape has a part in."""
        return _digest(
            {name: getattr(self, name) for name in ("gpu", "compute_capability", "driver",
             "tensorrt", "format")}
        )  # fmt: skip

    def differences(self, other: dict[str, Any]) -> list[str]:
        """Say what differs in a manifest's key, most telling first."""
        found = []
        for field in fields(self):
            ours, theirs = getattr(self, field.name), other.get(field.name)
            if ours != theirs:
                found.append(_WORDS[field.name].format(theirs=theirs, ours=ours))
        return found


_WORDS = {
    "gpu": "it was built for {theirs}, this is {ours}",
    "compute_capability": "for compute capability {theirs}, not {ours}",
    "driver": "with driver {theirs}, not {ours}",
    "tensorrt": "by TensorRT {theirs}, not {ours}",
    "onnxruntime": "by ONNX Runtime {theirs}, not {ours}",
    "model": "from another version of the model",
    "batch": "for a batch of {theirs}, not {ours}",
    "hops": "for {theirs} hops per step, not {ours}",
    "fp16": "with fp16 {theirs}, not {ours}",
    "format": "in format {theirs} of the cache, not {ours}",
}


def engine_key(
    onnxruntime: ModuleType, model: Model, gpu: Gpu, batch: int, hops: int, options: ProviderOptions
) -> EngineKey:
    """Return the key of the engine that this machine needs for the model at that shape.

    Raises:
        ProviderError: TensorRT's version cannot be found out.
    """
    return EngineKey(
        gpu=gpu.name,
        compute_capability=gpu.compute_capability,
        driver=gpu.driver,
        tensorrt=tensorrt_version(onnxruntime),
        onnxruntime=str(onnxruntime.__version__),
        model=file_sha256(model.path),
        batch=batch,
        hops=hops,
        fp16=options.fp16,
    )


def engine_folder(model: Model, key: EngineKey) -> Path:
    """Where the engine of that key lies, or would lie."""
    return _model_folder(model, key) / key.digest


def timing_folder(key: EngineKey) -> Path:
    """Where TensorRT keeps the times of kernels for this GPU, driver and version."""
    return user_cache() / "tensorrt" / "timing" / key.timing_digest


def build_command(model: Model, key: EngineKey, options: ProviderOptions) -> str:
    """Return the command that builds the engine of that key."""
    name = str(model.name)
    shown = f"'{name}'" if re.search(r"[^\w./-]", name) else name
    engine = ProviderOptions(device=options.device, fp16=options.fp16).text(TENSORRT)
    return f"rtsr export --engine {engine} --model {shown} --batch {key.batch} --hops {key.hops}"


def find_engine(model: Model, key: EngineKey, options: ProviderOptions) -> Path:
    """Find the engine's file, if one lies there that fits and is whole.

    Raises:
        ProviderError: there is none, with the reason and the command that builds it.
    """
    folder = engine_folder(model, key)
    reason = why_unusable(folder, key)
    if reason is None:
        return folder / ENGINE_FILE
    if not folder.exists():
        reason = _nearest(model, key) or reason
    raise ProviderError(
        f"There is no usable TensorRT engine for model '{model.name}' on this machine ({reason}); "
        f"build it once with `{build_command(model, key, options)}`."
    )


def why_unusable(folder: Path, key: EngineKey) -> str | None:
    """``None`` if the folder holds an engine of that key, whole, else the reason in words."""
    if not folder.is_dir():
        return "none was built"
    try:
        manifest = read_manifest(folder)
    except (OSError, ValueError) as error:
        return f"the one in {folder} has no readable manifest: {type(error).__name__}"
    differences = key.differences(manifest["key"])
    if differences:
        return ", ".join(differences)
    file = folder / ENGINE_FILE
    if not file.is_file():
        return f"the one in {folder} has lost its file"
    if file_sha256(file) != manifest["engine_sha256"]:
        return f"the one in {folder} is damaged"
    return None


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of an engine.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not one of ours.
    """
    manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    if not isinstance(manifest, dict) or not isinstance(manifest.get("key"), dict):
        raise ValueError("not a manifest")
    if not isinstance(manifest.get("engine_sha256"), str):
        raise ValueError("not a manifest")
    return manifest


def write_manifest(folder: Path, key: EngineKey, facts: dict[str, Any]) -> None:
    """Write the manifest beside ``engine.onnx``, which must be there; ``facts`` are kept with it.

    Raises:
        OSError: it cannot be written.
    """
    manifest = {"key": asdict(key), "engine_sha256": file_sha256(folder / ENGINE_FILE), **facts}
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def context_options() -> dict[str, str]:
    """Return the options with which TensorRT's provider loads an engine that is there."""
    # Both caches are off: the engine comes with the file, and nothing is to be timed.
    return {"trt_engine_cache_enable": "False", "trt_timing_cache_enable": "False"}


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def tensorrt_version(onnxruntime: ModuleType) -> str:
    """Return the version of the TensorRT that ONNX Runtime's provider loads, ``10.13.3``.

    Raises:
        ProviderError: it is not there.
    """
    for name in provider_libraries.needed_libraries(onnxruntime, TENSORRT):
        if name.startswith("libnvinfer.so"):
            try:
                number = int(ctypes.CDLL(name).getInferLibVersion())
            except (OSError, AttributeError):
                break
            # NvInferVersion.h: MAJOR * 10000 + MINOR * 100 + PATCH since version 10
            return f"{number // 10000}.{number // 100 % 100}.{number % 100}"
    raise ProviderError(
        "The version of TensorRT cannot be found out (libnvinfer); install TensorRT, "
        "or use provider 'cuda'."
    )


def _model_folder(model: Model, key: EngineKey) -> Path:
    name = re.sub(r"[^A-Za-z0-9._-]", "_", model.path.stem)[:64]
    return user_cache() / "tensorrt" / "engines" / f"{name}-{key.model[:12]}"


def _nearest(model: Model, key: EngineKey) -> str | None:
    """Why the engine of this model that differs least does not fit; ``None`` if there is none."""
    reasons = [
        key.differences(manifest["key"]) for manifest in _manifests(_model_folder(model, key))
    ]
    nearest = min(filter(None, reasons), key=len, default=None)
    return ", ".join(nearest) if nearest else None


def _manifests(folder: Path) -> Iterator[dict[str, Any]]:
    for file in sorted(folder.glob(f"*/{MANIFEST_FILE}")):
        try:
            yield read_manifest(file.parent)
        except (OSError, ValueError):
            continue


def _digest(values: dict[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
