"""The notifications of commits that were made without one.

A commit sends a notification in its transaction. Each notification wakes all servers, and a process of the database for
each of them. So while several servers commit, a commit is made without one if the last one is less than
INTERVAL_SECONDS ago, whichever server sent it. The next one then tells of this commit, too: it has a larger revision.
If none comes within INTERVAL_SECONDS, the listener sends one.

A commit is kept here until a notification that tells of it was heard or sent, also while the connection is lost. If
this server is killed before, the others find the commit when they read the heads (`listener`).

Commits of contended kinds are not kept, because callers at all servers wait for them.
"""

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from leasehold.engines.postgres.record_statements import SEPARATOR
from leasehold.engines.postgres.tables import TABLES
from leasehold.model import AnyKind

INTERVAL_SECONDS: Final = 0.01
"""Two servers on two cores, with 64 clients each, together commit a batch every 3 ms."""

Untold = Mapping[str, Mapping[AnyKind, int]]
"""The largest revision of a commit that other servers may not know, by namespace and kind."""


class Notifications:
    """The commits of this server that other servers may not know. `wake` is called when `is_due` becomes true."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._heard_at = -math.inf
        """When a notification was heard last, by the loop's clock. Of any namespace, because each wakes all servers."""
        self._untold: dict[str, dict[AnyKind, int]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.is_due = False
        """The listener must send what is untold."""

    def can_wait(self, kinds: Iterable[AnyKind]) -> bool:
        """Whether a commit that changes these kinds may be made without a notification. It must be given to `add`."""
        is_recent = asyncio.get_running_loop().time() < self._heard_at + INTERVAL_SECONDS
        return is_recent and not any(TABLES[kind].is_contended for kind in kinds)

    def add(self, namespace: str, revision: int, kinds: Iterable[AnyKind]) -> None:
        """A commit was made without a notification. All earlier revisions are committed, too."""
        self._untold.setdefault(namespace, {}).update(dict.fromkeys(kinds, revision))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(INTERVAL_SECONDS, self._become_due)

    def heard(self, namespace: str, revision: int, kinds: Iterable[AnyKind]) -> None:
        """All servers that listen have got a notification, of this server or of another one."""
        self._heard_at = asyncio.get_running_loop().time()
        if namespace in self._untold:
            self._told(namespace, dict.fromkeys(kinds, revision))

    def sent(self, untold: Untold) -> None:
        """The notifications of `untold` were sent."""
        self.is_due = False
        for namespace, revisions in untold.items():
            self._told(namespace, revisions)

    def untold(self) -> Untold:
        """A copy, for `sent`."""
        return {namespace: dict(revisions) for namespace, revisions in self._untold.items()}

    def _told(self, namespace: str, told: Mapping[AnyKind, int]) -> None:
        revisions = self._untold.pop(namespace, {})
        left = {kind: revision for kind, revision in revisions.items() if revision > told.get(kind, -1)}
        if left:
            self._untold[namespace] = left
        elif not self._untold:
            self.is_due = False
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _become_due(self) -> None:
        self._timer = None
        self.is_due = True
        self._wake()


def texts(untold: Untold) -> list[str]:
    """What notifications say after the schema, one for each namespace."""
    return [
        f"{namespace}/{max(revisions.values())}{''.join(f'{SEPARATOR}{kind.name}' for kind in revisions)}"
        for namespace, revisions in untold.items()
    ]
