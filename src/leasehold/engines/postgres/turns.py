"""The turn of a server that commits while other servers commit, too: its batch is taken when it has locked the head."""

from collections.abc import Callable

from leasehold.engines.base import CommitDone
from leasehold.engines.postgres.committer import Batch
from leasehold.engines.postgres.view import Names
from leasehold.errors import ServiceError


class Turn:
    """One turn, from the wait to the end of the batch. `ready`: see `Space.turn`."""

    def __init__(self, ready: Callable[[], None]) -> None:
        self._ready = ready
        self._was_given = False
        self._batch = Batch(Names((), (), {}), lambda _view, _revision, _now: ())
        self._done: CommitDone | None = None
        self.is_given = False
        """`ready` runs, and the space must put what it is asked to commit into `commit`."""

    def commit(self, batch: Batch, done: CommitDone) -> None:
        """Take the batch of the caller."""
        self._batch, self._done = batch, done

    def take(self) -> Batch:
        """Call `ready`. Returns the batch of the caller, or one without changes if the caller commits nothing."""
        self.is_given = True
        try:
            self._ready()
            self._was_given = True
        finally:
            self.is_given = False
        return self._batch

    def done(self, error: ServiceError | None) -> None:
        """The end of the batch. If it could not be taken before, it is taken now, so that its caller gets the error."""
        if self._done is None and not self._was_given:
            self.take()
        if self._done is not None:
            self._done(error)
