"""Why the database cannot be written now, and how it is found out that it can be again."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from leasehold.engines.postgres.failures import Reports, as_service_error, is_refusal
from leasehold.engines.postgres.links import RETRY_SECONDS
from leasehold.errors import ServiceError, unavailable

log = structlog.get_logger(__name__)

SUSPECT_SECONDS: Final = 1.0
"""The minimum time between two empty commits after refusals."""


class Fault:
    """The fault of a database. `commit_nothing` raises ServiceError; `recovered` is called when a fault is over."""

    def __init__(
        self, reports: Reports, commit_nothing: Callable[[], Awaitable[None]], recovered: Callable[[], None]
    ) -> None:
        self._reports = reports
        self._commit_nothing = commit_nothing
        self._recovered = recovered
        self.error: ServiceError | None = None
        """The error for writers, or None."""
        self._is_open = False
        self._is_away = False
        """The database cannot be reached."""
        self._suspected_at = -math.inf
        self.attempts: set[asyncio.Task[None]] = set()
        """Empty commits that are running."""

    def open(self) -> None:
        """Start without a fault."""
        self.error, self._is_away, self._is_open = None, False, True

    def close(self) -> None:
        """Start no more attempts, and log nothing."""
        self._is_open = False

    def takes_writes(self) -> bool:
        """Whether writes are attempted. With a full disk they are, because deletions may still succeed."""
        return self.error is None or self.error.code != "unavailable"

    def retry_seconds(self) -> float:
        """While the database is known to be away there is one attempt, so that no caller waits; `recover` goes on."""
        return 0.0 if self._is_away else RETRY_SECONDS

    def failed(self, failure: BaseException) -> ServiceError:
        """An operation failed for good. Returns the error for its caller."""
        error = as_service_error(failure)
        if is_refusal(failure):
            self._reports.log(log.error, "the database refused a statement", failure)
            self._suspect()
        else:
            self.note(error)
        return error

    def note(self, error: ServiceError) -> None:
        """Set the fault. Writers are refused until a write succeeds."""
        if error.code == "storage_full":
            self._set(ServiceError("storage_full", "the database's disk is full"))
        else:
            self._is_away = True
            self._set(unavailable("the database cannot be reached now"))

    async def try_to_write(self) -> None:
        """Set or clear the fault by the result of an empty commit."""
        try:
            await self._commit_nothing()
        except ServiceError as error:
            if is_refusal(error.__cause__):
                self._is_away = False
                self._set(unavailable("the database refuses all writes now"))
            return
        self._is_away = False
        if self.error is None:
            return
        self.error = None
        log.info("the database can be written again")
        self._recovered()

    def _set(self, error: ServiceError) -> None:
        if self._is_open and (self.error is None or self.error.message != error.message):
            log.error("the database cannot be used", code=error.code, reason=error.message)
        self.error = error

    def _suspect(self) -> None:
        """A refusal may concern one operation, or all writes: an empty commit shows which, once a second at most."""
        loop = asyncio.get_running_loop()
        if not self._is_open or self.error is not None or loop.time() < self._suspected_at + SUSPECT_SECONDS:
            return
        self._suspected_at = loop.time()
        task = loop.create_task(self.try_to_write())
        self.attempts.add(task)
        task.add_done_callback(self.attempts.discard)
