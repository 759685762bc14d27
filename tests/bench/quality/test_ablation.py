"""The loop over variants: it trains, renders, compares, and goes on where it stopped."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
from scipy import signal

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("visqol")

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from rtsr.errors import RtsrError
from rtsr.train.settings import TrainSettings
from rtsr_bench.corpus import Clip
from rtsr_bench.quality.scores import Scores
from rtsr_bench.quality.systems import digest_of

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "examples" / "ablation.py"
PLANS = [
    plan
    for plan in sorted((ROOT / "bench" / "results" / "ablation").glob("*/plan.toml"))
    if "checkpoint" not in plan.read_text()
]
PLAN = """
title = "In how many steps"
reference = "flow"
cutoffs_hz = [4000]
clips_per_domain = 1
max_seconds = 1.2
[base]
model = "small"
steps = [2, 2, 0, 0]
batch = 2
frames = 40
level_batch = 2
level_frames = 40
[base.model_changes]
encoder_width = 16
encoder_blocks = 1
flow_width = 16
flow_middle = 8
attention_heads = 2
attention_window = 8
decoder_width = 16
decoder_blocks = 1
latent = 8
[[variants]]
name = "flow"
euler_steps = [1, 2]
latent_noise = [0.0, 0.5]
[[variants]]
name = "refined, of one step"
from = "flow"
settings = { steps = [2, 2, 0, 1] }
teacher_euler_steps = [1]
"""


@pytest.fixture(scope="module")
def ablation() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ablation", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("plan", PLANS, ids=lambda path: path.parent.name)
def test_the_published_plans_are_plans(ablation: ModuleType, plan: Path) -> None:
    content = tomllib.loads(plan.read_text())
    names = [variant["name"] for variant in content["variants"]]
    assert content["reference"] in names
    assert len({ablation.slug(name) for name in names}) == len(names)
    report = next(plan.parent.rglob("report.md")).read_text()
    for variant in content["variants"]:
        settings = ablation.merged(content["base"], variant.get("settings", {}))
        text = "\n".join(f"{name} = {ablation.toml(value)}" for name, value in settings.items())
        assert tomllib.loads(text) == settings
        assert TrainSettings.from_dict(settings).steps is not None
        assert f"| {variant['name']} |" in report
        assert variant.get("from", names[0]) in names


def test_a_difference_counts_clip_by_clip(ablation: ModuleType) -> None:
    def scores(*values: float) -> Scores:
        clips = {f"speech/{n}": {"lsd": v, "hf_bias_db": v} for n, v in enumerate(values)}
        return Scores(4000.0, {}, clips)

    ours, theirs = scores(*range(1, 8)), scores(*(value - 0.25 for value in range(1, 8)))
    assert ablation.difference(ours, theirs, "speech", "lsd") == "+0.25*"
    assert ablation.difference(scores(1, 2, 3), scores(0, 3, 1), "speech", "lsd") == "+1.00"
    # what is right at zero is compared by magnitude
    assert ablation.difference(scores(-1), scores(3), "speech", "hf_bias_db") == "-2.00"
    nothing = float("nan")
    assert ablation.difference(scores(nothing), scores(1), "speech", "lsd") == "-"


def test_a_folder_is_of_the_clips_that_it_was_begun_with(
    ablation: ModuleType, tmp_path: Path
) -> None:
    clips = [Clip(f"speech/{name}", tmp_path / name, "speech") for name in "ab"]
    for clip in clips:
        clip.path.write_text(clip.name)
    out = tmp_path / "out"
    ablation.check_clips(out, clips, 6.0)
    ablation.check_clips(out, clips, 6.0)
    for others, seconds in ((clips, 3.0), (clips[:1], 6.0)):
        with pytest.raises(RtsrError, match="made of other clips"):
            ablation.check_clips(out, others, seconds)
    digest_of.cache_clear()
    clips[1].path.write_text("another sound")
    with pytest.raises(RtsrError, match="made of other clips"):
        ablation.check_clips(out, clips, 6.0)


def test_a_folder_that_does_not_say_its_clips_is_refused(
    ablation: ModuleType, tmp_path: Path
) -> None:
    clips = [Clip("speech/a", tmp_path / "a", "speech")]
    clips[0].path.write_text("a sound")
    out = tmp_path / "out"
    (out / "audio" / "references").mkdir(parents=True)
    with pytest.raises(RtsrError, match=r"has no clips\.txt that says of which clips"):
        ablation.check_clips(out, clips, 6.0)
    assert [path.name for path in out.iterdir()] == ["audio"]


def test_a_folder_that_was_stopped_before_it_said_its_clips_is_begun_again(
    ablation: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    clips = [Clip("speech/a", tmp_path / "a", "speech")]
    clips[0].path.write_text("a sound")
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stopped)
        with pytest.raises(KeyboardInterrupt):
            ablation.check_clips(out, clips, 6.0)
    # As the system's killing leaves it.
    (out / ".clips.txt.0123.partial").write_text("1 clips of at m")
    ablation.check_clips(out, clips, 6.0)
    ablation.check_clips(out, clips, 6.0)


@pytest.mark.slow
def test_a_plan_is_carried_out_and_goes_on(
    ablation: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def run(out: Path) -> str:
        words = [str(SCRIPT), str(tmp_path / "plan.toml"), str(data), str(out)]
        monkeypatch.setattr(sys, "argv", words)
        ablation.main()
        return capsys.readouterr().out

    data = tmp_path / "corpus"
    data.mkdir()
    lines = ["path,split,domain,speaker_or_group,measured_cutoff_hz"]
    for number, split in enumerate(("train", "train", "valid")):
        random = np.random.default_rng(number)
        samples = signal.lfilter([0.3], [1, -0.85], random.normal(size=round(1.5 * 48000)))
        samples *= 0.1 * (1.2 + np.sin(np.arange(samples.size) / 48000 * 25.0))
        soundfile.write(data / f"{number}.wav", samples, 48000, subtype="PCM_16")
        lines.append(f"{number}.wav,{split},speech,g{number},22000")
    (data / "manifest.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "plan.toml").write_text(PLAN)
    out = tmp_path / "out"
    first = run(out)
    page = (out / "report.md").read_text()
    assert page.strip() in first
    rows = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| ")]
    found = [tuple(cell.strip() for cell in row) for row in rows]
    assert found[2:9] == [
        ("input", ""),
        *(("flow", name) for name in ("1 step", "2 steps", "latent noise 0", "latent noise 0.5")),
        *(("refined, of one step", name) for name in ("1 step", "teacher, 1 step")),
    ]
    values = {
        path.relative_to(out).as_posix(): json.loads(path.read_text())["speech/2"]["lsd"]
        for path in sorted(out.rglob("*-4000.json"))
    }
    # the refinement's teacher is the flow that it went on from
    teacher = values["refined-of-one-step/teacher-1-step-4000.json"]
    assert teacher == pytest.approx(values["flow/1-step-4000.json"], abs=1e-3)
    assert len({round(value, 6) for value in values.values()}) == len(values) - 1
    assert values["flow/latent-noise-0-4000.json"] < values["input-4000.json"]
    # What is known is not rendered again: a changed score stays.
    kept = out / "flow" / "1-step-4000.json"
    changed = json.loads(kept.read_text())
    changed["speech/2"]["lsd"] = 9.0
    kept.write_text(json.dumps(changed))
    again = run(out)
    assert "| flow | 1 step | " in again
    assert "9.00" in again
    assert not list(out.rglob("*.onnx")), "nothing was rendered again"
    # Another run's checkpoint is taken as it is.
    scored = PLAN[: PLAN.index("[[variants]]")].replace('reference = "flow"', 'reference = "mine"')
    scored += f"""[[variants]]
name = "mine"
checkpoint = {json.dumps(str(out / "refined-of-one-step" / "last.pt"))}
teacher_euler_steps = [1]
"""
    (tmp_path / "plan.toml").write_text(scored)
    run(tmp_path / "scored")
    for name in ("1-step-4000.json", "teacher-1-step-4000.json"):
        mine, before = tmp_path / "scored" / "mine" / name, out / "refined-of-one-step" / name
        assert json.loads(mine.read_text()) == json.loads(before.read_text())
