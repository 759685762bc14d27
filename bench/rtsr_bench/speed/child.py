"""``python -m rtsr_bench.speed.child``: one repetition in a process of its own.

A job comes on stdin and the answer goes to the file that it names, both JSON: libraries may print
to stdout what they like. Nothing is imported that a user's program would not import, because the
time it takes is part of the cold start.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rtsr.errors import RtsrError
from rtsr_bench.speed.matrix import Case
from rtsr_bench.speed.measure import Protocol, measure


def main() -> None:
    """Do the job of stdin."""
    job = json.load(sys.stdin)
    try:
        answer = measure(Case(**job["case"]), Protocol(**job["protocol"]), job["launched_ns"])
    except RtsrError as error:
        answer = {"error": str(error)}
    except MemoryError:
        answer = {"error": "There is not enough memory for it."}
    Path(job["answer"]).write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main()
