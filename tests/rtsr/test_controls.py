"""Controls of running streams: no click, the delay that is stated, the samples that are due."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtsr import AudioFormatError, BatchUpsampler, RtsrError, Upsampler

MakeSound = Callable[..., np.ndarray]

RATES = [
    (8000, 16000),
    (16000, 8000),
    (8000, 48000),
    (48000, 16000),
    (22050, 8000),
    (24000, 32000),
    (32000, 24000),
    (44100, 8000),
]


class _Alone:
    """An ``Upsampler``, fed 10 ms at a time."""

    def __init__(self, stand_in: Path, rate: int, **settings: Any) -> None:
        self.stream = Upsampler(rate, model=stand_in, **settings)
        self.late = lambda: self.stream.latency.algorithmic_samples

    def take(self, block: np.ndarray) -> np.ndarray:
        return self.stream.process(block)

    def rest(self) -> np.ndarray:
        return self.stream.flush()


class _InBatch:
    """The same as a stream of a batch."""

    def __init__(self, stand_in: Path, rate: int, **settings: Any) -> None:
        self.batch = BatchUpsampler(2, model=stand_in, overload="wait", buffer_ms=1000)
        self.stream = self.batch.open(rate, **settings)
        self.late = lambda: self.stream.delay_samples

    def take(self, block: np.ndarray) -> np.ndarray:
        self.stream.push(block)
        while self.batch.step():
            pass
        return self.stream.pull()

    def rest(self) -> np.ndarray:
        self.stream.finish()
        while self.batch.step():
            pass
        assert self.stream.is_done
        return self.stream.pull()


@pytest.fixture(params=[_Alone, _InBatch])
def begin(request: pytest.FixtureRequest, stand_in: Path) -> Callable[..., Any]:
    """``begin(rate, **settings)``: a stream of either class."""
    return lambda rate, **settings: request.param(stand_in, rate, **settings)


@contextmanager
def _refused(sentence: str) -> Iterator[None]:
    with pytest.raises(RtsrError, match=sentence) as caught:
        yield
    assert str(caught.value).endswith(".")


def _tone(rate: int, seconds: float, hz: float = 437.0, start: float = 0.0) -> np.ndarray:
    time = start + np.arange(round(rate * seconds)) / rate
    return (0.5 * np.sin(2 * np.pi * hz * time)).astype(np.float32)


def _splatter(signal: np.ndarray, hz: float) -> float:
    """Strongest trace of a break: what is left of a tone above four times its frequency."""
    window = np.blackman(512)
    frames = np.lib.stride_tricks.sliding_window_view(signal, 512)[::32] * window
    spectra = np.abs(np.fft.rfft(frames, axis=1)) / (0.5 * window.sum())
    return float(spectra[:, np.fft.rfftfreq(512, 1 / 48000) > 4 * hz + 600].max())


def _play(stream: Any, sound: np.ndarray, rate: int, set_at: dict[int, dict[str, Any]]) -> Any:
    parts = []
    for hop in range(len(sound) * 100 // rate):
        for name, value in set_at.get(hop, {}).items():
            setattr(stream.stream, name, value)
        parts.append(stream.take(sound[hop * rate // 100 : (hop + 1) * rate // 100]))
    return np.concatenate(parts)


# --- cutoff, wet, ceiling ---


@pytest.mark.parametrize(
    "changes",
    [
        {"cutoff": 9000.0},
        {"cutoff": 24000.0},
        {"cutoff": None},
        {"wet": 0.0},
        {"wet": 0.3},
        {"ceiling": 3000.0},
    ],
)
def test_a_change_does_not_click(begin: Callable[..., Any], changes: dict[str, Any]) -> None:
    """A break would show below the crossover, where the high band has nothing."""
    sound = _tone(48000, 0.4, 700.0)
    stream = begin(48000, cutoff=4000.0)
    out = _play(stream, sound, 48000, {20: changes})
    late = stream.late()
    dry = np.concatenate([np.zeros(late, np.float32), sound])[: len(out)]
    added = (out - dry)[4800:-100]
    window = np.blackman(512)
    frames = np.lib.stride_tricks.sliding_window_view(added, 512)[::32] * window
    spectra = np.abs(np.fft.rfft(frames, axis=1)) / (0.5 * window.sum())
    low = np.fft.rfftfreq(512, 1 / 48000) < 2500.0
    assert spectra[:, low].max() < 2e-4
    assert np.abs(added[:4800]).max() > 1e-3
    for name, value in changes.items():
        assert getattr(stream.stream, name) == value


@pytest.mark.parametrize(
    ("changes", "is_silent"),
    [({"wet": 0.0}, True), ({"ceiling": 3000.0}, True), ({"cutoff": 23000.0}, False)],
)
def test_a_change_is_over_after_a_hop(
    begin: Callable[..., Any], make_sound: MakeSound, changes: dict[str, Any], is_silent: bool
) -> None:
    sound = make_sound(48000, 0.3, cutoff=3500, level=0.2)[:, 0]
    stream = begin(48000, cutoff=4000.0, ceiling=23500.0)
    out = _play(stream, sound, 48000, {15: changes})
    late = stream.late()
    added = out[late:] - sound[: len(out) - late]
    # The step after the change fades; it comes out a hop later from an Upsampler.
    begins = 15 * 480 - 120
    assert np.abs(added[begins - 480 : begins]).max() > 1e-3
    after = added[begins + 480 :]
    if is_silent:
        assert np.all(after == 0.0)
    else:
        assert np.abs(after[960:]).max() < 0.3 * np.abs(added[:begins]).max()


def test_a_measured_cutoff_begins_anew(begin: Callable[..., Any], make_sound: MakeSound) -> None:
    sound = make_sound(16000, 0.2, cutoff=3500, level=0.2)[:, 0]
    stream = begin(16000, cutoff=4000.0)
    _play(stream, sound, 16000, {})
    assert stream.stream.cutoff_hz == 4000.0
    stream.stream.cutoff = None
    stream.take(sound[:160])
    stream.take(sound[160:320])
    assert stream.stream.cutoff is None
    assert stream.stream.cutoff_hz == 8000.0


def test_the_ceiling_reaches_the_network(begin: Callable[..., Any], make_sound: MakeSound) -> None:
    """The stand-in is silent where nothing lies between cutoff and ceiling, also its state."""
    sound = make_sound(48000, 0.2, cutoff=3500, level=0.2)[:, 0]
    stream = begin(48000, cutoff=4000.0, ceiling=3000.0)
    out = _play(stream, sound, 48000, {10: {"ceiling": 22000.0}})
    late = stream.late()
    added = out[late:] - sound[: len(out) - late]
    assert np.all(added[: 10 * 480 - 120] == 0.0)
    assert np.abs(added[11 * 480 :]).max() > 1e-3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cutoff", 100.0),
        ("cutoff", 30000.0),
        ("cutoff", "low"),
        ("cutoff", float("nan")),
        ("wet", -0.1),
        ("wet", 1.5),
        ("wet", float("nan")),
        ("wet", None),
        ("ceiling", 100.0),
        ("ceiling", float("inf")),
        ("ceiling", None),
        ("input_rate", 1234),
        ("input_rate", 96000),
        ("input_rate", 8000.5),
    ],
)
def test_what_is_out_of_range_changes_nothing(
    begin: Callable[..., Any], name: str, value: Any
) -> None:
    stream = begin(8000, cutoff=3500.0)
    before = getattr(stream.stream, name)
    with _refused("cutoff|wet|ceiling|rate"):
        setattr(stream.stream, name, value)
    assert getattr(stream.stream, name) == before
    assert len(stream.take(np.zeros(800, np.float32))) == 4800


@pytest.mark.parametrize("name", ["cuttoff", "input", "seeds", "threads", "gain"])
def test_an_attribute_that_does_not_exist_raises(begin: Callable[..., Any], name: str) -> None:
    stream = begin(8000)
    with pytest.raises(AttributeError):
        setattr(stream.stream, name, 1)


def test_controls_of_what_is_closed(begin: Callable[..., Any]) -> None:
    stream = begin(8000)
    stream.stream.close()
    for name, value in (
        ("wet", 0.5),
        ("cutoff", 3000.0),
        ("ceiling", 16000.0),
        ("input_rate", 16000),
    ):
        with _refused("closed"):
            setattr(stream.stream, name, value)


# --- input_rate ---


@pytest.mark.parametrize(("before", "after"), RATES)
def test_a_change_of_rate_does_not_click(
    begin: Callable[..., Any], before: int, after: int
) -> None:
    stream = begin(before, wet=0.0)
    parts = [stream.take(block) for block in np.array_split(_tone(before, 0.2), 20)]
    late = stream.late()
    stream.stream.input_rate = after
    assert stream.stream.input_rate == after
    parts += [stream.take(block) for block in np.array_split(_tone(after, 0.2, start=0.2), 20)]
    out = np.concatenate(parts)
    assert _splatter(out[late + 2000 : -500], 437.0) < 1e-2
    # The tone goes on at its level, too.
    steady = out[late + 2000 : -500]
    peaks = np.abs(steady[: len(steady) // 480 * 480].reshape(-1, 480)).max(axis=1)
    assert peaks.min() > 0.47
    assert peaks.max() < 0.53


@pytest.mark.parametrize(
    ("before", "after", "output_rate"),
    [
        (8000, 16000, 48000),
        (16000, 8000, 48000),
        (8000, 48000, 48000),
        (48000, 16000, 48000),
        (8000, 16000, 16000),
        (16000, 8000, 24000),
        (48000, 12000, 32000),
        (8000, 16000, 44100),
        (16000, 8000, 44100),
        (48000, 16000, 44100),
    ],
)
def test_a_click_after_a_change_of_rate_has_the_stated_delay(
    begin: Callable[..., Any], before: int, after: int, output_rate: int
) -> None:
    stream = begin(before, wet=0.0, output_rate=output_rate)
    parts = [stream.take(np.zeros(before // 100, np.float32)) for _ in range(10)]
    stream.stream.input_rate = after
    click = np.zeros(after // 10, np.float32)
    click[after // 20] = 0.8
    parts += [stream.take(block) for block in np.array_split(click, 10)]
    late = stream.late()
    rest = stream.rest()
    out = np.concatenate([*parts, rest])
    peak = int(np.argmax(np.abs(out)))
    assert abs(peak - late - round(0.15 * output_rate)) <= 1
    assert len(out) == late + round(0.2 * output_rate)


def test_a_change_of_rate_bounds_the_measured_cutoff(
    begin: Callable[..., Any], make_sound: MakeSound
) -> None:
    stream = begin(8000)
    stream.take(make_sound(8000, 0.1)[:, 0])
    assert stream.stream.cutoff_hz == 4000.0
    stream.stream.input_rate = 16000
    stream.take(make_sound(16000, 0.1)[:, 0])
    assert stream.stream.cutoff_hz == 8000.0
    stream.stream.input_rate = 8000
    stream.take(make_sound(8000, 0.1)[:, 0])
    assert stream.stream.cutoff_hz == 4000.0


def test_the_same_rate_again_changes_nothing(begin: Callable[..., Any]) -> None:
    outs = []
    for again in (False, True):
        stream = begin(8000, cutoff=3500.0)
        parts = []
        for index, block in enumerate(np.array_split(_tone(8000, 0.2), 20)):
            if again and index == 7:
                stream.stream.input_rate = 8000
            parts.append(stream.take(block))
        outs.append(np.concatenate(parts))
    assert np.array_equal(*outs)


@pytest.mark.parametrize("broken", [np.nan, np.inf, 1e12])
def test_broken_samples_right_after_a_change_of_rate(
    begin: Callable[..., Any], broken: float
) -> None:
    stream = begin(8000, wet=0.0)
    stream.take(_tone(8000, 0.1))
    stream.stream.input_rate = 16000
    block = _tone(16000, 0.05)
    block[3] = broken
    out = stream.take(block)
    assert np.isfinite(out).all()
    assert np.abs(out).max() < 1.0
    assert stream.stream.statistics.repaired_samples == 1


def test_integers_right_after_a_change_of_rate(begin: Callable[..., Any]) -> None:
    stream = begin(8000, wet=0.0)
    sound = [(_tone(8000, 0.1) * 32768).astype(np.int16)]
    sound.append((_tone(16000, 0.1, start=0.1) * 32768).astype(np.int16))
    parts = [stream.take(sound[0])]
    stream.stream.input_rate = 16000
    parts.append(stream.take(sound[1]))
    out = np.concatenate(parts)
    assert out.dtype == np.int16
    assert _splatter(out[stream.late() + 1000 :] / 32768.0, 437.0) < 2e-3


def test_a_block_of_the_old_rate_is_named(stand_in: Path) -> None:
    with BatchUpsampler(1, model=stand_in) as batch:
        stream = batch.open(8000)
        stream.input_rate = 16000
        with pytest.raises(AudioFormatError, match="16000 Hz, not 8000 Hz"):
            stream.push(np.zeros(80, np.float32), input_rate=8000)
        stream.push(np.zeros(160, np.float32), input_rate=16000)


# --- the limiter ---


def test_full_scale_speech_stays_within_full_scale(
    begin: Callable[..., Any], make_sound: MakeSound
) -> None:
    sound = make_sound(8000, 0.5)[:, 0]
    sound = np.clip(3.0 * sound / np.abs(sound).max(), -1, 1).astype(np.float32)
    outs = {}
    for limiter in (True, False):
        stream = begin(8000, limiter=limiter, cutoff=3500.0)
        outs[limiter] = np.concatenate([stream.take(sound), stream.rest()])
        counted = stream.stream.statistics.limited_samples
        assert (counted > 0) == limiter
    assert np.abs(outs[False]).max() > 1.1
    assert np.abs(outs[True]).max() <= 1.0
    quiet = np.abs(outs[False]) < 0.2
    assert np.array_equal(np.sign(outs[True][quiet]), np.sign(outs[False][quiet]))


def test_a_stream_that_is_not_changed_passes_the_limiter(begin: Callable[..., Any]) -> None:
    """Between -1 dBFS and full scale: only what gets a high band needs the room."""
    sound = _tone(48000, 0.1) * 2.0
    stream = begin(48000, wet=0.0)
    out = np.concatenate([stream.take(sound), stream.rest()])
    late = stream.late()
    assert np.array_equal(out[late:], sound)
    assert stream.stream.statistics.limited_samples == 0


def test_limited_samples_are_counted_over_a_flush(stand_in: Path) -> None:
    """Statistics go on after a flush, as steps and repairs do."""
    upsampler = Upsampler(8000, model=stand_in, cutoff=3500.0)
    for _ in range(2):
        upsampler.process(np.clip(4 * _tone(8000, 0.1), -1, 1).astype(np.float32))
        upsampler.flush()
        first = upsampler.statistics.limited_samples
        assert first > 0
    before = upsampler.statistics.limited_samples
    upsampler.process(np.zeros(800, np.float32))
    assert upsampler.statistics.limited_samples >= before
