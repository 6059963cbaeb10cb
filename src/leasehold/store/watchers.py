"""What a watcher is: the request, where its events go, how they are encoded, and the state of one watcher."""

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from leasehold.errors import ServiceError
from leasehold.model import Change, Record

NO_TIMER_SECONDS: Final = 31_536_000.0
"""A token that is valid for longer than this does not end a watch."""


class Sink(Protocol):
    """Where the events of one watcher are sent."""

    is_paused: bool
    """The client has not read what was sent before."""

    def write(self, data: bytes) -> None:
        """Send at once."""

    async def give_way(self) -> None:
        """Return when the client has read what was sent, and other long senders were served."""

    def abort(self) -> None:
        """End the response at once, as incomplete. The task of the watcher is cancelled."""


class Format(Protocol):
    """Encodes events for a representation. There is one object for each, so that watchers can share its results."""

    def changes(self, changes: Sequence[Change]) -> bytes:
        """Events of changes. Those that end a revision carry it as their id. The last change ends its revision."""

    def snapshot(self, records: Sequence[Record]) -> bytes:
        """Events of records, without ids."""

    def ready(self, revision: int) -> bytes: ...

    def progress(self, revision: int) -> bytes: ...

    def reset(self, revision: int) -> bytes: ...

    def end(self, error: ServiceError) -> bytes: ...


class Interest(msgspec.Struct, frozen=True):
    """What a watcher is sent, and how it is encoded. Watchers with equal interests share the work.

    `prefixes`: sorted, and none begins with another.
    """

    prefixes: tuple[str, ...]
    format: Format
    with_locks: bool = False


class Watch(msgspec.Struct, frozen=True):
    """A request to watch. `since`: the cursor of the caller, or None to begin at the head."""

    interest: Interest
    since: int | None = None
    with_snapshot: bool = False
    heartbeat_seconds: float = 15.0
    token_seconds: float = NO_TIMER_SECONDS
    """How long the caller may watch."""


class Watcher:
    """One response. Its task is in `Watching.watch`."""

    __slots__ = ("cursor", "ending", "heartbeat_slot", "is_live", "joined_at", "left", "sent_at", "sink", "watch")

    def __init__(self, watch: Watch, sink: Sink) -> None:
        self.watch = watch
        self.sink = sink
        self.cursor = 0
        """Everything that matches up to this revision has been sent. Always the end of a revision. While the watcher is
        live, `LiveWatchers.position` counts instead."""
        self.is_live = False
        """It is one of the `LiveWatchers`."""
        self.left: asyncio.Future[None] | None = None
        """Completed when it leaves, and cancelled with its task, which waits for it. Each time that it becomes live it
        gets another one."""
        self.joined_at = 0
        """The position at which it became live."""
        self.sent_at = 0.0
        """When it was last sent something as a live watcher, by the loop's clock."""
        self.heartbeat_slot = 0
        """Where it is in `Heartbeats`."""
        self.ending: ServiceError | None = None
        """Why the response is to end."""

    def require_going_on(self) -> None:
        """Raise the reason if the response is to end."""
        if self.ending is not None:
            raise self.ending
