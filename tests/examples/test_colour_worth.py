"""What a colour is worth, measured over a small corpus."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from example_run import load_example, run_example
from rich.progress import Progress

from rtsr import ArgumentError, RtsrError
from rtsr.runtime.models import find_model

worth = load_example("colour_worth")

RATE = 48000


def _run(*arguments: str) -> str:
    done = run_example("colour_worth.py", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_another_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    for text, sentence in (
        ("[1]", r"is no file of `colour_worth.py --json`"),
        ('{"recordings": [1]}', r"is no file of `colour_worth.py --json`"),
        ('{"recordings": [{"domain": "music"}]}', r"is no file of `colour_worth.py --json`"),
        ("{", r"is not JSON; `colour_worth.py --json` writes such files"),
    ):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(RtsrError, match=sentence):
            worth.recorded(tmp_path / "other.json")


@pytest.fixture
def corpus(make_sound: Callable[..., np.ndarray], tmp_path: Path) -> Path:
    """Two sources of each domain, the first of speech with two recordings."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    rows = []
    sources = ("speech a", "speech a", "speech b", "effects c", "effects d", "music e", "music f")
    for number, source in enumerate(sources):
        domain, group = source.split()
        sound = make_sound(RATE, 3.0, seed=number)[:, 0]
        sound = 2.0 * np.append(sound[0], sound[1:] - 0.8 * sound[:-1])
        soundfile.write(folder / f"{number}.wav", sound, RATE)
        rows.append((f"{number}.wav", "valid", domain, group, 3.0))
    rows.append(("missing.wav", "train", "music", "g", 3.0))
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "split", "domain", "speaker_or_group", "seconds"])
        writer.writerows(rows)
    return folder


@pytest.mark.slow
def test_the_beginning_helps_the_rest_and_the_oracle_more(
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worth, "METRICS", ("lsd", "level_bias_db"))
    found = tmp_path / "found.json"
    printed = _run(str(corpus), "--json", str(found))
    recordings = json.loads(found.read_text())["recordings"]
    summary = worth.summarise(recordings)
    assert list(summary) == list(worth.CASES)
    assert summary["none"]["speech"]["recordings"] == 3
    assert summary["same source"]["speech"]["recordings"] == 2
    assert "music" not in summary["same source"]
    for domain in worth.DOMAINS:
        bias = {
            case: domains[domain]["level_bias_db"]
            for case, domains in summary.items()
            if domain in domains
        }
        assert bias["oracle"] < bias["beginning"] < bias["none"]
    assert _run(str(found), "--print") == printed
    assert printed.count("\n") == 2 + len(worth.CASES)


def test_a_corpus_of_nothing_that_can_be_scored_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "short.wav", np.full(RATE, 0.1), RATE)
    columns = "path,split,domain,speaker_or_group,seconds"
    (tmp_path / "manifest.csv").write_text(f"{columns}\nshort.wav,valid,speech,a,1.0\n")
    done = run_example("colour_worth.py", tmp_path)
    assert done.returncode == 2
    assert "can be scored: 'short.wav' is 1.00 s long" in done.stderr


def test_recordings_of_no_known_domain_count_and_bad_ones_are_named(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    for name in ("0.wav", "1.wav"):
        shutil.copy(corpus / name, folder / name)
    soundfile.write(folder / "silent.wav", np.zeros(3 * RATE), RATE)
    (folder / "text.wav").write_text("no sound")
    rows = [f"{name},valid" for name in ("0.wav", "1.wav", "silent.wav", "text.wav", "lost.wav")]
    (folder / "manifest.csv").write_text("\n".join(["path,split", *rows]))
    scores = {"none": dict.fromkeys(worth.METRICS, 1.0)}
    monkeypatch.setattr(worth, "measure", lambda items, *_: [scores for _ in items])
    found = worth.measure_corpus(folder, find_model("small"), 8000, None, Progress())
    assert [(one["name"], one["domain"]) for one in found] == [
        ("0.wav", "unknown"),
        ("1.wav", "unknown"),
    ]
    text = capsys.readouterr().err
    assert "3 of the recordings cannot be scored" in text
    assert "'silent.wav' is silent" in text
    assert "text.wav" in text
    assert "lost.wav" in text
    shown = worth.medians(worth.summarise(found))
    assert "| none | - / - / - / 2 |" in shown
    worth.plot(found, tmp_path / "colour.png")


@pytest.mark.parametrize("group", ["", "ann"])
def test_who_is_the_same_source_is_stated(
    group: str, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recordings of one folder may be of as many people."""
    rows = [f"{number}.wav,valid,speech,{group}" for number in range(3)]
    (corpus / "manifest.csv").write_text("\n".join(["path,split,domain,speaker_or_group", *rows]))
    monkeypatch.setattr(
        worth,
        "enhance_all",
        lambda jobs, *_: [np.zeros((3 * RATE, 1), np.float32) for _ in jobs],
    )
    monkeypatch.setattr(worth, "learn_by_itself", lambda *_: None)
    monkeypatch.setattr(worth, "evaluate", lambda *_: {})
    items, _ = worth.read_corpus(corpus, None)
    for cases in worth.measure(items, find_model("small"), 8000, Progress(disable=True)):
        assert ("same source" in cases, "wrong source" in cases) == (group != "", group == "")


def test_what_has_no_value_is_a_dash(recwarn: pytest.WarningsRecorder) -> None:
    """As of a domain without ViSQOL."""

    def scored(domain: str, visqol: float | None) -> dict[str, Any]:
        values = {"visqol": visqol, "lsd": 1.0, "level_bias_db": 2.0}
        return {"domain": domain, "cases": {"none": values, "beginning": values}}

    scores = [scored("speech", None), scored("music", 3.0), scored("music", None)]
    rows = worth.medians(worth.summarise(scores)).splitlines()
    assert rows[-1].startswith("| beginning | 1 / - / 2 | - / - / 3.00 | 1.00 / - / 1.00 |")
    assert "nan" not in rows[-1]
    assert not recwarn.list


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--plot", "out.txt"], "give a name that ends in .png"),
        (["--per-domain", "0"], "--per-domain must be at least 1, not 0"),
        (["--print", "--json", "out.json"], "leave out --json"),
        (["--model", "large"], "'large' is unknown"),
        (["--json", "nowhere/out.json"], "nowhere"),
    ],
)
def test_options_that_cannot_be_are_refused_before_the_work(
    tmp_path: Path, options: list[str], sentence: str
) -> None:
    done = run_example("colour_worth.py", tmp_path / "missing", *options)
    assert done.returncode == 2
    assert sentence in done.stderr


def test_a_picture_is_drawn_of_what_was_found(tmp_path: Path) -> None:
    recordings = [
        {"domain": domain, "cases": {"none": {"visqol": 2.0}, "oracle": {"visqol": 2.0 + shift}}}
        for domain in worth.DOMAINS
        for shift in (0.1, 0.3)
    ]
    worth.plot(recordings, tmp_path / "colour.png")
    assert (tmp_path / "colour.png").read_bytes()[:4] == b"\x89PNG"


def test_other_rates_are_refused(corpus: Path) -> None:
    with pytest.raises(ArgumentError, match="8000, 11025, 16000, 24000"):
        worth.measure_corpus(corpus, find_model("small"), 44100, None, Progress())
