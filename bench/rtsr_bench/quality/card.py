"""What a quality report found, in the model cards of graphs: ``rtsr models`` then shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rtsr.errors import ArgumentError, RtsrError

METRICS = ("visqol", "lsd", "lsd_near", "mel_hf")
CUTOFFS_HZ = (4000, 8000)


def check_enough(cutoffs: Sequence[float], metrics: Sequence[str]) -> None:
    """Raise :class:`ArgumentError` where a report would lack what a card holds."""
    missing = [f"{hz} Hz" for hz in CUTOFFS_HZ if hz not in cutoffs]
    missing += [name for name in METRICS if name not in metrics]
    if missing:
        raise ArgumentError(
            f"A card holds {', '.join(METRICS)} at {' and '.join(map(str, CUTOFFS_HZ))} Hz; this "
            f"report would be without {', '.join(missing)}."
        )


def card_metrics(
    report: Mapping[str, Any], system: str, *, is_tuned_on: bool = False
) -> dict[str, Any]:
    """Collect medians of one system by input rate and metric, in the order of the domains.

    Args:
        report: the object of ``quality.json``; of several corpora, the first counts.
        system: name in its tables.
        is_tuned_on: the system was tuned on these clips, which its card then says.

    Raises:
        RtsrError: the report has no such system, cutoff or metric.
    """
    corpus = report["corpora"][0]
    clips = sum(corpus["clips"].values())
    found: dict[str, Any] = {
        "clips": f"{clips} valid clips, up to {report['seconds']:g} s each, 16-bit in and out; "
        f"medians {' / '.join(corpus['clips'])}{'; also used for tuning' * is_tuned_on}"
    }
    for cutoff in CUTOFFS_HZ:
        try:
            reached = corpus["cutoffs"][str(cutoff)][system]["by_domain"]
            # Where it failed on all clips of a domain, there is no median.
            domains = [reached.get(domain, dict.fromkeys(METRICS)) for domain in corpus["clips"]]
            found[f"{2 * cutoff // 1000} kHz"] = {
                metric: [_rounded(values[metric]) for values in domains] for metric in METRICS
            }
        except KeyError as error:
            wanted = ", ".join(METRICS)
            raise RtsrError(
                f"The report does not have {system!r} at {cutoff} Hz by {wanted}."
            ) from error
    return found


def _rounded(value: float | str | None) -> float | str | None:
    """Round a median; where no clip has one, as of less than 1 s by ViSQOL, it stays null."""
    return round(value, 2) if isinstance(value, float) else value


def write_cards(
    report: Mapping[str, Any], models: Sequence[Path], *, is_tuned_on: bool = False
) -> None:
    """Replace the metrics in the cards of graphs by those of a report; nothing else changes.

    See :func:`card_metrics` for ``is_tuned_on``.

    Raises:
        RtsrError: the report has no such system, or a graph cannot be read or written.
    """
    from rtsr_export.calibration import model_facts
    from rtsr_export.graph_file import read_graph, write_graph
    from rtsr_export.precision import set_metadata

    cards = {path: card_metrics(report, path.stem, is_tuned_on=is_tuned_on) for path in models}
    for path, metrics in cards.items():
        graph = read_graph(path)
        set_metadata(graph, card={**model_facts(graph).card, "metrics": metrics})
        write_graph(graph, path)
