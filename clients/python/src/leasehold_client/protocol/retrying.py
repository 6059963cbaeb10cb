"""Whether a request is sent again, and after which pause.

Every request may be sent again: reads change nothing, and changes carry an idempotency key, which makes the service do
them once. Only how long a client tries is bounded, because the service keeps the outcome of a key for 10 minutes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .messages import Response
from .refusals import retry_after

MAX_RETRY_SECONDS: Final = 300.0
"""Half of the time for which the service keeps outcomes by default."""
FIRST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 5.0
TRANSIENT_STATUSES: Final = frozenset({408, 429, 502, 503, 504})
INTERNAL_ERROR: Final = 500
ATTEMPTS_AT_INTERNAL_ERRORS: Final = 3
"""Few, because an entry that the service cannot read is such an error each time."""


@dataclass(frozen=True)
class Disconnected:
    """There was no complete response."""

    reason: str


Outcome = Response | Disconnected


def pause_before_retry(outcome: Outcome, *, attempts: int, remaining: float, jitter: float) -> float | None:
    """Seconds until the next attempt, or None if this outcome is final.

    `attempts` were made so far. `remaining`: the seconds in which the next one must begin. `jitter`: from 0 to 1, so
    that clients that failed together do not return together. The pause is never shorter than the service asks for.
    """
    asked = 0.0
    if isinstance(outcome, Response):
        if not is_transient(outcome, attempts=attempts):
            return None
        asked = retry_after(outcome) or 0.0
    pause = max(asked, backoff(attempts, jitter))
    return pause if pause <= remaining else None


def is_transient(response: Response, *, attempts: int) -> bool:
    if response.status == INTERNAL_ERROR:
        return attempts < ATTEMPTS_AT_INTERNAL_ERRORS
    return response.status in TRANSIENT_STATUSES


def backoff(attempts: int, jitter: float) -> float:
    """0.05 s after the first attempt, then twice as much each time, up to 5 s, times 0.5 to 1."""
    longest = min(FIRST_PAUSE_SECONDS * 2.0 ** min(attempts - 1, 16), LONGEST_PAUSE_SECONDS)
    return longest * (0.5 + jitter / 2)
