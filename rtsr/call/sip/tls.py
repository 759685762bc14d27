"""SIP over TLS."""

from __future__ import annotations

import asyncio
import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from aiosipua import SipRequest, SipResponse

from rtsr.call.sip.destinations import resolved
from rtsr.call.sip.tcp import TcpTransport
from rtsr.errors import RtsrError

__all__ = ["ServerCertificate", "TlsTransport", "trusting"]

_log = logging.getLogger(__name__)

_HANDSHAKE_SECONDS = 10.0


class ServerCertificate:
    """The certificate that we show, read again when its files change.

    Args:
        certificate: PEM file with the certificate and those between it and its authority.
        key: PEM file, without a password.

    Attributes:
        context: for those who listen.

    Raises:
        RtsrError: they cannot be read, or do not belong together.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = certificate, key
        self._read_at = self._written_at()
        try:
            self.context = self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        except (OSError, ValueError) as error:
            raise RtsrError(f"The certificate cannot be used: {_in_words(error)}.") from None
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2

    def renew(self) -> None:
        """Take what the files hold now, if they have changed and belong together."""
        written_at = self._written_at()
        if written_at == self._read_at or 0 in written_at:
            return
        self._read_at = written_at
        try:
            # One that fails in the middle would leave a context with half of it.
            self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
            self._load(self.context)
        except (OSError, ValueError) as error:
            _log.warning("the new certificate is not used", extra={"reason": _in_words(error)})

    def _load(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.load_cert_chain(*self._files, password=_no_password)
        return context

    def _written_at(self) -> tuple[int, int]:
        """When the files were written, in ns; 0 for one that is not there."""
        first, second = (file.stat().st_mtime_ns if file.is_file() else 0 for file in self._files)
        return first, second


def trusting(authorities: Path) -> ssl.SSLContext:
    """Return how certificates are checked where only those of a PEM file's authorities count.

    Raises:
        RtsrError: the file cannot be read, or holds no certificate.
    """
    try:
        return ssl.create_default_context(cafile=authorities)
    except (OSError, ValueError) as error:
        raise RtsrError(f"'{authorities}' cannot be used: {_in_words(error)}.") from None


@dataclass
class TlsTransport(TcpTransport):
    """SIP over TLS; listens if it has a certificate, and checks those of whom it calls.

    The certificate must be for the host that the target's address names (RFC 5922, 4), not for the
    address that stands for it. So connections go by names: two names of one machine have two.

    Attributes:
        certificate: what callers are shown.
        trusted: how the certificates of others are checked; as the system does if ``None``.
    """

    certificate: ServerCertificate | None = None
    trusted: ssl.SSLContext | None = None
    protocol: ClassVar[str] = "TLS"

    async def connect(
        self, remote_addr: tuple[str, int]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection, to a host by its name or address; as aiosipua's, encrypted."""
        if self.trusted is None:
            self.trusted = ssl.create_default_context()
        reader, writer = await asyncio.open_connection(
            *await resolved(*remote_addr), ssl=self.trusted, server_hostname=remote_addr[0]
        )
        self._connections[remote_addr] = (reader, writer)
        self._spawn(self._handle_incoming(reader, writer, remote_addr))
        return reader, writer

    async def _listen(self) -> asyncio.Server | None:
        if self.certificate is None:
            return None
        return await asyncio.start_server(
            self._handle_connection,
            *self.local_addr,
            ssl=self.certificate.context,
            ssl_handshake_timeout=_HANDSHAKE_SECONDS,
        )

    def _sweep(self) -> None:
        super()._sweep()
        if self.certificate is not None:
            self.certificate.renew()

    def _way_to(self, contact: str, message: SipRequest | SipResponse) -> str:
        """Return a Contact of ours; a sips: one where the other is one (RFC 3261, 8.1.1.8)."""
        ours = message.from_addr if isinstance(message, SipRequest) else message.to_addr
        asked = message.uri if isinstance(message, SipRequest) else ""
        is_secure = ours is not None and ours.uri.scheme.lower() == "sips"
        if is_secure or asked.lower().startswith("sips:"):
            return contact.replace("<sip:", "<sips:", 1)
        return super()._way_to(contact, message)


def _no_password() -> str:
    raise ValueError("its key has a password; write one without")


def _in_words(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        text = error.reason or str(error)
        return text.replace("_", " ").lower()
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)
