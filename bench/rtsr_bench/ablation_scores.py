"""Judges what a checkpoint sounds like, one rendering at a time, and remembers what was judged."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rtsr.errors import RtsrError
from rtsr.model.config import ModelConfig
from rtsr.model.generator import Generator
from rtsr.runtime.providers.tensorrt import file_sha256
from rtsr.train.checkpoint import load_checkpoint
from rtsr_bench.ablation_plan import Evaluation
from rtsr_bench.ablation_render import Renderer, reconstruct_file
from rtsr_bench.single_thread import one_thread_each
from rtsr_bench.validation import (
    DOMAINS,
    Clip,
    Enhancer,
    gather_scores,
    judge,
    list_clips,
    prepare_inputs,
    prepare_references,
)

FLOW, TEACHER, LATENT = "flow", "teacher", "latent noise"
INPUT = "input"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Rendering:
    """One way to make sound from a checkpoint.

    ``kind`` and ``amount``: the weights' own ``flow`` or that of the ``teacher`` in so many Euler
    steps, or the truth's latent disturbed by ``latent noise`` of so much standard deviation.
    """

    kind: str
    amount: float

    @property
    def label(self) -> str:
        """What a table calls it."""
        if self.kind == LATENT:
            return f"{LATENT} {self.amount:g}"
        steps = f"{self.amount:g} {'step' if self.amount == 1 else 'steps'}"
        return steps if self.kind == FLOW else f"{TEACHER}, {steps}"


def renderings(evaluation: Evaluation) -> list[Rendering]:
    """All that an evaluation asks for."""
    return [
        *(Rendering(FLOW, steps) for steps in evaluation.euler_steps),
        *(Rendering(TEACHER, steps) for steps in evaluation.teacher_euler_steps),
        *(Rendering(LATENT, level) for level in evaluation.latent_noise),
    ]


def choose_clips(data: Path, per_domain: int) -> list[Clip]:
    """Valid clips, ``per_domain`` of each domain spread evenly over the list; 0 for all."""
    clips = list_clips(data)
    if not per_domain:
        return clips
    chosen = []
    for domain in DOMAINS:
        mine = [clip for clip in clips if clip.domain == domain]
        count = min(per_domain, len(mine))
        chosen += [mine[index * len(mine) // count] for index in range(count)]
    return chosen


class Judge:
    """Renders and judges for all variants of a campaign, from the same references and inputs.

    Args:
        data: the corpus.
        work: folder for sound files; references and inputs stay in it, outputs do not.
        evaluation: says which clips, how much of each, and which metrics.
        workers: processes that compute metrics.
        device: where checkpoints are rendered.
    """

    def __init__(
        self, data: Path, work: Path, evaluation: Evaluation, workers: int, device: torch.device
    ) -> None:
        self.clips = choose_clips(data, evaluation.clips_per_domain)
        self._by_name = {clip.name: clip for clip in self.clips}
        self._evaluation, self._work = evaluation, work
        self._workers, self._device = workers, device

    def protocol(self, cutoff_hz: float, rendering: str, weights: str) -> dict[str, Any]:
        """Everything that a score depends on; ``weights`` tells checkpoints apart."""
        return {
            **self._evaluation.protocol(),
            "clips": [clip.name for clip in self.clips],
            "cutoff_hz": cutoff_hz,
            "rendering": rendering,
            "weights": weights,
        }

    def judge_input(self, folder: Path, cutoff_hz: float, progress: Progress) -> dict[str, Any]:
        """Scores of the narrow-band input itself: what doing nothing is worth."""
        return self._scores(folder, cutoff_hz, INPUT, "", None, progress)

    def judge_checkpoint(
        self, checkpoint: Path, weights: str, folder: Path, progress: Progress
    ) -> dict[str, dict[str, Any]]:
        """Scores by cutoff and rendering, ``{"4000": {"1 step": ...}}``; existing ones are kept.

        Raises:
            RtsrError: the checkpoint cannot be read, or has no teacher where one is asked for.
        """
        generators = _Weights(checkpoint, self._device)
        scores: dict[str, dict[str, Any]] = {}
        for cutoff in self._evaluation.cutoffs_hz:
            of_cutoff = scores[f"{cutoff:g}"] = {}
            for rendering in renderings(self._evaluation):
                enhancer = partial(self._enhancer, generators, rendering, cutoff)
                of_cutoff[rendering.label] = self._scores(
                    folder, cutoff, rendering.label, weights, enhancer, progress
                )
        return scores

    def _enhancer(self, weights: _Weights, rendering: Rendering, cutoff_hz: float) -> Enhancer:
        generator = weights.generator(rendering.kind)
        if rendering.kind != LATENT:
            return Renderer(generator, round(2 * cutoff_hz), round(rendering.amount))
        references = self._references()

        def reconstruct(source: Path, target: Path) -> None:
            name = target.relative_to(target.parents[1]).with_suffix("").as_posix()
            cutoffs = cutoff_hz, self._by_name[name].measured_cutoff_hz
            reconstruct_file(
                generator,
                source,
                references[name],
                target,
                cutoffs_hz=cutoffs,
                noise_level=rendering.amount,
            )

        return reconstruct

    def _references(self) -> dict[str, Path]:
        seconds = self._evaluation.max_seconds
        folder = self._work / f"references-{seconds:g}s"
        return prepare_references(self.clips, folder, seconds)

    def _scores(
        self,
        folder: Path,
        cutoff_hz: float,
        label: str,
        weights: str,
        enhancer: Callable[[], Enhancer] | None,
        progress: Progress,
    ) -> dict[str, Any]:
        protocol = self.protocol(cutoff_hz, label, weights)
        kept = folder / f"{label.replace(', ', '-').replace(' ', '-')}-{cutoff_hz:g}.json"
        known = read_json(kept)
        if known is not None and known.get("protocol") == protocol:
            return known["scores"]
        references = self._references()
        seconds = self._evaluation.max_seconds
        inputs = prepare_inputs(
            references, self._work / f"inputs-{seconds:g}s" / f"{cutoff_hz:g}", cutoff_hz
        )
        outputs, made = inputs, self._work / "outputs"
        # What an interrupted rendering left behind is of other weights.
        shutil.rmtree(made, ignore_errors=True)
        if enhancer is not None:
            enhance = enhancer()
            outputs = {name: made / f"{name}.wav" for name in inputs}
            for done, (name, target) in enumerate(outputs.items()):
                progress(f"{label}, {cutoff_hz:g} Hz: rendering", done, len(outputs))
                enhance(inputs[name], target)
        values = self._judge(references, outputs, cutoff_hz, label, progress)
        shutil.rmtree(made, ignore_errors=True)
        scores = finite(gather_scores(cutoff_hz, values).as_json())
        write_json(kept, {"protocol": protocol, "scores": scores})
        return scores

    def _judge(
        self,
        references: dict[str, Path],
        outputs: dict[str, Path],
        cutoff_hz: float,
        label: str,
        progress: Progress,
    ) -> dict[str, dict[str, float]]:
        jobs: list[Job] = [
            ({name: reference}, {name: outputs[name]}, cutoff_hz, self._evaluation.metrics)
            for name, reference in references.items()
        ]
        values: dict[str, dict[str, float]] = {}
        for done, clips in enumerate(_spread(jobs, self._workers)):
            progress(f"{label}, {cutoff_hz:g} Hz: judging", done, len(jobs))
            values.update(clips)
        return values


class _Weights:
    """The generators of one checkpoint, loaded once and only when they are needed."""

    def __init__(self, checkpoint: Path, device: torch.device) -> None:
        self._checkpoint, self._device = checkpoint, device
        self._content: dict[str, Any] | None = None

    def generator(self, kind: str) -> Generator:
        """The averaged weights, or those of the teacher."""
        if self._content is None:
            self._content = load_checkpoint(self._checkpoint, str(self._device))
        content = self._content
        values = content["teacher"] if kind == TEACHER else content["ema"]["values"]
        if values is None:
            raise RtsrError(
                f"{self._checkpoint} keeps no teacher: it has not reached its refinement."
            )
        generator = Generator(ModelConfig.from_dict(content["model_config"])).to(self._device)
        generator.load_state_dict(values)
        return generator.eval().requires_grad_(False)


def weights_digest(checkpoint: Path) -> str:
    """SHA-256 of a checkpoint's file, which tells its weights from all others."""
    try:
        return file_sha256(checkpoint)
    except OSError as error:
        raise RtsrError(f"Cannot read the checkpoint {checkpoint}: {error.strerror}.") from error


Job = tuple[dict[str, Path], dict[str, Path], float, Sequence[str]]


def _spread(jobs: list[Job], workers: int) -> Iterator[dict[str, dict[str, float]]]:
    if workers <= 1:
        yield from map(_judge_job, jobs)
        return
    # Forking a process that has started torch's threads can hang.
    context = multiprocessing.get_context("spawn")
    with one_thread_each(), ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield from pool.map(_judge_job, jobs)


def _judge_job(job: Job) -> dict[str, dict[str, float]]:
    references, outputs, cutoff_hz, metrics = job
    return judge(references, outputs, cutoff_hz, metrics).clips


def read_json(path: Path) -> dict[str, Any] | None:
    """What :func:`write_json` wrote; ``None`` where there is nothing or nothing whole."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write an object so that ``path`` always holds a whole one; NaN becomes null.

    Raises:
        RtsrError: it cannot be written.
    """
    beside = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(finite(values), indent=1), encoding="utf-8")
        os.replace(beside, path)
    except OSError as error:
        raise RtsrError(f"Cannot write {path}: {error.strerror}.") from error


def finite(value: Any) -> Any:
    """The same with ``None`` in place of numbers that JSON has not."""
    if isinstance(value, dict):
        return {name: finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
