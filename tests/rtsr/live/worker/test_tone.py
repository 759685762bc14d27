"""Level, tilt, ceiling and gate: what they do to the spectrum, and that none of them clicks."""

from __future__ import annotations

import numpy as np
import pytest

from rtsr.live.worker.tone import OPEN_CEILING_HZ, SilenceGate, Tone, level_dbfs

HOP = 480
RATE = 48000


def impulse_response(**values: float) -> np.ndarray:
    """Gain in dB at 0, 50, ... Hz of a tone that has stood at these values from the start."""
    tone = Tone(1)
    response = np.zeros((2 * HOP, 1), np.float32)
    response[0] = 1.0
    for start in (0, HOP):
        part = response[start : start + HOP]
        tone.shape(part, **values)
    return 20.0 * np.log10(np.abs(np.fft.rfft(response[:, 0])) + 1e-9)


hertz = np.fft.rfftfreq(2 * HOP, 1.0 / RATE)


def at(response: np.ndarray, hz: float) -> float:
    return float(np.interp(hz, hertz, response))


def sine(hz: float, hops: int, channels: int = 1) -> np.ndarray:
    wave = 0.5 * np.sin(2.0 * np.pi * hz * np.arange(hops * HOP) / RATE)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def splatter_db(audio: np.ndarray, below_hz: float) -> float:
    """Strongest trace of a high sine far below it, in dB of the sine, over short windows."""
    window = np.blackman(256)
    frames = np.lib.stride_tricks.sliding_window_view(audio[:, 0], 256)[::32] * window
    spectra = np.abs(np.fft.rfft(frames, axis=1)) / (0.5 * window.sum() / 2.0)
    low = np.fft.rfftfreq(256, 1.0 / RATE) < below_hz
    return float(20.0 * np.log10(spectra[:, low].max() + 1e-12))


def test_defaults_pass_every_bit():
    rng = np.random.default_rng(0)
    audio = rng.standard_normal((HOP, 2)).astype(np.float32)
    before = audio.copy()
    tone = Tone(2)
    for _ in range(3):
        tone.shape(audio)
    assert np.array_equal(audio, before)


def test_defaults_pass_every_bit_again_after_everything_was_moved_and_moved_back():
    rng = np.random.default_rng(0)
    tone = Tone(2)
    moved = (6.0, -4.0, 9000.0)
    still = (0.0, 0.0, OPEN_CEILING_HZ)
    for values in (still, moved, moved, still, still, still):
        audio = rng.standard_normal((HOP, 2)).astype(np.float32)
        before = audio.copy()
        tone.shape(audio, *values, 4000.0)
    assert np.array_equal(audio, before)


@pytest.mark.parametrize("level_db", [-24.0, -3.0, 12.0])
def test_level_is_a_gain(level_db):
    assert impulse_response(level_db=level_db) == pytest.approx(level_db, abs=1e-4)


@pytest.mark.parametrize("tilt_db", [-6.0, -2.5, 1.0, 6.0])
@pytest.mark.parametrize("cutoff_hz", [2000.0, 4000.0, 8000.0, 11000.0])
def test_tilt_is_a_straight_line_around_the_cutoff(tilt_db, cutoff_hz):
    response = impulse_response(tilt_db=tilt_db, cutoff_hz=cutoff_hz)
    band = (hertz >= cutoff_hz) & (hertz <= 20500.0)
    line = tilt_db * np.log2(hertz[band] / cutoff_hz)
    assert response[band] == pytest.approx(line, abs=0.12)


@pytest.mark.parametrize("ceiling_hz", [8000.0, 12000.0, 16000.0, 20000.0])
def test_ceiling_ends_the_band(ceiling_hz):
    response = impulse_response(ceiling_hz=ceiling_hz)
    assert at(response, ceiling_hz) == pytest.approx(-3.0, abs=0.2)
    assert at(response, 0.8 * ceiling_hz) == pytest.approx(0.0, abs=0.2)
    assert response[hertz < 0.7 * ceiling_hz] == pytest.approx(0.0, abs=0.05)
    assert at(response, min(1.6 * ceiling_hz, 23500.0)) < -33.0


def test_highest_ceiling_hardly_differs_from_none():
    response = impulse_response(ceiling_hz=23900.0)
    assert response[hertz < 22000.0] == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("level_db", [0.0, 6.0, 12.0, -6.0, -24.0, -24.0, 0.0]),
        ("tilt_db", [0.0, 3.0, 6.0, 0.0, -6.0, -6.0, 0.0, 0.0, 0.0]),
        ("ceiling_hz", [24000.0, 19000.0, 14500.0, 11000.0, 8400.0, 8000.0, 10500.0, 13500.0]),
        ("ceiling_hz", [13500.0, 17500.0, 23000.0, 24000.0, 24000.0, 19000.0, 15000.0]),
        ("cutoff_hz", [4000.0, 2000.0, 8000.0, 4000.0]),
    ],
)
def test_moving_a_knob_does_not_click(name, values):
    tone = Tone(1)
    fixed = {"tilt_db": -3.0} if name == "cutoff_hz" else {}
    # There, and back the same way; the sine's own beginning is no part of it.
    way = [values[0], *values, *reversed(values)]
    audio = sine(12345.0, len(way))
    for hop, value in enumerate(way):
        tone.shape(audio[hop * HOP : (hop + 1) * HOP], **fixed, **{name: value})
    assert splatter_db(audio[HOP:], 6000.0) < -60.0


def test_channels_are_treated_alike():
    tone = Tone(3)
    audio = sine(9000.0, 6, channels=3)
    for hop in range(6):
        tone.shape(audio[hop * HOP : (hop + 1) * HOP], hop, -hop, 20000.0 - 2000.0 * hop, 5000.0)
    assert np.array_equal(audio[:, 0], audio[:, 1])
    assert np.array_equal(audio[:, 0], audio[:, 2])


def test_full_swing_at_every_hop_stays_finite():
    rng = np.random.default_rng(3)
    tone = Tone(2)
    largest = 0.0
    for _ in range(500):
        audio = rng.uniform(-1.0, 1.0, (HOP, 2)).astype(np.float32)
        tone.shape(
            audio,
            rng.choice([-24.0, 0.0, 12.0]),
            rng.choice([-6.0, 0.0, 6.0]),
            rng.choice([8000.0, 16000.0, 24000.0]),
            rng.choice([1000.0, 8000.0, 16000.0]),
        )
        largest = max(largest, float(np.abs(audio).max()))
    assert largest < 200.0


@pytest.mark.parametrize("amplitude", [1.0, 0.1, 0.001])
def test_level_is_that_of_a_sine(amplitude):
    wave = np.sin(2.0 * np.pi * 1000.0 * np.arange(HOP) / RATE)
    audio = np.stack([0.1 * amplitude * wave, amplitude * wave], axis=1).astype(np.float32)
    assert level_dbfs(audio) == pytest.approx(20.0 * np.log10(amplitude), abs=0.01)


def test_level_of_silence_is_finite():
    assert level_dbfs(np.zeros((HOP, 1), np.float32)) < -150.0


def gains(gate: SilenceGate, amplitudes: list[float], threshold: float = -40.0) -> np.ndarray:
    """What is left of a high band of ones, for hops of a sine of these amplitudes."""
    heard = []
    for amplitude in amplitudes:
        high_band = np.ones((HOP, 1), np.float32)
        gate.apply(high_band, 2.0 * amplitude * sine(1000.0, 1), threshold)
        heard.append(high_band[:, 0])
    return np.array(heard)


def test_gate_that_is_off_never_closes():
    assert (gains(SilenceGate(120), [0.0] * 60, threshold=-100.0) == 1.0).all()


def test_gate_holds_then_closes_smoothly_then_stays_closed():
    heard = gains(SilenceGate(120), [0.1] * 5 + [0.0] * 45)
    assert (heard[:25] == 1.0).all()
    assert (heard[35:] == 0.0).all()
    way = np.diff(heard[24:36].ravel())
    assert (way <= 0.0).all()
    assert np.abs(way).max() < 0.001


def test_gate_opens_before_the_attack_is_heard():
    gate = SilenceGate(120)
    assert gains(gate, [0.0] * 50)[-1].max() == 0.0
    heard = gains(gate, [0.1])[0]
    assert (np.diff(heard) >= 0.0).all()
    assert np.abs(np.diff(heard)).max() < 0.01
    # The output is 120 samples later than the input: what was loud first is whole.
    assert (heard[120:] == 1.0).all()


def test_gate_has_hysteresis():
    gate = SilenceGate(120)
    just_below = 10 ** (-41.0 / 20.0)
    assert (gains(gate, [just_below] * 60) == 1.0).all()
    gains(gate, [0.0] * 60)
    assert (gains(gate, [just_below] * 60) == 0.0).all()


def test_gate_opens_again_when_it_is_turned_off():
    gate = SilenceGate(120)
    gains(gate, [0.0] * 50)
    assert (gains(gate, [0.0, 0.0], threshold=-100.0)[1] == 1.0).all()
