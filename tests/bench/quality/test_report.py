"""The report's text: which way is better, what is missing, where it falls off."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from rtsr_bench.quality import report
from rtsr_bench.quality.results import conditions_part, cutoffs_part, known, nest, plain

RESULTS = Path(__file__).parents[3] / "bench" / "results"


@pytest.mark.parametrize(
    ("metric", "value", "than", "better_by"),
    [
        ("visqol", 3.0, 2.5, 0.5),
        ("lsd", 1.0, 1.5, 0.5),
        ("hf_bias_db", -1.0, 3.0, 2.0),
        ("hf_bias_db", 4.0, -3.0, -1.0),
        ("lf_sisdr", 40.0, 50.0, -10.0),
    ],
)
def test_better_has_a_direction(metric: str, value: float, than: float, better_by: float) -> None:
    assert report.better_by(metric, value, than) == pytest.approx(better_by)


def test_numbers_have_the_decimals_worth_reading() -> None:
    assert report.number("visqol", 3.14159) == "3.14"
    assert report.number("lf_gain_db", -0.0214) == "-0.021"
    assert report.number("lsd", None) == report.number("lsd", math.nan) == "-"


@pytest.mark.parametrize("folder", ["quality", "quality-0.4.0"])
def test_published_results_still_make_their_tables(folder: str) -> None:
    published = RESULTS / folder
    results = json.loads((published / "quality.json").read_text(encoding="utf-8"))
    page = report.markdown(results)
    scores = page[page.index(", input cutoff") :]
    medians = [line for line in scores.splitlines() if line.startswith(("| input |", "| small |"))]
    assert len(medians) >= 2 * 3 * len(results["corpora"][0]["cutoffs"])
    assert set(medians) <= set((published / "quality.md").read_text().splitlines())


def test_results_become_medians_by_domain() -> None:
    rows = [
        (("4000", "small", "speech/a"), {"lsd": 1.0}),
        (("4000", "small", "speech/b"), {"lsd": 2.0}),
        (("4000", "small", "speech/c"), {"lsd": 9.0}),
        (("4000", "small", "music/a"), {"lsd": math.nan}),
        (("4000", "input", "music/a"), {"lsd": 5.0}),
    ]
    found = cutoffs_part(nest(rows))
    assert found["4000"]["small"]["by_domain"]["speech"] == {"lsd": 2.0}
    assert math.isnan(found["4000"]["small"]["by_domain"]["music"]["lsd"])
    assert found["4000"]["input"]["cutoff_hz"] == 4000.0
    assert known(("visqol", "lsd"), ("lsd", "mel_hf")) == ("lsd",)


def test_plain_values_survive_json() -> None:
    value = plain({1: (math.nan, math.inf, 2.0), "x": [{"y": None}]})
    assert value == {"1": [None, "infinite", 2.0], "x": [{"y": None}]}
    assert json.loads(json.dumps(value, allow_nan=False)) == value


def conditions(falls: dict[tuple[str, str], float]) -> dict[str, Any]:
    """One clip per domain, one system, lsd 1 where it does not fall by more."""
    rows = [
        (("small", key, f"{domain}/a"), {"lsd": 1.0 + falls.get((key, domain), 0.0)})
        for key in ("8k", "opus-48k", "8-bit")
        for domain in ("speech", "music")
    ]
    part = conditions_part(nest(rows), ("lsd",), 3.0)
    part["titles"] = {key: part["titles"][key] for key in ("8k", "opus-48k", "8-bit")}
    return part


def corpus(name: str, score: float) -> dict[str, Any]:
    """Input and a model at one cutoff, one domain."""
    rows = {"input": 0.5 + score, "small": 1.25 + score}
    return {
        "name": name,
        "clips": {"speech": 3, "music": 1},
        "left_out": {},
        "cutoffs": {
            "4000": {
                system: {
                    "by_domain": {"speech": {"visqol": one, "lsd": None, "level_loud_db": -one}},
                    "clips": {"speech/a": {"visqol": one}},
                }
                for system, one in rows.items()
            }
        },
    }


def whole(**changes: Any) -> dict[str, Any]:
    facts = {
        "kind": "model",
        "file_bytes": 2_500_000,
        "parameters": 1234567,
        "precision": "fp32",
        "latency_ms": {"8000": 13.854},
        "real_time": {"8000": 12.34},
        "streaming": {"8000": 0.0},
    }
    nothing = dict.fromkeys(facts) | {"latency_ms": {}, "real_time": {}, "streaming": {}}
    values = {
        "format": 2,
        "date": "2026-01-02",
        "command": "rtsr bench quality CORPUS --out FOLDER",
        "software": {"rtsr": "1.2.3"},
        "machine": {"cpu": {"model": "Test", "cores": 2}, "load_average": None},
        "seconds": 6.0,
        "metrics": ["visqol", "lsd", "level_loud_db"],
        "systems": {"input": nothing, "small": facts},
        "corpora": [corpus("one", 1.0), corpus("two", 2.0)],
        "failed": [],
        "conditions": {},
        "pictures": [{"file": "spectrogram-one.png", "title": "Medians"}],
        **changes,
    }
    return dict(plain(values))


def test_the_report_says_what_was_measured() -> None:
    text = report.markdown(whole())
    assert "| small | fp32 | 2.50 | 1,234,567 | 12.3 | 0 | 13.85 |" in text
    assert "| input | - | - | - | - | - | - |" in text
    assert "| small | 2.25 | - |" in text
    # levels have a table of their own
    assert "| small | -2.2 |" in text
    assert "(one: 3 speech, 1 music; two: 3 speech, 1 music), the loudest 6 s" in text
    assert "![Medians](spectrogram-one.png)" in text
    assert "degraded" not in text
    assert "Not scored" not in text


def test_the_corpora_stand_in_their_order() -> None:
    text = report.markdown(whole())
    first, second = text.index("## one, input cutoff 4 kHz"), text.index("## two, input cutoff")
    assert first < text.index("| small | 2.25 | - |") < second < text.index("| small | 3.25 | - |")


def test_what_was_not_judged_is_named_with_its_reason() -> None:
    part = corpus("one", 1.0)
    part["left_out"] = {"speech/b": "the file is missing"}
    part["cutoffs"]["4000"]["small"]["clips"]["speech/a"]["visqol"] = None
    text = report.markdown(whole(corpora=[part], failed=["`small` at 4000: broken"]))
    assert "- `speech/b` of one: the file is missing" in text
    assert "- by ViSQOL, with less than 1 s of sound, of one: `speech/a`" in text
    assert "- `small` at 4000: broken" in text


def test_a_system_that_failed_on_a_domain_has_no_figures_there() -> None:
    part = corpus("one", 1.0)
    part["cutoffs"]["4000"]["small"]["by_domain"] = {}
    assert "| small | - | - |" in report.markdown(whole(corpora=[part]))


def test_a_broken_stream_cannot_be_overlooked() -> None:
    values = whole()
    values["systems"]["small"]["streaming"] = plain({8000: math.inf, 16000: 1.5e-7})
    assert "| 12.3 | infinite / 1.5e-07 | 13.85 |" in report.markdown(values)


def test_the_largest_loss_is_named() -> None:
    part = conditions({("opus-48k", "music"): 0.5, ("8-bit", "speech"): 0.2})
    text = report.markdown(whole(conditions=part))
    assert "| small | 0.50 (Opus 16 kb/s, 48 kHz, music) |" in text
    # one row per kind of degradation and domain
    assert text.count("| small | 8 bits |") == 2
    assert "| small | none |" in report.markdown(whole(conditions=conditions({})))


@pytest.mark.parametrize(
    ("latency_ms", "cell"),
    [
        ({"8000": 13.85, "16000": 13.5}, "13.85 / 13.50"),
        ({"8000": 13.85, "16000": 13.85}, "13.85"),
        ({}, "-"),
    ],
    ids=["of two rates", "alike", "none"],
)
def test_figures_of_several_rates_stand_in_one_cell(
    latency_ms: dict[str, float], cell: str
) -> None:
    values = whole()
    values["systems"]["small"]["latency_ms"] = latency_ms
    (row,) = (
        line for line in report.markdown(values).splitlines() if line.startswith("| small | fp32")
    )
    assert row.endswith(f" | {cell} |")


def test_wins_against_a_floor_are_counted_by_metric() -> None:
    def row(**domains: dict[str, float]) -> dict[str, Any]:
        return {"by_domain": domains}

    told = {
        "metrics": ["visqol", "lsd", "hf_bias_db"],
        "systems": {
            name: {"kind": kind} for name, kind in [("baseline", "baseline"), ("net", "model")]
        },
        "format": 2,
        "corpora": [
            {
                "name": "wide",
                "cutoffs": {
                    "4000": {
                        "baseline": row(
                            speech={"visqol": 2.0, "lsd": 1.0, "hf_bias_db": 1.0},
                            music={"visqol": 2.0, "lsd": 1.0},
                        ),
                        "net": row(
                            speech={"visqol": 2.1, "lsd": 1.1, "hf_bias_db": -0.5},
                            music={"visqol": 2.0, "lsd": 0.9},
                        ),
                    }
                },
            }
        ],
    }
    lines = report.against_baselines(told)
    assert "## Better than `baseline`" in lines
    assert lines[-1] == "| wide | 4 kHz | net | 1/2 | 1/2 | 1/1 |"
    assert report.against_baselines({**told, "systems": {}}) == []
