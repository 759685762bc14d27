"""Values that no sub-command can do anything with, of options that take numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["quality", ".", "--out", "report", "--seconds", "inf"], "'--seconds'"),
        (["baseline", ".", "--seconds-per-file", "0"], "'--seconds-per-file'"),
        (["baseline", ".", "--seconds-per-file", "nan"], "'--seconds-per-file'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_numbers_out_of_range_are_refused(
    bench: Any, arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = bench(*arguments)
    assert done.exit_code == 2
    assert done.stderr.startswith("rtsr: ")
    assert sentence in done.stderr
    assert list(tmp_path.iterdir()) == []
