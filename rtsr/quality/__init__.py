"""How good is an estimate? Metrics, comparison of files and folders, spectrogram pictures."""

from __future__ import annotations

from rtsr.quality.compare import (
    Comparison,
    FolderComparison,
    compare_files,
    compare_folders,
    medians,
)
from rtsr.quality.evaluation import METRICS, evaluate

__all__ = [
    "METRICS",
    "Comparison",
    "FolderComparison",
    "compare_files",
    "compare_folders",
    "evaluate",
    "medians",
]
