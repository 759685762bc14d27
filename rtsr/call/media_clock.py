"""One clock for all the packets of a call, whatever their codecs' clocks do."""

from __future__ import annotations

from rtsr.call.formats import LONGEST_PACKET_MS

__all__ = ["UNITS", "MediaClock"]

#: Units of media time per second; every codec's clock divides it.
UNITS = 48000
#: Timestamps this far ahead of or behind the packets' arrival mean that the sender restarted them,
#: unless they go on from packet to packet.
LARGEST_DISAGREEMENT = 0.4
#: An event has begun so many seconds before its packet at most: longer ones come in parts.
_LONGEST_EVENT = 10.0
_LONGEST_PACKET = LONGEST_PACKET_MS * UNITS // 1000


class MediaClock:
    """Turns timestamps into media time: 48000 units a second, without jumps.

    A timestamp says nothing about the one before where a sender has started again or has changed to
    a codec with another clock. There the time between the two arrivals is taken instead. Where
    timestamps go on by no more than the packets that were numbered can hold, they are right,
    whatever the arrivals say: the sender has stood still, or the network has held the packets up.
    """

    def __init__(self) -> None:
        self._rate = 0
        self._number = 0
        self._ticks = 0
        self._time = 0
        self._arrival = 0.0

    def at(
        self,
        number: int,
        ticks: int,
        rate: int,
        arrival: float,
        restarted: bool,
        *,
        is_event: bool = False,
    ) -> int:
        """Media time of a packet.

        Args:
            number: its sequence number, unwrapped.
            ticks: its timestamp, unwrapped.
            rate: Hz of its clock.
            arrival: seconds, by our clock.
            restarted: whether its counters have nothing to do with those before.
            is_event: whether it is of a telephone event, whose packets all carry its beginning (RFC
                4733, 2.2.1): for as long as a key is held their timestamp says nothing of the time.
        """
        passed = arrival - self._arrival
        step = (ticks - self._ticks) * (UNITS // rate)
        has_begun = is_event and -_LONGEST_EVENT * UNITS <= step <= 0
        if has_begun and rate == self._rate and not restarted:
            return self._time + step
        is_in_step = 0 < step <= (number - self._number) * _LONGEST_PACKET
        disagrees = not is_in_step and abs(step / UNITS - passed) > LARGEST_DISAGREEMENT
        if rate != self._rate or restarted or disagrees:
            step = round(passed * UNITS) if self._rate else 0
        # Reordered packets are measured from the newest, too.
        time = self._time + step
        if step >= 0 or rate != self._rate or restarted or disagrees:
            self._number, self._rate, self._ticks = number, rate, ticks
            self._time, self._arrival = time, arrival
        return time
