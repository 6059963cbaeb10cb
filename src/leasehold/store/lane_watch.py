"""Checks once a second whether a write lane makes progress, and reports a fault when it does not.

`Ticking` calls it, not cleaning (`cleaning.py`), because cleaning also waits for the lane.
"""

from collections.abc import Callable

import structlog

from leasehold.errors import ServiceError, unavailable
from leasehold.limits import STALLED_LANE_SECONDS
from leasehold.store.ticking import TICK_SECONDS

log = structlog.get_logger(__name__)

Progress = Callable[[], int | None]
"""How many batches have ended; None while nothing waits."""


class LaneWatch:
    """`fault` is set while the lane is stalled.

    It counts checks instead of seconds, because a process that was suspended for a while is not stalled.
    """

    __slots__ = ("_checks", "_progress", "_seen", "fault")

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._seen: int | None = None
        self._checks = 0
        """How many checks in a row have found waiting changes and no batch that ended."""
        self.fault: ServiceError | None = None

    def check(self) -> None:
        """Called every TICK_SECONDS."""
        progress = self._progress()
        self._checks = self._checks + 1 if progress is not None and progress == self._seen else 0
        self._seen = progress
        is_stalled = self._checks * TICK_SECONDS >= STALLED_LANE_SECONDS
        if is_stalled and self.fault is None:
            self.fault = unavailable(f"no change has been made durable for {STALLED_LANE_SECONDS} seconds")
            log.error("changes wait and none is made durable", seconds=STALLED_LANE_SECONDS)
        elif not is_stalled and self.fault is not None:
            self.fault = None
            log.info("changes are made durable again")
