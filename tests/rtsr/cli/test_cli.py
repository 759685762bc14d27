"""The command line as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import typer
from typer.testing import CliRunner

import rtsr
from rtsr.cli import app as application
from rtsr.runtime.models import bundled, bundled_octaves

RTSR = [sys.executable, "-m", "rtsr"]
COMMANDS = ["enhance", "pipe", "demo", "models", "eval", "train"]


@pytest.fixture
def runner() -> CliRunner:
    return CliRunner(env={"COLUMNS": "100", "TERM": "dumb"})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_what_the_system_refuses_is_a_sentence() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*RTSR, "models", "--json"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 2
    assert done.stderr == b"rtsr: The system refused to read or write: No space left on device.\n"


def test_help_names_every_command(runner: CliRunner) -> None:
    result = runner.invoke(application.app, ["--help"])
    assert result.exit_code == 0
    for command in COMMANDS:
        assert command in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, runner: CliRunner) -> None:
    result = runner.invoke(application.app, [command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_help_loads_nothing_slow() -> None:
    program = (
        "import sys\n"
        "from rtsr.cli.app import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    loaded = set(done.stderr.split())
    slow = {"numpy", "scipy", "numba", "soundfile", "onnxruntime", "torch", "rich.live"}
    assert "typer" in loaded
    assert not loaded & slow


def test_version(runner: CliRunner) -> None:
    result = runner.invoke(application.app, ["--version"])
    assert result.stdout.strip() == f"rtsr {rtsr.__version__}"


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["enhance"],
        ["enhance", "one.wav"],
        ["pipe"],
        ["enhance", "--nonsense"],
        ["pipe", "--rate", "8000", "--cutoff", "abc"],
    ],
    ids=" ".join,
)
def test_wrong_use_exits_2(arguments: list[str], runner: CliRunner) -> None:
    result = runner.invoke(application.app, arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("rtsr: ")
    assert result.stderr.endswith("--help`.\n")
    assert len(result.stderr.splitlines()) == 1


def test_a_warning_is_one_sentence_without_its_place(
    monkeypatch: pytest.MonkeyPatch, runner: CliRunner
) -> None:
    from rtsr.errors import warn

    monkeypatch.setattr("rtsr.cli.models.models_command", lambda: warn("It runs, but slower."))
    result = runner.invoke(application.app, ["models"])
    assert result.exit_code == 0
    assert result.stderr == "rtsr: It runs, but slower.\n"


def test_no_arguments_print_the_help(runner: CliRunner) -> None:
    assert "Usage" in runner.invoke(application.app, []).output


def test_too_short_file_is_refused(tmp_path: Path, runner: CliRunner) -> None:
    soundfile.write(tmp_path / "long.wav", np.full(48000, 0.1), 48000)
    soundfile.write(tmp_path / "short.wav", np.full(6, 0.1), 48000)
    arguments = ["eval", str(tmp_path / "long.wav"), str(tmp_path / "short.wav")]
    result = runner.invoke(application.app, [*arguments, "--cutoff", "4000"])
    assert result.exit_code == 2
    assert "short.wav' is shorter than 10 ms (6 samples at 48000 Hz)" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_cutoff_beyond_the_input_is_said(tmp_path: Path, stand_in: Path, runner: CliRunner) -> None:
    soundfile.write(tmp_path / "in.wav", np.full(800, 0.1), 8000)
    arguments = ["enhance", str(tmp_path / "in.wav"), str(tmp_path / "out.wav"), "--quiet", "-y"]
    arguments += ["--model", str(stand_in), "--cutoff"]
    result = runner.invoke(application.app, [*arguments, "12000"])
    assert result.exit_code == 0
    assert result.stderr == (
        "rtsr: --cutoff 12000 Hz is beyond what a rate of 8000 Hz can hold; 4000 Hz is used.\n"
    )
    assert runner.invoke(application.app, [*arguments, "4000"]).stderr == ""


def test_enhance_prints_json(tmp_path: Path, stand_in: Path, runner: CliRunner) -> None:
    soundfile.write(tmp_path / "in.wav", np.full(800, 0.1), 8000)
    arguments = ["enhance", str(tmp_path / "in.wav"), str(tmp_path / "out.wav")]
    result = runner.invoke(application.app, [*arguments, "--model", str(stand_in), "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["input"]["rate"] == 8000
    assert soundfile.info(tmp_path / "out.wav").frames == 4800


def test_enhance_says_what_it_did(tmp_path: Path, stand_in: Path, runner: CliRunner) -> None:
    soundfile.write(tmp_path / "in.wav", np.full((800, 2), 0.1), 8000)
    arguments = ["enhance", str(tmp_path / "in.wav"), str(tmp_path / "out.wav")]
    options = ["--model", str(stand_in), "--out-rate", "44100", "--block-ms", "20", "--wet", "0.5"]
    result = runner.invoke(application.app, [*arguments, *options])
    assert result.exit_code == 0
    assert "2 channel(s) at 44100 Hz" in result.stdout
    quiet = runner.invoke(application.app, [*arguments, *options, "--quiet"])
    assert quiet.stdout == ""


def test_eval_shows_the_input_beside_the_estimate(tmp_path: Path, runner: CliRunner) -> None:
    random = np.random.default_rng(0)
    original = 0.1 * random.standard_normal(48000)
    spectrum = np.fft.rfft(original)
    spectrum[4000:] = 0.0
    for name, sound in (("original", original), ("in", np.fft.irfft(spectrum))):
        soundfile.write(tmp_path / f"{name}.wav", sound, 48000)
    original_file, narrow_file = str(tmp_path / "original.wav"), str(tmp_path / "in.wav")
    arguments = ["eval", original_file, original_file, "--input", narrow_file, "--cutoff", "4000"]
    arguments += ["--metrics", "lsd_near,lsd"]
    table = runner.invoke(application.app, arguments).stdout
    assert "input" in table.splitlines()[2]
    assert "estimate" in table.splitlines()[2]
    values = json.loads(runner.invoke(application.app, [*arguments, "--json"]).stdout)
    assert values["files"][0]["metrics"] == {"lsd_near": 0.0, "lsd": 0.0}
    assert values["input"]["lsd"] > 3.0
    assert values["input"]["lsd_near"] > 3.0
    without = runner.invoke(application.app, [*arguments[:3], *arguments[5:], "--json"]).stdout
    assert "input" not in json.loads(without)


def test_models_shows_the_card_of_ones_own(
    runner: CliRunner, write_model: Callable[..., Path], tmp_path: Path
) -> None:
    own = write_model(version="7", card={"description": "Learnt from owls."})
    own = own.rename(tmp_path / "[owls].onnx")
    result = runner.invoke(application.app, ["models", str(own)])
    assert "Learnt from owls." in result.stdout
    assert "[owls].onnx" in result.stdout
    assert "octave" not in result.stdout
    found = json.loads(runner.invoke(application.app, ["models", str(own), "--json"]).stdout)
    assert [model["version"] for model in found["models"]] == ["7"]
    missing = runner.invoke(application.app, ["models", "nowhere.onnx"])
    assert missing.exit_code == 2
    assert missing.stderr == "rtsr: Model file 'nowhere.onnx' does not exist.\n"


def test_models_shows_medians_that_a_card_has_as_integers(
    runner: CliRunner, write_model: Callable[..., Path]
) -> None:
    values = {"visqol": [3, 3.1], "lsd": [None, "infinite", True]}
    own = write_model(card={"metrics": {"4 kHz": values}})
    shown = runner.invoke(application.app, ["models", str(own)]).stdout
    row = [cell.strip() for cell in shown.split("4 kHz")[1].split("│")[1:3]]
    assert row == ["3.00 3.10", "- - -"]


@pytest.mark.parametrize(
    "card",
    [
        {"metrics": "good"},
        {"metrics": {"8 kHz": {"visqol": 3.0}}},
        {"metrics": {"clips": 5, "8 kHz": {"visqol": [3.0]}}},
        {"training": {"steps": {"a": 1}}},
        {"training": 7, "machine": ["a"]},
        {"description": None},
    ],
)
def test_models_shows_what_there_is_of_a_card(
    card: dict[str, Any], runner: CliRunner, write_model: Callable[..., Path]
) -> None:
    own = write_model(card=card)
    result = runner.invoke(application.app, ["models", str(own)])
    assert result.exit_code == 0, result.exception
    assert own.stem in result.stdout


def test_models_shows_inputs_with_other_metrics(
    runner: CliRunner, write_model: Callable[..., Path]
) -> None:
    metrics = {"clips": "[/b] ten", "8 kHz": {"[/x]": [3.0]}, "16 kHz": {"lsd": [1.0]}}
    own = write_model(card={"metrics": metrics}, version="1[/b]")
    wide = {"COLUMNS": "250"}
    shown = runner.invoke(application.app, ["models", str(own)], env=wide).stdout
    for text in ("[/b] ten", "[/x]", "1[/b]"):
        assert text in shown
    rows = [
        [cell.strip() for cell in shown.split(name)[1].split("│")[1:3]]
        for name in ("8 kHz", "16 kHz")
    ]
    assert rows == [["3.00", "-"], ["-", "1.00"]]


def test_models_lists_what_is_bundled(runner: CliRunner) -> None:
    listed = json.loads(runner.invoke(application.app, ["models", "--json"]).stdout)["models"]
    kinds = {model["name"]: model["kind"] for model in listed}
    assert list(kinds) == [*bundled(), "replicate", *bundled_octaves()]
    assert kinds.pop("replicate") == "no network"
    assert set(kinds.values()) == {"network"}
    for model in listed:
        assert model["latency_ms"] == 12.5
    result = runner.invoke(application.app, ["models"], env={"COLUMNS": "80"})
    assert result.exit_code == 0
    for name in (*bundled(), *bundled_octaves(), "replicate", "no network"):
        assert name in result.stdout
    assert result.stdout.count("visqol") == len(bundled())
    assert "learning_rates" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.slow
def test_demo_shows_what_happened(tmp_path: Path, runner: CliRunner) -> None:
    result = runner.invoke(application.app, ["demo", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "algorithmic" in result.stdout
    assert {"speech-input.wav", "speech-enhanced.wav"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }


class _EntryPoint:
    value = "elsewhere:command"

    def __init__(self, name: str, loaded: object) -> None:
        self.name = name
        self._loaded = loaded

    def load(self) -> object:
        if isinstance(self._loaded, Exception):
            raise self._loaded
        return self._loaded


def test_plug_ins_add_commands(monkeypatch: pytest.MonkeyPatch, runner: CliRunner) -> None:
    def greet(name: str) -> None:
        """Say hello."""
        typer.echo(f"hello {name}")

    points = [_EntryPoint("greet", greet), _EntryPoint("broken", ImportError("no torch"))]
    groups = {"rtsr.commands": points}
    monkeypatch.setattr(metadata, "entry_points", lambda group: groups[group])
    listing = runner.invoke(application.app, ["--help"]).stdout
    assert "Say hello." in listing
    assert "broken" in listing
    assert runner.invoke(application.app, ["greet", "you"]).stdout == "hello you\n"
    result = runner.invoke(application.app, ["broken"])
    assert result.exit_code == 2
    assert "no torch" in result.stderr


def test_plug_ins_come_from_entry_points(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = metadata.EntryPoint("shout", "module:function", application.PLUG_INS)
    monkeypatch.setattr(metadata, "entry_points", lambda group: metadata.EntryPoints([point]))
    assert "shout" in runner.invoke(application.app, ["--help"]).stdout
    assert runner.invoke(application.app, ["shout"]).exit_code == 2


def test_demo_names_what_is_left_out_and_nothing_else(
    tmp_path: Path, runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rtsr.errors import MissingDependencyError

    def no_picture(*arguments: object, **options: object) -> None:
        raise MissingDependencyError("Drawing a picture", "eval")

    monkeypatch.setattr("rtsr.quality.spectrogram.save_spectrograms", no_picture)
    monkeypatch.setattr("rtsr.quality.evaluation.default_metrics", lambda: ("lsd",))
    result = runner.invoke(application.app, ["demo", str(tmp_path / "out"), "--model", "replicate"])
    assert result.exit_code == 0, result.output
    assert "lsd" in result.stdout
    assert result.stderr.splitlines() == [
        'ViSQOL left out; it needs: pip install "rtsr[eval]".',
        'Picture left out; it needs: pip install "rtsr[eval]".',
    ]


@pytest.mark.parametrize("group", ["call", "colour"])
def test_a_group_without_a_command_prints_its_help_and_nothing_else(group, capsys):
    with pytest.raises(SystemExit) as ended:
        application.app([group])
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert "Commands" in printed.out + printed.err
    assert "rtsr: " not in printed.out + printed.err
