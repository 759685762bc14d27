"""Plans of ablations: the shipped ones are possible, and a bad one is refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from rtsr.errors import RtsrError
from rtsr_bench.ablation_plan_file import (
    load_plan,
    merged,
    shipped_plans,
    shipped_presets,
)

GOOD = """
title = "t"
[base]
steps = [2, 2, 0, 0]
[evaluation]
cutoffs_hz = [4000]
[[variants]]
name = "Parent one"
[[variants]]
name = "child"
from = "Parent one"
settings = { steps = [2, 2, 0, 3], adversarial = 0.0, model_changes = {} }
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "plan.toml"
    path.write_text(text)
    return path


def test_a_plan_is_base_and_what_differs(tmp_path: Path) -> None:
    plan = load_plan(written(tmp_path, GOOD))
    parent, child = plan.variants
    assert (plan.reference, parent.folder, child.parent) == (
        "Parent one",
        "parent-one",
        "Parent one",
    )
    assert (parent.steps, child.steps) == ((2, 2, 0, 0), (2, 2, 0, 3))
    assert (parent.settings.adversarial, child.settings.adversarial) == (0.3, 0.0)
    assert child.settings.distillation == parent.settings.distillation
    assert child.evaluation.cutoffs_hz == (4000,)


def test_a_preset_lies_over_everything_and_scales_all_steps_alike(tmp_path: Path) -> None:
    preset = tmp_path / "preset.toml"
    preset.write_text(
        "steps_share = 0.4\n[base]\nbatch = 3\n[base.model_changes]\nlatent = 8\n"
        "[evaluation]\nmax_seconds = 2.0\n"
    )
    text = GOOD.replace("steps = [2, 2, 0, 0]", "steps = [10, 2, 0, 0]\nbatch = 7").replace(
        "[2, 2, 0, 3]", "[10, 2, 0, 1]"
    )
    parent, child = load_plan(written(tmp_path, text), preset).variants
    assert (parent.steps, child.steps) == ((4, 1, 0, 0), (4, 1, 0, 1))
    for variant in (parent, child):
        assert variant.settings.batch == 3
        assert variant.settings.model_config().latent == 8
        assert variant.evaluation.max_seconds == 2.0


@pytest.mark.parametrize("preset", [None, *shipped_presets()])
@pytest.mark.parametrize("name", shipped_plans())
def test_shipped_plans_are_possible(name: str, preset: str | None) -> None:
    plan = load_plan(name, preset)
    assert plan.title
    assert plan.note
    for variant in plan.variants:
        parent = plan.variant(variant.parent) if variant.parent else None
        compared = [other for other in plan.variants if any(other.evaluation.euler_steps)]
        assert parent is None or parent.steps[0] == variant.steps[0]
        # Only what others go on from is shorter.
        longest = tuple(map(max, *(other.steps for other in compared)))
        assert variant.steps == longest or any(
            other.parent == variant.name for other in plan.variants
        )


def test_every_plan_of_the_issue_is_shipped() -> None:
    assert list(shipped_plans()) == ["flow", "inputs", "refinement", "smax", "tokens"]
    noises = [v.settings.model_config().decoder_noise for v in load_plan("smax").variants]
    assert noises == [0.0, 0.05, 0.1, 0.2, 0.4]
    priors = {v.settings.model_config().prior for v in load_plan("flow").variants}
    assert priors == {"bridge", "gaussian"}
    assert load_plan("flow").variant("bridge").evaluation.euler_steps == (1, 2, 4, 8)


VARIANT = '[[variants]]\nname = "a"\n'
STEPS = "[base]\nsteps = [1, 1, 0, 1]\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"has no \[\[variants\]\]"),
        ("a = = 1", "is not valid TOML"),
        ("colour = 1\n" + VARIANT, "unknown entry 'colour'"),
        (VARIANT, "give steps = "),
        (STEPS + '[[variants]]\nname = "--"\n', "give it one in letters"),
        (STEPS + VARIANT + "colour = 1\n", "variant 'a': unknown entry 'colour'"),
        (STEPS + VARIANT + '[[variants]]\nname = "A"\n', "there is another of that name"),
        ("base = 3\n" + VARIANT, "'base' is 3; it must be a table"),
        (STEPS + VARIANT + "settings = 3\n", "variant 'a': 'settings' is 3; it must be a table"),
        (STEPS + VARIANT + "settings = { colour = 1 }\n", "unknown setting 'colour'"),
        (STEPS + VARIANT + "settings = { model_changes = { prior = 'x' } }\n", "prior is 'x'"),
        ('reference = "b"\n' + STEPS + VARIANT, "the reference 'b' is no variant"),
        (STEPS + VARIANT + 'from = "b"\n', "goes on from 'b', which is none of the variants"),
        (STEPS + VARIANT + 'from = "a"\n', "goes on from 'a', which is none of the variants"),
        (GOOD.replace("[2, 2, 0, 3]", "[2, 3, 0, 3]"), "it must repeat those and add some"),
        (GOOD.replace("[2, 2, 0, 3]", "[2, 2, 0, 0]"), "it must repeat those and add some"),
        (GOOD.replace("{}", "{ latent = 8 }"), "changes latent, with which 'Parent one'"),
        (GOOD.replace("{}", "{ prior = 'gaussian' }"), "changes prior, with which 'Parent one'"),
        (GOOD.replace("[4000]", "[4]"), "cutoff must lie between"),
        (GOOD.replace("[4000]", "4000"), "evaluation.cutoffs_hz is 4000"),
        (GOOD.replace("[4000]", "[4000]\nmetrics = ['x']"), "no metric named 'x'"),
        (GOOD.replace("[4000]", "[4000]\neuler_steps = [0]"), "a flow takes 1 to 64 Euler steps"),
        (GOOD.replace("[4000]", "[4000]\neuler_steps = [1.5]"), r"evaluation.euler_steps is"),
        (GOOD.replace("[4000]", "[4000]\nlatent_noise = [-1]"), "cannot be negative"),
        (GOOD.replace("[4000]", "[4000]\nmax_seconds = 0.5"), "max_seconds of at least 1"),
        (GOOD.replace("[4000]", "[4000]\nspeed = 1"), "unknown entry 'evaluation.speed'"),
        (
            GOOD.replace("[4000]", "[4000]\nteacher_euler_steps = [8]"),
            "'Parent one' has no refinement, so it is its own teacher",
        ),
        (STEPS.replace("[1, 1, 0, 1]", "[1, 0, 0, 0]") + VARIANT, "trains no flow"),
    ],
)
def test_a_bad_plan_is_refused_in_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RtsrError, match=message) as caught:
        load_plan(written(tmp_path, text))
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def test_unknown_names_and_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RtsrError, match=r"no plan 'smacks'; give a \.toml file or one of: flow"):
        load_plan("smacks")
    with pytest.raises(RtsrError, match="Cannot read the plan"):
        load_plan(tmp_path / "absent.toml")
    with pytest.raises(RtsrError, match="no preset 'huge'"):
        load_plan("smax", "huge")
    preset = tmp_path / "preset.toml"
    preset.write_text("steps_share = 0\n")
    with pytest.raises(RtsrError, match="must be a number above 0"):
        load_plan("smax", preset)


def test_a_parent_without_flow_leaves_the_prior_open(tmp_path: Path) -> None:
    text = (
        '[base]\nsteps = [2, 2, 0, 0]\n[[variants]]\nname = "a"\n'
        "settings = { steps = [2, 0, 0, 0] }\n"
        'evaluation = { euler_steps = [] }\n[[variants]]\nname = "b"\nfrom = "a"\n'
        'settings = { model_changes = { prior = "gaussian" } }\n'
    )
    plan = load_plan(written(tmp_path, text))
    assert plan.variant("b").settings.model_config().prior == "gaussian"
    with pytest.raises(RtsrError, match="changes decoder_noise, with which 'a'"):
        load_plan(written(tmp_path, text.replace("prior = ", "decoder_noise = 0.3, prior = ")))


def test_merging_leaves_both_tables_as_they_are() -> None:
    below, above = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 4}}
    assert merged(below, above) == {"a": {"b": 4, "c": 2}, "d": 3}
    assert (below, above) == ({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 4}})
