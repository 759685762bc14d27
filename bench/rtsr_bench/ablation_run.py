"""Trains and judges all variants of a plan, and goes on where it was stopped."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rtsr.errors import RtsrError
from rtsr.model.config import ModelConfig
from rtsr.model.generator import Generator, parameter_count
from rtsr.train.checkpoint import load_checkpoint
from rtsr.train.corpus import Corpus
from rtsr.train.data import load_corpus
from rtsr.train.device import choose_device
from rtsr.train.settings import TrainSettings
from rtsr.train.stages import STAGES
from rtsr.train.trainer import CHECKPOINT, LOG, Trainer
from rtsr_bench.ablation_plan import Evaluation, Plan, Variant
from rtsr_bench.ablation_scores import Judge, read_json, weights_digest, write_json

PLAN, IDENTITY, RESULT, SCORES = "plan.json", "variant.json", "result.json", "scores"
FORMAT = 1

#: called with what is being done, how much of it is done, and of how much
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Options:
    """How a campaign is carried out; none of it changes what is compared, but for ``coded``.

    Attributes:
        device: ``auto``, ``cpu`` or ``cuda``.
        cache: file that decoded audio is kept beside, as ``rtsr train --cache``.
        coded: whether inputs from real coders are prepared and used.
        workers: processes that compute metrics.
    """

    device: str = "auto"
    cache: Path | None = None
    coded: bool = False
    workers: int = 1


class Campaign:
    """All variants of a plan in one folder: ``FOLDER/<variant>/{last.pt, result.json, ...}``.

    Raises:
        RtsrError: the folder holds something else, or the corpus is not one with a manifest.
    """

    def __init__(
        self,
        plan: Plan,
        data: Path,
        folder: Path,
        options: Options = Options(),
        progress: Progress = lambda what, done, total: None,
    ) -> None:
        self.plan, self.data, self.folder, self.options = plan, data, folder, options
        self._device = choose_device(options.device)
        self._progress = progress
        manifest = data / "manifest.csv"
        if not manifest.is_file():
            raise RtsrError(f"{data} has no manifest.csv; give the folder of the corpus.")
        self._corpus_digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
        for variant in plan.variants:
            self._check_identity(variant)

    def run(self, evaluate: bool = True) -> None:
        """Train every variant that is not finished, then judge what was not judged.

        Args:
            evaluate: ``False`` trains only; another call, on another machine if need be, judges.
        """
        self._write_plan()
        for variant in self.plan.variants:
            if not self._is_trained(variant):
                self._train(variant)
        if not evaluate:
            return
        for variant in self.plan.variants:
            self._evaluate(variant)
        self._evaluate_input()

    # -- what lies in the folder -----------------------------------------------------------------

    def _place(self, variant: Variant) -> Path:
        return self.folder / variant.folder

    def _write_plan(self) -> None:
        """Variants that an earlier plan had trained in this folder stay in its report."""
        known = read_json(self.folder / PLAN) or {}
        folders = [variant.folder for variant in self.plan.variants]
        others = [folder for folder in known.get("variants", []) if folder not in folders]
        write_json(
            self.folder / PLAN,
            {
                "format": FORMAT,
                "title": self.plan.title,
                "note": self.plan.note,
                "reference": self.plan.variant(self.plan.reference).folder,
                "variants": folders + others,
            },
        )

    def _identity(self, variant: Variant) -> dict[str, Any]:
        return {
            "name": variant.name,
            "parent": variant.parent,
            "corpus": self._corpus_digest,
            "coded": self.options.coded,
            "settings": json.loads(json.dumps(variant.settings.to_dict())),
        }

    def _check_identity(self, variant: Variant) -> None:
        path = self._place(variant) / IDENTITY
        known = read_json(path)
        if known is None:
            return
        wanted = self._identity(variant)
        differing = [name for name in wanted if name != "settings" and known[name] != wanted[name]]
        # A setting that is newer than the run was at its default.
        if TrainSettings.from_dict(known["settings"]) != variant.settings:
            differing.append("settings")
        if differing:
            raise RtsrError(
                f"{path.parent} was trained with another {' and '.join(differing)} than "
                f"{variant.name!r} has now; choose another --out folder, or remove that one."
            )

    def _is_trained(self, variant: Variant) -> bool:
        checkpoint = self._place(variant) / CHECKPOINT
        if not checkpoint.exists():
            return False
        return tuple(load_checkpoint(checkpoint)["steps"]) == variant.steps

    # -- training --------------------------------------------------------------------------------

    @cached_property
    def _corpora(self) -> tuple[Corpus, Corpus]:
        def load(split: str) -> Corpus:
            cache = self.options.cache
            kept = cache.with_name(f"{cache.stem}-{split}.npz") if cache else None
            return load_corpus(
                self.data,
                split,
                cache=kept,
                codec=self.options.coded,
                progress=lambda done, total: self._progress(f"reading {split}", done, total),
            )

        return load("train"), load("valid")

    def _train(self, variant: Variant) -> None:
        place = self._place(variant)
        write_json(place / IDENTITY, self._identity(variant))
        trainer = Trainer(variant.settings, *self._corpora, place, self.options.device)
        if not trainer.resume() and variant.parent is not None:
            parent = self.plan.variant(variant.parent)
            trainer.branch_from(self._place(parent) / CHECKPOINT)

        def show(trainer: Trainer, terms: dict[str, float]) -> None:
            stage = STAGES[trainer.stage]
            self._progress(f"{variant.name}: {stage}", sum(trainer.steps), sum(variant.steps))

        try:
            trainer.run(math.inf, show)
        except KeyboardInterrupt:
            trainer.save()
            raise

    # -- judging ---------------------------------------------------------------------------------

    def _judge(self, evaluation: Evaluation) -> Judge:
        work = self.folder / "audio"
        return Judge(self.data, work, evaluation, self.options.workers, self._device)

    def _evaluate(self, variant: Variant) -> None:
        place = self._place(variant)
        checkpoint = place / CHECKPOINT
        digest = weights_digest(checkpoint)

        def show(what: str, done: int, total: int) -> None:
            self._progress(f"{variant.name}: {what}", done, total)

        judge = self._judge(variant.evaluation)
        scores = judge.judge_checkpoint(checkpoint, digest, place / SCORES, show)
        content = load_checkpoint(checkpoint)
        config = ModelConfig.from_dict(content["model_config"])
        write_json(
            place / RESULT,
            {
                "format": FORMAT,
                "name": variant.name,
                "note": variant.note,
                "parent": variant.parent,
                "steps": variant.steps,
                "minutes": round(content["elapsed"], 2),
                "seconds_per_step": seconds_per_step(place / LOG),
                "parameters": parameter_count(Generator(config)),
                "model_config": config.to_dict(),
                "facts": content["facts"],
                "scores": scores,
            },
        )

    def _evaluate_input(self) -> None:
        """At every cutoff that any variant is judged at."""
        scores: dict[str, dict[str, Any]] = {}
        for variant in self.plan.variants:
            judge = self._judge(variant.evaluation)
            for cutoff in variant.evaluation.cutoffs_hz:
                if f"{cutoff:g}" not in scores:
                    place = self.folder / "input" / SCORES
                    values = judge.judge_input(place, cutoff, self._progress)
                    scores[f"{cutoff:g}"] = {"input": values}
        write_json(self.folder / "input" / RESULT, {"format": FORMAT, "scores": scores})


def seconds_per_step(log: Path) -> dict[str, float]:
    """Time of a step in each stage, from the entries of a run's log; interruptions do not count.

    A stage with fewer than two entries in a row tells nothing and is left out.
    """
    seconds: dict[str, float] = {}
    steps: dict[str, int] = {}
    last: dict[str, Any] | None = None
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    for entry in map(json.loads, lines):
        stage = entry["stage"]
        if last is not None and last["stage"] == stage and entry["step"] > last["step"]:
            seconds[stage] = seconds.get(stage, 0.0) + 60.0 * (entry["minutes"] - last["minutes"])
            steps[stage] = steps.get(stage, 0) + entry["step"] - last["step"]
        last = entry
    return {stage: round(seconds[stage] / steps[stage], 4) for stage in seconds}
