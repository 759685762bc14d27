"""The live engine on a real sound server, for as long as you like.

Starts a JACK server that needs no sound card, plays a packaged recording into ``rtsr live``, keeps
what comes out, and says at the end what was lost, what it took, and for how long the machine itself
stood still.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from rtsr.timing import HOP, SAMPLE_RATE
from rtsr_bench.machine import describe_machine, describe_software
from rtsr_bench.soak.player import SoakPlayer
from rtsr_bench.soak.protocol import Protocol
from rtsr_bench.soak.server import Engine, busy_programs, jack_server, page_reader
from rtsr_bench.soak.sound import SoundScore, score_sound
from rtsr_bench.soak.stalls import Stalls, StallWatch
from rtsr_bench.soak.usage import Usage, usage_of

# Half of the packaged recordings' rate.
_CUTOFF_HZ = 4000.0
# What a session still loads and learns is over by then.
_WARM_SECONDS = 3.0
#: what a session counts from its start on
COUNTERS = (
    *("seconds", "callbacks", "frames", "late_callbacks", "underruns", "underrun_events"),
    *("underrun_frames", "overruns", "xruns", "input_underflows", "input_overflows"),
    *("output_underflows", "output_overflows", "enhanced_frames", "dry_frames", "silent_frames"),
    *("clipped_samples", "repaired_samples", "steps", "late_steps", "degraded_steps", "resyncs"),
    *("worker_restarts", "device_restarts"),
)


def load_clip(name: str, in_full_band: bool = False) -> NDArray[np.float32]:
    """Load a packaged recording at 48 kHz, ``(frames,)``, to be looped; narrow unless asked for."""
    import soundfile

    import rtsr
    from rtsr_kernels.resample import StreamingResampler

    file = f"{name}_reference.flac" if in_full_band else f"{name}_8k.wav"
    path = Path(rtsr.__file__).parent / "demo_data" / file
    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    clip = StreamingResampler(rate, SAMPLE_RATE).process(np.ascontiguousarray(audio[:, :1]))[:, 0]
    ramp = np.linspace(0.0, 1.0, HOP, dtype=np.float32)
    clip[:HOP] *= ramp
    clip[-HOP:] *= ramp[::-1]
    return clip


def soak(protocol: Protocol) -> dict[str, Any]:
    """Play for a while; returns everything that was found out, for JSON.

    Raises:
        ArgumentError: the protocol is none.
        RtsrError: JACK, the engine or a package that is needed is not there.
    """
    protocol.check()
    clip = load_clip(protocol.clip, protocol.colour)
    with tempfile.TemporaryDirectory(prefix="rtsr-soak-") as name:
        folder = Path(name)
        recording = folder / "recorded.raw"
        with (
            jack_server(protocol.frames, protocol.realtime, folder / "jackd.log"),
            Engine(folder, protocol) as engine,
            contextlib.ExitStack() as beside,
        ):
            first = engine.first_figures()
            page = page_reader(engine.page_address()) if protocol.page else None
            count_looks = beside.enter_context(page) if page else None
            player = beside.enter_context(SoakPlayer(clip, "rtsr:in_0", "rtsr:out_0"))
            beside.enter_context(busy_programs(protocol.load))
            time.sleep(_WARM_SECONDS)
            # It takes up to a second.
            begun = engine.next_figures()
            with recording.open("wb") as file, StallWatch() as watch:
                xruns_before = player.xruns
                before, started = usage_of(engine.pid), time.monotonic()
                origin = player.fetch(file)
                while (left := started + protocol.seconds - time.monotonic()) > 0.0:
                    time.sleep(min(1.0, left))
                    engine.check()
                    player.fetch(file)
            played = time.monotonic() - started
            usage = _usage(before, usage_of(engine.pid), played)
            looks = count_looks() if count_looks else 0
            figures = since(begun, engine.stop())
            gaps, xruns = player.gaps, player.xruns - xruns_before
            gaps = gaps[gaps[:, 0] >= origin]
        recorded = np.memmap(recording, np.float32, mode="r")
        sound = score_sound(clip, recorded, origin, gaps, _CUTOFF_HZ)
    return {
        "protocol": {**asdict(protocol), "seconds": round(played, 3)},
        "machine": describe_machine(),
        "software": describe_software(),
        "figures": figures,
        "card_latency_ms": first["latency"]["total_ms"],
        "server": {"xruns": xruns, "lost_by_the_player": len(gaps)},
        "sound": asdict(sound),
        "stalls": asdict(watch.found),
        "usage": usage,
        "page_looks": looks,
    }


def since(begun: dict[str, Any], figures: dict[str, Any]) -> dict[str, Any]:
    """Return a session's figures without what it had counted when the soak began.

    Distributions and what it has learnt remain those of the whole session.
    """
    seconds, before = figures["fallback_level_seconds"], begun["fallback_level_seconds"]
    return {
        **figures,
        **{name: round(figures[name] - begun[name], 3) for name in COUNTERS},
        "fallback_level_seconds": {
            level: round(seconds[level] - before[level], 3) for level in seconds
        },
        "fallback_level_changes": [
            change
            for change in figures["fallback_level_changes"]
            if change["time_s"] > begun["seconds"]
        ],
    }


def _usage(before: Usage, after: Usage, seconds: float) -> dict[str, float]:
    def percent(name: str) -> float:
        spent = getattr(after, name) - getattr(before, name)
        return round(100.0 * float(spent) / seconds, 2)

    return {
        "main_thread_percent": percent("main_s"),
        "other_threads_percent": percent("others_s"),
        "worker_percent": percent("worker_s"),
        "memory_mb": round(after.memory_mb, 1),
        "memory_growth_mb": round(after.anonymous_mb - before.anonymous_mb, 2),
    }


def build_table(results: dict[str, Any]) -> Table:
    """Build a table of what a person wants to know of it."""
    table = Table(
        title=_circumstances(results), caption=results["machine"]["cpu"]["model"], show_header=False
    )
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for group in (*_of_the_sound(results), *_of_the_engine(results)):
        for row in group:
            table.add_row(*row)
        table.add_section()
    return table


def _circumstances(results: dict[str, Any]) -> str:
    protocol = results["protocol"]
    parts = [
        f"{protocol['seconds'] / 60.0:.1f} minutes",
        protocol["model"],
        f"{protocol['frames']} frames",
        f"main thread {'spinning' if protocol['gil_hog'] else 'idle'}",
    ]
    parts += ["screen on"] * protocol["screen"]
    if protocol["colour"]:
        learnt = results["figures"]["colour"]["learnt_seconds"]
        parts.append(f"colour learnt from {learnt:.0f} s")
    parts += [f"page open ({results['page_looks']} looks)"] * protocol["page"]
    return ", ".join([*parts, f"{protocol['load']} busy programs"])


def _of_the_sound(results: dict[str, Any]) -> list[list[tuple[str, str]]]:
    """List what was lost: by the engine's own count, by the machine, and in the recording."""
    figures, server = results["figures"], results["server"]
    sound = SoundScore(**results["sound"])
    return [
        [
            ("callbacks", f"{figures['callbacks']}"),
            ("late callbacks", f"{figures['late_callbacks']}"),
            ("under-runs", f"{figures['underrun_events']}"),
            ("played dry", f"{figures['dry_frames'] * 1000.0 / SAMPLE_RATE:.1f} ms"),
            ("hops skipped", f"{figures['overruns']}"),
            ("xruns of the server", f"{server['xruns']}"),
            ("cycles lost by the player", f"{server['lost_by_the_player']}"),
        ],
        Stalls(**results["stalls"]).rows(),
        [
            ("windows of 10 ms scored", f"{sound.windows}"),
            ("broken", f"{sound.broken}"),
            ("not scored, beside lost cycles", f"{sound.excused}"),
            ("longest break", f"{sound.longest_broken_ms:.0f} ms"),
        ],
    ]


def _of_the_engine(results: dict[str, Any]) -> list[list[tuple[str, str]]]:
    """List times, levels, latency, and what it took of the machine."""
    figures, usage = results["figures"], results["usage"]
    sound, stated = SoundScore(**results["sound"]), figures["latency"]["total_samples"]
    engine = usage["other_threads_percent"] + usage["worker_percent"]
    if not results["protocol"]["gil_hog"]:
        engine += usage["main_thread_percent"]
    step, call = figures["step_ms"], figures["callback_us"]
    levels = figures["fallback_level_seconds"].items()
    restarts = f"{figures['worker_restarts']}, {figures['device_restarts']}"
    return [
        [
            ("callback p50", f"{call['p50']:.0f} us"),
            ("callback p99.9", f"{call['p99_9']:.0f} us"),
            ("step p50", f"{step['p50']:.2f} ms"),
            ("step p99.9", f"{step['p99_9']:.2f} ms"),
        ],
        [
            *((f"on {level}", f"{seconds:.1f} s") for level, seconds in levels),
            ("changes of level", f"{len(figures['fallback_level_changes'])}"),
            ("workers, devices restarted", restarts),
        ],
        [
            ("latency stated", f"{stated:g} samples, {stated * 1000.0 / SAMPLE_RATE:.2f} ms"),
            ("latency measured", f"{sound.latency_samples} samples"),
            ("at the end", f"{sound.latency_end_samples} samples"),
            ("ear to ear with the dummy card", f"{results['card_latency_ms']:.2f} ms"),
        ],
        [
            ("engine, of one core", f"{engine:.1f} %"),
            ("worker", f"{usage['worker_percent']:.1f} %"),
            ("callback and other threads", f"{usage['other_threads_percent']:.1f} %"),
            ("main thread", f"{usage['main_thread_percent']:.1f} %"),
            ("worker's priority", figures["priority"]),
            ("memory", f"{usage['memory_mb']:.0f} MB"),
            ("memory growth", f"{usage['memory_growth_mb']:+.1f} MB"),
        ],
    ]
