"""The training loop: stages by share of the time, checkpoints, averages, log."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rtsr.ending import postponed
from rtsr.errors import RtsrError
from rtsr.model.generator import Generator, seeded
from rtsr.timing import HOP, SAMPLE_RATE
from rtsr.train.band_domain import BandDomain, Bands
from rtsr.train.checkpoint import MovingAverage, load_checkpoint, save_checkpoint, slim
from rtsr.train.corpus import Crops
from rtsr.train.data import Corpus
from rtsr.train.degrade import degrade
from rtsr.train.device import (
    choose_device,
    choose_precision,
    random_state,
    restore_random_state,
)
from rtsr.train.discriminators import Discriminators
from rtsr.train.grow import load_start
from rtsr.train.levels import LevelLoss
from rtsr.train.losses import SpectralLoss
from rtsr.train.objective import Moment, Objective
from rtsr.train.resume import check_is_of_this_run
from rtsr.train.schedule import (
    AUTOENCODER,
    FLOW,
    LEVELS,
    REFINEMENT,
    STAGES,
    ByMinutes,
    BySteps,
    Schedule,
)
from rtsr.train.settings import TrainSettings
from rtsr.train.stages import (
    Batch,
    all_levels,
    autoencode,
    flow_matching,
    level_terms,
    one_step,
)

CHECKPOINT = "last.pt"
SLIM = "slim.pt"
LOG = "log.jsonl"
LOG_EVERY = 20
VALID_BATCHES = 2
#: Steps left out in a row after which no number will be finite again, since weights stay.
MOST_LEFT_OUT = 50

Progress = Callable[["Trainer", dict[str, float]], None]


def _plain(terms: dict[str, Tensor]) -> dict[str, float]:
    """Read all terms at once, because every read from a GPU synchronises with it."""
    if not terms:
        return {}
    values = torch.stack([value.float() for value in terms.values()]).tolist()
    return dict(zip(terms, values, strict=True))


def _are_finite(terms: dict[str, Tensor]) -> bool:
    return all(map(math.isfinite, _plain(terms).values()))


def frozen(generator: Generator) -> Generator:
    """Return a copy that learns no further."""
    return copy.deepcopy(generator).eval().requires_grad_(False)


def _step_if_finite(optimizer: torch.optim.Optimizer, norm: Tensor) -> Tensor:
    """Take a step, unless the norm of its gradients says that one is not finite.

    A fused optimiser itself leaves such a step out: asking would wait for the device. Returns 1
    where it did and 0 where not, on the device.
    """
    is_left_out = 1.0 - (norm < math.inf).float()  # NaN is not less, either
    optimizer.found_inf = is_left_out  # type: ignore[attr-defined]
    optimizer.step()
    return is_left_out


def _fused(state: dict[str, Any]) -> dict[str, Any]:
    """Return an optimiser's state for the fused implementation, whichever one wrote it."""
    groups = [{**group, "fused": True, "foreach": None} for group in state["param_groups"]]
    return {**state, "param_groups": groups}


class Trainer:
    """One run in one folder: ``last.pt`` to resume from and ``log.jsonl`` to plot.

    A step reads nothing from the device, so that it never synchronises with a GPU; terms are read
    every 20 steps.

    Args:
        settings: of the run.
        train: the corpus to learn from.
        valid: the corpus to validate on.
        folder: of the run; made when something is written.
        device: ``auto``, ``cpu`` or ``cuda``.
        keep_slim: also write ``slim.pt``, the averaged weights and the facts alone.
        octave_rate: twice the Hz where the sound that is learnt ends, as for
            :func:`~rtsr.train.data.load_corpus`.

    Raises:
        RtsrError: a corpus has recordings of no domain that is drawn.
    """

    def __init__(
        self,
        settings: TrainSettings,
        train: Corpus,
        valid: Corpus,
        folder: Path,
        device: str = "auto",
        *,
        keep_slim: bool = False,
        octave_rate: int = SAMPLE_RATE,
    ) -> None:
        self.keep_slim = keep_slim
        self.octave_rate = octave_rate
        self.settings, self.train_corpus, self.valid_corpus = settings, train, valid
        self.folder = folder
        self.device = choose_device(device)
        self.precision = choose_precision(settings.precision, self.device)
        for corpus in (train, valid):
            if len(corpus.starts):
                # Said now, and not once minutes of training are to be validated.
                corpus.shares(settings.domains)
            corpus.place(self.device)
        self.rng = np.random.default_rng(settings.seed)
        torch.manual_seed(settings.seed)
        self.generator = seeded(settings.model_config(), settings.seed).to(self.device)
        self.discriminators = Discriminators().to(self.device)
        self.spectral = SpectralLoss(settings.losses).to(self.device)
        bands = self.generator.config.gain_bands
        self.levels = LevelLoss(bands).to(self.device)
        self.band_domain = BandDomain(self.levels, bands, settings.degrade, self.device)
        self.objective = Objective(
            settings, self.spectral, self.discriminators, self.levels, self._autocast
        )
        self.teacher: Generator | None = None
        self.steps = [0] * len(STAGES)
        self.elapsed = 0.0
        # Steps whose gradients were not finite: of the run, and the last ones in a row.
        self._left_out = torch.zeros((), device=self.device)
        self._left_out_in_a_row = torch.zeros((), device=self.device)
        self.grown_from: dict[str, Any] | None = None
        self._is_of_predictor = False
        # Whether the band predictor has the average of its weights.
        self._is_settled = False
        self._begin(AUTOENCODER)

    # -- one run ---------------------------------------------------------------------------------

    def run(self, minutes: float, progress: Progress | None = None) -> None:
        """Train until the run is ``minutes`` old in all, over all resumptions.

        Settings with ``steps`` end it earlier, once every stage has taken its own; ``math.inf``
        minutes then leave the clock out of it.

        Raises:
            RtsrError: numbers are not finite and will not be again; the checkpoint of before stays.
        """
        settings = self.settings
        schedule = self._schedule(minutes)
        last = time.monotonic()
        saved = self.elapsed
        shown: dict[str, float] = {}
        while self.elapsed < minutes:
            done = schedule.share_done(self.stage, self.steps, self.elapsed)
            if done >= 1.0:
                if not schedule.has_more_after(self.stage):
                    break
                self.check_is_finite()
                self.next_stage()
                continue
            terms = self.take_step(max(done, 0.0))
            validated: dict[str, Tensor] = {}
            now = time.monotonic()
            self.elapsed += (now - last) / 60.0
            last = now
            if self.elapsed - saved >= settings.checkpoint_minutes:
                validated = self._validate_and_save()
                saved = self.elapsed
                terms.update(validated)
            if sum(self.steps) % LOG_EVERY == 0 or validated:
                in_a_row = self._left_out_in_a_row
                shown = _plain({**terms, "left_out": self._left_out, "in_a_row": in_a_row})
                has_diverged = shown.pop("in_a_row") >= MOST_LEFT_OUT
                if not shown["left_out"]:
                    del shown["left_out"]
                self._log(shown)
                if has_diverged:
                    raise self._diverged()
            if progress is not None:
                progress(self, shown)
        # Where some were finite, once, the validation says whether more can be.
        if 0 < sum(self.steps) <= self.left_out:
            raise self._diverged()
        shown = _plain(self._validate_and_save())
        self._log(shown)
        if progress is not None:
            progress(self, shown)

    @property
    def lacks_steps(self) -> bool:
        """Say whether the run is bound by steps and has not taken all of them yet."""
        if self.settings.steps is None:
            return False
        schedule = BySteps(self.settings.steps)
        is_over = schedule.share_done(self.stage, self.steps, self.elapsed) >= 1.0
        return not is_over or schedule.has_more_after(self.stage)

    @property
    def left_out(self) -> int:
        """Return how many steps were left out because their gradients were not finite."""
        return int(self._left_out)

    def check_is_finite(self) -> None:
        """Raise :class:`RtsrError` where the last steps were left out and validation fails, too.

        To be asked before something is saved: a checkpoint of what can learn no more is worth less
        than the one that it would replace.
        """
        if self._left_out_in_a_row and not _are_finite(self.validate()):
            raise self._diverged()

    def save_before_end(self) -> None:
        """Save for a program that is told to end.

        Where the last steps were left out, only if a validation is finite, as when it is due.

        Raises:
            RtsrError: it is not; the checkpoint of before stays.
        """
        if self._left_out_in_a_row:
            self._validate_and_save()
        else:
            self.save()

    def _validate_and_save(self) -> dict[str, Tensor]:
        """Save what was learnt, unless its validation is not finite; returns that.

        Where the validation fails or is interrupted, an older checkpoint is replaced only if the
        last step was finite.
        """
        try:
            validated = self.validate()
            is_finite = _are_finite(validated)
        except BaseException:
            # Whatever else is wrong with it, or whoever ends the program meanwhile, what was learnt
            # is kept, unless it may be worth less than what it would replace.
            if not self._left_out_in_a_row or not (self.folder / CHECKPOINT).exists():
                self.save()
            raise
        if not is_finite:
            raise self._diverged()
        self.save()
        return validated

    def _diverged(self) -> RtsrError:
        path = self.folder / CHECKPOINT
        kept = f"{path} is kept as it was before" if path.exists() else "nothing was saved"
        return RtsrError(
            f"The numbers of the training are no longer finite (stage {STAGES[self.stage]}, step "
            f"{self.steps[self.stage]}, {self.left_out} steps left out), so {kept}; lower "
            "'learning_rates' or 'gradient_clip', or choose precision = \"fp32\"."
        )

    def _schedule(self, minutes: float) -> Schedule:
        first = LEVELS if self.grown_from else AUTOENCODER
        if self.settings.steps is not None:
            return BySteps(self.settings.steps, first)
        return ByMinutes(self.settings.shares, minutes, first)

    def share_done(self, minutes: float) -> float:
        """Return how much of a run is done that ends at that age, or before with its steps."""
        by_steps = self._schedule(minutes).share_of_run(self.steps, self.elapsed)
        return max(by_steps, self.elapsed / minutes)

    def take_step(self, fraction: float) -> dict[str, Tensor]:
        """Take one step at that share of the present stage; returns its terms, on the device."""
        moment = Moment(self.stage, self.steps[self.stage], fraction)
        self._is_of_predictor = self.objective.is_of_predictor(self.generator, moment)
        self._set_rates(self.objective.part_done(self.generator, moment))
        if self._is_of_predictor:
            self._is_settled = False
            losses = self.objective.predictor_losses(self.generator, self.draw_bands())
        else:
            if not self._is_settled:
                self._settle_predictor()
            is_of_levels = self.objective.is_of_levels(moment)
            batch = self.draw_batch(is_of_levels)
            losses = self.objective.losses(self.generator, self.teacher, batch, moment)
            if is_of_levels and self._knows_other_sound:
                other = self.objective.other_sound_losses(self.generator, self.draw_bands())
                losses.total = losses.total + other.total
                losses.terms.update(other.terms)
        self.optimizer.zero_grad(set_to_none=True)
        if losses.of_discriminators is not None:
            self._discriminator_gradients(losses.of_discriminators)
        losses.total.backward(inputs=self.trained)
        norm = torch.nn.utils.clip_grad_norm_(
            self.trained, self.settings.gradient_clip, foreach=True
        )
        is_left_out = _step_if_finite(self.optimizer, norm)
        self._left_out.add_(is_left_out)
        self._left_out_in_a_row.add_(is_left_out).mul_(is_left_out)
        if losses.of_discriminators is not None:
            self._discriminator_step()
        self.average.update()
        self.steps[self.stage] += 1
        return {name: value.detach() for name, value in losses.terms.items()}

    def _discriminator_gradients(self, loss: Tensor) -> None:
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        # The generator's loss goes back the same way once more.
        loss.backward(inputs=list(self.discriminators.parameters()), retain_graph=True)

    def _discriminator_step(self) -> None:
        norm = torch.nn.utils.clip_grad_norm_(self.discriminators.parameters(), 5.0, foreach=True)
        _step_if_finite(self.discriminator_optimizer, norm)

    @torch.no_grad()
    def validate(self) -> dict[str, Tensor]:
        """Losses of the stage, of the averaged weights on the same few valid clips every time."""
        if not len(self.valid_corpus.starts):
            return {}
        generator = self.averaged()
        rng = np.random.default_rng(0)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            sums: dict[str, Tensor] = {}
            for _ in range(VALID_BATCHES):
                for name, value in self._validate_batch(generator, rng).items():
                    sums[f"valid_{name}"] = sums.get(f"valid_{name}", 0.0) + value / VALID_BATCHES
        return sums

    def _validate_batch(self, generator: Generator, rng: np.random.Generator) -> dict[str, Tensor]:
        is_of_levels = self.stage == LEVELS
        if self._is_of_predictor:
            crops = self._draw(self.valid_corpus, rng, is_of_levels=True, codec_share=0.0)
            bands = self.band_domain.degrade(crops, rng)
            return self.objective.predictor_losses(generator, bands).terms
        batch = self._batch(self.valid_corpus, rng, is_of_levels)
        with self._autocast():
            if is_of_levels:
                return all_levels(generator, batch, self.levels)
            if self.stage == FLOW:
                # Nothing else changes meanwhile.
                return {"flow": flow_matching(generator, batch)}
            if self.stage == REFINEMENT:
                refined = one_step(generator, batch)
                pair = refined.pair
                levels = level_terms(self.levels, refined.conditioning, refined.gains, batch)
            else:
                pair, levels = autoencode(generator, batch), {}
        spectra = self.spectral.powers(pair.estimate, pair.reference)
        return {**self.spectral(spectra, pair.f_prior, pair.f_end, pair.noise_floor), **levels}

    # -- parts -----------------------------------------------------------------------------------

    def draw_batch(self, is_of_levels: bool = False) -> Batch:
        """Draw and degrade the next batch of the run."""
        return self._batch(self.train_corpus, self.rng, is_of_levels)

    def draw_bands(self) -> Bands:
        """Draw and degrade the next batch of the run in the band domain."""
        crops = self._draw(self.train_corpus, self.rng, is_of_levels=True, codec_share=0.0)
        return self.band_domain.degrade(crops, self.rng)

    def _batch(self, corpus: Corpus, rng: np.random.Generator, is_of_levels: bool = False) -> Batch:
        degradation = self.settings.degrade
        crops = self._draw(corpus, rng, is_of_levels, degradation.codec_share)
        audio = crops.on(self.device)
        data = degrade(audio, crops.cutoffs_hz, degradation, rng, crops.codec_rows, crops.lossy)
        return Batch(self.generator, data)

    def _draw(
        self, corpus: Corpus, rng: np.random.Generator, is_of_levels: bool, codec_share: float
    ) -> Crops:
        settings, degradation = self.settings, self.settings.degrade
        clips, frames = settings.batch, settings.frames
        if is_of_levels:
            clips, frames = settings.level_batch, settings.level_frames
        return corpus.draw(
            rng,
            clips,
            frames * HOP,
            codec_share,
            settings.domains,
            degradation.speed_share,
            (degradation.lowest_speed, degradation.highest_speed),
        )

    def _settle_predictor(self) -> None:
        """Take the average of the band predictor's weights, from which it learns no further."""
        if self.generator.band_predictor is not None:
            prefix = "band_predictor."
            averaged = {
                name.removeprefix(prefix): value
                for name, value in self.average.values.items()
                if name.startswith(prefix)
            }
            self.generator.band_predictor.load_state_dict(averaged)
        self._is_settled = True

    def _autocast(self) -> Any:
        return torch.autocast(self.device.type, self.precision, enabled=self.precision is not None)

    def _begin(self, stage: int) -> None:
        """Begin a stage, with a moving average and optimisers of its own."""
        average = MovingAverage(self.generator, self.settings.ema_decay)
        trained = list(self._part_that_learns(stage).parameters())
        optimizer = torch.optim.AdamW(
            trained,
            lr=1e-3,
            betas=(0.9, 0.98),
            weight_decay=self.settings.weight_decay,
            fused=True,
        )
        discriminator_optimizer = torch.optim.AdamW(
            self.discriminators.parameters(),
            lr=self.settings.discriminator_rate,
            betas=(0.5, 0.9),
            fused=True,
        )
        # All at once and without a call in between, where Ctrl-C could come: what is saved then
        # must fit together.
        self.stage = stage
        self.average = average
        self.trained = trained
        self.optimizer = optimizer
        self.discriminator_optimizer = discriminator_optimizer

    @property
    def _knows_other_sound(self) -> bool:
        predictor = self.generator.band_predictor
        return predictor is not None and predictor.other is not None

    def _part_that_learns(self, stage: int) -> torch.nn.Module:
        predictor = self.generator.band_predictor
        if self.settings.other_sound_alone:
            assert predictor is not None
            assert predictor.other is not None
            return predictor.other
        return self.generator.velocity if stage == FLOW else self.generator

    def _set_rates(self, fraction: float) -> None:
        settings = self.settings
        least = settings.final_learning_rate
        decay = least + (1.0 - least) * 0.5 * (1.0 + math.cos(math.pi * fraction))
        warm_up = min(1.0, (self.steps[self.stage] + 1) / settings.warm_up_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rates[self.stage] * decay * warm_up

    def next_stage(self) -> None:
        """Continue from the averaged weights; the flow's result becomes the teacher."""
        self.generator.load_state_dict(self.average.values)
        # A stage that is left out has taught nobody.
        if self.stage == FLOW and self.steps[FLOW]:
            self.teacher = frozen(self.generator)
        self._begin(self.stage + 1)
        self.save()

    def grow_from(self, path: Path) -> None:
        """Begin the stage of levels with the weights of a trained narrower model, or its equal's.

        A checkpoint that was restored from a graph has no teacher and no discriminators; then
        distillation and distribution matching rest, and the discriminators are new.

        Raises:
            RtsrError: the checkpoint cannot be read, or this model cannot be grown from it.
        """
        start = load_start(path, self.generator.config, self.settings.seed)
        self.generator.load_state_dict(start.generator.state_dict())
        if start.teacher is not None:
            self.teacher = frozen(start.teacher).to(self.device)
        if start.discriminators is not None:
            self.discriminators.load_state_dict(start.discriminators)
        self.grown_from = start.facts
        self._begin(LEVELS)

    def averaged(self) -> Generator:
        """Return a copy of the generator with the averaged weights."""
        generator = copy.deepcopy(self.generator).eval()
        generator.load_state_dict(self.average.values)
        return generator

    # -- files in the folder ----------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        """Return the training's facts for a model card."""
        return {
            "stage": STAGES[self.stage],
            "steps": dict(zip(STAGES, self.steps, strict=True)),
            "minutes": round(self.elapsed, 1),
            "device": self.device.type,
            "seed": self.settings.seed,
            "clips": len(self.train_corpus.starts),
            "hours": round(float(self.train_corpus.lengths.sum()) / 48_000 / 3600, 2),
            "settings": self.settings.to_dict(),
            **({"octave_rate": self.octave_rate} if self.octave_rate != SAMPLE_RATE else {}),
            **({"grown_from": self.grown_from} if self.grown_from else {}),
        }

    def save(self) -> None:
        """Write ``last.pt``, and ``slim.pt`` where that is wanted; signals wait meanwhile."""
        with postponed():
            content = self._content()
            save_checkpoint(self.folder / CHECKPOINT, content)
            if self.keep_slim:
                save_checkpoint(self.folder / SLIM, slim(content))

    def _content(self) -> dict[str, Any]:
        return {
            "settings": self.settings.to_dict(),
            "model_config": self.generator.config.to_dict(),
            "generator": self.generator.state_dict(),
            "ema": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "discriminators": self.discriminators.state_dict(),
            "discriminator_optimizer": self.discriminator_optimizer.state_dict(),
            "teacher": self.teacher.state_dict() if self.teacher else None,
            "stages": list(STAGES),
            "octave_rate": self.octave_rate,
            "stage": self.stage,
            "steps": self.steps,
            "elapsed": self.elapsed,
            "left_out": self.left_out,
            "is_settled": self._is_settled,
            "rng": self.rng.bit_generator.state,
            "torch_rng": random_state(self.device),
            "facts": self.facts(),
        }

    def resume(self) -> bool:
        """Continue from ``last.pt`` where there is one."""
        path = self.folder / CHECKPOINT
        if not path.exists():
            return False
        content = load_checkpoint(path, str(self.device))
        check_is_of_this_run(content, path, self.settings, self.octave_rate)
        self._restore(content)
        return True

    def _restore(self, content: dict[str, Any]) -> None:
        # The weights were drawn by it, and so was all that came after.
        self.settings = replace(self.settings, seed=content["settings"]["seed"])
        self.steps = list(content["steps"])
        # Those of before do not say: what was averaged once may be averaged again.
        self._is_settled = content.get("is_settled", False)
        self.elapsed = content["elapsed"]
        self._left_out.fill_(content.get("left_out", 0))
        self.grown_from = content["facts"].get("grown_from")
        self.generator.load_state_dict(content["generator"])
        self._begin(content["stage"])
        self.average.load_state_dict(content["ema"])
        self.optimizer.load_state_dict(_fused(content["optimizer"]))
        self.discriminators.load_state_dict(content["discriminators"])
        self.discriminator_optimizer.load_state_dict(_fused(content["discriminator_optimizer"]))
        # Rates and weights of the run as it goes on, which are stored beside an optimiser's state.
        for group in self.optimizer.param_groups:
            group["weight_decay"] = self.settings.weight_decay
        for group in self.discriminator_optimizer.param_groups:
            group["lr"] = self.settings.discriminator_rate
        if content["teacher"] is not None:
            self.teacher = frozen(self.generator)
            self.teacher.load_state_dict(content["teacher"])
        self.rng.bit_generator.state = content["rng"]
        if "torch_rng" in content:
            restore_random_state(content["torch_rng"], self.device)

    def _log(self, values: dict[str, float]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        entry = {
            "stage": STAGES[self.stage],
            "step": self.steps[self.stage],
            "minutes": round(self.elapsed, 3),
            # JSON knows no NaN.
            **{
                name: round(value, 5) if math.isfinite(value) else None
                for name, value in values.items()
            },
        }
        with open(self.folder / LOG, "a") as file:
            file.write(json.dumps(entry) + "\n")
