"""A colour as an object and as a file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from rtsr import ArgumentError, Colour, RtsrError, Upsampler, read_colour
from rtsr.cli.app import app
from rtsr.colour.bands import CUTOFFS_HZ, colour_centres, colour_edges
from rtsr.colour.colour import from_json
from rtsr.colour.spectrum import EDGES_HZ

MakeColour = Callable[..., Colour]


def _rows(*gains: float) -> tuple[tuple[float, ...], ...]:
    return tuple((gain,) * 24 for gain in gains)


def test_a_file_gives_back_what_was_saved(make_colour: MakeColour, tmp_path: Path) -> None:
    gains = np.round(np.linspace(-12, 12, 24), 2)
    colour = make_colour(gains, spectrum_db=tuple(range(-5, 5)))
    assert make_colour(gains).to_json()["spectrum"] is None
    colour.save(tmp_path / "me.json")
    assert read_colour(tmp_path / "me.json") == colour
    assert from_json(json.loads(json.dumps(colour.to_json()))) == colour


def test_a_failed_write_leaves_the_old_colour(
    make_colour: MakeColour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "me.json"
    old = make_colour(np.full(24, 3.0))
    old.save(path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as raised:
        make_colour(np.zeros(24)).save(path)
    assert raised.value.filename == str(path)
    assert read_colour(path) == old
    assert os.listdir(tmp_path) == ["me.json"]


@pytest.mark.skipif(os.name != "posix", reason="a device of POSIX")
def test_a_device_is_written_to_and_not_replaced(make_colour: MakeColour) -> None:
    make_colour().save("/dev/null")
    assert not Path("/dev/null").is_file()


def test_a_file_holds_gains_and_no_sound(make_colour: MakeColour, tmp_path: Path) -> None:
    make_colour(spectrum_db=(0.0,) * 10).save(tmp_path / "me.json")
    found = json.loads((tmp_path / "me.json").read_text())
    assert set(found) == {
        "format",
        "version",
        "model",
        "weights_sha256",
        "seconds",
        "bands_hz",
        "cutoffs",
        "spectrum",
    }
    assert all(set(row) == {"cutoff_hz", "gains_db"} for row in found["cutoffs"])
    assert set(found["spectrum"]) == {"bands_hz", "levels_db"}
    assert (tmp_path / "me.json").stat().st_size < 4000


@pytest.mark.parametrize(
    ("cutoff_hz", "gain_db"),
    [
        (2000.0, 1.0),
        (4000.0, 1.0),
        (np.sqrt(4000.0 * 5512.5), 1.5),
        (8000.0, 4.0),
        (np.sqrt(8000.0 * 12000.0), 6.0),
        (12000.0, 8.0),
        (20000.0, 8.0),
    ],
)
def test_gains_between_cutoffs_are_interpolated_in_octaves(
    cutoff_hz: float, gain_db: float
) -> None:
    colour = Colour("small", "0" * 64, 10.0, _rows(1.0, 2.0, 4.0, 8.0))
    np.testing.assert_allclose(colour.gains_at(cutoff_hz), gain_db)


def test_the_response_goes_through_the_centres_of_bands(make_colour: MakeColour) -> None:
    gains = np.linspace(-6.0, 6.0, 24)
    colour = make_colour(gains)
    centres = colour_centres()
    np.testing.assert_allclose(colour.response_db(8000.0, centres), gains)
    outside = colour.response_db(8000.0, np.array([0.0, 1000.0, 24000.0]))
    np.testing.assert_allclose(outside, [-6.0, -6.0, 6.0])


def test_half_of_a_colour_is_half_its_gains(make_colour: MakeColour) -> None:
    assert make_colour(6.0).scaled(0.5).gains_at(8000.0) == pytest.approx(np.full(24, 3.0))
    for share in (1.5, None, "x"):
        with pytest.raises(ArgumentError, match="between 0 and 1"):
            make_colour().scaled(share)


def test_gains_and_levels_may_be_numbers_of_any_kind(make_colour: MakeColour) -> None:
    colour = make_colour(0.5, spectrum_db=(-20.0,) * 10)
    facts = (colour.model, colour.weights_sha256)
    for kind in (np.float32, np.float64):
        arrays = np.full((4, 24), 0.5, kind), np.full(10, -20, kind)
        same = Colour(*facts, kind(12.0), *arrays)
        assert same == colour
        assert from_json(json.loads(json.dumps(same.to_json()))) == colour
    assert Colour(*facts, 12, [[Fraction(1, 2)] * 24] * 4, [-20] * 10) == colour


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (("small", "0" * 64, 10.0, _rows(1.0, 2.0, 3.0)), "24 gains for each of 4 cutoffs"),
        (("small", "0" * 64, 10.0, ((1.0,) * 23,) * 4), "24 gains for each of 4 cutoffs"),
        (("small", "0" * 64, 10.0, _rows(1.0, 2.0, 3.0, 12.5)), "not 12.5"),
        (("small", "0" * 64, 10.0, _rows(1.0, 2.0, 3.0, float("nan"))), "not nan"),
        (("small", "0" * 64, -1.0, _rows(1.0, 2.0, 3.0, 4.0)), "seconds of sound"),
        (("", "0" * 64, 10.0, _rows(1.0, 2.0, 3.0, 4.0)), "name of a model"),
        (("small", 7, 10.0, _rows(1.0, 2.0, 3.0, 4.0)), "hash"),
        (("small", "0" * 64, 10.0, None), "24 gains for each of 4 cutoffs"),
        (("small", "0" * 64, 10.0, (1.0,) * 4), "24 gains for each of 4 cutoffs"),
        (("small", "0" * 64, 10.0, _rows(1.0, 2.0, 3.0, 4.0), 7), "10 levels, not of 0"),
        (("small", "0" * 64, 10.0, _rows(1.0, 2.0, 3.0, True)), "not True"),
    ],
    ids=[
        *("cutoffs", "bands", "too loud", "nan", "seconds", "no name", "hash"),
        *("no gains", "no rows", "no levels", "truth value"),
    ],
)
def test_values_out_of_range_are_refused(values: Any, sentence: str) -> None:
    with pytest.raises(ArgumentError, match=sentence):
        Colour(*values)


def _changed(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda found: {**found, **changes}


def _with_gain(gain: Any) -> Callable[[dict[str, Any]], Any]:
    def change(found: dict[str, Any]) -> Any:
        found["cutoffs"][1]["gains_db"][3] = gain
        return found

    return change


def _with_levels(levels: list[Any]) -> Callable[[dict[str, Any]], Any]:
    return _changed(spectrum={"bands_hz": EDGES_HZ.tolist(), "levels_db": levels})


WRONG: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a list": (lambda found: [found], "is no colour"),
    "something else": (_changed(format="icc"), "is no colour"),
    "another version": (_changed(version=2), "has version 2, this rtsr reads version 1"),
    "no version": (_changed(version=None), "has version None"),
    "a version of a million digits": (_changed(version="9" * 9999), "has version '999"),
    "other bands": (_changed(bands_hz=[4000.0, 24000.0]), "for other bands"),
    "bands shifted": (
        _changed(bands_hz=(colour_edges() + 50.0).tolist()),
        "for other bands",
    ),
    "bands of text": (_changed(bands_hz="all"), "for other bands"),
    "no cutoffs": (_changed(cutoffs=None), "no list of cutoffs"),
    "cutoffs of numbers": (_changed(cutoffs=[1, 2]), "no list of cutoffs"),
    "other cutoffs": (
        _changed(cutoffs=[{"cutoff_hz": hz + 1, "gains_db": []} for hz in CUTOFFS_HZ]),
        "for other cutoffs",
    ),
    "no gains": (
        _changed(cutoffs=[{"cutoff_hz": hz} for hz in CUTOFFS_HZ]),
        "no list of gains",
    ),
    "few gains": (
        _changed(cutoffs=[{"cutoff_hz": hz, "gains_db": [1.0]} for hz in CUTOFFS_HZ]),
        "24 gains",
    ),
    "1e9 dB": (_with_gain(1e9), "between -12 and 12 dB, not 1000000000.0"),
    "nan": (_with_gain(float("nan")), "not nan"),
    "infinity": (_with_gain(float("inf")), "not inf"),
    "text": (_with_gain("6"), "not '6'"),
    "true": (_with_gain(True), "not True"),
    "an integer beyond all": (_with_gain(10**400), "between -12 and 12 dB"),
    "a list within": (_with_gain([1.0]), "between -12 and 12 dB"),
    "no model": (_changed(model=None), "name of a model"),
    "a model of lines": (_changed(model="a\nb"), "name of a model"),
    "endless seconds": (_changed(seconds=1e300), "seconds of sound"),
    "a spectrum of text": (_changed(spectrum="flat"), "no list of levels"),
    "a spectrum without levels": (_changed(spectrum={"bands_hz": []}), "no list of levels"),
    "a spectrum of other bands": (
        _changed(spectrum={"bands_hz": [100.0, 200.0], "levels_db": [0.0]}),
        "spectrum of other bands",
    ),
    "few levels": (_with_levels([0.0]), "spectrum of 10 levels, not of 1"),
    "a level of 1e9 dB": (_with_levels([1e9] * 10), "between -200 and 200 dB, not 1000000000.0"),
    "a level that is no number": (_with_levels([float("nan")] * 10), "not nan"),
    "a level of text": (_with_levels(["0"] * 10), "not '0'"),
}


@pytest.mark.parametrize(("change", "sentence"), WRONG.values(), ids=WRONG)
def test_a_file_that_is_no_colour_is_refused_with_one_sentence(
    make_colour: MakeColour,
    tmp_path: Path,
    change: Callable[[dict[str, Any]], Any],
    sentence: str,
) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(change(make_colour().to_json())))
    with pytest.raises(RtsrError) as caught:
        read_colour(path)
    message = str(caught.value)
    assert sentence in message
    assert message.startswith(f"Colour file '{path}' ")
    assert message.endswith(".")
    assert "\n" not in message
    assert len(message) < 400 + len(str(path))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe\0", "not JSON"),
        (b"[" * 60000, "not JSON"),
        (b" " * 70000, "larger than 64 KiB"),
    ],
    ids=["empty", "bytes", "deep", "large"],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(RtsrError, match=sentence):
        read_colour(path)


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(RtsrError, match="cannot be read: No such file"):
        read_colour(tmp_path / "nowhere.json")


def test_a_colour_of_other_weights_is_refused(make_colour: MakeColour, stand_in: Path) -> None:
    other = make_colour(model=stand_in)
    with pytest.raises(ArgumentError, match="not for model 'small'"):
        other.check_weights("small", "2" * 64)
    newer = Colour("small", "1" * 64, 10.0, other.gains_db)
    with pytest.raises(ArgumentError, match="another version of model 'small'"):
        Upsampler(8000, colour=newer)


@pytest.mark.parametrize(
    ("colour", "sentence"),
    [("me.json", "or is 'auto', not 'me.json'"), (7, "this is a int"), (b"auto", "a bytes")],
    ids=["a path", "a number", "bytes"],
)
def test_what_is_no_colour_is_refused(stand_in: Path, colour: Any, sentence: str) -> None:
    with pytest.raises(ArgumentError, match=sentence):
        Upsampler(8000, model=stand_in, colour=colour)


@pytest.mark.parametrize(
    "command",
    [
        "enhance {here}/in.wav {here}/out.wav",
        "pipe --rate 8000",
        "call sip --to sip:desk@127.0.0.1 --listen 127.0.0.1:0",
        "call web --listen 127.0.0.1:0",
        "colour show",
    ],
)
def test_every_command_refuses_a_broken_file_with_one_sentence(
    command: str, make_colour: MakeColour, tmp_path: Path
) -> None:
    if command.startswith("call"):
        pytest.importorskip("aiosipua", reason="the extra `call` needs Python 3.11")
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps(_with_gain(1e9)(make_colour().to_json())))
    option = [] if command.startswith("colour") else ["--colour"]
    done = CliRunner().invoke(app, [*command.format(here=tmp_path).split(), *option, str(broken)])
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"rtsr: Colour file '{broken}' is damaged: a colour has gains between -12 and 12 dB, "
        "not 1000000000.0.\n"
    )
