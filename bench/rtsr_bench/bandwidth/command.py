"""``rtsr bench bandwidth``: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def bandwidth_command(
    corpora: Annotated[
        list[Path],
        typer.Argument(metavar="CORPUS...", help="Folders of recordings, as for rtsr train."),
    ],
    minutes: Annotated[
        float,
        typer.Option(
            min=0.5, max=1440.0, help="Minutes of streams that do not change, in each domain."
        ),
    ] = 60.0,
    every: Annotated[
        int, typer.Option(min=1, metavar="N", help="Change only every N-th recording.")
    ] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write all values.")] = None,
) -> None:
    """Say how soon the detector notices a change of bandwidth, and how often it errs.

    Every full-band recording of speech and music becomes a stream that
    changes between resamplers, Opus, G.711 and MP3; besides, streams that
    do not change.
    """
    from dataclasses import asdict

    from rtsr.errors import RtsrError, warn
    from rtsr_bench.bandwidth.streams import full_band_clips
    from rtsr_bench.bandwidth.tracking import (
        DOMAINS,
        Switched,
        Unchanged,
        switch_table,
        track_switches,
        track_unchanged,
        unchanged_table,
    )
    from rtsr_bench.corpus import list_clips
    from rtsr_bench.files import check_writable, write_json
    from rtsr_bench.progress import shown_progress

    check_writable(json_file)
    clips = [clip for folder in corpora for clip in list_clips(folder)]
    listed = {domain: full_band_clips(clips, domain) for domain in DOMAINS}
    wanted = {domain: found for domain, (found, _) in listed.items()}
    left_out = [sentence for _, sentences in listed.values() for sentence in sentences]
    if left_out:
        warn(f"{len(left_out)} of the recordings are left out: {' '.join(left_out)}")
    if not any(wanted.values()):
        raise RtsrError("No valid recording of speech or music in these corpora reaches 18 kHz.")
    switched: list[Switched] = []
    unchanged: list[Unchanged] = []
    with shown_progress() as show:
        for domain, some in wanted.items():
            if some:
                switched += track_switches(some[::every], domain, show=show)
                unchanged += track_unchanged(some, domain, minutes, show=show)
    typer.echo(f"Seconds until a change is noticed\n\n{switch_table(switched)}\n")
    typer.echo(f"Streams that do not change\n\n{unchanged_table(unchanged)}")
    if json_file is not None:
        values = {
            "switched": [asdict(one) for one in switched],
            "unchanged": [asdict(one) for one in unchanged],
        }
        write_json(json_file, values)
