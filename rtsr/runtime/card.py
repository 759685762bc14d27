"""The figures of a model card. A card may be anybody's, so what has another shape is left out."""

from __future__ import annotations

from typing import Any


def card_medians(metrics: Any) -> dict[str, dict[str, list[Any]]]:
    """Return a card's medians by input and metric, each a list in the order of the domains.

    Args:
        metrics: what the card has under that name, if anything.
    """
    inputs = metrics.items() if isinstance(metrics, dict) else ()
    return {
        name: {metric: medians for metric, medians in values.items() if isinstance(medians, list)}
        for name, values in inputs
        if isinstance(values, dict)
    }


def card_clips(metrics: Any) -> str:
    """Return what a card says of the clips that it was measured on; empty if nothing."""
    text = metrics.get("clips") if isinstance(metrics, dict) else None
    return text if isinstance(text, str) else ""


def is_shown_whole(metrics: Any) -> bool:
    """Whether nothing of these metrics would be left out where a card is shown."""
    return isinstance(metrics, dict) and all(
        value == card_medians(metrics).get(name, card_clips(metrics))
        for name, value in metrics.items()
        if name == "clips" or isinstance(value, dict)
    )


def write_median(value: Any) -> str:
    """Write a median, or a dash where there is none."""
    # A card's JSON may have 3 for 3.0; to Python, a truth value is an integer, too.
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return f"{value:.2f}" if is_number else "-"
