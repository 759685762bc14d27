"""What an Upsampler promises beyond 48 kHz: octaves on top, and inputs of higher rates."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile
import soxr
from numpy.lib.stride_tricks import sliding_window_view
from typer.testing import CliRunner

from rtsr import (
    ArgumentError,
    AudioFormatError,
    BatchUpsampler,
    ModelError,
    Upsampler,
    enhance_file,
)
from rtsr.cli import app as application
from rtsr.colour.colour import Colour
from rtsr.engine.proportion import LIFT
from rtsr.live.settings import LiveSettings
from rtsr.runtime.models import OCTAVE, find_model, find_octave_model
from rtsr.timing import HIGH_RATES
from rtsr_kernels.resample import SUPPORTED_RATES

MakeSound = Callable[..., np.ndarray]

#: of the input and of the output in Hz
RATES = [(48000, 96000), (44100, 96000), (16000, 192000), (96000, 96000), (88200, 176400)]


def _whole(upsampler: Upsampler, sound: np.ndarray) -> np.ndarray:
    """Process in one block, flush, cut the latency off."""
    parts = [upsampler.process(sound), upsampler.flush()]
    return np.concatenate(parts)[upsampler.latency.algorithmic_samples :]


def _level_db(sound: np.ndarray, rate: int, low: float, high: float) -> float:
    """Root mean square between two frequencies, in dB of full scale."""
    window = np.hanning(len(sound))
    spectrum = np.fft.rfft(sound.astype(np.float64) * window)
    frequency = np.fft.rfftfreq(len(sound), 1 / rate)
    power = np.abs(spectrum[(frequency >= low) & (frequency < high)]) ** 2
    return float(10 * np.log10(2 * power.sum() / (len(sound) * (window @ window)) + 1e-30))


def _full_band(rate: int, seconds: float, channels: int = 1) -> np.ndarray:
    noise = np.random.default_rng(3).normal(0, 0.05, (round(rate * seconds), channels))
    return noise.astype(np.float32)


@pytest.mark.parametrize(("rate", "output_rate"), RATES)
@pytest.mark.parametrize("channels", [1, 2])
def test_any_partition_gives_the_same_bits(
    rate: int, output_rate: int, channels: int, make_sound: MakeSound
) -> None:
    sound = make_sound(rate, 0.15, cutoff=6000, channels=channels)
    options = {"model": "replicate", "channels": channels, "output_rate": output_rate}
    with Upsampler(rate, **options) as upsampler:
        expected = _whole(upsampler, sound)
        edges = [0, 1, 8, 8, 700, 1203, len(sound) - 1, len(sound)]
        parts = [upsampler.process(sound[a:b]) for a, b in pairwise(edges)]
        parts.append(upsampler.flush())
        joined = np.concatenate(parts)[upsampler.latency.algorithmic_samples :]
    assert len(expected) == round(len(sound) * output_rate / rate)
    assert np.array_equal(expected, joined)


@pytest.mark.parametrize(("rate", "output_rate"), [(48000, 48000), *RATES, (48000, 192000)])
def test_the_limiter_recovers_in_seconds(rate: int, output_rate: int) -> None:
    """By a factor of e in 50 ms, whatever the engine's clock and the rate of its steps."""
    sound = 0.25 * np.sin(2 * np.pi * 1000 * np.arange(rate) / rate).astype(np.float32)
    loud = slice(rate // 2, rate // 2 + rate // 1000)
    sound[loud] = np.sign(sound[loud]) * 3.9
    options = {"model": "replicate", "output_rate": output_rate, "wet": 0.0}
    with Upsampler(rate, **options) as limited, Upsampler(rate, **options, limiter=False) as plain:
        ratio = np.abs(_whole(limited, sound)).reshape(-1, output_rate // 100).max(1)
        ratio /= np.abs(_whole(plain, sound)).reshape(-1, output_rate // 100).max(1)
    # Hops of 10 ms from the burst on; what it rings on in the conversion is in the first ones.
    left = 1.0 - ratio[53:75]
    assert left[15] / left[0] == pytest.approx(np.exp(-3.0), rel=0.05)


@pytest.mark.parametrize("model", ["replicate", "small"])
def test_the_ceiling_that_is_told_is_the_present_one(model: str, make_sound: MakeSound) -> None:
    """Also where the engine below 48 kHz ends lower than the octaves above it."""
    sound = make_sound(8000, 0.2, cutoff=3600)
    with (
        Upsampler(8000, model=model, output_rate=96000) as untouched,
        Upsampler(8000, model=model, output_rate=96000) as upsampler,
    ):
        expected = _whole(untouched, sound)
        told = upsampler.ceiling
        upsampler.ceiling = told
        assert np.array_equal(_whole(upsampler, sound), expected)
        upsampler.ceiling = 12000.0
        assert not np.array_equal(_whole(upsampler, sound), expected)
        upsampler.ceiling = told
        assert upsampler.ceiling == told
        assert np.array_equal(_whole(upsampler, sound), expected)


@pytest.mark.parametrize(("rate", "output_rate"), RATES)
@pytest.mark.parametrize("hops", [1, 4])
def test_output_count_follows_the_input_count(
    rate: int, output_rate: int, hops: int, stand_in: Path
) -> None:
    upsampler = Upsampler(rate, model=stand_in, hops_per_step=hops, output_rate=output_rate)
    received = sent = 0
    for length in (0, 1, 7, 480, 1000, 0, 4097, 3):
        received += length
        sent += len(upsampler.process(np.zeros(length, np.float32)))
        inner_rate = max(rate, 48000)
        assert sent == received * inner_rate // rate * (output_rate // inner_rate)
    rest = len(upsampler.flush())
    whole = round(received * output_rate / rate)
    assert sent + rest == upsampler.latency.algorithmic_samples + whole


@pytest.mark.parametrize(
    ("rate", "output_rate", "parts"),
    [
        (48000, 96000, {"hop": 10.0, "overlap": 2.5, "octaves": 142 / 96}),
        (48000, 192000, {"hop": 10.0, "overlap": 2.5, "octaves": 164 / 192}),
        (96000, 96000, {"hop": 5.0, "overlap": 1.25}),
        (96000, 192000, {"hop": 5.0, "overlap": 1.25, "octaves": 142 / 192}),
        (88200, 88200, {"hop": 480 / 88.2, "overlap": 120 / 88.2}),
        (192000, 192000, {"hop": 2.5, "overlap": 0.625}),
    ],
)
@pytest.mark.parametrize("hops", [1, 2])
def test_click_comes_out_after_the_stated_latency(
    rate: int, output_rate: int, parts: dict[str, float], hops: int, stand_in: Path
) -> None:
    upsampler = Upsampler(
        rate, model=stand_in, hops_per_step=hops, wet=0.0, output_rate=output_rate
    )
    click = np.zeros(rate // 8, np.float32)
    click[at := rate // 16] = 0.5
    out = np.concatenate([upsampler.process(click), upsampler.flush()])
    latency = upsampler.latency
    assert int(np.argmax(np.abs(out))) - latency.algorithmic_samples == at * output_rate // rate
    stated = {name: value for name, value in latency.parts_ms.items() if value}
    assert stated == pytest.approx({**parts, "hop": parts["hop"] * hops})
    assert sum(stated.values()) == pytest.approx(latency.algorithmic_ms)


@pytest.mark.parametrize("output_rate", [48000, 96000, 192000])
@pytest.mark.parametrize("rate", SUPPORTED_RATES)
def test_a_converted_input_is_late_by_less_than_a_third_of_a_sample_at_48_khz(
    rate: int, output_rate: int, stand_in: Path
) -> None:
    upsampler = Upsampler(rate, model=stand_in, wet=0.0, output_rate=output_rate)
    at = rate // 16
    pulse = np.exp(-0.5 * ((np.arange(rate // 8) - at) / rate / 4e-4) ** 2).astype(np.float32)
    out = np.concatenate([upsampler.process(pulse), upsampler.flush()])
    centre = float(out @ np.arange(len(out)) / out.sum()) - upsampler.latency.algorithmic_samples
    late = (centre - at * output_rate / rate) * 48000 / output_rate
    assert -0.05 < late < 0.3


@pytest.mark.parametrize("rates", [(48000, 96000), (96000, 96000)])
def test_a_model_that_cannot_look_ahead_is_refused(
    rates: tuple[int, int], stand_in: Path, write_model: Callable[..., Path]
) -> None:
    octave = write_model(overlap=16, latency_samples=496)
    with pytest.raises(ModelError, match=r"an overlap of 32 samples or more, .* has 16;"):
        Upsampler(rates[0], model=stand_in, octave_model=octave, output_rate=rates[1])


def test_whole_steps_wait_for_nothing(stand_in: Path) -> None:
    upsampler = Upsampler(48000, model=stand_in, output_rate=96000, blocks_are_hops=True, wet=0.0)
    click = np.zeros(960, np.float32)
    click[500] = 0.5
    out = np.concatenate([upsampler.process(click), upsampler.flush()])
    assert upsampler.latency.algorithmic_samples == 2 * 120 + 142
    assert int(np.argmax(np.abs(out))) == 1000 + 2 * 120 + 142


@pytest.mark.parametrize(
    ("model", "factor"), [("replicate", 2), ("replicate", 4), ("small-int8", 2)]
)
def test_octaves_are_slower_sound_on_a_faster_clock(
    model: str, factor: int, make_sound: MakeSound
) -> None:
    sound = make_sound(48000, 0.15)[:, 0]
    with Upsampler(
        48000,
        model=model,
        octave_model=model,
        output_rate=48000 * factor,
        limiter=False,
        wet=1.0 / LIFT,
    ) as upsampler:
        wide = _whole(upsampler, sound)
    # Hops of the octaves begin where those of the engine below end: 120 samples later.
    late = np.concatenate([np.zeros(120, np.float32), sound])
    with Upsampler(48000 // factor, model=model, ceiling=24000, limiter=False) as upsampler:
        slow = _whole(upsampler, late)[120 * factor :]
    # Of its sudden beginning more is made than is in proportion.
    start = 1440 * factor
    assert np.max(np.abs(wide[start:] - slow[start:])) < 1e-6
    assert np.max(np.abs(wide - slow)) < 0.04


def test_octaves_of_a_higher_rate_are_the_same_once_more() -> None:
    sound = _full_band(96000, 0.2)[:, 0]
    with Upsampler(96000, model="replicate", output_rate=192000, limiter=False) as upsampler:
        fast = _whole(upsampler, sound)
    with Upsampler(48000, model="replicate", output_rate=96000, limiter=False) as upsampler:
        assert np.array_equal(_whole(upsampler, sound), fast)


@pytest.mark.parametrize("rate", [88200, 96000, 176400, 192000])
def test_full_band_passes_bit_for_bit(rate: int, stand_in: Path) -> None:
    sound = _full_band(rate, 1.0, channels=2)
    with Upsampler(rate, model=stand_in, channels=2) as upsampler:
        assert np.array_equal(_whole(upsampler, sound), sound)
        assert upsampler.output_rate == rate
        assert upsampler.cutoff_hz == rate / 2


def test_a_higher_rate_is_the_engine_on_a_faster_clock(make_sound: MakeSound) -> None:
    sound = make_sound(96000, 0.2, cutoff=22000)[:, 0]
    with Upsampler(
        96000,
        model="small-int8",
        octave_model="small-int8",
        output_rate=96000,
        cutoff=22000,
        wet=1.0 / LIFT,
    ) as upsampler:
        fast = upsampler.process(sound)
        assert upsampler.cutoff == upsampler.cutoff_hz == 22000.0
    with Upsampler(48000, model="small-int8", cutoff=11000, ceiling=24000) as upsampler:
        slow = upsampler.process(sound)
    # Of its sudden beginning more is made than is in proportion.
    assert np.max(np.abs(slow[1440:] - fast[1440:])) < 1e-6
    assert np.max(np.abs(slow - fast)) < 0.04


@pytest.mark.parametrize("rate", [88200, 96000])
def test_where_a_higher_rate_ends_is_measured(rate: int, make_sound: MakeSound) -> None:
    sound = make_sound(rate, 1.5, cutoff=21000)[:, 0]
    sound += np.random.default_rng(1).normal(0, 1e-6, sound.shape).astype(np.float32)
    with Upsampler(rate, model="replicate") as upsampler:
        upsampler.process(sound)
        assert upsampler.cutoff_hz == pytest.approx(21000, rel=0.05)


def _voice_with_a_weak_top(source_rate: int, rate: int) -> np.ndarray:
    """A demo voice that was sampled at a lower rate, in the 16-bit samples of a higher one."""
    with resources.as_file(resources.files("rtsr") / "demo_data/speech_reference.flac") as path:
        voice, own_rate = soundfile.read(path, dtype="float32")
    lowpass = scipy.signal.butter(2, 5000, fs=own_rate, output="sos")
    dull = scipy.signal.sosfilt(lowpass, voice[: 4 * own_rate])
    low = soxr.resample(0.35 * dull, own_rate, source_rate)
    sound = soxr.resample(low, source_rate, rate)
    return (np.rint(sound * 32768.0) / 32768.0).astype(np.float32)


@pytest.mark.parametrize(("source_rate", "rate"), [(22050, 96000), (24000, 192000)])
def test_a_voice_with_a_weak_top_ends_where_its_rate_did(source_rate: int, rate: int) -> None:
    sound = _voice_with_a_weak_top(source_rate, rate)
    # Half a second a block: what is measured stays at one answer.
    answers = set()
    with Upsampler(rate, model="replicate") as upsampler:
        for start in range(0, len(sound), rate // 2):
            upsampler.process(sound[start : start + rate // 2])
            answers.add(upsampler.cutoff_hz)
    end_hz = 0.975 * source_rate / 2
    assert sorted(answers) == pytest.approx([end_hz, rate / 2], rel=0.04)


@pytest.mark.parametrize(
    ("rate", "output_rate", "cutoff", "model"),
    [
        (48000, 96000, 24000, "replicate"),
        (48000, 96000, 24000, "small-int8"),
        (24000, 96000, 12000, "replicate"),
        (96000, 96000, 22000, "small-int8"),
    ],
)
def test_low_band_is_not_touched(
    rate: int, output_rate: int, cutoff: int, model: str, make_sound: MakeSound
) -> None:
    sound = make_sound(rate, 0.4, cutoff=cutoff)[:, 0]
    given = None if cutoff == rate / 2 else float(cutoff)
    with Upsampler(rate, model=model, output_rate=output_rate, cutoff=given) as upsampler:
        out = _whole(upsampler, sound)
        upsampler.wet = 0.0
        upsampler.reset()
        dry = _whole(upsampler, sound)
    added = out - dry
    low = _level_db(added, output_rate, 20, 0.85 * cutoff)
    assert low - _level_db(dry, output_rate, 20, 0.85 * cutoff) <= -60.0
    above = _level_db(added, output_rate, cutoff, 2 * cutoff)
    assert -20.0 < above - _level_db(dry, output_rate, cutoff / 2, cutoff) < 6.0
    # And the dry sound is the input.
    if rate == output_rate:
        assert np.array_equal(dry, sound)


@pytest.mark.parametrize(("rate", "output_rate"), [(48000, 192000), (96000, 96000)])
def test_silence_stays_silent(rate: int, output_rate: int, make_sound: MakeSound) -> None:
    with Upsampler(rate, model="small-int8", output_rate=output_rate) as upsampler:
        out = upsampler.process(np.zeros(rate // 8, np.float32))
        assert np.max(np.abs(out)) < 1e-4
        upsampler.process(make_sound(rate, 0.2, cutoff=20000)[:, 0])
        after = upsampler.process(np.zeros(rate // 8, np.float32))
        assert np.max(np.abs(after[output_rate // 20 :])) < 1e-4


@pytest.mark.parametrize(
    ("model", "hertz"), [("small-int8", 1000.0), ("replicate", 1000.0), ("replicate", 5000.0)]
)
def test_a_tone_calls_for_nothing_above(model: str, hertz: float) -> None:
    tone = 0.5 * np.sin(2 * np.pi * hertz * np.arange(72000) / 48000).astype(np.float32)
    with Upsampler(48000, model=model, output_rate=96000, cutoff=24000.0) as upsampler:
        out = _whole(upsampler, tone)[9600:-9600]
    assert _level_db(out, 96000, 24000, 48000) < -70.0
    assert _level_db(out, 96000, 20, 20000) == pytest.approx(-9.03, abs=0.1)


@pytest.mark.parametrize("octave_model", ["replicate", "octave"])
@pytest.mark.parametrize("milliseconds", [0.05, 1.0, 10.0])
def test_the_octave_of_a_burst_is_no_longer_than_the_burst(
    octave_model: str, milliseconds: float
) -> None:
    chance = np.random.default_rng(0)
    bursts = np.zeros(24000, np.float32)
    samples = max(1, round(48 * milliseconds))
    # At any place within a hop of the octave.
    for start in range(2000, 22000, 2037):
        bursts[start : start + samples] = chance.normal(0.0, 0.1, samples)
    both = []
    for wet in (1.0, 0.0):
        with Upsampler(
            48000,
            model="replicate",
            octave_model=octave_model,
            output_rate=96000,
            cutoff=24000.0,
            limiter=False,
            wet=wet,
        ) as upsampler:
            both.append(_whole(upsampler, bursts).astype(np.float64))
    dry, added = both[1], both[0] - both[1]
    # In any 2.7 ms that have more than -70 dBFS above 24 kHz.
    window = np.blackman(257)[:256]
    below, above = (
        np.square(np.abs(np.fft.rfft(sliding_window_view(sound, 256)[::64] * window)))
        / (window @ window)
        for sound in (dry, added)
    )
    below, above = below[:, 32:64].mean(axis=1), above[:, 64:].mean(axis=1)
    # The crossover rings for half a millisecond: what is called for 0.67 ms away counts.
    below[1:-1] = np.max([below[:-2], below[1:-1], below[2:]], axis=0)
    heard = above > 2.0 * 10.0**-7.0
    assert heard.any()
    assert np.max(above[heard] / below[heard]) < 10.0**0.3


def test_replicate_is_no_louder_below_24_khz_for_an_octave_beyond() -> None:
    on = np.repeat(np.arange(20) % 2, 4800)
    tone = (0.5 * on * np.sin(2 * np.pi * 5000 * np.arange(on.size) / 48000)).astype(np.float32)
    loudest = []
    for output_rate in (48000, 96000):
        with Upsampler(
            48000, model="replicate", output_rate=output_rate, limiter=False
        ) as upsampler:
            loudest.append(np.max(np.abs(_whole(upsampler, tone))))
    assert loudest[1] < 1.5 * loudest[0]


def test_a_step_is_counted_once_with_its_octaves(stand_in: Path) -> None:
    with Upsampler(48000, model=stand_in, output_rate=192000) as upsampler:
        upsampler.process(np.zeros(4800, np.float32))
        assert upsampler.statistics.steps == 10


def test_reset_equals_fresh(make_sound: MakeSound) -> None:
    sound = make_sound(48000, 0.2)[:, 0]
    with Upsampler(48000, model="replicate", output_rate=192000) as upsampler:
        fresh = _whole(upsampler, sound)
        upsampler.process(_full_band(48000, 0.1)[:, 0])
        upsampler.reset()
        assert np.array_equal(_whole(upsampler, sound), fresh)


@pytest.mark.parametrize("octave_model", ["replicate", "octave"])
def test_octaves_follow_the_seed(octave_model: str, make_sound: MakeSound) -> None:
    sound = make_sound(48000, 0.3, cutoff=23900)
    outs = []
    for seed in (1, 1, 2):
        with Upsampler(
            48000, model="replicate", octave_model=octave_model, output_rate=96000, seed=seed
        ) as upsampler:
            outs.append(_whole(upsampler, sound)[:, 0])
    assert np.array_equal(outs[0], outs[1])
    difference = outs[2] - outs[0]
    # Another texture of the same level, part of which is no noise, and nothing else below.
    levels = [_level_db(out, 96000, 28000, 44000) for out in outs]
    level = levels[0]
    assert levels[2] == pytest.approx(level, abs=1.0)
    assert _level_db(difference, 96000, 28000, 44000) > level - 6.0
    assert _level_db(difference, 96000, 20, 20000) < level - 60.0


def test_integers_give_the_rounded_floats(make_sound: MakeSound) -> None:
    whole = np.rint(make_sound(48000, 0.2, level=0.2) * 32767).clip(-32768, 32767)
    with Upsampler(48000, model="replicate", output_rate=96000) as upsampler:
        floats = _whole(upsampler, (whole / 32768).astype(np.float32))
        integers = _whole(upsampler, whole.astype(np.int16))
    assert integers.dtype == np.int16
    assert np.array_equal(integers, np.rint(floats * 32768).clip(-32768, 32767))


def test_loud_octaves_stay_within_full_scale() -> None:
    loud = np.sign(_full_band(48000, 0.2)[:, 0]) * np.float32(0.99)
    with Upsampler(48000, model="replicate", output_rate=96000) as upsampler:
        assert np.max(np.abs(_whole(upsampler, loud))) <= 1.0
        assert upsampler.statistics.limited_samples > 0


def test_the_ceiling_reaches_into_the_octaves(make_sound: MakeSound) -> None:
    sound = make_sound(48000, 0.6)[:, 0]
    with Upsampler(48000, model="replicate", output_rate=96000) as upsampler:
        assert upsampler.ceiling == 48000.0
        wide = upsampler.process(sound)
        upsampler.ceiling = 32000
        assert upsampler.ceiling == 32000.0
        narrow = upsampler.process(sound)
        with pytest.raises(ArgumentError, match="between 500 and 48000 Hz"):
            upsampler.ceiling = 50000
    below, above = (
        _level_db(part[9600:], 96000, 36000, 44000) - _level_db(part[9600:], 96000, 26000, 30000)
        for part in (narrow, wide)
    )
    assert below < above - 20.0


def test_wet_counts_for_every_octave(make_sound: MakeSound) -> None:
    sound = make_sound(48000, 0.3)[:, 0]
    with Upsampler(48000, model="replicate", output_rate=192000) as upsampler:
        upsampler.wet = 0.0
        upsampler.process(sound)
        out = upsampler.process(sound)
    # What is left are images of the conversions, next to half of each rate.
    assert _level_db(out, 192000, 27000, 44000) < -90.0


@pytest.mark.parametrize(
    ("rate", "arguments", "message"),
    [
        (48000, {"output_rate": 88200}, "must be 192000, 96000, 48000, .* or 16000 Hz, not 88200"),
        (96000, {"output_rate": 48000}, "96000 Hz gives 96000 or 192000 Hz, not 48000"),
        (88200, {"output_rate": 96000}, "88200 Hz gives 88200 or 176400 Hz, not 96000"),
        (192000, {"output_rate": 384000}, "192000 Hz gives 192000 Hz, not 384000"),
        (64000, {}, "64000 Hz is not supported; accepted: 8000, .* 176400, 192000"),
        (384000, {}, "384000 Hz is not supported"),
        (96000, {"output_rate": "high"}, "output rate must be an integer"),
        (96000, {"cutoff": 600.0}, "The cutoff must lie between 1000 and 48000 Hz"),
        (96000, {"ceiling": 50000.0}, "The ceiling must lie between 1000 and 48000 Hz"),
        (48000, {"ceiling": 30000.0}, "The ceiling must lie between 500 and 24000 Hz"),
        (48000, {"output_rate": 96000, "cutoff": 30000.0}, "cutoff must lie between 500 and 24000"),
        (96000, {"channels": 9}, "Audio with 9 channels"),
        (48000, {"octave_model": "small"}, "48000 Hz has no octave beyond 48 kHz"),
    ],
)
def test_bad_input(rate: int, arguments: dict[str, object], message: str, stand_in: Path) -> None:
    with pytest.raises((ArgumentError, AudioFormatError), match=message):
        Upsampler(rate, model=stand_in, **arguments)


@pytest.mark.parametrize(("rate", "output_rate"), [(48000, 96000), (96000, 96000)])
def test_octaves_may_have_a_model_of_their_own(
    rate: int, output_rate: int, stand_in: Path, make_sound: MakeSound
) -> None:
    sound = make_sound(rate, 0.2, cutoff=20000)[:, 0]
    options = {"output_rate": output_rate, "cutoff": 20000.0}
    with Upsampler(rate, model=stand_in, octave_model="replicate", **options) as upsampler:
        out = _whole(upsampler, sound)
    with Upsampler(rate, model="replicate", **options) as upsampler:
        same = _whole(upsampler, sound)
    with Upsampler(rate, model=stand_in, **options) as upsampler:
        other = _whole(upsampler, sound)
    if rate == output_rate:
        assert np.array_equal(out, same)
    assert _level_db(out - other, output_rate, 24000, 48000) > -60.0
    with pytest.raises(ModelError, match="Model 'huge' is unknown; bundled"):
        Upsampler(rate, model=stand_in, octave_model="huge", output_rate=output_rate)


@pytest.mark.parametrize(
    "begin",
    [
        lambda: Upsampler(8000, model=OCTAVE),
        lambda: Upsampler(8000, model=find_model(OCTAVE), output_rate=96000),
        lambda: BatchUpsampler(1, model=OCTAVE),
        lambda: LiveSettings(model=OCTAVE).check(),
    ],
    ids=["upsampler", "octaves", "batch", "live"],
)
def test_the_network_for_octaves_makes_nothing_else(begin: Callable[[], object]) -> None:
    with pytest.raises(ModelError, match="'octave' makes octaves beyond 48 kHz only"):
        begin()
    Upsampler(96000, model=OCTAVE).close()


def test_a_network_of_ones_own_for_octaves_makes_nothing_else(
    write_model: Callable[..., Path],
) -> None:
    """As its training says, which ``rtsr train --stage 96`` wrote."""
    own = write_model(card={"training": {"octave_rate": 96_000}})
    with pytest.raises(ModelError, match="makes octaves beyond 48 kHz only"):
        Upsampler(8000, model=own)
    Upsampler(48000, model="replicate", octave_model=own, output_rate=96000).close()


def test_a_bundled_network_has_the_bundled_octave_beside_it(
    stand_in: Path, make_sound: MakeSound
) -> None:
    sound = make_sound(48000, 0.1, cutoff=20000)[:, 0]
    outputs = []
    for octave_model in (None, OCTAVE, "small-int8"):
        with Upsampler(
            48000, model="small-int8", octave_model=octave_model, output_rate=96000, cutoff=20000.0
        ) as upsampler:
            outputs.append(_whole(upsampler, sound))
    assert np.array_equal(outputs[0], outputs[1])
    assert not np.array_equal(outputs[0], outputs[2])
    assert find_octave_model(find_model("small")) == OCTAVE
    assert find_octave_model("small", octaves=2) == "small"
    assert find_octave_model("replicate") == "replicate"
    assert find_octave_model(stand_in) == stand_in


def test_a_rate_that_is_a_clock_stays(stand_in: Path) -> None:
    high = Upsampler(96000, model=stand_in, output_rate=192000)
    with pytest.raises(AudioFormatError, match="cannot go on at 192000 Hz"):
        high.input_rate = 192000
    low = Upsampler(16000, model=stand_in, output_rate=96000)
    low.input_rate = 8000
    assert len(low.process(np.zeros(80, np.float32))) == 960
    with pytest.raises(AudioFormatError, match="cannot go on at 96000 Hz"):
        low.input_rate = 96000


def test_a_colour_is_not_for_another_clock() -> None:
    model = find_model("small")
    nothing = ((0.0,) * 24,) * 4
    colour = Colour(model.metadata.name, model.metadata.weights_sha256, 60.0, nothing)
    with pytest.raises(ArgumentError, match="learnt for inputs up to 48 kHz"):
        Upsampler(96000, model="small", colour=colour)


@pytest.mark.parametrize("rate", [88200, 192000])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_a_full_band_file_is_written_back_bit_for_bit(
    rate: int, subtype: str, tmp_path: Path, stand_in: Path
) -> None:
    source, target = tmp_path / "in.wav", tmp_path / "out.wav"
    soundfile.write(source, _full_band(rate, 0.7, channels=2), rate, subtype=subtype)
    report = enhance_file(source, target, model=stand_in)
    assert report.output_rate == soundfile.info(target).samplerate == rate
    assert report.bandwidth() == f"content of the input up to {rate // 2} Hz: full band"
    assert np.array_equal(soundfile.read(source)[0], soundfile.read(target)[0])


def test_the_whole_beginning_of_a_file_at_a_higher_rate_is_looked_at(tmp_path: Path) -> None:
    source, target = tmp_path / "in.wav", tmp_path / "out.wav"
    sound = _voice_with_a_weak_top(24000, 192000)
    # The voice begins after 5 s, which 20 s of sound at 48 kHz would last here.
    silent = np.zeros(5 * 192000, np.float32)
    soundfile.write(source, np.concatenate([silent, sound]), 192000, subtype="PCM_16")
    report = enhance_file(source, target, model="replicate")
    assert report.cutoff_hz == pytest.approx(11700, rel=0.04)


def test_a_file_that_ends_early_is_restored_to_its_own_rate(
    tmp_path: Path, make_sound: MakeSound
) -> None:
    source, target = tmp_path / "in.wav", tmp_path / "out.wav"
    sound = make_sound(96000, 1.5, cutoff=21000)[:, 0]
    soundfile.write(source, sound, 96000, subtype="PCM_24")
    report = enhance_file(source, target, model="replicate")
    assert report.cutoff_hz == pytest.approx(21000, rel=0.05)
    # The least rate that rtsr takes and that holds the content.
    rates = (*SUPPORTED_RATES, *HIGH_RATES)
    enough = min(rate for rate in rates if rate >= 2 * report.highest_cutoff_hz)
    assert enough < report.input_rate
    assert report.bandwidth().endswith(f"a rate of {enough} Hz would hold all of it")
    assert report.to_json()["block_ms"] == 80.0
    out, rate = soundfile.read(target)
    assert (rate, len(out)) == (96000, len(sound))
    added = out - sound
    assert _level_db(added, 96000, 20, 17000) < _level_db(sound, 96000, 20, 17000) - 60.0
    above = _level_db(added, 96000, 24000, 40000)
    assert -30.0 < above - _level_db(sound, 96000, 10000, 20000) < 6.0


@pytest.mark.parametrize(("rate", "bits"), [(88200, 24), (96000, 16), (96000, 24), (192000, 24)])
def test_a_short_quiet_file_is_not_taken_for_full_band(
    rate: int, bits: int, tmp_path: Path
) -> None:
    source, target = tmp_path / "in.wav", tmp_path / "out.wav"
    with resources.as_file(resources.files("rtsr") / "demo_data/speech_reference.flac") as path:
        voice, own_rate = soundfile.read(path)
    quiet = 0.1 * soxr.resample(voice[: 3 * own_rate], own_rate, rate, "VHQ")
    soundfile.write(source, quiet, rate, subtype=f"PCM_{bits}")
    report = enhance_file(source, target, model="replicate")
    assert report.highest_cutoff_hz == pytest.approx(20000, rel=0.03)
    assert report.added_steps > 0


def test_a_file_that_reaches_beyond_seven_tenths_of_its_band_is_full_band(tmp_path: Path) -> None:
    source, target = tmp_path / "in.wav", tmp_path / "out.wav"
    sound = soxr.resample(_full_band(72000, 3.0), 72000, 96000)
    soundfile.write(source, sound, 96000, subtype="PCM_24")
    report = enhance_file(source, target, model="replicate")
    assert report.bandwidth() == "content of the input up to 48000 Hz: full band"
    assert np.array_equal(soundfile.read(source)[0], soundfile.read(target)[0])


def test_a_file_that_gets_narrow_is_said_to_need_what_its_wide_part_does(tmp_path: Path) -> None:
    source, target = tmp_path / "in.wav", tmp_path / "out.wav"
    sound = _full_band(96000, 9.0)[:, 0]
    narrow = scipy.signal.ellip(12, 0.1, 100.0, 8000.0, fs=96000, output="sos")
    sound[96000:] = scipy.signal.sosfilt(narrow, sound[96000:])
    soundfile.write(source, sound, 96000, subtype="PCM_24")
    report = enhance_file(source, target, model="replicate")
    assert report.bandwidth() == "content of the input up to 48000 Hz: full band"
    told = report.to_json()["input"]
    assert told["cutoff_hz"] == pytest.approx(8000, rel=0.1)
    assert told["highest_cutoff_hz"] == 48000.0


@pytest.mark.parametrize(("rate", "out_rate"), [(8000, 96000), (44100, 192000), (96000, 192000)])
def test_a_file_has_the_length_of_its_input(
    rate: int, out_rate: int, tmp_path: Path, stand_in: Path
) -> None:
    source, target = tmp_path / "in.wav", tmp_path / "out.wav"
    for samples in (2, rate // 10, rate // 7 + 1):
        soundfile.write(source, np.full(samples, 0.1), rate)
        enhance_file(source, target, model=stand_in, output_rate=out_rate)
        assert soundfile.info(target).frames == round(samples * out_rate / rate)


def test_the_command_line_goes_beyond_48_khz(tmp_path: Path, stand_in: Path) -> None:
    runner = CliRunner()
    source, target = tmp_path / "in.wav", tmp_path / "out.wav"
    arguments = ["enhance", str(source), str(target), "-y", "--model", str(stand_in)]
    soundfile.write(source, np.full(4800, 0.1), 48000)
    result = runner.invoke(application.app, [*arguments, "--out-rate", "96000"])
    assert result.exit_code == 0
    assert "1 channel(s) at 96000 Hz" in result.stdout
    assert soundfile.info(target).samplerate == 96000
    soundfile.write(source, _full_band(96000, 0.7), 96000)
    result = runner.invoke(application.app, arguments)
    assert "at 96000 Hz, content of the input up to 48000 Hz: full band" in result.stdout
