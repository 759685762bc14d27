"""The training loop: stages by share of the time, checkpoints, averages, log."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rtsr.errors import RtsrError
from rtsr.model.config import HOP, ModelConfig, configuration
from rtsr.model.generator import Generator, seeded
from rtsr.train.checkpoint import MovingAverage, load_checkpoint, save_checkpoint
from rtsr.train.data import Corpus
from rtsr.train.degrade import degrade
from rtsr.train.discriminators import Discriminators
from rtsr.train.grow import grow
from rtsr.train.losses import Powers, SpectralLoss
from rtsr.train.settings import TrainSettings
from rtsr.train.stages import (
    STAGES,
    Batch,
    Pair,
    adversarial_losses,
    autoencode,
    flow_matching,
    latent_losses,
    one_step,
)

CHECKPOINT = "last.pt"
LOG = "log.jsonl"
LOG_EVERY = 20

Progress = Callable[["Trainer", dict[str, float]], None]


def choose_device(name: str) -> torch.device:
    """Return the device ``auto``, ``cpu`` or ``cuda``; raises RtsrError when it is not there."""
    present = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    if name == "auto":
        return torch.device(present[-1])
    if name.split(":")[0] not in present:
        raise RtsrError(f"There is no device {name!r} here; present: {', '.join(present)}.")
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> torch.dtype | None:
    """Return the autocast type, or None for plain fp32."""
    if name == "auto":
        fast = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
        name = "bf16" if fast else "fp32"
    return torch.bfloat16 if name == "bf16" else None


def _plain(terms: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in terms.items()}


class Trainer:
    """One run in one folder: ``last.pt`` to resume from and ``log.jsonl`` to plot."""

    def __init__(
        self,
        settings: TrainSettings,
        train: Corpus,
        valid: Corpus,
        folder: Path,
        device: str = "auto",
    ) -> None:
        self.settings, self.train_corpus, self.valid_corpus = settings, train, valid
        self.folder = folder
        self.device = choose_device(device)
        self.precision = choose_precision(settings.precision, self.device)
        self.rng = np.random.default_rng(settings.seed)
        torch.manual_seed(settings.seed)
        model = configuration(settings.model, **settings.model_changes)
        self.generator = seeded(model, settings.seed).to(self.device)
        self.discriminators = Discriminators().to(self.device)
        self.spectral = SpectralLoss(settings.losses).to(self.device)
        self.average = MovingAverage(self.generator, settings.ema_decay)
        self.teacher: Generator | None = None
        self.stage = 0
        self.steps = [0, 0, 0]
        self.elapsed = 0.0
        self.grown_from: dict[str, Any] | None = None
        self._new_optimizers()

    # -- one run ---------------------------------------------------------------------------------

    def run(self, minutes: float, progress: Progress | None = None) -> None:
        """Train until the run is ``minutes`` old in all, over all resumptions."""
        settings = self.settings
        borders = np.cumsum(settings.shares) / np.sum(settings.shares) * minutes
        if self.grown_from is not None:
            borders[:2] = 0.0
        last = time.monotonic()
        saved = self.elapsed
        while self.elapsed < minutes:
            while self.stage < 2 and self.elapsed >= borders[self.stage]:
                self._next_stage()
            begin = 0.0 if self.stage == 0 else float(borders[self.stage - 1])
            fraction = (self.elapsed - begin) / (float(borders[self.stage]) - begin)
            terms = self._step(min(max(fraction, 0.0), 1.0))
            now = time.monotonic()
            self.elapsed += (now - last) / 60.0
            last = now
            if self.elapsed - saved >= settings.checkpoint_minutes:
                terms.update(self.validate())
                self.save()
                saved = self.elapsed
            if sum(self.steps) % LOG_EVERY == 0 or "valid_total" in terms:
                self._log(_plain(terms))
            if progress is not None:
                progress(self, _plain(terms))
        self._log(_plain(self.validate()))
        self.save()

    def _step(self, fraction: float) -> dict[str, Tensor]:
        settings = self.settings
        self._set_rates(fraction)
        batch = self._batch(self.train_corpus, self.rng)
        adversarial = self.stage != 1 and fraction >= settings.adversarial_start
        with self._autocast():
            if self.stage == 1:
                total = flow_matching(self.generator, batch)
                terms = {"flow": total}
                pair = None
            elif self.stage == 0:
                pair = autoencode(self.generator, batch)
            else:
                pair, z = one_step(self.generator, batch)
        if pair is not None:
            spectra = self.spectral.powers(pair.estimate, pair.truth)
            terms = self.spectral(spectra, pair.f_prior, pair.f_target)
            total = terms.pop("total")
            if adversarial:
                with self._autocast():
                    judged, judgement = adversarial_losses(
                        spectra, pair, self.discriminators, settings
                    )
                total = total + judged
                terms.update(judgement)
        if self.stage == 2 and self.steps[2] % settings.distillation_every == 0:
            assert self.teacher is not None
            with self._autocast():
                latent = latent_losses(z, self.teacher, batch, settings)
            terms.update(latent)
            total = (
                total
                + settings.distillation * (1.0 - fraction) * latent["distillation"]
                + settings.distribution * latent["distribution"]
            )
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.trained, settings.gradient_clip)
        if torch.isfinite(norm):
            self.optimizer.step()
        if adversarial and pair is not None:
            self._discriminator_step(spectra, pair)
        self.average.update(self.generator)
        self.steps[self.stage] += 1
        return {name: value.detach() for name, value in terms.items()}

    def _discriminator_step(self, spectra: Powers, pair: Pair) -> None:
        with self._autocast():
            loss = self.discriminators.loss(spectra, pair.f_prior, pair.f_target)
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.discriminators.parameters(), 5.0)
        self.discriminator_optimizer.step()

    @torch.no_grad()
    def validate(self) -> dict[str, Tensor]:
        """Spectral losses of the averaged weights on the same few valid clips every time."""
        if not len(self.valid_corpus.starts):
            return {}
        generator = self.averaged()
        rng = np.random.default_rng(0)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            sums: dict[str, Tensor] = {}
            for _ in range(2):
                batch = self._batch(self.valid_corpus, rng)
                with self._autocast():
                    if self.stage == 2:
                        pair, _ = one_step(generator, batch)
                    else:
                        pair = autoencode(generator, batch)
                spectra = self.spectral.powers(pair.estimate, pair.truth)
                for name, value in self.spectral(spectra, pair.f_prior, pair.f_target).items():
                    sums[f"valid_{name}"] = sums.get(f"valid_{name}", 0.0) + value / 2
        return sums

    # -- parts -----------------------------------------------------------------------------------

    def _batch(self, corpus: Corpus, rng: np.random.Generator) -> Batch:
        settings = self.settings
        clips, ends = corpus.sample_batch(rng, settings.batch, settings.frames * HOP)
        audio = torch.from_numpy(clips).to(self.device)
        return Batch(self.generator, degrade(audio, ends, settings.degrade, rng))

    def _autocast(self) -> Any:
        return torch.autocast(self.device.type, self.precision, enabled=self.precision is not None)

    def _new_optimizers(self) -> None:
        module = self.generator.velocity if self.stage == 1 else self.generator
        self.trained = list(module.parameters())
        self.optimizer = torch.optim.AdamW(
            self.trained, lr=1e-3, betas=(0.9, 0.98), weight_decay=self.settings.weight_decay
        )
        self.discriminator_optimizer = torch.optim.AdamW(
            self.discriminators.parameters(), lr=self.settings.discriminator_rate, betas=(0.5, 0.9)
        )

    def _set_rates(self, fraction: float) -> None:
        settings = self.settings
        floor = settings.final_learning_rate
        decay = floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * fraction))
        warm_up = min(1.0, (self.steps[self.stage] + 1) / settings.warm_up_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rates[self.stage] * decay * warm_up

    def _next_stage(self) -> None:
        """Continue from the averaged weights; the flow's result becomes the teacher."""
        self.generator.load_state_dict(self.average.values)
        if self.stage == 1:
            self.teacher = self._freeze(self.generator)
        self.stage += 1
        self.average = MovingAverage(self.generator, self.settings.ema_decay)
        self._new_optimizers()
        self.save()

    def grow_from(self, path: Path) -> None:
        """Begin refinement with the widened weights of a trained narrower model.

        Raises:
            RtsrError: the checkpoint cannot be read, or this model cannot be grown from it.
        """
        content = load_checkpoint(path)
        if content["teacher"] is None:
            raise RtsrError(f"{path} has not reached its refinement yet; train it further first.")
        narrow, wide = ModelConfig.from_dict(content["model_config"]), self.generator.config
        seed = self.settings.seed
        grown = grow(content["ema"]["values"], narrow, wide, seed)
        self.generator.load_state_dict(grown.state_dict())
        teacher = grow(content["teacher"], narrow, wide, seed)
        self.teacher = self._freeze(teacher).to(self.device)
        self.discriminators.load_state_dict(content["discriminators"])
        self.grown_from = {"model": narrow.name, **content["facts"]}
        self.stage = 2
        self.average = MovingAverage(self.generator, self.settings.ema_decay)
        self._new_optimizers()

    @staticmethod
    def _freeze(generator: Generator) -> Generator:
        return copy.deepcopy(generator).eval().requires_grad_(False)

    def averaged(self) -> Generator:
        """A copy of the generator that holds the averaged weights."""
        generator = copy.deepcopy(self.generator).eval()
        generator.load_state_dict(self.average.values)
        return generator

    # -- what lies in the folder -----------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        """What a model card says about these weights."""
        return {
            "stage": STAGES[self.stage],
            "steps": dict(zip(STAGES, self.steps, strict=True)),
            "minutes": round(self.elapsed, 1),
            "device": self.device.type,
            "seed": self.settings.seed,
            "clips": len(self.train_corpus.starts),
            "hours": round(float(self.train_corpus.lengths.sum()) / 48_000 / 3600, 2),
            "settings": self.settings.to_dict(),
            **({"grown_from": self.grown_from} if self.grown_from else {}),
        }

    def save(self) -> None:
        """Write ``last.pt``."""
        save_checkpoint(
            self.folder / CHECKPOINT,
            {
                "settings": self.settings.to_dict(),
                "model_config": self.generator.config.to_dict(),
                "generator": self.generator.state_dict(),
                "ema": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "discriminators": self.discriminators.state_dict(),
                "discriminator_optimizer": self.discriminator_optimizer.state_dict(),
                "teacher": self.teacher.state_dict() if self.teacher else None,
                "stage": self.stage,
                "steps": self.steps,
                "elapsed": self.elapsed,
                "rng": self.rng.bit_generator.state,
                "facts": self.facts(),
            },
        )

    def resume(self) -> bool:
        """Continue from ``last.pt`` where there is one."""
        path = self.folder / CHECKPOINT
        if not path.exists():
            return False
        content = load_checkpoint(path, str(self.device))
        if content["model_config"] != self.generator.config.to_dict():
            raise RtsrError(
                f"{path} was trained with another model configuration; choose another --out "
                "folder or the configuration it was begun with."
            )
        self.stage, self.steps = content["stage"], list(content["steps"])
        self.elapsed = content["elapsed"]
        self.grown_from = content["facts"].get("grown_from")
        self.generator.load_state_dict(content["generator"])
        self.average.load_state_dict(content["ema"])
        self._new_optimizers()
        self.optimizer.load_state_dict(content["optimizer"])
        self.discriminators.load_state_dict(content["discriminators"])
        self.discriminator_optimizer.load_state_dict(content["discriminator_optimizer"])
        if content["teacher"] is not None:
            self.teacher = self._freeze(self.generator)
            self.teacher.load_state_dict(content["teacher"])
        self.rng.bit_generator.state = content["rng"]
        return True

    def _log(self, values: dict[str, float]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        entry = {
            "stage": STAGES[self.stage],
            "step": self.steps[self.stage],
            "minutes": round(self.elapsed, 3),
            **{name: round(value, 5) for name, value in values.items()},
        }
        with open(self.folder / LOG, "a") as file:
            file.write(json.dumps(entry) + "\n")
