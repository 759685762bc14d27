"""Train the variants of a plan at equal steps and compare them, as the published ablations were.

    python examples/ablation.py bench/results/ablation/tokens/plan.toml CORPUS OUT

A plan is TOML: ``[base]`` has training settings that all variants share (``rtsr train --config``),
each of ``[[variants]]`` a name and the settings in which it differs, and at the top stands what is
scored: ``cutoffs_hz``, ``clips_per_domain``, ``max_seconds``. ``euler_steps`` renders a variant's
weights in so many steps of its flow, ``teacher_euler_steps`` the flow before its refinement, and
``latent_noise`` decodes the reference's own latent with noise of that standard deviation. A variant
with ``from`` goes on where another ended, one with ``checkpoint`` is that of another run. The same
command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import binomtest

from rtsr import RtsrError, enhance_file
from rtsr.model.config import ModelConfig
from rtsr.model.generator import Generator
from rtsr.quality.audio import read_audio
from rtsr.quality.compare import compare_files
from rtsr.timing import HOP, OVERLAP
from rtsr.train.checkpoint import load_checkpoint
from rtsr.train.corpus import Corpus
from rtsr.train.data import load_corpus
from rtsr.train.degrade import LOSSLESS_NOISE_FLOOR, Degraded
from rtsr.train.settings import load_settings
from rtsr.train.stages import Batch, autoencode
from rtsr.train.trainer import Trainer
from rtsr_bench.corpus import Clip, list_clips, prepare_inputs, prepare_references, write_whole
from rtsr_bench.files import write_text
from rtsr_bench.markdown import table
from rtsr_bench.quality.scores import Scores, gather_scores
from rtsr_bench.quality.systems import digest_of
from rtsr_export.graph import build_graph
from rtsr_export.graph_file import write_graph

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

METRICS = ("visqol", "lsd", "lsd_near", "mel_hf", "hf_bias_db", "hf_envelope_db")
CEILING_HZ = 22_000.0
SIGNIFICANT = 0.05
#: from input, reference, and where the content of the two ends in Hz, to an output file
Render = Callable[[Path, Path, tuple[float, float], Path], None]


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one table of settings over another, tables within them likewise."""
    both = {n: merged(below[n], v) for n, v in above.items() if isinstance(below.get(n), dict)}
    return {**below, **above, **both}


def toml(value: Any) -> str:
    """Write a value as TOML has it within a line."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {toml(one)}" for name, one in value.items()) + " }"
    return json.dumps(value)


def slug(name: str) -> str:
    """Write a name as that of a folder."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")


def train(variant: dict[str, Any], base: dict[str, Any], data: Path, out: Path) -> Path:
    """Train as ``rtsr train`` does, with a variant's settings; returns its checkpoint."""
    folder = out / slug(variant["name"])
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "last.pt"
    if "checkpoint" in variant:
        shutil.copy(variant["checkpoint"], checkpoint)
        return checkpoint
    if "from" in variant and not checkpoint.exists():
        shutil.copy(out / slug(variant["from"]) / "last.pt", checkpoint)
    settings = merged(base, variant.get("settings", {}))
    text = "".join(f"{name} = {toml(value)}\n" for name, value in settings.items())
    (folder / "settings.toml").write_text(text, encoding="utf-8")
    found = load_settings(folder / "settings.toml")
    is_coded = found.degrade.codec_share > 0.0
    trainer = Trainer(found, _corpus(data, "train", is_coded), _corpus(data, "valid"), folder)
    trainer.resume()
    try:
        # The steps of the settings end it, not the clock.
        trainer.run(math.inf)
    except (KeyboardInterrupt, SystemExit):
        trainer.save()
        raise
    print(f"{variant['name']}: trained for {trainer.elapsed:.1f} minutes")
    return checkpoint


@functools.cache
def _corpus(data: Path, split: str, is_coded: bool = False) -> Corpus:
    """Read a split once for all variants."""
    return load_corpus(data, split, codec=is_coded)


def renderings(variant: dict[str, Any], checkpoint: Path, folder: Path) -> dict[str, Render]:
    """List what is made of a checkpoint, by the name that tables have for it."""
    content = load_checkpoint(checkpoint)
    found: dict[str, Render] = {}
    kinds = (("euler_steps", "", [1], content["ema"]["values"]),
             ("teacher_euler_steps", "teacher, ", [], content["teacher"]))  # fmt: skip
    for key, prefix, default, weights in kinds:
        for steps in variant.get(key, default):
            generator = _generator(content, weights)
            # A stream that begins with more states takes more steps of the flow.
            initial = functools.partial(generator.initial_state, euler_steps=steps)
            generator.initial_state = initial  # type: ignore[method-assign]
            graph = folder / f"{slug(prefix)}{steps}-steps.onnx"
            # Written when it is needed: what has been scored already needs none.
            graph.unlink(missing_ok=True)
            found[f"{prefix}{steps} {'step' if steps == 1 else 'steps'}"] = functools.partial(
                _enhance, generator, graph
            )
    for level in variant.get("latent_noise", []):
        generator = _generator(content, content["ema"]["values"])
        found[f"latent noise {level:g}"] = functools.partial(_reconstruct, generator, level)
    return found


def _generator(content: dict[str, Any], weights: dict[str, Any]) -> Generator:
    generator = Generator(ModelConfig.from_dict(content["model_config"]))
    generator.load_state_dict(weights)
    return generator.eval().requires_grad_(False)


def _enhance(
    generator: Generator,
    graph: Path,
    source: Path,
    reference: Path,
    ends_hz: tuple[float, float],
    target: Path,
) -> None:
    if not graph.exists():
        write_graph(build_graph(generator), graph)
    enhance_file(source, target, model=graph, provider="cpu", ceiling=CEILING_HZ)


@torch.inference_mode()
def _reconstruct(
    generator: Generator,
    level: float,
    source: Path,
    reference: Path,
    ends_hz: tuple[float, float],
    target: Path,
) -> None:
    """Decode the reference's own latent, disturbed by noise, beside the narrow-band input."""
    full, narrow = (read_audio(path)[:, 0] for path in (reference, source))
    padded = np.zeros((2, 1, 1, -(-(len(full) + OVERLAP) // HOP) * HOP), np.float32)
    padded[0, 0, 0, : len(full)] = full
    padded[1, 0, 0, : len(full)] = np.pad(narrow[: len(full)], (0, max(0, len(full) - len(narrow))))
    f_prior, f_target = (torch.tensor([end]) for end in ends_hz)
    floor = torch.tensor([LOSSLESS_NOISE_FLOOR])
    data = Degraded(*torch.from_numpy(padded), f_prior, f_target, f_target, floor, [ends_hz[0]])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pair = autoencode(generator, Batch(generator, data), level)
    write_whole(target, pair.estimate[0, : len(full)].numpy(), 48_000)


def score(
    render: Render | None,
    clips: Sequence[Clip],
    references: dict[str, Path],
    inputs: dict[str, Path],
    hz: float,
    kept: Path,
) -> Scores:
    """Render all clips and compare them with their references; known scores are kept."""
    if not kept.is_file():
        found = {}
        for clip in clips:
            source, reference = inputs[clip.name], references[clip.name]
            output = source
            if render is not None:
                output = kept.with_suffix(".wav")
                render(source, reference, (float(hz), clip.measured_cutoff_hz), output)
            found[clip.name] = compare_files(reference, output, hz, METRICS).metrics
            kept.with_suffix(".wav").unlink(missing_ok=True)
        kept.write_text(json.dumps(found), encoding="utf-8")
    return gather_scores(hz, json.loads(kept.read_text(encoding="utf-8")))


def difference(ours: Scores, theirs: Scores, domain: str, metric: str) -> str:
    """Write the median over clips of ours minus theirs, ``*`` where a sign test finds it real."""
    names = [name for name in ours.clips if name.startswith(f"{domain}/")]
    values = np.array([[one.clips[name][metric] for name in names] for one in (ours, theirs)])
    if metric.endswith("bias_db"):  # right at zero
        values = np.abs(values)
    steps = (values[0] - values[1])[~np.isnan(values).any(axis=0)]
    ups, moved = int((steps > 0).sum()), int((steps != 0).sum())
    real = bool(moved > 0 and binomtest(ups, moved).pvalue < SIGNIFICANT)
    return f"{np.median(steps):+.2f}{'*' * real}" if steps.size else "-"


def check_clips(out: Path, clips: Sequence[Clip], seconds: float) -> None:
    """Raise RtsrError where ``out`` holds what was made of other clips, or of other parts of them.

    All of it is kept by the clips' names. What does not say of which clips it is may be of any.
    """
    files = [clip.path for clip in clips]
    state = f"{len(clips)} clips of at most {seconds:g} s: {digest_of(*files)}\n"
    kept = out / "clips.txt"
    if kept.exists() and kept.read_text(encoding="utf-8") != state:
        raise RtsrError(
            f"{out} holds what was made of other clips, or with another clips_per_domain or "
            "max_seconds; give another folder."
        )
    if not kept.exists():
        out.mkdir(parents=True, exist_ok=True)
        # What a crash left of the file itself has a hidden name.
        if any(out.glob("[!.]*")):
            raise RtsrError(
                f"{out} has no {kept.name} that says of which clips its files are made; give "
                "another folder."
            )
        write_text(kept, state)


def report(plan: dict[str, Any], rows: dict[float, dict[tuple[str, str], Scores]]) -> str:
    """Write medians, and differences clip by clip to the reference variant's first rendering."""
    lines = [f"# {plan['title']}", "", plan.get("note", "").strip(), ""]
    for hz, scores in rows.items():
        base = next(one for (name, _), one in scores.items() if name == plan["reference"])
        domains = list(base.by_domain)
        lines += [f"## Input up to {hz:g} Hz", "", f"Medians, {' / '.join(domains)}.", ""]
        head = ["variant", "rendering", *METRICS]
        medians = [
            [*name, *(" / ".join(f"{one.by_domain[d][m]:.2f}" for d in domains) for m in METRICS)]
            for name, one in scores.items()
        ]
        lines += [*table(head, medians), "", f"Differences to *{plan['reference']}*.", ""]
        moved = [
            [*name, *(" / ".join(difference(one, base, d, m) for d in domains) for m in METRICS)]
            for name, one in scores.items()
            if one is not base and name[0] != "input"
        ]
        lines += [*table(head, moved), ""]
    return "\n".join(lines)


def main() -> None:
    """Carry out a plan."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan", type=Path)
    parser.add_argument("data", metavar="CORPUS", type=Path)
    parser.add_argument("out", type=Path)
    asked = parser.parse_args()
    plan = tomllib.loads(asked.plan.read_text(encoding="utf-8"))
    listed, most, clips = list_clips(asked.data), plan["clips_per_domain"], []
    for domain in dict.fromkeys(clip.domain for clip in listed):
        mine = [clip for clip in listed if clip.domain == domain]
        count = min(most, len(mine))
        clips += [mine[index * len(mine) // count] for index in range(count)]  # evenly taken
    try:
        check_clips(asked.out, clips, plan["max_seconds"])
    except (RtsrError, OSError) as error:
        sys.exit(f"ablation: {error}")
    work = asked.out / "audio"
    references = prepare_references(clips, work / "references", plan["max_seconds"])
    rows: dict[float, dict[tuple[str, str], Scores]] = {}
    inputs = {hz: prepare_inputs(references, work / f"{hz:g}", hz) for hz in plan["cutoffs_hz"]}
    for hz in inputs:
        kept = asked.out / f"input-{hz:g}.json"
        rows[hz] = {("input", ""): score(None, clips, references, inputs[hz], hz, kept)}
    for variant in plan["variants"]:
        checkpoint = train(variant, plan["base"], asked.data, asked.out)
        for label, render in renderings(variant, checkpoint, checkpoint.parent).items():
            for hz in inputs:
                kept = checkpoint.parent / f"{slug(label)}-{hz:g}.json"
                found = score(render, clips, references, inputs[hz], hz, kept)
                rows[hz][variant["name"], label] = found
    text = report(plan, rows)
    (asked.out / "report.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
