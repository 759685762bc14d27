"""``rtsr demo``: stream a packaged recording in 10 ms blocks and show what happened."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtsr.cli import options
from rtsr.cli.enhance_files import make_folder
from rtsr.errors import ArgumentError, MissingDependencyError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rtsr.engine.statistics import StepTimes
    from rtsr.upsampler import Upsampler

# A packaged clip is a pair of files: NAME_8k.EXT, what came through the telephone, and
# NAME_reference.EXT, what was said.
_NARROW = "_8k"
_REFERENCE = "_reference"

_METRICS = ("visqol", "lsd", "lsd_near", "mel_hf", "hf_bias_db", "lf_sisdr")
_BETTER = {"visqol": "higher", "lf_sisdr": "higher", "hf_bias_db": "nearer 0"}


@dataclass(frozen=True)
class _Streamed:
    audio: NDArray[np.float32]
    seconds: float
    compute_seconds: float
    step_ms: StepTimes


def demo_command(
    folder: Annotated[
        Path, typer.Argument(help="Where to write the sound files and the picture.")
    ] = Path("rtsr-demo"),
    clip: Annotated[
        str, typer.Option("--clip", help="Which packaged recording: speech or music.")
    ] = "speech",
    model: options.Model = "small",
    provider: options.Provider = "auto",
    threads: options.Threads = 1,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of tables.")
    ] = False,
) -> None:
    r"""Stream a packaged 8 kHz recording in 10 ms blocks, and show what it did.

    Prints latency, step times and speed, and with rtsr\[eval] installed the
    quality against the full-band original. Writes the enhanced sound and a
    picture of its spectrum.
    """
    from rtsr.audio.reader import InputFile
    from rtsr.upsampler import Upsampler

    if as_json:
        options.check_stdout()
    narrow_file, reference_file = _clip_files(clip)
    with InputFile(narrow_file) as file:
        narrow, rate = _read(file), file.rate
    with InputFile(reference_file) as file:
        reference, reference_rate = _read(file), file.rate
    make_folder(folder)
    started = time.perf_counter()
    with Upsampler(rate, model=model, provider=provider, threads=threads) as upsampler:
        streamed = _stream(upsampler, narrow, narrow_file.name, not as_json)
        start_ms = 1000.0 * (time.perf_counter() - started - streamed.compute_seconds)
        upsampler.reset()
        upsampler.wet = 0.0
        untouched = _stream(upsampler, narrow, "", False)
        result: dict[str, Any] = {
            "clip": clip,
            "model": upsampler.model.name,
            "provider": upsampler.provider,
            "seconds": streamed.seconds,
            "start_ms": start_ms,
            "latency": {
                "parts": upsampler.latency.parts_ms,
                "algorithmic_ms": upsampler.latency.algorithmic_ms,
                "algorithmic_samples": upsampler.latency.algorithmic_samples,
            },
            "step_ms": asdict(streamed.step_ms),
            "real_time_factor": streamed.seconds / streamed.compute_seconds,
        }
    written = [
        _write(folder / f"{clip}-input.wav", untouched.audio),
        _write(folder / f"{clip}-enhanced.wav", streamed.audio),
    ]
    notes = []
    try:
        result["quality"] = _evaluate(
            _at_48_khz(reference, reference_rate), untouched.audio, streamed.audio, rate / 2
        )
        if "visqol" not in result["quality"]["enhanced"]:
            notes.append('ViSQOL left out; it needs: pip install "rtsr[eval]".')
    except (MissingDependencyError, ImportError):
        notes.append('Quality left out; it needs: pip install "rtsr[eval]".')
    try:
        written.append(
            _picture(
                folder / f"{clip}.png", reference, reference_rate, untouched, streamed, rate / 2
            )
        )
    except (MissingDependencyError, ImportError):
        notes.append('Picture left out; it needs: pip install "rtsr[eval]".')
    result["written"] = [str(path) for path in written]
    if as_json:
        typer.echo(json.dumps(_without_nan(result), allow_nan=False))
    else:
        _print(result)
    for note in notes:
        typer.echo(note, err=True)


def _clip_files(clip: str) -> tuple[Path, Path]:
    folder = resources.files("rtsr").joinpath("demo_data")
    files = [Path(str(entry)) for entry in folder.iterdir()] if folder.is_dir() else []
    by_stem = {path.stem: path for path in files if path.suffix in (".wav", ".flac")}
    names = sorted(
        stem.removesuffix(_NARROW)
        for stem in by_stem
        if stem.endswith(_NARROW) and stem.removesuffix(_NARROW) + _REFERENCE in by_stem
    )
    if clip not in names:
        known = ", ".join(names) or "none in this installation"
        raise ArgumentError(f"There is no packaged recording {clip!r}; there is: {known}.")
    return by_stem[clip + _NARROW], by_stem[clip + _REFERENCE]


def _read(file: Any) -> NDArray[np.float32]:
    import numpy as np

    return np.concatenate([block[:, 0] for block in file.blocks()])


def _stream(upsampler: Upsampler, narrow: NDArray[np.float32], label: str, show: bool) -> _Streamed:
    """Feed blocks of 10 ms; the result is aligned with the input."""
    import numpy as np

    from rtsr.cli.progress import AudioProgress

    upsampler.statistics.clear()
    block = upsampler.input_rate // 100
    parts = []
    started = time.perf_counter()
    with AudioProgress(label, upsampler.input_rate, show) as progress:
        for start in range(0, len(narrow), block):
            parts.append(upsampler.process(narrow[start : start + block]))
            progress.show(min(start + block, len(narrow)), len(narrow))
        parts.append(upsampler.flush())
    seconds = time.perf_counter() - started
    audio = np.concatenate(parts)[upsampler.latency.algorithmic_samples :]
    times = upsampler.statistics.step_ms
    return _Streamed(audio, len(narrow) / upsampler.input_rate, seconds, times)


def _write(path: Path, audio: NDArray[np.float32]) -> Path:
    from rtsr.audio.writer import OutputFile
    from rtsr.timing import SAMPLE_RATE

    with OutputFile(path, SAMPLE_RATE, 1, len(audio)) as file:
        file.write(audio[:, None])
        file.commit()
    return path


def _at_48_khz(audio: NDArray[np.float32], rate: int) -> NDArray[np.float64]:
    import numpy as np

    from rtsr.quality.audio import to_rate

    return to_rate(audio.astype(np.float64), rate)


def _evaluate(
    reference: NDArray[np.float64],
    untouched: NDArray[np.float32],
    enhanced: NDArray[np.float32],
    cutoff_hz: float,
) -> dict[str, dict[str, float]]:
    from rtsr.quality.evaluation import default_metrics, evaluate

    names = [name for name in _METRICS if name in default_metrics()]
    return {
        "input": evaluate(reference, untouched, cutoff_hz, names),
        "enhanced": evaluate(reference, enhanced, cutoff_hz, names),
    }


def _picture(
    path: Path,
    reference: NDArray[np.float32],
    reference_rate: int,
    untouched: _Streamed,
    enhanced: _Streamed,
    cutoff_hz: float,
) -> Path:
    from rtsr.quality.spectrogram import save_spectrograms
    from rtsr.timing import SAMPLE_RATE

    panels = [
        ("input", _at_48_khz(untouched.audio, SAMPLE_RATE)),
        ("enhanced", _at_48_khz(enhanced.audio, SAMPLE_RATE)),
        ("original", _at_48_khz(reference, reference_rate)),
    ]
    save_spectrograms(
        path, panels, title=f"rtsr demo: {path.stem}, 10 ms blocks", cutoff_hz=cutoff_hz
    )
    return path


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: a metric that is not defined for these signals is null."""
    if isinstance(value, dict):
        return {name: _without_nan(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _print(result: dict[str, Any]) -> None:
    from rich.table import Table

    from rtsr.terminal import plain_console

    console = plain_console()
    console.print(f"{result['clip']}, model {result['model']} on {result['provider']}")
    stream = Table()
    stream.add_column("latency")
    stream.add_column("ms", justify="right")
    for name, milliseconds in result["latency"]["parts"].items():
        if milliseconds:
            stream.add_row(name.replace("_", " "), f"{milliseconds:.2f}")
    stream.add_row("algorithmic", f"{result['latency']['algorithmic_ms']:.2f}", style="bold")
    stream.add_section()
    for name, milliseconds in result["step_ms"].items():
        stream.add_row(f"step {name.replace('p99_9', 'p99.9')}", f"{milliseconds:.2f}")
    console.print(stream)
    console.print(
        f"{result['seconds']:.1f} s of sound, {result['real_time_factor']:.1f}x real time, "
        f"ready after {result['start_ms']:.0f} ms"
    )
    if "quality" in result:
        quality = Table(title="against the full-band original")
        for heading in ("metric", "input", "enhanced"):
            quality.add_column(heading, justify="left" if heading == "metric" else "right")
        quality.add_column("better is")
        for name, before in result["quality"]["input"].items():
            after = result["quality"]["enhanced"][name]
            quality.add_row(name, f"{before:.3f}", f"{after:.3f}", _BETTER.get(name, "lower"))
        console.print(quality)
    for path in result["written"]:
        console.print(f"wrote {path}", highlight=False, soft_wrap=True)
