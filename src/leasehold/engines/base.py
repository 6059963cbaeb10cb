"""The contract of a storage engine, documented once.

An engine loads records, writes records and makes a batch durable. It holds no rules: preconditions, partial updates
and expiry are decided by the function that it is handed (`Decide`), so that every engine behaves the same. To add
an engine, write one class that keeps these promises, one line in `open_engine` and one line in the conformance
suite (`tests/engines`).

Callbacks instead of coroutines: with them a GET from memory takes no turn of the event loop, and a commit completes
its requests straight from the end of its fsync. All methods and all callbacks run on the event loop's thread.
"""

import operator
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from leasehold.errors import ServiceError
from leasehold.model import (
    Change,
    Deletion,
    Entry,
    EntryChange,
    Lease,
    LeaseChange,
    LeaseEnd,
    Page,
    Touched,
    View,
)

Clock = Callable[[], int]
"""Microseconds since the epoch, never going back."""
MakeIncarnation = Callable[[], str]
"""Makes an incarnation: 6 hexadecimal digits in lower case, another one each time."""


def new_incarnation() -> str:
    """Two stores of 16 million have the same one. Revisions must agree, too, before a tag is taken for another."""
    return secrets.token_hex(3)


Decide = Callable[[View, int, int], Sequence[Change]]
"""`decide(view, revision, now)` → the records to write.

`revision` is the head: the first change gets `revision + 1`. `now` is the engine's clock, read once the batch has
its turn. Each key and each lock stands in the result once, with its last state, in the order of revisions. Pure: an
engine that must retry calls it again. What it raises ends the commit: nothing may be stored then.
"""

ReadDone = Callable[[Entry | ServiceError | None], None]
CommitDone = Callable[[ServiceError | None], None]
"""Hears how a commit ended. If it raises it is called again, with an error; only the first call decides."""
Freed = Callable[[Sequence[str] | None], None]
"""Hears of locks whose leases were ended by a commit, of this server or another; None: some, unknown which."""

revision_of = operator.attrgetter("revision")


class Moment(msgspec.Struct, frozen=True):
    """All entries of one revision, ascending by key, without leases and without what has expired.

    `pages` must be closed by whoever takes it.
    """

    incarnation: str
    revision: int
    pages: AsyncGenerator[Sequence[Entry]]


class Engine(Protocol):
    """A place where entries are kept. One caller: the `Store`."""

    name: str
    """As `/health` and the logs call it: `file`, `memory`, `postgres`."""
    shared: bool
    """Several servers may use it at once."""
    durable: bool
    """What it committed outlives the process."""

    @property
    def revision(self) -> int:
        """The head: the revision of the last change that readers can see."""

    @property
    def incarnation(self) -> str:
        """What tells this store from all others, and from itself before it was restored; part of each ETag.

        Made with the store and durable before anything is answered with it. Known once the engine is open. Where
        it may change, because the storage is shared, it is that of what was read or committed last. The same string
        as long as it stays.
        """

    @property
    def fault(self) -> ServiceError | None:
        """Why writes cannot be made durable at present, or None."""

    def gauges(self) -> Mapping[str, float]:
        """What the engine can tell of itself at no cost, by the names in `metrics.GAUGES`."""

    async def open(self) -> None:
        """Load, recover and own the storage. Idempotent. Raises ServiceError with a message for the operator."""

    async def close(self) -> None:
        """Wait for the commit in flight, bring the storage to rest, let go of it. Idempotent."""

    def read(self, key: str, done: ReadDone) -> None:
        """Call `done` with the committed entry, or None if there is none or it has expired by the engine's clock.

        At once from memory, later where a query must run; `unavailable` if the storage cannot be reached.
        """

    async def scan(self, prefix: str, after: str | None, limit: int) -> Page[Entry]:
        """Entries whose key begins with `prefix`, ascending by the key's UTF-8 bytes.

        `after` is exclusive; `limit` is 1..MAX_PAGE_ENTRIES. Committed entries only; expired ones are left out.
        A page may end early, even be empty, with its `next_after`: an engine need not pass over many expired entries
        at once. `Page.revision` is the head before the first entry was read, so every change up to it is in the page.
        """

    async def moment(self) -> Moment:
        """Everything as it is now, for a backup: what is committed meanwhile is not in it."""

    async def changes(self, after_revision: int, prefix: str, limit: int) -> list[EntryChange]:
        """The latest change of each key changed after `after_revision`, in revision order, deletions included.

        Leases are not told. Raises `revision_compacted` if the engine no longer knows all of them.
        """

    async def expired(self, limit: int) -> list[str]:
        """Keys whose time has come by the engine's clock, at most `limit`, those that expired first in front.

        Where several servers use the storage, one of them gets an answer and the others an empty one: what is to be
        cleaned up is told to one at a time.
        """

    async def lease(self, lock: str) -> Lease | None:
        """The lease of a lock, None if there is none or it has expired by the engine's clock."""

    async def leases(self, prefix: str, after: str | None, limit: int) -> Page[Lease]:
        """The leases of locks whose names begin with `prefix`, as `scan`."""

    async def expired_leases(self, limit: int) -> list[str]:
        """Locks whose lease has expired, as `expired`."""

    def watch_locks(self, freed: Freed) -> None:
        """Call `freed` from now on, with everything that it should know but may hear of twice."""

    def commit(self, touched: Touched, decide: Decide, done: CommitDone) -> None:
        """Take the one writer's turn, ask `decide`, make its records durable, publish them, call `done`.

        The caller makes one call at a time. `touched` is what `decide` may look at. On an error nothing
        was published: `storage_full` means that nothing was stored either; after `unavailable` it may have been, as
        the message says. An empty result of `decide` writes nothing and completes.

        An exception from here means that nothing was stored, and that `done` has not been called. Otherwise `done` is
        called, whatever fails, because all later changes wait for it. So the engine holds no more of a commit than it
        can tell of: who is called by the event loop or a thread has one `try`, whose handler calls `done`.
        """

    async def wait(self, revision: int) -> None:
        """Return when the head has passed `revision`; may wake early."""

    async def recover(self) -> None:
        """Try to leave a fault, by real and durable work. Called every second while there is one; never raises."""


def by_kind(changes: Sequence[Change]) -> tuple[list[EntryChange], list[LeaseChange]]:
    """The changes of entries and those of leases."""
    entries = [change for change in changes if type(change) is Entry or type(change) is Deletion]
    if len(entries) == len(changes):  # nearly always
        return entries, []
    return entries, [change for change in changes if type(change) is Lease or type(change) is LeaseEnd]


class SteadyClock:
    """The wall clock at the start, then time as it passes; never before `floor`.

    Steps of the wall clock do not reach it, so a lease or a time to live never ends early by one. The time passed
    includes a suspended machine's sleep where the system can tell (CLOCK_BOOTTIME).
    """

    def __init__(self, floor: int = 0) -> None:
        self._clock_id = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
        self._started_ns = time.clock_gettime_ns(self._clock_id)
        self._base = max(time.time_ns() // 1000, floor)

    def __call__(self) -> int:
        return self._base + (time.clock_gettime_ns(self._clock_id) - self._started_ns) // 1000
