"""Tells the queues which locks were released and acquired. It learns of them from the changes of the space.

A commit of this server is published with its changes. A commit of another server is published with its revision only.
Then the feed queries the changes since the last known revision, if there are waiters.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from leasehold.completions import report
from leasehold.engines.base import Space
from leasehold.errors import ServiceError
from leasehold.model import LEASE, Change, Lease, LeaseEnd
from leasehold.store.lock_queues import LockQueues
from leasehold.tasks import cancel_and_wait

MAX_CHANGES: Final = 1_000
"""Per query."""


class LockFeed:
    """Subscribed to the leases of a space; tells the queues of locks."""

    __slots__ = ("_after", "_must_query", "_queues", "_space", "_task")

    def __init__(self, space: Space, queues: LockQueues) -> None:
        self._space = space
        self._queues = queues
        self._after = 0
        """All queues have been woken for changes up to this revision, or their attempts were decided after it."""
        self._task: asyncio.Task[None] | None = None
        self._must_query = False
        """There may be changes that were not queried yet."""
        space.subscribe(LEASE, self._published)

    async def stop(self) -> None:
        """End the query that is running."""
        if self._task is not None:
            await cancel_and_wait(self._task)

    def catch_up(self) -> None:
        """Repeat a failed query. Called every second."""
        if self._must_query:
            self._start_query()

    def _published(self, revision: int, changes: Sequence[Change] | None) -> None:
        if not self._queues:
            # The attempt of a later waiter sees this revision. With waiters, `_after` must stay: a commit of another
            # server may have a smaller revision and be published after our own.
            self._after = revision
        elif changes is not None:
            self._wake(changes)
        else:
            self._must_query = True
            self._start_query()

    def _wake(self, changes: Sequence[Change]) -> None:
        released = [change.lock for change in changes if type(change) is LeaseEnd]
        if released:
            self._queues.wake(released)
        acquired = [change for change in changes if type(change) is Lease and change.token == change.revision]
        if acquired:
            self._queues.recall(acquired)

    def _start_query(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._query())

    async def _query(self) -> None:
        try:
            while self._must_query:
                self._must_query = False
                head = self._space.revision
                found = await self._space.changes(LEASE, self._after, "", MAX_CHANGES)
                self._after = found.revision
                self._wake(found.changes)
                # The number of changes does not show the end: an engine may return fewer than the limit, even none.
                self._must_query = self._must_query or found.revision < head
        except ServiceError as error:
            if error.code == "revision_compacted":
                self._after = self._space.revision
                self._queues.wake(None)
            else:
                self._must_query = True  # the storage cannot be reached; `catch_up` repeats the query
        except Exception as failure:  # noqa: BLE001 - `catch_up` repeats the query
            self._must_query = True
            report("released locks could not be queried", failure)
