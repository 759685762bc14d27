"""What the resampler does to a spectrum, measured through `process` for every pair of rates."""

from __future__ import annotations

import numpy as np
import pytest

from rtsr_kernels.resample import SUPPORTED_RATES, StreamingResampler
from rtsr_kernels.resample_design import conversion_ratio, phase_table

PAIRS = [(a, b) for a in SUPPORTED_RATES for b in SUPPORTED_RATES if a != b]
EACH_PAIR = pytest.mark.parametrize(
    ("input_rate", "output_rate"), PAIRS, ids=[f"{a}-to-{b}" for a, b in PAIRS]
)
DOWNWARD = [(a, b) for a, b in PAIRS if a > b]


def measured_response(input_rate: int, output_rate: int) -> np.ndarray:
    """Impulse response on the common grid, put together from clicks at every phase."""
    up, down = conversion_ratio(input_rate, output_rate)
    taps = phase_table(input_rate, output_rate).shape[1]
    spacing = taps + 1 + 2 * down // up
    while np.gcd(spacing, down) != 1:
        spacing += 1
    clicks = np.arange(down) * spacing
    audio = np.zeros((clicks[-1] + spacing + down, 1), dtype=np.float32)
    audio[clicks] = 1.0
    output = StreamingResampler(input_rate, output_rate).process(audio)[:, 0]
    # The filter starts `down - 1` grid steps ahead of the output's own instant.
    response = np.zeros(taps * up)
    for click in clicks:
        first = max(0, -(-(click * up - down + 1) // down))
        frames = np.arange(first, min(first + taps * up // down + 1, output.size))
        offset = frames * down - click * up + down - 1
        inside = offset < taps * up
        response[offset[inside]] = output[frames[inside]]
    return response / up


@EACH_PAIR
def test_flat_below_and_silent_above(input_rate: int, output_rate: int) -> None:
    up, down = conversion_ratio(input_rate, output_rate)
    response = measured_response(input_rate, output_rate)
    size = 1 << (8 * response.size).bit_length()
    spectrum = np.fft.rfft(response, size)
    frequency = np.arange(spectrum.size) / size * input_rate * up
    nyquist = min(input_rate, output_rate) / 2
    level = 20 * np.log10(np.abs(spectrum) + 1e-12)
    passes = frequency <= 0.9 * nyquist
    stops = frequency >= 1.1 * nyquist
    assert np.abs(level[passes]).max() < 0.05
    assert level[stops].max() < -70.0
    assert level[~stops].max() < 0.5, "the transition band must not resonate"

    delay = StreamingResampler(input_rate, output_rate).delay * down + down - 1
    advance = np.exp(2j * np.pi * frequency / (input_rate * up) * delay)
    phase = np.angle(spectrum * advance)[passes]
    assert np.abs(phase).max() < 0.005, "the delay must be the same at all frequencies"


@EACH_PAIR
def test_tones_arrive_in_time_and_alone(input_rate: int, output_rate: int) -> None:
    resampler = StreamingResampler(input_rate, output_rate)
    frames = input_rate // 4
    for share in (0.05, 0.5, 0.9):
        frequency = share * min(input_rate, output_rate) / 2
        omega = 2 * np.pi * frequency
        tone = np.sin(omega * np.arange(frames) / input_rate)
        resampler.reset()
        output = resampler.process(tone[:, None].astype(np.float32))[:, 0].astype(float)
        instant = (np.arange(output.size) - resampler.delay) / output_rate
        settled = instant > 60 / min(input_rate, output_rate)
        error = output[settled] - np.sin(omega * instant[settled])
        assert np.abs(error).max() < 0.014
        basis = np.stack([np.sin(omega * instant[settled]), np.cos(omega * instant[settled])], 1)
        rest = output[settled] - basis @ np.linalg.lstsq(basis, output[settled], rcond=None)[0]
        assert 20 * np.log10(rest.std() * np.sqrt(2)) < -70.0, "images and aliases together"


@pytest.mark.parametrize(
    ("input_rate", "output_rate"), DOWNWARD, ids=[f"{a}-to-{b}" for a, b in DOWNWARD]
)
def test_tone_above_the_new_nyquist_disappears(input_rate: int, output_rate: int) -> None:
    for share in (1.1, 1.3, 2.0):
        frequency = share * output_rate / 2
        if frequency >= input_rate / 2:
            continue
        # Cosine and sine together: at a rational frequency one phase may hide in the samples.
        angle = 2 * np.pi * frequency * np.arange(input_rate // 4) / input_rate
        tones = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
        output = StreamingResampler(input_rate, output_rate, channels=2).process(tones)[60:]
        assert 20 * np.log10(np.hypot(output[:, 0], output[:, 1]).max() + 1e-12) < -70.0


@EACH_PAIR
def test_click_arrives_after_the_reported_delay(input_rate: int, output_rate: int) -> None:
    up, down = conversion_ratio(input_rate, output_rate)
    resampler = StreamingResampler(input_rate, output_rate)
    audio = np.zeros((3 * down + 200, 1), dtype=np.float32)
    audio[2 * down] = 1.0
    output = resampler.process(np.vstack([audio, np.zeros((600, 1), dtype=np.float32)]))
    assert np.abs(output[:, 0]).argmax() == 2 * up + resampler.delay


@EACH_PAIR
def test_delay_is_small(input_rate: int, output_rate: int) -> None:
    resampler = StreamingResampler(input_rate, output_rate)
    delay_ms = 1000 * resampler.delay / output_rate
    assert delay_ms <= 1.5 * 8000 / min(input_rate, output_rate)


@pytest.mark.parametrize("pair", [(8000, 48000), (11025, 48000), (48000, 44100)])
def test_design_is_remembered(pair: tuple[int, int]) -> None:
    assert phase_table(*pair) is phase_table(*pair)
