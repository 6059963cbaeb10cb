"""Whether a lane waits until the clients of its last batch have sent their next requests.

While other servers commit, too, a lane has time for this: one of the others commits meanwhile. The batch is then
complete before its server waits for the lock, so it needs one round trip less than one that is made in a turn
(`Space.turn`), and holds the lock for a shorter time.

Clients need not send another request. So the wait has a limit, and after a wait that has reached it, the next batches
are made without one.
"""

from typing import Final

WAIT_SECONDS: Final = 0.005
"""The limit of a wait. Two servers on two cores, with 64 clients each, commit a batch of 64 every 2 ms."""
LEAST_OPERATIONS: Final = 16
"""Batches of fewer operations are not waited for. The wait saves as much as a few operations cost."""
LEAST_PAUSE: Final = 8
MOST_PAUSE: Final = 512
"""So many batches are made without a wait after one that has reached its limit; twice as many each time, until a wait
has ended earlier."""


class NextRequests:
    """What is known about the clients of one lane."""

    def __init__(self) -> None:
        self._pause = 0
        """So many batches are made without a wait."""
        self._next_pause = LEAST_PAUSE

    def are_awaited(self, count: int) -> bool:
        """Whether to wait until `count` operations are there. Called once for each batch."""
        if count < LEAST_OPERATIONS:
            return False
        is_pause = self._pause > 0
        self._pause -= is_pause
        return not is_pause

    def have_come(self) -> None:
        """All operations came within the limit."""
        self._next_pause = LEAST_PAUSE

    def have_not_come(self) -> None:
        """The wait has reached its limit."""
        self._pause = self._next_pause
        self._next_pause = min(2 * self._next_pause, MOST_PAUSE)
