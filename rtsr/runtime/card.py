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
    """Whether all of these metrics is shown where a card is, and every median as a number."""
    return isinstance(metrics, dict) and all(
        isinstance(value, str) if name == "clips" else _are_medians(value)
        for name, value in metrics.items()
    )


def _are_medians(values: Any) -> bool:
    """Whether these are lists of medians by metric; where nothing was measured there is none."""
    return isinstance(values, dict) and all(
        isinstance(medians, list) and all(one is None or _is_number(one) for one in medians)
        for medians in values.values()
    )


def write_median(value: Any) -> str:
    """Write a median, or a dash where there is none."""
    return f"{value:.2f}" if _is_number(value) else "-"


def _is_number(value: Any) -> bool:
    # A card's JSON may have 3 for 3.0; to Python, a truth value is an integer, too.
    return isinstance(value, (int, float)) and not isinstance(value, bool)
