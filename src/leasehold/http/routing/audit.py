"""What the log says of access: who was refused, one line each, as long as there are not too many.

Never a token, a value, a query or a key: of a request its method, the pattern of its route, and where it came from.
"""

from collections import Counter
from typing import Final

import structlog

from leasehold.errors import ServiceError
from leasehold.http.messages import Request

log = structlog.get_logger(__name__)

REFUSALS: Final = (401, 403)
MAX_LINES: Final = 30
"""For each of REFUSALS in each period, so that a flood of bad tokens neither fills the disk nor hides a 403."""
PERIOD_SECONDS: Final = 60.0
MAX_SHOWN_CHARACTERS: Final = 128


def printable(text: str) -> str:
    """A text from outside, for the log: short, ASCII, and without anything that a terminal or a line obeys."""
    shown = text[:MAX_SHOWN_CHARACTERS].encode("ascii", "backslashreplace").decode()
    return shown if shown.isprintable() else ascii(shown)


class RefusalLog:
    """Of one server. `sweep` is called now and then with the time in seconds, and once more at the end."""

    def __init__(self, now: float) -> None:
        self._period_began = now
        self._seen: Counter[int] = Counter()
        """Refusals in this period, by status."""

    def tell(self, request: Request, error: ServiceError, client: str) -> None:
        """Log a refusal. `client`: the address that the connection came from."""
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
            request_id=request.request_id.decode(),
        )

    def sweep(self, now: float, *, last: bool = False) -> None:
        """End the period when its time is over: say how many lines were left out, and begin anew."""
        if now - self._period_began < PERIOD_SECONDS and not last:
            return
        for status, count in sorted(self._seen.items()):
            if count > MAX_LINES:
                log.info("more requests were refused", status=status, count=count - MAX_LINES)
        self._seen.clear()
        self._period_began = now
