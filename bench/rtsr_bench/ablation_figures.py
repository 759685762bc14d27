"""Figures of a campaign: quality against latent noise, against ``s_max``, against Euler steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rtsr.errors import MissingDependencyError, RtsrError
from rtsr_bench.ablation_report import Report, Row
from rtsr_bench.ablation_scores import LATENT, TEACHER

#: what is drawn of the metrics that were computed, from top to bottom
DRAWN = ("visqol", "lsd", "lsd_near", "mel_hf", "hf_envelope_db")
_PANEL_INCHES = (3.6, 2.3)
_STYLES = (("o", "-"), ("^", "--"), ("s", ":"))

# (x, row) by the name of a line
Lines = dict[str, list[tuple[float, Row]]]


def draw_figures(report: Report, folder: Path) -> list[Path]:
    """Write the pictures that the results have data for; returns their files.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        RtsrError: a picture cannot be written.
    """
    kinds: tuple[tuple[str, str, bool, Callable[[Report, str], Lines]], ...] = (
        ("latent-noise", "standard deviation of the noise on the latent", False, _by_noise),
        ("s-max", "s_max: latent noise that the decoder was trained with", False, _by_s_max),
        ("euler-steps", "Euler steps", True, _by_steps),
    )
    written = []
    for cutoff in report.cutoffs:
        for name, axis, is_log, collect in kinds:
            lines = collect(report, cutoff)
            if not any(len({x for x, _ in points}) > 1 for points in lines.values()):
                continue
            path = folder / f"{name}-{cutoff}.png"
            _draw(path, f"{report.title}: input up to {float(cutoff):g} Hz", axis, is_log, lines)
            written.append(path)
    return written


def _by_noise(report: Report, cutoff: str) -> Lines:
    lines: Lines = {}
    for row in report.rows(cutoff):
        if row.rendering.startswith(LATENT):
            level = float(row.rendering.removeprefix(LATENT))
            lines.setdefault(row.variant, []).append((level, row))
    return lines


def _by_s_max(report: Report, cutoff: str) -> Lines:
    trained = {result["name"]: result["model_config"] for result in report.results}
    lines: Lines = {}
    for row in report.rows(cutoff):
        lines.setdefault(row.rendering, []).append((trained[row.variant]["decoder_noise"], row))
    return lines


def _by_steps(report: Report, cutoff: str) -> Lines:
    lines: Lines = {}
    for row in report.rows(cutoff):
        if row.rendering.startswith(LATENT):
            continue
        is_teacher = row.rendering.startswith(TEACHER)
        steps = int(row.rendering.removeprefix(f"{TEACHER}, ").split()[0])
        name = f"{row.variant}, {TEACHER}" if is_teacher else row.variant
        lines.setdefault(name, []).append((steps, row))
    return lines


def _draw(path: Path, title: str, axis: str, is_log: bool, lines: Lines) -> None:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("Drawing figures", "eval") from error
    row = next(iter(lines.values()))[0][1]
    domains = row.domains
    metrics = [name for name in DRAWN if name in row.by_domain[domains[0]]]
    metrics = metrics or list(row.by_domain[domains[0]])
    width, height = _PANEL_INCHES
    figure = Figure(figsize=(width * len(domains), height * len(metrics) + 0.9))
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(metrics), len(domains), squeeze=False, sharex=True)
    for metric, row_of_panels in zip(metrics, panels, strict=True):
        for domain, panel in zip(domains, row_of_panels, strict=True):
            for index, (name, points) in enumerate(lines.items()):
                # Ten colours, and then again with another mark.
                mark, style = _STYLES[index // 10 % len(_STYLES)]
                look = {"marker": mark, "linestyle": style, "markersize": 4, "linewidth": 1.2}
                panel.plot(*_line(points, domain, metric), label=name, **look)
            if is_log:
                panel.set_xscale("log", base=2)
                panel.xaxis.set_major_formatter("{x:g}")
            panel.grid(alpha=0.3)
            panel.set_title(f"{metric}, {domain}", fontsize=9)
    for panel in panels[-1]:
        panel.set_xlabel(axis, fontsize=8)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.suptitle(title, fontsize=11)
    figure.legend(handles, labels, loc="lower center", ncols=4, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0.0, 0.06, 1.0, 0.98))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)
    except OSError as error:
        raise RtsrError(f"Cannot write {path}: {error.strerror}.") from error


def _line(
    points: Sequence[tuple[float, Row]], domain: str, metric: str
) -> tuple[list[float], list[float]]:
    known = [
        (x, value)
        for x, row in sorted(points, key=lambda point: point[0])
        if (value := row.by_domain.get(domain, {}).get(metric)) is not None
    ]
    return [x for x, _ in known], [y for _, y in known]
