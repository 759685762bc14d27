"""From errors of band levels to gains."""

from __future__ import annotations

import numpy as np
import pytest

from rtsr.colour.bands import BANDS, MAX_GAIN_DB
from rtsr.colour.estimate import ErrorSums, estimate_gains


def _measure(
    true_db: np.ndarray, seconds: float, wander_db: float, seed: int = 0, exact: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Errors of frames that keep for 100 ms what they wander by; their mean may be exact."""
    random = np.random.default_rng(seed)
    frames = round(100 * seconds)
    wander = np.repeat(random.normal(0.0, wander_db, (-(-frames // 10), BANDS)), 10, axis=0)
    wander = wander[:frames]
    if exact:
        wander -= wander.mean(axis=0)
    return true_db + wander, np.ones((frames, BANDS), np.bool_)


def _estimate(errors: np.ndarray, measured: np.ndarray, cutoff_hz: float) -> np.ndarray:
    sums = ErrorSums()
    sums.add(errors, measured)
    return estimate_gains(sums, cutoff_hz)


def test_nothing_wrong_needs_no_gain() -> None:
    np.testing.assert_allclose(_estimate(*_measure(np.zeros(BANDS), 20.0, 0.0), 4000.0), 0.0)


def test_a_gain_is_most_of_a_steady_error_and_never_more() -> None:
    gains = _estimate(*_measure(np.full(BANDS, 8.0), 60.0, 3.0, exact=True), 4000.0)
    assert (gains > 0.3 * 8.0).all()
    assert (gains < 8.0).all()
    assert gains[-1] > 0.7 * 8.0


@pytest.mark.parametrize(
    ("sure", "unsure"),
    [((60.0, 30.0), (4.0, 30.0)), ((10.0, 3.0), (10.0, 30.0))],
    ids=["less sound", "wide spread"],
)
def test_the_less_sure_the_smaller(sure: tuple[float, float], unsure: tuple[float, float]) -> None:
    true_db = np.full(BANDS, 6.0)
    more, less = (
        np.mean(_estimate(*_measure(true_db, *one, exact=True), 4000.0)) for one in (sure, unsure)
    )
    assert 0.0 < less < 0.97 * more


def test_few_seconds_are_taken_to_differ_as_others_do() -> None:
    """One second says nothing about how seconds differ; it is not left out for that."""
    true_db = np.full(BANDS, 6.0)
    one, steady, unsteady = (
        np.mean(_estimate(*_measure(true_db, *case, exact=True), 8000.0))
        for case in ((1.0, 0.0), (8.0, 0.0), (8.0, 40.0))
    )
    assert 0.45 * steady < one < 0.9 * steady
    assert unsteady < one


def test_what_is_left_over_after_whole_seconds_counts() -> None:
    """A second and a half is surer than the second alone."""
    sums = [ErrorSums() for _ in range(2)]
    for one, seconds in zip(sums, (1.0, 1.4), strict=True):
        one.add(*_measure(np.full(BANDS, 6.0), seconds, 0.0))
    alone, longer = (one.error_variances() for one in sums)
    assert (longer < 0.8 * alone).all()


@pytest.mark.parametrize("error_db", [-40.0, 40.0])
def test_no_gain_is_beyond_the_limit(error_db: float) -> None:
    gains = _estimate(*_measure(np.full(BANDS, error_db), 60.0, 1.0), 4000.0)
    assert np.abs(gains).max() == MAX_GAIN_DB
    assert (np.sign(gains) == np.sign(error_db)).all()


def test_gains_are_smoother_than_what_was_measured() -> None:
    ragged = np.where(np.arange(BANDS) % 2 == 0, 4.0, 0.0)
    gains = _estimate(*_measure(ragged, 10.0, 3.0), 4000.0)
    assert np.abs(np.diff(gains)).mean() < 0.75 * np.abs(np.diff(ragged)).mean()


def test_a_band_that_was_not_measured_follows_its_neighbours() -> None:
    errors, measured = _measure(np.full(BANDS, 6.0), 30.0, 1.0)
    measured[:, 20:] = False
    errors[:, 20:] = -40.0
    gains = _estimate(errors, measured, 4000.0)
    assert (gains[20:] > 1.0).all()


def test_without_anything_measured_there_is_no_gain() -> None:
    errors, measured = _measure(np.full(BANDS, 6.0), 3.0, 1.0)
    assert not _estimate(errors, np.zeros_like(measured), 4000.0).any()
    assert not _estimate(errors[:0], measured[:0], 4000.0).any()


@pytest.mark.parametrize("seconds", [2.0, 10.0])
def test_over_many_voices_a_short_sample_is_better_than_nothing(seconds: float) -> None:
    """Voices whose rest drifts away from the sample: on the whole, the gains still help."""
    random = np.random.default_rng(1)
    with_gains, without = [], []
    for seed in range(60):
        true_db = np.repeat(random.normal(0.0, 4.0, 4), 6)
        rest_db = true_db + np.repeat(random.normal(0.0, 3.0, 4), 6)
        gains = _estimate(*_measure(true_db, seconds, 6.0, seed), 8000.0)
        with_gains.append(np.mean((rest_db - gains)[10:] ** 2))
        without.append(np.mean(rest_db[10:] ** 2))
    assert np.mean(with_gains) < 0.8 * np.mean(without)


def test_sound_that_comes_in_parts_tells_the_same() -> None:
    errors, measured = _measure(np.linspace(-6.0, 6.0, BANDS), 12.0, 5.0)
    measured[300:500, 20:] = False
    sums = ErrorSums()
    for start in range(0, len(errors), 300):
        sums.add(errors[start : start + 300], measured[start : start + 300])
    np.testing.assert_allclose(
        estimate_gains(sums, 4000.0), _estimate(errors, measured, 4000.0), atol=1e-9
    )


def test_what_is_forgotten_makes_room_for_what_comes() -> None:
    sums = ErrorSums()
    sums.add(*_measure(np.full(BANDS, 6.0), 20.0, 0.0))
    sums.fade(0.1)
    assert sums.frames == pytest.approx(200.0)
    sums.add(*_measure(np.full(BANDS, -6.0), 8.0, 0.0))
    np.testing.assert_allclose(sums.means, -3.6)


def test_however_long_a_sample_is_the_rest_may_differ_by_1_db() -> None:
    sums = ErrorSums()
    sums.add(*_measure(np.full(BANDS, 6.0), 600.0, 0.0))
    np.testing.assert_allclose(sums.error_variances(), 1.0, atol=0.01)


def test_a_band_with_next_to_no_frames_tells_nothing() -> None:
    errors, measured = _measure(np.full(BANDS, 6.0), 10.0, 1.0)
    errors[:, 20:] = -40.0
    measured[95:, 20:] = False
    assert (_estimate(errors, measured, 4000.0)[20:] > 1.0).all()
    measured[:105, 20:] = True
    assert (_estimate(errors, measured, 4000.0)[20:] < -1.0).all()
