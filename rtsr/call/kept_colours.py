"""Colours of people, kept in a folder from one of their calls to the next."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
import weakref
from pathlib import Path

from rtsr.colour.auto import AutoColour
from rtsr.colour.colour import read_colour
from rtsr.errors import ArgumentError, RtsrError
from rtsr.runtime.metadata import ModelMetadata

__all__ = ["KeptColours"]

_log = logging.getLogger(__name__)

#: Some 1.7 kB each.
MOST_COLOURS = 20_000

_KEY_FILE = ".rtsr-key"
_KEY_BYTES = 32
_NAME_BYTES = 16


class KeptColours:
    """Gives each person's call what their former calls have taught, and keeps what it adds.

    Each person's colour is a file of its own, as :meth:`~rtsr.colour.colour.Colour.save` writes it.
    Its name is a keyed hash of the person's address (BLAKE2, RFC 7693), with a random key that lies
    in the folder: names alone do not tell who has called.

    Of several calls of a person at a time the one that ends last is kept. A file that is deleted
    during a call that began with it stays deleted. Trouble with a file is logged, and never a
    call's.

    Args:
        folder: is made if its own folder is there, for this user alone; takes 20,000 people, of
            whom those go whose last call is longest ago.

    Raises:
        ArgumentError: it names a file.
        RtsrError: it cannot be written to, or its key is broken.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._of_files: weakref.WeakSet[AutoColour] = weakref.WeakSet()
        try:
            if self._folder.is_file() or self._folder.suffix.lower() == ".json":
                raise ArgumentError(
                    f"Each caller has a colour of their own; name a folder for them, not the file "
                    f"'{folder}'."
                )
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
        try:
            # It is in use: the newest are kept.
            os.utime(path)
            known = read_colour(path)
            known.check_weights(model.name, model.weights_sha256)
        except FileNotFoundError:
            return AutoColour()
        except (RtsrError, OSError) as error:
            # Without its name, which would link a person's calls.
            reason = str(error).replace(str(path), "of a caller")
            _log.warning("a kept colour is not used", extra={"reason": reason})
            return AutoColour()
        colour = AutoColour(known)
        self._of_files.add(colour)
        return colour

    def keep(self, address: str | None, colour: AutoColour) -> None:
        """Write what a person's call has taught, unless that is nothing."""
        if address is None or colour.learnt is None or not colour.learnt_hops:
            return
        path = self._path(address)
        try:
            is_new = not path.exists()
            if is_new and colour in self._of_files:
                return
            if is_new:
                self._make_room()
            colour.learnt.save(path)
            path.chmod(0o600)
        except OSError as error:
            _log.warning("a colour was not kept", extra={"reason": error.strerror or str(error)})

    def _make_room(self) -> None:
        """Delete those that were not used for longest, so that not even false names fill a disk."""
        files = [path for path in self._folder.iterdir() if path.suffix == ".json"]
        if len(files) >= MOST_COLOURS:
            for path in sorted(files, key=_last_use)[: len(files) - MOST_COLOURS + 1]:
                path.unlink(missing_ok=True)

    def _path(self, address: str) -> Path:
        name = hashlib.blake2b(address.encode(), key=self._key, digest_size=_NAME_BYTES)
        return self._folder / f"{name.hexdigest()}.json"


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _read_or_make_key(path: Path) -> bytes:
    if not path.exists():
        # Another bridge may start at the same moment: whose key is there first counts.
        beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
        try:
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
                file.write(secrets.token_bytes(_KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise RtsrError(f"'{path}' is not the key of a folder of colours; name another folder.")
    return key
