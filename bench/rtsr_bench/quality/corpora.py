"""The corpora of a quality report: which of their clips are scored, as which files, which not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile

from rtsr.audio.reader import native_name
from rtsr.errors import ArgumentError, RtsrError
from rtsr_bench.corpus import (
    DOMAINS,
    Clip,
    WorkFolderError,
    first_clips,
    folder_for,
    list_clips,
    prepare_inputs,
    prepare_references,
)
from rtsr_bench.progress import Show

#: What is shorter has no frames to score by once it is aligned.
SHORTEST_SECONDS = 0.25


@dataclass(frozen=True)
class Corpus:
    """The valid clips of one corpus, as the files that are scored.

    Attributes:
        name: of the corpus's folder.
        folder: where the files lie.
        clips: those that are scored.
        references: the loudest part of each clip, by the clip's name.
        inputs: what the systems get of each clip, by cutoff in Hz and the clip's name.
        left_out: why clips are not scored, by the clip's name.
    """

    name: str
    folder: Path
    clips: list[Clip]
    references: dict[str, Path]
    inputs: dict[float, dict[str, Path]]
    left_out: dict[str, str]


def check_names(sources: Sequence[Path]) -> None:
    """Raise :class:`ArgumentError` where two corpora of a report would be called alike."""
    for name, times in Counter(source.resolve().name for source in sources).items():
        if times > 1:
            raise ArgumentError(
                f"Two corpora of the report would be called {name!r}; rename one of the folders."
            )


def prepare_corpus(
    source: Path,
    cutoffs: Sequence[float],
    work: Path,
    seconds: float,
    domains: Sequence[str] = (),
    limit: int | None = None,
    show: Show = lambda what, done, total: None,
) -> Corpus:
    """Write references and inputs of the chosen clips; files that are there already are kept.

    Args:
        source: folder as :func:`~rtsr_bench.corpus.list_clips` takes it.
        cutoffs: of the inputs in Hz.
        work: gets a folder for the corpus.
        seconds: of each clip, its loudest part.
        domains: to score; all if there are none.
        limit: clips of each domain.
        show: told of the progress.

    Raises:
        RtsrError: the folder is no corpus, nothing is left of it, or ``work`` cannot be written to.
    """
    name = source.resolve().name
    listed = list_clips(source)
    chosen = first_clips([c for c in listed if not domains or c.domain in domains], limit)
    if not chosen:
        raise ArgumentError(
            f"The corpus {name!r} has no valid clips of {' or '.join(domains)}; "
            f"--domain is one of {', '.join(DOMAINS)}."
        )
    # Clips of another corpus may have the same names; those of a part of it are the same files.
    folder = folder_for(listed, work)
    references: dict[str, Path] = {}
    left_out: dict[str, str] = {}
    for done, clip in enumerate(chosen):
        show(f"clips of {name}", done, len(chosen))
        try:
            references |= _prepare_reference(clip, folder / f"references-{seconds:g}s", seconds)
        except WorkFolderError:
            raise
        # The first is what soundfile raises for what it cannot decode.
        except (RuntimeError, OSError, RtsrError) as error:
            left_out[clip.name] = _reason(error, clip)
    if not references:
        first, why = next(iter(left_out.items()))
        raise RtsrError(f"No clip of the corpus {name!r} can be scored; {first}: {why}.")
    inputs = {}
    for done, hz in enumerate(cutoffs):
        show(f"inputs of {name}", done, len(cutoffs))
        inputs[hz] = prepare_inputs(references, folder / f"inputs-{seconds:g}s" / f"{hz:g}", hz)
    scored = [clip for clip in chosen if clip.name in references]
    return Corpus(name, folder, scored, references, inputs, left_out)


def _prepare_reference(clip: Clip, folder: Path, seconds: float) -> Mapping[str, Path]:
    # Looked at first: a file that cannot be used must not become a reference.
    duration = soundfile.info(native_name(clip.path)).duration
    if duration < SHORTEST_SECONDS:
        raise RtsrError(f"{duration:.2f} s long, at least {SHORTEST_SECONDS:g} s are needed")
    return prepare_references([clip], folder, seconds)


def _reason(error: Exception, clip: Clip) -> str:
    """Return what stopped a clip, without the folders of this machine."""
    if isinstance(error, RtsrError):
        return str(error)
    if not clip.path.is_file():
        return "the file is missing"
    return "the file cannot be read as audio"
