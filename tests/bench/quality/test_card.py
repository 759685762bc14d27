"""Model cards hold what the published report holds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from rtsr.errors import RtsrError
from rtsr.runtime.models import bundled, find_model
from rtsr_bench.quality.card import card_metrics, write_cards

REPORT = Path(__file__).parents[3] / "bench" / "results" / "quality" / "quality.json"


@pytest.mark.parametrize("name", bundled())
def test_a_bundled_card_says_what_the_report_says(name: str) -> None:
    report = json.loads(REPORT.read_text(encoding="utf-8"))
    assert find_model(name).metadata.card["metrics"] == card_metrics(report, name)


def test_metrics_are_replaced_and_nothing_else(stand_in: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    values = {"visqol": 3.456, "lsd": 1.0, "lsd_near": 0.5, "mel_hf": 0.25}
    rows = {"net": {"by_domain": {"speech": values, "music": values}}}
    corpus = {"clips": {"speech": 2, "music": 1}, "cutoffs": {"4000": rows, "8000": rows}}
    report = {"seconds": 6.0, "corpora": [corpus]}
    model = tmp_path / "net.onnx"
    shutil.copy(stand_in, model)
    before = find_model(model)
    write_cards(report, [model])
    after = find_model(model)
    assert after.metadata.card["metrics"]["16 kHz"]["visqol"] == [3.46, 3.46]
    assert after.metadata.card["metrics"]["clips"].startswith("3 valid clips, up to 6 s each")
    assert after.metadata.weights_sha256 == before.metadata.weights_sha256
    assert after.metadata.states == before.metadata.states
    with pytest.raises(RtsrError, match="does not have 'other' at 4000 Hz"):
        write_cards(report, [model.with_name("other.onnx"), model])
