"""What the tests of training share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def same_chance() -> None:
    """Let each test draw the same numbers, alone or after others."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
