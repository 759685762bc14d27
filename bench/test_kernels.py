"""Time of one 10 ms block in each kernel; every one of them must be small beside a model step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rtsr_kernels import (
    Ring,
    StreamingResampler,
    apply_sos,
    crossfade_equal_power,
    crossfade_linear,
    fill_noise,
    highpass_sos,
    highpass_state,
    overlap_add,
)
from rtsr_kernels.bandwidth import (
    bandwidth_scratch,
    bandwidth_state,
    detect_bandwidth,
    start_bandwidth,
)
from rtsr_kernels.resample_design import phase_table
from rtsr_kernels.timing import HOP, OVERLAP, SAMPLE_RATE

EACH_WIDTH = pytest.mark.parametrize("channels", [1, 2, 8])


def label(benchmark: Any, name: str, channels: int) -> None:
    benchmark.group = "kernels, one 10 ms block"
    benchmark.name = f"{name}, {channels} channel{'s' if channels > 1 else ''}"


def noise(frames: int, channels: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((frames, channels)).astype(np.float32)


@EACH_WIDTH
@pytest.mark.parametrize(
    ("input_rate", "output_rate"),
    [(8000, 48000), (16000, 48000), (44100, 48000), (11025, 48000), (48000, 44100), (48000, 8000)],
)
def test_resampler(benchmark: Any, input_rate: int, output_rate: int, channels: int) -> None:
    label(benchmark, f"resampler {input_rate} to {output_rate} Hz", channels)
    resampler = StreamingResampler(input_rate, output_rate, channels)
    block = noise(input_rate // 100, channels)
    out = np.empty((output_rate // 100 + 1, channels), dtype=np.float32)
    benchmark(resampler.process_into, block, out)


@pytest.mark.parametrize("pair", [(8000, 48000), (11025, 48000)], ids=str)
def test_resampler_design(benchmark: Any, pair: tuple[int, int]) -> None:
    benchmark.group = "kernels, once per stream"
    benchmark.name = f"resampler design {pair[0]} to {pair[1]} Hz"
    benchmark(phase_table.__wrapped__, *pair)


@EACH_WIDTH
def test_ring_write_and_read(benchmark: Any, channels: int) -> None:
    label(benchmark, "ring write and read", channels)
    ring = Ring(1024, channels)
    block, out = noise(HOP, channels), noise(HOP, channels)

    def there_and_back() -> None:
        ring.write(block)
        ring.read(out)

    benchmark(there_and_back)


@EACH_WIDTH
@pytest.mark.parametrize("kind", ["linear", "equal-power"])
def test_crossfade(benchmark: Any, kind: str, channels: int) -> None:
    fade = crossfade_linear if kind == "linear" else crossfade_equal_power
    label(benchmark, f"{kind} cross-fade", channels)
    old, new, out = (noise(HOP, channels) for _ in range(3))
    benchmark(fade, old, new, out)


@EACH_WIDTH
def test_overlap_add(benchmark: Any, channels: int) -> None:
    label(benchmark, "overlap-add", channels)
    lengths = (HOP + OVERLAP, OVERLAP, HOP)
    frame, tail, out = (noise(length, channels) for length in lengths)
    benchmark(overlap_add, frame, tail, out)


@EACH_WIDTH
def test_highpass(benchmark: Any, channels: int) -> None:
    label(benchmark, "high-pass", channels)
    block, out = noise(HOP, channels), noise(HOP, channels)
    benchmark(apply_sos, highpass_sos(4000.0), highpass_state(channels), block, out)


def test_highpass_on_silence(benchmark: Any) -> None:
    """Denormal numbers would show here."""
    label(benchmark, "high-pass on silence", 1)
    state, out = highpass_state(1), noise(HOP, 1)
    apply_sos(highpass_sos(1000.0), state, noise(HOP, 1), out)
    benchmark(apply_sos, highpass_sos(1000.0), state, np.zeros((HOP, 1), dtype=np.float32), out)


def test_noise_frame(benchmark: Any) -> None:
    label(benchmark, "noise frame of 64", 1)
    out = np.empty(64, dtype=np.float32)
    benchmark(fill_noise, 1, 2, 0, out)


@EACH_WIDTH
@pytest.mark.parametrize("cutoff_hz", [4000.0, 24000.0])
def test_bandwidth_detector(benchmark: Any, cutoff_hz: float, channels: int) -> None:
    # Searches come every fifth hop: one round is five of them.
    label(benchmark, f"bandwidth detector at {cutoff_hz:.0f} Hz, five blocks", channels)
    state, scratch = bandwidth_state(1, channels), bandwidth_scratch()
    start_bandwidth(state, 0, cutoff_hz, 24000.0)
    sound = noise(700 * HOP, channels)
    spectrum = np.fft.rfft(sound, axis=0)
    spectrum[np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE) > cutoff_hz] = 0.0
    hops = (0.1 * np.fft.irfft(spectrum, axis=0)).astype(np.float32).reshape(-1, HOP, channels)

    def five() -> None:
        for hop in hops[:5]:
            detect_bandwidth(state, 0, hop, scratch)

    for hop in hops:
        detect_bandwidth(state, 0, hop, scratch)
    benchmark(five)
