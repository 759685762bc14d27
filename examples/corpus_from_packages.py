"""Build a corpus of full-band recordings from Debian packages, for ``rtsr train``.

    python examples/corpus_from_packages.py CORPUS                       # every package of the list
    python examples/corpus_from_packages.py CORPUS oxygen-sounds xmoto-data
    python examples/corpus_from_packages.py CORPUS --join RECORDINGS     # on top of another corpus

Needs a Debian (or a relative of it) with ``apt-get`` and ``dpkg-deb``, and ``rtsr[train]``. Nothing
is installed: each package is downloaded, unpacked, searched for recordings and removed again. What
is kept lies in ``CORPUS/audio`` as FLAC (one channel, the rate it had), listed in
``CORPUS/manifest.csv`` with its licence and its measured cutoff; the packages' copyright files lie
in ``CORPUS/copyright``. Stopped and started again, it goes on with the next package.

The split is by source: everything from one source package is in ``train`` or in ``valid``. With
``--join`` the recordings of another corpus (one with a manifest) are listed too, with their splits;
then all that is new is in ``train``, and packages that the other's ``valid`` split has anything
from are left out.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from corpus_manifest import describe, join, write_beside, write_splits
from package_recordings import keep_recordings, licences_of

from rtsr.errors import RtsrError

LIST = Path(__file__).with_name("corpus_packages.txt")
#: What tells packages of one game apart, and versions of it.
PARTS_OF_NAMES = re.compile(r"[-.](data|music|sounds?|voices?|common|base|[0-9.]+|..)(?=[-.]|$)")


def read_list(path: Path) -> dict[str, str | None]:
    """Names of packages, each with the domain it mostly holds, or None."""
    lines = (line.split("#")[0].split() for line in path.read_text().splitlines())
    return {words[0]: (words[1] if len(words) > 1 else None) for words in lines if words}


def run(*command: str, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise RtsrError(f"{command[0]} is not here; run this on Debian or Ubuntu.") from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no message"])[-1]
        raise RtsrError(f"{' '.join(command[:2])} failed for {command[-1]}: {last}") from error
    return done.stdout


def family(name: str) -> str:
    """Name the family of packages: ``nexuiz-music`` and ``nexuiz-data`` are one."""
    return PARTS_OF_NAMES.sub("", name)


def source_of(package: str) -> str:
    """Return the source package's family; raise RtsrError for one that is unknown or not free."""
    facts = dict(
        line.split(": ", 1)
        for line in run("apt-cache", "show", "--no-all-versions", package).splitlines()
        if ": " in line and not line.startswith(" ")
    )
    if "/" in facts.get("Section", ""):
        raise RtsrError(f"{package} is not in Debian's main section; its licence may forbid use.")
    return family(facts.get("Source", package).split()[0])


def build_package(folder: Path, package: str, domain: str | None, options: object) -> None:
    """Keep one package's recordings and note them in ``packages/NAME.json``."""
    source = source_of(package)
    work = folder / ".work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    run("apt-get", "download", package, cwd=work)
    archive = next(work.glob("*.deb"))
    run("dpkg-deb", "--extract", str(archive), str(work / "tree"))
    archive.unlink()
    copyright_file = work / "tree" / "usr" / "share" / "doc" / package / "copyright"
    text = copyright_file.read_text(errors="replace") if copyright_file.is_file() else ""
    if text:
        (folder / "copyright").mkdir(exist_ok=True)
        (folder / "copyright" / f"{package}.txt").write_text(text)
    kept = keep_recordings(work / "tree", folder / "audio", package, domain, options)
    licence = licences_of(text)
    rows = [{**one.row(folder), "licence": licence(one.origin)} for one in kept]
    write_beside(
        folder / "packages" / f"{package}.json",
        json.dumps({"source": source, "rows": rows}, indent=1),
    )
    shutil.rmtree(work)


def write_manifest(folder: Path, valid_share: float, joined: list[dict[str, str]]) -> None:
    """List what was kept so far; packages that were built twice from one source share a split."""
    built = [
        {"title": f"Debian {path.stem}", **json.loads(path.read_text())}
        for path in sorted((folder / "packages").glob("*.json"))
    ]
    write_splits(folder, built, valid_share, joined)


def valid_families(rows: list[dict[str, str]]) -> set[str]:
    """Every word in the names of valid sources that could be a package's."""
    words: set[str] = set()
    for row in rows:
        if row.get("split") == "valid":
            words |= set(re.split(r"[^a-z0-9.-]+", (row.get("source") or "").lower()))
    return {family(word) for word in words} - {"", "debian", "history", "sample"}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="where the corpus is made")
    parser.add_argument("packages", nargs="*", help=f"default: all of {LIST.name}")
    parser.add_argument("--join", type=Path, help="a corpus with a manifest to build on")
    parser.add_argument("--exclude", nargs="*", default=[], help="packages to leave out")
    parser.add_argument("--gigabytes", type=float, default=2.0, help="stop when so much is kept")
    parser.add_argument("--valid-share", type=float, default=0.06, help="of the sources")
    parser.add_argument("--lowest-cutoff", type=float, default=16000.0, help="Hz; less is dropped")
    parser.add_argument("--music-minutes", type=float, default=40.0, help="at most, per package")
    parser.add_argument("--speech-minutes", type=float, default=60.0, help="at most, per package")
    parser.add_argument("--effects-minutes", type=float, default=20.0, help="at most, per package")
    return parser.parse_args()


def main() -> None:
    options = parse()
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "packages").mkdir(exist_ok=True)
    joined = join(folder, options.join, {"audio", "packages"}) if options.join else []
    taken = valid_families(joined)
    listed = read_list(LIST)
    for package in options.packages or listed:
        if (folder / "packages" / f"{package}.json").exists() or package in options.exclude:
            continue
        if family(package) in taken:
            print(f"{package}: left out, in the valid split of {options.join}")
            continue
        kept = sum(path.stat().st_size for path in folder.glob("audio/*/*.flac"))
        if kept > options.gigabytes * 1e9:
            print(f"Stopped before {package}: {kept / 1e9:.2f} GB are kept.")
            break
        try:
            build_package(folder, package, listed.get(package), options)
        except RtsrError as error:
            print(f"{package}: {error}", file=sys.stderr)
            continue
        write_manifest(folder, options.valid_share, joined)
        print(f"{package}: {describe(folder)}", flush=True)
    write_manifest(folder, options.valid_share, joined)
    print(describe(folder) or "Nothing was kept.")


if __name__ == "__main__":
    try:
        main()
    except RtsrError as error:
        sys.exit(f"corpus_from_packages: {error}")
