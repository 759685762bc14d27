"""``rtsr train`` before and while it learns: what it says, and what its bar shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")
rich_progress = pytest.importorskip("rich.progress")

from small_run import TINY, corpus  # noqa: E402
from typer.testing import CliRunner, Result  # noqa: E402

from rtsr.cli.app import app  # noqa: E402
from rtsr.cli.train import run_until_stopped  # noqa: E402
from rtsr.errors import RtsrError  # noqa: E402
from rtsr.train import data  # noqa: E402
from rtsr.train.trainer import Trainer  # noqa: E402


def train(folder: Path, rows: list[str], monkeypatch: pytest.MonkeyPatch, text: str = "") -> Result:
    """Train on a manifest's rows, as far as the first recording that is decoded."""

    def decode_all(*_: object, **__: object) -> None:
        raise RtsrError("It came to decoding.")

    monkeypatch.setattr(data, "decode_all", decode_all)
    (folder / "manifest.csv").write_text("\n".join(["path,split,domain", *rows]))
    (folder / "settings.toml").write_text(f"degrade = {{ codec_share = 0.0 }}\n{text}")
    for name in "abcde":
        (folder / f"{name}.wav").touch()
    options = ["--config", str(folder / "settings.toml"), "--out", str(folder / "run")]
    result = CliRunner().invoke(app, ["train", str(folder), *options])
    assert result.exit_code == 2
    return result


def test_recordings_that_are_never_drawn_are_counted_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ["a.wav,train,speech", "b.wav,train,Music", "c.wav,train,Music", "d.wav,train,"]
    domains = "domains = { speech = 1.0, music = 1.0, effects = 0.0 }"
    result = train(tmp_path, [*rows, "e.wav,valid,music"], monkeypatch, domains)
    said, ended = result.stderr.splitlines()[0], result.stderr.splitlines()[-1]
    assert said.startswith("train: 3 recordings are never drawn")
    assert "gives 'Music', 'unknown' no share; it gives 'speech', 'music' one." in said
    assert "valid:" not in result.stderr
    assert "It came to decoding" in ended


@pytest.mark.parametrize(
    ("domain", "text"),
    [("", ""), ("music", ""), ("music", "domains = { speech = 1.0, music = 0.0, birds = 1.0 }")],
    ids=["no domains at all", "all drawn", "zero is meant"],
)
def test_nothing_is_said_where_all_is_as_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, domain: str, text: str
) -> None:
    other = "birds" if text else domain
    rows = [f"a.wav,train,{domain}", f"b.wav,train,{other}", f"e.wav,valid,{other}"]
    result = train(tmp_path, rows, monkeypatch, text)
    assert "never drawn" not in result.stderr
    assert "It came to decoding" in result.stderr


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("b.wav,train,speech", "no recordings for the split 'valid'"),
        ("b.wav,valid,music", "this corpus has ['music']"),
    ],
)
def test_what_validates_is_looked_for_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: str, said: str
) -> None:
    rows = ["a.wav,train,speech", row]
    result = train(tmp_path, rows, monkeypatch, "domains = { speech = 1.0 }")
    assert said in result.stderr
    assert "It came to decoding" not in result.stderr


@pytest.mark.parametrize("grown", [False, True])
def test_the_bar_of_counted_steps_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grown: bool
) -> None:
    shown: list[float] = []

    class Watched(rich_progress.Progress):  # type: ignore[name-defined, misc]
        def update(self, *arguments: object, **changes: object) -> None:
            super().update(*arguments, **changes)
            shown.append(round(self.tasks[0].percentage))

    monkeypatch.setattr(rich_progress, "Progress", Watched)
    settings = replace(TINY, steps=(2, 0, 3, 1), precision="fp32")
    trainer = Trainer(settings, corpus(), corpus(), tmp_path, "cpu")
    if grown:
        # As a run that begins with another's weights, which leaves out the first two stages.
        trainer.next_stage()
        trainer.next_stage()
        trainer.grown_from = {"stage": "refinement"}
    run_until_stopped(trainer, 600.0)
    # Once more for the last validation.
    assert shown == [*([0, 25, 50, 75] if grown else [0, 17, 33, 50, 67, 83]), 100, 100]


def test_the_bar_follows_the_clock_where_that_is_nearer_to_the_end(tmp_path: Path) -> None:
    trainer = Trainer(TINY, corpus(), corpus(), tmp_path, "cpu")
    trainer.elapsed = 3.0
    assert trainer.share_done(4.0) == 0.75
    trainer.settings = replace(TINY, steps=(10, 0, 0, 0))
    trainer.steps[0] = 5
    assert trainer.share_done(4.0) == 0.75
    assert trainer.share_done(60.0) == 0.5
