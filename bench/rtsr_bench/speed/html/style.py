"""The style sheet of all reports, light and dark."""

from __future__ import annotations

from collections.abc import Sequence

_LIGHT = ("#0a6fc2", "#d1490c", "#15803d", "#9333ea", "#8a7d00", "#0e9aa7", "#db2777", "#4d5562")
_DARK = ("#5ab0f5", "#fb923c", "#4ade80", "#c084fc", "#e3d34a", "#22d3ee", "#f472b6", "#a3adba")


def _series(colours: Sequence[str]) -> str:
    return "".join(f".series-{index}{{--c:{colour}}}" for index, colour in enumerate(colours))


STYLE = f"""
:root {{ --ink:#1c2430; --soft:#5c6675; --line:#d9dee5; --paper:#fff; --band:#f4f6f9;
 --bad:#c2410c; --good:#15803d; }}
{_series(_LIGHT)}
@media (prefers-color-scheme: dark) {{
 :root {{ --ink:#e4e8ee; --soft:#9aa5b4; --line:#333c48; --paper:#14181e; --band:#1b2129;
  --bad:#fb923c; --good:#4ade80; }}
 {_series(_DARK)}
}}
body {{ font:15px/1.5 system-ui,sans-serif; color:var(--ink); background:var(--paper);
 max-width:1180px; margin:2rem auto; padding:0 1.5rem; }}
h1 {{ margin-bottom:0; }} h2 {{ margin-top:2.5rem; }} .soft {{ color:var(--soft); }}
table {{ border-collapse:collapse; font-variant-numeric:tabular-nums; }}
.wide {{ overflow-x:auto; }}
th,td {{ padding:.25rem .5rem; text-align:right; border-bottom:1px solid var(--line);
 white-space:nowrap; }}
th {{ color:var(--soft); font-weight:600; }} th.text,td.text {{ text-align:left; }}
tbody tr:hover {{ background:var(--band); }}
.bad {{ color:var(--bad); }} .good {{ color:var(--good); }}
.verdict {{ font-size:1.15rem; margin:.4rem 0; }}
.facts td+td {{ white-space:normal; overflow-wrap:anywhere; }}
svg {{ width:100%; max-width:660px; height:auto; }}
svg text {{ font:11px system-ui,sans-serif; fill:var(--soft); }}
svg .note {{ fill:var(--ink); }}
polyline {{ fill:none; stroke:var(--c); stroke-width:1.8; stroke-linejoin:round; }}
polyline.dash-1 {{ stroke-dasharray:7 4; }} polyline.dash-2 {{ stroke-dasharray:2 3; }}
.grid {{ stroke:var(--line); }} .rule {{ stroke:var(--ink); stroke-dasharray:3 3; opacity:.6; }}
.dot {{ fill:var(--c); stroke:var(--c); }} .ring {{ fill:var(--paper); stroke:var(--c); }}
.pair {{ display:grid; gap:1rem;
 grid-template-columns:repeat(auto-fit,minmax(min(420px,100%),1fr)); }}
.legend {{ list-style:none; display:flex; flex-wrap:wrap; gap:.2rem 1.4rem; padding:0; }}
svg.key {{ width:24px; margin-right:.4rem; }}
@media (max-width:600px) {{
 body {{ margin:1rem auto; padding:0 .8rem; }} h2 {{ font-size:1.2rem; }}
 svg text {{ font-size:15px; }}
}}
"""
