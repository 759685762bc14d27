"""Pictures of a quality report: spectrograms side by side, metrics as dots, conditions as lines."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rtsr.errors import MissingDependencyError
from rtsr.quality.spectrogram import level_picture
from rtsr.spectra.stft import power_chunks
from rtsr.timing import SAMPLE_RATE
from rtsr.train.excerpt import loudest_start
from rtsr_bench.quality.report import METRIC_NOTES, NEAR_ZERO

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Signal = NDArray[np.float64]

#: What the two rows of a spectrogram show: everything, and a moment around the cutoff.
WIDE_SECONDS, CLOSE_SECONDS = 2.5, 0.8
_FFT = 2048
_QUIETEST_DB = -100.0
_RESOLUTION = 90
_COLOURS = ("#6b7280", "#d1490c", "#0a6fc2", "#15803d", "#9333ea", "#b58900", "#0e9aa7", "#db2777")
_MARKERS = {"speech": "o", "effects": "s", "music": "^", "unknown": "D"}


def save_side_by_side(
    path: Path,
    panels: Sequence[tuple[str, Signal]],
    title: str,
    cutoff_hz: float,
    sample_rate: int = SAMPLE_RATE,
) -> None:
    """Spectrograms from left to right: above the whole band, below a moment of 0 to 3 x cutoff.

    Args:
        path: PNG file to write.
        panels: (label, signal of shape (samples,) at ``sample_rate``), aligned; the last is the
            reference, whose loudest moments are shown.
        title: above everything.
        cutoff_hz: of the input, drawn as a dashed line.
        sample_rate: Hz of the signals.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    reference = panels[-1][1]
    figure = _figure(2.9 * len(panels) + 0.9, 6.4, title)
    axes = figure.subplots(2, len(panels), squeeze=False, sharey="row")
    top_khz = min(3.0 * cutoff_hz, sample_rate / 2) / 1000.0
    rows = ((WIDE_SECONDS, sample_rate / 2000.0), (CLOSE_SECONDS, top_khz))
    for row, (seconds, highest_khz) in enumerate(rows):
        start = loudest_start(reference, round(seconds * sample_rate))
        stop = start + round(seconds * sample_rate)
        for axis, (label, signal) in zip(axes[row], panels, strict=True):
            image = axis.imshow(
                level_picture(signal[start:stop])[0],
                origin="lower",
                aspect="auto",
                cmap="magma",
                vmin=_QUIETEST_DB,
                vmax=-10.0,
                extent=(0.0, signal[start:stop].size / sample_rate, 0.0, sample_rate / 2000.0),
            )
            axis.set_ylim(0.0, highest_khz)
            axis.axhline(cutoff_hz / 1000.0, color="white", linestyle="--", linewidth=0.8)
            if row == 0:
                axis.set_title(label)
            else:
                axis.set_xlabel("time in s")
        axes[row][0].set_ylabel("frequency in kHz")
    figure.colorbar(image, ax=axes, label="dB of a full-scale sine", pad=0.01)
    _write(figure, path)


def save_metrics(
    path: Path, systems: Mapping[str, Any], metrics: Sequence[str], title: str
) -> None:
    """One field per metric, one row per system, one dot per domain.

    Args:
        path: PNG file to write.
        systems: :class:`~rtsr_bench.corpus.Scores` as JSON, by system.
        metrics: one field for each.
        title: above everything.
    """
    columns = min(4, len(metrics))
    rows = -(-len(metrics) // columns)
    figure = _figure(3.4 * columns, 1.1 + rows * (0.9 + 0.24 * len(systems)), title)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    names = list(systems)
    for axis, metric in zip(axes, metrics, strict=False):
        low, high = _range(systems, metric)
        axis.set_xlim(low, high)
        for domain, marker in _MARKERS.items():
            values = [row["by_domain"].get(domain, {}).get(metric) for row in systems.values()]
            for at, value in enumerate(values):
                if value is not None:
                    is_inside = low <= value <= high
                    axis.plot(
                        min(max(value, low), high),
                        at,
                        marker,
                        color=_colour(at),
                        markersize=7,
                        fillstyle="none" if is_inside else "full",
                        markeredgewidth=1.6,
                        clip_on=False,
                    )
        better = METRIC_NOTES.get(metric, ("", "", 0))[1]
        axis.set_title(f"{metric}  ({better})" if better else metric, fontsize="medium")
        axis.grid(axis="x", alpha=0.3)
        axis.grid(axis="y", alpha=0.15)
        if better == NEAR_ZERO and axis.get_xlim()[0] <= 0.0 <= axis.get_xlim()[1]:
            axis.axvline(0.0, color="#1c2430", linewidth=0.8)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    for axis in axes[len(metrics) :]:
        axis.set_axis_off()
    keys = [
        axes[0].plot([], [], marker, color="#1c2430", fillstyle="none", label=domain)[0]
        for domain, marker in _MARKERS.items()
    ]
    keys += axes[0].plot([], [], "D", color=_COLOURS[0], label="filled: off the scale")
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys), frameon=False)
    _write(figure, path)


def save_conditions(path: Path, conditions: Mapping[str, Any], metrics: Sequence[str]) -> None:
    """Metrics down, domains across, kinds of degradation along each axis, one line per system.

    Args:
        path: PNG file to write.
        conditions: as in the report: ``titles``, ``cutoff_hz`` and ``scores``.
        metrics: one row for each.
    """
    scores, titles = conditions["scores"], conditions["titles"]
    domains = list(next(iter(next(iter(scores.values())).values()))["by_domain"])
    title = f"Content to {conditions['cutoff_hz'] / 1000:g} kHz, degraded in other ways"
    figure = _figure(4.2 * len(domains), 1.6 + 2.3 * len(metrics), title)
    axes = figure.subplots(len(metrics), len(domains), squeeze=False, sharex=True, sharey="row")
    for row, metric in enumerate(metrics):
        for axis, domain in zip(axes[row], domains, strict=True):
            for at, (system, by_condition) in enumerate(scores.items()):
                rows = [by_condition.get(key, {"by_domain": {}})["by_domain"] for key in titles]
                values = [row.get(domain, {}).get(metric) for row in rows]
                heights = [np.nan if value is None else value for value in values]
                # Lines that lie on each other stay visible.
                style = "o-" if at % 2 else "s--"
                axis.plot(heights, style, color=_colour(at), markersize=4, label=system)
            axis.grid(alpha=0.3)
            if row == 0:
                axis.set_title(domain)
        axes[row][0].set_ylabel(f"{metric}\n({METRIC_NOTES.get(metric, ('', '', 0))[1]})")
    for axis in axes[-1]:
        axis.set_xticks(range(len(titles)), titles.values(), rotation=40, ha="right")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    _write(figure, path)


def tonality(signal: Signal, low_hz: float, high_hz: float) -> float:
    """How much of a band is partials: 1 minus the spectral flatness of its louder frames.

    Flatness is the geometric over the arithmetic mean of a frame's power (Johnston 1988); frames
    within 20 dB of the loudest count, weighted alike.
    """
    power = np.concatenate(list(power_chunks(signal, _FFT, 512)))
    bins = np.fft.rfftfreq(_FFT, 1.0 / SAMPLE_RATE)
    inside = np.maximum(power[:, (bins >= low_hz) & (bins < high_hz)], 1e-9)
    energy = inside.mean(axis=1)
    loud = energy > 0.01 * energy.max()
    flatness = np.exp(np.log(inside[loud]).mean(axis=1)) / energy[loud]
    return float(1.0 - flatness.mean())


def check_drawing() -> None:
    """Fail now and not after an hour of scoring.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    _figure(1.0, 1.0, "")


def _range(systems: Mapping[str, Any], metric: str) -> tuple[float, float]:
    """Around what the systems reached: the bare input is so far off that all would be one dot."""
    scored = [row for name, row in systems.items() if name != "input"] or list(systems.values())
    values = [v for row in scored for one in row["by_domain"].values() if (v := one.get(metric)) is
              not None]  # fmt: skip
    if not values:
        return 0.0, 1.0
    margin = 0.12 * (max(values) - min(values)) or max(0.05 * abs(values[0]), 1e-3)
    return min(values) - margin, max(values) + margin


def _colour(index: int) -> str:
    return _COLOURS[index % len(_COLOURS)]


def _figure(width: float, height: float, title: str) -> Figure:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("Drawing the report's pictures", "eval") from error
    figure = Figure(figsize=(width, height), dpi=_RESOLUTION, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    return figure


def _write(figure: Figure, path: Path) -> None:
    # Comes with matplotlib.
    from PIL import Image

    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    beside = path.with_name(f".partial-{path.name}")
    # A palette makes a third of the size: reports are kept beside the source.
    with Image.open(drawn) as picture:
        palette = picture.convert("RGB").quantize(
            256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        )
        palette.save(beside, format="png", optimize=True)
    beside.replace(path)
