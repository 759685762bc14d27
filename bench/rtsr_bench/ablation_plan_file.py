"""Plans of ablations as TOML files: the shipped ones and anyone's own.

title = "Which loss is worth what"
reference = "all terms"            # the variant that the others are held against

[base]                             # training settings that all variants share
steps = [20000, 10000, 0, 20000]   # per stage: variants are compared at equal steps

[evaluation]
cutoffs_hz = [4000, 8000]

[[variants]]
name = "all terms"

[[variants]]
name = "no adversary"
from = "flow"                      # trains on where that variant ended
settings = { adversarial = 0.0 }   # what differs from base
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

from rtsr.errors import RtsrError
from rtsr.quality.evaluation import check_cutoff, check_metrics
from rtsr.train.settings import TrainSettings
from rtsr.train.stages import FLOW, REFINEMENT, STAGES
from rtsr_bench.ablation_plan import Evaluation, Plan, Variant, folder_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SUFFIX = ".toml"
MOST_EULER_STEPS = 64
#: A variant may still choose these when it goes on from another that has no flow yet.
FREE_BEFORE_FLOW = frozenset({"prior", "prior_scale"})
_EULER = ("euler_steps", "teacher_euler_steps")


@dataclass(frozen=True)
class Preset:
    """Changes laid over any plan, so that the whole of it fits a small machine."""

    steps_share: float = 1.0
    base: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)


def shipped_plans() -> dict[str, Path]:
    """Names and files of the plans in the package."""
    return _shipped("plans")


def shipped_presets() -> dict[str, Path]:
    """Names and files of the presets in the package."""
    return _shipped("plans/presets")


def load_plan(name_or_path: str | Path, preset: str | Path | None = None) -> Plan:
    """Read a plan, one of the package or a file, and lay a preset over it.

    Raises:
        RtsrError: a file cannot be read, or what it asks for is not a fair or possible comparison.
    """
    path = _find(name_or_path, shipped_plans(), "plan")
    laid_over = _load_preset(preset) if preset is not None else Preset()
    return _parse(_read(path, "plan"), laid_over, str(path))


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both tables in one, tables within them likewise; ``above`` wins."""
    result = dict(below)
    for name, value in above.items():
        present = result.get(name)
        both = isinstance(present, Mapping) and isinstance(value, Mapping)
        result[name] = merged(present, value) if both else value  # type: ignore[arg-type]
    return result


def _shipped(folder: str) -> dict[str, Path]:
    entries = resources.files("rtsr_bench").joinpath(folder)
    if not entries.is_dir():
        return {}
    files = [Path(str(entry)) for entry in entries.iterdir() if entry.name.endswith(SUFFIX)]
    return {path.stem: path for path in sorted(files)}


def _find(name_or_path: str | Path, shipped: Mapping[str, Path], what: str) -> Path:
    path = Path(name_or_path)
    if str(name_or_path) in shipped:
        return shipped[str(name_or_path)]
    if path.suffix == SUFFIX:
        return path
    raise RtsrError(
        f"There is no {what} {str(name_or_path)!r}; give a {SUFFIX} file or one of: "
        f"{', '.join(shipped)}."
    )


def _read(path: Path, what: str) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RtsrError(f"Cannot read the {what} {path}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RtsrError(f"The {what} {path} is not valid TOML: {error}.") from error


def _load_preset(name_or_path: str | Path) -> Preset:
    path = _find(name_or_path, shipped_presets(), "preset")
    values = _read(path, "preset")
    _check_names(values, (entry.name for entry in fields(Preset)), str(path), "")
    _check_tables(values, ("base", "evaluation"), str(path))
    preset = Preset(**values)
    if not isinstance(preset.steps_share, int | float) or preset.steps_share <= 0:
        raise RtsrError(
            f"{path}: steps_share is {preset.steps_share!r}; it must be a number above 0."
        )
    return preset


def _parse(values: dict[str, Any], preset: Preset, origin: str) -> Plan:
    _check_names(
        values, ("title", "note", "reference", "base", "evaluation", "variants"), origin, ""
    )
    _check_tables(values, ("base", "evaluation"), origin)
    rows = values.get("variants")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise RtsrError(f"{origin} has no [[variants]]; a plan needs at least one.")
    base, evaluation = values.get("base", {}), values.get("evaluation", {})
    variants: list[Variant] = []
    for row in rows:
        variants.append(_variant(row, base, evaluation, preset, variants, origin))
    names = [variant.name for variant in variants]
    reference = values.get("reference", names[0])
    if reference not in names:
        raise RtsrError(
            f"{origin}: the reference {reference!r} is no variant; there are: {', '.join(names)}."
        )
    return Plan(
        str(values.get("title", Path(origin).stem)),
        reference,
        tuple(variants),
        str(values.get("note", "")).strip(),
    )


def _variant(
    row: dict[str, Any],
    base: dict[str, Any],
    evaluation: dict[str, Any],
    preset: Preset,
    earlier: list[Variant],
    origin: str,
) -> Variant:
    name = row.get("name")
    if not isinstance(name, str) or not folder_name(name):
        raise RtsrError(f"{origin}: a variant's name is {name!r}; give it one in letters.")
    place = f"{origin}, variant {name!r}"
    _check_names(row, ("name", "note", "from", "settings", "evaluation"), place, "")
    _check_tables(row, ("settings", "evaluation"), place)
    if folder_name(name) in {variant.folder for variant in earlier}:
        raise RtsrError(f"{place}: there is another of that name; each needs its own.")
    changes = merged(merged(base, preset.base), row.get("settings", {}))
    try:
        settings = TrainSettings.from_dict(changes)
        asked = merged(evaluation, row.get("evaluation", {}))
        judged = _evaluation(merged(asked, preset.evaluation))
    except RtsrError as error:
        raise RtsrError(f"{place}: {error}") from error
    if settings.steps is None:
        raise RtsrError(
            f"{place}: no number of steps; variants are compared at equal steps, so give steps = "
            f"[{', '.join(STAGES)}] under [base]."
        )
    taken = tuple(max(round(steps * preset.steps_share), min(steps, 1)) for steps in settings.steps)
    settings = replace(settings, steps=taken)
    variant = Variant(name, settings, judged, row.get("from"), str(row.get("note", "")).strip())
    _check_parent(variant, earlier, place)
    _check_renderings(variant, place)
    return variant


def _evaluation(values: dict[str, Any]) -> Evaluation:
    known = {entry.name: entry.default for entry in fields(Evaluation)}
    _check_names(values, known, "evaluation", "evaluation.")
    changes: dict[str, Any] = {}
    for name, value in values.items():
        kind = {"metrics": (str,), "clips_per_domain": (int,)}.get(
            name, (int,) if name in _EULER else (int, float)
        )
        given = value if isinstance(known[name], tuple) else [value]
        if not isinstance(given, list) or any(type(entry) not in kind for entry in given):
            raise RtsrError(f"evaluation.{name} is {value!r}; see the shipped plans for its form.")
        changes[name] = tuple(given) if isinstance(known[name], tuple) else value
    for cutoff in changes.get("cutoffs_hz", ()):
        check_cutoff(cutoff)
    if "metrics" in changes:
        check_metrics(changes["metrics"])
    for name in _EULER:
        if any(not 1 <= steps <= MOST_EULER_STEPS for steps in changes.get(name, ())):
            raise RtsrError(
                f"evaluation.{name} is {values[name]!r}; a flow takes 1 to {MOST_EULER_STEPS} "
                "Euler steps."
            )
    evaluation = replace(Evaluation(), **changes)
    if min((*evaluation.latent_noise, evaluation.clips_per_domain)) < 0:
        raise RtsrError("evaluation.latent_noise and clips_per_domain cannot be negative.")
    if evaluation.max_seconds < 1.0 or not evaluation.cutoffs_hz:
        raise RtsrError("evaluation needs cutoffs_hz, and max_seconds of at least 1.")
    return evaluation


def _check_parent(variant: Variant, earlier: list[Variant], place: str) -> None:
    """Only what the parent has not trained yet may differ, or the comparison would be none."""
    if variant.parent is None:
        return
    parent = next((other for other in earlier if other.name == variant.parent), None)
    if parent is None:
        raise RtsrError(
            f"{place} goes on from {variant.parent!r}, which is none of the variants before it."
        )
    last = max(stage for stage in range(len(STAGES)) if parent.steps[stage])
    if variant.steps[: last + 1] != parent.steps[: last + 1] or not any(variant.steps[last + 1 :]):
        raise RtsrError(
            f"{place} takes {list(variant.steps)} steps and goes on from {parent.name!r} with "
            f"{list(parent.steps)}; it must repeat those and add some in a later stage."
        )
    ours, theirs = (asdict(other.settings.model_config()) for other in (variant, parent))
    free = FREE_BEFORE_FLOW if last == 0 else frozenset()
    differing = sorted(name for name in ours if ours[name] != theirs[name] and name not in free)
    if differing:
        raise RtsrError(
            f"{place} changes {', '.join(differing)}, with which {parent.name!r} is trained "
            "already; train it from the start, without 'from'."
        )


def _check_renderings(variant: Variant, place: str) -> None:
    evaluation = variant.evaluation
    if evaluation.euler_steps and not variant.steps[FLOW]:
        raise RtsrError(
            f"{place} trains no flow, so there is nothing to integrate; give it "
            "evaluation = { euler_steps = [] }."
        )
    if evaluation.teacher_euler_steps and not variant.steps[REFINEMENT]:
        raise RtsrError(
            f"{place} has no refinement, so it is its own teacher; use euler_steps instead of "
            "teacher_euler_steps."
        )


def _check_tables(values: Mapping[str, Any], names: Iterable[str], place: str) -> None:
    for name in names:
        if not isinstance(values.get(name, {}), dict):
            raise RtsrError(f"{place}: {name!r} is {values[name]!r}; it must be a table.")


def _check_names(given: Iterable[str], known: Iterable[str], place: str, path: str) -> None:
    known = sorted(known)
    for name in given:
        if name not in known:
            raise RtsrError(
                f"{place}: unknown entry {path + name!r}; known ones are: {', '.join(known)}."
            )
