"""SIP over TLS."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from aiosipua import SipRequest, SipResponse

from rtsr.call.sip.destinations import resolved
from rtsr.call.sip.tcp import TcpTransport
from rtsr.certificate import HANDSHAKE_SECONDS, ServerCertificate, in_words
from rtsr.errors import RtsrError

__all__ = ["TlsTransport", "trusting"]


def trusting(authorities: Path) -> ssl.SSLContext:
    """Return how certificates are checked where only those of a PEM file's authorities count.

    Raises:
        RtsrError: the file cannot be read, or holds no certificate.
    """
    try:
        return ssl.create_default_context(cafile=authorities)
    except (OSError, ValueError) as error:
        raise RtsrError(f"'{authorities}' cannot be used: {in_words(error)}.") from None


@dataclass
class TlsTransport(TcpTransport):
    """SIP over TLS; listens if it has a certificate, and checks those of whom it calls.

    The certificate must be for the host that the target's address names, as in HTTPS, not for the
    address that stands for it. So connections go by names: two names of one machine have two.

    Attributes:
        certificate: what callers are shown.
        trusted: how the certificates of others are checked; as the system does if ``None``.
    """

    certificate: ServerCertificate | None = None
    trusted: ssl.SSLContext | None = None
    protocol: ClassVar[str] = "TLS"

    async def start(self) -> None:
        """Listen, if there is a certificate; ``local_addr`` then has the port that was found."""
        if self.trusted is None:
            # It takes some 40 ms, which a call that is on would hear.
            self.trusted = ssl.create_default_context()
        await super().start()

    async def _reach(
        self, address: tuple[str, int]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection to a host by its name or address, encrypted."""
        return await asyncio.open_connection(
            *await resolved(*address), ssl=self.trusted, server_hostname=address[0]
        )

    async def _listen(self) -> asyncio.Server | None:
        return None if self.certificate is None else await super()._listen()

    async def _prepare(self, writer: asyncio.StreamWriter) -> None:
        """Encrypt a connection, which counts from the moment on at which it was accepted."""
        assert self.certificate is not None
        plain = writer.transport
        try:
            await writer.start_tls(
                self.certificate.context, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
        except AttributeError:
            # Closed meanwhile: asyncio then has no transport to give the writer, which it asks for
            # what it is, and which the writer itself asks at its end.
            writer._transport = plain  # type: ignore[attr-defined]
            raise ConnectionAbortedError from None

    def _sweep(self) -> None:
        super()._sweep()
        if self.certificate is not None:
            self.certificate.renew()

    def _way_to(self, contact: str, message: SipRequest | SipResponse) -> str:
        """Return a Contact of ours; a sips: one where the other end wants that."""
        if isinstance(message, SipRequest):
            ours = message.from_addr
            is_secure = message.uri.lower().startswith("sips:")
            is_secure |= ours is not None and ours.uri.scheme.lower() == "sips"
        else:
            is_secure = self.transactions.asked_for_sips(message)
        return (
            contact.replace("<sip:", "<sips:", 1)
            if is_secure
            else super()._way_to(contact, message)
        )
