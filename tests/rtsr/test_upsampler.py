"""What an Upsampler promises about samples, whatever the blocks, the rate and the content."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rtsr import (
    ArgumentError,
    AudioFormatError,
    ModelError,
    ProviderError,
    RtsrError,
    Upsampler,
)
from rtsr.runtime.models import bundled, names
from rtsr_kernels.ports import OUTPUT_RATES
from rtsr_kernels.resample import SUPPORTED_RATES

MakeSound = Callable[..., np.ndarray]


@pytest.fixture(params=["stand-in", "small", "small-int8", "replicate"])
def model(request: pytest.FixtureRequest, stand_in: Path) -> str:
    """Everything that can make a high band, graph or not, keeps the same promises."""
    if request.param not in ("stand-in", *names()):
        pytest.skip(f"the {request.param} model is not bundled in this tree")
    return str(stand_in) if request.param == "stand-in" else request.param


def _whole(upsampler: Upsampler, sound: np.ndarray) -> np.ndarray:
    """Process in one block, flush, cut the latency off."""
    parts = [upsampler.process(sound), upsampler.flush()]
    return np.concatenate(parts)[upsampler.latency.algorithmic_samples :]


def _spectrum(sound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    window = np.hanning(len(sound))
    return np.fft.rfftfreq(len(sound), 1 / 48000), np.abs(np.fft.rfft(sound * window))


def _band_level_db(sound: np.ndarray, low: float, high: float) -> float:
    frequency, magnitude = _spectrum(sound.astype(np.float64))
    band = magnitude[(frequency >= low) & (frequency < high)]
    return float(10 * np.log10(np.sum(band**2) + 1e-30))


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000])
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_partition_gives_the_same_bits(
    rate: int, model: str, make_sound: MakeSound, data: st.DataObject
) -> None:
    channels = data.draw(st.sampled_from([1, 2]))
    sound = make_sound(rate, 0.15, cutoff=3600, channels=channels)
    cuts = data.draw(st.lists(st.integers(0, len(sound)), max_size=12))
    output_rate = data.draw(st.sampled_from([48000, 44100]))
    with Upsampler(rate, model=model, channels=channels, output_rate=output_rate) as upsampler:
        expected = _whole(upsampler, sound)
        edges = [0, *sorted(cuts), len(sound)]
        parts = [upsampler.process(sound[a:b]) for a, b in pairwise(edges)]
        parts.append(upsampler.flush())
        joined = np.concatenate(parts)[upsampler.latency.algorithmic_samples :]
    assert np.array_equal(expected, joined)


@pytest.mark.parametrize("hops", [1, 4, 16])
@pytest.mark.parametrize("rate", SUPPORTED_RATES)
def test_output_count_follows_the_input_count(rate: int, hops: int, stand_in: Path) -> None:
    upsampler = Upsampler(rate, model=stand_in, hops_per_step=hops)
    received = sent = 0
    for length in (0, 1, 7, 480, 1000, 0, 4097, 3):
        received += length
        sent += len(upsampler.process(np.zeros(length, np.float32)))
        assert sent == received * 48000 // rate
    rest = len(upsampler.flush())
    assert sent + rest == upsampler.latency.algorithmic_samples + round(received * 48000 / rate)


@pytest.mark.parametrize(
    ("rate", "output_rate"),
    [(rate, out) for rate in SUPPORTED_RATES for out in (*OUTPUT_RATES, 96000)]
    + [(96000, 96000), (88200, 176400)],
)
def test_output_is_counted_at_the_rate_of_the_engine_first(
    rate: int, output_rate: int, stand_in: Path
) -> None:
    upsampler = Upsampler(rate, model=stand_in, output_rate=output_rate)
    random = np.random.default_rng(rate + output_rate)
    received = sent = 0
    for length in random.integers(0, 40, 300):
        received += int(length)
        sent += len(upsampler.process(np.zeros(length, np.float32)))
        inner_rate = max(rate, 48000)
        assert sent == received * inner_rate // rate * output_rate // inner_rate
    whole = sent + len(upsampler.flush()) - upsampler.latency.algorithmic_samples
    assert whole == round(received * output_rate / rate)


@pytest.mark.parametrize("output_rate", [48000, 44100])
@pytest.mark.parametrize("hops", [1, 4, 16])
@pytest.mark.parametrize("rate", SUPPORTED_RATES)
def test_click_comes_out_after_the_reported_latency(
    rate: int, hops: int, output_rate: int, stand_in: Path
) -> None:
    upsampler = Upsampler(
        rate, model=stand_in, hops_per_step=hops, wet=0.0, output_rate=output_rate
    )
    click = np.zeros(rate // 2, np.float32)
    at = rate // 4
    click[at] = 1.0
    out = np.concatenate([upsampler.process(click), upsampler.flush()])
    peak = int(np.argmax(np.abs(out)))
    assert peak - upsampler.latency.algorithmic_samples == round(at * output_rate / rate)


def test_latency_is_that_of_the_issue(stand_in: Path) -> None:
    at_48 = Upsampler(48000, model=stand_in).latency
    at_8 = Upsampler(8000, model=stand_in).latency
    assert at_48.algorithmic_samples == 600
    assert at_48.algorithmic_ms == 12.5
    assert at_8.algorithmic_ms <= 14.0
    assert sum(at_8.parts_ms.values()) == pytest.approx(at_8.algorithmic_ms)
    at_44 = Upsampler(8000, model=stand_in, output_rate=44100).latency
    assert sum(at_44.parts_ms.values()) == pytest.approx(at_44.algorithmic_ms)


def test_rank_of_the_block_is_kept(stand_in: Path) -> None:
    upsampler = Upsampler(8000, model=stand_in)
    assert upsampler.process(np.zeros(80, np.float32)).shape == (480,)
    assert upsampler.process(np.zeros((80, 1), np.float32)).shape == (480, 1)
    assert upsampler.process(np.zeros(80, np.float64)).dtype == np.float32
    stereo = Upsampler(8000, model=stand_in, channels=2)
    assert stereo.process(np.zeros((80, 2), np.float32)).shape == (480, 2)
    assert stereo.process(np.zeros((2, 80), np.float32).T).shape == (480, 2)


@pytest.mark.parametrize("rate", [8000, 48000])
def test_reset_equals_fresh(rate: int, model: str, make_sound: MakeSound) -> None:
    sound = make_sound(rate, 0.3, cutoff=3600)[:, 0]
    upsampler = Upsampler(rate, model=model)
    fresh = _whole(upsampler, sound)
    upsampler.process(make_sound(rate, 0.2, seed=1)[:, 0])
    upsampler.reset()
    assert np.array_equal(_whole(upsampler, sound), fresh)
    assert np.array_equal(_whole(upsampler, sound), fresh)  # flush starts anew as well
    assert np.array_equal(_whole(Upsampler(rate, model=model), sound), fresh)


def test_the_future_changes_nothing_in_the_past(model: str, make_sound: MakeSound) -> None:
    sound = make_sound(48000, 0.4, cutoff=4000)[:, 0]
    other = sound.copy()
    other[9600:] = make_sound(48000, 0.4, seed=5)[9600:, 0]
    upsampler = Upsampler(48000, model=model)
    before = upsampler.process(sound)
    upsampler.reset()
    after = upsampler.process(other)
    assert np.array_equal(before[:9600], after[:9600])
    assert not np.array_equal(before, after)


@pytest.mark.parametrize("cutoff", [3000, 4000, 8000])
def test_low_band_is_not_touched(cutoff: int, model: str, make_sound: MakeSound) -> None:
    sound = make_sound(48000, 1.0, cutoff=cutoff)[:, 0]
    out = _whole(Upsampler(48000, model=model, cutoff=cutoff), sound)
    frequency, difference = _spectrum((out - sound).astype(np.float64))
    _, original = _spectrum(sound.astype(np.float64))
    low = frequency < 0.85 * cutoff
    null = 20 * np.log10(np.linalg.norm(difference[low]) / np.linalg.norm(original[low]))
    assert null <= -60.0
    # What was added is of the order of the octave below it, or the model added nothing at all.
    octave = (frequency >= cutoff / 2) & (frequency < cutoff)
    added = np.linalg.norm(difference[~low]) / np.linalg.norm(original[octave])
    quietest = -20.0 if model in names() else -40.0
    assert quietest < 20 * np.log10(added) < 6.0


@pytest.mark.parametrize("rate", [8000, 48000])
def test_silence_stays_silent(rate: int, model: str, make_sound: MakeSound) -> None:
    upsampler = Upsampler(rate, model=model, cutoff=3800)
    out = upsampler.process(np.zeros(rate // 2, np.float32))
    assert np.max(np.abs(out)) < 1e-4
    upsampler.process(make_sound(rate, 0.5, cutoff=3800)[:, 0])
    after = upsampler.process(np.zeros(rate // 2, np.float32))
    assert np.max(np.abs(after[4800:])) < 1e-4


def test_identical_channels_stay_identical(model: str, make_sound: MakeSound) -> None:
    mono = make_sound(16000, 0.5)
    out = _whole(Upsampler(16000, model=model, channels=2), np.repeat(mono, 2, axis=1))
    assert np.array_equal(out[:, 0], out[:, 1])


@pytest.mark.parametrize("change_db", [20.0, -20.0])
def test_high_band_follows_the_level(change_db: float, model: str, make_sound: MakeSound) -> None:
    # Around the usual level of speech, loud enough that 20 dB less is not yet silence.
    sound = make_sound(8000, 1.0, level=0.03)[:, 0]
    upsampler = Upsampler(8000, model=model, cutoff=4000)
    reference = _band_level_db(_whole(upsampler, sound), 4500, 20000)
    changed = _whole(upsampler, sound * np.float32(10 ** (change_db / 20)))
    # A network's level path also hears how loud all of it is: floors do not move with the voice.
    slack = 2.0 if model.startswith("small") else 1.0
    assert _band_level_db(changed, 4500, 20000) - reference == pytest.approx(change_db, abs=slack)


def test_seed_decides_the_texture(model: str, make_sound: MakeSound) -> None:
    sound = make_sound(8000, 0.3)[:, 0]
    first = _whole(Upsampler(8000, model=model, seed=1), sound)
    again = _whole(Upsampler(8000, model=model, seed=1), sound)
    other = _whole(Upsampler(8000, model=model, seed=2), sound)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_full_band_passes_bit_for_bit(model: str, make_sound: MakeSound) -> None:
    sound = make_sound(48000, 1.0, channels=2)
    sound += np.random.default_rng(3).normal(0, 0.05, sound.shape).astype(np.float32)
    assert np.array_equal(_whole(Upsampler(48000, model=model, channels=2), sound), sound)


def test_no_wet_gain_passes_bit_for_bit(model: str, make_sound: MakeSound) -> None:
    sound = make_sound(48000, 0.5, cutoff=4000)[:, 0]
    assert np.array_equal(_whole(Upsampler(48000, model=model, cutoff=4000, wet=0.0), sound), sound)


def test_cutoff_above_the_ceiling_adds_nothing(model: str, make_sound: MakeSound) -> None:
    sound = make_sound(48000, 0.3, cutoff=8000)[:, 0]
    upsampler = Upsampler(48000, model=model, cutoff=8000, ceiling=7000)
    assert np.array_equal(_whole(upsampler, sound), sound)


def test_the_ceiling_may_change_at_any_time(make_sound: MakeSound) -> None:
    sound = make_sound(48000, 0.6, cutoff=4000)[:, 0]
    with Upsampler(48000, model="replicate", cutoff=4000, ceiling=16000) as upsampler:
        assert upsampler.ceiling == 16000.0
        wide = upsampler.process(sound[:14400])
        upsampler.ceiling = 9000
        narrow = upsampler.process(sound[14400:])
    for part, expected in ((wide[4800:], True), (narrow[4800:], False)):
        above = _band_level_db(part, 10000, 15000) > _band_level_db(part, 5000, 8000) - 50.0
        assert above is expected
    with pytest.raises(ArgumentError, match="The ceiling must lie between 500 and 24000 Hz"):
        Upsampler(48000, model="replicate").ceiling = 100


def test_wet_gain_changes_without_a_click(stand_in: Path, make_sound: MakeSound) -> None:
    sound = make_sound(48000, 0.4, cutoff=4000)[:, 0]
    plain = Upsampler(48000, model=stand_in, cutoff=4000).process(sound) - np.concatenate(
        [np.zeros(600, np.float32), sound[:-600]]
    )
    upsampler = Upsampler(48000, model=stand_in, cutoff=4000)
    first = upsampler.process(sound[:9600])
    upsampler.wet = 0.0
    out = np.concatenate([first, upsampler.process(sound[9600:])])
    added = out - np.concatenate([np.zeros(600, np.float32), sound[:-600]])
    assert not added[9600 + 960 :].any()
    assert np.max(np.abs(np.diff(added))) <= 1.1 * np.max(np.abs(np.diff(plain)))


def test_unusable_samples_are_repaired_and_counted(model: str, make_sound: MakeSound) -> None:
    clean = make_sound(48000, 0.5, cutoff=4000)[:, 0]
    sound = clean.copy()
    sound[100:103] = np.nan
    sound[200] = np.inf
    sound[201] = -np.inf
    sound[300] = 1e30
    sound[301] = -1e11
    kept = sound.copy()
    upsampler = Upsampler(48000, model=model, cutoff=4000)
    out = _whole(upsampler, sound)
    assert np.isfinite(out).all()
    assert upsampler.statistics.repaired_samples == 7
    assert np.array_equal(sound, kept, equal_nan=True), "the caller's block was changed"
    # Each of them is what a zero there is, and later sound is enhanced as ever.
    silenced = clean.copy()
    silenced[[100, 101, 102, 200, 201, 300, 301]] = 0.0
    fresh = Upsampler(48000, model=model, cutoff=4000)
    assert np.array_equal(out, _whole(fresh, silenced))
    late = slice(19200, 22000)
    added = _band_level_db(out[late] - clean[late], 5000, 20000)
    expected = _band_level_db(_whole(fresh, clean)[late] - clean[late], 5000, 20000)
    assert added == pytest.approx(expected, abs=1.0)


@pytest.mark.parametrize("value", [1e9, -1e9, 32768.0, 0.9, 1e-30])
def test_no_content_raises(value: float, model: str) -> None:
    sound = np.full(4800, value, np.float32)
    sound[::2] *= -1
    assert np.isfinite(_whole(Upsampler(8000, model=model), sound)).all()


def test_model_failure_leaves_the_dry_sound(failing_model: Path, make_sound: MakeSound) -> None:
    sound = make_sound(48000, 0.2, cutoff=4000)[:, 0]
    upsampler = Upsampler(48000, model=failing_model, cutoff=4000)
    assert np.array_equal(_whole(upsampler, sound), sound)
    assert upsampler.statistics.degraded_blocks >= 20


def test_statistics_count_steps(stand_in: Path) -> None:
    upsampler = Upsampler(48000, model=stand_in)
    assert upsampler.statistics.steps == 0
    upsampler.process(np.zeros(4800, np.float32))
    times = upsampler.statistics.step_ms
    assert upsampler.statistics.steps == 10
    assert 0 < times.p50 <= times.p95 <= times.p99 <= times.p99_9 <= times.max
    assert 0 < times.first <= times.max


def test_memory_does_not_grow_with_the_stream(stand_in: Path) -> None:
    upsampler = Upsampler(8000, model=stand_in)
    block = np.full(80, 0.1, np.float32)
    held = []
    tracemalloc.start()
    # What Python keeps once, and what other threads of the test's process take, is in some of the
    # readings; a leak is in every one.
    for _ in range(4):
        for _ in range(1000):
            upsampler.process(block)
        gc.collect()
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert np.diff(held).min() < 8_000


@pytest.mark.parametrize("hops", [2, 4])
def test_larger_steps_give_the_same_sound(hops: int, make_sound: MakeSound) -> None:
    model = "small"
    if model not in bundled():
        pytest.skip("the small model is not bundled in this tree")
    sound = make_sound(8000, 0.4)[:, 0]
    dry = _whole(Upsampler(8000, model=model, cutoff=4000, wet=0.0), sound)
    one = _whole(Upsampler(8000, model=model, cutoff=4000), sound)
    more = _whole(Upsampler(8000, model=model, cutoff=4000, hops_per_step=hops), sound)
    high_band = np.std(one - dry)
    assert high_band > 5e-3
    assert np.max(np.abs(more - one)) < 1e-3 * high_band


def test_closed_upsampler_says_so(stand_in: Path) -> None:
    with Upsampler(8000, model=stand_in) as upsampler:
        pass
    with pytest.raises(RtsrError, match="closed"):
        upsampler.process(np.zeros(80, np.float32))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_rate": 7999}, "accepted: 8000, 11025"),
        ({"input_rate": 64000}, "accepted: 8000, 11025"),
        ({"channels": 0}, "accepted: 1 to 8"),
        ({"channels": 9}, "accepted: 1 to 8"),
        ({"output_rate": 88200}, "24000 or 16000 Hz, not 88200"),
        ({"hops_per_step": 3}, "1, 2, 4, 8, 16"),
        ({"wet": 1.5}, "between 0 and 1"),
        ({"wet": float("nan")}, "between 0 and 1"),
        ({"cutoff": 100}, "cutoff must lie between"),
        ({"expected_cutoff": -5.0}, "expected cutoff must lie at 20 Hz or above, not at -5 Hz"),
        ({"expected_cutoff": float("nan")}, "expected cutoff must lie at 20 Hz or above"),
        ({"expected_cutoff": "wide"}, "expected cutoff must be a number, not 'wide'"),
        ({"ceiling": 30000}, "ceiling must lie between"),
        ({"threads": 0}, "threads on this machine, not 0"),
        ({"threads": 100_000}, "threads on this machine, not 100000"),
        ({"seed": 2**64}, "64-bit"),
        ({"model": "huge"}, "unknown; bundled"),
        ({"model": 3}, "given by its name or path, not as 3"),
        ({"model": "nowhere/huge.onnx"}, "does not exist"),
        ({"provider": "npu"}, "unknown; choose one of auto"),
        ({"input_rate": "8000"}, "sample rate must be an integer, not '8000'"),
        ({"output_rate": 44100.5}, "output rate must be an integer, not 44100.5"),
        ({"channels": 1.5}, "number of channels must be an integer, not 1.5"),
        ({"hops_per_step": 1.0}, "hops per step must be an integer, not 1.0"),
        ({"seed": 1.5}, "seed must be an integer, not 1.5"),
        ({"threads": 1.5}, "number of threads must be an integer, not 1.5"),
        ({"wet": "a"}, "wet gain must be a number, not 'a'"),
        ({"cutoff": "4000"}, "cutoff must be a number, not '4000'"),
        ({"ceiling": [1]}, r"ceiling must be a number, not \[1\]"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, object], message: str, stand_in: Path) -> None:
    errors = {"model": ModelError, "provider": ProviderError} | dict.fromkeys(
        ("input_rate", "output_rate", "channels"), AudioFormatError
    )
    expected = errors.get(next(iter(arguments)), ArgumentError)
    with pytest.raises(expected, match=message) as caught:
        Upsampler(**{"input_rate": 8000, "model": stand_in, **arguments})  # type: ignore[arg-type]
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(
    "block",
    [
        np.zeros(80, np.int32),
        np.zeros((80, 2), np.float32),
        np.zeros((1, 80, 1), np.float32),
        np.float32(0.0),
    ],
    ids=["integers", "two channels", "three axes", "scalar"],
)
def test_blocks_of_another_form(block: np.ndarray, stand_in: Path) -> None:
    with pytest.raises(AudioFormatError):
        Upsampler(8000, model=stand_in).process(block)
