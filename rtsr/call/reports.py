"""What the far end says of what it hears: sums of its reports (RTCP, RFC 3550)."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FarReports"]

# Who reports more than this of jitter, or of a longer way, has another clock.
_LONGEST_SECONDS = 10.0


@dataclass
class FarReports:
    """Reports of one far end on one stream of ours.

    Attributes:
        count: reports so far.
        lost: most packets that it missed, by any of them; what comes twice lowers later ones.
        loss_share: of the packets between the newest two.
        jitter_seconds: sum over all reports; ``newest_jitter`` by the newest one.
        round_trips: reports from which the way there and back could be timed, and
            ``round_trip_seconds`` the sum of these times.
    """

    count: int = 0
    lost: int = 0
    loss_share: float = 0.0
    jitter_seconds: float = 0.0
    newest_jitter: float = 0.0
    round_trips: int = 0
    round_trip_seconds: float = 0.0

    def add(
        self,
        lost: int,
        sent: int,
        loss_share: float,
        jitter_seconds: float,
        round_trip: float | None,
    ) -> None:
        """Take a report; one that cannot be true must not spoil the sums over all calls.

        Args:
            lost: packets since the beginning; below 0 where some came twice.
            sent: packets that there were; no more count as lost.
            loss_share: since the report before, 0 to 1.
            jitter_seconds: mean deviation of the packets' distances; above 10 s nothing counts.
            round_trip: seconds, where the report tells; from 10 s on it does not count.
        """
        if jitter_seconds > _LONGEST_SECONDS:
            return
        self.count += 1
        self.lost = max(self.lost, min(lost, sent))
        self.loss_share = loss_share
        self.newest_jitter = jitter_seconds
        self.jitter_seconds += jitter_seconds
        if round_trip is not None and round_trip < _LONGEST_SECONDS:
            self.round_trips += 1
            self.round_trip_seconds += round_trip
