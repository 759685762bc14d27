"""How good is an estimate? Metrics, artefacts, comparison of files and folders, pictures."""

from __future__ import annotations

from rtsr.quality.artefacts import ARTEFACTS, Artefact, find_artefacts
from rtsr.quality.compare import (
    Comparison,
    FolderComparison,
    compare_files,
    compare_folders,
    medians,
)
from rtsr.quality.evaluation import METRICS, evaluate

__all__ = [
    "ARTEFACTS",
    "METRICS",
    "Artefact",
    "Comparison",
    "FolderComparison",
    "compare_files",
    "compare_folders",
    "evaluate",
    "find_artefacts",
    "medians",
]
