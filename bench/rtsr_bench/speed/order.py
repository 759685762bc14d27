"""What is measured in which order: turns for a matrix, the most valuable first for a budget.

Repetitions of a case do not follow each other: each round takes every case once, so that a machine
that slows down for a minute shows as spread in all cases and not as a slow case.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rtsr.runtime.providers.options import CUDA
from rtsr.timing import HOP_MS
from rtsr_bench.speed.matrix import TF32, Case

PARITY, STEPS, SEARCH = "parity", "steps", "search"
#: Streams that a budget is spent on.
STREAMS = (1, 16, 64, 256, 1024, 2048)
#: Of these, what is measured first, after one.
_TELLING = (256, 1024)


@dataclass(frozen=True)
class Item:
    """One thing to be measured.

    Attributes:
        kind: ``parity``, ``steps``, or ``search`` for the most streams that fit.
        case: of what.
    """

    kind: str
    case: Case

    @property
    def label(self) -> str:
        """A name for people."""
        return f"{self.kind}: {self.case.label if self.kind == STEPS else self.case.search_label}"


def in_turns(
    cases: Sequence[Case], searches: Sequence[Case] = (), repetitions: int = 5
) -> list[Item]:
    """List rounds over all cases, then the searches."""
    rounds = [Item(STEPS, case) for _ in range(repetitions) for case in cases]
    return rounds + [Item(SEARCH, case) for case in searches]


def with_tf32(cases: Iterable[Case]) -> list[Case]:
    """Return the same cases, and on CUDA those in fp32 once more with products in TF32."""
    found = []
    for case in cases:
        found.append(case)
        if case.precision == "fp32" and case.provider.partition(":")[0] == CUDA:
            joint = "," if ":" in case.provider else ":"
            found.append(replace(case, precision=TF32, provider=f"{case.provider}{joint}tf32=on"))
    return found


def most_valuable_first(
    networks: Sequence[Case], hops: Sequence[int], streams: Sequence[int] = STREAMS
) -> list[Item]:
    """All items, each once, the most valuable first.

    Whenever the time is over, what has been measured answers as much as could be answered in it.

    Args:
        networks: a case of each; the first one is what the first minute is for.
        hops: per step; the first is what most is measured with.
        streams: in a batch.
    """
    main, others = networks[0], networks[1:]
    one = min(streams)
    some = [count for count in _TELLING if count in streams]

    def item(kind: str, network: Case, hop: int = hops[0], count: int = 1, **ways: Any) -> Item:
        case = replace(network, hops=hop, period_ms=HOP_MS * hop, streams=count, **ways)
        return Item(kind, case)

    def steps(network: Case, count: int, hop: int = hops[0], **ways: Any) -> Item:
        return item(STEPS, network, hop, count, **ways)

    items = [item(PARITY, main), steps(main, one), steps(main, one, whole=True)]
    items += [steps(main, count) for count in some]
    items += [
        steps(main, count, whole=True) for count in streams if one < count <= min(some or [1])
    ]
    items += [steps(main, one, paced=True)]
    items += [item(SEARCH, main, whole=whole) for whole in (False, True)]
    for network in others:
        items += [item(PARITY, network), steps(network, one)]
    for hop in hops[1:]:
        items += [item(PARITY, main, hop), steps(main, one, hop)]
    items += [steps(main, count, whole=whole) for whole in (False, True) for count in streams]
    items += [item(SEARCH, network) for network in others]
    items += [steps(main, count, paced=True, whole=True) for count in (one, *some)]
    everything = [
        steps(network, count, hop, whole=whole, paced=paced)
        for paced in (False, True)
        for network in networks
        for hop in hops
        for whole in (False, True)
        for count in sorted(streams)
    ]
    return list(dict.fromkeys([*items, *everything]))
