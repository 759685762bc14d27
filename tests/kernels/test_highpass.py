"""The crossover's high-pass: its mask at every cutoff, its recursion, its manners."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from rtsr_kernels.highpass import SECTIONS, apply_sos, highpass_sos, highpass_state

CUTOFFS = [
    50.0,
    1000.0,
    2000.0,
    3999.5,
    4000.0,
    8000.0,
    11025.0,
    16000.0,
    20000.0,
    22000.0,
    24000.0,
]
EACH_CUTOFF = pytest.mark.parametrize("cutoff", CUTOFFS)


def noise(frames: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(4).standard_normal((frames, channels)).astype(np.float32)


def filtered(sos: np.ndarray, audio: np.ndarray) -> np.ndarray:
    out = np.empty_like(audio)
    apply_sos(sos, highpass_state(audio.shape[1]), audio, out)
    return out


@EACH_CUTOFF
def test_meets_its_mask(cutoff: float) -> None:
    sos = highpass_sos(cutoff)
    assert sos.shape == (SECTIONS, 6)
    assert (sos[:, 3] == 1.0).all()
    edges = [np.linspace(0.0, 0.85 * cutoff, 4000), np.linspace(0.95 * cutoff, 24000.0, 4000)]
    stop, passes = (
        20 * np.log10(np.abs(signal.sosfreqz(sos, e, fs=48000)[1]) + 1e-12) for e in edges
    )
    assert stop.max() < -50.0
    assert passes.min() > -0.1001
    assert passes.max() < 0.0001


@EACH_CUTOFF
def test_agrees_with_scipys_design(cutoff: float) -> None:
    stop_db = -20 * np.log10(
        np.abs(signal.sosfreqz(highpass_sos(cutoff), [0.85 * cutoff], fs=48000)[1][0])
    )
    reference = signal.ellip(
        2 * SECTIONS, 0.1, stop_db, min(0.95 * cutoff, 23999.0), "highpass", fs=48000, output="sos"
    )
    frequencies = np.geomspace(20.0, 23990.0, 500)
    ours = np.abs(signal.sosfreqz(highpass_sos(cutoff), frequencies, fs=48000)[1])
    theirs = np.abs(signal.sosfreqz(reference, frequencies, fs=48000)[1])
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


@EACH_CUTOFF
def test_is_stable(cutoff: float) -> None:
    for section in highpass_sos(cutoff):
        assert np.abs(np.roots(section[3:])).max() < 1.0
    loud = np.sign(noise(48000))
    assert np.abs(filtered(highpass_sos(cutoff), loud)).max() < 20.0


@EACH_CUTOFF
def test_equals_scipys_filter(cutoff: float) -> None:
    sos, audio = highpass_sos(cutoff), noise(5000, 2)
    expected = signal.sosfilt(sos.copy(), audio.astype(float), axis=0)
    np.testing.assert_allclose(filtered(sos, audio), expected, atol=2e-6)


def test_has_no_look_ahead_and_no_bulk_delay() -> None:
    click = np.zeros((100, 1), dtype=np.float32)
    click[40] = 1.0
    out = filtered(highpass_sos(4000.0), click)
    assert not out[:40].any()
    assert abs(out[40, 0]) > 0.3


def test_no_trace_of_the_partition_and_in_place() -> None:
    sos, audio = highpass_sos(8000.0), noise(3000, 2)
    whole = filtered(sos, audio)
    state, pieces = highpass_state(2), audio.copy()
    for start, end in [(0, 1), (1, 1), (1, 481), (481, 2000), (2000, 3000)]:
        apply_sos(sos, state, pieces[start:end], pieces[start:end])
    np.testing.assert_array_equal(pieces, whole)


def test_channels_are_independent() -> None:
    sos, audio = highpass_sos(4000.0), noise(1000, 3)
    together = filtered(sos, audio)
    for channel in range(3):
        alone = filtered(sos, np.ascontiguousarray(audio[:, channel : channel + 1]))
        np.testing.assert_array_equal(together[:, channel], alone[:, 0])


@EACH_CUTOFF
def test_fades_into_true_silence_without_denormals(cutoff: float) -> None:
    sos, state, out = highpass_sos(cutoff), highpass_state(1), np.empty((48000, 1), np.float32)
    apply_sos(sos, state, noise(48000), out)
    silence = np.zeros_like(out)
    for _ in range(12):
        apply_sos(sos, state, silence, out)
        remaining = np.abs(state[state != 0.0])
        assert not remaining.size or remaining.max() > 1e-31
    assert not state.any()
    assert not out.any()


@pytest.mark.parametrize("cutoff", [0.0, -1.0, 25001.0, float("nan"), float("inf")])
def test_refuses_impossible_cutoffs(cutoff: float) -> None:
    with pytest.raises(ValueError, match="out of range"):
        highpass_sos(cutoff)


def test_refuses_shapes_that_do_not_fit() -> None:
    sos = highpass_sos(4000.0)
    with pytest.raises(ValueError, match="differ in shape"):
        apply_sos(sos, highpass_state(1), noise(4), noise(5))
    with pytest.raises(ValueError, match="state must be"):
        apply_sos(sos, highpass_state(2), noise(4), noise(4))
