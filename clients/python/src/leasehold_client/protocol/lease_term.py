"""Until when a lease certainly lasts, by a clock of this process.

The time counts from before the request was sent, because the service may have granted or renewed the lease at any
moment until the response arrived. So the client never believes in a lease for longer than the service does.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LeaseTerm:
    """`sent_at`: the clock before the first attempt of the request that granted or renewed the lease."""

    sent_at: float
    ttl_seconds: float

    @property
    def deadline(self) -> float:
        return self.sent_at + self.ttl_seconds

    def renewed(self, sent_at: float, ttl_seconds: float) -> LeaseTerm:
        """The term after a renewal, which never shortens a lease."""
        term = LeaseTerm(sent_at, ttl_seconds)
        return term if term.deadline > self.deadline else self
