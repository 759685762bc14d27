"""What less precision costs: which clips, which models, and when a report says no."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtsr_bench.corpus import Clip, first_clips
from rtsr_bench.quality.report import lsd_growth, markdown
from rtsr_bench.quality.systems import original_of


def _domains(**lsd: float | None) -> dict[str, dict[str, float | None]]:
    return {domain: {"lsd": value} for domain, value in lsd.items()}


def test_the_domain_that_suffers_most_counts() -> None:
    full = _domains(speech=1.0, music=1.2)
    assert lsd_growth(_domains(speech=0.9, music=1.23), full) == pytest.approx(0.03)
    assert lsd_growth(_domains(speech=0.9, music=1.1), full) < 0.0
    # Whatever one of both lacks tells nothing.
    assert lsd_growth(_domains(speech=0.9, effects=1.9), full) == pytest.approx(-0.1)
    assert lsd_growth(_domains(speech=None, effects=1.9), full) is None


@pytest.mark.parametrize(
    ("name", "original"),
    [("net-int8", "net"), ("net-fp16", "net"), ("net", None), ("other-int8", None),
     ("net-large", None)],
)  # fmt: skip
def test_the_model_in_full_precision_is_found(name: str, original: str | None) -> None:
    assert original_of(name, ["input", "net", "net-int8", "net-fp16", "net-large"]) == original


def test_clips_are_taken_from_every_domain() -> None:
    clips = [
        Clip(f"{domain}/{index}", Path("x"), domain)
        for index in range(3)
        for domain in ("music", "speech")
    ]
    chosen = [clip.name for clip in first_clips(clips, 2)]
    assert chosen == ["speech/0", "speech/1", "music/0", "music/1"]
    assert len(first_clips(clips, None)) == 6


@pytest.mark.parametrize(("worse", "verdict"), [(0.019, "ship"), (0.021, "**do not ship**")])
def test_the_report_says_where_quality_does_not_hold(worse: float, verdict: str) -> None:
    scored = {
        name: {"by_domain": _domains(speech=lsd), "clips": {"speech/a": {"lsd": lsd}}}
        for name, lsd in (("input", 3.0), ("net", 1.0), ("net-int8", 1.0 + worse))
    }
    facts = {"kind": "model", "precision": "fp32", "file_bytes": 1, "parameters": 1,
             "real_time": {}, "latency_ms": {}}  # fmt: skip
    report = {
        "format": 3,
        "date": "",
        "command": "",
        "software": {"rtsr": "0"},
        "machine": {"cpu": {"model": "x", "cores": 2}, "load_average": 0.0},
        "seconds": 6.0,
        "metrics": ["lsd"],
        "systems": {name: dict(facts) for name in scored},
        "corpora": [
            {"name": "c", "clips": {"speech": 1}, "left_out": {}, "cutoffs": {"4000": scored}}
        ],
        "failed": [],
        "conditions": {},
        "pictures": [],
    }
    page = markdown(report)
    assert f"| c | 4 kHz | net-int8 | +{worse:.4f} | {verdict} |" in page
    assert "| net |" not in page[page.index("## Less precision") :]
    del report["corpora"][0]["cutoffs"]["4000"]["net"]
    assert "## Less precision" not in markdown(report)
