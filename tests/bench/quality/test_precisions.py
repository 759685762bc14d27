"""Which clips are scored, and which models are others of less precision."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtsr_bench.corpus import Clip, first_clips
from rtsr_bench.quality.systems import original_of


@pytest.mark.parametrize(
    ("name", "original"),
    [("net-int8", "net"), ("net-fp16", "net"), ("net", None), ("other-int8", None),
     ("net-large", None)],
)  # fmt: skip
def test_the_model_in_full_precision_is_found(name: str, original: str | None) -> None:
    assert original_of(name, ["input", "net", "net-int8", "net-fp16", "net-large"]) == original


def test_clips_are_taken_from_every_domain() -> None:
    clips = [
        Clip(f"{domain}/{index}", Path("x"), domain)
        for index in range(3)
        for domain in ("music", "speech")
    ]
    chosen = [clip.name for clip in first_clips(clips, 2)]
    assert chosen == ["speech/0", "speech/1", "music/0", "music/1"]
    assert len(first_clips(clips, None)) == 6
