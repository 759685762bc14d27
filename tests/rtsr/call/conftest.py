"""What the tests of calls share; the helpers lie beside it, in files of their own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "helpers")]


@pytest.fixture(scope="module")
def batch() -> Iterator[object]:
    """The shipped model with room for two calls."""
    from rtsr import BatchUpsampler

    with BatchUpsampler(2, provider="cpu") as batch:
        yield batch
