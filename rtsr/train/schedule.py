"""Progress of a stage: by the clock, or by counted steps where runs are to be compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

STAGES = ("autoencoder", "flow", "levels", "refinement")
AUTOENCODER, FLOW, LEVELS, REFINEMENT = range(len(STAGES))


class Schedule(Protocol):
    """Decides when a stage is over; learning rates follow the same number."""

    def share_done(self, stage: int, steps: Sequence[int], minutes: float) -> float:
        """Return the share of a stage that is done, one or more once it is over.

        Args:
            stage: index of the stage that is under way.
            steps: taken so far, per stage.
            minutes: age of the run.
        """

    def has_more_after(self, stage: int) -> bool:
        """Say whether another stage follows."""

    def share_of_run(self, steps: Sequence[int], minutes: float) -> float:
        """Return the share of the whole run that is done."""


class ByMinutes:
    """Stages share the minutes of a run; ``first`` is the stage that it begins with."""

    def __init__(self, shares: Sequence[float], minutes: float, first: int = 0) -> None:
        taken = [share if stage >= first else 0.0 for stage, share in enumerate(shares)]
        if not sum(taken):
            # The shares leave out all that is left to do: the last stage takes everything.
            taken[-1] = 1.0
        self._borders = [
            minutes * sum(taken[:stage]) / sum(taken) for stage in range(len(STAGES) + 1)
        ]

    def share_done(self, stage: int, steps: Sequence[int], minutes: float) -> float:
        """Return the share of a stage's minutes that have passed."""
        begin, end = self._borders[stage : stage + 2]
        return (minutes - begin) / (end - begin) if end > begin else 1.0

    def has_more_after(self, stage: int) -> bool:
        """Say whether another stage follows."""
        return stage < len(STAGES) - 1

    def share_of_run(self, steps: Sequence[int], minutes: float) -> float:
        """Return the share of the run's minutes that have passed."""
        return minutes / self._borders[-1]


class BySteps:
    """Each stage takes its own number of steps, however long that takes; 0 leaves a stage out.

    ``first`` is the stage that the run begins with.
    """

    def __init__(self, steps: Sequence[int], first: int = 0) -> None:
        self._steps, self._first = tuple(steps), first

    def share_done(self, stage: int, steps: Sequence[int], minutes: float) -> float:
        """Return the share of a stage's steps that are done."""
        wanted = self._steps[stage]
        return steps[stage] / wanted if wanted else 1.0

    def has_more_after(self, stage: int) -> bool:
        """Say whether another stage with steps follows."""
        return any(self._steps[stage + 1 :])

    def share_of_run(self, steps: Sequence[int], minutes: float) -> float:
        """Return the share of the steps of all stages that are taken."""
        wanted = self._steps[self._first :]
        if not any(wanted):
            return 1.0
        return sum(map(min, wanted, steps[self._first :])) / sum(wanted)
