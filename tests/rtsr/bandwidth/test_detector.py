"""The detector: right, soon enough, and never nervous."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import resources

import numpy as np
import pytest
import scipy.signal
import soundfile
import soxr
from numpy.typing import NDArray

from rtsr.bandwidth.detector import FULL_BAND_HZ, BandwidthDetector, measure_cutoff_stream
from rtsr.errors import ArgumentError, AudioFormatError
from rtsr.timing import HOP
from rtsr_kernels.resample import StreamingResampler

RATE = 48000
Sound = Callable[..., NDArray[np.float32]]


def demo(name: str) -> NDArray[np.float32]:
    """A demo clip at its own rate, ``(samples, 1)``."""
    path = resources.files("rtsr") / "demo_data" / name
    with resources.as_file(path) as file:
        samples, _ = soundfile.read(file, dtype="float32", always_2d=True)
    return samples


def rounded(sound: NDArray[np.floating]) -> NDArray[np.float32]:
    """What is left of a sound in a 16-bit file."""
    return (np.clip(np.rint(sound * 32768.0), -32768, 32767) / 32768.0).astype(np.float32)


def narrowed(sound: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """A 48 kHz file of what was once sampled at `rate`."""
    low = soxr.resample(0.7 * sound, RATE, rate, quality="HQ")
    return rounded(soxr.resample(low, rate, RATE, quality="HQ")[: len(sound)])


def run(
    sound: NDArray[np.float32], initial_hz: float | None = None, native_hz: float = FULL_BAND_HZ
) -> NDArray[np.float64]:
    """The detector's answer for every hop of `sound` ``(samples, channels)``."""
    detector = BandwidthDetector(initial_hz=initial_hz, native_hz=native_hz)
    hops = [
        detector.update(sound[start : start + HOP]) for start in range(0, len(sound) - HOP + 1, HOP)
    ]
    return np.array(hops)


def changes(answers: NDArray[np.float64]) -> int:
    return int(np.count_nonzero(np.diff(answers)))


@pytest.mark.parametrize("name", ["speech_reference.flac", "music_reference.flac"])
def test_full_band_recording_is_full_band_from_the_first_hop(name: str) -> None:
    assert (run(demo(name)) == FULL_BAND_HZ).all()


@pytest.mark.parametrize("start", [0.0, 0.7, 1.9, 3.1, 4.4])
def test_full_band_recording_stays_so_wherever_it_is_entered(start: float) -> None:
    sound = demo("speech_reference.flac")[int(start * RATE) :]
    assert (run(sound) == FULL_BAND_HZ).all()


@pytest.mark.parametrize("rate", [8000, 12000, 16000, 24000])
@pytest.mark.parametrize("name", ["speech_reference.flac", "music_reference.flac"])
def test_limit_of_upsampled_recording_is_found(name: str, rate: int) -> None:
    answers = run(narrowed(demo(name), rate))
    assert 0.95 * rate / 2 < answers[-1] < 1.025 * rate / 2
    assert changes(answers) == 1
    assert np.argmax(answers < FULL_BAND_HZ) < 400


@pytest.mark.parametrize("rate", [88200, 96000, 176400, 192000])
@pytest.mark.parametrize("source_rate", [22050, 24000])
def test_limit_of_a_weak_top_is_found_at_higher_rates(rate: int, source_rate: int) -> None:
    sound = scipy.signal.sosfilt(
        scipy.signal.butter(2, 5000, fs=RATE, output="sos"), demo("speech_reference.flac")[:, 0]
    )
    low = soxr.resample(0.35 * sound, RATE, source_rate, quality="HQ")
    wide = rounded(soxr.resample(low, source_rate, rate, quality="HQ"))[:, None]
    found = measure_cutoff_stream([wide], rate)
    assert found == pytest.approx(0.975 * source_rate / 2, rel=0.04)


@pytest.mark.parametrize(
    ("rate", "end", "is_found"),
    [
        *((96000, end, True) for end in (3000, 4000, 34000)),
        *((96000, end, False) for end in (2500, 36000)),
        *((192000, end, True) for end in (6500, 8000, 11025, 60000, 68000)),
        *((192000, end, False) for end in (4000, 5500, 6000, 72000)),
    ],
)
def test_higher_rates_have_a_lowest_and_a_highest_limit_that_is_found(
    rate: int, end: int, is_found: bool
) -> None:
    count = 3 * 2 * end
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(count))
    pink = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.fft.rfftfreq(count, 0.5 / end), 50.0)))
    wide = soxr.resample(0.5 * pink / np.abs(pink).max(), 2 * end, rate)
    expected = pytest.approx(end, rel=0.04) if is_found else rate / 2
    assert measure_cutoff_stream([rounded(wide)[:, None]], rate) == expected


@pytest.mark.parametrize("cutoff", [2500.0, 3400.0, 5000.0, 7000.0, 10000.0])
def test_unusual_limit_is_found(make_sound: Sound, cutoff: float) -> None:
    answers = run(rounded(make_sound(RATE, 3.0, cutoff=cutoff)))
    assert answers[-1] == pytest.approx(cutoff, rel=0.06)
    assert changes(answers) == 1


def test_half_a_second_of_sound_comes_before_going_down(make_sound: Sound) -> None:
    answers = run(rounded(make_sound(RATE, 2.0, cutoff=4000.0)))
    assert (answers[:50] == FULL_BAND_HZ).all()
    assert answers[100] == pytest.approx(4000.0, rel=0.05)


@pytest.mark.parametrize("level", [0.15, 0.05, 0.01])
def test_level_does_not_matter(make_sound: Sound, level: float) -> None:
    answers = run(rounded(make_sound(RATE, 2.0, cutoff=4000.0, level=level)))
    assert answers[-1] == pytest.approx(4000.0, rel=0.05)


def test_natural_roll_off_is_no_limit(make_sound: Sound) -> None:
    sound = make_sound(RATE, 10.0)[:, 0]
    # 60 dB lower an octave above 5 kHz: a dark vowel, for ten seconds.
    spectrum = np.fft.rfft(sound)
    frequency = np.fft.rfftfreq(len(sound), 1 / RATE)
    spectrum /= 1.0 + (frequency / 5000.0) ** 10
    dark = np.fft.irfft(spectrum, len(sound)).astype(np.float32)[:, None]
    assert (run(rounded(dark)) == FULL_BAND_HZ).all()


def test_vowels_between_sibilants_are_no_limit() -> None:
    time = np.arange(RATE * 12) / RATE
    vowel = np.zeros_like(time)
    for partial in range(1, 60):
        frequency = 110.0 * partial
        gain = 10 ** (-frequency / 1000.0 * 9.0 / 20)
        vowel += gain * np.sin(2 * np.pi * (frequency * time + 4 * np.sin(2 * np.pi * 3 * time)))
    sibilant = np.diff(np.random.default_rng(1).standard_normal(len(time)), prepend=0.0)
    loud = (time % 2.0) < 0.15
    sound = 0.1 * vowel + np.where(loud, 0.05 * sibilant, 3e-4 * sibilant)
    assert (run(rounded(sound.astype(np.float32)[:, None])) == FULL_BAND_HZ).all()


@pytest.mark.parametrize("milliseconds", [50, 200])
def test_one_loud_sibilant_changes_nothing(make_sound: Sound, milliseconds: int) -> None:
    sound = rounded(make_sound(RATE, 8.0, cutoff=4000.0))
    length = milliseconds * RATE // 1000
    noise = np.diff(np.random.default_rng(2).standard_normal(length), prepend=0.0)
    sound[3 * RATE : 3 * RATE + length, 0] += (0.3 * noise).astype(np.float32)
    answers = run(sound)
    assert changes(answers) == 1
    assert answers[-1] == pytest.approx(4000.0, rel=0.05)


def test_goes_up_after_half_a_second_of_content_above(make_sound: Sound) -> None:
    sound = make_sound(RATE, 8.0)
    sound[: 4 * RATE] = make_sound(RATE, 8.0, cutoff=4000.0)[: 4 * RATE]
    answers = run(rounded(sound))
    switch = 4 * RATE // HOP
    assert answers[switch - 1] == pytest.approx(4000.0, rel=0.05)
    assert (answers[switch : switch + 50] == answers[switch - 1]).all()
    assert answers[switch + 150] == FULL_BAND_HZ
    assert changes(answers) == 2


def with_images(sound: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a decoder with a short resampler makes of `sound` at 8 kHz: images up to 4.7 kHz."""
    low = soxr.resample(0.7 * sound, RATE, 8000, quality="HQ")
    stuffed = np.zeros((6 * len(low), 1))
    stuffed[::6] = 6.0 * low
    gains_db = (0.0, 0.0, -6.8, -12.4, -20.6, -100.0, -100.0)
    filter_ = scipy.signal.firwin2(
        1025,
        (0.0, 3800.0, 4190.0, 4425.0, 4650.0, 4800.0, 24000.0),
        10.0 ** (np.array(gains_db) / 20.0),
        fs=RATE,
    )
    return rounded(scipy.signal.oaconvolve(stuffed, filter_[:, None], mode="same")[: len(sound)])


@pytest.mark.parametrize("name", ["speech_reference.flac", "music_reference.flac"])
def test_images_are_no_content_going_down_or_up(name: str) -> None:
    images = np.tile(with_images(demo(name)), (2, 1))
    assert run(images)[-1] == pytest.approx(3900.0, rel=0.03)
    answers = run(images, initial_hz=3000.0)
    assert answers[-1] == pytest.approx(3900.0, rel=0.03)
    # Until they are known for what they are, their end may stand for the content's.
    assert answers.max() < 4900.0
    assert changes(answers) <= 2


def switched(
    make_sound: Sound, before: float | None, after: float | None, seconds: float = 5.0
) -> NDArray[np.float32]:
    """Sound that ends at one frequency for four seconds, and then at another."""
    sound, change = make_sound(RATE, 4.0 + seconds, cutoff=before), 4 * RATE
    sound[change:] = make_sound(RATE, 4.0 + seconds, cutoff=after)[change:]
    return rounded(sound)


@pytest.mark.parametrize(
    ("before", "after"),
    [(None, 12000.0), (None, 8000.0), (None, 4000.0), (12000.0, 4000.0), (8000.0, 4000.0)],
)
def test_follows_a_stream_that_becomes_narrow_within_half_a_second(
    make_sound: Sound, before: float | None, after: float
) -> None:
    answers = run(switched(make_sound, before, after), initial_hz=before)
    switch = 4 * RATE // HOP
    assert (answers[: switch + 30] == answers[0]).all()
    assert answers[switch + 55] == pytest.approx(after, rel=0.05)
    assert changes(answers) == 1


def test_a_second_step_down_soon_after_the_first_is_followed(make_sound: Sound) -> None:
    sound = switched(make_sound, None, 8000.0)
    second = 5 * RATE
    sound[second:] = rounded(make_sound(RATE, 9.0, cutoff=4000.0))[second:]
    answers = run(sound)
    assert answers[second // HOP - 1] == pytest.approx(8000.0, rel=0.05)
    assert answers[second // HOP + 60] == pytest.approx(4000.0, rel=0.05)
    assert changes(answers) == 2


@pytest.mark.parametrize("gain", [1.0, 0.5, 0.2])
def test_following_does_not_depend_on_the_level(make_sound: Sound, gain: float) -> None:
    sound = switched(make_sound, 8000.0, 4000.0)
    answers = run((gain * sound).astype(np.float32), initial_hz=8000.0)
    # One bin of the spectrum may make a difference, not more.
    np.testing.assert_allclose(answers, run(sound, initial_hz=8000.0), rtol=0.0, atol=50.0)


@pytest.mark.parametrize("name", ["speech_reference.flac", "music_reference.flac"])
@pytest.mark.parametrize(("before", "after"), [(None, 16000), (None, 8000), (16000, 8000)])
def test_follows_a_recording_that_becomes_narrow(name: str, before: int | None, after: int) -> None:
    sound = np.tile(demo(name), (2, 1))
    wide = rounded(0.7 * sound) if before is None else narrowed(sound, before)
    change = len(sound) // 2
    answers = run(
        np.concatenate([wide[:change], narrowed(sound, after)[change:]]),
        initial_hz=None if before is None else 0.4875 * before,
    )
    switch = change // HOP
    assert (answers[:switch] == answers[0]).all()
    assert answers[switch + 150] == pytest.approx(0.4875 * after, rel=0.03)
    assert changes(answers) == 1


def test_a_pause_is_no_time_to_decide(make_sound: Sound) -> None:
    sound = switched(make_sound, 8000.0, 4000.0)
    pause = np.zeros((3 * RATE, 1), np.float32)
    parts = np.split(sound, [4 * RATE, 4 * RATE + RATE // 4])
    answers = run(np.concatenate([parts[0], parts[1], pause, parts[2]]), initial_hz=8000.0)
    end_of_pause = (4 * RATE + RATE // 4) // HOP + 300
    assert (answers[:end_of_pause] == answers[0]).all()
    assert answers[end_of_pause + 80] == pytest.approx(4000.0, rel=0.05)


def test_what_becomes_quieter_has_lost_nothing(make_sound: Sound) -> None:
    sound = make_sound(RATE, 12.0)
    sound[6 * RATE :] *= 0.1
    assert (run(rounded(sound)) == FULL_BAND_HZ).all()
    narrow = make_sound(RATE, 12.0, cutoff=8000.0)
    narrow[6 * RATE :] *= 0.1
    assert changes(run(rounded(narrow), initial_hz=7800.0)) == 0


def test_a_call_that_changes_again_and_again_is_followed(make_sound: Sound) -> None:
    wide, narrow = make_sound(RATE, 32.0, cutoff=8000.0), make_sound(RATE, 32.0, cutoff=4000.0)
    second = np.arange(len(wide)) // RATE
    answers = run(rounded(np.where((second // 4 % 2 == 0)[:, None], wide, narrow)), 8000.0)
    for change in range(4, 32, 4):
        wanted = 4000.0 if change // 4 % 2 else 8000.0
        assert answers[100 * change + 140] == pytest.approx(wanted, rel=0.05)
    assert changes(answers) == 7


def test_a_click_where_sounds_are_cut_together_is_not_content(make_sound: Sound) -> None:
    sound = switched(make_sound, 4000.0, 8000.0)
    sound[4 * RATE + 100] += 0.5
    answers = run(sound, initial_hz=4000.0)
    switch = 4 * RATE // HOP
    assert answers[switch + 60] == pytest.approx(8000.0, rel=0.05)
    assert changes(answers) == 1


def test_what_is_as_low_as_it_was_before_has_lost_nothing(make_sound: Sound) -> None:
    """A stream whose upper band comes and goes; when it was there last makes no difference."""
    wide, narrow = make_sound(RATE, 16.0), make_sound(RATE, 16.0, cutoff=4000.0)
    # One second in three has it; after six seconds it is away for longer.
    has_it = (np.arange(len(wide)) // RATE) % 3 == 0
    has_it[9 * RATE :] = False
    answers = run(rounded(np.where(has_it[:, None], wide, narrow)))
    assert (answers[: 12 * RATE // HOP] == FULL_BAND_HZ).all()
    assert answers[-1] == pytest.approx(4000.0, rel=0.05)


def test_images_of_opus_are_told_at_once_where_content_was(make_sound: Sound) -> None:
    sound = np.tile(demo("speech_reference.flac"), (2, 1))
    change = len(sound) // 2
    answers = run(np.concatenate([rounded(0.7 * sound)[:change], with_images(sound)[change:]]))
    switch = change // HOP
    assert answers[switch + 150] == pytest.approx(3900.0, rel=0.03)
    assert changes(answers) == 1
    back = np.concatenate([with_images(sound)[:change], narrowed(sound, 16000)[change:]])
    answers = run(back, initial_hz=3900.0)
    assert (answers[:switch] == 3900.0).all()
    assert answers[switch + 150] == pytest.approx(7800.0, rel=0.03)


def test_alternating_stream_does_not_make_it_flap(make_sound: Sound) -> None:
    wide, narrow = make_sound(RATE, 20.0), make_sound(RATE, 20.0, cutoff=4000.0)
    third = (np.arange(len(wide)) // (RATE // 4)) % 3 == 0
    answers = run(rounded(np.where(third[:, None], wide, narrow)))
    assert changes(answers) <= 2


def test_silence_changes_nothing(make_sound: Sound) -> None:
    sound = rounded(make_sound(RATE, 2.0, cutoff=4000.0))
    rest = np.zeros((5 * RATE, 1), np.float32)
    rest[:, 0] = rounded(1e-4 * np.random.default_rng(3).standard_normal(len(rest)))
    answers = run(np.concatenate([rest, sound, rest]))
    before, after = len(rest) // HOP, (len(rest) + len(sound)) // HOP
    assert (answers[:before] == FULL_BAND_HZ).all()
    assert (answers[after:] == answers[after - 1]).all()


def test_clicks_of_a_muted_stream_are_not_content(make_sound: Sound) -> None:
    sound = rounded(make_sound(RATE, 6.0, cutoff=4000.0))
    muted = (np.arange(len(sound)) // 10007) % 3 == 0
    sound[muted] = 0.0
    answers = run(sound)
    assert answers[-1] == pytest.approx(4000.0, rel=0.05)
    assert changes(answers) == 1


def test_widest_channel_counts(make_sound: Sound) -> None:
    wide, narrow = make_sound(RATE, 3.0), make_sound(RATE, 3.0, cutoff=4000.0)
    assert (run(rounded(np.hstack([narrow, wide]))) == FULL_BAND_HZ).all()
    assert run(rounded(np.hstack([narrow, narrow])))[-1] == pytest.approx(4000.0, rel=0.05)


@pytest.mark.parametrize("name", ["speech_8k.wav", "music_8k.wav"])
def test_native_rate_is_the_bound_from_the_first_hop(name: str) -> None:
    resampled = StreamingResampler(8000, RATE, 1).process(demo(name))
    answers = run(resampled, native_hz=4000.0)
    assert answers[0] == 4000.0
    assert answers.max() == 4000.0
    assert answers.min() > 3700.0


def test_native_rate_bounds_even_what_content_says(make_sound: Sound) -> None:
    assert (run(make_sound(RATE, 3.0), native_hz=8000.0) == 8000.0).all()


@pytest.mark.parametrize("native", [20000.0, 22050.0, 24000.0])
def test_wide_native_rate_is_full_band(native: float) -> None:
    assert BandwidthDetector(native_hz=native).cutoff_hz == FULL_BAND_HZ


def test_starts_from_what_is_expected_and_corrects_it(make_sound: Sound) -> None:
    answers = run(rounded(make_sound(RATE, 4.0)), initial_hz=4000.0)
    assert answers[0] == 4000.0
    assert answers[-1] == FULL_BAND_HZ
    assert (run(rounded(make_sound(RATE, 4.0, cutoff=4000.0)), initial_hz=3900.0) == 3900.0).all()


def test_reset_equals_fresh(make_sound: Sound) -> None:
    sound = rounded(make_sound(RATE, 3.0, cutoff=4000.0))
    detector = BandwidthDetector()
    passes = []
    for _ in range(2):
        passes.append([detector.update(hop) for hop in sound.reshape(-1, HOP, 1)])
        detector.reset()
    assert passes[0] == passes[1]


def test_samples_that_are_not_numbers_are_forgotten(make_sound: Sound) -> None:
    sound = rounded(make_sound(RATE, 4.0, cutoff=4000.0))
    sound[RATE + 17, 0] = np.nan
    sound[RATE + 999, 0] = np.inf
    assert run(sound)[-1] == pytest.approx(4000.0, rel=0.05)


def test_stream_is_measured_from_any_blocks(make_sound: Sound) -> None:
    sound = rounded(make_sound(RATE, 3.0, cutoff=4000.0, channels=2))
    blocks = np.split(sound, [0, 100, 101, 50000, 90000])
    assert measure_cutoff_stream(blocks) == measure_cutoff_stream([sound]) == run(sound)[-1]


def test_stream_is_measured_no_longer_than_asked(make_sound: Sound) -> None:
    taken = []

    def endless() -> Iterator[NDArray[np.float32]]:
        while True:
            taken.append(1)
            yield make_sound(RATE, 1.0, cutoff=4000.0)

    measure_cutoff_stream(endless(), seconds=3.0)
    assert len(taken) == 3


def test_empty_stream_is_what_its_rate_says() -> None:
    assert measure_cutoff_stream([], native_hz=4000.0) == 4000.0


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(AudioFormatError, match="48000"):
        BandwidthDetector(44100)
    with pytest.raises(ArgumentError, match="above 0"):
        BandwidthDetector(initial_hz=0.0)
    with pytest.raises(AudioFormatError, match=r"\(480, channels\)"):
        BandwidthDetector().update(np.zeros((100, 1), np.float32))
    with pytest.raises(AudioFormatError, match="samples, channels"):
        measure_cutoff_stream([np.zeros(480, np.float32)])
