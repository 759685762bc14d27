"""Files that appear when they are whole: names of any kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtsr.whole_file import write_whole


@pytest.mark.parametrize("letter", ["a", "é", "音", "🎵"])
def test_a_name_may_be_as_long_as_the_system_allows(letter: str, tmp_path: Path) -> None:
    path = tmp_path / (letter * (250 // len(letter.encode())) + ".json")
    write_whole(path, "{}")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "{}"
