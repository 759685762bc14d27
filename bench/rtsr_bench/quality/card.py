"""What a quality report found, in the model cards of graphs: ``rtsr models`` then shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rtsr.errors import RtsrError

METRICS = ("visqol", "lsd", "lsd_near", "mel_hf")
CUTOFFS_HZ = (4000, 8000)


def card_metrics(report: Mapping[str, Any], system: str) -> dict[str, Any]:
    """Collect medians of one system by input rate and metric, in the order of the domains.

    Args:
        report: the object of ``quality.json``; of several corpora, the first counts.
        system: name in its tables.

    Raises:
        RtsrError: the report has no such system, cutoff or metric.
    """
    corpus = report["corpora"][0]
    clips = sum(corpus["clips"].values())
    found: dict[str, Any] = {
        "clips": f"{clips} valid clips, up to {report['seconds']:g} s each, 16-bit in and out; "
        f"medians {' / '.join(corpus['clips'])}; also used for tuning"
    }
    for cutoff in CUTOFFS_HZ:
        try:
            domains = corpus["cutoffs"][str(cutoff)][system]["by_domain"].values()
            found[f"{2 * cutoff // 1000} kHz"] = {
                metric: [round(values[metric], 2) for values in domains] for metric in METRICS
            }
        except KeyError as error:
            wanted = ", ".join(METRICS)
            raise RtsrError(
                f"The report does not have {system!r} at {cutoff} Hz by {wanted}."
            ) from error
    return found


def write_cards(report: Mapping[str, Any], models: Sequence[Path]) -> None:
    """Replace the metrics in the cards of graphs by those of a report; nothing else changes.

    Raises:
        RtsrError: the report has no such system, or a graph cannot be read or written.
    """
    from rtsr_export.calibration import model_facts
    from rtsr_export.graph_file import read_graph, write_graph
    from rtsr_export.precision import set_metadata

    cards = {path: card_metrics(report, path.stem) for path in models}
    for path, metrics in cards.items():
        graph = read_graph(path)
        set_metadata(graph, card={**model_facts(graph).card, "metrics": metrics})
        write_graph(graph, path)
