"""Enhancing a whole file: as a stream, aligned to the sample, with constant memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rtsr.arguments import check_real, check_stream_format
from rtsr.audio.reader import Audio, SoundInput, is_stream, open_input
from rtsr.audio.writer import OutputFile
from rtsr.bandwidth.detector import FULL_BAND_HZ, measure_cutoff_stream
from rtsr.bandwidth.file_cutoff import find_band_edge
from rtsr.colour.auto import AutoColour
from rtsr.colour.colour import Colour
from rtsr.engine.colour_learner import AUTO
from rtsr.engine.statistics import StepTimes
from rtsr.errors import ArgumentError, AudioFormatError, RtsrError
from rtsr.timing import HIGH_RATES, HOPS_PER_STEP, SAMPLE_RATE, Latency, engine_rate
from rtsr.upsampler import Upsampler
from rtsr.whole_file import check_different
from rtsr_kernels.resample import SUPPORTED_RATES, StreamingResampler

HOPS_OF_BLOCK_MS = {10 * hops: hops for hops in HOPS_PER_STEP}

#: Of half the rate. A file above 48 kHz with a band edge beyond counts as full band: converters
#: have theirs there.
_HIGHEST_EDGE = 0.7

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class EnhanceReport:
    """What :func:`enhance_file` did.

    Attributes:
        cutoff_hz: where the content of the input's end ends, as given or as measured.
        highest_cutoff_hz: the highest that it was anywhere in the input.
        block_ms: sound that one step of the engine takes in; of an input above 48 kHz less than was
            asked for, for its engine's clock is as much faster.
        real_time_factor: seconds of audio per second of compute, reading and writing included,
            loading the model not.
        added_steps: steps that added something to the input; 0 where its content reached beyond the
            ceiling throughout, or ``wet`` is 0.
        degraded_blocks: 10 ms blocks that came out without a high band.
        repaired_samples: input samples that were not usable numbers.
        limited_samples: output samples that the limiter turned down.
        clipped_samples: output samples held at full scale.
        missing_samples: samples per channel that the input promised and did not hold.
        truncated: whether a part of the input cannot be read; ``missing_samples`` is then 0 where
            nothing in it says how long that was.
        colour: what was used; of ``auto`` it says what was learnt, and from how much.
    """

    input: Path
    input_rate: int
    channels: int
    seconds: float
    cutoff_hz: float
    highest_cutoff_hz: float
    output: Path
    output_rate: int
    model: str
    provider: str
    block_ms: float
    latency: Latency
    step_ms: StepTimes
    real_time_factor: float
    added_steps: int
    degraded_blocks: int
    repaired_samples: int
    limited_samples: int
    clipped_samples: int
    missing_samples: int
    truncated: bool
    colour: Colour | AutoColour | None

    def bandwidth(self) -> str:
        """Say up to where the input has content and, of a rate above 48 kHz, what that means."""
        highest_hz = self.highest_cutoff_hz
        content = f"content of the input up to {highest_hz:.0f} Hz"
        if self.input_rate not in HIGH_RATES:
            return content
        if highest_hz >= FULL_BAND_HZ * self.input_rate / SAMPLE_RATE:
            return f"{content}: full band"
        rates = (*SUPPORTED_RATES, *HIGH_RATES)
        enough = min((rate for rate in rates if rate >= 2 * highest_hz), default=self.input_rate)
        return f"{content}: a rate of {enough} Hz would hold all of it"

    def to_json(self) -> dict[str, Any]:
        """Return the report as an object for ``json.dumps``."""
        return {
            "input": {
                "path": str(self.input),
                "rate": self.input_rate,
                "channels": self.channels,
                "seconds": round(self.seconds, 6),
                "cutoff_hz": round(self.cutoff_hz, 1),
                "highest_cutoff_hz": round(self.highest_cutoff_hz, 1),
                "missing_samples": self.missing_samples,
                "truncated": self.truncated,
            },
            "output": str(self.output),
            "output_rate": self.output_rate,
            "model": self.model,
            "provider": self.provider,
            "block_ms": round(self.block_ms, 4),
            "latency": {
                "parts": _rounded(self.latency.parts_ms),
                "algorithmic_ms": round(self.latency.algorithmic_ms, 4),
                "algorithmic_samples": self.latency.algorithmic_samples,
            },
            "step_ms": _rounded(asdict(self.step_ms)),
            "real_time_factor": round(self.real_time_factor, 3),
            "added_steps": self.added_steps,
            "degraded_blocks": self.degraded_blocks,
            "repaired_samples": self.repaired_samples,
            "limited_samples": self.limited_samples,
            "clipped_samples": self.clipped_samples,
            "colour": self._colour_to_json(),
        }

    def _colour_to_json(self) -> dict[str, Any] | None:
        """Return what a colour rests on: one that was given, or what was learnt meanwhile."""
        if isinstance(self.colour, Colour):
            return {"seconds": round(self.colour.seconds, 2)}
        if self.colour is None:
            return None
        return {"heard_hops": self.colour.heard_hops, "learnt_hops": self.colour.learnt_hops}

    def warnings(self) -> list[str]:
        """One sentence for each repair that was made."""
        sentences = []
        if self.missing_samples:
            sentences.append(
                f"Input file '{self.input}' is truncated or damaged: {self.missing_samples} "
                "samples that it promises cannot be read, and the output is without them."
            )
        elif self.truncated:
            sentences.append(
                f"Input file '{self.input}' is truncated, damaged or several files in one: a part "
                "of unknown length cannot be read, and the output is without it."
            )
        if self.repaired_samples:
            sentences.append(
                f"{self.repaired_samples} input samples were not usable numbers and were replaced."
            )
        if self.clipped_samples:
            sentences.append(
                f"{self.clipped_samples} output samples exceeded full scale and were held there; "
                "lower the input's level or write --subtype FLOAT."
            )
        if self.degraded_blocks:
            sentences.append(f"{self.degraded_blocks} blocks came out without a high band.")
        return sentences


def enhance_file(
    input: str | Path,
    output: str | Path,
    *,
    model: str | Path = "small",
    provider: str = "auto",
    block_ms: int = 160,
    seed: int = 0,
    wet: float = 1.0,
    cutoff: float | None = None,
    ceiling: float | None = None,
    threads: int = 1,
    output_rate: int | None = None,
    limiter: bool = True,
    subtype: str | None = None,
    progress: Progress | None = None,
    colour: Colour | AutoColour | str | None = None,
    octave_model: str | Path | None = None,
) -> EnhanceReport:
    """Read a sound file, write its full-band version.

    The output has exactly ``round(n * output_rate / input_rate)`` samples per channel and is
    aligned with the input to the sample. It appears under its name only when it is whole. Title,
    artist, album, date, track, genre, comment, copyright and licence go with it where its format
    has them, and the speakers of more than two channels; pictures, cue points and other chunks do
    not.

    Args:
        input: any file that libsndfile or PyAV reads, 8 to 48 kHz or 88.2, 96, 176.4 or 192 kHz, up
            to 8 channels. One whose content reaches beyond seven tenths of its band counts as full
            band and passes bit for bit, samples of more than 24 bits rounded to 24.
        output: written in the format that its extension names.
        model: as for :class:`~rtsr.upsampler.Upsampler`, like all arguments without a word on them.
        provider: execution provider.
        block_ms: 10, 20, 40, 80 or 160, of an input above 48 kHz on its engine's clock; larger
            blocks are faster and give the same within rounding, but that a colour follows the
            cutoff once per block. Nobody waits for a file, so the largest is the default.
        seed: of the noise.
        wet: gain of the generated band, 0 to 1.
        cutoff: Hz where the content ends; ``None`` measures it, in advance in the first 20 s, and
            above 48 kHz, where they show no limit, in the whole file.
        ceiling: Hz where the output ends; ``None`` leaves that to the model.
        threads: within one step.
        output_rate: Hz of the output; ``None`` is 48000, or the input's own rate where that is
            higher.
        limiter: whether what exceeds -1 dBFS is turned down.
        subtype: sample format of the output (``PCM_16``, ``PCM_24``, ``FLOAT``, ...); that of the
            input if it is at least 16 bits and the output can hold it.
        progress: called with the frames done and the frames in total.
        colour: gains of the generated band that were learnt; ``auto`` learns them where the file's
            own band is wide, and waits for that, so that a file always gives the same.
        octave_model: what makes the octaves beyond 48 kHz; if ``None``, ``octave`` where a bundled
            network has one octave beside it, otherwise ``model``.

    Raises:
        AudioFormatError: input or output in a form that is not accepted.
        ArgumentError: a value is out of its range.
        RtsrError: equal paths, nothing in the input, a full disk.
    """
    source, target = Path(input), Path(output)
    if cutoff is None and is_stream(source):
        raise AudioFormatError(
            f"Input '{source}' is a pipe or a device, and a file is read twice, first to measure "
            "where its content ends; give the cutoff (--cutoff HZ), which works for WAV, AIFF, AU, "
            "MP3 and Ogg, or save it as a file first."
        )
    check_real("block length", block_ms)
    if block_ms not in HOPS_OF_BLOCK_MS:
        accepted = ", ".join(map(str, HOPS_OF_BLOCK_MS))
        raise ArgumentError(f"The block length must be one of {accepted} ms, not {block_ms}.")
    if isinstance(colour, str) and colour == AUTO:
        colour = AutoColour(waits=True)
    with open_input(source) as reader:
        check_different(source, target)
        output_rate = check_stream_format(reader.rate, output_rate, reader.channels)
        settings: dict[str, Any] = {
            "model": model,
            "provider": provider,
            "channels": reader.channels,
            "hops_per_step": HOPS_OF_BLOCK_MS[block_ms],
            "seed": seed,
            "wet": wet,
            "cutoff": cutoff,
            "ceiling": ceiling,
            "threads": threads,
            "output_rate": output_rate,
            "limiter": limiter,
            "colour": colour,
            "octave_model": octave_model,
        }
        scanning = time.perf_counter()
        expected = _scan(source, reader) if cutoff is None else None
        scanned = time.perf_counter() - scanning
        with Upsampler(reader.rate, **settings, expected_cutoff=expected) as upsampler:
            frames = round(reader.frames * output_rate / reader.rate)
            with OutputFile(
                target,
                output_rate,
                reader.channels,
                frames,
                reader.subtype,
                subtype,
                reader.speakers,
                reader.tags,
                reader.length_is_stated,
            ) as writer:
                started = time.perf_counter()
                received, cutoff_hz, highest_hz = _stream(reader, upsampler, writer, progress)
                writer.commit()
                elapsed = time.perf_counter() - started + scanned
            return EnhanceReport(
                input=source,
                input_rate=reader.rate,
                channels=reader.channels,
                seconds=received / reader.rate,
                cutoff_hz=cutoff_hz,
                highest_cutoff_hz=highest_hz,
                output=target,
                output_rate=output_rate,
                model=upsampler.model.name,
                provider=upsampler.provider,
                block_ms=block_ms * SAMPLE_RATE / engine_rate(reader.rate),
                latency=upsampler.latency,
                step_ms=upsampler.statistics.step_ms,
                real_time_factor=received / reader.rate / elapsed,
                added_steps=upsampler.statistics.added_steps,
                degraded_blocks=upsampler.statistics.degraded_blocks,
                repaired_samples=upsampler.statistics.repaired_samples,
                limited_samples=upsampler.statistics.limited_samples,
                clipped_samples=writer.clipped_samples,
                missing_samples=reader.missing_frames,
                truncated=reader.truncated,
                colour=upsampler.colour,
            )


def _stream(
    reader: SoundInput, upsampler: Upsampler, writer: OutputFile, progress: Progress | None
) -> tuple[int, float, float]:
    """Move all blocks; returns the frames read, the cutoff at their end and the highest one."""
    early = upsampler.latency.algorithmic_samples
    received = 0
    highest_hz = 0.0
    for block in reader.blocks():
        received += len(block)
        wide = upsampler.process(block)
        if upsampler.statistics.steps:  # before the first one nothing is measured
            highest_hz = max(highest_hz, upsampler.cutoff_hz)
        if early < len(wide):
            writer.write(wide[early:])
        early = max(0, early - len(wide))
        if progress is not None:
            progress(received, max(received, reader.frames))
    if not received:
        raise RtsrError(f"Input file '{reader.path}' is damaged: no sample of it can be decoded.")
    cutoff_hz = upsampler.cutoff_hz
    rest = upsampler.flush().reshape(-1, upsampler.channels)
    writer.write(rest[early:])
    return received, cutoff_hz, max(highest_hz, cutoff_hz)


def _scan(source: Path, reader: SoundInput) -> float:
    """Look through the beginning, so that the high band is right from the first sample on.

    Of a rate above 48 kHz, look through the whole file where that shows no limit: most such files
    have one, and in some it is too faint or too rare to be told within a stream.
    """
    measured_rate = engine_rate(reader.rate)
    # What is not converted is as it would be at any rate.
    resampler = StreamingResampler(min(reader.rate, SAMPLE_RATE), SAMPLE_RATE, reader.channels)
    with open_input(source) as file:
        wide = (resampler.process(block) for block in _usable(file))
        found_hz = measure_cutoff_stream(wide, measured_rate, native_hz=reader.rate / 2)
    if reader.rate in HIGH_RATES and found_hz == reader.rate / 2:
        with open_input(source) as file:
            edge_hz = find_band_edge(_usable(file), reader.rate)
        if edge_hz is not None and edge_hz < _HIGHEST_EDGE * reader.rate / 2:
            return edge_hz
    return found_hz


def _usable(file: SoundInput) -> Iterator[Audio]:
    """Yield the blocks of a file, zero where they hold no usable numbers."""
    for block in file.blocks():
        yield np.nan_to_num(block, nan=0.0, posinf=0.0, neginf=0.0)


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}
