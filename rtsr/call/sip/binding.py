"""A registration at a registrar, for as long as that keeps ours and not another telephone's."""

from __future__ import annotations

from aiosipua import Registration, SipResponse

from rtsr.call.sip.addresses import AddressError, address_in, parse_address

__all__ = ["Binding"]


class Binding(Registration):
    """aiosipua's registration, which takes the first Contact of an answer for its own.

    An answer lists all telephones that are registered under an address, each with its own time (RFC
    3261, 10.2.4). And an answer may keep nothing at all, which would be asked for without a pause.
    """

    def _on_success(self, response: SipResponse) -> None:
        granted = self._granted_expires(response)
        if granted < 1 and not self._unregistering:
            self._fail(response.status_code, f"{response.reason_phrase}, but only for {granted} s")
            return
        super()._on_success(response)

    def _granted_expires(self, response: SipResponse) -> int:
        """Return how many seconds our Contact is kept; without one of ours, the shortest time."""
        times, ours = [], _place(self.contact_uri)
        for value, contact in zip(response.headers.get("contact"), response.contact, strict=True):
            seconds = _seconds(contact.params.get("expires"))
            if seconds is not None and _place(address_in(value)) == ours:
                return seconds
            times.append(seconds)
        # What others are told to forget is no time of ours.
        shortest = min((each for each in times if each), default=None)
        if shortest is not None:
            return shortest
        seconds = _seconds(response.get_header("expires"))
        return self.expires if seconds is None else seconds


def _place(text: str) -> tuple[str | None, str, int] | None:
    """Return what names a Contact: the user, the host and the port, whatever its parameters."""
    try:
        uri = parse_address(text)
    except AddressError:
        return None
    return uri.user, uri.host.strip("[]").lower(), uri.port or 5060


def _seconds(text: str | None) -> int | None:
    """Return what a server writes as a time; what is none, or too long for one, is ``None``."""
    text = (text or "").strip()
    return int(text) if text.isdecimal() and len(text) < 10 else None
