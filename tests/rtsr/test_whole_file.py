"""Files that appear when they are whole: names of any kind."""

from __future__ import annotations

import re
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


def test_a_missing_folder_is_named_also_behind_a_link(tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(Path("nowhere", "out.json"))
    missing = tmp_path / "nowhere"
    for path in (link, missing / "out.json"):
        with pytest.raises(RtsrError, match=f"There is no folder '{re.escape(str(missing))}'"):
            check_writable(path)
