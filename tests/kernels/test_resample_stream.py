"""The resampler as a stream: exact counts, no trace of the block partition, clear refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtsr_kernels.resample import SUPPORTED_RATES, StreamingResampler

PAIRS = [(a, b) for a in SUPPORTED_RATES for b in SUPPORTED_RATES]
EACH_PAIR = pytest.mark.parametrize(
    ("input_rate", "output_rate"), PAIRS, ids=[f"{a}-to-{b}" for a, b in PAIRS]
)


def noise(frames: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((frames, channels)).astype(np.float32)


def in_pieces(resampler: StreamingResampler, audio: np.ndarray, sizes: list[int]) -> np.ndarray:
    """Resample block by block and check the running total of output frames on the way."""
    parts, start = [], 0
    for size in [*sizes, len(audio)]:
        block = audio[start : start + size]
        start += len(block)
        expected = resampler.output_frames(len(block))
        parts.append(resampler.process(block))
        assert len(parts[-1]) == expected
        total = start * resampler.output_rate // resampler.input_rate
        assert sum(map(len, parts)) == total
    return np.concatenate(parts)


@EACH_PAIR
def test_no_trace_of_the_partition(input_rate: int, output_rate: int) -> None:
    audio = noise(3000, 2)
    whole = StreamingResampler(input_rate, output_rate, 2).process(audio)
    sizes = [0, 1, 1, 0, 7, 480, 513, 2, 0, 1100, 1]
    pieces = in_pieces(StreamingResampler(input_rate, output_rate, 2), audio, sizes)
    np.testing.assert_array_equal(whole, pieces)


@settings(max_examples=60, deadline=None)
@given(
    pair=st.sampled_from(PAIRS),
    sizes=st.lists(st.integers(0, 700), max_size=12),
    frames=st.integers(0, 2500),
)
def test_any_partition(pair: tuple[int, int], sizes: list[int], frames: int) -> None:
    audio = noise(frames)
    whole = StreamingResampler(*pair).process(audio)
    np.testing.assert_array_equal(whole, in_pieces(StreamingResampler(*pair), audio, sizes))


def test_sample_by_sample_equals_whole() -> None:
    audio = noise(400)
    whole = StreamingResampler(44100, 48000).process(audio)
    pieces = in_pieces(StreamingResampler(44100, 48000), audio, [1] * 400)
    np.testing.assert_array_equal(whole, pieces)


def test_count_stays_exact_for_an_hour() -> None:
    resampler = StreamingResampler(8000, 11025)
    block, out = noise(8000 * 4 + 1), np.empty((11025 * 4 + 2, 1), dtype=np.float32)
    total = sum(resampler.process_into(block, out) for _ in range(900))
    assert total == 900 * len(block) * 11025 // 8000


@pytest.mark.parametrize("rate", SUPPORTED_RATES)
def test_equal_rates_pass_bit_exact_without_delay(rate: int) -> None:
    resampler = StreamingResampler(rate, rate, 2)
    audio = noise(1000, 2)
    assert resampler.delay == 0
    np.testing.assert_array_equal(in_pieces(resampler, audio, [10, 0, 300]), audio)


def test_output_is_the_callers_own() -> None:
    audio = noise(10)
    StreamingResampler(48000, 48000).process(audio)[:] = 0.0
    assert audio.any()


def test_reset_equals_fresh() -> None:
    audio = noise(1234, 2)
    resampler = StreamingResampler(22050, 48000, 2)
    first = resampler.process(audio)
    resampler.reset()
    np.testing.assert_array_equal(resampler.process(audio), first)


def test_the_future_changes_nothing_in_the_past() -> None:
    audio = noise(2000)
    changed = audio.copy()
    changed[1500:] += 1.0
    before = StreamingResampler(16000, 48000).process(audio)
    after = StreamingResampler(16000, 48000).process(changed)
    np.testing.assert_array_equal(before[:4500], after[:4500])
    assert (before[4500:] != after[4500:]).any()


def test_channels_do_not_mix_and_equal_ones_stay_equal() -> None:
    audio = noise(800, 8)
    audio[:, 3] = audio[:, 0]
    together = StreamingResampler(8000, 48000, 8).process(audio)
    np.testing.assert_array_equal(together[:, 3], together[:, 0])
    for channel in range(8):
        alone = StreamingResampler(8000, 48000).process(audio[:, channel : channel + 1])
        np.testing.assert_array_equal(together[:, channel], alone[:, 0])


def test_silence_stays_silence_and_a_constant_a_constant() -> None:
    resampler = StreamingResampler(44100, 48000)
    assert not resampler.process(np.zeros((1000, 1))).any()
    constant = resampler.process(np.ones((1000, 1)))[200:]
    np.testing.assert_allclose(constant, 1.0, atol=0.0115)
    assert np.ptp(constant) < 6e-4


def test_a_damaged_sample_is_forgotten() -> None:
    audio = noise(1000)
    audio[100] = np.nan
    output = StreamingResampler(8000, 48000).process(audio)
    assert np.isnan(output).any()
    assert np.isfinite(output[(100 + 56) * 6 :]).all()


def test_takes_read_only_strided_and_other_types() -> None:
    audio = noise(500)
    expected = StreamingResampler(8000, 48000).process(audio)
    read_only = np.frombuffer(audio.tobytes(), dtype=np.float32).reshape(-1, 1)
    wide = np.repeat(audio, 3, axis=1)[:, 1:2]
    for variant in (read_only, wide, audio.astype(np.float64)):
        output = StreamingResampler(8000, 48000).process(variant)
        assert output.dtype == np.float32
        np.testing.assert_array_equal(output, expected)


@pytest.mark.parametrize("pair", [(8001, 48000), (48000, 96000), (0, 48000), (-8000, 8000)])
def test_refuses_unknown_rates(pair: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="not supported, use one of 8000"):
        StreamingResampler(*pair)


def test_refuses_wrong_blocks_and_consumes_nothing() -> None:
    resampler = StreamingResampler(8000, 48000, 2)
    with pytest.raises(ValueError, match="at least one channel"):
        StreamingResampler(8000, 48000, 0)
    for wrong in (noise(10, 1), noise(10, 3), noise(10)[:, 0]):
        with pytest.raises(ValueError, match="must have shape"):
            resampler.process(wrong)
    block = noise(10, 2)
    with pytest.raises(ValueError, match="room for 59 frames but 60 are due"):
        resampler.process_into(block, np.empty((59, 2), dtype=np.float32))
    with pytest.raises(ValueError, match="C-contiguous float32"):
        resampler.process_into(block, np.empty((60, 2)))
    with pytest.raises(ValueError, match="C-contiguous float32"):
        resampler.process_into(block, np.empty((2, 60), dtype=np.float32).T)
    expected = StreamingResampler(8000, 48000, 2).process(block)
    np.testing.assert_array_equal(resampler.process(block), expected)
