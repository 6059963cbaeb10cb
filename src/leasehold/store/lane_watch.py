"""Looks once a second whether the write lane goes on, and says so when it does not.

By a timer of its own, because housekeeping waits for the lane, too.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from leasehold.errors import ServiceError, unavailable
from leasehold.limits import STALLED_LANE_SECONDS

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 1.0

Progress = Callable[[], int | None]
"""How many batches have ended; None while nothing waits."""


class LaneWatch:
    """`fault` is there while the lane stands still.

    It counts its looks and not the time, because a process that was stopped for a while is not late.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._seen: int | None = None
        self._looks = 0
        """Since something has been waiting and no batch has ended."""
        self._timer: asyncio.TimerHandle | None = None
        self.fault: ServiceError | None = None

    def start(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._go_on)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _go_on(self) -> None:
        self.start()  # first, so that nothing ends it
        self.look()

    def look(self) -> None:
        """Called every LOOK_SECONDS."""
        progress = self._progress()
        self._looks = self._looks + 1 if progress is not None and progress == self._seen else 0
        self._seen = progress
        stands_still = self._looks * LOOK_SECONDS >= STALLED_LANE_SECONDS
        if stands_still and self.fault is None:
            self.fault = unavailable(f"no change has been made durable for {STALLED_LANE_SECONDS} seconds")
            log.error("changes wait and none is made durable", seconds=STALLED_LANE_SECONDS)
        elif not stands_still and self.fault is not None:
            self.fault = None
            log.info("changes are made durable again")
