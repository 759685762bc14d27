"""Errors that rtsr raises on purpose.

Every message is one sentence a user can act on: what was wrong, what is accepted, what to do.
The command line prints it after ``rtsr:`` and exits with code 2; anything else that escapes is a
bug.
"""

from __future__ import annotations

import warnings


class RtsrError(Exception):
    """Base of all errors rtsr raises on purpose; ``str(error)`` is one complete sentence."""


class ArgumentError(RtsrError, ValueError):
    """A value is out of its range or of the wrong kind; the sentence says what is accepted."""


class AudioFormatError(RtsrError):
    """The audio cannot be processed: its rate, channel count, sample format or container."""


class BatchFullError(RtsrError):
    """No slots of a batch are free for another stream."""


class ModelError(RtsrError):
    """A model is unknown, unreadable, or not one that rtsr exported."""


class ProviderError(RtsrError):
    """The execution provider that was asked for is not there, or did not start."""


class MissingDependencyError(RtsrError):
    """An optional package is not installed.

    Args:
        what_for: what needs it, as the subject of a sentence ("Running a model").
        extra: the extra of the ``rtsr`` distribution that brings it, or several, for example
            ``"train"`` or ``("cpu", "gpu")``.
    """

    def __init__(self, what_for: str, extra: str | tuple[str, ...]) -> None:
        extras = (extra,) if isinstance(extra, str) else extra
        commands = " or ".join(f'pip install "rtsr[{name}]"' for name in extras)
        super().__init__(f"{what_for} needs a package that is not installed: {commands}.")
        self.what_for = what_for
        self.extras = extras

    def __reduce__(self) -> tuple[type[MissingDependencyError], tuple[str, tuple[str, ...]]]:
        # A pool of processes pickles what its workers raise, and dies of what it cannot rebuild.
        return type(self), (self.what_for, self.extras)


class RtsrWarning(UserWarning):
    """Something runs otherwise than it could, and slower; one complete sentence.

    The command line prints it after ``rtsr:``, and goes on.
    """


def warn(sentence: str) -> None:
    """Issue an :class:`RtsrWarning` where the caller's caller stands."""
    warnings.warn(sentence, RtsrWarning, stacklevel=3)
