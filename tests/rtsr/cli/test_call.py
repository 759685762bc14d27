"""What `rtsr call` makes of its options; no server is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

pytest.importorskip("aiortc", reason='calls need the extra "call", and Python 3.11 or newer')

from rtsr.call import engine as engine_module
from rtsr.call.formats import G722, OPUS, PCMA, PCMU
from rtsr.call.sip import run as sip_run
from rtsr.call.web import run as web_run
from rtsr.cli.app import app

FACES = {"web": web_run, "sip": sip_run}
NEEDED = {"web": (), "sip": ("--to", "sip:desk@127.0.0.1")}


class Engine:
    """Stands in for the one that would load a model."""

    def __init__(self, calls: int, **options: Any) -> None:
        self.options = {**options, "calls": calls, "model": options["model"].name}


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``served(face, *options)``: what a server is given, and what its engine."""

    def run(face: str, *options: str) -> tuple[dict[str, Any], dict[str, Any]]:
        given: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        monkeypatch.setattr(FACES[face], "serve", lambda *args, **more: given.append((args, more)))
        monkeypatch.setattr(engine_module, "CallEngine", Engine)
        result = CliRunner().invoke(app, ["call", face, *NEEDED[face], *options])
        assert result.exit_code == 0, result.output
        ((open_engine, listen, *rest), more) = given[0]
        settings = {name: getattr(rest[0], name) for name in vars(rest[0])} if rest else {}
        return {**more, **settings, "listen": listen}, open_engine().options

    return run


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize(
    ("options", "name", "wanted"),
    [
        ((), "bitrate", 64_000),
        (("--bitrate", "24000"), "bitrate", 24_000),
        ((), "dtx", None),
        (("--dtx",), "dtx", True),
        (("--no-dtx",), "dtx", False),
        (("--listen", "192.0.2.7:5070"), "listen", ("192.0.2.7", 5070)),
    ],
)
def test_a_server_is_given_its_options(
    served: Any, face: str, options: tuple[str, ...], name: str, wanted: Any
) -> None:
    assert served(face, *options)[0][name] == wanted


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize(
    ("options", "name", "wanted"),
    [
        (("--calls", "7"), "calls", 7),
        ((), "channels", 1),
        (("--channels", "2"), "channels", 2),
        ((), "threads", 1),
        (("--threads", "2"), "threads", 2),
        ((), "deadline_ms", 40.0),
        (("--deadline-ms", "60"), "deadline_ms", 60.0),
        ((), "model", "small"),
        (("--model", "small-int8"), "model", "small-int8"),
        (("--provider", "cpu"), "provider", "cpu"),
        ((), "colour", None),
        (("--colour", "auto"), "colour", "auto"),
    ],
)
def test_an_engine_is_given_its_options(
    served: Any, face: str, options: tuple[str, ...], name: str, wanted: Any
) -> None:
    assert served(face, *options)[1][name] == wanted


@pytest.mark.parametrize(
    ("options", "name", "wanted"),
    [
        (("--token", "secret"), "token", "secret"),
        (("--name", "a.example.org", "--name", "b"), "names", ("a.example.org", "b")),
        (("--stun", "192.0.2.1:3478"), "stun", ("192.0.2.1", 3478)),
        (("--certificate", "c.pem"), "certificate", Path("c.pem")),
        (("--key", "k.pem"), "key", Path("k.pem")),
    ],
)
def test_a_web_server_is_given_its_options(
    served: Any, options: tuple[str, ...], name: str, wanted: Any
) -> None:
    assert served("web", *options)[0][name] == wanted


@pytest.mark.parametrize(
    ("options", "name", "wanted"),
    [
        ((), "forms", (OPUS,)),
        (("--codecs", "G722,PCMA,pcmu"), "forms", (G722, PCMA, PCMU)),
        (("--srtp",), "secure", True),
        (("--ring-seconds", "20"), "ring_seconds", 20.0),
        (("--ports", "40000-40009"), "ports", range(40000, 40010)),
        (("--advertise", "203.0.113.5"), "advertise", "203.0.113.5"),
        (("--register", "sip:me@192.0.2.20"), "register", "sip:me@192.0.2.20"),
        (("--metrics", "127.0.0.1:9100"), "metrics", ("127.0.0.1", 9100)),
    ],
)
def test_a_bridge_is_given_its_options(
    served: Any, options: tuple[str, ...], name: str, wanted: Any
) -> None:
    assert served("sip", *options)[0][name] == wanted


def test_each_callers_colour_is_kept_in_a_folder(served: Any, tmp_path: Path) -> None:
    given, engine = served("sip", "--colour", f"auto:{tmp_path / 'kept'}")
    assert given["kept_colours"] is not None
    assert (tmp_path / "kept").is_dir()
    assert engine["colour"] == "auto"


@pytest.mark.parametrize("face", FACES)
def test_what_is_no_network_takes_no_calls(face: str) -> None:
    arguments = ["call", face, *NEEDED[face], "--listen", "127.0.0.1:0", "--model", "replicate"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stderr == (
        "rtsr: Calls need a network, and 'replicate' is none: small-int8, small, or the path of an "
        ".onnx file.\n"
    )
