"""One self-contained HTML page: tables, plots and how it was measured. It loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from rtsr_bench.html_parts import STYLE, table
from rtsr_bench.plots import latency_plots, steadiness, streams_plots
from rtsr_bench.screen import found_streams, notes, three_digits

_FIGURES = {
    "cold start": "cold_start_ms",
    "first step": "first_step_ms",
    "p50": "p50_ms",
    "p95": "p95_ms",
    "p99": "p99_ms",
    "p99.9": "p99_9_ms",
    "max": "max_ms",
    "jitter": "jitter_ms",
}


def build_page(results: dict[str, Any]) -> str:
    """The whole page as text."""
    cells = results["cells"]
    body = [
        "<h1>rtsr bench</h1>",
        f'<p class="soft">{escape(results["date"])}, <code>{escape(results["command"])}</code></p>',
        *(f"<p>{escape(note)}</p>" for note in notes(results)),
        "<h2>Steps</h2>",
        "<p>Milliseconds from audio in host memory to audio in host memory. Percentiles over the "
        "steps of all repetitions; cold start, first step, memory and power are medians of the "
        "repetitions.</p>",
        _matrix(cells),
    ]
    if results["searches"]:
        body += [
            "<h2>Streams per device</h2>",
            "<p>The most streams in one batch whose p99.9 stays below 80 % of the period, found "
            "by trying; an open dot did not pass.</p>",
            _searches(results["searches"]),
            streams_plots(results["searches"]),
        ]
    body += [
        "<h2>Distribution</h2>",
        "<p>Left: the share of steps that took no longer than a time; every line of the grid "
        "above 90 leaves a tenth of the stalls of the one below. Right: histogram.</p>",
        latency_plots(cells),
        "<h2>Repetitions and steady state</h2>",
        "<p>One curve per repetition: medians of consecutive windows, warm-up before the rule. "
        "The scale begins at zero and ends at twice the median.</p>",
        _repetitions(cells),
        "<h2>Machine and software</h2>",
        _facts(results),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>rtsr bench</title><style>{STYLE}</style></head>"
        f"<body>{''.join(body)}</body></html>\n"
    )


def _matrix(cells: Sequence[dict[str, Any]]) -> str:
    headings = [
        *("model", "provider", "precision", "ms", "streams", "threads", *_FIGURES),
        *("missed", "steps", "x real time", "RSS MB", "device MB", "CPU W", "GPU W"),
    ]
    rows = []
    for cell in cells:
        head = [escape(str(cell[name])) for name in ("name", "provider", "precision")]
        head += [f"{cell['period_ms']:g}", str(cell["streams"]), str(cell["threads"])]
        figures = cell.get("figures")
        if figures is None:
            rows.append([*head, f'<span class="bad">{escape(cell["error"])}</span>'])
            continue
        late = figures["missed_by_the_clock"]
        missed = figures["missed_deadlines"] if late is None else late
        rows.append(
            [
                *head,
                *(three_digits(figures[name]) for name in _FIGURES.values()),
                f'<span class="bad">{missed}</span>' if missed else "0",
                str(figures["steps"]),
                three_digits(figures["real_time_factor"]),
                *(
                    "-" if figures[name] is None else f"{figures[name]:.0f}"
                    for name in ("rss_mb", "device_mb", "cpu_power_w", "gpu_power_w")
                ),
            ]
        )
    return table(headings, 3, rows)


def _searches(searches: Sequence[dict[str, Any]]) -> str:
    rows = [
        [
            *(escape(str(search[name])) for name in ("name", "provider", "precision")),
            f"{search['period_ms']:g}",
            str(search["threads"]),
            f"{search['limit_ms']:g}",
            f"<b>{found_streams(search)}</b>",
            "-" if search["fails_at"] is None else str(search["fails_at"]),
        ]
        for search in searches
    ]
    headings = ["model", "provider", "precision", "ms", "threads", "limit ms", "streams"]
    return table([*headings, "fails at"], 3, rows)


def _repetitions(cells: Sequence[dict[str, Any]]) -> str:
    rows = []
    for cell in cells:
        repetitions = cell["repetitions"]
        if not repetitions:
            continue
        drift = max((repetition["drift"] for repetition in repetitions), key=abs)
        rows.append(
            [
                escape(cell["label"]),
                steadiness(cell),
                "yes" if cell["steady"] else '<span class="bad">no</span>',
                ", ".join(str(repetition["warm_up_steps"]) for repetition in repetitions),
                f"{100 * drift:+.1f} %",
                *(_spread(repetitions, name) for name in ("p50_ms", "p99_ms", "p99_9_ms")),
            ]
        )
    headings = ["cell", "runs", "steady", "warm-up steps", "largest drift"]
    return table([*headings, "p50", "p99", "p99.9"], 2, rows)


def _spread(repetitions: Sequence[dict[str, Any]], figure: str) -> str:
    values = [repetition[figure] for repetition in repetitions]
    return f"{three_digits(min(values))} to {three_digits(max(values))}"


def _facts(results: dict[str, Any]) -> str:
    items = []
    for part in ("machine", "software", "protocol"):
        for name, value in results[part].items():
            items.append(f"<dt>{escape(name.replace('_', ' '))}</dt><dd>{_value(value)}</dd>")
    return f"<dl>{''.join(items)}</dl>"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(
            f"{escape(str(name)).replace('_', ' ')} {_value(inner)}"
            for name, inner in value.items()
        )
    if isinstance(value, list):
        return "<br>".join(_value(inner) for inner in value) or "none"
    return "unknown" if value is None else escape(str(value))
