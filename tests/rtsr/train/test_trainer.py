"""Runs that meet something: numbers that are not finite, other settings, Ctrl-C anywhere."""

from __future__ import annotations

import json
import math
import signal
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from small_run import TINY, corpus  # noqa: E402

from rtsr.cli.train import run_until_stopped  # noqa: E402
from rtsr.errors import RtsrError  # noqa: E402
from rtsr.train import objective, schedule  # noqa: E402
from rtsr.train import trainer as trainer_module  # noqa: E402
from rtsr.train.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from rtsr.train.trainer import CHECKPOINT, LOG, Trainer  # noqa: E402


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def moved(module, before):
    return {name for name, value in module.state_dict().items() if not value.equal(before[name])}


def test_a_step_that_is_not_finite_moves_nothing_and_the_next_one_does(tmp_path, monkeypatch):
    trainer = Trainer(replace(TINY, precision="fp32"), corpus(), corpus(), tmp_path, "cpu")
    trainer.take_step(0.0)
    before = weights(trainer.generator), weights(trainer.discriminators)
    real = objective.autoencode

    def diverged(*arguments):
        pair = real(*arguments)
        pair.estimate = pair.estimate * math.nan
        return pair

    monkeypatch.setattr(objective, "autoencode", diverged)
    trainer.take_step(0.0)
    assert not moved(trainer.generator, before[0]) | moved(trainer.discriminators, before[1])
    monkeypatch.setattr(objective, "autoencode", real)
    terms = trainer.take_step(0.0)
    assert moved(trainer.generator, before[0])
    assert moved(trainer.discriminators, before[1])
    assert all(math.isfinite(float(value)) for value in terms.values())


def with_estimates_of(monkeypatch, factor_at):
    """Multiply the autoencoder's sound by what a function says of each time that it is asked."""
    real, asked = objective.autoencode, []

    def changed(*arguments):
        pair = real(*arguments)
        asked.append(None)
        pair.estimate = pair.estimate * factor_at(len(asked))
        return pair

    monkeypatch.setattr(objective, "autoencode", changed)


def test_a_run_without_a_finite_step_is_refused(tmp_path, monkeypatch):
    with_estimates_of(monkeypatch, lambda time: math.nan)
    settings = replace(TINY, precision="fp32", steps=(3, 0, 0, 0))
    trainer = Trainer(settings, corpus(), corpus(), tmp_path, "cpu")
    with pytest.raises(RtsrError, match=r"no longer finite \(stage autoencoder, step 3, 3 steps"):
        trainer.run(math.inf)
    assert not (tmp_path / CHECKPOINT).exists()


@pytest.mark.parametrize("is_finite", [True, False], ids=["finite", "not finite"])
def test_a_short_resumption_of_odd_steps_is_kept_if_its_validation_is_finite(
    tmp_path, monkeypatch, is_finite
):
    settings = replace(TINY, precision="fp32", steps=(3, 0, 0, 0))
    Trainer(settings, corpus(), corpus(), tmp_path, "cpu").run(math.inf)
    before = (tmp_path / CHECKPOINT).read_bytes()
    with_estimates_of(monkeypatch, lambda time: math.nan)
    again = Trainer(replace(settings, steps=(4, 0, 0, 0)), corpus(), corpus(), tmp_path, "cpu")
    assert again.resume()
    if is_finite:
        again.run(math.inf)
        assert load_checkpoint(tmp_path / CHECKPOINT)["steps"] == [4, 0, 0, 0]
        return
    monkeypatch.setattr(again, "validate", lambda: {"valid_total": torch.tensor(math.nan)})
    with pytest.raises(RtsrError, match=r"no longer finite \(stage autoencoder, step 4, 1 steps"):
        again.run(math.inf)
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_a_run_ends_after_so_many_steps_in_a_row_that_are_not_finite(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_module, "MOST_LEFT_OUT", 5)
    monkeypatch.setattr(trainer_module, "LOG_EVERY", 2)
    with_estimates_of(monkeypatch, lambda time: math.nan if time > 3 else 1.0)
    settings = replace(TINY, precision="fp32", steps=(100, 0, 0, 0), checkpoint_minutes=1e9)
    trainer = Trainer(settings, corpus(), corpus(), tmp_path, "cpu")
    with pytest.raises(RtsrError, match="so nothing was saved; lower 'learning_rates'"):
        trainer.run(math.inf)
    assert trainer.steps[0] == 8
    text = (tmp_path / LOG).read_text()
    entries = [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]
    assert [entry.get("left_out") for entry in entries] == [None, 1.0, 3.0, 5.0]


def test_single_steps_that_are_left_out_are_counted_over_all_resumptions(tmp_path, monkeypatch):
    with_estimates_of(monkeypatch, lambda time: math.nan if time in (2, 4) else 1.0)
    settings = replace(TINY, precision="fp32", steps=(3, 0, 0, 0))
    Trainer(settings, corpus(), corpus(), tmp_path, "cpu").run(math.inf)
    again = Trainer(replace(settings, steps=(6, 0, 0, 0)), corpus(), corpus(), tmp_path, "cpu")
    assert again.resume()
    again.run(math.inf)
    assert again.left_out == 2


def test_weights_whose_validation_is_not_finite_replace_no_checkpoint(tmp_path, monkeypatch):
    settings = replace(TINY, steps=(1, 0, 0, 0))
    Trainer(settings, corpus(), corpus(), tmp_path, "cpu").run(math.inf)
    before = (tmp_path / CHECKPOINT).read_bytes()
    settings = replace(settings, steps=(2, 0, 0, 0), checkpoint_minutes=0.0)
    again = Trainer(settings, corpus(), corpus(), tmp_path, "cpu")
    assert again.resume()
    monkeypatch.setattr(again, "validate", lambda: {"valid_total": torch.tensor(math.inf)})
    with pytest.raises(RtsrError, match="is kept as it was before"):
        again.run(math.inf)
    assert (tmp_path / CHECKPOINT).read_bytes() == before


@pytest.mark.parametrize("ends", ["stage", "signal"])
def test_what_can_learn_no_more_is_not_saved_at_the_end_of_a_stage_or_by_ctrl_c(
    tmp_path, monkeypatch, ends
):
    settings = replace(TINY, precision="fp32", steps=(3, 2, 0, 0))
    trainer = Trainer(settings, corpus(), corpus(), tmp_path, "cpu")
    with_estimates_of(monkeypatch, lambda time: math.nan if time > 1 else 1.0)
    monkeypatch.setattr(trainer, "validate", lambda: {"valid_total": torch.tensor(math.nan)})
    real = trainer.take_step

    def stopped(fraction):
        terms = real(fraction)
        if ends == "signal" and trainer.steps[0] == 2:
            signal.raise_signal(signal.SIGINT)
        return terms

    monkeypatch.setattr(trainer, "take_step", stopped)
    with pytest.raises(RtsrError, match="nothing was saved"):
        run_until_stopped(trainer, 60.0)
    assert trainer.steps == [2 if ends == "signal" else 3, 0, 0, 0]
    assert not (tmp_path / CHECKPOINT).exists()


def test_a_gradient_is_clipped_before_it_is_followed(tmp_path, monkeypatch):
    """A step of plain descent is then as long as the clipped norm, whatever the loss."""
    clip = 1e-3
    settings = replace(TINY, precision="fp32", gradient_clip=clip, adversarial_start=1.1)
    trainer = Trainer(settings, corpus(), corpus(), tmp_path, "cpu")
    trainer.optimizer = torch.optim.SGD(trainer.trained, lr=1.0, fused=True)
    monkeypatch.setattr(trainer, "_set_rates", lambda fraction: None)
    before = weights(trainer.generator)
    trainer.take_step(0.0)
    squares = [
        (value - before[name]).double().square().sum()
        for name, value in trainer.generator.state_dict().items()
    ]
    assert float(torch.stack(squares).sum().sqrt()) == pytest.approx(clip, rel=1e-2)


@pytest.mark.parametrize("which", ["train", "valid"])
def test_a_corpus_without_a_domain_that_is_drawn_is_said_before_anything_is_learnt(tmp_path, which):
    music, speech = corpus(), corpus()
    music.domains, speech.domains = ["music"], ["speech"]
    train, valid = (speech, music) if which == "train" else (music, speech)
    with pytest.raises(RtsrError, match=r"None of the domains \['music'\] has a weight"):
        Trainer(replace(TINY, domains={"music": 1.0}), train, valid, tmp_path, "cpu")


@pytest.mark.parametrize("ended_by", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_what_was_learnt_is_kept_whatever_ends_its_validation(tmp_path, monkeypatch, ended_by):
    settings = replace(TINY, steps=(1, 0, 0, 0), checkpoint_minutes=0.0)
    trainer = Trainer(settings, corpus(), corpus(), tmp_path, "cpu")

    def fails():
        raise ended_by

    monkeypatch.setattr(trainer, "validate", fails)
    with pytest.raises(ended_by):
        trainer.run(math.inf)
    again = Trainer(settings, corpus(), corpus(), tmp_path, "cpu")
    assert again.resume()
    assert again.steps == [1, 0, 0, 0]


def test_every_checkpoint_logs_its_validation_whatever_the_stage(tmp_path):
    settings = replace(TINY, steps=(2, 2, 4, 2), checkpoint_minutes=0.0)
    Trainer(settings, corpus(), corpus(), tmp_path, "cpu").run(math.inf)
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    validated = [
        line["stage"] for line in lines[:-1] if any(name.startswith("valid_") for name in line)
    ]
    assert [validated.count(stage) for stage in schedule.STAGES] == [2, 2, 4, 2]


def test_the_flow_is_validated_by_its_own_loss(tmp_path):
    """The autoencoder's would be the same to the last digit, since it learns nothing there."""
    settings = replace(TINY, precision="fp32", steps=(0, 3, 0, 0))
    trainer = Trainer(settings, corpus(), corpus(), tmp_path, "cpu")
    trainer.run(math.inf)
    first = {name: float(value) for name, value in trainer.validate().items()}
    assert list(first) == ["valid_flow"]
    assert first == {name: float(value) for name, value in trainer.validate().items()}
    for value in trainer.average.values.values():
        value.mul_(1.5)
    assert float(trainer.validate()["valid_flow"]) != first["valid_flow"]


def test_an_octave_is_named_in_the_facts_of_its_training(tmp_path):
    trainer = Trainer(TINY, corpus(), corpus(), tmp_path, "cpu", octave_rate=96_000)
    assert trainer.facts()["octave_rate"] == 96_000
    assert "octave_rate" not in Trainer(TINY, corpus(), corpus(), tmp_path, "cpu").facts()


def test_a_run_that_is_not_watched_prints_what_it_logs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trainer_module, "LOG_EVERY", 2)
    settings = replace(TINY, steps=(5, 0, 0, 0))
    run_until_stopped(Trainer(settings, corpus(), corpus(), tmp_path, "cpu"), 60.0)
    lines = capsys.readouterr().out.splitlines()
    steps = [line.split("  ")[1].removeprefix("autoencoder, step ") for line in lines]
    assert steps == ["2", "4", "5"]
    assert all("bins " in line for line in lines)
    assert "valid_bins " in lines[-1]


def test_who_stops_a_run_in_its_last_validation_has_stopped_it(tmp_path, monkeypatch):
    trainer = Trainer(replace(TINY, steps=(1, 0, 0, 0)), corpus(), corpus(), tmp_path, "cpu")
    real = trainer.validate

    def told_to_stop():
        signal.raise_signal(signal.SIGINT)
        return real()

    monkeypatch.setattr(trainer, "validate", told_to_stop)
    with pytest.raises(KeyboardInterrupt):
        run_until_stopped(trainer, 60.0)
    assert load_checkpoint(tmp_path / CHECKPOINT)["steps"] == [1, 0, 0, 0]


@pytest.mark.parametrize("has_saved", [False, True])
@pytest.mark.parametrize("comes_while", ["it is saved", "it is asked whether it is finite"])
def test_a_second_signal_does_not_lose_what_the_first_one_would_save(
    tmp_path, monkeypatch, comes_while, has_saved
):
    """Where it is not known whether that is finite, it replaces nothing."""
    settings = replace(TINY, precision="fp32", steps=(9, 0, 0, 0))
    trainer = Trainer(settings, corpus(), corpus(), tmp_path, "cpu")
    if has_saved:
        trainer.save()
    real_step, real_validate = trainer.take_step, trainer.validate
    is_odd = comes_while != "it is saved"
    with_estimates_of(monkeypatch, lambda time: math.nan if is_odd and time == 3 else 1.0)

    def told_to_stop(fraction):
        terms = real_step(fraction)
        if trainer.steps[0] == 3:
            signal.raise_signal(signal.SIGINT)
        return terms

    def told_again(real):
        def does(*arguments):
            if trainer.steps[0] == 3:
                signal.raise_signal(signal.SIGINT)
            return real(*arguments)

        return does

    monkeypatch.setattr(trainer, "take_step", told_to_stop)
    if is_odd:
        monkeypatch.setattr(trainer, "validate", told_again(real_validate))
    else:
        monkeypatch.setattr(trainer_module, "save_checkpoint", told_again(save_checkpoint))
    with pytest.raises(KeyboardInterrupt):
        run_until_stopped(trainer, 60.0)
    kept = 0 if is_odd and has_saved else 3
    assert load_checkpoint(tmp_path / CHECKPOINT)["steps"] == [kept, 0, 0, 0]


def test_who_stops_a_validation_twice_keeps_what_was_learnt(tmp_path, monkeypatch):
    settings = replace(TINY, steps=(9, 0, 0, 0), checkpoint_minutes=0.0)
    trainer = Trainer(settings, corpus(), corpus(), tmp_path, "cpu")
    real_validate = trainer.validate

    def told_to_stop():
        if trainer.steps[0] == 3:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return real_validate()

    def told_again(*arguments):
        if trainer.steps[0] == 3:
            signal.raise_signal(signal.SIGINT)
        save_checkpoint(*arguments)

    monkeypatch.setattr(trainer, "validate", told_to_stop)
    monkeypatch.setattr(trainer_module, "save_checkpoint", told_again)
    with pytest.raises(KeyboardInterrupt):
        run_until_stopped(trainer, 60.0)
    assert load_checkpoint(tmp_path / CHECKPOINT)["steps"] == [3, 0, 0, 0]


def test_a_run_whose_reader_has_gone_keeps_what_was_learnt(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_module, "LOG_EVERY", 2)
    trainer = Trainer(replace(TINY, steps=(9, 0, 0, 0)), corpus(), corpus(), tmp_path, "cpu")
    printed = []

    def echo(line):
        printed.append(line)
        if len(printed) == 2:
            raise BrokenPipeError

    monkeypatch.setattr("rtsr.cli.train.typer.echo", echo)
    with pytest.raises(BrokenPipeError):
        run_until_stopped(trainer, 60.0)
    again = Trainer(replace(TINY, steps=(9, 0, 0, 0)), corpus(), corpus(), tmp_path, "cpu")
    assert again.resume()
    assert again.steps == [4, 0, 0, 0]


def test_who_stops_a_run_is_told_where_it_goes_on(tmp_path, monkeypatch, capsys):
    trainer = Trainer(TINY, corpus(), corpus(), tmp_path, "cpu")
    real = trainer.draw_batch

    def told_to_stop(*arguments):
        signal.raise_signal(signal.SIGINT)
        return real(*arguments)

    monkeypatch.setattr(trainer, "draw_batch", told_to_stop)
    with pytest.raises(KeyboardInterrupt):
        run_until_stopped(trainer, 60.0)
    said = f"Saved {tmp_path / CHECKPOINT} at autoencoder, step 1; the same command goes on."
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("taken", "lacks"), [([0, 0, 3, 0], False), ([2, 0, 2, 0], True), ([2, 0, 0, 0], True)]
)
def test_a_run_knows_whether_its_steps_are_taken(tmp_path, taken, lacks):
    """A grown one leaves out those of the first stages."""
    trainer = Trainer(replace(TINY, steps=(2, 0, 3, 0)), corpus(), corpus(), tmp_path, "cpu")
    trainer.steps, trainer.stage = taken, schedule.LEVELS if taken[2] else schedule.AUTOENCODER
    assert trainer.lacks_steps is lacks


def test_settings_that_change_on_the_way_hold_from_there_on(tmp_path):
    trainer = Trainer(TINY, corpus(), corpus(), tmp_path, "cpu")
    trainer.take_step(0.0)
    trainer.save()
    settings = replace(TINY, weight_decay=0.0, discriminator_rate=1e-5)
    again = Trainer(settings, corpus(), corpus(), tmp_path, "cpu")
    assert again.resume()
    assert {group["weight_decay"] for group in again.optimizer.param_groups} == {0.0}
    assert {group["lr"] for group in again.discriminator_optimizer.param_groups} == {1e-5}


@pytest.mark.parametrize("stopped", [5, 9])
def test_levels_go_on_as_if_they_had_not_been_interrupted(tmp_path, stopped):
    """Long enough for all three parts of the stage: the predictor, the path, all else."""
    settings = replace(TINY, precision="fp32", steps=(0, 0, 10, 1))
    whole = Trainer(settings, corpus(), corpus(), tmp_path / "whole", "cpu")
    whole.run(math.inf)

    def stop(trainer, terms):
        if sum(trainer.steps) == stopped:
            raise KeyboardInterrupt

    broken = Trainer(settings, corpus(), corpus(), tmp_path / "broken", "cpu")
    with pytest.raises(KeyboardInterrupt):
        broken.run(math.inf, stop)
    broken.save()
    again = Trainer(settings, corpus(), corpus(), tmp_path / "broken", "cpu")
    assert again.resume()
    again.run(math.inf)
    assert not moved(again.generator, weights(whole.generator))


def test_a_flow_that_was_left_out_teaches_nobody(tmp_path):
    settings = replace(TINY, steps=(1, 0, 1, 1))
    trainer = Trainer(settings, corpus(), corpus(), tmp_path, "cpu")
    trainer.run(math.inf)
    assert trainer.steps == [1, 0, 1, 1]
    assert trainer.teacher is None


def test_a_stage_goes_on_from_the_average_and_so_does_its_teacher(tmp_path):
    settings = replace(TINY, ema_decay=0.5)
    trainer = Trainer(settings, corpus(), corpus(), tmp_path, "cpu")
    for stage in (schedule.AUTOENCODER, schedule.FLOW):
        assert trainer.stage == stage
        for _ in range(2):
            trainer.take_step(0.5)
        averaged = weights(trainer.averaged())
        assert moved(trainer.generator, averaged)
        trainer.next_stage()
        assert not moved(trainer.generator, averaged)
    assert not moved(trainer.teacher, averaged)


@pytest.mark.parametrize("during", ["MovingAverage", "frozen"])
def test_a_run_that_is_stopped_between_two_stages_goes_on(tmp_path, monkeypatch, during):
    settings = replace(TINY, steps=(1, 1, 1, 1))
    trainer = Trainer(settings, corpus(), corpus(), tmp_path, "cpu")
    real = getattr(trainer_module, during)

    def stopped(*arguments):
        if trainer.stage == schedule.FLOW:
            signal.raise_signal(signal.SIGINT)
        return real(*arguments)

    monkeypatch.setattr(trainer_module, during, stopped)
    with pytest.raises(KeyboardInterrupt):
        run_until_stopped(trainer, 60.0)
    monkeypatch.setattr(trainer_module, during, real)
    again = Trainer(settings, corpus(), corpus(), tmp_path, "cpu")
    assert again.resume()
    assert again.steps == [1, 1, 1, 0]
    again.run(math.inf)
    assert again.steps == [1, 1, 1, 1]
    assert (tmp_path / CHECKPOINT).exists()


def test_distillation_fades_out(tmp_path):
    settings = replace(TINY, distillation_every=1, levels_every=0, adversarial_start=1.1)
    trainer = Trainer(settings, corpus(), corpus(), tmp_path, "cpu")
    trainer.stage, trainer.teacher = schedule.REFINEMENT, trainer_module.frozen(trainer.generator)
    losses = []
    for fraction in (0.0, 0.5, 1.0):
        trainer.rng = np.random.default_rng(0)
        torch.manual_seed(0)
        batch = trainer.draw_batch()
        moment = objective.Moment(schedule.REFINEMENT, 0, fraction)
        losses.append(trainer.objective.losses(trainer.generator, trainer.teacher, batch, moment))
    totals = [float(each.total.detach()) for each in losses]
    term = float(losses[0].terms["distillation"].detach())
    assert totals[0] - totals[2] == pytest.approx(settings.distillation * term, rel=0.02)
    assert totals[0] - totals[1] == pytest.approx(0.5 * settings.distillation * term, rel=0.02)
