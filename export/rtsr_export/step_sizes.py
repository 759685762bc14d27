"""Whether a graph sounds the same in steps of 1 to 16 hops, on real sound.

A product over one frame rounds in its last bit otherwise than one over several, as different
kernels add up in different orders. In float32 that is all. In 8 bits a value that lies on the edge
between two codes may so fall to either side, and the state carries that on for a few frames: rare,
but more than a rounding. Ranges of the codes are fixed at export, so nothing else depends on the
step.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from rtsr.errors import ModelError
from rtsr.timing import HOPS_PER_STEP, SAMPLE_RATE
from rtsr.upsampler import Upsampler
from rtsr_export.graph_file import write_graph
from rtsr_export.recordings import Samples, band_limited, packaged_recordings

CUTOFFS_HZ = (2000.0, 4000.0, 8000.0, 12_000.0)
# Below what eight bits themselves add to the high band, which is at -34 dB.
MOST_DB = -40.0
_NOTHING = 1e-20


@dataclass(frozen=True)
class StepDifference:
    """The power of the difference from steps of one hop over that of the high band, in dB."""

    clip: str
    cutoff_hz: float
    hops: int
    db: float


def measure_step_sizes(model: onnx.ModelProto) -> list[StepDifference]:
    """Stream the packaged recordings in steps of 2 to 16 hops, and compare with steps of one."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write_graph(model, path)
        for clip, reference in packaged_recordings().items():
            for cutoff in CUTOFFS_HZ:
                narrow = band_limited(reference, cutoff)
                single = _enhanced(path, narrow, cutoff, 1)
                high_band = _power(single - narrow)
                for hops in HOPS_PER_STEP[1:]:
                    difference = _power(_enhanced(path, narrow, cutoff, hops) - single)
                    db = 10.0 * np.log10((difference + _NOTHING) / (high_band + _NOTHING))
                    found.append(StepDifference(clip, cutoff, hops, float(db)))
    return found


def largest(differences: list[StepDifference]) -> StepDifference:
    """Return the largest difference.

    Raises:
        ModelError: it is above -40 dB: the graph computes something else in larger steps.
    """
    worst = differences[int(np.argmax([one.db for one in differences]))]
    if not worst.db <= MOST_DB:
        raise ModelError(
            f"In this precision the packaged {worst.clip} at {worst.cutoff_hz:g} Hz differs by "
            f"{worst.db:.0f} dB of the high band between steps of 1 and {worst.hops} hops, by more "
            f"than {MOST_DB:g} dB; nothing was written."
        )
    return worst


def _enhanced(model: Path, narrow: Samples, cutoff_hz: float, hops: int) -> Samples:
    with Upsampler(
        SAMPLE_RATE, model=str(model), provider="cpu", cutoff=cutoff_hz, hops_per_step=hops
    ) as upsampler:
        output = np.concatenate([upsampler.process(narrow), upsampler.flush()])
        return output[upsampler.latency.algorithmic_samples :]


def _power(samples: Samples) -> float:
    return float(np.mean(np.square(samples, dtype=np.float64)))
