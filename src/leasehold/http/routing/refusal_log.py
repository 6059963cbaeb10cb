"""The log of refused requests (401 and 403): one line each, and a bounded number of lines in each period.

A line shows the method, the pattern of the route and the address of the client. It never shows a token, a value, a
query or a key.
"""

from collections import Counter
from typing import Final

import structlog

from leasehold.errors import ServiceError
from leasehold.http.requests import Request

log = structlog.get_logger(__name__)

REFUSALS: Final = (401, 403)
MAX_LINES: Final = 30
"""For each status in each period: a flood of 401 must not fill the disk, and must not suppress the lines of 403."""
PERIOD_SECONDS: Final = 60.0
MAX_SHOWN_CHARACTERS: Final = 128


def printable(text: str) -> str:
    """A text from a client, made safe for the log: short, ASCII, and without control characters."""
    shown = text[:MAX_SHOWN_CHARACTERS].encode("ascii", "backslashreplace").decode()
    return shown if shown.isprintable() else ascii(shown)


class RefusalLog:
    """The refusals of one server. The owner calls `sweep` once a second, and once more at the end with `last`.

    `now`: a monotonic time in seconds.
    """

    def __init__(self, now: float) -> None:
        self._period_began = now
        self._seen: Counter[int] = Counter()
        """Refusals in this period, by status."""

    def record(self, request: Request, error: ServiceError, client: str) -> None:
        """Log a refusal. `client`: the address of the connection's peer."""
        status = error.status
        self._seen[status] += 1
        if self._seen[status] > MAX_LINES:
            return
        subject = {"sub": printable(request.principal.subject)} if status == 403 else {}
        log.info(
            "request refused",
            status=status,
            reason=error.reason,
            method=printable(request.method),
            route=request.pattern,
            client=client,
            **subject,
            **request.log_fields,
        )

    def sweep(self, now: float, *, last: bool = False) -> None:
        """If the period is over: log how many refusals had no line, and begin the next period."""
        if now - self._period_began < PERIOD_SECONDS and not last:
            return
        for status, count in sorted(self._seen.items()):
            if count > MAX_LINES:
                log.info("more requests were refused", status=status, count=count - MAX_LINES)
        self._seen.clear()
        self._period_began = now
