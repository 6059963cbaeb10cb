"""Which locks were released, by the feed of leases, so that their queues are woken.

Commits of this server tell their changes. Of a commit of another server only its revision is known: then the changes
since the last look are asked for, if a caller waits for any lock.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from leasehold.completions import report
from leasehold.engines.base import Space
from leasehold.errors import ServiceError
from leasehold.model import LEASE, Change, LeaseEnd
from leasehold.store.lock_queues import LockQueues
from leasehold.tasks import cancelled

MAX_CHANGES: Final = 1_000
"""Asked for at a time."""


class LockFeed:
    """Subscribed to the leases of a space; wakes the queues of locks."""

    def __init__(self, space: Space, queues: LockQueues) -> None:
        self._space = space
        self._queues = queues
        self._after = 0
        """Every queue there is has heard of, or has seen for itself, the changes up to this revision."""
        self._task: asyncio.Task[None] | None = None
        self._must_ask = False
        """There may be changes that nothing has asked for yet."""
        space.subscribe(LEASE, self._published)

    async def stop(self) -> None:
        """Ask no more."""
        if self._task is not None:
            await cancelled(self._task)

    def catch_up(self) -> None:
        """Ask again after a failure. Called every second."""
        if self._must_ask:
            self._ask()

    def _published(self, revision: int, changes: Sequence[Change] | None) -> None:
        if not self._queues:
            # Whoever comes later sees this revision by its own attempt. Else `_after` stays: a commit of another server
            # with a smaller revision may be told of after our own.
            self._after = revision
        elif changes is not None:
            self._wake(changes)
        else:
            self._must_ask = True
            self._ask()

    def _wake(self, changes: Sequence[Change]) -> None:
        released = [change.lock for change in changes if type(change) is LeaseEnd]
        if released:
            self._queues.wake(released)

    def _ask(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        try:
            while self._must_ask:
                self._must_ask = False
                head = self._space.revision
                found = await self._space.changes(LEASE, self._after, "", MAX_CHANGES)
                self._after = found.revision
                self._wake(found.changes)
                # How many there are says nothing: an engine may end early, even with an empty part.
                self._must_ask = self._must_ask or found.revision < head
        except ServiceError as error:
            if error.code == "revision_compacted":
                self._after = self._space.revision
                self._queues.wake(None)
            else:
                self._must_ask = True  # the storage cannot be reached; the space publishes again when it can
        except Exception as failure:  # noqa: BLE001 - asked again within a second
            self._must_ask = True
            report("released locks could not be looked for", failure)
