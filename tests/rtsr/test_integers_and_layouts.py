"""int16 and float32, samples first and channels first, at every output rate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtsr import AudioFormatError, BatchUpsampler, RtsrError, Upsampler

MakeSound = Callable[..., np.ndarray]


def _run(kind: str, model: Path, rate: int, blocks: list[np.ndarray], **settings: Any) -> Any:
    """Everything that comes out of a stream of either class, in one array, and its statistics."""
    axis = 1 if settings.get("channels_first") else 0
    if kind == "upsampler":
        upsampler = Upsampler(rate, model=model, **settings)
        parts = [upsampler.process(block) for block in blocks]
        return np.concatenate([*parts, upsampler.flush()], axis=axis), upsampler.statistics
    with BatchUpsampler(3, model=model, overload="wait", buffer_ms=2000) as batch:
        stream = batch.open(rate, **settings)
        parts = []
        for block in blocks:
            stream.push(block)
            while batch.step():
                pass
            parts.append(stream.pull())
        stream.finish()
        while batch.step():
            pass
        return np.concatenate([*parts, stream.pull()], axis=axis), stream.statistics


KINDS = pytest.mark.parametrize("kind", ["upsampler", "batch"])


@KINDS
@pytest.mark.parametrize("one", [True, np.int64(1)], ids=["bool", "int64"])
def test_integers_of_any_kind_are_taken(kind: str, one: Any, stand_in: Path) -> None:
    settings: dict[str, Any] = {"hops_per_step": one, "threads": one}
    if kind == "upsampler":
        with Upsampler(8000, model=stand_in, **settings) as upsampler:
            assert upsampler.latency.hop == 480
    else:
        with BatchUpsampler(one, model=stand_in, **settings) as batch:
            assert (batch.capacity, batch.step_samples) == (1, 480)


@KINDS
def test_a_block_that_is_refused_changes_nothing(kind: str, stand_in: Path) -> None:
    whole = np.zeros(800, np.int16)
    wrong = np.zeros((80, 2), np.float32)
    if kind == "upsampler":
        with Upsampler(8000, model=stand_in) as upsampler:
            upsampler.process(whole)
            with pytest.raises(AudioFormatError):
                upsampler.process(wrong)
            rest = upsampler.flush()
    else:
        with BatchUpsampler(1, model=stand_in) as batch:
            stream = batch.open(8000)
            stream.push(whole)
            with pytest.raises(AudioFormatError):
                stream.push(wrong)
            while batch.step():
                pass
            rest = stream.pull()
    assert rest.dtype == np.int16
    assert rest.ndim == 1


@KINDS
def test_a_block_of_another_kind_that_has_no_place_changes_nothing(
    kind: str, stand_in: Path
) -> None:
    whole = np.zeros((800, 1), np.float32)
    if kind == "upsampler":
        with Upsampler(8000, model=stand_in, blocks_are_hops=True) as upsampler:
            upsampler.process(whole)
            with pytest.raises(AudioFormatError, match="no whole number"):
                upsampler.process(np.zeros(7, np.int16))
            rest = upsampler.flush()
    else:
        with BatchUpsampler(1, model=stand_in) as batch:
            stream = batch.open(8000)
            stream.push(whole)
            with pytest.raises(RtsrError, match="has no room"):
                stream.push(np.zeros(80000, np.int16))
            while batch.step():
                pass
            rest = stream.pull()
    assert rest.dtype == np.float32
    assert rest.ndim == 2


@KINDS
@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("output_rate", [48000, 44100, 16000])
def test_integers_are_the_rounded_floats(
    kind: str, channels_first: bool, output_rate: int, stand_in: Path, make_sound: MakeSound
) -> None:
    whole = (32768 * make_sound(8000, 0.2, channels=2, level=0.2)).astype(np.int16)
    settings: dict[str, Any] = {"channels": 2, "cutoff": 3500.0, "output_rate": output_rate}
    blocks = np.split(whole, 10)
    floats, _ = _run(
        kind, stand_in, 8000, [b.astype(np.float32) / 32768 for b in blocks], **settings
    )
    if channels_first:
        blocks = [np.ascontiguousarray(block.T) for block in blocks]
    got, statistics = _run(kind, stand_in, 8000, blocks, channels_first=channels_first, **settings)
    assert got.dtype == np.int16
    assert floats.dtype == np.float32
    expected = np.clip(np.rint(floats * 32768.0), -32768, 32767)
    assert np.array_equal(got.T if channels_first else got, expected)
    assert statistics.clipped_samples == 0


@KINDS
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_channels_first_is_the_same_turned(
    kind: str, channels: int, stand_in: Path, make_sound: MakeSound
) -> None:
    sound = make_sound(16000, 0.2, cutoff=3500, channels=channels)
    settings: dict[str, Any] = {"channels": channels, "cutoff": 3500.0}
    blocks = np.split(sound, 5)
    expected, _ = _run(kind, stand_in, 16000, blocks, **settings)
    planar = [block.T for block in blocks]
    got, _ = _run(kind, stand_in, 16000, planar, channels_first=True, **settings)
    assert got.shape == expected.T.shape
    assert np.array_equal(got.T, expected)


@KINDS
def test_full_scale_integers_are_held_and_counted(kind: str, stand_in: Path) -> None:
    """Without the limiter; -32768 is a 16-bit number, 32768 is none."""
    square = np.where(np.arange(1600) // 40 % 2, -32768, 32767).astype(np.int16)
    got, statistics = _run(kind, stand_in, 8000, [square], limiter=False, wet=0.0)
    # The resampler's ringing is beyond full scale.
    assert got.max() == 32767
    assert got.min() == -32768
    assert statistics.clipped_samples > 10
    limited, counted = _run(kind, stand_in, 8000, [square], wet=0.0)
    assert counted.limited_samples > 10
    assert np.abs(limited.astype(float)).max() <= 32768


@KINDS
def test_integers_at_48_khz_pass_bit_for_bit(kind: str, stand_in: Path) -> None:
    whole = np.random.default_rng(0).integers(-32768, 32768, 4800).astype(np.int16)
    whole[:4] = [-32768, 32767, 0, -1]
    got, statistics = _run(kind, stand_in, 48000, [whole], wet=0.0)
    late = len(got) - len(whole)
    assert np.array_equal(got[late:], whole)
    assert statistics.limited_samples == statistics.clipped_samples == 0


@KINDS
@pytest.mark.parametrize("view", ["strided", "reversed", "fortran", "read-only", "big block"])
def test_memory_of_any_kind(kind: str, view: str, stand_in: Path, make_sound: MakeSound) -> None:
    sound = make_sound(8000, 0.2, channels=2)
    wide = np.repeat(sound, 2, axis=0)
    views = {
        "strided": wide[::2],
        "reversed": np.ascontiguousarray(sound[::-1])[::-1],
        "fortran": np.asfortranarray(sound),
        "read-only": np.frombuffer(sound.tobytes(), np.float32).reshape(-1, 2),
        "big block": sound,
    }
    pieces = [views[view]] if view == "big block" else np.array_split(views[view], 7)
    expected, _ = _run(kind, stand_in, 8000, np.split(sound, 20), channels=2, cutoff=3500.0)
    got, _ = _run(kind, stand_in, 8000, pieces, channels=2, cutoff=3500.0)
    assert np.array_equal(got, expected)


def test_no_copy_where_the_kind_fits(stand_in: Path) -> None:
    upsampler = Upsampler(8000, model=stand_in, channels=2)
    planar = Upsampler(8000, model=stand_in, channels=2, channels_first=True)
    for dtype in (np.float32, np.int16):
        block = np.zeros((80, 2), dtype)
        assert np.shares_memory(upsampler._port.frames(block), block)
        block = np.zeros((2, 80), dtype)
        assert np.shares_memory(planar._port.frames(block), block)
    mono = Upsampler(8000, model=stand_in)
    flat = np.zeros(80, np.int16)
    assert np.shares_memory(mono._port.frames(flat), flat)


def test_pulling_into_memory_of_either_kind(stand_in: Path) -> None:
    with BatchUpsampler(2, model=stand_in) as batch:
        stream = batch.open(48000, channels=2, wet=0.0)
        sound = np.random.default_rng(0).uniform(-1, 1, (960, 2)).astype(np.float32)
        stream.push(sound)
        batch.step()
        batch.step()
        planar = np.full((2, 400), 7.0, np.float32)
        assert stream.pull_into(planar.T) == 400
        whole = np.full((500, 2), 7, np.int16)
        assert stream.pull_into(whole) == 500
        rest = np.full((500, 2), 7.0, np.float32)
        assert stream.pull_into(rest) == 60
        assert np.all(rest[60:] == 7.0)
    late = np.concatenate([np.zeros((120, 2), np.float32), sound])
    assert np.array_equal(planar.T, late[:400])
    assert np.array_equal(whole, np.clip(np.rint(late[400:900] * 32768), -32768, 32767))
    assert np.array_equal(rest[:60], late[900:960])


@KINDS
@pytest.mark.parametrize("output_rate", [48000, 44100, 32000, 24000, 16000])
def test_output_rates_are_aligned_and_as_long_as_due(
    kind: str, output_rate: int, stand_in: Path
) -> None:
    tone = (0.4 * np.sin(2 * np.pi * 440 * np.arange(4000) / 8000)).astype(np.float32)
    got, _ = _run(kind, stand_in, 8000, [tone[:1234], tone[1234:]], output_rate=output_rate, wet=0)
    late = len(got) - round(len(tone) * output_rate / 8000)
    time = np.arange(len(got) - late) / output_rate
    expected = 0.4 * np.sin(2 * np.pi * 440 * time)
    middle = slice(output_rate // 20, -output_rate // 20)
    assert np.abs(got[late:][middle] - expected[middle]).max() < 5e-3


@KINDS
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_the_order_of_bytes_makes_no_difference(
    kind: str, dtype: Any, stand_in: Path, make_sound: MakeSound
) -> None:
    sound = make_sound(8000, 0.1)[:, 0] * (10_000 if dtype is np.int16 else 1)
    native = sound.astype(dtype)
    blocks = [native[:300], native[300:]]
    # As RTP carries them in L16 (RFC 3551, 4.5.11).
    swapped = [block.astype(block.dtype.newbyteorder()) for block in blocks]
    expected, _ = _run(kind, stand_in, 8000, blocks)
    got, _ = _run(kind, stand_in, 8000, swapped)
    assert got.dtype == np.dtype(dtype)
    assert np.array_equal(got, expected)


@KINDS
@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.uint16, np.complex64, np.bool_, object])
def test_other_kinds_of_number_are_refused(kind: str, dtype: Any, stand_in: Path) -> None:
    with pytest.raises(AudioFormatError, match=r"floating-point samples in .* or 16-bit integers"):
        _run(kind, stand_in, 8000, [np.zeros(80, dtype)])


def test_wrong_shapes_name_the_layout(stand_in: Path) -> None:
    for first, wrong, named in (
        (False, (2, 80), r"\(samples, 2\)"),
        (True, (80, 2), r"\(2, samples\)"),
    ):
        upsampler = Upsampler(8000, model=stand_in, channels=2, channels_first=first)
        with pytest.raises(AudioFormatError, match=f"this Upsampler takes {named}"):
            upsampler.process(np.zeros(wrong, np.float32))
        with pytest.raises(AudioFormatError, match=named):
            upsampler.process(np.zeros(80, np.float32))
