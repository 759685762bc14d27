"""A base class for objects that are context managers and close themselves at the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import TypeVar

_Closing = TypeVar("_Closing", bound="Closing")


class Closing(ABC):
    """Something that is a context, at whose end it is closed."""

    # None of its own, so that a subclass may forbid unknown attributes.
    __slots__ = ()

    @abstractmethod
    def close(self) -> None:
        """Let go of what was opened."""

    def __enter__(self: _Closing) -> _Closing:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
