"""Training an octave beyond 48 kHz: the same network on a faster clock.

Sound at 96 kHz, played at half its speed, is sound at 48 kHz. So recordings of higher rates are
played slower, and those at 48 kHz, taken as they are, stand for sound at double speed.
"""

from __future__ import annotations

from dataclasses import replace

from rtsr.errors import ArgumentError
from rtsr.train.settings import TrainSettings

#: rates in kHz that an octave may end at half of
OCTAVES_KHZ = (96, 192)
#: Where inputs end, on the engine's scale: half of its 24 kHz, and up to 3.5 kHz removed below that
#: (7 kHz at 96 kHz), as real recordings end anywhere below half of their rate.
LOWEST_PRIOR_HZ, HIGHEST_PRIOR_HZ = 8500.0, 12500.0


def octave_rate_of(khz: int) -> int:
    """Return in Hz the rate that ``--stage`` names.

    Raises:
        ArgumentError: there is no such octave.
    """
    if khz not in OCTAVES_KHZ:
        accepted = " or ".join(map(str, OCTAVES_KHZ))
        raise ArgumentError(f"--stage is {khz}; an octave ends at {accepted} kHz.")
    return khz * 1000


def octave_settings(settings: TrainSettings) -> TrainSettings:
    """Let inputs end where those of an octave do, and leave out telephones, coders and rooms.

    Half of the clips get a noise floor, because converters have one up there.
    """
    degrade = replace(
        settings.degrade,
        lowest_hz=LOWEST_PRIOR_HZ,
        highest_hz=HIGHEST_PRIOR_HZ,
        narrow_share=0.0,
        wide_share=0.0,
        analog_share=0.2,
        companding_share=0.0,
        codec_share=0.0,
        floor_share=0.5,
        room_share=0.0,
        told_share=0.0,
    )
    return replace(settings, degrade=degrade)
