"""Colours of people, kept in a folder from one of their calls to the next."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
from pathlib import Path

from rtsr.colour.auto import AutoColour
from rtsr.colour.colour import read_colour
from rtsr.errors import ArgumentError, RtsrError
from rtsr.runtime.metadata import ModelMetadata

__all__ = ["KeptColours"]

_log = logging.getLogger(__name__)

_KEY_FILE = "key"
_KEY_BYTES = 32
_NAME_BYTES = 16


class KeptColours:
    """Gives each person's call what their former calls have taught, and keeps what it adds.

    Each person's colour is a file of its own, as :meth:`~rtsr.colour.colour.Colour.save` writes it.
    Its name is a keyed hash of the person's address (BLAKE2, RFC 7693), with a random key that lies
    in the folder: names alone do not tell who has called.

    Of several calls of a person at a time the one that ends last is kept. Trouble with a file is
    logged, and never a call's.

    Args:
        folder: is made if its own folder is there, for this user alone.

    Raises:
        ArgumentError: it names a file.
        RtsrError: it cannot be written to, or its key is broken.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        if self._folder.is_file() or self._folder.suffix.lower() == ".json":
            raise ArgumentError(
                f"Each caller has a colour of their own; name a folder for them, not the file "
                f"'{folder}'."
            )
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._key = _read_or_make_key(self._folder / _KEY_FILE)
        except FileNotFoundError:
            raise RtsrError(f"There is no folder '{self._folder.parent}'; make it first.") from None
        except OSError as error:
            raise RtsrError(
                f"Colours cannot be kept in '{folder}': {error.strerror or error}."
            ) from None
        if not os.access(self._folder, os.W_OK):
            raise RtsrError(f"Colours cannot be kept in '{folder}': it is not writable.")

    def of(self, address: str | None, model: ModelMetadata) -> AutoColour:
        """Return a colour that goes on from what is known of a person; ``None`` is nobody.

        A file that is broken, or was learnt for another model, is left out of account, and is
        replaced once something new was learnt.
        """
        if address is None:
            return AutoColour()
        path = self._path(address)
        if not path.exists():
            return AutoColour()
        try:
            known = read_colour(path)
            known.check_weights(model.name, model.weights_sha256)
        except RtsrError as error:
            _log.warning("a kept colour is not used", extra={"reason": str(error)})
            return AutoColour()
        return AutoColour(known)

    def keep(self, address: str | None, colour: AutoColour) -> None:
        """Write what a person's call has taught, unless that is nothing."""
        if address is None or colour.learnt is None or not colour.learnt_hops:
            return
        try:
            colour.learnt.save(self._path(address))
        except OSError as error:
            _log.warning("a colour was not kept", extra={"reason": error.strerror or str(error)})

    def _path(self, address: str) -> Path:
        name = hashlib.blake2b(address.encode(), key=self._key, digest_size=_NAME_BYTES)
        return self._folder / f"{name.hexdigest()}.json"


def _read_or_make_key(path: Path) -> bytes:
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise RtsrError(f"'{path}' is not the key of a folder of colours; name another folder.")
    return key
