"""One self-contained HTML page: tables, plots and how it was measured. It loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from rtsr_bench.plots import latency_plots, steadiness, streams_plots
from rtsr_bench.screen import found_streams, notes, three_digits

_LIGHT = ("#0a6fc2", "#d1490c", "#15803d", "#9333ea", "#8a7d00", "#0e9aa7", "#db2777", "#4d5562")
_DARK = ("#5ab0f5", "#fb923c", "#4ade80", "#c084fc", "#e3d34a", "#22d3ee", "#f472b6", "#a3adba")


def _series(colours: Sequence[str]) -> str:
    return "".join(f".series-{index}{{--c:{colour}}}" for index, colour in enumerate(colours))


_STYLE = f"""
:root {{ --ink:#1c2430; --soft:#5c6675; --line:#d9dee5; --paper:#fff; --band:#f4f6f9; }}
{_series(_LIGHT)}
@media (prefers-color-scheme: dark) {{
 :root {{ --ink:#e4e8ee; --soft:#9aa5b4; --line:#333c48; --paper:#14181e; --band:#1b2129; }}
 {_series(_DARK)}
}}
body {{ font:15px/1.5 system-ui,sans-serif; color:var(--ink); background:var(--paper);
 max-width:1400px; margin:2rem auto; padding:0 1.5rem; }}
h1 {{ margin-bottom:0; }} h2 {{ margin-top:2.5rem; }} .soft {{ color:var(--soft); }}
table {{ border-collapse:collapse; font-variant-numeric:tabular-nums; }}
.wide {{ overflow-x:auto; }}
th,td {{ padding:.25rem .5rem; text-align:right; border-bottom:1px solid var(--line);
 white-space:nowrap; }}
th {{ color:var(--soft); font-weight:600; }} th.text,td.text {{ text-align:left; }}
tbody tr:hover {{ background:var(--band); }}
.bad {{ color:#c2410c; }}
svg {{ width:100%; max-width:660px; height:auto; }}
svg text {{ font:11px system-ui,sans-serif; fill:var(--soft); }}
svg .note {{ fill:var(--ink); }}
polyline {{ fill:none; stroke:var(--c); stroke-width:1.8; stroke-linejoin:round; }}
polyline.dash-1 {{ stroke-dasharray:7 4; }} polyline.dash-2 {{ stroke-dasharray:2 3; }}
polyline.faint {{ opacity:.45; }}
.grid {{ stroke:var(--line); }} .rule {{ stroke:var(--ink); stroke-dasharray:3 3; opacity:.6; }}
.dot {{ fill:var(--c); stroke:var(--c); }} .ring {{ fill:var(--paper); stroke:var(--c); }}
.pair {{ display:grid; grid-template-columns:repeat(auto-fit,minmax(420px,1fr)); gap:1rem; }}
.legend {{ list-style:none; display:flex; flex-wrap:wrap; gap:.2rem 1.4rem; padding:0; }}
svg.key {{ width:24px; margin-right:.4rem; }} svg.spark {{ width:240px; }}
dt {{ color:var(--soft); }} dd {{ margin:0 0 .5rem 0; }}
code {{ background:var(--band); padding:.1rem .3rem; }}
"""

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
        f"<title>rtsr bench</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(body)}</body></html>\n"
    )


def _table(headings: Sequence[str], texts: int, rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML already; the first ``texts`` columns are aligned as text."""

    def line(tag: str, values: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=text' if index < texts else ''}>{value}</{tag}>"
            for index, value in enumerate(values)
        )

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    head = line("th", headings)
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
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
    return _table(headings, 3, rows)


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
    return _table([*headings, "fails at"], 3, rows)


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
    return _table([*headings, "p50", "p99", "p99.9"], 2, rows)


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
