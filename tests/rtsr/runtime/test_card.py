"""Which metrics a card can have, so that all of them are shown."""

from __future__ import annotations

import pytest

from rtsr.runtime.card import is_shown_whole
from rtsr.runtime.models import find_model, names


@pytest.mark.parametrize(
    "metrics", [{}, {"clips": "ten", "8 kHz": {"visqol": [3, 2.5, None], "lsd": []}, "16 kHz": {}}]
)
def test_medians_may_be_whole_or_missing(metrics: object) -> None:
    assert is_shown_whole(metrics)


@pytest.mark.parametrize("name", names())
def test_the_bundled_cards_are_shown_whole(name: str) -> None:
    assert is_shown_whole(find_model(name).metadata.card.get("metrics", {}))


@pytest.mark.parametrize(
    "metrics",
    [
        None,
        {"8 kHz": 3.0},
        {"8 kHz": [3.0, 2.0]},
        {"8 kHz": {"visqol": [3.0, "good"]}},
        {"8 kHz": {"visqol": [{}]}},
        {"8 kHz": {"visqol": [True]}},
        {"clips": {"visqol": [3.0]}},
        {"clips": "ten", "note": "by hand"},
    ],
)
def test_whatever_else_would_be_left_out_or_a_dash(metrics: object) -> None:
    assert not is_shown_whole(metrics)
