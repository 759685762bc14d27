"""Sound that is made shorter or longer: no seam, no other pitch, and what counts as quiet."""

from __future__ import annotations

import numpy as np
import pytest

from rtsr.call.time_scale import is_quiet, lengthen, pitch_lag, shorten


def tone(samples, period):
    return np.sin(2 * np.pi * np.arange(samples) / period)[:, None].astype(np.float32)


@pytest.mark.parametrize("lag", [40, 80])
def test_a_tone_goes_on_through_the_seam(lag):
    sound = tone(320, 40.0)
    assert shorten(sound, lag) == pytest.approx(sound[: 320 - lag], abs=1e-5)
    assert lengthen(sound, lag) == pytest.approx(tone(320 + lag, 40.0), abs=1e-5)


def test_the_seam_is_an_even_fade_as_long_as_there_is_room():
    steps = np.repeat(np.arange(4.0), 40)[:, None].astype(np.float32)
    # 40 samples go out of the middle of 160; on both sides of them 60 stay.
    short = shorten(steps, 40)
    assert len(short) == 120
    assert short[:60] == pytest.approx(steps[:60])
    rising = np.arange(1, 41)[:, None] / 41
    faded = (1 - rising) * steps[60:100] + rising * steps[100:140]
    assert short[60:100] == pytest.approx(faded, abs=1e-6)
    assert short[100:] == pytest.approx(steps[140:])
    long = lengthen(steps, 40)
    assert len(long) == 200
    assert long[:100] == pytest.approx(steps[:100])
    faded = (1 - rising) * steps[100:140] + rising * steps[60:100]
    assert long[100:140] == pytest.approx(faded, abs=1e-6)
    assert long[140:] == pytest.approx(steps[100:])


def test_a_lag_is_a_period_of_the_louder_channel():
    sound = np.concatenate([0.1 * tone(800, 50.0), tone(800, 32.0)], axis=1)
    assert pitch_lag(sound, 60, 8000) == 32
    assert pitch_lag(sound[:, ::-1], 60, 8000) == 32
    # 400 Hz is the highest pitch that is looked for.
    assert pitch_lag(sound, 20, 8000) == 0
    assert pitch_lag(sound[:40], 60, 8000) == 0


@pytest.mark.parametrize(("dbfs", "expected"), [(-51.0, True), (-50.0, True), (-49.0, False)])
def test_what_is_below_50_dbfs_is_quiet(dbfs, expected):
    sound = np.where(np.arange(100) % 2, 1.0, -1.0)[:, None] * 10 ** (dbfs / 20) * (1 - 1e-6)
    assert is_quiet(sound.astype(np.float32)) is expected
