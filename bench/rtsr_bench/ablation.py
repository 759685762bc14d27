"""``python -m rtsr_bench.ablation run|report|judge|plans``: train variants at equal steps, compare.

    python -m rtsr_bench.ablation run smax --data DATA --out runs/smax
    python -m rtsr_bench.ablation run smax --data DATA --out runs/try --preset tiny
    python -m rtsr_bench.ablation report runs/smax
    python -m rtsr_bench.ablation judge runs/mine/last.pt --data DATA --out judged

The same command goes on after an interruption, on the same machine or another: variants that are
trained, and renderings that are judged, are left as they are.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from rtsr.errors import MissingDependencyError, RtsrError
from rtsr_bench.program import run_program

TABLE = "report.md"
FIGURES = "figures"

app = typer.Typer(
    no_args_is_help=True, help=__doc__, add_completion=False, pretty_exceptions_enable=False
)

PlanName = Annotated[
    str, typer.Argument(metavar="PLAN", help="A shipped plan (see `plans`) or a .toml file.")
]
Folder = Annotated[Path, typer.Argument(help="The --out folder of a run.")]


@app.command()
def run(
    plan: PlanName,
    data: Annotated[Path, typer.Option("--data", help="The corpus: the folder of manifest.csv.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the campaign; resumed if there.")],
    preset: Annotated[
        str | None,
        typer.Option("--preset", help="Laid over the plan: tiny, two-cores, or a .toml file."),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option("--cache", help="Decoded audio, as for rtsr train.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    coded: Annotated[
        bool, typer.Option("--coded", help="Prepare inputs from real coders and use them.")
    ] = False,
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Processes that compute metrics.")
    ] = 1,
    train_only: Annotated[
        bool, typer.Option("--train-only", help="Leave judging to another call.")
    ] = False,
) -> None:
    """Train every variant of a plan, judge each on the valid clips, write tables and figures."""
    _require_torch()
    from rtsr_bench.ablation_plan_file import load_plan
    from rtsr_bench.ablation_run import Campaign, Options

    chosen = load_plan(plan, preset)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("starting", total=None)
        names: list[str] = []

        def show(what: str, done: int, total: int) -> None:
            if names[-1:] != [what]:
                names.append(what)
                bar.reset(task)
            bar.update(task, description=what, completed=done, total=total)

        options = Options(device, cache, coded, workers)
        _note_making(out, plan, preset, coded)
        try:
            Campaign(chosen, data, out, options, show).run(evaluate=not train_only)
        except KeyboardInterrupt:
            raise RtsrError(f"Stopped; the same command goes on with {out}.") from None
    if not train_only:
        _report(out)


@app.command()
def report(folder: Folder) -> None:
    """Write the tables (report.md) and figures of what is judged so far."""
    _require_torch()
    _report(folder)


@app.command()
def judge(
    checkpoint: Annotated[Path, typer.Argument(help="last.pt of any training run.")],
    data: Annotated[Path, typer.Option("--data", help="The corpus.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of sounds and scores; resumed.")],
    cutoff: Annotated[
        list[float] | None, typer.Option("--cutoff", help="Of the inputs, Hz: 4000 and 8000.")
    ] = None,
    steps: Annotated[
        list[int] | None, typer.Option("--steps", min=1, help="Euler steps of the weights: 1.")
    ] = None,
    teacher_steps: Annotated[
        list[int] | None,
        typer.Option("--teacher-steps", min=1, help="Of the flow before its refinement: 1 and 8."),
    ] = None,
    clips: Annotated[
        int, typer.Option("--clips", min=0, help="Of each domain, evenly taken; 0 for all.")
    ] = 0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Processes that compute metrics.")
    ] = 1,
) -> None:
    """Hold refined weights against the flow that they were refined from, in one step and more."""
    _require_torch()
    from rtsr.train.device import choose_device
    from rtsr_bench.ablation_plan import Evaluation
    from rtsr_bench.ablation_scores import Judge, weights_digest
    from rtsr_bench.validation import Scores, headed_table

    evaluation = Evaluation(
        tuple(cutoff or (4000.0, 8000.0)),
        tuple(steps or (1,)),
        tuple(teacher_steps or (1, 8)),
        clips_per_domain=clips,
    )
    judging = Judge(data, out, evaluation, workers, choose_device(device))
    with Console(stderr=True).status("judging") as status:
        scores = judging.judge_checkpoint(
            checkpoint,
            weights_digest(checkpoint),
            out / "scores",
            lambda what, done, total: status.update(f"{what} {done}/{total}"),
        )
    for hz, rows in scores.items():
        judged = {label: Scores(**values) for label, values in rows.items()}
        typer.echo(headed_table(float(hz), judged))


@app.command()
def plans() -> None:
    """List the shipped plans and presets."""
    _require_torch()
    from rtsr_bench.ablation_plan_file import load_plan, shipped_plans, shipped_presets

    for name in shipped_plans():
        plan = load_plan(name)
        typer.echo(f"{name}: {plan.title} ({len(plan.variants)} variants)")
    for name, path in shipped_presets().items():
        typer.echo(f"--preset {name}: {path}")


def _note_making(folder: Path, plan: str, preset: str | None, coded: bool) -> None:
    """Keep what a reader of the report must know to repeat it; the last call counts."""
    from rtsr_bench.ablation_report import MADE
    from rtsr_bench.ablation_scores import write_json
    from rtsr_bench.machine import describe_machine, describe_software

    command = ["python -m rtsr_bench.ablation run", Path(plan).name, "--data CORPUS --out OUT"]
    command += [f"--preset {Path(preset).name}"] if preset else []
    command += ["--coded"] if coded else []
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "date": datetime.date.today().isoformat(),
        "command": " ".join(command),
        "cpu": describe_machine()["cpu"]["model"],
        "software": describe_software(),
    }
    write_json(folder / MADE, values)


def _report(folder: Path) -> None:
    from rtsr_bench.ablation_figures import draw_figures
    from rtsr_bench.ablation_report import load_report, markdown

    content = load_report(folder)
    figures = draw_figures(content, folder / FIGURES)
    text = markdown(content)
    for path in figures:
        text += f"\n![{path.stem}]({FIGURES}/{path.name})\n"
    target = folder / TABLE
    beside = target.with_name(f".{TABLE}.part")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(target)
    except OSError as error:
        raise RtsrError(f"Cannot write {target}: {error.strerror}.") from error
    typer.echo(text)
    typer.echo(f"Saved {target}" + (f" and {len(figures)} figures." if figures else "."))


def _require_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("An ablation", "train") from error


def main() -> None:
    """Run the command."""
    run_program(app)


if __name__ == "__main__":
    main()
