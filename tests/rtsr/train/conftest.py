"""What the tests of training share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def same_chance() -> None:
    """Let each test draw the same numbers, alone or after others."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
