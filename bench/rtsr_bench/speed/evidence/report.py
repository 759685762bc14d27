"""What the evidence says: a verdict first, then every figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from rtsr_bench.speed.evidence.items import PARITY, SEARCH, STEPS
from rtsr_bench.speed.html.parts import facts_table, table, whole_page
from rtsr_bench.speed.html.svg import Plot, log_scale
from rtsr_bench.speed.summary import missed_steps
from rtsr_bench.speed.texts import found_streams, three_digits

MET, MISSED, OPEN = "met", "missed", "not measured"
#: What a GPU of the class of an H100 is to reach: (model, milliseconds p50, milliseconds p99.9).
SINGLE_STREAM_MS = (("small", 0.4, 1.0), ("base", 0.6, 1.5))
#: Streams of `small` within 10 ms at p99.9.
BARE_STREAMS, WHOLE_STREAMS = 2000, 1000

Entry = dict[str, Any]


def verdict(results: dict[str, Any]) -> dict[str, Any]:
    """Return the answers that are there so far.

    Returns:
        ``headline``: one or two sentences. ``sound``: whether no check of parity failed.
        ``claims``: what a GPU is to reach, each with ``wanted``, ``found`` and ``state``.
    """
    items = results["items"]
    checks = [entry for entry in items if entry["kind"] == PARITY and "to_eager" in entry]
    wrong = [entry["label"] for entry in checks if not _is_alike(entry)]
    return {
        "headline": _headline(results, checks, wrong),
        "sound": bool(checks) and not wrong,
        "claims": _claims(items) if results["provider"] != "cpu" else [],
    }


def _headline(results: dict[str, Any], checks: Sequence[Entry], wrong: Sequence[str]) -> str:
    device = (results["gpu"] or {}).get("name") or results["machine"]["cpu"]["model"] or "This CPU"
    items = results["items"]
    if not items:
        return f"{device}: nothing was measured within the budget."
    name = items[0]["name"]
    single = _find(items, STEPS, name, streams=None, whole=False)
    parts = []
    if single:
        figures = single["figures"]
        parts.append(
            f"a step of {name} takes {three_digits(figures['p50_ms'])} ms (p99.9 "
            f"{three_digits(figures['p99_9_ms'])}) per {single['period_ms']:g} ms of sound"
        )
    found = {whole: _find(items, SEARCH, name, None, whole) for whole in (False, True)}
    streams = []
    for whole, entry in found.items():
        if entry:
            search, way = entry["search"], "whole" if whole else "bare"
            streams.append(f"{search['streams']} {way}{'' if search['finished'] else ' or more'}")
    if streams:
        parts.append(f"streams within the period: {', '.join(streams)}")
    if wrong:
        parts.append(f"parity FAILED ({'; '.join(wrong)}), so do not use it")
    elif checks:
        parts.append("parity holds")
    if results["provider"] != "cpu" and checks:
        captured = all(entry["captured"] for entry in checks)
        parts.append("steps are captured as CUDA graphs" if captured else "NOT CAPTURED as a graph")
    return f"{device}: {'; '.join(parts) or 'nothing was measured yet'}."


def _is_alike(entry: Entry) -> bool:
    sides = [("to_eager", "to_eager_limit"), ("to_cpu", "to_cpu_limit")]
    return all(
        entry[value] is not None and entry[value] <= entry[limit]
        for value, limit in sides
        if value in entry
    )


def _find(
    items: Sequence[Entry], kind: str, name: str, streams: int | None, whole: bool
) -> Entry | None:
    """Return the first such item in fp32 that was measured, of the fewest hops and streams."""
    answers = "figures" if kind == STEPS else "search"
    found = [
        entry
        for entry in items
        if entry["kind"] == kind
        and answers in entry
        and entry["name"] == name
        and entry["precision"] == "fp32"
        and entry["whole"] is whole
        and not entry["paced"]
        and streams in (None, entry["streams"])
    ]
    return min(found, key=lambda entry: (entry["hops"], entry["streams"]), default=None)


def _claims(items: Sequence[Entry]) -> list[dict[str, Any]]:
    claims = []
    for name, p50, p99_9 in SINGLE_STREAM_MS:
        entry = _find(items, STEPS, name, 1, whole=False)
        figures = entry["figures"] if entry and entry["hops"] == 1 else None
        is_met = figures and figures["p50_ms"] <= p50 and figures["p99_9_ms"] <= p99_9
        claims.append(
            {
                "what": f"{name}, one stream, ms per hop (p50 / p99.9)",
                "wanted": f"<= {p50:g} / {p99_9:g}",
                "found": None
                if figures is None
                else f"{three_digits(figures['p50_ms'])} / {three_digits(figures['p99_9_ms'])}",
                "state": OPEN if figures is None else MET if is_met else MISSED,
            }
        )
    for whole, wanted in ((False, BARE_STREAMS), (True, WHOLE_STREAMS)):
        entry = _find(items, SEARCH, "small", None, whole)
        streams = entry["search"]["streams"] if entry else None
        claims.append(
            {
                "what": f"small, streams within 10 ms at p99.9, {'whole' if whole else 'bare'}",
                "wanted": f">= {wanted}",
                "found": None if streams is None else str(streams),
                "state": OPEN if streams is None else MET if streams >= wanted else MISSED,
            }
        )
    return claims


def build_page(results: dict[str, Any]) -> str:
    """Build the report as one page that loads nothing."""
    found = results["verdict"]
    items = results["items"]
    spent = f"{results['elapsed_s']:g} of {results['budget_s']:g} s"
    state = (
        "everything that was planned"
        if results["finished"]
        else f"{len(items)} of {results['planned']} items"
    )
    body = [
        "<h1>rtsr bench speed: evidence</h1>",
        f'<p class="verdict">{escape(found["headline"])}</p>',
        _claims_table(found["claims"]),
        f'<p class="soft">{escape(results["date"])}, <code>{escape(results["command"])}</code>, '
        f"{spent}, {state}</p>",
        *(f'<p class="bad">{escape(note)}</p>' for note in results["notes"]),
        "<h2>Does it compute the same?</h2>",
        "<p>Largest difference over 200 hops with a fresh start in the middle, relative to the "
        "signal.</p>",
        _parity_table([entry for entry in items if entry["kind"] == PARITY]),
        "<h2>How long is a step?</h2>",
        '<p class="soft">Milliseconds, host to host. <em>Bare</em> is the model\'s step, '
        "<em>whole</em> a stream from a packet of 8 kHz to its twin at 48 kHz. ~ from fewer than "
        "1000 steps.</p>",
        _steps_table([entry for entry in items if entry["kind"] == STEPS]),
        _steps_plot(items),
        "<h2>How many streams fit?</h2>",
        "<p>The most streams in one batch whose p99.9 stays within the period, found by trying, to "
        "an eighth.</p>",
        _search_table([entry for entry in items if entry["kind"] == SEARCH]),
        "<h2>Machine and software</h2>",
        facts_table({"GPU": results["gpu"] or "none"}),
        *(facts_table(results[part], part) for part in ("machine", "software")),
    ]
    return whole_page("rtsr bench speed: evidence", body)


def _claims_table(claims: Sequence[dict[str, Any]]) -> str:
    if not claims:
        return ""
    rows = [
        [
            escape(claim["what"]),
            escape(claim["wanted"]),
            escape(claim["found"] or "-"),
            claim["state"]
            if claim["state"] == MET
            else f'<span class="bad">{claim["state"]}</span>',
        ]
        for claim in claims
    ]
    return table(["to be reached on an H100", "wanted", "found", ""], 1, rows)


def _rows(items: Sequence[Entry], values: Callable[[Entry], list[str]]) -> list[list[str]]:
    rows = []
    for entry in items:
        head = [escape(entry["name"]), entry["precision"], escape(entry["provider"])]
        head.append(f"{entry['period_ms']:g}")
        reason = entry.get("error") or entry.get("left_out")
        rows.append(
            head + ([f'<span class="bad">{escape(reason)}</span>'] if reason else values(entry))
        )
    return rows


_HEAD = ("model", "precision", "provider", "ms")


def _parity_table(items: Sequence[Entry]) -> str:
    def values(entry: Entry) -> list[str]:
        return [
            "yes" if entry["captured"] else "no",
            _difference(entry, "to_eager"),
            _difference(entry, "to_cpu"),
        ]

    headings = [*_HEAD, "captured", "to single launches", "to the CPU"]
    return table(headings, 3, _rows(items, values))


def _difference(entry: Entry, name: str) -> str:
    if name not in entry:
        return "-"
    value, limit = entry[name], entry[f"{name}_limit"]
    text = "no number" if value is None else f"{value:.1e}"
    is_alike = value is not None and value <= limit
    return text if is_alike else f'<span class="bad">{text} &gt; {limit:.0e}</span>'


def _steps_table(items: Sequence[Entry]) -> str:
    names = ("p50_ms", "p99_ms", "p99_9_ms", "max_ms")

    def values(entry: Entry) -> list[str]:
        figures = entry["figures"]
        times = [three_digits(figures[name]) for name in names]
        if figures["steps"] < 1000:
            times[2] = f"~{times[2]}"
        return [
            str(entry["streams"]),
            "whole" if entry["whole"] else "bare",
            "paced" if entry["paced"] else "",
            *times,
            str(missed_steps({**figures, "missed_by_the_clock": entry["missed_by_the_clock"]})),
            str(figures["steps"]),
            f"{entry['open_s']:.1f}",
            *(three_digits(entry.get(name)) for name in ("gpu_power_w", "gpu_memory_mb")),
            three_digits(entry["rss_mb"]),
        ]

    headings = [
        *(*_HEAD, "streams", "", "", "p50", "p99", "p99.9", "max", "missed", "steps"),
        *("opened in s", "GPU W", "GPU MB", "RSS MB"),
    ]
    return table(headings, 3, _rows(items, values))


def _steps_plot(items: Sequence[Entry]) -> str:
    """p99.9 against streams, back to back, of the fewest hops."""
    measured = [
        entry
        for entry in items
        if entry["kind"] == STEPS and "figures" in entry and not entry["paced"]
    ]
    if len(measured) < 3:
        return ""
    hops = min(entry["hops"] for entry in measured)
    lines: dict[str, list[tuple[float, float]]] = {}
    for entry in measured:
        if entry["hops"] == hops:
            label = f"{entry['name']} {entry['precision']} {'whole' if entry['whole'] else 'bare'}"
            lines.setdefault(label, []).append((entry["streams"], entry["figures"]["p99_9_ms"]))
    period = 10.0 * hops
    points = [point for line in lines.values() for point in line]
    plot = Plot(
        log_scale(point[0] for point in points),
        log_scale([*(point[1] for point in points), period]),
        "streams",
        "p99.9, ms",
    )
    plot.level(period, "period")
    for index, (label, line) in enumerate(lines.items()):
        plot.line(sorted(line), index, label)
        for x, y in line:
            plot.marker(x, y, index, f"{label}: {x:g} streams, {y:.3g} ms", filled=True)
    return plot.render()


def _search_table(items: Sequence[Entry]) -> str:
    def values(entry: Entry) -> list[str]:
        search = entry["search"]
        return [
            "whole" if entry["whole"] else "bare",
            found_streams(search),
            "-" if search["fails_at"] is None else str(search["fails_at"]),
            str(len(search["trials"])),
        ]

    return table([*_HEAD, "", "streams", "fails at", "trials"], 3, _rows(items, values))
