"""The certificate that a server shows over TLS, and what is said of certificates that fail."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from rtsr.errors import ArgumentError, RtsrError

__all__ = ["HANDSHAKE_SECONDS", "ServerCertificate", "in_words", "reason_of", "server_certificate"]

#: what a handshake over TLS may take on a connection that a server accepts
HANDSHAKE_SECONDS = 10.0

_log = logging.getLogger(__name__)


class ServerCertificate:
    """The certificate that we show, read again when its files change.

    A new one gets a context of its own: OpenSSL would keep an old one of another kind of key in the
    same context, and go on showing it.

    Args:
        certificate: PEM file with the certificate and those between it and its authority.
        key: PEM file, without a password.

    Attributes:
        context: for connections that are accepted from now on.

    Raises:
        RtsrError: they cannot be read, or do not belong together.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = certificate, key
        self._state = self._failed = self._present_state()
        try:
            self.context = self._load()
        except (OSError, ValueError) as error:
            raise RtsrError(f"The certificate cannot be used: {in_words(error)}.") from None

    def renew(self) -> None:
        """Take what the files hold now, if they have changed and belong together."""
        state = self._present_state()
        if state == self._state:
            return
        try:
            self.context = self._load()
        except (OSError, ValueError) as error:
            # They may be being written: each state is told once, and tried until it is one.
            if state != self._failed:
                reason = in_words(error)
                _log.warning("the new certificate is not used", extra={"reason": reason})
            self._failed = state
        else:
            self._state = state

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(*self._files, password=_no_password)
        return context

    def _present_state(self) -> list[tuple[int, int, int]]:
        """Return when the files were written, how long they are, and which files they are."""
        state = []
        for file in self._files:
            try:
                now = file.stat()
                state.append((now.st_mtime_ns, now.st_size, now.st_ino))
            except OSError:
                state.append((0, 0, 0))
        return state


def server_certificate(certificate: Path | None, key: Path | None) -> ServerCertificate | None:
    """Return what a server shows, from two PEM files; ``None`` where neither is given.

    Raises:
        ArgumentError: only one of them is given.
        RtsrError: there is no such file, or they cannot be used.
    """
    if (certificate is None) != (key is None):
        raise ArgumentError("A certificate and its key go together: --certificate and --key.")
    for file in (certificate, key):
        if file is not None and not file.is_file():
            raise RtsrError(f"There is no file '{file}'.")
    if certificate is None or key is None:
        return None
    return ServerCertificate(certificate, key)


def reason_of(error: Exception) -> str:
    """Return why a connection failed, for the log: without names and addresses."""
    if isinstance(error, ssl.SSLCertVerificationError):
        # Without the name that the certificate is not for.
        return error.verify_message.partition(",")[0]
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return type(error).__name__


def in_words(error: Exception) -> str:
    """Return why a certificate, its key or a file of authorities cannot be used."""
    if isinstance(error, ssl.SSLError):
        return reason_of(error) if error.reason else str(error).replace("_", " ").lower()
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)


def _no_password() -> str:
    raise ValueError("its key has a password; write one without")
