"""Make two corpora of one, to see what a model owes to sources that it has learnt from.

    python examples/leave_out_sources.py CORPUS OUT gcompris 0ad-data naev-data

In both, half of the groups (column ``speaker_or_group``, or else files) of every source that has
one of these words in its column ``source`` are ``valid``, and nothing else is. In ``OUT/with`` the
other half of them is ``train``, in ``OUT/without`` no model is trained on it. The sounds are not
copied, both link to those of CORPUS. Models trained alike on the two and scored on them differ by
what knowing the source is worth.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from corpus_manifest import link_sounds, read_listed, write_rows

from rtsr.errors import RtsrError

NEEDED = ("path", "split", "source")
UNUSED = "unused"


def scored_paths(rows: Sequence[dict[str, str]], words: Sequence[str]) -> tuple[set[str], set[str]]:
    """Paths of `train` rows from the named sources: those to score, and the others.

    Every second group is scored, in each domain for itself.
    """
    scored: set[str] = set()
    others: set[str] = set()
    for word in words:
        found = [row for row in rows if row["split"] == "train" and word in row["source"]]
        if not found:
            raise RtsrError(f"No source of the train split has {word!r} in its name.")
        numbers: dict[str, dict[str, int]] = {}
        for row in found:
            groups = numbers.setdefault(row.get("domain", ""), {})
            group = row.get("speaker_or_group") or row["path"]
            number = groups.setdefault(group, len(groups))
            (others if number % 2 else scored).add(row["path"])
    return scored, others - scored


def write_corpus(
    corpus: Path, out: Path, rows: Sequence[dict[str, str]], splits: dict[str, str]
) -> None:
    """Write a corpus that links to the sounds of `corpus`, with other splits; no path: not used."""
    out.mkdir(parents=True, exist_ok=True)
    link_sounds(corpus, out, rows)
    split_rows = ({**row, "split": splits.get(row["path"], UNUSED)} for row in rows)
    write_rows(out, list(rows[0]), split_rows)


def leave_out(corpus: Path, out: Path, words: Sequence[str]) -> None:
    rows = read_listed(corpus, NEEDED)
    scored, others = scored_paths(rows, words)
    left = {row["path"] for row in rows if row["split"] == "train"} - scored - others
    without = dict.fromkeys(left, "train") | dict.fromkeys(scored, "valid")
    write_corpus(corpus, out / "without", rows, without)
    write_corpus(corpus, out / "with", rows, without | dict.fromkeys(others, "train"))
    print(f"{len(scored)} files to score; {len(left)} train files without, +{len(others)} with.")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path, metavar="CORPUS")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("words", nargs="+", metavar="SOURCE", help="part of a source's name")
    options = parser.parse_args()
    try:
        leave_out(options.corpus, options.out, options.words)
    except (RtsrError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
