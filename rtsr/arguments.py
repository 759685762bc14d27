"""What an :class:`~rtsr.upsampler.Upsampler` accepts; one sentence for each refusal."""

from __future__ import annotations

import os

from rtsr.errors import AudioFormatError, RtsrError
from rtsr.latency import ENGINE_RATE
from rtsr.runtime.session import HOPS_PER_STEP
from rtsr_kernels.resample import SUPPORTED_RATES

OUTPUT_RATES = (48000, 44100)
MAX_CHANNELS = 8
MIN_CUTOFF_HZ = 500.0
MAX_CUTOFF_HZ = 24000.0


def check_audio_format(input_rate: int, output_rate: int, channels: int) -> None:
    """Raise :class:`AudioFormatError` unless an :class:`Upsampler` takes this format."""
    if input_rate not in SUPPORTED_RATES:
        accepted = ", ".join(map(str, SUPPORTED_RATES))
        hint = "; there is nothing to add above 48 kHz" if input_rate > ENGINE_RATE else ""
        raise AudioFormatError(
            f"A sample rate of {input_rate} Hz is not supported; accepted: {accepted}{hint}."
        )
    if output_rate not in OUTPUT_RATES:
        accepted = " or ".join(map(str, OUTPUT_RATES))
        raise AudioFormatError(f"The output rate must be {accepted} Hz, not {output_rate}.")
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioFormatError(
            f"Audio with {channels} channels is not supported; accepted: 1 to {MAX_CHANNELS}."
        )


def check_arguments(
    hops_per_step: int,
    seed: int,
    wet: float,
    cutoff: float | None,
    ceiling: float | None,
    threads: int,
) -> None:
    """Raise :class:`RtsrError` if one of these arguments is out of range."""
    if hops_per_step not in HOPS_PER_STEP:
        accepted = ", ".join(map(str, HOPS_PER_STEP))
        raise RtsrError(f"hops_per_step must be one of {accepted}, not {hops_per_step}.")
    if not -(2**63) <= seed < 2**63:
        raise RtsrError(f"The seed must be a 64-bit integer, not {seed}.")
    check_wet(wet)
    for name, value in (("cutoff", cutoff), ("ceiling", ceiling)):
        if value is not None and not MIN_CUTOFF_HZ <= value <= MAX_CUTOFF_HZ:
            raise RtsrError(
                f"The {name} must lie between {MIN_CUTOFF_HZ:.0f} and {MAX_CUTOFF_HZ:.0f} Hz, "
                f"not at {value:g} Hz."
            )
    cores = os.cpu_count() or 1
    if not 1 <= threads <= cores:
        raise RtsrError(f"A step takes 1 to {cores} threads on this machine, not {threads}.")


def check_wet(wet: float) -> None:
    """Raise :class:`RtsrError` unless the gain lies between 0 and 1."""
    if not 0.0 <= wet <= 1.0:
        raise RtsrError(f"The wet gain must lie between 0 and 1, not at {wet:g}.")
