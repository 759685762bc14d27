"""A report's medians in model cards, which hold what the published report holds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rtsr.cli.app import app
from rtsr.runtime.models import bundled, find_model
from rtsr_export.report_metrics import METRICS, card_metrics

REPORT = Path(__file__).parents[2] / "bench" / "results" / "quality" / "quality.json"


def put(report: Any, model: Path, *more: str) -> Any:
    """Write a report beside a model, and its medians into the model's card."""
    written = model.with_name("quality.json")
    written.write_text(report if isinstance(report, str) else json.dumps(report))
    return CliRunner().invoke(app, ["export", str(model), "--metrics", str(written), *more])


@pytest.mark.parametrize("name", bundled())
def test_a_bundled_card_says_what_the_report_says(name: str) -> None:
    report = json.loads(REPORT.read_text(encoding="utf-8"))
    assert find_model(name).metadata.card["metrics"] == card_metrics(report, name, is_tuned_on=True)


def test_metrics_are_replaced_and_nothing_else(stand_in: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    values = {"visqol": 3.456, "lsd": 1.0, "lsd_near": 0.5, "mel_hf": 0.25}
    rows = {"net": {"by_domain": {"speech": values, "music": values}}}
    corpus = {"clips": {"speech": 2, "music": 1}, "cutoffs": {"4000": rows, "8000": rows}}
    report = {"seconds": 6.0, "corpora": [corpus]}
    model = tmp_path / "net.onnx"
    shutil.copy(stand_in, model)
    before = find_model(model)
    done = put(report, model, "--tuned-on")
    assert done.exit_code == 0, done.output
    after = find_model(model)
    assert after.metadata.card["metrics"]["16 kHz"]["visqol"] == [3.46, 3.46]
    assert after.metadata.card["metrics"]["clips"].startswith("3 valid clips, up to 6 s each")
    assert after.metadata.card["metrics"]["clips"].endswith("; also used for tuning")
    assert after.metadata.weights_sha256 == before.metadata.weights_sha256
    assert after.metadata.states == before.metadata.states
    other = model.rename(tmp_path / "other.onnx")
    refused = put(report, other)
    assert refused.exit_code == 2
    assert "does not have 'other' at 4000 Hz by visqol, lsd, lsd_near, mel_hf." in refused.stderr


def test_a_card_says_what_is_true_of_clips_without_a_median(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of sound under 1 s there is no ViSQOL, and nothing was tuned on somebody's own corpus."""
    pytest.importorskip("onnx")
    values = {"visqol": None, "lsd": 1.0, "lsd_near": "infinite", "mel_hf": 0.25}
    rows = {"net": {"by_domain": {"effects": values}}}
    corpus = {"clips": {"effects": 2}, "cutoffs": {"4000": rows, "8000": rows}}
    model = tmp_path / "net.onnx"
    shutil.copy(stand_in, model)
    assert put({"seconds": 6.0, "corpora": [corpus]}, model).exit_code == 0
    metrics = find_model(model).metadata.card["metrics"]
    assert metrics["clips"] == "2 valid clips, up to 6 s each, 16-bit in and out; medians effects"
    assert metrics["8 kHz"] == {
        "visqol": [None], "lsd": [1.0], "lsd_near": ["infinite"], "mel_hf": [0.25]
    }  # fmt: skip
    monkeypatch.setattr("rtsr.runtime.models.names", lambda: [str(model)])
    shown = CliRunner().invoke(app, ["models"])
    assert shown.exit_code == 0, shown.output
    assert [cell.strip() for cell in shown.stdout.split("8 kHz")[1].split("│")[1:5]] == [
        "-", "1.00", "-", "0.25"
    ]  # fmt: skip


def test_medians_stand_under_their_own_domain() -> None:
    """A system that failed on all clips of a domain has no medians of it."""
    values = {"visqol": 3.0, "lsd": 1.0, "lsd_near": 0.5, "mel_hf": 0.25}
    rows = {"net": {"by_domain": {"effects": values, "music": {**values, "visqol": 4.0}}}}
    clips = {"speech": 1, "effects": 1, "music": 1}
    corpus = {"clips": clips, "cutoffs": {"4000": rows, "8000": rows}}
    found = card_metrics({"seconds": 6.0, "corpora": [corpus]}, "net")
    assert "medians speech / effects / music" in found["clips"]
    assert found["8 kHz"]["visqol"] == [None, 3.0, 4.0]


def whole(values: dict[str, float], *cutoffs: str) -> dict[str, Any]:
    rows = {"net": {"by_domain": {"music": values}}}
    corpus = {"clips": {"music": 1}, "cutoffs": dict.fromkeys(cutoffs, rows)}
    return {"seconds": 6.0, "corpora": [corpus]}


@pytest.mark.parametrize(
    ("report", "sentence"),
    [
        (whole(dict.fromkeys(METRICS, 1.0), "4000"), "does not have 'net' at 8000 Hz"),
        (whole({"lsd": 1.0}, "4000", "8000"), "does not have 'net' at 4000 Hz by visqol, lsd"),
        ({"corpora": []}, "does not have 'net' at 4000 Hz"),
        ([1], "does not have 'net' at 4000 Hz"),
        ("{", "is not JSON; give the quality.json of a report"),
    ],
    ids=["one cutoff", "one metric", "no corpus", "another file", "no JSON"],
)
def test_a_report_without_what_a_card_holds_is_refused(
    stand_in: Path, tmp_path: Path, report: Any, sentence: str
) -> None:
    pytest.importorskip("onnx")
    model = tmp_path / "net.onnx"
    shutil.copy(stand_in, model)
    before = model.read_bytes()
    done = put(report, model)
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert model.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["small", "--metrics", "quality.json"], "writes into the .onnx file of a model"),
        (["net.onnx", "--metrics", "quality.json"], "writes into the .onnx file of a model"),
        (["a.onnx", "b.onnx", "--metrics", "quality.json"], "card of a.onnx; leave out output"),
        (["a.onnx", "--metrics", "quality.json", "--ceiling", "9000"], "leave out --ceiling"),
        (["a.pt", "a.onnx", "--tuned-on"], "leave out --tuned-on"),
        (["--metrics", "quality.json"], "Say what to export"),
        (["--triton", "served", "--metrics", "quality.json"], "leave out --metrics"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_does_not_go_with_metrics_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["export", *arguments], env={"COLUMNS": "200"})
    assert done.exit_code == 2
    assert sentence.lower() in done.stderr.lower()
    assert list(tmp_path.iterdir()) == []
