"""Spectral band replication, piece by piece: bands, features, copies, noise, windows."""

from __future__ import annotations

import numpy as np
import pytest

from rtsr_kernels.replicate import (
    SCRATCH_ROWS,
    band_densities,
    context_features,
    predict,
    replicate_hop,
)
from rtsr_kernels.replicate_design import (
    ANALYSIS,
    BANDS,
    BINS,
    CONTEXT,
    FEATURES_PER_BAND,
    FEWEST_BANDS,
    HZ_PER_BIN,
    MOST_BANDS,
    SYNTHESIS,
    analysis_window,
    band_edges,
    band_of_bin,
    bands_below,
    replica_window,
    synthesis_window,
)
from rtsr_kernels.timing import HOP, OVERLAP

RATE = 48000
CUTOFF = 8000.0
INPUT_BANDS = bands_below(CUTOFF)


def densities_of(samples: np.ndarray, last_bin: int = BINS - 1) -> np.ndarray:
    densities = np.zeros(BANDS)
    real, imaginary = np.zeros(ANALYSIS), np.zeros(ANALYSIS)
    band_densities(samples.astype(np.float32), last_bin, real, imaginary, densities)
    return densities


def flat_weights(level: float = 0.0) -> np.ndarray:
    """A regression that predicts one density, relative to the level, whatever it sees."""
    weights = np.zeros((BANDS, 1 + FEATURES_PER_BAND * BANDS, BANDS), np.float32)
    weights[:, 0] = level
    return weights


def run(
    audio: np.ndarray, share: float, weights: np.ndarray | None = None, seed: int = 0
) -> np.ndarray:
    """The high band of ``(samples, channels)``, hop by hop."""
    channels = audio.shape[1]
    history, tails = np.zeros((channels, ANALYSIS), "f4"), np.zeros((channels, OVERLAP), "f4")
    contexts, scratch = np.zeros((channels, CONTEXT, BANDS)), np.zeros((SCRATCH_ROWS, ANALYSIS))
    noise = np.zeros(ANALYSIS, np.float32)
    weights = flat_weights() if weights is None else weights
    out = np.zeros(audio.shape, np.float32)
    for frame in range(len(audio) // HOP):
        part = slice(frame * HOP, (frame + 1) * HOP)
        replicate_hop(
            np.ascontiguousarray(audio[part], np.float32), history, contexts, tails, noise,
            scratch, weights, share, seed, frame, INPUT_BANDS, CUTOFF, 24000.0, out[part],
        )  # fmt: skip
    return out


def low_noise(samples: int, seed: int = 0) -> np.ndarray:
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(samples))
    spectrum[np.fft.rfftfreq(samples, 1 / RATE) > 0.97 * CUTOFF] = 0.0
    return 0.1 * np.fft.irfft(spectrum, samples)[:, None]


def test_bands_cover_everything_and_none_is_empty() -> None:
    edges = band_edges()
    assert edges[0] == 50
    assert edges[-1] == 24000
    assert np.diff(edges).min() >= 2 * HZ_PER_BIN - 1e-9
    for bins in (BINS, SYNTHESIS // 2 + 1):
        members = band_of_bin(bins)
        assert (np.diff(members) >= 0).all()
        assert set(members) == set(range(-1, BANDS))


@pytest.mark.parametrize("cutoff", [20.0, 500.0, 1000.0, 4000.0, 8000.0, 16000.0, 24000.0, 25000.0])
def test_input_bands_end_below_the_cutoff(cutoff: float) -> None:
    count = bands_below(cutoff)
    assert FEWEST_BANDS <= count <= MOST_BANDS
    if count > FEWEST_BANDS:
        edges = band_edges()
        assert 0.5 * (edges[count - 1] + edges[count]) <= 0.93 * cutoff


def test_windows_add_up() -> None:
    amplitude, power = synthesis_window(2.0), synthesis_window(1.0)
    np.testing.assert_allclose(amplitude[:OVERLAP] + amplitude[-OVERLAP:], 1.0)
    np.testing.assert_allclose(power[:OVERLAP] ** 2 + power[-OVERLAP:] ** 2, 1.0)
    np.testing.assert_allclose(replica_window() * analysis_window()[-SYNTHESIS:], amplitude)
    assert replica_window().max() < 2.0


def test_white_noise_has_its_variance_as_density() -> None:
    random = np.random.default_rng(1)
    mean = np.mean([densities_of(0.1 * random.standard_normal(ANALYSIS)) for _ in range(800)], 0)
    np.testing.assert_allclose(mean, 0.01, rtol=0.1)


def test_a_cut_band_keeps_its_density() -> None:
    """Half a band of white noise is as dense as the whole, and others are not touched."""
    random = np.random.default_rng(2)
    last = int(0.93 * CUTOFF / HZ_PER_BIN)
    cut = band_of_bin()[last]
    blocks = [random.standard_normal(ANALYSIS) for _ in range(800)]
    whole = np.mean([densities_of(block) for block in blocks], 0)
    part = np.mean([densities_of(block, last) for block in blocks], 0)
    assert part[cut] != whole[cut]
    assert part[cut] == pytest.approx(1.0, rel=0.1)
    np.testing.assert_array_equal(np.delete(part, cut), np.delete(whole, cut))


def test_features_are_logarithms_by_age() -> None:
    context = 10.0 ** np.random.default_rng(3).uniform(-9, -5, (CONTEXT, BANDS))
    features = np.zeros(FEATURES_PER_BAND * INPUT_BANDS)
    level = context_features(context, INPUT_BANDS, features)
    sizes = np.bincount(band_of_bin()[band_of_bin() >= 0])[:INPUT_BANDS]
    assert level == pytest.approx(np.log10((context[:, :INPUT_BANDS] @ sizes).mean() / sizes.sum()))
    logs = np.log10(context[:, :INPUT_BANDS]) - level
    wanted = [logs[-1], logs[-2], logs[-3], logs[-7:-3].mean(axis=0), logs[-23:-7].mean(axis=0)]
    np.testing.assert_allclose(features, np.concatenate(wanted))


def test_prediction_is_linear_and_bounded() -> None:
    random = np.random.default_rng(4)
    context = 10.0 ** random.uniform(-6, -5, (CONTEXT, BANDS))
    weights = random.normal(0, 0.01, flat_weights().shape).astype(np.float32)
    features, envelope = np.zeros(FEATURES_PER_BAND * BANDS), np.zeros(BANDS)
    predict(context, weights, INPUT_BANDS, features, envelope)
    used = FEATURES_PER_BAND * INPUT_BANDS
    level = context_features(context, INPUT_BANDS, features)
    table = weights[INPUT_BANDS, :, INPUT_BANDS:].astype(np.float64)
    np.testing.assert_allclose(
        envelope[INPUT_BANDS:], level + table[0] + features[:used] @ table[1 : 1 + used], rtol=1e-9
    )
    np.testing.assert_allclose(envelope[:INPUT_BANDS], np.log10(context[-1, :INPUT_BANDS]))
    predict(context, flat_weights(9.0), INPUT_BANDS, features, envelope)
    np.testing.assert_allclose(envelope[INPUT_BANDS:], envelope[:INPUT_BANDS].max() + 2.0)


@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
def test_the_high_band_gets_the_density_that_was_predicted(share: float) -> None:
    low = low_noise(4 * RATE)
    high = run(low, share)[RATE:, 0]
    spectrum = np.abs(np.fft.rfft(high)) ** 2 / high.size
    frequency = np.fft.rfftfreq(high.size, 1 / RATE)
    density = 0.01  # flat noise of the same density as the low band
    for bottom in (8500.0, 12000.0, 16000.0, 20000.0):
        inside = (frequency > bottom) & (frequency < bottom + 3000)
        assert 10 * np.log10(spectrum[inside].mean() / density) == pytest.approx(0.0, abs=1.0)
    below = (frequency > 100) & (frequency < 0.9 * CUTOFF)
    assert spectrum[below].mean() < 0.02 * density


def test_a_moved_partial_stays_a_partial() -> None:
    """Frames fit together: a sine is copied to sines, not to a buzz at the frame rate."""
    time = np.arange(3 * RATE) / RATE
    sine = 0.1 * np.sin(2 * np.pi * 6100.0 * time) + 1e-4 * low_noise(3 * RATE)[:, 0]
    high = run(sine[:, None], 1.0)[RATE : 2 * RATE, 0]
    spectrum = np.abs(np.fft.rfft(high * np.hanning(high.size))) ** 2
    peak = int(spectrum[8000:12000].argmax()) + 8000
    top = int(0.925 * CUTOFF / HZ_PER_BIN)
    assert abs(peak - (6100.0 + top // 2 * HZ_PER_BIN)) < 1.5
    # A carrier that broke off at every frame would have its lines 100 Hz apart and equally strong.
    # What is left is the skirt of the analysis window, lifted by the flattening; the partial masks
    # it, as it lies within its critical band.
    near = spectrum[peak - 1000 : peak + 1001].copy()
    near[996:1005] = 0.0
    assert 10 * np.log10(near.max() / spectrum[peak]) < -16.0


def test_the_high_band_is_where_the_low_band_is() -> None:
    """A burst's high band neither precedes it nor comes later than a frame after it."""
    start, length = 100 * HOP + 137, 40 * HOP
    audio = np.zeros((200 * HOP, 1))
    audio[start : start + length] = low_noise(length)
    high = run(audio, 0.5)[:, 0]
    delay = OVERLAP  # `out` of a hop lies at that hop's own place
    loud = np.flatnonzero(np.abs(high) > 0.01)
    assert loud[0] - delay >= start - SYNTHESIS
    assert loud[0] - delay < start + OVERLAP
    assert abs(loud[-1] - delay - (start + length)) < SYNTHESIS
    assert not high[: start - SYNTHESIS].any()
    # the newest 600 samples decide: after them there is nothing to continue
    assert not high[start + length + 2 * SYNTHESIS + HOP :].any()


def test_noise_depends_on_seed_and_is_shared_by_channels() -> None:
    low = np.repeat(low_noise(40 * HOP), 2, axis=1)
    both = run(low, 0.3, seed=5)
    np.testing.assert_array_equal(both[:, 0], both[:, 1])
    np.testing.assert_array_equal(both[:, :1], run(low[:, :1], 0.3, seed=5))
    assert not np.array_equal(both, run(low, 0.3, seed=6))
