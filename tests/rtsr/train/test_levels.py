"""The loss on band levels: where it looks, what it weighs, what it leaves out."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from rtsr.train.levels import (  # noqa: E402
    CELL_QUANTILE,
    FRESH_FRAMES,
    FRESH_WEIGHT,
    LEAST_WEIGHT,
    MOST_WEIGHT,
    QUANTILE,
    LevelLoss,
)

FRAMES = 100
BANDS = 64


@pytest.fixture(scope="module")
def loss():
    return LevelLoss(BANDS)


def compared(loss, estimate, reference, f_prior=4000.0, f_end=24_000.0, floor=1e-12):
    """Levels in dB against the reference's, at a running level of one half: error and contours."""
    batch = estimate.shape[0]
    limits = torch.full((batch,), f_prior), torch.full((batch,), f_end)
    level = torch.full((batch, FRAMES, 1), 0.5)
    relative = estimate * math.log(10.0) / 20.0 - level.log()
    power = 10.0 ** (reference / 10.0)
    error, contours = loss(relative[None], power, level, limits, torch.full((batch,), floor))
    return error[0], contours[0]


def level_error(loss, *given, **limits):
    return float(compared(loss, *given, **limits)[0])


def flat(level_db: float):
    return torch.full((1, FRAMES, BANDS), level_db)


def test_white_noise_has_its_variance_in_every_band(loss):
    torch.manual_seed(0)
    power = loss.powers(torch.randn(1, 1, 480 * 1000) * 0.1)
    assert power.shape == (1, 1000, BANDS)
    assert (power[:, 2:-2].mean(1) / 0.01 - 1.0).abs().max() < 0.1


def test_a_burst_is_seen_where_the_synthesis_would_put_it(loss):
    """Frame t holds samples 480 t - 120 to 480 t + 480, and the compared window is around them."""
    audio = torch.zeros(1, 1, 480 * FRAMES)
    audio[0, 0, 480 * 50 + 180] = 1.0
    power = loss.powers(audio)[0].mean(1)
    assert int(power.argmax()) == 50
    assert float(power[49]) == pytest.approx(float(power[51]), rel=1e-3)


def test_equal_levels_have_no_error_and_an_error_is_in_decibels(loss):
    reference = flat(-40.0)
    assert level_error(loss, reference, reference) == pytest.approx(0.0, abs=1e-3)
    assert level_error(loss, reference + 3.0, reference) == pytest.approx(
        3.0 * 2 * (1 - QUANTILE), rel=1e-2
    )
    assert level_error(loss, reference - 3.0, reference) == pytest.approx(
        3.0 * 2 * QUANTILE, rel=1e-2
    )


def test_too_quiet_is_worse_than_too_loud(loss):
    assert level_error(loss, flat(-45.0), flat(-40.0)) > level_error(loss, flat(-35.0), flat(-40.0))


@pytest.mark.parametrize(("low", "high"), [(0, 30), (58, 64)], ids=["input band", "beyond the end"])
def test_only_missing_bands_within_the_reference_are_compared(loss, low, high):
    wrong = flat(-40.0)
    wrong[:, :, low:high] -= 20.0
    end = 15_000.0 if low else 24_000.0
    assert level_error(loss, wrong, flat(-40.0), f_end=end) == pytest.approx(0.0, abs=1e-3)


def test_below_the_floor_no_level_is_better_than_another(loss):
    reference = flat(-120.0)
    assert level_error(loss, flat(-100.0), reference, floor=1e-8) < 0.1
    assert level_error(loss, flat(-100.0), reference, floor=1e-15) > 15.0
    assert level_error(loss, flat(-60.0), reference, floor=1e-8) > 15.0


def test_loud_frames_weigh_most_and_the_first_ones_little(loss):
    reference = flat(-40.0)
    reference[:, 60:] = -90.0
    loud, quiet, fresh = (reference.clone() for _ in range(3))
    loud[:, 40:50] += 5.0
    quiet[:, 80:90] += 5.0
    fresh[:, 0:10] += 5.0
    of_loud = level_error(loss, loud, reference)
    assert level_error(loss, quiet, reference) / of_loud == pytest.approx(
        LEAST_WEIGHT / MOST_WEIGHT, rel=0.05
    )
    assert level_error(loss, fresh, reference) / of_loud == pytest.approx(FRESH_WEIGHT, rel=0.05)
    assert FRESH_FRAMES < 40


def cell_error(loss, estimate, reference, f_end=24_000.0, floor=1e-12):
    limits = torch.full((1,), 4000.0), torch.full((1,), f_end)
    powers = (10.0 ** (x / 10.0) for x in (estimate, reference))
    return float(loss.cell_error(*powers, limits, torch.full((1, 1, BANDS), floor)))


def test_errors_of_cells_are_in_decibels_and_too_quiet_is_a_little_worse(loss):
    reference = flat(-40.0)
    assert cell_error(loss, reference, reference) == pytest.approx(0.0, abs=1e-3)
    for moved, share in ((3.0, 1 - CELL_QUANTILE), (-3.0, CELL_QUANTILE)):
        error = cell_error(loss, reference + moved, reference)
        assert error == pytest.approx(3.0 * 2 * share, rel=1e-2)


def test_cells_weigh_by_their_own_level_and_not_by_their_frame(loss):
    reference = flat(-40.0)
    reference[:, :, 50:] = -90.0
    loud, quiet = reference.clone(), reference.clone()
    loud[:, 40:60, 45:50] += 5.0
    quiet[:, 40:60, 50:55] += 5.0
    assert cell_error(loss, quiet, reference) < 0.5 * cell_error(loss, loud, reference)


def test_cells_beyond_the_end_or_below_the_floor_are_not_compared(loss):
    wrong = flat(-40.0)
    wrong[:, :, 58:] -= 20.0
    assert cell_error(loss, wrong, flat(-40.0), f_end=15_000.0) == pytest.approx(0.0, abs=1e-3)
    assert cell_error(loss, flat(-100.0), flat(-120.0), floor=1e-8) < 0.1
    # As for a clip none of whose bands may be compared.
    assert cell_error(loss, flat(-60.0), flat(-40.0), f_end=0.0) == 0.0


def mean_error(loss, estimate, reference, f_end=24_000.0):
    limits = torch.full((1,), 4000.0), torch.full((1,), f_end)
    powers = (10.0 ** (x / 10.0) for x in (estimate, reference))
    return float(loss.mean_error(*powers, limits, torch.full((1, 1, BANDS), 1e-14)))


def test_plain_errors_are_in_decibels_whichever_way_and_however_loud(loss):
    reference = flat(-40.0)
    reference[:, :, 50:] = -90.0
    for moved in (3.0, -3.0):
        assert mean_error(loss, reference + moved, reference) == pytest.approx(3.0, rel=1e-2)
    loud, quiet, early = (reference.clone() for _ in range(3))
    loud[:, 40:60, 45:50] += 5.0
    quiet[:, 40:60, 50:55] += 5.0
    early[:, :20, 45:50] += 5.0
    of_loud = mean_error(loss, loud, reference)
    assert mean_error(loss, quiet, reference) == pytest.approx(of_loud, rel=1e-2)
    assert mean_error(loss, early, reference) == pytest.approx(FRESH_WEIGHT * of_loud, rel=1e-2)


def test_plain_errors_end_where_the_clip_does(loss):
    wrong = flat(-40.0)
    wrong[:, :, 58:] -= 20.0
    assert mean_error(loss, wrong, flat(-40.0), f_end=15_000.0) == pytest.approx(0.0, abs=1e-3)
    assert mean_error(loss, flat(-60.0), flat(-40.0), f_end=0.0) == 0.0


def test_contours_are_alike_up_to_level_and_unlike_when_they_are_not_followed(loss):
    torch.manual_seed(0)
    slow = torch.randn(1, FRAMES // 10, BANDS).repeat_interleave(10, dim=1)
    reference = flat(-40.0) + 6.0 * slow
    same, wrong = (
        float(compared(loss, estimate, reference)[1])
        for estimate in (reference, flat(-40.0) - 6.0 * slow)
    )
    assert same == pytest.approx(0.0, abs=1e-3)
    assert wrong > 0.5


def test_contours_are_compared_above_the_cutoff_only(loss):
    wrong = flat(-40.0)
    wrong[:, ::20, :30] += 20.0
    assert float(compared(loss, wrong, flat(-40.0))[1]) == pytest.approx(0.0, abs=1e-3)


def heard(loss, estimate, reference, f_prior=4000.0, f_end=24_000.0):
    limits = torch.full((1,), f_prior), torch.full((1,), f_end)
    powers = (10.0 ** (x / 10.0) for x in (estimate, reference))
    return float(loss.heard_dissimilarity(*powers, limits, torch.full((1, 1, BANDS), 1e-12)))


def contour(seed=0):
    torch.manual_seed(seed)
    return 8.0 * torch.randn(1, FRAMES // 10, BANDS).repeat_interleave(10, dim=1)


def test_what_is_heard_alike_does_not_differ(loss):
    reference = flat(-40.0) + contour()
    assert heard(loss, reference, reference) == pytest.approx(0.0, abs=1e-4)
    assert heard(loss, flat(-40.0) + contour(1), reference) > 0.5
    # As ViSQOL has it, a contour that is followed 6 dB too low is much nearer than none.
    assert heard(loss, reference - 6.0, reference) < 0.5 * heard(loss, flat(-40.0), reference)


def test_octaves_are_heard_that_speech_lacks_most(loss):
    """At low scores ViSQOL's regression goes by what lies above 7 kHz."""
    reference = flat(-40.0) + contour()
    lower, upper = reference.clone(), reference.clone()
    is_lower = (loss.centres > 4000.0) & (loss.centres < 6000.0)
    is_upper = (loss.centres > 9000.0) & (loss.centres < 16_000.0)
    lower[:, :, is_lower] = -40.0
    upper[:, :, is_upper] = -40.0
    assert heard(loss, lower, reference) < 0.3 * heard(loss, upper, reference)


def test_nothing_is_heard_below_the_cutoff_or_beyond_the_end(loss):
    reference = flat(-40.0)
    for wrong, f_end in ((slice(0, 24), 24_000.0), (slice(58, 64), 15_000.0)):
        estimate = reference.clone()
        estimate[:, ::10, wrong] += 20.0
        assert heard(loss, estimate, reference, f_end=f_end) == pytest.approx(0.0, abs=1e-4)
    # As for a clip none of whose bands may be compared.
    assert heard(loss, flat(-60.0), reference + contour(), f_end=0.0) == 0.0


def test_the_shortest_clips_are_heard(loss):
    short = (flat(-40.0) + contour())[:, :8]
    assert heard(loss, short, short) == pytest.approx(0.0, abs=1e-4)
