"""Sentences and numbers of results, the same on a terminal and in a report."""

from __future__ import annotations

from typing import Any

from rtsr_bench.speed.matrix import MODEL, counted
from rtsr_bench.speed.summary import STEPS_FOR_P99_9


def verdict(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Say of each model and provider whether it keeps up, at its fewest hops and streams.

    Returns:
        (``good`` or ``bad``, sentence) of each.
    """
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for case in results["cases"]:
        if case["kind"] == MODEL and "figures" in case:
            key = (case["name"], case["precision"], case["provider"])
            best = found.setdefault(key, case)
            if (case["hops"], case["streams"]) < (best["hops"], best["streams"]):
                found[key] = case
    lines = []
    for key, case in found.items():
        name, precision, provider = key
        figures, period = case["figures"], case["period_ms"]
        keeps_up = figures["p99_9_ms"] < period
        text = (
            f"{name} {precision} on {provider} {'keeps up' if keeps_up else 'does not keep up'}: "
            f"{counted(case['streams'], 'stream')}, {period:g} ms of sound in "
            f"{three_digits(figures['p50_ms'])} ms (p99.9 {three_digits(figures['p99_9_ms'])})"
        )
        for search in results["searches"]:
            if (search["name"], search["precision"], search["provider"]) == key:
                text += f"; streams that fit: {found_streams(search)}"
                break
        lines.append(("good" if keeps_up else "bad", f"{text}."))
    return lines


def doubts(results: dict[str, Any]) -> list[str]:
    """List what speaks against these figures, and what could not be measured."""
    cases = results["cases"]
    lines = []
    unsteady = [case["label"] for case in cases if case.get("steady") is False]
    if unsteady:
        lines.append(
            f"* Not in a steady state ({len(unsteady)} of {len(cases)} cases): warm-up did not "
            "settle, or a run's end differs from its beginning by more than 5 %."
        )
    busy = results["machine"]["load_average"]
    threads = results["machine"]["cpu"]["usable_threads"]
    if busy is not None and threads and busy > 0.5 * threads:
        lines.append(
            f"The machine was busy before it began (load {busy:g} on {threads} threads): "
            "these figures are not its own."
        )
    return lines + [f"{case['label']}: {case['error']}" for case in cases if case["error"]]


def notes(results: dict[str, Any]) -> list[str]:
    """List the sentences that belong under the tables of a terminal."""
    lines = [f"{machine_line(results)}.", f"{protocol_line(results)}."]
    if any(is_short(case) for case in results["cases"]):
        lines.append(f"~ From fewer than {STEPS_FOR_P99_9} steps: close to the slowest of all.")
    if quality := known_quality(results):
        values = "; ".join(f"{name} {value}" for name, value in quality.items())
        lines.append(f"ViSQOL of 8 kHz input, {quality_domains(results)}: {values}.")
    return lines + doubts(results)


def known_quality(results: dict[str, Any]) -> dict[str, str]:
    """Collect ViSQOL of 8 kHz input, by model and precision, as models' cards have it."""
    return {
        name: " / ".join(f"{value:.2f}" for value in card["8 kHz"]["visqol"])
        for name, card in results.get("quality", {}).items()
        if "visqol" in card.get("8 kHz", {})
    }


def quality_domains(results: dict[str, Any]) -> str:
    """Name the domains of :func:`known_quality`; empty where nothing is known."""
    for card in results.get("quality", {}).values():
        _, found, domains = card.get("clips", "").partition("medians ")
        if found:
            return str(domains.partition(";")[0])
    return ""


def protocol_line(results: dict[str, Any]) -> str:
    """Say how it was measured."""
    protocol = results["protocol"]
    pace = "one step per period" if protocol["paced"] else "back to back"
    return (
        f"{counted(protocol['repetitions'], 'repetition')} of {protocol['seconds']:g} s in fresh "
        f"processes, taken in turns, {pace}; "
        f"host to host, copies included; {results['seconds']:.0f} s in all"
    )


def machine_line(results: dict[str, Any]) -> str:
    """Say on what it was measured."""
    machine, software = results["machine"], results["software"]
    cpu = machine["cpu"]
    parts = [f"{cpu['model'] or cpu['architecture']} ({cpu['usable_threads']} threads)"]
    parts += [f"{gpu['name']}, driver {gpu['driver_version']}" for gpu in machine["gpus"]]
    libraries = software["libraries"]
    parts += [f"{name} {libraries[name]}" for name in libraries if name.startswith("onnxruntime")]
    revision = software["revision"]
    parts.append(f"rtsr {software['rtsr']}" + (f" at {revision[:12]}" if revision else ""))
    return ", ".join(parts)


def is_short(case: dict[str, Any]) -> bool:
    """Tell whether a case has too few steps for its p99.9."""
    return "figures" in case and case["figures"]["steps"] < STEPS_FOR_P99_9


def found_streams(search: dict[str, Any]) -> str:
    """Write the number that a search found, and whether it is sure of it."""
    if not search["trials"]:
        return "no time left"
    return f"{search['streams']}" + ("" if search["finished"] else " (not confirmed)")


def three_digits(value: float | None) -> str:
    """Write three significant digits, as far as they are of use."""
    if value is None:
        return "-"
    if value >= 100.0 or isinstance(value, int):
        return f"{value:.0f}"
    return f"{value:.3g}" if value >= 0.1 else f"{value:.3f}"


def whole_number(value: float | None) -> str:
    """Write a number without decimals, or a dash."""
    return "-" if value is None else f"{value:.0f}"
