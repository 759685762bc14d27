"""Whole files: length, alignment, formats, and nothing half-written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from rtsr import Colour, RtsrError, enhance_file
from rtsr.audio import writer as output_file
from rtsr.audio.reader import open_input
from rtsr_kernels.resample import SUPPORTED_RATES

MakeSound = Callable[..., np.ndarray]


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("out_rate", [48000, 44100])
@pytest.mark.parametrize("rate", SUPPORTED_RATES)
def test_output_has_exactly_the_right_length(
    rate: int, out_rate: int, tmp_path: Path, stand_in: Path
) -> None:
    source, target = tmp_path / "in.wav", tmp_path / "out.wav"
    for samples in (2, rate // 10, rate // 7 + 1):
        soundfile.write(source, np.full(samples, 0.1), rate)
        enhance_file(source, target, model=stand_in, output_rate=out_rate)
        assert soundfile.info(target).frames == round(samples * out_rate / rate)
        assert soundfile.info(target).samplerate == out_rate


def test_one_sample_is_enough(tmp_path: Path, model: str) -> None:
    soundfile.write(tmp_path / "in.wav", np.array([0.5]), 8000)
    report = enhance_file(tmp_path / "in.wav", tmp_path / "out.wav", model=model)
    assert soundfile.info(tmp_path / "out.wav").frames == 6
    assert report.seconds == 1 / 8000


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_dry_48_khz_file_is_written_back_bit_for_bit(
    subtype: str, tmp_path: Path, stand_in: Path, make_sound: MakeSound
) -> None:
    source, target = tmp_path / "in.wav", tmp_path / "out.wav"
    soundfile.write(source, make_sound(48000, 0.5, channels=2), 48000, subtype=subtype)
    enhance_file(source, target, model=stand_in, wet=0.0)
    assert soundfile.info(target).subtype == subtype
    assert np.array_equal(soundfile.read(source)[0], soundfile.read(target)[0])


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_output_is_aligned_with_the_input(
    rate: int, tmp_path: Path, stand_in: Path, make_sound: MakeSound
) -> None:
    source, target = tmp_path / "in.wav", tmp_path / "out.wav"
    wide = make_sound(48000, 1.0, cutoff=3000)[:, 0]
    spectrum = np.fft.rfft(wide)[: rate // 2 + 1]
    soundfile.write(source, np.fft.irfft(spectrum, rate) * rate / 48000, rate, subtype="FLOAT")
    enhance_file(source, target, model=stand_in, wet=0.0)
    out = soundfile.read(target)[0]
    middle = slice(4800, -4800)
    assert np.max(np.abs(out[middle] - wide[middle])) < 0.02 * np.max(np.abs(wide))


def test_band_limited_48_khz_file_is_enhanced_from_its_first_samples(
    tmp_path: Path, stand_in: Path, make_sound: MakeSound
) -> None:
    source, target = tmp_path / "in.wav", tmp_path / "out.wav"
    sound = make_sound(48000, 4.0, cutoff=4000)
    soundfile.write(source, sound, 48000)
    report = enhance_file(source, target, model=stand_in)
    assert 3400 < report.cutoff_hz < 4600
    out = soundfile.read(target)[0]
    early = np.abs(np.fft.rfft((out - sound[:, 0])[2400:12000]))
    assert early[1200:].max() > 1e-3


def test_enhanced_file_equals_the_stream(
    tmp_path: Path, stand_in: Path, make_sound: MakeSound
) -> None:
    from rtsr import Upsampler

    sound = make_sound(8000, 1.0, channels=3)
    soundfile.write(tmp_path / "in.wav", sound, 8000, subtype="FLOAT")
    enhance_file(tmp_path / "in.wav", tmp_path / "out.wav", model=stand_in, cutoff=4000)
    upsampler = Upsampler(8000, model=stand_in, cutoff=4000, channels=3, hops_per_step=16)
    stream = np.concatenate([upsampler.process(sound), upsampler.flush()])
    stream = stream[upsampler.latency.algorithmic_samples :]
    assert np.array_equal(soundfile.read(tmp_path / "out.wav", dtype="float32")[0], stream)


@pytest.mark.parametrize("channels", range(1, 9))
def test_up_to_eight_channels(
    channels: int, tmp_path: Path, stand_in: Path, make_sound: MakeSound
) -> None:
    soundfile.write(tmp_path / "in.wav", make_sound(8000, 0.1, channels=channels), 8000)
    report = enhance_file(tmp_path / "in.wav", tmp_path / "out.flac", model=stand_in)
    assert soundfile.info(tmp_path / "out.flac").channels == channels == report.channels


@pytest.mark.parametrize(
    ("extension", "expected_format", "expected_subtype"),
    [
        ("wav", "WAV", "PCM_16"),
        ("WAV", "WAV", "PCM_16"),
        ("flac", "FLAC", "PCM_16"),
        ("ogg", "OGG", "VORBIS"),
        ("opus", "OGG", "OPUS"),
        ("mp3", "MP3", "MPEG_LAYER_III"),
        ("aiff", "AIFF", "PCM_16"),
        ("aif", "AIFF", "PCM_16"),
        ("caf", "CAF", "PCM_16"),
        ("au", "AU", "PCM_16"),
        ("w64", "W64", "PCM_16"),
        ("rf64", "RF64", "PCM_16"),
    ],
)
def test_extension_names_the_format(
    extension: str, expected_format: str, expected_subtype: str, tmp_path: Path, stand_in: Path
) -> None:
    if expected_format not in soundfile.available_formats():
        pytest.skip(f"this libsndfile does not write {expected_format}")
    source, target = tmp_path / "in.wav", tmp_path / f"out.{extension}"
    time = np.arange(4000) / 8000
    soundfile.write(source, 0.3 * np.sin(2 * np.pi * 440 * time), 8000)
    enhance_file(source, target, model=stand_in)
    info = soundfile.info(target)
    assert (info.format, info.subtype) == (expected_format, expected_subtype)
    again = tmp_path / "again.wav"
    enhance_file(target, again, model=stand_in)
    assert abs(soundfile.info(again).frames - 24000) <= 2400


@pytest.mark.parametrize(("name", "subtype"), [("out.sd2", None), ("out.aiff", "DWVW_16")])
def test_what_could_not_be_read_again_is_not_written(
    name: str, subtype: str | None, tmp_path: Path, stand_in: Path
) -> None:
    soundfile.write(tmp_path / "in.wav", np.full(800, 0.1), 8000)
    with pytest.raises(RtsrError, match="use one of"):
        enhance_file(tmp_path / "in.wav", tmp_path / name, model=stand_in, subtype=subtype)
    assert _names(tmp_path) == {"in.wav"}


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("PCM_16", "wav", "PCM_16"),
        ("PCM_24", "wav", "PCM_24"),
        ("PCM_32", "wav", "PCM_32"),
        ("FLOAT", "wav", "FLOAT"),
        ("DOUBLE", "wav", "DOUBLE"),
        ("PCM_U8", "wav", "PCM_16"),
        ("ULAW", "wav", "PCM_16"),
        ("GSM610", "wav", "PCM_16"),
        ("FLOAT", "flac", "PCM_24"),
        ("PCM_32", "flac", "PCM_24"),
    ],
)
def test_sample_format_follows_the_input(
    source: str, target: str, expected: str, tmp_path: Path, stand_in: Path
) -> None:
    soundfile.write(tmp_path / "in.wav", np.full(800, 0.1), 8000, subtype=source)
    enhance_file(tmp_path / "in.wav", tmp_path / f"out.{target}", model=stand_in)
    assert soundfile.info(tmp_path / f"out.{target}").subtype == expected


def test_subtype_can_be_chosen(tmp_path: Path, stand_in: Path) -> None:
    soundfile.write(tmp_path / "in.wav", np.full(800, 0.1), 8000)
    enhance_file(tmp_path / "in.wav", tmp_path / "out.wav", model=stand_in, subtype="pcm_24")
    assert soundfile.info(tmp_path / "out.wav").subtype == "PCM_24"
    with pytest.raises(RtsrError, match="use one of"):
        enhance_file(tmp_path / "in.wav", tmp_path / "out.flac", model=stand_in, subtype="FLOAT")


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("input", "a" * 300 + ".wav", "cannot be read: "),
        ("output", "a" * 300 + ".wav", "cannot be opened: "),
        ("subtype", 16, "Sample format 16 does not exist in WAV files; use one of PCM_16"),
        ("block_ms", [10], "The block length must be a number, not [10]."),
        ("block_ms", "10", "The block length must be a number, not '10'."),
    ],
    ids=["long input", "long output", "subtype", "list", "text"],
)
def test_what_cannot_be_used_is_refused_in_a_sentence(
    name: str, value: Any, sentence: str, tmp_path: Path, stand_in: Path
) -> None:
    soundfile.write(tmp_path / "in.wav", np.full(800, 0.1), 8000)
    settings: dict[str, Any] = {"input": "in.wav", "output": "out.wav", name: value}
    places = {key: tmp_path / settings.pop(key) for key in ("input", "output")}
    with pytest.raises(RtsrError, match=re.escape(sentence)):
        enhance_file(**places, **settings, model=stand_in)
    assert _names(tmp_path) == {"in.wav"}


def test_large_wav_becomes_rf64(
    tmp_path: Path, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_file, "LARGEST", 5000)
    soundfile.write(tmp_path / "in.wav", np.full(800, 0.1), 8000)
    enhance_file(tmp_path / "in.wav", tmp_path / "out.wav", model=stand_in)
    assert soundfile.info(tmp_path / "out.wav").format == "RF64"
    assert soundfile.info(tmp_path / "out.wav").frames == 4800


def test_clipping_is_held_and_counted(tmp_path: Path, stand_in: Path) -> None:
    sound = np.array([0.5, 1.5, -1.5, 1.0, -1.0] * 100)
    soundfile.write(tmp_path / "in.wav", sound, 48000, subtype="FLOAT")
    settings = {"model": stand_in, "wet": 0.0, "limiter": False}
    report = enhance_file(tmp_path / "in.wav", tmp_path / "out.wav", subtype="PCM_16", **settings)
    out = soundfile.read(tmp_path / "out.wav", dtype="int16")[0]
    assert list(out[:5]) == [16384, 32767, -32768, 32767, -32768]
    assert report.clipped_samples == 300
    assert any("full scale" in sentence for sentence in report.warnings())
    kept = enhance_file(tmp_path / "in.wav", tmp_path / "float.wav", **settings)
    assert kept.clipped_samples == 0
    assert np.array_equal(soundfile.read(tmp_path / "float.wav")[0], sound.astype(np.float32))


@pytest.mark.parametrize("extension", ["wav", "flac", "aiff"])
def test_truncated_file_gives_what_is_there(
    extension: str, tmp_path: Path, stand_in: Path, make_sound: MakeSound
) -> None:
    source, target = tmp_path / f"in.{extension}", tmp_path / "out.wav"
    soundfile.write(source, make_sound(8000, 4.0), 8000)
    data = source.read_bytes()
    source.write_bytes(data[: len(data) // 2])
    report = enhance_file(source, target, model=stand_in)
    held = round(report.seconds * 8000)
    assert 8000 < held < 17000
    assert report.missing_samples == pytest.approx(32000 - held, abs=32)
    assert soundfile.info(target).frames == 6 * held
    assert any("truncated" in sentence for sentence in report.warnings())


@pytest.mark.parametrize(
    ("extension", "options"),
    [("ogg", {}), ("opus", {"format": "OGG", "subtype": "OPUS"}), ("mp3", {})],
)
def test_truncated_lossy_file_is_said(
    extension: str, options: dict[str, str], tmp_path: Path, stand_in: Path, make_sound: MakeSound
) -> None:
    source, target = tmp_path / f"in.{extension}", tmp_path / "out.wav"
    soundfile.write(source, make_sound(48000, 4.0, cutoff=8000), 48000, **options)
    whole = enhance_file(source, target, model=stand_in, wet=0.0)
    assert (whole.truncated, whole.missing_samples, whole.warnings()) == (False, 0, [])
    data = source.read_bytes()
    source.write_bytes(data[: len(data) * 3 // 4])
    report = enhance_file(source, target, model=stand_in, wet=0.0)
    assert report.truncated
    assert report.to_json()["input"]["truncated"] is True
    assert [sentence for sentence in report.warnings() if "is truncated" in sentence]
    assert soundfile.info(target).frames == round(report.seconds * 48000) < 4 * 48000
    # Only MP3 files count their frames in advance.
    held = round(report.seconds * 48000)
    assert report.missing_samples == (4 * 48000 - held if extension == "mp3" else 0)


@pytest.mark.parametrize("kind", ["RF64", "W64"])
def test_truncation_is_said_where_sizes_have_64_bits(
    kind: str, tmp_path: Path, stand_in: Path, make_sound: MakeSound
) -> None:
    source = tmp_path / ("in.wav" if kind == "RF64" else "in.w64")
    soundfile.write(source, make_sound(8000, 2.0), 8000, format=kind)
    whole = enhance_file(source, tmp_path / "out.wav", model=stand_in)
    assert (whole.truncated, whole.missing_samples) == (False, 0)
    source.write_bytes(source.read_bytes()[:20000])
    report = enhance_file(source, tmp_path / "out.wav", model=stand_in)
    assert report.truncated
    assert report.missing_samples == pytest.approx(16000 - report.seconds * 8000, abs=2)


def test_a_truncated_wav_beyond_2_gib_is_said(tmp_path: Path, stand_in: Path) -> None:
    source = tmp_path / "in.wav"
    soundfile.write(source, np.full(4000, 0.1), 8000)
    data = bytearray(source.read_bytes())
    data[40:44] = (3_000_000_000).to_bytes(4, "little")
    source.write_bytes(bytes(data))
    report = enhance_file(source, tmp_path / "out.wav", model=stand_in)
    assert report.missing_samples == 1_500_000_000 - 4000


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_a_page_lost_within_an_ogg_is_said(
    subtype: str, tmp_path: Path, stand_in: Path, make_sound: MakeSound
) -> None:
    source = tmp_path / "in.ogg"
    soundfile.write(source, make_sound(48000, 5.0), 48000, format="OGG", subtype=subtype)
    data = bytearray(source.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 50] = bytes(50)
    source.write_bytes(bytes(data))
    report = enhance_file(source, tmp_path / "out.wav", model=stand_in, wet=0.0)
    assert report.seconds < 4.8
    assert report.truncated
    assert any("damaged" in sentence for sentence in report.warnings())


@pytest.mark.parametrize("extension", ["ogg", "mp3"])
def test_files_joined_to_one_are_said(
    extension: str, tmp_path: Path, stand_in: Path, make_sound: MakeSound
) -> None:
    source = tmp_path / f"in.{extension}"
    parts = []
    for channels in (1, 2):
        soundfile.write(source, make_sound(48000, 1.0, channels=channels), 48000)
        parts.append(source.read_bytes())
        assert not enhance_file(source, tmp_path / "out.wav", model=stand_in, wet=0.0).truncated
    source.write_bytes(b"".join(parts))
    report = enhance_file(source, tmp_path / "out.wav", model=stand_in, wet=0.0)
    assert report.seconds == pytest.approx(1.0, abs=0.05)
    assert report.truncated
    assert any("several files" in sentence for sentence in report.warnings())


def test_a_flac_that_does_not_tell_its_length_is_whole(
    tmp_path: Path, stand_in: Path, make_sound: MakeSound
) -> None:
    source, target = tmp_path / "in.flac", tmp_path / "out.wav"
    sound = make_sound(48000, 0.5)
    soundfile.write(source, sound, 48000)
    data = bytearray(source.read_bytes())
    data[21] &= 0xF0  # the 36 bits of the length, as a program leaves them that writes into a pipe
    data[22:26] = bytes(4)
    source.write_bytes(bytes(data))
    report = enhance_file(source, target, model=stand_in, wet=0.0)
    assert (report.truncated, report.missing_samples) == (False, 0)
    assert len(soundfile.read(target)[0]) == len(sound)


def test_what_a_damaged_flac_holds_before_the_damage_is_kept(
    tmp_path: Path, stand_in: Path, make_sound: MakeSound
) -> None:
    source, target = tmp_path / "in.flac", tmp_path / "out.wav"
    sound = make_sound(48000, 0.5)
    soundfile.write(source, sound, 48000)
    kept = soundfile.read(source)[0]
    source.write_bytes(source.read_bytes()[:-100])
    report = enhance_file(source, target, model=stand_in, wet=0.0)
    held = len(kept) - report.missing_samples
    # Only the frame of 4096 samples that was cut is missing.
    assert 0 < report.missing_samples <= 4096
    assert np.array_equal(soundfile.read(target)[0], kept[:held])


def test_an_mp3_of_few_bits_is_decoded_as_a_whole(tmp_path: Path) -> None:
    source = tmp_path / "in.mp3"
    noise = 0.3 * np.random.default_rng(0).standard_normal(16000 * 8)
    soundfile.write(source, noise, 16000, bitrate_mode="CONSTANT", compression_level=0.95)
    expected = soundfile.read(source, dtype="float32", always_2d=True)[0]
    with open_input(source) as file:
        read = np.concatenate(list(file.blocks()))
    np.testing.assert_allclose(read, expected, atol=1e-5)


def test_a_wav_whose_recorder_died_is_read(tmp_path: Path, stand_in: Path) -> None:
    pytest.importorskip("av")
    source = tmp_path / "in.wav"
    soundfile.write(source, np.full(4000, 0.1), 8000)
    data = bytearray(source.read_bytes())
    data[4:8] = data[40:44] = bytes(4)  # the lengths, which a recorder writes at the end
    source.write_bytes(bytes(data))
    assert enhance_file(source, tmp_path / "out.wav", model=stand_in).seconds == 0.5


# In the order of WAV files; Vorbis and Opus have the third channel second, and the fourth last.
_SURROUND = np.array([0.1, 0.2, 0.3, 0.05, 0.15, 0.25])
_IN_OGG = [0, 2, 1, 4, 5, 3]


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_surround_in_ogg_has_the_order_of_ogg(subtype: str, tmp_path: Path, stand_in: Path) -> None:
    tone = np.sin(2 * np.pi * 60.0 * np.arange(24000) / 48000)[:, None]
    source, ogg, back = tmp_path / "in.wav", tmp_path / "out.ogg", tmp_path / "back.wav"
    if subtype == "OPUS":
        ogg = tmp_path / "out.opus"
    soundfile.write(source, tone * _SURROUND, 48000, subtype="PCM_24")
    enhance_file(source, ogg, model=stand_in, wet=0.0)
    enhance_file(ogg, back, model=stand_in, wet=0.0)
    for path, order in ((ogg, _IN_OGG), (back, range(6))):
        levels = soundfile.read(path)[0].std(axis=0)
        assert np.array_equal(np.argsort(levels), np.argsort(_SURROUND[list(order)]))


@pytest.mark.parametrize("rf64", [False, True])
def test_speakers_of_a_wav_are_kept(
    rf64: bool, tmp_path: Path, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "in.wav", tmp_path / "out.wav"
    soundfile.write(source, np.full((4800, 4), 0.1), 48000, format="WAVEX", subtype="PCM_24")
    data = bytearray(source.read_bytes())
    data[40:44] = (0x107).to_bytes(4, "little")  # left, right, centre, one behind
    source.write_bytes(bytes(data))
    if rf64:
        monkeypatch.setattr(output_file, "LARGEST", 5000)
    enhance_file(source, target, model=stand_in, wet=0.0)
    with soundfile.SoundFile(target) as file:
        assert "Channel Mask  : 0x107" in file.extra_info
        assert file.subtype == "PCM_24"
        assert np.array_equal(file.read(), soundfile.read(source)[0])


@pytest.mark.parametrize(("name", "subtype"), [("out.wav", "PCM_U8"), ("out.aiff", "PCM_S8")])
def test_eight_bits_are_rounded_and_held(
    name: str, subtype: str, tmp_path: Path, stand_in: Path
) -> None:
    sound = np.repeat([0.6, -0.6, 1.5, -1.6, 300.0, -300.0], 100) / 128.0
    soundfile.write(tmp_path / "in.wav", sound, 48000, subtype="FLOAT")
    settings: dict[str, object] = {"model": stand_in, "wet": 0.0, "limiter": False}
    report = enhance_file(tmp_path / "in.wav", tmp_path / name, subtype=subtype, **settings)  # type: ignore[arg-type]
    steps = soundfile.read(tmp_path / name)[0] * 128.0
    assert np.array_equal(steps, np.repeat([1, -1, 2, -2, 127, -128], 100))
    assert report.clipped_samples == 200


@pytest.mark.parametrize("target", ["out.wav", "out.flac", "out.opus", "out.mp3", "out.w64"])
def test_tags_are_kept(target: str, tmp_path: Path, stand_in: Path) -> None:
    source = tmp_path / "in.flac"
    with soundfile.SoundFile(source, "w", 48000, 1) as file:
        file.title, file.artist, file.date = "Zürich", "Somebody", "1999"
        file.write(np.full(4800, 0.1))
    enhance_file(source, tmp_path / target, model=stand_in)
    with soundfile.SoundFile(tmp_path / target) as file:
        tags = file.copy_metadata()
        assert file.frames == 4800
    if target == "out.w64":
        assert tags == {}
        return
    # MP3 files are not given what is not ASCII.
    assert tags.get("title", "") == ("" if target == "out.mp3" else "Zürich")
    assert (tags["artist"], tags["date"]) == ("Somebody", "1999")


@pytest.mark.parametrize("target", ["out.aiff", "out.opus", "out.wav", "out.flac"])
def test_a_tag_that_is_too_long_for_a_format_costs_no_sound(
    target: str, tmp_path: Path, stand_in: Path
) -> None:
    source = tmp_path / "in.flac"
    with soundfile.SoundFile(source, "w", 48000, 1) as file:
        file.title, file.comment = "Title", "x" * 120_000
        file.write(np.full(4800, 0.1))
    enhance_file(source, tmp_path / target, model=stand_in)
    with soundfile.SoundFile(tmp_path / target) as file:
        assert file.frames == 4800
        assert file.copy_metadata()["title"] == "Title"
        assert "comment" not in file.copy_metadata()


def test_an_empty_sound_with_something_behind_it_is_empty(tmp_path: Path, stand_in: Path) -> None:
    source = tmp_path / "in.wav"
    with soundfile.SoundFile(source, "w", 8000, 1) as file:
        file.comment = "x" * 1000
    assert source.stat().st_size > 1000
    with pytest.raises(RtsrError, match="holds no samples"):
        enhance_file(source, tmp_path / "out.wav", model=stand_in)


def test_a_guessed_length_is_no_reason_to_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_file, "LARGEST", 5000)
    with output_file.OutputFile(
        tmp_path / "out.aiff", 48000, 1, 9000, length_is_stated=False
    ) as file:
        file.write(np.zeros((2000, 1), np.float32))
        file.commit()
    assert soundfile.info(tmp_path / "out.aiff").frames == 2000


def test_what_a_format_cannot_count_is_refused_before_the_work(
    tmp_path: Path, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "in.wav", np.full(8000, 0.1), 8000)
    monkeypatch.setattr(output_file, "LARGEST", 5000)
    with pytest.raises(RtsrError, match="larger than 4 GiB"):
        enhance_file(tmp_path / "in.wav", tmp_path / "out.aiff", model=stand_in)
    assert _names(tmp_path) == {"in.wav"}


def test_a_wav_of_unknown_length_does_not_outgrow_its_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_file, "LARGEST", 5000)
    half = np.zeros((2000, 1), np.float32)
    with output_file.OutputFile(tmp_path / "out.wav", 48000, 1, 0) as file:
        file.write(half)
        with pytest.raises(RtsrError, match="larger than 4 GiB"):
            file.write(half)
    assert not _names(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_a_private_file_stays_private(tmp_path: Path, stand_in: Path) -> None:
    source, target = tmp_path / "in.wav", tmp_path / "out.wav"
    soundfile.write(source, np.full(800, 0.1), 8000)
    target.touch(mode=0o600)
    target.chmod(0o600)
    enhance_file(source, target, model=stand_in)
    assert target.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, stand_in: Path) -> None:
    os.mkfifo(tmp_path / "in.wav")
    with pytest.raises(RtsrError, match="is a pipe"):
        enhance_file(tmp_path / "in.wav", tmp_path / "out.wav", model=stand_in)


def test_ogg_without_a_whole_sample_is_called_truncated(tmp_path: Path, stand_in: Path) -> None:
    source = tmp_path / "in.ogg"
    soundfile.write(source, np.full(48000, 0.1), 48000)
    source.write_bytes(source.read_bytes()[:1000])
    with pytest.raises(RtsrError, match="ends before its stream does"):
        enhance_file(source, tmp_path / "out.wav", model=stand_in)


def test_wav_with_unknown_length_is_not_truncated(
    tmp_path: Path, stand_in: Path, make_sound: MakeSound
) -> None:
    source = tmp_path / "in.wav"
    soundfile.write(source, make_sound(8000, 0.5), 8000)
    data = bytearray(source.read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    source.write_bytes(bytes(data))
    report = enhance_file(source, tmp_path / "out.wav", model=stand_in)
    assert report.missing_samples == 0
    assert soundfile.info(tmp_path / "out.wav").frames == 24000


def test_unusable_samples_are_counted(tmp_path: Path, stand_in: Path) -> None:
    sound = np.full(4800, 0.1, np.float32)
    sound[7] = np.nan
    sound[9] = np.inf
    soundfile.write(tmp_path / "in.wav", sound, 48000, subtype="FLOAT")
    report = enhance_file(tmp_path / "in.wav", tmp_path / "out.wav", model=stand_in)
    assert report.repaired_samples == 2
    assert np.isfinite(soundfile.read(tmp_path / "out.wav")[0]).all()


def test_report_holds_exactly_the_promised_fields(tmp_path: Path, model: str) -> None:
    soundfile.write(tmp_path / "in.wav", np.full(1600, 0.1), 8000)
    report = enhance_file(tmp_path / "in.wav", tmp_path / "out.wav", model=model)
    fields = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert set(fields) == {
        "input",
        "output",
        "output_rate",
        "model",
        "provider",
        "block_ms",
        "latency",
        "step_ms",
        "real_time_factor",
        "added_steps",
        "degraded_blocks",
        "repaired_samples",
        "limited_samples",
        "clipped_samples",
        "colour",
    }
    assert set(fields["input"]) == {
        "path",
        "rate",
        "channels",
        "seconds",
        "cutoff_hz",
        "highest_cutoff_hz",
        "missing_samples",
        "truncated",
    }
    assert fields["input"]["path"] == str(tmp_path / "in.wav")
    assert {"parts", "algorithmic_ms", "algorithmic_samples"} == set(fields["latency"])
    assert list(fields["step_ms"]) == ["first", "p50", "p95", "p99", "p99_9", "max"]
    assert (fields["output_rate"], fields["block_ms"], fields["colour"]) == (48000, 160, None)
    assert fields["real_time_factor"] > 0
    given = Colour("small", "a" * 64, 12.346, ((0.0,) * 24,) * 4)
    assert replace(report, colour=given).to_json()["colour"] == {"seconds": 12.35}


class _StopError(Exception):
    pass


@pytest.mark.parametrize("error", [KeyboardInterrupt, _StopError])
def test_interrupted_work_leaves_nothing(
    error: type[BaseException], tmp_path: Path, stand_in: Path
) -> None:
    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise error

    soundfile.write(tmp_path / "in.wav", np.full(80000, 0.1), 8000)
    with pytest.raises(error):
        enhance_file(tmp_path / "in.wav", tmp_path / "out.wav", model=stand_in, progress=stop)
    assert _names(tmp_path) == {"in.wav"}
    (tmp_path / "out.wav").write_bytes(b"before")
    with pytest.raises(error):
        enhance_file(tmp_path / "in.wav", tmp_path / "out.wav", model=stand_in, progress=stop)
    assert _names(tmp_path) == {"in.wav", "out.wav"}
    assert (tmp_path / "out.wav").read_bytes() == b"before"


def test_link_is_followed_not_replaced(tmp_path: Path, stand_in: Path) -> None:
    soundfile.write(tmp_path / "in.wav", np.full(800, 0.1), 8000)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out.wav").symlink_to(tmp_path / "elsewhere" / "real.wav")
    enhance_file(tmp_path / "in.wav", tmp_path / "out.wav", model=stand_in)
    assert (tmp_path / "out.wav").is_symlink()
    assert _names(tmp_path / "elsewhere") == {"real.wav"}


def test_output_has_the_usual_permissions(tmp_path: Path, stand_in: Path) -> None:
    soundfile.write(tmp_path / "in.wav", np.full(800, 0.1), 8000)
    enhance_file(tmp_path / "in.wav", tmp_path / "out.wav", model=stand_in)
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "out.wav").stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux' peak memory")
@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path, stand_in: Path) -> None:
    # VmHWM, because what getrusage() tells a program includes the peak of the one it came from.
    program = (
        "import sys, rtsr; rtsr.enhance_file(*sys.argv[1:3], model=sys.argv[3], wet=0.0);"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    )
    peaks = []
    for minutes in (0.05, 5):
        soundfile.write(tmp_path / "in.wav", np.full(round(minutes * 60 * 48000), 0.1), 48000)
        done = subprocess.run(
            [sys.executable, "-c", program, "in.wav", "out.wav", str(stand_in)],
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] < 400
    assert peaks[1] - peaks[0] < 16
