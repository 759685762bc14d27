"""What a short time on a machine is spent on: items, the most valuable first.

Whenever the time is over, what has been measured answers as much as could be answered in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rtsr.runtime.providers.options import CUDA
from rtsr_bench.speed.matrix import HOP_MS, Case, counted

PARITY, STEPS, SEARCH = "parity", "steps", "search"
TF32 = "tf32"
HOPS = (1, 2, 4)
STREAMS = (1, 16, 64, 256, 1024, 2048)
#: Streams that are measured first, after one.
_TELLING = (256, 1024)


@dataclass(frozen=True)
class Network:
    """A model in one precision.

    Attributes:
        name: of the model.
        precision: ``fp32``, ``fp16``, ``int8`` of its file, or ``tf32`` of its products.
        provider: with the options that this precision takes.
        file: of the model.
        threads: within a step, on a CPU.
    """

    name: str
    precision: str
    provider: str
    file: str
    threads: int = 1


@dataclass(frozen=True)
class Item:
    """One thing to be measured.

    Attributes:
        kind: ``parity``, ``steps``, or ``search`` for the most streams that fit.
        network: what is run.
        hops: of 10 ms per step.
        streams: in one batch.
        whole: whether resampling, detector, crossover and mixing are part of it, as in
            ``BatchUpsampler``, or only the step, as in ``OnnxStep``.
        paced: one step per period instead of one after another.
    """

    kind: str
    network: Network
    hops: int = 1
    streams: int = 1
    whole: bool = False
    paced: bool = False

    @property
    def period_ms(self) -> float:
        """Sound that a step takes in, and so the time that it may take."""
        return HOP_MS * self.hops

    @property
    def label(self) -> str:
        """A name for people; no two items of a plan have the same."""
        network = self.network
        parts = [f"{network.name} {network.precision} on {network.provider.partition(':')[0]}"]
        parts += [f"{self.period_ms:g} ms", "whole" if self.whole else "bare"]
        if self.kind == STEPS:
            parts += [counted(self.streams, "stream")] + ["paced"] * self.paced
        return f"{self.kind}: {', '.join(parts)}"

    def case(self, streams: int | None = None) -> Case:
        """Return the same as a case of the matrix."""
        network = self.network
        return Case(
            "model",
            network.name,
            network.provider,
            network.precision,
            self.hops,
            self.streams if streams is None else streams,
            network.threads,
            self.period_ms,
            {"file": network.file},
        )

    def identity(self) -> dict[str, Any]:
        """Return what is written into results: everything but the file's folder."""
        values = asdict(self)
        network = values.pop("network")
        del network["file"]
        return {"label": self.label, **network, **values, "period_ms": self.period_ms}


def with_tf32(networks: Iterable[Network]) -> list[Network]:
    """Return the same networks, and on CUDA those in fp32 once more with products in TF32."""
    found = []
    for network in networks:
        found.append(network)
        if network.precision == "fp32" and network.provider.partition(":")[0] == CUDA:
            found.append(replace(network, precision=TF32, provider=f"{network.provider}:tf32=on"))
    return found


def plan_items(
    networks: Sequence[Network], hops: Sequence[int] = HOPS, streams: Sequence[int] = STREAMS
) -> list[Item]:
    """All items, each once, the most valuable first.

    Args:
        networks: the first one is what the first minute is for.
        hops: per step; the first is what most is measured with.
        streams: in a batch.
    """
    main, others = networks[0], networks[1:]
    first_hops = hops[0]

    def steps(network: Network, count: int, **rest: Any) -> Item:
        return Item(STEPS, network, **{"hops": first_hops, "streams": count, **rest})

    one = min(streams)
    some = [count for count in _TELLING if count in streams]
    items = [Item(PARITY, main, first_hops)]
    items += [steps(main, one), steps(main, one, whole=True)]
    items += [steps(main, count) for count in some]
    items += [
        steps(main, count, whole=True) for count in streams if one < count <= min(some or [1])
    ]
    items += [steps(main, one, paced=True)]
    items += [Item(SEARCH, main, first_hops, whole=whole) for whole in (False, True)]
    for network in others:
        items += [Item(PARITY, network, first_hops), steps(network, one)]
    items += [Item(PARITY, main, count) for count in hops[1:]]
    items += [steps(main, one, hops=count) for count in hops[1:]]
    items += [steps(main, count, whole=whole) for whole in (False, True) for count in streams]
    items += [Item(SEARCH, network, first_hops) for network in others]
    items += [steps(main, count, paced=True, whole=True) for count in (one, *some)]
    everything = [
        steps(network, count, hops=hop, whole=whole, paced=paced)
        for paced in (False, True)
        for network in networks
        for hop in hops
        for whole in (False, True)
        for count in sorted(streams)
    ]
    return list(dict.fromkeys([*items, *everything]))
