"""A high band in proportion to the octave below it, from the first hop of a sound on."""

from __future__ import annotations

import numpy as np
import pytest

from rtsr.engine.proportion import MOST_INSTANT_RATIO, MOST_RATIO, ProportionateSource
from rtsr.errors import ModelError
from rtsr.timing import HOP, OVERLAP

#: 2 dB
RAISED = np.float32(10.0**0.1)


class NoiseSource:
    """White noise of one level in every hop that has sound, and in the one behind it."""

    name, channels, hops, overlap, seed = "noise", 2, 1, OVERLAP, 0

    def __init__(self, level: float) -> None:
        self.level = level
        self._heard = False
        self._chance = np.random.default_rng(1)

    def reset(self) -> None:
        pass

    def resume(self, frame: int) -> None:
        pass

    def generate(self, audio: np.ndarray, f_prior: np.ndarray, f_target: float) -> np.ndarray:
        made = self._chance.normal(0.0, self.level, audio.shape).astype(np.float32)
        heard, self._heard = self._heard, bool(audio.any())
        return made if heard or self._heard else np.zeros_like(made)


def run(level: float, hops: int = 6, silent: int = 3) -> np.ndarray:
    """What is left in each hop of a high band above noise of 0.01 that begins after silence."""
    source = ProportionateSource(NoiseSource(level))
    chance = np.random.default_rng(0)
    out = []
    for hop in range(hops):
        audio = np.zeros((HOP, 2), np.float32)
        if hop >= silent:
            # The first channel has sound, the second none.
            audio[:, 0] = chance.normal(0.0, 0.01, HOP)
        out.append(source.generate(audio, np.full(1, 12000.0, np.float32), 24000.0).copy())
    return np.stack(out)


def test_too_much_is_turned_down_from_the_onset_on() -> None:
    left = run(0.1)
    assert not left[:3].any()
    # But for the time in which the gain falls.
    powers = np.mean(np.square(left[3:, 16:]), axis=1) / (MOST_RATIO * 0.01**2)
    assert np.all(powers[:, 0] < 1.6)
    assert powers[2:, 0] == pytest.approx(1.0, rel=0.5)
    # And above nothing there is nothing.
    assert np.all(powers[:, 1] < 1e-6)


def test_what_is_in_proportion_is_only_raised() -> None:
    source = NoiseSource(0.002)
    audio = np.ones((HOP, 2), np.float32)
    expected = np.stack([source.generate(audio, np.zeros(1), 0.0) for _ in range(6)])
    heard = slice(OVERLAP + 32, None)
    assert np.array_equal(run(0.002)[3:, heard, 0], RAISED * expected[3:, heard, 0])


def run_burst(
    samples: int, begins: int, floor: float = 0.0, f_target: float = 24000.0
) -> tuple[np.ndarray, np.ndarray]:
    """What is left of noise in all hops of a burst, 6 dB less dense, and what was made; aligned."""
    kept, made = NoiseSource(0.05), NoiseSource(0.05)
    source = ProportionateSource(kept)
    chance = np.random.default_rng(0)
    audio = chance.normal(0.0, floor, (8 * HOP, 2)).astype(np.float32)
    audio[begins : begins + samples] = chance.normal(0.0, 0.1, (samples, 2))
    cutoff = np.full(1, 12000.0, np.float32)
    hops = audio.reshape(8, HOP, 2)
    return tuple(
        np.concatenate([one.generate(hop, cutoff, f_target).copy() for hop in hops])[OVERLAP:]
        for one in (source, made)
    )


@pytest.mark.parametrize("samples", [32, 150, 600])
@pytest.mark.parametrize("place", [48 - OVERLAP, 0, 16, 140, 300, 470])
def test_what_a_source_spreads_over_a_hop_stays_with_its_burst(samples: int, place: int) -> None:
    begins = 3 * HOP + place
    left, made = run_burst(samples, begins)
    ends = begins + samples
    # Half a window and half of it once more, 0.5 ms at 96 kHz.
    assert not left[: begins - 48].any()
    assert not left[ends + 48 :].any()
    # From 0.33 ms on it is 20 dB weaker than within.
    near = np.concatenate([left[begins - 48 : begins - 32], left[ends + 32 : ends + 48]])
    assert np.max(np.abs(near)) < 0.1 * np.max(np.abs(made))
    # And the burst is as loud from its first sample on as it was made.
    burst = slice(begins, ends)
    kept = np.mean(np.square(left[burst])) / np.mean(np.square(RAISED * made[burst]))
    assert kept == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("place", [-4, 0, 4])
def test_a_burst_that_begins_with_a_hop_is_whole_after_16_samples(place: int) -> None:
    begins = 4 * HOP - OVERLAP + place
    left, made = run_burst(600, begins)
    burst = slice(begins + 16, begins + 64)
    kept = np.mean(np.square(left[burst])) / np.mean(np.square(RAISED * made[burst]))
    assert kept == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(("cutoff_hz", "bins"), [(12000.0, (8, 16)), (6000.0, (4, 8))])
def test_the_gain_of_an_instant_is_that_of_the_64_samples_around_it(
    cutoff_hz: float, bins: tuple[int, int]
) -> None:
    kept, same = NoiseSource(0.1), NoiseSource(0.1)
    source = ProportionateSource(kept)
    audio = np.random.default_rng(0).normal(0.0, 0.03, (4, HOP, 2)).astype(np.float32)
    cutoff = np.full(1, cutoff_hz, np.float32)
    for hop in audio:
        left = source.generate(hop, cutoff, 20000.0)
        made = RAISED * same.generate(hop, cutoff, 20000.0)
    # From 16 samples before the hop on.
    heard = audio.reshape(-1, 2)[-HOP - OVERLAP - 16 :]
    window = np.blackman(65)[:64, None]
    wanted, found = [], []
    for centre in range(16, HOP + 1, 16):
        spectrum = np.fft.rfft(heard[centre - 16 : centre + 48] * window, axis=0)
        below = np.square(np.abs(spectrum))[slice(*bins)].mean(axis=0) / np.sum(window**2)
        # Of what is made only the newest hop counts.
        first, last = max(centre - 32, 0), min(centre + 32, HOP)
        weights = window[first - centre + 32 : last - centre + 32] ** 2
        above = np.sum(np.square(made[first:last]) * weights, axis=0) / weights.sum()
        ratio = MOST_INSTANT_RATIO * below / above * (20000 - cutoff_hz) / 24000
        wanted.append(np.sqrt(np.minimum(ratio, 1.0)))
        found.append(left[centre - 1] / made[centre - 1])
    # What the longer looks leave is one gain for the whole hop.
    steady = np.array(found) / np.array(wanted)
    assert np.ptp(np.log(wanted), axis=0).min() > 0.5
    np.testing.assert_allclose(steady, np.broadcast_to(steady[0], steady.shape), rtol=1e-4)


def test_two_hops_at_once_are_two_hops() -> None:
    audio = np.random.default_rng(0).normal(0.0, 0.01, (6 * HOP, 2)).astype(np.float32)
    runs = []
    for hops in (1, 2):
        noise = NoiseSource(0.1)
        noise.hops = hops
        source = ProportionateSource(noise)
        # The cutoff is another in each hop.
        cutoffs = np.array([12000, 6000, 12000, 9000, 6000, 12000], np.float32).reshape(-1, hops)
        steps = zip(audio.reshape(-1, hops * HOP, 2), cutoffs, strict=True)
        runs.append(np.concatenate([source.generate(*one, 24000.0).copy() for one in steps]))
    assert np.array_equal(*runs)


def test_an_overlap_that_the_look_ahead_does_not_fit_into_is_refused() -> None:
    source = NoiseSource(0.1)
    source.overlap = 31
    with pytest.raises(ModelError, match="overlap of 32 samples or more, 'noise' has 31"):
        ProportionateSource(source)
    source.overlap = 32
    hop = np.ones((HOP, 2), np.float32)
    assert ProportionateSource(source).generate(hop, np.full(1, 12000.0), 24000.0).any()


@pytest.mark.parametrize("f_target", [15000.0, 24000.0])
def test_beside_a_burst_an_instant_is_left_6_db_more_than_its_floor(f_target: float) -> None:
    # In the middle of a hop of the high band, of which the rest belongs to the floor of 0.01.
    left, _ = run_burst(120, 3 * HOP - OVERLAP + 180, 0.01, f_target)
    hop = left[3 * HOP - OVERLAP :][:HOP]
    beside = np.concatenate([hop[64:120], hop[360:440]])
    wanted = MOST_INSTANT_RATIO * 0.01**2 * (f_target - 12000.0) / 24000.0
    # Densities of 64 samples vary by half.
    assert 0.5 < np.mean(np.square(beside)) / wanted < 2.0


def test_gains_are_there_within_16_samples() -> None:
    kept, same = NoiseSource(0.002), NoiseSource(0.002)
    source = ProportionateSource(kept)
    chance = np.random.default_rng(0)
    cutoff = np.full(1, 12000.0, np.float32)
    made, left = [], []
    for hop in range(12):
        audio = chance.normal(0.0, 0.01, (HOP, 2)).astype(np.float32)
        kept.level = same.level = 0.1 if 4 <= hop < 7 else 0.002
        made.append(RAISED * same.generate(audio, cutoff, 24000.0))
        left.append(source.generate(audio, cutoff, 24000.0).copy())
    powers = [np.mean(np.square(hop[16:])) for hop in left]
    # Loud ones fall at once; what follows passes as soon as both looks are over them.
    assert max(powers[4:7]) < 1.6 * MOST_RATIO * 0.01**2
    turned = [not np.array_equal(a[-16:], b[-16:]) for a, b in zip(left, made, strict=True)]
    back = 7 + turned[7:].index(False)
    assert np.array_equal(left[back][16:], made[back][16:])
    assert not np.array_equal(left[back][:16], made[back][:16])


class ToneSource(NoiseSource):
    """A tone of 13 kHz, whatever there is."""

    def generate(self, audio: np.ndarray, f_prior: np.ndarray, f_target: float) -> np.ndarray:
        tone = 0.1 * np.sin(2 * np.pi * 13000.0 * np.arange(HOP) / 48000.0)
        return np.repeat(tone[:, None], 2, axis=1).astype(np.float32)


def test_a_reset_forgets_all() -> None:
    source = ProportionateSource(ToneSource(0.0))
    audio = np.random.default_rng(0).normal(0.0, 0.01, (HOP, 2)).astype(np.float32)
    cutoff = np.full(1, 12000.0, np.float32)
    runs = []
    for _ in range(2):
        runs.append([source.generate(audio, cutoff, 24000.0).copy() for _ in range(4)])
        source.reset()
    assert np.array_equal(*runs)


@pytest.mark.parametrize("f_target", [14000.0, 18000.0, 24000.0])
def test_density_counts_up_to_where_the_output_ends(f_target: float) -> None:
    source = ProportionateSource(ToneSource(0.0))
    chance = np.random.default_rng(0)
    cutoff = np.full(1, 12000.0, np.float32)
    left = []
    for _ in range(20):
        audio = chance.normal(0.0, 0.01, (HOP, 2)).astype(np.float32)
        left.append(source.generate(audio, cutoff, f_target).copy())
    share = (f_target - 12000.0) / 24000.0
    power = np.mean(np.square(left[10:]))
    # Of the shorter and the longer look the smaller gain counts.
    assert 0.6 < power / (MOST_RATIO * 0.01**2 * share) < 1.1
