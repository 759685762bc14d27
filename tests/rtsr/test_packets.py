"""Packets of whole steps: as long as they came, and without a wait for the rest of a step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rtsr import AudioFormatError, BatchUpsampler, Upsampler
from rtsr_kernels.resample_design import delay_samples

OVERLAP = 120


def _through_upsampler(
    stand_in: Path, rate: int, output_rate: int, ms: int, packets: list[np.ndarray]
) -> tuple[list[np.ndarray], int]:
    hops = {10: 1, 20: 2, 40: 4}[ms]
    upsampler = Upsampler(
        rate,
        model=stand_in,
        wet=0.0,
        hops_per_step=hops,
        output_rate=output_rate,
        blocks_are_hops=True,
    )
    assert upsampler.latency.hop == 0
    out = [upsampler.process(packet) for packet in packets]
    return out, upsampler.latency.algorithmic_samples


def _through_batch(
    stand_in: Path, rate: int, output_rate: int, ms: int, packets: list[np.ndarray]
) -> tuple[list[np.ndarray], int]:
    hops = {10: 1, 20: 2, 40: 4}[ms]
    with BatchUpsampler(1, model=stand_in, hops_per_step=hops, overload="wait") as batch:
        stream = batch.open(rate, wet=0.0, output_rate=output_rate)
        out = []
        for packet in packets:
            stream.push(packet)
            assert batch.step() == 1
            assert batch.step() == 0
            out.append(stream.pull())
        latency = stream.latency
        assert latency.hop == 480 * hops
        whole = latency.algorithmic_samples - latency.hop * output_rate // 48000
        assert stream.delay_samples == whole
        return out, stream.delay_samples


def _stated(rate: int, output_rate: int) -> int:
    """The formula: conversion to 48 kHz, overlap, padding to a whole output sample, back."""
    inner = delay_samples(rate, 48000) + OVERLAP
    while inner * output_rate % 48000:
        inner += 1
    return inner * output_rate // 48000 + delay_samples(48000, output_rate)


@pytest.mark.parametrize("through", [_through_upsampler, _through_batch])
@pytest.mark.parametrize("ms", [10, 20, 40])
@pytest.mark.parametrize(
    ("rate", "output_rate", "delay"),
    [
        (8000, 48000, 185),
        (16000, 48000, 153),
        (24000, 48000, 142),
        (48000, 48000, 120),
        (44100, 48000, 131),
        (8000, 44100, None),
        (8000, 32000, None),
        (16000, 24000, None),
        (48000, 16000, None),
    ],
)
def test_a_click_comes_out_after_the_delay_without_a_hop(
    stand_in: Path,
    through: Callable[..., tuple[list[np.ndarray], int]],
    ms: int,
    rate: int,
    output_rate: int,
    delay: int | None,
) -> None:
    size = rate * ms // 1000
    sound = np.zeros(6 * size, np.float32)
    at = 2 * size + size // 3 // (rate // 100) * (rate // 100)
    sound[at] = 0.5
    out, stated = through(stand_in, rate, output_rate, ms, np.split(sound, 6))
    if output_rate == 48000:
        assert stated == delay
    # Every packet comes back as long as it came, the first as every other.
    assert sum(len(block) for block in out) >= 6 * output_rate * ms // 1000
    whole = np.concatenate(out)
    found = int(np.argmax(np.abs(whole)))
    assert found == at * output_rate // rate + stated
    if output_rate in (48000, 16000, 24000, 32000):
        assert stated == _stated(rate, output_rate)


@pytest.mark.parametrize(("rate", "output_rate"), [(8000, 48000), (16000, 16000), (44100, 48000)])
def test_upsampler_returns_each_packet_as_long_as_it_came(
    stand_in: Path, rate: int, output_rate: int
) -> None:
    packets = np.split(np.zeros(rate // 5, np.float32), 20)
    out, _ = _through_upsampler(stand_in, rate, output_rate, 10, packets)
    assert [len(block) for block in out] == [output_rate // 100] * 20


def test_packets_sound_as_any_blocks_do(
    stand_in: Path, make_sound: Callable[..., np.ndarray]
) -> None:
    sound = make_sound(8000, 0.4, cutoff=3500)[:, 0]
    settings = {"model": stand_in, "cutoff": 3500.0}
    usual = Upsampler(8000, **settings)
    expected = np.concatenate([usual.process(sound), usual.flush()])[480:]
    packets = Upsampler(8000, blocks_are_hops=True, **settings)
    for _ in range(2):  # after a flush as before it
        out = [packets.process(block) for block in np.split(sound, 20)]
        got = np.concatenate([*out, packets.flush()])
        assert np.array_equal(got, expected)


def test_a_packet_that_is_no_whole_step_is_refused_and_changes_nothing(stand_in: Path) -> None:
    settings = {"model": stand_in, "hops_per_step": 2, "blocks_are_hops": True, "cutoff": 3500.0}
    sound = np.random.default_rng(0).uniform(-0.3, 0.3, 800).astype(np.float32)
    expected = [Upsampler(8000, **settings).process(sound)]
    upsampler = Upsampler(8000, **settings)
    parts = []
    for start in range(0, 800, 160):
        for wrong in (1, 80, 159, 161):
            with pytest.raises(AudioFormatError, match=r"20 ms; with blocks_are_hops"):
                upsampler.process(sound[:wrong])
        parts.append(upsampler.process(sound[start : start + 160]))
    assert np.array_equal(np.concatenate(parts), expected[0])
