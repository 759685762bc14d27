"""What a worker is started with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WorkerSettings:
    """What the worker has to know; goes through a pipe to another process.

    Attributes:
        channels: of the engine, 1 to 8.
        model: highest fallback level: a bundled model, the path of an ``.onnx`` file,
            ``replicate`` or ``dry``.
        provider: ``auto``, ``cpu``, ``cuda`` or ``tensorrt``.
        threads: threads of one step on the CPU.
        native_hz: half of the input device's rate: nothing in the input lies above it.
        octave_model: what makes the octaves beyond 48 kHz, as ``model``; see
            :class:`~rtsr.upsampler.Upsampler` for what ``None`` is.
        limiter: whether peaks above -1 dBFS are turned down so that none leaves full scale.
        governor: whether the fallback level may change when the machine does not keep up.
        raise_priority: whether to ask the system for more than an ordinary process gets.
        reserve_frames: enhanced frames, at the timelines' rate, that the audio callback wants to
            have in hand when it comes, beyond those it plays.
        most_hops_behind: beyond this the worker skips to the newest hop.
    """

    channels: int = 1
    model: str = "small"
    provider: str = "auto"
    threads: int = 1
    native_hz: float = 24000.0
    octave_model: str | None = None
    limiter: bool = True
    governor: bool = True
    raise_priority: bool = True
    reserve_frames: int = 0
    most_hops_behind: int = 4
