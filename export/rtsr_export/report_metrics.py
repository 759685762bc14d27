"""What a quality report found, in the model card of a graph: ``rtsr models`` then shows it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from rtsr.errors import ArgumentError, RtsrError
from rtsr.runtime.models import SUFFIX

METRICS = ("visqol", "lsd", "lsd_near", "mel_hf")
CUTOFFS_HZ = (4000, 8000)


def report_into_card(report: Path, graph: Path, *, is_tuned_on: bool = False) -> None:
    """Put the medians of a ``quality.json`` into a graph's card, under the graph's name there.

    Args:
        report: of ``rtsr bench quality``.
        graph: the file to change; nothing but the metrics in its card does.
        is_tuned_on: see :func:`card_metrics`.

    Raises:
        ArgumentError: ``graph`` is no file of a model.
        RtsrError: the report has no such system, or a file cannot be read or written.
    """
    from rtsr_export.model_command import require

    if graph.suffix != SUFFIX or not graph.is_file():
        raise ArgumentError(f"--metrics writes into the {SUFFIX} file of a model; {graph} is none.")
    require("onnx", "Changing a model's card")
    from rtsr_export.calibration import model_facts
    from rtsr_export.graph_file import read_graph, write_graph
    from rtsr_export.precision import set_metadata

    metrics = card_metrics(_read(report), graph.stem, is_tuned_on=is_tuned_on)
    model = read_graph(graph)
    set_metadata(model, card={**model_facts(model).card, "metrics": metrics})
    write_graph(model, graph)
    typer.echo(f"{graph}: {metrics['clips']}")


def _read(report: Path) -> Any:
    try:
        return json.loads(report.read_text(encoding="utf-8"))
    except OSError as error:
        raise RtsrError(f"'{report}' cannot be read: {error.strerror or error}.") from None
    except (ValueError, RecursionError):
        raise RtsrError(f"'{report}' is not JSON; give the quality.json of a report.") from None


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
    cutoff = CUTOFFS_HZ[0]
    try:
        corpus = report["corpora"][0]
        clips = sum(corpus["clips"].values())
        found: dict[str, Any] = {
            "clips": f"{clips} valid clips, up to {report['seconds']:g} s each, 16-bit in and out; "
            f"medians {' / '.join(corpus['clips'])}{'; also used for tuning' * is_tuned_on}"
        }
        for cutoff in CUTOFFS_HZ:
            reached = corpus["cutoffs"][str(cutoff)][system]["by_domain"]
            # Where it failed on all clips of a domain, there is no median.
            domains = [reached.get(domain, dict.fromkeys(METRICS)) for domain in corpus["clips"]]
            found[f"{2 * cutoff // 1000} kHz"] = {
                metric: [_rounded(values[metric]) for values in domains] for metric in METRICS
            }
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        wanted = ", ".join(METRICS)
        raise RtsrError(
            f"The report does not have {system!r} at {cutoff} Hz by {wanted}."
        ) from None
    return found


def _rounded(value: float | str | None) -> float | str | None:
    """Round a median; where no clip has one, as of less than 1 s by ViSQOL, it stays null."""
    return round(value, 2) if isinstance(value, float) else value
