"""The contract of a storage engine.

An engine stores records in spaces and makes batches durable. It has no rules and does not know what a kind of record
means. The function that it gets for each batch (`Decide`) decides preconditions, partial updates and expiry, so all
engines behave in the same way. A space is a namespace with its own head revision, lane and history.

To add an engine, write one class for the engine and one for its spaces that fulfil this contract, a line in
`open_engine`, and a test module that runs the conformance suite (`tests/conformance`).

The contract uses callbacks instead of coroutines. So a GET from memory needs no iteration of the event loop, and the
end of an fsync completes the requests of its batch directly. All methods and callbacks run on the event loop's thread.
"""

import operator
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from leasehold.errors import ServiceError
from leasehold.model import (
    KIND_OF,
    AnyKind,
    Change,
    Changes,
    Counted,
    Entry,
    Kind,
    Namespace,
    Page,
    QuotaChange,
    R,
    Touched,
    View,
)
from leasehold.namespaces import DEFAULT_NAMESPACE

HISTORY_CHANGES: Final = 100_000
"""Every engine knows the changes of this many revisions before the head, and answers no queries for older ones. It may
know fewer revisions if these have more than twice this many changes."""

Clock = Callable[[], int]
"""Microseconds since the epoch, never going back."""
MakeIncarnation = Callable[[], str]
"""Makes a new incarnation: 6 random hexadecimal digits in lower case."""


def new_incarnation() -> str:
    """6 digits: two stores have the same one with a probability of 1 in 16 million.

    Even then, an ETag of one store matches in the other only if the revisions are equal, too.
    """
    return secrets.token_hex(3)


Decide = Callable[[View, int, int], Sequence[Change]]
"""`decide(view, revision, now)` → the changes to write.

`revision` is the head: the first change gets `revision + 1`. `now` is the engine's clock, read when the commit begins.
The result has each name of a kind at most once, with its last state. Several changes may share a revision; the largest
revision becomes the head. The function is pure: an engine that retries calls it again. If it raises, the commit ends
and nothing is stored.
"""

ReadDone = Callable[[R | ServiceError | None], None]
CommitDone = Callable[[ServiceError | None], None]
"""Called with the result of a commit. If it raises, it is called again with an error; only the first result counts."""
Published = Callable[[int, Sequence[Change] | None], None]
"""`published(revision, changes)`: a commit that changed records of the kind is visible, and the head is `revision`.

`changes` are the changes of the kind. None: another server has committed, or notifications were lost. Query them with
`Space.changes`.
"""

revision_of = operator.attrgetter("revision")


class Moment(msgspec.Struct, frozen=True):
    """All entries at one revision, sorted by key, without expired ones. Other kinds of records are not included.

    The receiver must close `pages`.
    """

    incarnation: str
    revision: int
    pages: AsyncGenerator[Sequence[Entry]]


class Space(Protocol):
    """The records of one namespace. Its only caller is its `Store`."""

    @property
    def revision(self) -> int:
        """The head: the revision of the last change that readers can see."""

    @property
    def incarnation(self) -> str:
        """Identifies one history of a space; a restore makes a new one. It is part of each ETag.

        It is made with the space, and is durable before any response contains it. It is known once the space is open.
        If the storage is shared, it may change; then it belongs to the last read or commit. The same string object is
        returned until it changes.
        """

    @property
    def fault(self) -> ServiceError | None:
        """Why writes cannot be made durable now, or None."""

    def gauges(self) -> Mapping[str, float]:
        """Gauges that cost nothing to compute, by the names in `metrics.GAUGES`."""

    async def open(self) -> None:
        """Take ownership of the storage, recover and load it. Idempotent. Raises ServiceError for the operator."""

    async def close(self) -> None:
        """Wait for the commit in flight, finish all background work, release the storage. Idempotent."""

    def read(self, kind: Kind[R], name: str, done: ReadDone[R]) -> None:
        """Call `done` with the committed record, or None if there is none or it has expired by the engine's clock.

        Engines that keep records in memory call it before this returns. `unavailable` if the storage cannot be reached.
        """

    @property
    def peek(self) -> Callable[[str], Entry | None] | None:
        """Returns a committed entry by its key at once, expired or not. None: the records are not in memory; `read`."""

    async def scan(
        self, kind: Kind[R], prefix: str, after: str | None, limit: int, *, is_reversed: bool = False
    ) -> Page[R]:
        """Records whose name begins with `prefix`, sorted by the UTF-8 bytes of their names.

        `after` is exclusive; `limit` is 1..MAX_PAGE_ENTRIES. Only committed records that have not expired. A page with
        a `next_after` may have fewer records than `limit`, even none, so that an engine can stop after many expired
        records, or after many bytes. `Page.revision` is the head before the first record was read: the page has all
        changes up to it. `is_reversed`: in descending order, and only names less than `after`.
        """

    async def count(
        self, kind: Kind[R], prefix: str, after: str | None, limit: int, *, is_reversed: bool = False
    ) -> Counted:
        """How many records `scan` would return. Counts at most `limit`, or fewer if that takes long.

        A part of the list that is not complete has a `last`, and it may have counted nothing.
        """

    def read_all(self, kind: Kind[R], names: Sequence[str]) -> AsyncGenerator[Page[R]]:
        """The records with these names as of one moment, in the order of `names`, without those that are missing.

        They come in one or more pages, so that the caller can stop when it has enough. `Page.revision` is the head at
        that moment; `next_after` is None. The caller must close the generator.
        """

    async def moment(self) -> Moment:
        """All entries as of now, for a backup. Later commits are not included."""

    async def changes(self, kind: AnyKind, after_revision: int, prefix: str, limit: int) -> Changes:
        """The latest change of each name that changed after `after_revision`, in the order of revisions, with removals.

        The cost is proportional to the result. At most about `limit` changes; a revision is never split. The changes
        are complete up to `Changes.revision`, which is the head if there are no more. Works after a restart and after a
        checkpoint. Raises `revision_compacted` if the space no longer knows all of them (HISTORY_CHANGES).
        """

    def commit(self, touched: Touched, decide: Decide, done: CommitDone) -> None:
        """Become the only writer, call `decide`, make its changes durable, publish them, call `done`.

        The caller makes one call at a time. `touched` is what `decide` may read. After an error nothing was published.
        `storage_full` means that nothing was stored either; after `unavailable` the changes may have been stored, as
        the message says. If `decide` returns no changes, nothing is written and `done` gets None.

        An exception from `commit` means that nothing was stored and `done` was not called. In all other cases the
        engine must call `done`, because all later changes wait for it. So each callback and each job of a thread that
        handles a commit needs one `try`, whose handler calls `done`.
        """

    @property
    def turn(self) -> Callable[[Callable[[], None]], None] | None:
        """Waits until this server is the only writer, because other servers commit, too. None: commit at once.

        Call it with `ready` instead of `commit`. It calls `ready` later, also if it fails; once, or again if `ready`
        raises. Within `ready`, the caller calls `commit` with all changes that wait by then: the batch is larger than
        one that is made before the wait. If it does not call `commit`, the turn ends. The rule of one call at a time
        counts from the call of `turn` on. Changes to which none would be added may be committed at once: `commit` also
        waits, and needs one round trip less.
        """

    def subscribe(self, kind: AnyKind, published: Published) -> None:
        """Call `published` after each commit that changed records of `kind`, until the space is closed.

        It is called after `done`, in the order of revisions. A commit may be published twice, and the first call may
        include changes from before the subscription. `published` must not raise, because the commit is already done.
        """


class Engine(Protocol):
    """A place where spaces are kept."""

    name: str
    """The name in `/health` and in the log: `file`, `memory`, `postgres`."""
    shared: bool
    """Several servers may use it at the same time."""
    durable: bool
    """Committed changes outlive the process."""

    def space(self, namespace: str = DEFAULT_NAMESPACE) -> Space:
        """The space of a namespace, the same object each time. Raises `no_such_namespace`.

        `default` always exists. A namespace that was deleted and created again has another space.
        """

    async def open(self) -> None:
        """Open what all spaces share. Called once, before a space is opened. Raises ServiceError for the operator.

        The space `default` is opened then, before all others. `Space.open` of the others must be cheap.
        """

    async def close(self) -> None:
        """Close what all spaces share, after all of them are closed. Idempotent."""

    async def namespaces(self, after: str | None, limit: int) -> Sequence[Namespace]:
        """At most `limit` namespaces in the order of their names, those whose names are greater than `after`."""

    async def namespace(self, name: str) -> Namespace:
        """The description of a namespace. Raises `no_such_namespace`."""

    async def create(self, name: str, change: QuotaChange) -> tuple[Namespace, bool]:
        """Create a namespace, or change the quota of the one that exists. True: it was created.

        It is durable when this returns. A new namespace has the quota that results if it had none before.

        A namespace that was deleted begins at the revision of its deletion, with a new incarnation, and its history
        begins there. So no fencing token and no ETag is given out twice, and no cursor from before goes on.
        """

    async def delete(self, name: str) -> int:
        """Delete a namespace with all that it has. Returns the revision of the deletion, the next after its head.

        This revision is kept. It is no revision of the namespace, so that whoever has seen its last change can be told
        that there was a deletion since (`revision_compacted`).

        It takes its turn among the commits of the namespace: each commit was done before it, or is refused with
        `no_such_namespace`. So are all reads from then on. Raises `no_such_namespace`. Not called for `default`.
        """

    def subscribe(self, deleted: Callable[[str], None]) -> None:
        """Call `deleted` with the name of each namespace that another server has deleted, once this one knows it."""

    @property
    def fault(self) -> ServiceError | None:
        """Why writes cannot be made durable now, or None. All spaces share the storage, so they share its fault."""

    async def recover(self) -> None:
        """Try to end a fault, by a durable write. Called every second while there is a fault. Never raises."""

    async def expired(self, limit: int) -> Sequence[tuple[str, AnyKind, str]]:
        """Records that have expired by the engine's clock: their namespaces, kinds and names.

        At least one if there are any; not much more than `limit` of a kind. Those of one kind in one namespace are in
        the order of their expiry. If several servers use the storage, only one of them gets a result and the others an
        empty one. So one server at a time removes expired records.
        """

    async def surplus(self, kind: AnyKind, most: int, most_bytes: int, limit: int) -> Sequence[tuple[str, str]]:
        """Records beyond the `most` latest ones of their namespace, and beyond its latest ones that have `most_bytes`.

        The latest are those with the latest expiry; all records of the kind expire. Their namespaces and names, about
        `limit`, those of a namespace with the earliest expiry first. Sizes are approximate. An engine may look less
        often than it is called, and return nothing. If several servers use the storage, each looks in the spaces that
        it has open, so several may get the same names.
        """


def compacted(oldest: int) -> ServiceError:
    """The error of `Space.changes` for a revision whose changes are no longer known. `oldest`: one whose are known."""
    return ServiceError("revision_compacted", "the changes since then are not known", details={"oldest": oldest})


def by_kind(changes: Sequence[Change]) -> Mapping[AnyKind, Sequence[Change]]:
    """The changes grouped by kind; their order stays."""
    if len(changes) == 1:
        return {KIND_OF[type(changes[0])]: changes}
    kinds = {KIND_OF[each] for each in set(map(type, changes))}
    if len(kinds) == 1:  # nearly always
        return {kinds.pop(): changes}
    return {kind: [change for change in changes if KIND_OF[type(change)] is kind] for kind in kinds}


class SteadyClock:
    """Reads the wall clock once, then adds the time that has passed. Never before `floor`.

    Later steps of the wall clock have no effect, so they never end a lease or a ttl early. The passed time includes the
    time that the machine was suspended, if the system has CLOCK_BOOTTIME.
    """

    def __init__(self, floor: int = 0) -> None:
        self._clock_id = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
        self._started_ns = time.clock_gettime_ns(self._clock_id)
        self._base = max(time.time_ns() // 1000, floor)

    def __call__(self) -> int:
        return self._base + (time.clock_gettime_ns(self._clock_id) - self._started_ns) // 1000
