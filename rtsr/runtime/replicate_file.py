"""The file of the ``replicate`` level: a regression's weights and the same facts as a model's.

Only the weights that are used are stored, in half precision: an error of 0.05 % in a weight is
0.001 in a logarithm.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsr.errors import ModelError
from rtsr.runtime.metadata import FORMAT, KEY, ModelMetadata, parse_metadata
from rtsr.timing import HOP, OVERLAP, SAMPLE_RATE
from rtsr_kernels.replicate_design import BANDS, FEATURES_PER_BAND, FEWEST_BANDS, MOST_BANDS

NAME = "replicate"
VERSION = "1"
SUFFIX = ".npz"
# The recordings that it learns from are mostly coded and end there, and so does `small`.
CEILING_HZ = 20000.0

Weights = NDArray[np.float32]


@dataclass(frozen=True)
class ReplicateWeights:
    """What spectral band replication needs to know.

    Attributes:
        regression: ``(bands, 1 + 5 * bands, bands)`` float32 by input bands, feature, band.
        replica_share: of the power of the first copy, what is moved low band and not noise.
    """

    regression: Weights
    replica_share: float


def bundled_path() -> Path:
    """Where the package's own file lies."""
    return Path(str(resources.files("rtsr").joinpath("weights", NAME + SUFFIX)))


@functools.lru_cache(maxsize=1)
def bundled_weights() -> ReplicateWeights:
    """Return the package's own weights, read once."""
    return read(bundled_path())


def _used(input_bands: int) -> tuple[slice, slice]:
    """Rows and columns of one table that hold weights."""
    return slice(0, 1 + FEATURES_PER_BAND * input_bands), slice(input_bands, BANDS)


def write(path: Path, weights: ReplicateWeights, card: dict[str, Any]) -> None:
    """Write a file that :func:`read` and :func:`read_facts` accept; ``card`` as for a model."""
    tables = [
        weights.regression[(input_bands, *_used(input_bands))].astype(np.float16)
        for input_bands in range(FEWEST_BANDS, MOST_BANDS + 1)
    ]
    packed = np.concatenate([table.ravel() for table in tables])
    facts = {
        "format": FORMAT,
        "name": NAME,
        "version": VERSION,
        "sample_rate": SAMPLE_RATE,
        "hop": HOP,
        "overlap": OVERLAP,
        "latency_samples": HOP + OVERLAP,
        "noise_channels": 0,
        "states": {},
        "f_target_default": CEILING_HZ,
        "parameters": int(packed.size),
        "licence": "Apache-2.0",
        "weights_sha256": hashlib.sha256(packed.tobytes()).hexdigest(),
        "configuration": {"bands": BANDS, "replica_share": weights.replica_share},
        "card": card,
    }
    members: dict[str, Any] = {"weights": packed, KEY: np.array(json.dumps(facts))}
    np.savez_compressed(path, **members)


def read(path: Path) -> ReplicateWeights:
    """Read the weights.

    Raises:
        ModelError: the file is missing, damaged, or made for another grid of bands.
    """
    configuration = read_facts(path).configuration
    packed = np.asarray(_member(path, "weights"), np.float32)
    regression = np.zeros((BANDS, 1 + FEATURES_PER_BAND * BANDS, BANDS), np.float32)
    start = 0
    for input_bands in range(FEWEST_BANDS, MOST_BANDS + 1):
        rows, columns = _used(input_bands)
        size = rows.stop * (BANDS - input_bands)
        table = packed[start : start + size]
        if table.size != size:
            break
        regression[input_bands, rows, columns] = table.reshape(rows.stop, -1)
        start += size
    share = configuration.get("replica_share")
    fits = configuration.get("bands") == BANDS and start == packed.size and packed.ndim == 1
    if not (fits and isinstance(share, float) and 0.0 <= share <= 1.0):
        raise ModelError(f"Model file '{path}' was made for another version; reinstall rtsr.")
    regression[:FEWEST_BANDS] = regression[FEWEST_BANDS]
    regression.setflags(write=False)
    return ReplicateWeights(regression, share)


def read_facts(path: Path) -> ModelMetadata:
    """Read what the file says about itself, as of any model.

    Raises:
        ModelError: the file is missing or damaged.
    """
    return parse_metadata(str(_member(path, KEY)), str(path))


def _member(path: Path, name: str) -> NDArray[Any]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return np.asarray(stored[name])
    except Exception:  # zipfile, its decompressors and numpy each have errors of their own
        raise ModelError(
            f"Model file '{path}' of the model '{NAME}' is missing or damaged; reinstall rtsr."
        ) from None
