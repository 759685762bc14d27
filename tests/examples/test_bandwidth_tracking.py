"""Measuring the bandwidth detector: known answers, honest streams, and the program."""

from __future__ import annotations

import json
import math
import shutil
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import soundfile
from example_run import load_example, run_example

pytest.importorskip("soxr")

from rtsr.quality.align import find_lag
from rtsr_bench.corpus import Clip, list_clips

# In this order: the second imports the first.
streams = load_example("bandwidth_streams")
tracking = load_example("bandwidth_tracking")

RATE = 48000
DEMO = Path(str(resources.files("rtsr").joinpath("demo_data")))
WIDE, NARROW = streams.DEGRADATIONS["soxr 16k"], streams.DEGRADATIONS["soxr 8k"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    lines = ["path,split,domain,measured_cutoff_hz"]
    for domain in ("speech", "music"):
        shutil.copy(DEMO / f"{domain}_reference.flac", folder / f"{domain}.flac")
        lines.append(f"{domain}.flac,valid,{domain},22000")
    shutil.copy(DEMO / "speech_8k.wav", folder / "narrow.wav")
    lines.append("narrow.wav,valid,speech,3800")
    soundfile.write(folder / "silent.wav", np.zeros(RATE), RATE)
    (folder / "damaged.wav").write_bytes(b"RIFFjunk")
    lines += [f"{name}.wav,valid,speech,20000" for name in ("silent", "damaged")]
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def speech(corpus: Path) -> list[Clip]:
    return streams.full_band_clips(list_clips(corpus), "speech")[0]


def test_only_full_band_recordings_are_streamed(corpus: Path, speech: list[Clip]) -> None:
    assert [clip.name for clip in speech] == ["speech/speech"]
    music, left_out = streams.full_band_clips(list_clips(corpus), "music")
    assert ([clip.name for clip in music], left_out) == (["music/music"], [])
    _, left_out = streams.full_band_clips(list_clips(corpus), "speech")
    assert len(left_out) == 2
    assert "damaged.wav" in left_out[0]
    assert left_out[1] == "The recording speech/silent is silent."


def power_db(sound: np.ndarray, low_hz: float, high_hz: float) -> float:
    spectrum = np.fft.rfft(sound)
    frequency = np.fft.rfftfreq(sound.size, 1.0 / RATE)
    inside = (frequency >= low_hz) & (frequency < high_hz)
    return float(10 * np.log10(np.sum(np.abs(spectrum[inside]) ** 2) + 1e-12))


@pytest.mark.parametrize("key", streams.DEGRADATIONS)
def test_what_is_delivered_ends_where_it_says(key: str, speech: list[Clip]) -> None:
    if "opus" in key or "mp3" in key or "g711" in key or "swresample" in key:
        pytest.importorskip("av")
    sound = streams.one_voice(speech[0], 6.0, 1)
    degradation = streams.DEGRADATIONS[key]
    degraded = degradation.degrade(sound)
    assert degraded.shape == sound.shape
    assert (np.rint(degraded * 32768.0) == degraded * 32768.0).all()
    assert find_lag(sound, degraded, 0.8 * min(degradation.cutoff_hz, 8000.0)) == 0
    if degradation.cutoff_hz == streams.FULL_BAND_HZ:
        assert abs(power_db(degraded, 12e3, 16e3) - power_db(sound, 12e3, 16e3)) < 6.0
        return
    below = 0.6 * degradation.cutoff_hz, 0.9 * degradation.cutoff_hz
    assert abs(power_db(degraded, *below) - power_db(sound, *below)) < 6.0
    # Images of simple resamplers reach 1.2 times as far.
    above = 1.3 * degradation.cutoff_hz, 20e3
    assert power_db(degraded, *above) < power_db(sound, *above) - 15.0


def test_every_stream_can_be_made() -> None:
    assert {key for pair in streams.SWITCHES for key in pair} | set(streams.STEADY) == set(
        streams.DEGRADATIONS
    )
    assert all(
        streams.DEGRADATIONS[wide].cutoff_hz > streams.DEGRADATIONS[narrow].cutoff_hz
        for wide, narrow in streams.SWITCHES
    )


def test_right_is_what_lies_near_and_full_band_only_itself() -> None:
    answers = np.array([24000.0, 23000.0, 8000.0, 7000.0, 6800.0, 3900.0])
    assert WIDE.is_right(answers).tolist() == [False, False, True, True, False, False]
    assert streams.DEGRADATIONS["full"].is_right(answers).tolist() == [True] + 5 * [False]


def test_known_answers_are_judged_as_they_are() -> None:
    answers = np.repeat([7800.0, 3900.0, 7800.0, 3900.0, 5850.0, 3900.0], [150, 20, 80, 50, 10, 90])
    # From 7800 to 3900 and back before the change at 200, noticed at 250, left once after that.
    assert tracking.score_switch(answers, 200, WIDE, NARROW) == (0.51, 2)
    assert tracking.score_switch(answers[:250], 200, WIDE, NARROW) == (math.inf, 1)
    assert tracking.moves_away(np.array([True, False, False, True, True, False])) == 2


def test_a_voice_goes_on_with_pauses_and_the_same_each_time(speech: list[Clip]) -> None:
    sound = streams.one_voice(speech[0], 20.0, 3)
    assert sound.size == 20 * RATE
    assert np.abs(sound).max() <= 0.9
    assert (streams.one_voice(speech[0], 20.0, 3) == sound).all()
    assert not (streams.one_voice(speech[0], 20.0, 4) == sound).all()
    hops = np.mean(sound.reshape(-1, 480) ** 2, axis=1)
    assert 0.02 < np.mean(hops < np.quantile(hops, 0.98) * 1e-3) < 0.7


def test_a_programme_has_quiet_stretches(speech: list[Clip]) -> None:
    sound = streams.programme(speech, 60.0, 1)
    assert sound.size == 60 * RATE
    seconds = [np.quantile(np.abs(part), 0.98) for part in np.split(sound, 60)]
    assert (
        20 * np.log10(np.quantile(seconds, 0.1) / np.quantile(seconds, 0.9))
        < 0.8 * streams.QUIET_DB
    )


def test_levels_and_fades_and_rooms_are_what_they_say(speech: list[Clip]) -> None:
    power = np.mean(streams.read_clip(speech[0])[: 480 * 300].reshape(-1, 480) ** 2, axis=1)
    loud = power[power >= np.median(power)].mean()
    assert 10 * np.log10(2 * loud) == pytest.approx(streams.LEVEL_DB, abs=3.0)
    shape = streams.faded(np.ones(10 * RATE))
    assert shape[0] == shape[-1] == 0.0
    assert (shape[2 * RATE : 8 * RATE] == 1.0).all()
    noise = streams.room_noise(RATE, -70.0, np.random.default_rng(0))
    assert 20 * np.log10(noise.std()) == pytest.approx(-70.0)
    assert power_db(noise, 500, 1000) == pytest.approx(power_db(noise, 5000, 10000), abs=1.0)


def test_a_recording_is_followed_both_ways(speech: list[Clip]) -> None:
    results = tracking.track_switches(speech, "speech", [("soxr 16k", "soxr 8k")])
    assert [(one.before, one.after) for one in results] == [
        ("soxr 16k", "soxr 8k"),
        ("soxr 8k", "soxr 16k"),
    ]
    assert all(one.seconds is not None and 0.3 < one.seconds < 2.0 for one in results)
    assert all(one.false_moves == 0 for one in results)


def test_an_unchanging_programme_is_left_alone(speech: list[Clip]) -> None:
    shown = []
    results = tracking.track_unchanged(
        speech, "speech", 0.7, ("full", "soxr 8k"), lambda *what: shown.append(what)
    )
    assert [one.degradation for one in results] == ["full", "soxr 8k"]
    assert sum(one.minutes for one in results) == pytest.approx(0.7)
    assert all(one.false_moves == 0 and one.wrong_seconds == 0.0 for one in results)
    assert shown == [("unchanging speech", 0, 2), ("unchanging speech", 1, 2)]


def test_a_detector_that_knows_better_is_told_so(speech: list[Clip]) -> None:
    narrow = NARROW.degrade(streams.one_voice(speech[0], 6.0, 0))
    answers = tracking.answers_to(narrow, streams.FULL_BAND_HZ)
    assert answers[0] == streams.FULL_BAND_HZ
    assert NARROW.is_right(answers)[-1]
    assert not tracking.moves_away(NARROW.is_right(answers))


def test_tables_show_quantiles_and_sums() -> None:
    seconds = [0.5, 0.6, 0.7, None]
    switched = [
        tracking.Switched("speech", str(i), "soxr 16k", "soxr 8k", s, i)
        for i, s in enumerate(seconds)
    ]
    row, every = tracking.switch_table(switched).splitlines()[2:]
    assert row == "| speech | soxr 16k | soxr 8k | 4 | 0.70 | never | never | 1 | 6 |"
    assert every == "| speech | any | narrower | 4 | 0.70 | never | never | 1 | 6 |"
    unchanged = [
        tracking.Unchanged("music", "full", 3.0, 1, 0.25),
        tracking.Unchanged("music", "full", 3.0, 2, 1.0),
    ]
    row, every = tracking.unchanged_table(unchanged).splitlines()[2:]
    assert row == "| music | full | 6 | 3 | 1.2 |"
    assert every == "| music | any | 6 | 3 | 1.2 |"
    quarter = [tracking.Unchanged("music", "full", 0.25, 0, 0.0)] * 2
    assert tracking.unchanged_table(quarter).splitlines()[2] == "| music | full | 0.5 | 0 | 0.0 |"


@pytest.mark.slow
def test_the_program_prints_and_writes_all_of_it(corpus: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    target = tmp_path / "tracking.json"
    result = run_example("bandwidth_tracking.py", corpus, "--minutes", "0.5", "--json", target)
    assert result.returncode == 0, result.stderr
    values = json.loads(target.read_text())
    assert len(values["switched"]) == 2 * 2 * len(streams.SWITCHES)
    assert {one["domain"] for one in values["unchanged"]} == {"speech", "music"}
    assert "| speech | any | narrower |" in result.stdout
    assert "| music | any |" in result.stdout


def test_wrong_use_ends_in_one_sentence(tmp_path: Path) -> None:
    shutil.copy(DEMO / "speech_8k.wav", tmp_path / "narrow.wav")
    (tmp_path / "manifest.csv").write_text(
        "path,split,domain,measured_cutoff_hz\nnarrow.wav,valid,speech,3800\n"
    )
    silent = tmp_path / "silent"
    silent.mkdir()
    soundfile.write(silent / "a.wav", np.zeros(RATE), RATE)
    (silent / "manifest.csv").write_text(
        "path,split,domain,measured_cutoff_hz\na.wav,valid,speech,20000\n"
    )
    said = run_example("bandwidth_tracking.py", silent).stderr
    assert "1 of the recordings are left out: The recording speech/a is silent." in said
    assert "reaches 18 kHz" in said
    for arguments, sentence in (
        ((tmp_path / "absent",), "is not a folder"),
        ((tmp_path,), "reaches 18 kHz"),
        ((tmp_path, "--json", tmp_path / "absent" / "x.json"), "no folder"),
    ):
        done = run_example("bandwidth_tracking.py", *arguments)
        assert done.returncode == 2
        assert sentence in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--minutes", "inf"], "--minutes must lie between 0.5 and 1440, not at inf"),
        (["--minutes", "nan"], "--minutes must lie between 0.5 and 1440"),
        (["--every", "0"], "--every must be at least 1, not 0"),
    ],
)
def test_numbers_out_of_range_are_refused(
    tmp_path: Path, options: list[str], sentence: str
) -> None:
    done = run_example("bandwidth_tracking.py", tmp_path, *options)
    assert done.returncode == 2
    assert sentence in done.stderr
