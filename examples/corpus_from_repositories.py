"""Build a corpus of voices from public repositories, for ``rtsr train``.

    python examples/corpus_from_repositories.py CORPUS                    # every source of the list
    python examples/corpus_from_repositories.py CORPUS openhv gcompris
    python examples/corpus_from_repositories.py CORPUS --join RECORDINGS  # on top of another corpus
    python examples/corpus_from_repositories.py CORPUS --clones FOLDER    # what is cloned already

Needs ``git`` and ``rtsr[train]``. The list, ``corpus_repositories.toml`` beside this file, says
which files of a repository are whose voice, and under which licence. Of each repository only the
newest commit's names and the files that are needed are downloaded, and they are removed again. What
is kept lies in ``CORPUS/voices``, one channel at the rate it had: FLAC where the source is
lossless, Vorbis where it is not. ``CORPUS/manifest.csv`` lists it with its licence and its measured
cutoff; the files that state the licences lie in ``CORPUS/copyright``. Stopped and started again, it
goes on with the next source.

The split is by repository: everything from one is in ``train`` or in ``valid``. With ``--join`` the
recordings of another corpus (one with a manifest) are listed too, with their splits; then all that
is new is in ``train``, and repositories that the other's ``valid`` split has anything from are left
out.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from corpus_manifest import describe, join, write_beside, write_splits
from git_files import RepositoryFiles, open_repository
from voice_recordings import Limits, keep_voices

from rtsr.errors import RtsrError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LIST = Path(__file__).with_name("corpus_repositories.toml")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Source:
    """One entry of the list.

    Attributes:
        name: of this entry; also the beginning of its files' names.
        repository: ``owner/name`` on GitHub, or any URL or folder that git can read.
        licence: of the recordings.
        stated: the file in the repository that states the licence.
        voices: patterns of whole paths; what the group ``voice`` of one matches names the voice.
        commit: take this one, not the newest.
        files: at most so many of one voice are downloaded; words of under a second fill a minute.
        lossy: they went through a lossy coder before, whatever their suffix says.
    """

    name: str
    repository: str
    licence: str
    stated: str
    voices: tuple[re.Pattern[str], ...]
    commit: str = "HEAD"
    files: int = 120
    lossy: bool = False


TYPES = {str: "text", list: "a list", int: "a whole number", bool: "true or false"}
#: What a list may say, and as which type.
KEYS = {
    "name": str,
    "repository": str,
    "licence": str,
    "stated": str,
    "voices": list,
    "commit": str,
    "files": int,
    "lossy": bool,
}


def read_list(path: Path) -> dict[str, Source]:
    """Read the entries of a list by their names; raise RtsrError for one that is not right."""
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8")).get("source")
    except OSError as error:
        raise RtsrError(f"Cannot read {path}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RtsrError(f"{path} is not a TOML file: {error}.") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise RtsrError(f"{path} has no [[source]]; the list beside this script shows how to.")
    sources: dict[str, Source] = {}
    for number, entry in enumerate(entries, 1):
        where = f"{path}, source {number} ({entry.get('name', 'no name')})"
        source = _source(entry, where)
        if source.name in sources:
            raise RtsrError(f"{where}: an earlier source has this name too.")
        sources[source.name] = source
    return sources


def _source(entry: dict[str, Any], where: str) -> Source:
    needed = [field.name for field in fields(Source) if field.default is MISSING]
    missing = [key for key in needed if key not in entry]
    if missing:
        raise RtsrError(f"{where} has no '{missing[0]}'.")
    for key, value in entry.items():
        if key not in KEYS:
            raise RtsrError(f"{where} has a key '{key}', which is none of {', '.join(KEYS)}.")
        if type(value) is not KEYS[key]:
            raise RtsrError(f"{where}: '{key}' is not {TYPES[KEYS[key]]}.")
    if not NAME.fullmatch(entry["name"]):
        raise RtsrError(f"{where}: a name has letters, digits, '-' and '_' only.")
    try:
        voices = tuple(re.compile(pattern) for pattern in entry["voices"])
    except (re.error, TypeError) as error:
        raise RtsrError(f"{where}: a pattern of 'voices' cannot be used: {error}.") from error
    if not voices or entry.get("files", 1) < 1:
        raise RtsrError(f"{where}: 'voices' and 'files' must ask for one file at least.")
    return Source(**{**entry, "voices": voices})


def choose(source: Source, paths: Sequence[str]) -> dict[str, list[str]]:
    """Paths of each voice, evenly from all of them if there are too many."""
    voices: dict[str, list[str]] = {}
    for path in sorted(paths):
        matches = (pattern.fullmatch(path) for pattern in source.voices)
        match = next((match for match in matches if match), None)
        if match:
            voice = match.groupdict().get("voice") or ""
            voices.setdefault(re.sub(r"[^\w]+", "-", voice).strip("-"), []).append(path)
    for voice, found in voices.items():
        if len(found) > source.files:
            picks = [len(found) * index // source.files for index in range(source.files)]
            voices[voice] = [found[pick] for pick in picks]
    return voices


def build_source(folder: Path, source: Source, clones: Path | None, limits: Limits) -> None:
    """Keep one source's voices and note them in ``repositories/NAME.json``."""
    work = folder / ".work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        repository = open_repository(source.repository, source.commit, clones, work)
        commit = repository.commit_name()
        files, statement = fetch_voices(repository, source, work)
        (folder / "copyright").mkdir(exist_ok=True)
        (folder / "copyright" / f"{source.name}.txt").write_bytes(statement)
        kept = keep_voices(files, folder / "voices", source.name, limits, lossy=source.lossy)
    finally:
        shutil.rmtree(work)
    entry = {
        "source": source.repository,
        "title": source.repository,
        "commit": commit,
        "rows": [{**one.row(folder), "licence": source.licence} for one in kept],
    }
    write_beside(folder / "repositories" / f"{source.name}.json", json.dumps(entry, indent=1))


def fetch_voices(
    repository: RepositoryFiles, source: Source, folder: Path
) -> tuple[dict[str, list[Path]], bytes]:
    """Files of each voice, written to `folder`, and the content of the one about the licence."""
    contents = repository.list()
    if source.stated not in contents:
        raise RtsrError(f"{source.repository} has no {source.stated}, which states the licence.")
    voices = choose(source, list(contents))
    if not voices:
        raise RtsrError(f"{source.repository} has no file that a pattern of the list fits.")
    # The same content under two names, or as two voices, counts once. The suffix says what it is.
    places = {
        contents[path]: (voice, folder / f"{contents[path]}{Path(path).suffix.lower()}")
        for voice, paths in voices.items()
        for path in paths
    }
    files: dict[str, list[Path]] = {voice: [] for voice in voices}
    statement = b""
    for name, content in repository.read([contents[source.stated], *places]):
        if name == contents[source.stated]:
            statement = content
            continue
        voice, path = places[name]
        path.write_bytes(content)
        files[voice].append(path)
    return files, statement


def read_built(folder: Path) -> list[dict[str, Any]]:
    paths = sorted((folder / "repositories").glob("*.json"))
    return [json.loads(path.read_text()) for path in paths]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="where the corpus is made")
    parser.add_argument("sources", nargs="*", help="names from the list; default: all")
    parser.add_argument("--list", type=Path, default=LIST, help=f"default: {LIST.name}")
    parser.add_argument("--clones", type=Path, help="has OWNER/NAME.git or OWNER/NAME already")
    parser.add_argument("--join", type=Path, help="a corpus with a manifest to build on")
    parser.add_argument("--valid-share", type=float, default=0.06, help="of the repositories")
    parser.add_argument("--lowest-cutoff", type=float, default=11000.0, help="Hz; less is dropped")
    parser.add_argument("--voice-seconds", type=float, default=90.0, help="at most, per voice")
    parser.add_argument("--source-minutes", type=float, default=10.0, help="at most, per source")
    return parser.parse_args()


def build(options: argparse.Namespace) -> bool:
    """Build what is asked for and not there yet; returns whether all of it could be had."""
    folder: Path = options.folder
    listed = read_list(options.list)
    unknown = [name for name in options.sources if name not in listed]
    if unknown:
        raise RtsrError(f"{options.list} has no source '{unknown[0]}'.")
    if options.clones is not None and not options.clones.is_dir():
        raise RtsrError(f"{options.clones} is not a folder; give one with clones in it.")
    (folder / "repositories").mkdir(parents=True, exist_ok=True)
    joined = join(folder, options.join, {"voices", "repositories"}) if options.join else []
    taken = [row.get("source") or "" for row in joined if row.get("split") == "valid"]
    limits = Limits(options.voice_seconds, 60 * options.source_minutes, options.lowest_cutoff)
    complete = True
    for source in [listed[name] for name in options.sources or listed]:
        if (folder / "repositories" / f"{source.name}.json").exists():
            continue
        if any(source.repository.lower() in title.lower() for title in taken):
            print(f"{source.name}: left out, in the valid split of {options.join}")
            continue
        try:
            build_source(folder, source, options.clones, limits)
        except RtsrError as error:
            print(f"{source.name}: {error}", file=sys.stderr)
            complete = False
            continue
        write_splits(folder, read_built(folder), options.valid_share, joined)
        print(f"{source.name}: {describe(folder)}", flush=True)
    write_splits(folder, read_built(folder), options.valid_share, joined)
    print(describe(folder) or "Nothing was kept.")
    return complete


def main() -> int:
    try:
        return 0 if build(parse()) else 2
    except (RtsrError, OSError) as error:
        print(f"corpus_from_repositories: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
