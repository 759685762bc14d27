"""Formats that libsndfile does not know are read through PyAV."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from rtsr.audio.container import ContainerFile
from rtsr.audio.reader import InputFile, open_input
from rtsr.cli import app as application
from rtsr.colour_learning import learn_colour
from rtsr.errors import AudioFormatError, RtsrError
from rtsr.files import enhance_file
from rtsr.quality import compare_files

av = pytest.importorskip("av")

RATE = 16000


def _sound(channels: int = 1, seconds: float = 1.0) -> np.ndarray:
    times = np.arange(round(seconds * RATE)) / RATE
    tones = [np.sin(2.0 * np.pi * 440.0 * (1 + place) * times) for place in range(channels)]
    return np.round(8000.0 * np.stack(tones)).astype(np.int16)


def _write(
    path: Path,
    coder: str,
    samples: np.ndarray,
    rate: int = RATE,
    tags: dict[str, str] | None = None,
) -> Path:
    layout = {1: "mono", 2: "stereo"}[len(samples)]
    path.parent.mkdir(exist_ok=True)
    kind = "s16p" if samples.dtype == np.int16 else "s32p"
    with av.open(str(path), "w") as container:
        container.metadata.update(tags or {})
        more = {} if kind == "s16p" else {"format": kind}
        stream = container.add_stream(coder, rate=rate, layout=layout, **more)
        frame = av.AudioFrame.from_ndarray(samples, kind, layout)
        frame.sample_rate = rate
        converter = av.AudioResampler(stream.format, layout, rate, stream.frame_size or None)
        for part in (*converter.resample(frame), *converter.resample(None)):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


def _read(path: Path) -> np.ndarray:
    with open_input(path) as file:
        assert isinstance(file, ContainerFile)
        return np.concatenate(list(file.blocks()))


@pytest.mark.parametrize("channels", [1, 2], ids=["mono", "stereo"])
def test_a_lossless_m4a_is_read_to_the_bit(tmp_path: Path, channels: int) -> None:
    sound = _sound(channels)
    path = _write(tmp_path / "in.m4a", "alac", sound)
    with open_input(path) as file:
        assert (file.rate, file.channels, file.frames) == (RATE, channels, RATE)
    np.testing.assert_array_equal(_read(path), sound.T.astype(np.float32) / 32768.0)


def test_24_bits_of_an_m4a_stay_24_bits(tmp_path: Path, stand_in: Path) -> None:
    target = tmp_path / "out.flac"
    sound = (_sound().astype(np.int32) << 16) + (77 << 8)
    path = _write(tmp_path / "in.m4a", "alac", sound)
    with open_input(path) as file:
        assert file.subtype == "PCM_24"
        read = np.concatenate(list(file.blocks()))
    np.testing.assert_array_equal(read[:, 0], sound[0] / np.float32(2**31))
    enhance_file(path, target, model=stand_in)
    assert soundfile.info(target).subtype == "PCM_24"


def test_tags_of_an_m4a_are_kept(tmp_path: Path, stand_in: Path) -> None:
    target = tmp_path / "out.flac"
    path = _write(tmp_path / "in.m4a", "alac", _sound(), tags={"title": "Zürich", "track": "3"})
    enhance_file(path, target, model=stand_in)
    with soundfile.SoundFile(target) as file:
        assert (file.title, file.tracknumber) == ("Zürich", "3")


def test_damage_costs_what_is_damaged_alone(tmp_path: Path) -> None:
    sound = _sound(seconds=4.0)
    path = _write(tmp_path / "in.m4a", "alac", sound)
    data = bytearray(path.read_bytes())
    place = data.index(b"mdat") + len(data) // 3
    data[place : place + 10000] = b"\xff" * 10000  # over the beginning of a packet or two
    path.write_bytes(bytes(data))
    with open_input(path) as file:
        held = np.concatenate(list(file.blocks()))[:, 0]
        assert file.truncated
        assert 0 < file.missing_frames <= 2 * 4096
    assert len(held) == 4 * RATE - file.missing_frames
    np.testing.assert_array_equal(held[-RATE:], sound[0, -RATE:] / np.float32(32768))


def test_a_header_that_points_nowhere_is_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "in.w64"
    soundfile.write(path, _sound()[0], RATE)
    data = bytearray(path.read_bytes())
    place = data.index(b"data")
    data[place + 10] ^= 0xA2  # an unknown chunk
    data[place + 16 : place + 24] = (0x2E << 40).to_bytes(8, "little")  # larger than a disk
    path.write_bytes(bytes(data))
    with pytest.raises(AudioFormatError, match="is damaged and cannot be read"):
        open_input(path)
    assert capfd.readouterr().err == ""


def test_what_libsndfile_gives_up_on_is_read(tmp_path: Path) -> None:
    path = tmp_path / "in.caf"
    soundfile.write(path, _sound()[0], RATE)
    data = bytearray(path.read_bytes())
    place = data.index(b"data") + 4
    data[place : place + 8] = b"\xff" * 8  # not known while it was written into a pipe
    path.write_bytes(bytes(data))
    with pytest.raises(soundfile.LibsndfileError):
        soundfile.info(path)
    np.testing.assert_array_equal(_read(path)[:RATE, 0], _sound()[0] / np.float32(32768))


def test_what_libsndfile_reads_does_not_go_through_pyav(tmp_path: Path) -> None:
    path = _write(tmp_path / "in.wav", "pcm_s16le", _sound())
    with open_input(path) as file:
        assert isinstance(file, InputFile)


def test_a_webm_that_was_cut_off_is_said_to_be(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).normal(0.0, 3000.0, (1, 5 * 48000)).astype(np.int16)
    path = _write(tmp_path / "whole.webm", "libopus", noise, 48000)
    cut = tmp_path / "cut.webm"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with open_input(path) as file:
        whole = sum(map(len, file.blocks()))
        assert not file.truncated
        assert file.missing_frames == 0
    assert abs(whole - 5 * 48000) < 0.05 * 48000
    with open_input(cut) as file:
        half = sum(map(len, file.blocks()))
        assert file.truncated
        assert file.missing_frames == pytest.approx(whole - half, abs=0.05 * 48000)


def test_enhance_takes_an_m4a_and_reports_on_it(tmp_path: Path) -> None:
    source = _write(tmp_path / "in.m4a", "aac", _sound(2))
    report = enhance_file(source, tmp_path / "out.wav", model="replicate", cutoff=7000.0)
    assert report.channels == 2
    assert report.input_rate == RATE
    with open_input(tmp_path / "out.wav") as file:
        assert file.rate == 48000
        assert file.frames == round(report.seconds * 48000)


def test_a_folder_with_an_m4a_gives_a_flac(tmp_path: Path) -> None:
    _write(tmp_path / "in" / "call.m4a", "alac", _sound())
    folders = [str(tmp_path / "in"), str(tmp_path / "out")]
    arguments = ["enhance", *folders, "--model", "replicate", "--quiet"]
    assert CliRunner().invoke(application.app, arguments).exit_code == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["call.flac"]


def test_an_m4a_is_evaluated_as_the_sound_that_it_holds(tmp_path: Path) -> None:
    sound = _sound(2)
    soundfile.write(tmp_path / "same.wav", sound.T, RATE, subtype="PCM_16")
    path = _write(tmp_path / "in.m4a", "alac", sound)
    compared = compare_files(path, tmp_path / "same.wav", 4000.0, ["lf_gain_db", "lsd"])
    assert compared.metrics == {"lf_gain_db": pytest.approx(0.0, abs=1e-9), "lsd": 0.0}


def test_a_colour_is_not_learnt_from_a_narrow_m4a(tmp_path: Path) -> None:
    with pytest.raises(AudioFormatError, match="full-band sound is needed"):
        learn_colour([_write(tmp_path / "in.m4a", "alac", _sound(seconds=12.0))])


def test_a_film_without_sound(tmp_path: Path) -> None:
    path = tmp_path / "silent.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
        container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    with pytest.raises(AudioFormatError, match=r"silent.mp4' holds no sound"):
        open_input(path)


@pytest.mark.parametrize("name", ["list.m3u8", "list.m4a"])
def test_a_playlist_opens_no_other_file(tmp_path: Path, name: str) -> None:
    _write(tmp_path / "part.aac", "aac", _sound())
    path = tmp_path / name
    path.write_text(f"#EXTM3U\n#EXTINF:1,\n{tmp_path / 'part.aac'}\n#EXT-X-ENDLIST\n")
    with pytest.raises(AudioFormatError, match="not a sound file"):
        open_input(path)


def test_a_name_that_looks_like_an_address_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path / "in.m4a", "alac", _sound()).rename(tmp_path / "concat:in.m4a")
    monkeypatch.chdir(tmp_path)
    assert len(_read(Path("concat:in.m4a"))) == RATE


def test_without_pyav_the_sentence_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path / "in.m4a", "alac", _sound())
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(RtsrError, match=r"not a sound file .* PyAV \(`pip install av`\)"):
        open_input(path)
