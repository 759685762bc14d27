"""The level without a network: as a source of high bands, as a model, as a file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtsr import ModelError, ProviderError, Upsampler, enhance_file
from rtsr.engine.replicate import ReplicateSource
from rtsr.engine.statistics import Statistics
from rtsr.engine.stream_engine import Engine
from rtsr.runtime import replicate_file
from rtsr.runtime.models import bundled, find_model, names
from rtsr.runtime.session import OnnxStep
from rtsr.timing import HOP

MakeSound = Callable[..., np.ndarray]
CUTOFF = 4000.0


def high_band(
    source: ReplicateSource, sound: np.ndarray, cutoff: float = CUTOFF, ceiling: float = 20000.0
) -> np.ndarray:
    """All steps of ``(samples, channels)``, one after another."""
    size = HOP * source.hops
    cutoffs = np.full(source.hops, cutoff, np.float32)
    steps = [
        source.generate(np.ascontiguousarray(sound[start : start + size]), cutoffs, ceiling).copy()
        for start in range(0, len(sound) - size + 1, size)
    ]
    return np.concatenate(steps)


@pytest.fixture
def sound(make_sound: MakeSound) -> np.ndarray:
    return make_sound(48000, 1.2, cutoff=CUTOFF, channels=2)


@pytest.mark.parametrize("hops", [2, 4])
def test_larger_steps_give_the_same_bits(hops: int, sound: np.ndarray) -> None:
    one, more = ReplicateSource(2, 3), ReplicateSource(2, 3, hops)
    np.testing.assert_array_equal(high_band(one, sound), high_band(more, sound))


def test_steps_do_not_see_ahead(sound: np.ndarray) -> None:
    changed = sound.copy()
    changed[60 * HOP :] *= -0.3
    one, other = (high_band(ReplicateSource(2, 0), audio) for audio in (sound, changed))
    np.testing.assert_array_equal(one[: 60 * HOP], other[: 60 * HOP])
    assert not np.array_equal(one[60 * HOP : 61 * HOP], other[60 * HOP : 61 * HOP])


def test_a_channel_is_what_it_is_alone(sound: np.ndarray) -> None:
    both = high_band(ReplicateSource(2, 1), sound)
    for channel in (0, 1):
        alone = high_band(ReplicateSource(1, 1), sound[:, channel : channel + 1])
        np.testing.assert_array_equal(both[:, channel : channel + 1], alone)


@pytest.mark.parametrize("gain", [2.0**-5, 2.0**3])
def test_output_scales_with_the_input(gain: float, sound: np.ndarray) -> None:
    plain = high_band(ReplicateSource(2, 0), sound)
    scaled = high_band(ReplicateSource(2, 0), sound * np.float32(gain)) / np.float32(gain)
    assert np.max(np.abs(scaled - plain)) < 1e-3 * np.std(plain)


def test_silence_is_exactly_silent(sound: np.ndarray) -> None:
    source = ReplicateSource(2, 0)
    assert not high_band(source, np.zeros((20 * HOP, 2), np.float32)).any()
    assert high_band(source, sound).any()
    assert not high_band(source, np.zeros((20 * HOP, 2), np.float32))[3 * HOP :].any()


@pytest.mark.parametrize("level", [1e-20, 1.0, 1e10])
def test_any_level_gives_numbers(level: float, sound: np.ndarray) -> None:
    for cutoff in (20.0, 700.0, 4000.0, 23900.0, 25000.0):
        result = high_band(ReplicateSource(2, 0), sound * np.float32(level), cutoff)
        assert np.isfinite(result).all()


def test_reset_equals_fresh_and_seed_and_frame_are_the_noise(sound: np.ndarray) -> None:
    source = ReplicateSource(2, 7)
    first = high_band(source, sound)
    assert source.frame == len(sound) // HOP
    source.reset()
    np.testing.assert_array_equal(high_band(source, sound), first)
    source.reset()
    source.seed = 8
    assert not np.array_equal(high_band(source, sound), first)
    source.reset()
    source.seed, source.frame = 7, 1
    assert not np.array_equal(high_band(source, sound), first)


def test_nothing_lies_above_the_ceiling(sound: np.ndarray) -> None:
    made = high_band(ReplicateSource(2, 0), sound, ceiling=10000.0)[:, 0]
    power = np.abs(np.fft.rfft(made * np.hanning(made.size))) ** 2
    frequency = np.fft.rfftfreq(made.size, 1 / 48000)
    inside = power[(frequency > 5000) & (frequency < 9000)].mean()
    assert power[frequency > 11000].mean() < 1e-4 * inside


def test_a_moving_cutoff_leaves_no_click(sound: np.ndarray) -> None:
    """A click is energy far above the ceiling, where only the windows leak."""

    def above(cutoffs: np.ndarray) -> float:
        source = ReplicateSource(2, 0)
        made = np.zeros(len(cutoffs) * HOP)
        for frame, cutoff in enumerate(cutoffs):
            part = slice(frame * HOP, (frame + 1) * HOP)
            made[part] = source.generate(sound[part], np.full(1, cutoff, np.float32), 16000.0)[:, 0]
        power = np.abs(np.fft.rfft(made * np.hanning(made.size))) ** 2
        frequency = np.fft.rfftfreq(made.size, 1 / 48000)
        return float(10 * np.log10(power[frequency > 18000].sum()))

    frames = len(sound) // HOP
    steady = max(above(np.full(frames, cutoff)) for cutoff in (1000.0, 2000.0, CUTOFF))
    jumping = above(np.where(np.arange(frames) % 10 < 5, CUTOFF, 1000.0))
    assert above(np.geomspace(1000.0, CUTOFF, frames)) < steady + 3.0
    assert jumping < steady + 3.0


def test_the_engine_takes_it(sound: np.ndarray) -> None:
    statistics = Statistics()
    engine = Engine(ReplicateSource(2, 0), 24000.0, 20000.0, 1.0, statistics, cutoff=CUTOFF)
    out = np.zeros((HOP, 2), np.float32)
    for start in range(0, 20 * HOP, HOP):
        engine.step(sound[start : start + HOP], out)
    assert statistics.degraded_blocks == 0


def test_it_is_found_by_name_and_is_no_network(sound: np.ndarray) -> None:
    assert names() == [*bundled(), "replicate"]
    found = find_model("replicate")
    facts = found.metadata
    assert not found.is_network
    assert (facts.latency_samples, facts.overlap) == (600, 120)
    assert facts.parameters > 10_000
    assert "no network" in facts.card["method"]
    upsampler = Upsampler(48000, model="replicate", channels=2)
    assert (upsampler.model.name, upsampler.provider) == ("replicate", "cpu")
    assert upsampler.latency.algorithmic_samples == 600
    assert Upsampler(48000, model=found).model == found
    with pytest.raises(ModelError, match="'replicate' is no network"):
        OnnxStep("replicate")


@pytest.mark.parametrize(
    ("provider", "message"), [("cuda", "runs on the CPU"), ("npu", "'npu' is unknown")]
)
def test_other_providers_are_refused(provider: str, message: str) -> None:
    with pytest.raises(ProviderError, match=message):
        Upsampler(8000, model="replicate", provider=provider)


@pytest.mark.slow
def test_it_runs_without_onnx_runtime() -> None:
    program = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "import numpy, rtsr\n"
        "out = rtsr.Upsampler(8000, model='replicate').process(numpy.zeros(800, 'f4'))\n"
        "assert out.shape == (4800,)\n"
        "assert not {'torch', 'onnx'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_a_file_is_enhanced(tmp_path: Path, make_sound: MakeSound) -> None:
    soundfile.write(tmp_path / "in.wav", make_sound(8000, 1.0), 8000)
    report = enhance_file(tmp_path / "in.wav", tmp_path / "out.wav", model="replicate")
    assert (report.model, report.provider, report.degraded_blocks) == ("replicate", "cpu", 0)
    out, rate = soundfile.read(tmp_path / "out.wav")
    power = np.abs(np.fft.rfft(out)) ** 2
    frequency = np.fft.rfftfreq(out.size, 1 / rate)
    above = power[(frequency > 4500) & (frequency < 8000)].mean()
    octave = power[(frequency > 2000) & (frequency < 3500)].mean()
    assert -30 < 10 * np.log10(above / octave) < 0


def test_weights_survive_the_file(tmp_path: Path) -> None:
    weights = replicate_file.read(replicate_file.bundled_path())
    path = tmp_path / "copy.npz"
    replicate_file.write(path, weights, {"note": "copy"})
    again = replicate_file.read(path)
    np.testing.assert_array_equal(again.regression, weights.regression)
    assert again.replica_share == weights.replica_share
    assert replicate_file.read_facts(path).card == {"note": "copy"}
    bundled_facts = find_model("replicate").metadata
    assert replicate_file.read_facts(path).weights_sha256 == bundled_facts.weights_sha256


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "replicate.npz"
    with pytest.raises(ModelError, match="missing or damaged"):
        replicate_file.read(path)
    good = replicate_file.bundled_path().read_bytes()
    for content in (b"", b"text", good[: len(good) // 2]):
        path.write_bytes(content)
        with pytest.raises(ModelError, match="missing or damaged"):
            replicate_file.read(path)
    # A flag, a method and a header, which zipfile and zlib each refuse in a way of their own.
    start = good.index(b"PK\x01\x02")
    data = 30 + int.from_bytes(good[26:28], "little") + int.from_bytes(good[28:30], "little")
    for place, value in ((start + 8, 1), (start + 10, 99), (data, 255)):
        path.write_bytes(good[:place] + bytes([value]) + good[place + 1 :])
        with pytest.raises(ModelError, match="missing or damaged"):
            replicate_file.read(path)
    with np.load(replicate_file.bundled_path()) as stored:
        np.savez(path, weights=stored["weights"][:-1], rtsr=stored["rtsr"])
    with pytest.raises(ModelError, match="another version"):
        replicate_file.read(path)
