"""Why changes cannot be made durable now, for the operator and for the callers whose change was refused."""

import structlog

from leasehold.engines.file.disk import WriteError
from leasehold.errors import ServiceError, outcome_unknown, unavailable

log = structlog.get_logger(__name__)


class WriteFault:
    """The fault of a volume, which all of its spaces have. `error`: None if there is none."""

    def __init__(self) -> None:
        self.error: ServiceError | None = None
        self.is_recovering = False
        """An attempt to end the fault is under way."""

    def note(self, error: BaseException) -> ServiceError:
        """A write has failed. Returns the error for a commit that failed because of it."""
        full = isinstance(error, WriteError) and error.full
        unchanged = isinstance(error, WriteError) and error.nothing_changed
        was_sound = self.error is None
        self.error = _disk_full() if full else unavailable("changes cannot be made durable now")
        if not isinstance(error, WriteError):
            log.error("a write failed in an unexpected way", exc_info=error)
        if was_sound:
            log.error("writes cannot be made durable", reason=str(error), disk_full=full)
        if full and unchanged:
            return ServiceError("storage_full", "the disk is full; the change was not stored")
        if unchanged:
            return unavailable("the change could not be stored")
        return outcome_unknown()

    def note_full(self) -> None:
        """The reserve is spent, so only changes that free space can be stored."""
        self.error = self.error or _disk_full()

    def clear(self) -> None:
        """Changes were made durable again."""
        self.end()
        log.info("writes are durable again")

    def end(self) -> None:
        """There is no fault."""
        self.error = None


def _disk_full() -> ServiceError:
    return ServiceError("storage_full", "the disk is full")
