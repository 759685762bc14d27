"""What can be timed: something that takes steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any


class Target(ABC):
    """Something that takes one step of sound at a time, for all its streams together."""

    provider: str
    """What it really runs on."""

    @abstractmethod
    def step(self) -> Any:
        """Take the next hop of every stream; the result lies in host memory."""

    def close(self) -> None:  # noqa: B027 - most have nothing to let go of
        """Let go of what does not go with the object."""
