"""What the command line says of a bridge, read and checked."""

from __future__ import annotations

import os
from pathlib import Path

from aiosipua import SipDigestAuth

from rtsr.call.formats import G722, OPUS, PCMA, PCMU
from rtsr.call.kept_colours import KeptColours
from rtsr.call.sip.agent import Target, TlsSettings
from rtsr.call.sip.bridge import BridgeSettings
from rtsr.call.sip.tls import trusting
from rtsr.certificate import server_certificate
from rtsr.errors import ArgumentError

__all__ = ["PASSWORD_VARIABLE", "settings_from", "tls_from"]

#: A password on the command line could be read by everybody on the machine.
PASSWORD_VARIABLE = "RTSR_SIP_PASSWORD"

_FORMS = {form.name.lower(): form for form in (OPUS, G722, PCMU, PCMA)}


def settings_from(
    to: str,
    codecs: str,
    bitrate: int,
    srtp: bool,
    user: str | None,
    ring_seconds: float,
    ports: str | None,
    dtx: bool | None,
    colours: Path | None,
) -> BridgeSettings:
    """Check the arguments and return the settings of a bridge.

    Raises:
        ArgumentError: one of them is not accepted.
        RtsrError: colours cannot be kept in that folder.
    """
    names = [name.strip().lower() for name in codecs.split(",")]
    unknown = [name for name in names if name not in _FORMS]
    if unknown:
        known = ", ".join(form.name for form in _FORMS.values())
        raise ArgumentError(f"There is no codec '{unknown[0]}'; there are {known}.")
    if not 1.0 <= ring_seconds <= 600.0:
        raise ArgumentError(f"A target rings for 1 to 600 s, not {ring_seconds:g}.")
    auth = None
    if user is not None:
        password = os.environ.get(PASSWORD_VARIABLE)
        if password is None:
            raise ArgumentError(f"--user needs the password in {PASSWORD_VARIABLE}.")
        auth = SipDigestAuth(user, password)
    return BridgeSettings(
        target=Target.parse(to),
        forms=tuple(dict.fromkeys(_FORMS[name] for name in names)),
        bitrate=bitrate,
        secure=srtp,
        auth=auth,
        ring_seconds=ring_seconds,
        ports=_ports(ports),
        dtx=dtx,
        kept_colours=None if colours is None else KeptColours(colours),
    )


def tls_from(
    certificate: Path | None, key: Path | None, port: int | None, authorities: Path | None
) -> TlsSettings:
    """Check the arguments and return how TLS is spoken.

    Raises:
        ArgumentError: one of them is not accepted, or makes no sense alone.
        RtsrError: a file cannot be used.
    """
    own = server_certificate(certificate, key)
    if port is not None and certificate is None:
        raise ArgumentError("--tls-port needs a certificate: give --certificate and --key, too.")
    if port is not None and not 0 <= port < 65536:
        raise ArgumentError(f"A port is a number from 0 to 65535, not {port}.")
    return TlsSettings(
        own,
        TlsSettings.port if port is None else port,
        None if authorities is None else trusting(authorities),
    )


def _ports(text: str | None) -> range | None:
    if text is None:
        return None
    first, dash, last = text.partition("-")
    if not (dash and first.isdecimal() and last.isdecimal()):
        raise ArgumentError(f"'{text}' are no ports; write FIRST-LAST, as 20000-20100.")
    found = range(int(first), int(last) + 1)
    if not (len(found) > 1 and found[0] > 0 and found[-1] < 65536):
        raise ArgumentError(f"'{text}' are no ports; write FIRST-LAST, as 20000-20100.")
    return found
