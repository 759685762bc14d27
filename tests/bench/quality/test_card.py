"""Model cards hold what the published report holds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rtsr.cli.app import app
from rtsr.errors import ArgumentError, RtsrError
from rtsr.runtime.models import bundled, find_model
from rtsr_bench.quality.card import METRICS, card_metrics, check_enough, write_cards

REPORT = Path(__file__).parents[3] / "bench" / "results" / "quality" / "quality.json"


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
    write_cards(report, [model], is_tuned_on=True)
    after = find_model(model)
    assert after.metadata.card["metrics"]["16 kHz"]["visqol"] == [3.46, 3.46]
    assert after.metadata.card["metrics"]["clips"].startswith("3 valid clips, up to 6 s each")
    assert after.metadata.card["metrics"]["clips"].endswith("; also used for tuning")
    assert after.metadata.weights_sha256 == before.metadata.weights_sha256
    assert after.metadata.states == before.metadata.states
    with pytest.raises(RtsrError, match="does not have 'other' at 4000 Hz"):
        write_cards(report, [model.with_name("other.onnx"), model])


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
    write_cards({"seconds": 6.0, "corpora": [corpus]}, [model])
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


@pytest.mark.parametrize(
    ("cutoffs", "metrics", "missing"),
    [
        ([8000.0, 12000.0], METRICS, "without 4000 Hz"),
        ([4000.0, 8000.0], ("lsd", "mel_hf"), "without visqol, lsd_near"),
    ],
)
def test_what_a_card_needs_is_asked_for(
    cutoffs: list[float], metrics: tuple[str, ...], missing: str
) -> None:
    check_enough([4000.0, 8000.0], METRICS)
    with pytest.raises(ArgumentError, match=missing):
        check_enough(cutoffs, metrics)
