"""From where the packets of a call's end come, and where ours go."""

from __future__ import annotations

__all__ = ["Address", "Source"]

Address = tuple[str, int]

# So many packets in a row, of one stream, show that the end is not where it says it is.
_IN_A_ROW = 4
# One that has sent so many (a second of sound) is the end. Who stops before was a call before this.
_MANY = 50


class Source:
    """Tells an end's packets from stray ones.

    An end is where its description says. Telephones behind address translators do not know what
    others see of them: as long as nothing comes from there, whoever else sends some packets in a
    row is taken for the end. What comes from the described address is always the end's, and then
    nothing else is.

    Attributes:
        address: where our packets go; ``None`` where nobody is known yet.
    """

    def __init__(self) -> None:
        self.address: Address | None = None
        self._described: Address | None = None
        self._former: Address | None = None
        self._has_spoken = False
        self._heard = 0
        self._rival: tuple[Address, int] | None = None
        self._in_a_row = 0

    def describe(self, address: Address) -> None:
        """Go by another description; one that says the same again changes nothing."""
        if address == self._described:
            return
        # An end that moves is still heard from where it was until it speaks elsewhere.
        if self._described is None:
            # Who was heard before may belong to nothing.
            self._former = None
        elif self._has_spoken or self._heard:
            self._former = self.address
        self._described = self.address = address
        self._has_spoken, self._heard, self._rival = False, 0, None

    def may_be(self, address: Address) -> bool:
        """Whether a packet from an address can be the end's, before it has been read."""
        if address == self._described:
            return True
        return not self._has_spoken and (address == self.address or self._heard < _MANY)

    def takes(self, address: Address, ssrc: int) -> bool:
        """Whether a packet is the end's, which shows where the end is.

        Args:
            address: from where it came.
            ssrc: names its stream (RFC 3550, 3).
        """
        if not self.may_be(address):
            return False
        if address == self._described:
            self.address, self._has_spoken = address, True
            return True
        if address == self.address:
            self._heard += 1
            self._rival = None
            return True
        if (address, ssrc) != self._rival:
            self._rival, self._in_a_row = (address, ssrc), 0
        self._in_a_row += 1
        if self._in_a_row < _IN_A_ROW:
            return address == self._former
        self.address, self._heard, self._rival = address, self._in_a_row, None
        return True
