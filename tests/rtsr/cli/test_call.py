"""What `rtsr call` makes of its options; no server is started."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

pytest.importorskip("aiortc", reason='calls need the extra "call", and Python 3.11 or newer')

from rtsr.cli.app import app

NEEDED = {"web": (), "sip": ("--to", "sip:desk@127.0.0.1")}


@pytest.mark.parametrize("face", NEEDED)
def test_what_is_no_network_takes_no_calls(face: str) -> None:
    arguments = ["call", face, *NEEDED[face], "--listen", "127.0.0.1:0", "--model", "replicate"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stderr == (
        "rtsr: Calls need a network, and 'replicate' is none: small-int8, small, or the path of an "
        ".onnx file.\n"
    )
