"""What a training step costs, stage by stage: launches and milliseconds.

    python examples/train_step_cost.py --stage refinement

A GPU executes what a CPU launches, one kernel after another, and a model of this size gives each so
little to do that launching is what takes the time. So launches are counted: those of kernels on a
GPU, and elsewhere the operators that would launch one. Synthetic recordings, the default settings.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from rtsr.errors import RtsrError
from rtsr.timing import SAMPLE_RATE
from rtsr.train.corpus import Corpus
from rtsr.train.objective import Moment
from rtsr.train.schedule import AUTOENCODER, LEVELS, REFINEMENT, STAGES
from rtsr.train.settings import TrainSettings
from rtsr.train.trainer import Trainer

KERNEL_CALLS = ("cudaLaunchKernel", "cuLaunchKernel", "cudaLaunchKernelExC", "cudaGraphLaunch")
COPY_CALLS = ("cudaMemcpyAsync", "cudaMemsetAsync")
COUNTED_STEPS = 4
#: Operators beside views that launch nothing: memory without content, a number for the host.
NO_KERNEL = (
    *("aten::empty", "aten::new_empty", "aten::resize_"),
    *("aten::_unsafe_view", "aten::_local_scalar_dense"),
)


@dataclass(frozen=True)
class StepCost:
    """One kind of step.

    Attributes:
        launches: of kernels and copies.
        milliseconds: median of a whole step, back to back.
        data_ms: median of drawing and degrading a batch, part of it.
        waits: whether the step made the host wait for the device; ``None`` off a GPU.
    """

    launches: float
    milliseconds: float
    data_ms: float
    waits: bool | None


def synthetic_corpus() -> Corpus:
    """Return four recordings of coloured noise with pauses, ten seconds each."""
    random = np.random.default_rng(0)
    clips, length = 4, 10 * SAMPLE_RATE
    white = random.standard_normal((clips, length))
    spectrum = np.fft.rfft(white) / np.sqrt(np.arange(length // 2 + 1) + 100.0)
    sound = np.fft.irfft(spectrum, length) * (0.6 + 0.4 * np.sin(np.arange(length) / 4000.0))
    samples = np.int16(6000.0 * sound / sound.std()).reshape(-1)
    return Corpus(
        samples=samples,
        starts=np.arange(clips) * length,
        lengths=np.full(clips, length),
        cutoffs_hz=np.full(clips, 22_000.0, np.float32),
        domains=["unknown"],
        domain_codes=np.zeros(clips, np.int64),
        names=[f"{index}.wav" for index in range(clips)],
        groups=["unknown"] * clips,
    )


def make_trainer(settings: TrainSettings, folder: Path, device: str) -> Trainer:
    """Return a trainer of synthetic recordings that has taken no step."""
    corpus = synthetic_corpus()
    return Trainer(settings, corpus, corpus, folder, device)


def measure_step(trainer: Trainer, fraction: float, steps: int) -> StepCost:
    """Take some steps of the trainer's present stage, as they are at this share of it.

    Args:
        trainer: from :func:`make_trainer`.
        fraction: of the stage that is over; the settings say what is trained when.
        steps: that are timed, and counted apart from that; before them come two more.
    """
    device = trainer.device

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    for _ in range(2):
        trainer.take_step(fraction)
    wait()

    def median_ms(act: Callable[[Trainer, float], object]) -> float:
        times = []
        for _ in range(steps):
            began = time.perf_counter()
            act(trainer, fraction)
            wait()
            times.append(time.perf_counter() - began)
        return 1000.0 * float(np.median(times))

    whole_ms, data_ms = median_ms(Trainer.take_step), median_ms(_draw)
    waits = _waits(trainer, fraction) if device.type == "cuda" else None
    return StepCost(count_launches(trainer, fraction), whole_ms, data_ms, waits)


def _draw(trainer: Trainer, fraction: float) -> None:
    """Draw what such a step draws."""
    moment = Moment(trainer.stage, trainer.steps[trainer.stage], fraction)
    if trainer.objective.is_of_predictor(trainer.generator, moment):
        trainer.draw_bands()
    else:
        trainer.draw_batch(trainer.objective.is_of_levels(moment))


def _waits(trainer: Trainer, fraction: float) -> bool:
    """Whether anything in a step reads from the device."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.take_step(fraction)
    except RuntimeError:
        return True
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return False


class _Launches(TorchDispatchMode):
    """Counts the operators that would launch something on a GPU; a view of old memory does not.

    What consists of others is seen as them, one on many tensors at once as one.
    """

    count = 0

    def __torch_dispatch__(
        self, operator: Any, _: Any, arguments: Any = (), named: Any = None
    ) -> Any:
        is_view = operator.is_view or torch.Tag.inplace_view in operator.tags
        self.count += not (is_view or operator.name().startswith(NO_KERNEL))
        return operator(*arguments, **(named or {}))


def count_launches(trainer: Trainer, fraction: float) -> float:
    """Return launches per step: on a GPU as its runtime saw them, else as they would be there."""
    on_gpu = trainer.device.type == "cuda"
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with profile(activities=activities) if on_gpu else _Launches() as seen:
        for _ in range(COUNTED_STEPS):
            trainer.take_step(fraction)
    if isinstance(seen, _Launches):
        return seen.count / COUNTED_STEPS
    wanted = (*KERNEL_CALLS, *COPY_CALLS)
    return sum(event.name in wanted for event in seen.events()) / COUNTED_STEPS


def step_kinds(stage: str, settings: TrainSettings) -> dict[float, str]:
    """Return the share of a stage at which each kind of its steps is taken, and what it is."""
    if stage == STAGES[LEVELS]:
        return {
            0.0: ", the band predictor alone",
            settings.predictor_share: ", the level path alone",
            1.0: ", the level path and the decoder's gains",
        }
    if stage == STAGES[REFINEMENT]:
        return {0.0: ", without discriminators", 1.0: ", with discriminators"}
    return {0.0: ", without discriminators" if stage == STAGES[AUTOENCODER] else ""}


def measure_stages(
    stages: Sequence[str],
    model: str,
    steps: int,
    batch: int | None,
    frames: int | None,
    device: str,
) -> Iterator[str]:
    """Measure each kind of step that a stage has, stage after stage; yields a line for each.

    Args:
        stages: to be measured; all if there are none.
        model: ``small`` or ``base``.
        steps: timed steps of each.
        batch: clips per step; as the settings say if ``None``.
        frames: hops per clip, likewise.
        device: ``auto``, ``cpu`` or ``cuda``.
    """
    settings = TrainSettings(model=model)
    if batch is not None:
        settings = replace(settings, batch=batch, level_batch=batch)
    if frames is not None:
        settings = replace(settings, frames=frames, level_frames=frames)
    # Whole steps only: those that compare levels alone would take turns with them.
    settings = replace(settings, levels_every=0)
    waits = {None: "", True: ", waits for the device", False: ", waits for nothing"}
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(settings, Path(folder), device)
        for name in stages or STAGES:
            trainer.stage = STAGES.index(name)
            for fraction, kind in step_kinds(name, settings).items():
                cost = measure_step(trainer, fraction, steps)
                yield (
                    f"{name}{kind}: {cost.launches:.0f} launches, "
                    f"{cost.milliseconds:.1f} ms, of that {cost.data_ms:.1f} for data"
                    f"{waits[cost.waits]}"
                )


def main() -> None:
    """Print a line for each kind of step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stage", choices=STAGES, action="append", help="all if left out")
    parser.add_argument("--model", default="small", help="small or base")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each kind")
    parser.add_argument("--batch", type=int, help="clips per step")
    parser.add_argument("--frames", type=int, help="hops per clip")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    asked = parser.parse_args()
    for name, least in (("steps", 1), ("batch", 1), ("frames", 20)):
        given = getattr(asked, name)
        if given is not None and given < least:
            parser.error(f"--{name} must be at least {least}, not {given}")
    try:
        for line in measure_stages(
            asked.stage or [], asked.model, asked.steps, asked.batch, asked.frames, asked.device
        ):
            print(line, flush=True)
    except RtsrError as error:
        parser.exit(2, f"train_step_cost: {error}\n")


if __name__ == "__main__":
    main()
