"""A campaign trains, judges, is interrupted and goes on; its renderings are the engine's sound."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from scipy import signal
from typer.testing import CliRunner

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from rtsr import enhance_file  # noqa: E402
from rtsr.errors import RtsrError  # noqa: E402
from rtsr.model.config import CONFIGURATIONS  # noqa: E402
from rtsr.model.generator import Generator, seeded  # noqa: E402
from rtsr.train.trainer import CHECKPOINT  # noqa: E402
from rtsr_bench import ablation_run  # noqa: E402
from rtsr_bench.ablation import app  # noqa: E402
from rtsr_bench.ablation_plan import Plan  # noqa: E402
from rtsr_bench.ablation_plan_file import load_plan  # noqa: E402
from rtsr_bench.ablation_render import CEILING_HZ, Renderer, reconstruct_file  # noqa: E402
from rtsr_bench.ablation_report import Row, difference, load_report, markdown  # noqa: E402
from rtsr_bench.ablation_run import Campaign, Options  # noqa: E402
from rtsr_bench.ablation_scores import Judge, read_json  # noqa: E402
from rtsr_bench.validation import narrow_band  # noqa: E402
from rtsr_export.graph import build_graph  # noqa: E402

RATE = 48_000
CHANGES = {
    "encoder_width": 16,
    "encoder_blocks": 1,
    "flow_width": 16,
    "flow_middle": 8,
    "attention_heads": 2,
    "attention_window": 8,
    "decoder_width": 16,
    "decoder_blocks": 1,
    "latent": 8,
}
PLAN = f"""
title = "Two priors"
reference = "bridge"
[base]
batch = 2
frames = 40
level_batch = 2
level_frames = 40
steps = [2, 2, 0, 0]
[base.model_changes]
{chr(10).join(f"{name} = {value}" for name, value in CHANGES.items())}
[evaluation]
cutoffs_hz = [4000]
max_seconds = 1.0
metrics = ["lsd", "lsd_near", "hf_bias_db"]
[[variants]]
name = "encoder alone"
settings = {{ steps = [2, 0, 0, 0] }}
evaluation = {{ euler_steps = [], latent_noise = [0.0, 0.5] }}
[[variants]]
name = "bridge"
from = "encoder alone"
evaluation = {{ euler_steps = [1, 2] }}
[[variants]]
name = "gaussian"
from = "encoder alone"
settings = {{ model_changes = {{ prior = "gaussian" }} }}
evaluation = {{ euler_steps = [1] }}
[[variants]]
name = "refined"
from = "bridge"
settings = {{ steps = [2, 2, 0, 1] }}
evaluation = {{ teacher_euler_steps = [2] }}
"""


def noise(seconds: float, seed: int) -> np.ndarray:
    """Noise that falls by 6 dB per octave and whose level rises and falls."""
    random = np.random.default_rng(seed)
    samples = signal.lfilter([0.3], [1, -0.85], random.normal(size=int(seconds * RATE)))
    return 0.1 * samples * (1.2 + np.sin(np.arange(samples.size) / RATE * 25.0))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    lines = ["path,split,domain,speaker_or_group,sample_rate,seconds,measured_cutoff_hz"]
    for index, (split, domain) in enumerate(
        (split, domain) for split in ("train", "valid") for domain in ("speech", "effects", "music")
    ):
        name = f"{split}-{domain}.wav"
        soundfile.write(folder / name, noise(1.2, index), RATE, subtype="PCM_16")
        lines.append(f"{name},{split},{domain},g{index},{RATE},1.2,22000")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "plan.toml"
    path.write_text(PLAN)
    return path


@pytest.fixture(scope="module")
def plan(plan_file: Path) -> Plan:
    return load_plan(plan_file)


@pytest.fixture(scope="module")
def finished(data: Path, plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("campaign")
    Campaign(plan, data, folder, Options("cpu")).run()
    return folder


def weights_of(folder: Path) -> dict[str, Any]:
    return torch.load(folder / CHECKPOINT, weights_only=True)["ema"]["values"]


def test_every_variant_is_trained_at_its_steps_and_judged(finished: Path, plan: Plan) -> None:
    expected = {
        "encoder alone": ["latent noise 0", "latent noise 0.5"],
        "bridge": ["1 step", "2 steps"],
        "gaussian": ["1 step"],
        "refined": ["1 step", "teacher, 2 steps"],
    }
    for variant in plan.variants:
        result = json.loads((finished / variant.folder / "result.json").read_text())
        assert tuple(result["steps"]) == variant.steps
        assert list(result["scores"]["4000"]) == expected[variant.name]
        for scores in result["scores"]["4000"].values():
            assert set(scores["by_domain"]) == {"speech", "effects", "music"}
            assert set(scores["by_domain"]["music"]) == {"lsd", "lsd_near", "hf_bias_db"}
            assert np.isfinite(scores["by_domain"]["music"]["lsd"])
    assert not (finished / "audio" / "outputs").exists()


def test_variants_of_one_autoencoder_share_its_latent(finished: Path) -> None:
    parent, bridge, gaussian = (
        weights_of(finished / name) for name in ("encoder-alone", "bridge", "gaussian")
    )
    for name, value in parent.items():
        if not name.startswith("velocity"):
            assert torch.equal(bridge[name], value)
            assert torch.equal(gaussian[name], value)
    assert not torch.equal(bridge["velocity.leave.weight"], gaussian["velocity.leave.weight"])


def test_noise_on_the_latent_and_the_number_of_steps_are_heard(finished: Path) -> None:
    def lsd(variant: str, rendering: str) -> float:
        result = json.loads((finished / variant / "result.json").read_text())
        return result["scores"]["4000"][rendering]["by_domain"]["music"]["lsd"]

    assert lsd("encoder-alone", "latent noise 0") != lsd("encoder-alone", "latent noise 0.5")
    assert lsd("bridge", "1 step") != lsd("bridge", "2 steps")
    # The teacher is the flow before its refinement.
    assert lsd("refined", "teacher, 2 steps") == lsd("bridge", "2 steps")


def test_a_finished_campaign_is_left_as_it_is(
    finished: Path, data: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*.pt")}
    monkeypatch.setattr(ablation_run, "Trainer", lambda *_: pytest.fail("it trains"))
    monkeypatch.setattr(Judge, "_judge", lambda *_: pytest.fail("it judges"))
    Campaign(plan, data, finished, Options("cpu")).run()
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*.pt")}


def test_an_interrupted_campaign_goes_on_to_the_same_end(
    finished: Path, data: Path, plan: Plan, tmp_path: Path
) -> None:
    asked: list[str] = []

    def stop(what: str, done: int, total: int) -> None:
        if what == "bridge: flow" and done == 3:
            raise KeyboardInterrupt
        asked.append(what)

    with pytest.raises(KeyboardInterrupt):
        Campaign(plan, data, tmp_path, Options("cpu"), stop).run(evaluate=False)
    assert "encoder alone: autoencoder" in asked
    asked.clear()
    again = Campaign(plan, data, tmp_path, Options("cpu"), lambda what, *_: asked.append(what))
    again.run(evaluate=False)
    assert "encoder alone: autoencoder" not in asked
    assert asked.count("bridge: flow") == 1
    for variant in plan.variants:
        ours, theirs = (weights_of(folder / variant.folder) for folder in (tmp_path, finished))
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert not (tmp_path / "bridge" / "result.json").exists()


def test_judging_goes_on_where_it_was_stopped(
    finished: Path, data: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = next((finished / "bridge" / "scores").glob("2-steps-*.json"))
    content = lost.read_text()
    lost.write_text(content[: len(content) // 2])
    judged = []
    real = Judge._judge
    monkeypatch.setattr(
        Judge, "_judge", lambda self, *rest: judged.append(rest[3]) or real(self, *rest)
    )
    Campaign(plan, data, finished, Options("cpu", workers=2)).run()
    assert judged == ["2 steps"]
    # Other processes find the same.
    assert read_json(lost) == json.loads(content)


def test_a_folder_of_other_settings_is_refused(finished: Path, data: Path, plan: Plan) -> None:
    first = plan.variants[0]
    other = replace(first, settings=replace(first.settings, batch=3))
    changed = replace(plan, variants=(other, *plan.variants[1:]))
    with pytest.raises(RtsrError, match="was trained with another settings than 'encoder alone'"):
        Campaign(changed, data, finished, Options("cpu"))
    with pytest.raises(RtsrError, match="was trained with another coded than"):
        Campaign(plan, data, finished, Options("cpu", coded=True))


def test_a_corpus_without_manifest_is_refused(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(RtsrError, match=r"has no manifest\.csv"):
        Campaign(plan, tmp_path, tmp_path / "out", Options("cpu"))


def test_the_report_shows_medians_differences_and_the_teacher(finished: Path) -> None:
    text = markdown(load_report(finished))
    assert text.startswith("# Two priors\n")
    assert "| encoder alone | - | - | 2 + 0 + 0 + 0 |" in text
    assert "## Input up to 4000 Hz" in text
    assert "| input |  | " in text
    assert "Differences clip by clip to *bridge, 1 step*" in text
    assert "| refined | 1 step - teacher, 2 steps | " in text
    differences = text.split("Differences clip by clip")[1]
    assert "| bridge | 1 step |" not in differences


def test_the_command_writes_tables_and_figures(finished: Path, data: Path, plan_file: Path) -> None:
    command = ["run", str(plan_file), "--data", str(data), "--out", str(finished)]
    done = CliRunner().invoke(app, [*command, "--device", "cpu"])
    assert done.exit_code == 0, done.output
    text = (finished / "report.md").read_text()
    assert f"`python -m rtsr_bench.ablation run {plan_file.name} --data CORPUS --out OUT`" in text
    assert str(data) not in text
    for name in ("latent-noise-4000", "euler-steps-4000"):
        assert f"![{name}](figures/{name}.png)" in text
        assert (finished / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    # All were trained with the same s_max: nothing to draw.
    assert "s-max" not in text
    assert CliRunner().invoke(app, ["report", str(finished)]).exit_code == 0
    assert "smax" in CliRunner().invoke(app, ["plans"]).output


def test_any_checkpoint_can_be_held_against_its_teacher(
    finished: Path, data: Path, tmp_path: Path
) -> None:
    command = ["judge", str(finished / "refined" / "last.pt"), "--data", str(data), "--clips", "1"]
    command += ["--out", str(tmp_path), "--cutoff", "4000", "--teacher-steps", "2"]
    done = CliRunner().invoke(app, [*command, "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert "| 1 step | " in done.output
    assert "| teacher, 2 steps | " in done.output


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RtsrError, match="holds no ablation"):
        load_report(tmp_path)
    (tmp_path / "plan.json").write_text(
        '{"format": 1, "title": "", "note": "", "reference": "a", "variants": ["a"]}'
    )
    with pytest.raises(RtsrError, match="is judged yet"):
        load_report(tmp_path)


def row(values: list[float | None], metric: str = "lsd") -> Row:
    clips = {f"music/{index}": {metric: value} for index, value in enumerate(values)}
    return Row("v", "1 step", {"music": {metric: 0.0}}, clips)


def test_differences_are_clip_by_clip_and_starred_where_one_sided() -> None:
    base = [1.0, 5.0, 9.0, 2.0, 7.0, 3.0]
    up = row([value + 0.5 for value in base])
    assert difference(up, row(base), "music", "lsd") == (0.5, True)
    mixed = row([value + 0.5 * (-1) ** index for index, value in enumerate(base)])
    assert difference(mixed, row(base), "music", "lsd") == (0.0, False)
    assert difference(row([None, 5.5]), row(base), "music", "lsd") == (0.5, False)
    assert difference(row([None]), row(base), "music", "lsd") is None
    assert difference(up, row(base), "speech", "lsd") is None
    bias = difference(row([-3.0], "hf_bias_db"), row([1.0], "hf_bias_db"), "music", "hf_bias_db")
    assert bias == (2.0, False)


@pytest.fixture(scope="module")
def generator() -> Generator:
    """One whose high band is loud enough that its mistakes would be seen."""
    tiny = seeded(replace(CONFIGURATIONS["small"], **CHANGES), 3)  # type: ignore[arg-type]
    with torch.no_grad():
        tiny.decoder.head.bias[: 3 * 64] = -1.0
    return tiny.eval()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Narrow-band input and full-band reference."""
    folder = tmp_path_factory.mktemp("clip")
    truth = noise(1.31, 9)
    soundfile.write(folder / "truth.wav", truth, RATE, subtype="PCM_16")
    soundfile.write(folder / "narrow.wav", narrow_band(truth, RATE, 4000.0), 8000, subtype="PCM_16")
    return folder / "narrow.wav", folder / "truth.wav"


def test_rendering_is_what_the_exported_model_does(
    generator: Generator, clip: tuple[Path, Path], tmp_path: Path
) -> None:
    onnx.save(
        build_graph(generator, {"f_target_default": CEILING_HZ}), str(tmp_path / "model.onnx")
    )
    enhance_file(clip[0], tmp_path / "onnx.wav", model=tmp_path / "model.onnx", provider="cpu")
    Renderer(generator, 8000)(clip[0], tmp_path / "torch.wav")
    expected, rendered = (soundfile.read(tmp_path / f"{name}.wav")[0] for name in ("onnx", "torch"))
    assert expected.shape == rendered.shape
    assert np.abs(expected - rendered).max() <= 1.01 / 32768
    high = signal.sosfilt(signal.butter(8, 6000, "high", fs=RATE, output="sos"), rendered)
    assert np.abs(high).max() > 100 / 32768


def test_a_renderer_can_be_used_again_and_takes_the_steps_it_is_told(
    generator: Generator, clip: tuple[Path, Path], tmp_path: Path
) -> None:
    renderer = Renderer(generator, 8000)
    for name in ("first", "second"):
        renderer(clip[0], tmp_path / f"{name}.wav")
    Renderer(generator, 8000, 4)(clip[0], tmp_path / "four.wav")
    first, second, four = (
        soundfile.read(tmp_path / f"{name}.wav")[0] for name in ("first", "second", "four")
    )
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, four)


def test_a_reconstruction_is_aligned_repeatable_and_moved_by_noise(
    generator: Generator, clip: tuple[Path, Path], tmp_path: Path
) -> None:
    outputs = []
    for index, level in enumerate((0.0, 0.0, 1.0)):
        target = tmp_path / f"{index}.wav"
        reconstruct_file(generator, *clip, target, cutoffs_hz=(4000.0, 22_000.0), noise_level=level)
        outputs.append(soundfile.read(target)[0])
    truth = soundfile.read(clip[1])[0]
    assert outputs[0].shape == truth.shape
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert not np.array_equal(outputs[0], outputs[2])
    low = signal.butter(8, 3000, "low", fs=RATE, output="sos")
    kept, wanted = (signal.sosfiltfilt(low, samples) for samples in (outputs[0], truth))
    # What was before the file and comes after it is not known to the filters.
    inside = slice(4800, -4800)
    assert np.std((kept - wanted)[inside]) < 0.002 * np.std(wanted)


def test_a_teacher_is_asked_of_a_checkpoint_that_has_one(finished: Path, data: Path) -> None:
    evaluation = load_plan("refinement").variant("all terms").evaluation
    judge = Judge(data, finished / "other", evaluation, 1, torch.device("cpu"))
    with pytest.raises(RtsrError, match="keeps no teacher"):
        judge.judge_checkpoint(
            finished / "bridge" / CHECKPOINT, "x", finished / "other", lambda *_: None
        )
