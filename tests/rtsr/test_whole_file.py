"""Files that appear when they are whole: names of any kind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rtsr.errors import RtsrError
from rtsr.whole_file import check_writable, write_whole


@pytest.mark.parametrize("letter", ["a", "é", "音", "🎵"])
def test_a_name_may_be_as_long_as_the_system_allows(letter: str, tmp_path: Path) -> None:
    path = tmp_path / (letter * (250 // len(letter.encode())) + ".json")
    write_whole(path, "{}")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "{}"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are Unicode")
def test_a_name_beyond_the_locale_is_written(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from rtsr.whole_file import write_whole;"
        "write_whole(Path(sys.argv[1]), '{}')"
    )
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "grün.json"],
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
    )
    assert done.stderr == b""
    assert list(tmp_path.iterdir()) == [tmp_path / "grün.json"]


def test_a_missing_folder_is_named_also_behind_a_link(tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(Path("nowhere", "out.json"))
    missing = tmp_path / "nowhere"
    for path in (link, missing / "out.json"):
        with pytest.raises(RtsrError, match=f"There is no folder '{re.escape(str(missing))}'"):
            check_writable(path)
