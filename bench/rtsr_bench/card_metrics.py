"""``python -m rtsr_bench.card_metrics QUALITY.json MODEL.onnx ...``: what a report found, in files.

``rtsr models`` then shows the figures that the report shows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rtsr.errors import RtsrError
from rtsr_bench.program import run_program
from rtsr_bench.quality_results import corpora_of

METRICS = ("visqol", "lsd", "lsd_near", "mel_hf")
CUTOFFS_HZ = (4000, 8000)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def card_metrics(report: Mapping[str, Any], system: str) -> dict[str, Any]:
    """Medians of one system, by input rate and metric, in the order of the domains.

    Args:
        report: what ``python -m rtsr_bench.quality`` wrote as ``quality.json``; of several corpora,
            the first counts.
        system: name in its tables.

    Raises:
        RtsrError: the report has no such system, cutoff or metric.
    """
    corpus = corpora_of(report)[0]
    clips = sum(corpus["clips"].values())
    found: dict[str, Any] = {
        "clips": f"{clips} valid clips, up to {report['seconds']:g} s each, 16-bit in and out; "
        f"medians {' / '.join(corpus['clips'])}; also used for tuning"
    }
    for cutoff in CUTOFFS_HZ:
        try:
            domains = corpus["cutoffs"][str(cutoff)][system]["by_domain"].values()
        except KeyError as error:
            raise RtsrError(f"The report does not have {system!r} at {cutoff} Hz.") from error
        missing = [metric for metric in METRICS if any(metric not in row for row in domains)]
        if missing:
            raise RtsrError(f"The report does not have {', '.join(missing)}.")
        found[f"{2 * cutoff // 1000} kHz"] = {
            metric: [round(values[metric], 2) for values in domains] for metric in METRICS
        }
    return found


@app.command(help=__doc__)
def write(
    report: Annotated[Path, typer.Argument(metavar="QUALITY.json")],
    models: Annotated[list[Path], typer.Argument(metavar="MODEL.onnx")],
) -> None:
    """Replace the metrics in the model cards of graphs; nothing else in them changes."""
    from rtsr_export.calibration import model_facts
    from rtsr_export.graph_file import read_graph, write_graph
    from rtsr_export.precision import set_metadata

    try:
        content = json.loads(report.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RtsrError(f"{report} is not the JSON of a quality report ({error}).") from error
    for path in models:
        graph = read_graph(path)
        card = {**model_facts(graph).card, "metrics": card_metrics(content, path.stem)}
        set_metadata(graph, card=card)
        write_graph(graph, path)
        typer.echo(f"{path}: {card['metrics']}")


def main() -> None:
    """Run the command."""
    run_program(app)


if __name__ == "__main__":
    main()
