"""What each precision costs and saves: which files, in which order, and when it says no."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("onnxruntime")
pytest.importorskip("soxr")

from rtsr.errors import RtsrError
from rtsr_bench import precision
from rtsr_bench.validation import Clip, Scores


def _scores(**lsd: float) -> Scores:
    return Scores(4000.0, {domain: {"lsd": value} for domain, value in lsd.items()}, {})


@pytest.fixture
def family(write_model: Callable[..., Path], tmp_path: Path) -> Path:
    """``net.onnx`` and ``net-int8.onnx``, which differ by what they say they are."""
    shutil.copy(write_model(precision="int8"), tmp_path / "net-int8.onnx")
    shutil.copy(write_model(), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def test_the_files_beside_are_found(family: Path) -> None:
    found = precision.precisions_beside(family)
    assert {name: model.path.name for name, model in found.items()} == {
        "fp32": "net.onnx",
        "int8": "net-int8.onnx",
    }


def test_names_that_lie_are_refused(family: Path) -> None:
    shutil.copy(family, family.with_name("net-fp16.onnx"))
    with pytest.raises(RtsrError, match=r"net-fp16\.onnx says that it is fp32"):
        precision.precisions_beside(family)
    with pytest.raises(RtsrError, match="is int8; name the fp32 file"):
        precision.precisions_beside(family.with_name("net-int8.onnx"))


def test_subjects_take_turns() -> None:
    order: list[str] = []
    speeds = precision.time_in_turns(
        [lambda: order.append("a"), lambda: order.append("b")], 0.0, turn_steps=2
    )
    turn = precision.SETTLING_STEPS + 2
    assert order == (["a"] * turn + ["b"] * turn) * 3
    assert len(speeds) == 2
    assert all(0.0 <= speed.p10 <= speed.p50 <= speed.p99 for speed in speeds)


def test_the_domain_that_suffers_most_counts() -> None:
    full = _scores(speech=1.0, music=1.2)
    assert precision.moved(_scores(speech=0.9, music=1.23), full) == pytest.approx(0.03)
    assert precision.moved(_scores(speech=0.9, music=1.1), full) < 0.0


def test_clips_are_taken_from_every_domain() -> None:
    clips = [
        Clip(f"{domain}/{index}", Path("x"), domain)
        for index in range(3)
        for domain in ("music", "speech")
    ]
    chosen = [clip.name for clip in precision.first_clips(clips, 2)]
    assert chosen == ["speech/0", "speech/1", "music/0", "music/1"]
    assert len(precision.first_clips(clips, None)) == 6


def test_command_prints_speed_and_writes_json(family: Path, tmp_path: Path) -> None:
    arguments = [str(family), "--seconds", "0", "--streams", "2", "--json", str(tmp_path / "r")]
    result = CliRunner().invoke(precision.app, arguments)
    assert result.exit_code == 0, result.output
    assert "int8" in result.stdout
    report = json.loads((tmp_path / "r").read_text())
    assert set(report["speed"]["2 streams"]) == {"fp32", "int8"}


@pytest.mark.parametrize(("worse", "code"), [(0.019, 0), (0.021, 1)])
def test_command_fails_where_quality_does_not_hold(
    family: Path, monkeypatch: pytest.MonkeyPatch, worse: float, code: int
) -> None:
    answers = {"net": {"speech": 1.0}, "net-int8": {"speech": 1.0 + worse}}

    def judged(enhancer: object, clips: object, *_: object, name: str, **__: object) -> Scores:
        scores = _scores(**answers[name])
        scores.by_domain["speech"].update(dict.fromkeys(precision.METRICS[1:], 0.0))
        return scores

    monkeypatch.setattr(precision, "validate", judged)
    monkeypatch.setattr(precision, "list_clips", lambda _: [])
    arguments = [str(family), "corpus", "--seconds", "0", "--streams", "1", "--cutoff", "4000"]
    result = CliRunner().invoke(precision.app, arguments)
    assert result.exit_code == code, result.output
    assert ("not to be shipped" in result.stdout) == bool(code)
