"""Checks once a second whether the write lane makes progress, and reports a fault when it does not.

It has its own timer, because cleaning (`cleaning.py`) also waits for the lane.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from leasehold.errors import ServiceError, unavailable
from leasehold.limits import STALLED_LANE_SECONDS

log = structlog.get_logger(__name__)

CHECK_SECONDS: Final = 1.0

Progress = Callable[[], int | None]
"""How many batches have ended; None while nothing waits."""


class LaneWatch:
    """`fault` is set while the lane is stalled.

    It counts checks instead of seconds, because a process that was suspended for a while is not stalled.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._seen: int | None = None
        self._checks = 0
        """How many checks in a row have found waiting changes and no batch that ended."""
        self._timer: asyncio.TimerHandle | None = None
        self.fault: ServiceError | None = None

    def start(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(CHECK_SECONDS, self._run)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _run(self) -> None:
        self.start()  # first, so that an exception in `check` does not end the checks
        self.check()

    def check(self) -> None:
        """Called every CHECK_SECONDS."""
        progress = self._progress()
        self._checks = self._checks + 1 if progress is not None and progress == self._seen else 0
        self._seen = progress
        is_stalled = self._checks * CHECK_SECONDS >= STALLED_LANE_SECONDS
        if is_stalled and self.fault is None:
            self.fault = unavailable(f"no change has been made durable for {STALLED_LANE_SECONDS} seconds")
            log.error("changes wait and none is made durable", seconds=STALLED_LANE_SECONDS)
        elif not is_stalled and self.fault is not None:
            self.fault = None
            log.info("changes are made durable again")
