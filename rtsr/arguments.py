"""What an :class:`~rtsr.upsampler.Upsampler` accepts; one sentence for each refusal."""

from __future__ import annotations

import math
import numbers
import operator
import os
from collections.abc import Sequence
from typing import Any

from rtsr.errors import ArgumentError, AudioFormatError, RtsrError
from rtsr.runtime.metadata import LOWEST_TARGET_HZ
from rtsr.timing import HIGH_RATES, HOPS_PER_STEP, SAMPLE_RATE, engine_rate
from rtsr_kernels.highpass import LOWEST_CUTOFF_HZ
from rtsr_kernels.ports import OUTPUT_RATES
from rtsr_kernels.resample import SUPPORTED_RATES

MAX_CHANNELS = 8
MIN_CUTOFF_HZ = LOWEST_TARGET_HZ
MAX_CUTOFF_HZ = 24000.0
#: output rates in Hz that inputs up to 48 kHz reach by octaves
_DOUBLED_RATES = (192000, 96000)


def check_audio_format(input_rate: int, output_rate: int, channels: int) -> None:
    """Raise :class:`AudioFormatError` unless every kind of stream takes this format."""
    _check_integers(input_rate, output_rate, channels)
    if input_rate not in SUPPORTED_RATES:
        hint = (
            "; only Upsampler, files, pipes and live go beyond" if input_rate in HIGH_RATES else ""
        )
        raise AudioFormatError(
            f"A sample rate of {input_rate} Hz is not supported; accepted: "
            f"{_listed(SUPPORTED_RATES)}{hint}."
        )
    _check_output_rate(output_rate, OUTPUT_RATES)
    _check_channels(channels)


def check_stream_format(input_rate: int, output_rate: int | None, channels: int) -> int:
    """Return the output rate in Hz, where the format is one that an :class:`Upsampler` takes.

    Inputs up to 48 kHz give 48 kHz if nothing else is said, others their own rate.

    Raises:
        AudioFormatError: the format is not accepted.
    """
    if output_rate is None:
        _check_integers(input_rate, SAMPLE_RATE, channels)
        output_rate = engine_rate(input_rate)
    _check_integers(input_rate, output_rate, channels)
    if input_rate in HIGH_RATES:
        accepted = [rate for rate in HIGH_RATES if rate in (input_rate, 2 * input_rate)]
        if output_rate not in accepted:
            raise AudioFormatError(
                f"An input of {input_rate} Hz gives {_listed(accepted, 'or')} Hz, not "
                f"{output_rate} Hz: beyond 48 kHz a rate is kept or doubled."
            )
    elif input_rate not in SUPPORTED_RATES:
        raise AudioFormatError(
            f"A sample rate of {input_rate} Hz is not supported; accepted: "
            f"{_listed((*SUPPORTED_RATES, *HIGH_RATES))}."
        )
    else:
        _check_output_rate(output_rate, (*_DOUBLED_RATES, *OUTPUT_RATES))
    _check_channels(channels)
    return int(output_rate)


def _check_integers(input_rate: int, output_rate: int, channels: int) -> None:
    for name, value in (
        ("sample rate", input_rate),
        ("output rate", output_rate),
        ("number of channels", channels),
    ):
        check_integer(name, value, AudioFormatError)


def _check_output_rate(output_rate: int, accepted: Sequence[int]) -> None:
    if output_rate not in accepted:
        raise AudioFormatError(
            f"The output rate must be {_listed(accepted, 'or')} Hz, not {output_rate}."
        )


def _check_channels(channels: int) -> None:
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioFormatError(
            f"Audio with {channels} channels is not supported; accepted: 1 to {MAX_CHANNELS}."
        )


def _listed(rates: Sequence[int], last: str = "") -> str:
    """Name rates, the last after the word ``last`` if there is one."""
    names = [str(rate) for rate in rates]
    if last and len(names) > 1:
        names[-2:] = [f"{names[-2]} {last} {names[-1]}"]
    return ", ".join(names)


def check_arguments(
    hops_per_step: int,
    seed: int,
    wet: float,
    cutoff: float | None,
    ceiling: float | None,
    threads: int,
) -> None:
    """Raise :class:`ArgumentError` if one of these arguments is out of range."""
    for name, value in (
        ("number of hops per step", hops_per_step),
        ("number of threads", threads),
    ):
        check_integer(name, value, ArgumentError)
    if hops_per_step not in HOPS_PER_STEP:
        accepted = ", ".join(map(str, HOPS_PER_STEP))
        raise ArgumentError(f"hops_per_step must be one of {accepted}, not {hops_per_step}.")
    check_seed(seed)
    check_wet(wet)
    for name, frequency in (("cutoff", cutoff), ("ceiling", ceiling)):
        if frequency is not None:
            check_frequency(name, frequency)
    cores = os.cpu_count() or 1
    if not 1 <= threads <= cores:
        raise ArgumentError(f"A step takes 1 to {cores} threads on this machine, not {threads}.")


def check_seed(seed: int) -> None:
    """Raise :class:`ArgumentError` unless it is an integer of 64 bits."""
    check_integer("seed", seed, ArgumentError)
    if not -(2**63) <= seed < 2**63:
        raise ArgumentError(f"The seed must be a 64-bit integer, not {seed}.")


def check_frequency(
    name: str, frequency: float, lowest: float = MIN_CUTOFF_HZ, highest: float = MAX_CUTOFF_HZ
) -> None:
    """Raise :class:`ArgumentError` unless a cutoff or ceiling is one that the engine can take."""
    check_real(name, frequency)
    if not lowest <= frequency <= highest:
        raise ArgumentError(
            f"The {name} must lie between {lowest:.0f} and {highest:.0f} Hz, "
            f"not at {shown(frequency)} Hz."
        )


def check_expected_cutoff(frequency: float | None, lowest: float = LOWEST_CUTOFF_HZ) -> None:
    """Raise :class:`ArgumentError` unless a measurement can start there; ``None`` starts anywhere.

    Beyond half of the input's rate it starts at that half.
    """
    if frequency is None:
        return
    check_real("expected cutoff", frequency)
    if not lowest <= _as_float(frequency) < math.inf:
        raise ArgumentError(
            f"The expected cutoff must lie at {lowest:g} Hz or above, not at {shown(frequency)} Hz."
        )


def check_wet(wet: float) -> None:
    """Raise :class:`ArgumentError` unless the gain lies between 0 and 1."""
    check_real("wet gain", wet)
    if not 0.0 <= wet <= 1.0:
        raise ArgumentError(f"The wet gain must lie between 0 and 1, not at {shown(wet)}.")


def check_integer(name: str, value: Any, error: type[RtsrError] = ArgumentError) -> None:
    """Raise an error unless ``value`` is an integer of any kind."""
    try:
        operator.index(value)
    except TypeError:
        raise error(f"The {name} must be an integer, not {value!r}.") from None


def shown(value: float) -> str:
    """Write any real number, also a fraction, or a whole one beyond what a float holds."""
    return f"{_as_float(value):g}"


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def check_real(name: str, value: Any) -> None:
    """Raise :class:`ArgumentError` unless ``value`` is a real number of any kind."""
    if not isinstance(value, numbers.Real):
        raise ArgumentError(f"The {name} must be a number, not {value!r}.")
