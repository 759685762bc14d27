"""``python -m rtsr_bench.speed.worker``: takes jobs from stdin and answers on stdout, a line each.

Nothing is imported at first that a user's program would not import, because the time it takes is
part of the cold start.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from typing import Any

from rtsr.errors import RtsrError
from rtsr_bench.speed.matrix import Case
from rtsr_bench.speed.measure import Protocol, measure


def answer_to(job: dict[str, Any]) -> dict[str, Any]:
    """Do a job: a repetition where it has a protocol, else a check of parity."""
    try:
        case = Case(**job["case"])
        if "protocol" in job:
            return measure(case, Protocol(**job["protocol"]), job["launched_ns"])
        from rtsr_bench.speed.parity import compare

        return compare(case)
    except RtsrError as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": "There is not enough memory for it."}
    # ONNX Runtime's errors have no common base, and a device that failed once may fail for good.
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        return {"error": f"{type(error).__name__}: {text}", "is_broken": True}


def main() -> None:
    """Answer the jobs of stdin until it ends."""
    # Libraries may print to stdout what they like; the answers have a way of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(answer_to(json.loads(line))), file=answers, flush=True)
        gc.collect()


if __name__ == "__main__":
    main()
