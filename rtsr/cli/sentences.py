"""What the command line says of an error, and the code that it ends with."""

from __future__ import annotations

from rtsr.errors import RtsrError

EXIT_BAD_INPUT = 2


def sentence_of(error: RtsrError | OSError) -> str:
    """Return the one sentence that tells of an error."""
    if isinstance(error, RtsrError):
        return str(error)
    subject = f"'{error.filename}': " if error.filename else "The system refused to read or write: "
    return f"{subject}{error.strerror or error}."
