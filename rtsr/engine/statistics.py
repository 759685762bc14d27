"""What a stream did so far: step times and counted repairs, recorded without allocation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_KEPT_STEPS = 1 << 16


@dataclass(frozen=True)
class StepTimes:
    """Time of one step of the engine in milliseconds.

    ``first`` and ``max`` are over all steps, the percentiles over the newest that were kept.
    """

    first: float = 0.0
    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    p99_9: float = 0.0
    max: float = 0.0


class Statistics:
    """Counters of one stream; reading them never disturbs it.

    Args:
        kept_steps: the newest so many step times are kept, for the percentiles.

    Attributes:
        steps: steps taken.
        added_steps: those of an `Upsampler` that added something to the dry signal; nothing else
            counts them.
        repaired_samples: input samples that were not numbers or absurdly large, replaced by 0.
        degraded_blocks: hops that came out without a high band, because the model's output for
            them was unusable.
        replicate_hops, dry_hops: hops that came out without the network, because a batch had no
            time for it.
        limited_samples: output samples that the limiter turned down, counted as they are taken.
        clipped_samples: 16-bit output samples that were held at full scale.
    """

    __slots__ = (
        "__weakref__",
        "_first",
        "_longest",
        "_nanoseconds",
        "_total",
        "added_steps",
        "clipped_samples",
        "degraded_blocks",
        "dry_hops",
        "limited_samples",
        "repaired_samples",
        "replicate_hops",
        "steps",
    )

    def __init__(self, kept_steps: int = _KEPT_STEPS) -> None:
        self._nanoseconds = np.zeros(kept_steps, np.int64)
        self.clear()

    def clear(self) -> None:
        """Set all counters to zero."""
        self.steps = 0
        self.added_steps = 0
        self.repaired_samples = 0
        self.degraded_blocks = 0
        self.replicate_hops = 0
        self.dry_hops = 0
        self.limited_samples = 0
        self.clipped_samples = 0
        self._first = 0
        self._longest = 0
        self._total = 0

    def record_step(self, nanoseconds: int) -> None:
        """Count one step."""
        self._nanoseconds[self.steps % len(self._nanoseconds)] = nanoseconds
        if self.steps == 0:
            self._first = nanoseconds
        if nanoseconds > self._longest:
            self._longest = nanoseconds
        self._total += nanoseconds
        self.steps += 1

    @property
    def compute_seconds(self) -> float:
        """Time spent in steps."""
        return self._total * 1e-9

    @property
    def step_ms(self) -> StepTimes:
        """Percentiles of the step time; all zero before the first step."""
        if not self.steps:
            return StepTimes()
        kept = self._nanoseconds[: min(self.steps, len(self._nanoseconds))]
        p50, p95, p99, p99_9 = np.percentile(kept, [50, 95, 99, 99.9]) * 1e-6
        return StepTimes(
            first=self._first * 1e-6,
            p50=float(p50),
            p95=float(p95),
            p99=float(p99),
            p99_9=float(p99_9),
            max=self._longest * 1e-6,
        )
