"""The contract of a storage engine, documented once.

An engine stores records of kinds in spaces, and makes batches durable. It holds no rules and does not know what a kind
means: preconditions, partial updates and expiry are decided by the function that it is handed (`Decide`), so that every
engine behaves the same. A space is a namespace with a head revision, a lane and a history of its own.

To add an engine, write one class for the engine and one for its spaces that keep these promises, a line in
`open_engine`, and a test module that calls the conformance suite (`tests/conformance`).

Callbacks instead of coroutines: a GET from memory then takes no turn of the event loop, and a commit completes its
requests straight from the end of its fsync. All methods and all callbacks run on the event loop's thread.
"""

import operator
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from leasehold.errors import ServiceError
from leasehold.model import KIND_OF, AnyKind, Change, Changes, Entry, Kind, Page, R, Touched, View

DEFAULT_NAMESPACE: Final = "default"
HISTORY_CHANGES: Final = 100_000
"""Revisions behind the head whose changes every engine still knows; none promises more than another."""

Clock = Callable[[], int]
"""Microseconds since the epoch, never going back."""
MakeIncarnation = Callable[[], str]
"""Makes an incarnation: 6 hexadecimal digits in lower case, another one each time."""


def new_incarnation() -> str:
    """Two stores of 16 million have the same one. Revisions must agree, too, before a tag is taken for another."""
    return secrets.token_hex(3)


Decide = Callable[[View, int, int], Sequence[Change]]
"""`decide(view, revision, now)` → the changes to write.

`revision` is the head: the first change gets `revision + 1`. `now` is the engine's clock, read once the batch has
its turn. Each name of a kind stands in the result once, with its last state. Several changes may share a revision; the
largest becomes the head. Pure: an engine that must retry calls it again. If it raises, the commit ends and nothing is
stored.
"""

ReadDone = Callable[[R | ServiceError | None], None]
CommitDone = Callable[[ServiceError | None], None]
"""Called with the result of a commit. If it raises it is called again, with an error; only the first call decides."""
Published = Callable[[int, Sequence[Change] | None], None]
"""`published(revision, changes)`: a commit that changed records of the kind is visible, and the head is `revision`.

`changes` are those of the kind. None: another server has committed, or notifications were lost; `Space.changes` knows.
"""

revision_of = operator.attrgetter("revision")


class Moment(msgspec.Struct, frozen=True):
    """All entries of one revision, ascending by key, without other kinds and without what has expired.

    `pages` must be closed by whoever takes it.
    """

    incarnation: str
    revision: int
    pages: AsyncGenerator[Sequence[Entry]]


class Space(Protocol):
    """The records of one namespace. One caller: its `Store`."""

    @property
    def revision(self) -> int:
        """The head: the revision of the last change that readers can see."""

    @property
    def incarnation(self) -> str:
        """What tells this space from all others, and from itself before it was restored; part of each ETag.

        Made with the space and durable before anything is answered with it. Known once the space is open. Where
        it may change, because the storage is shared, it is that of what was read or committed last. The same string
        as long as it stays.
        """

    @property
    def fault(self) -> ServiceError | None:
        """Why writes cannot be made durable at present, or None."""

    def gauges(self) -> Mapping[str, float]:
        """What the space can tell of itself at no cost, by the names in `metrics.GAUGES`."""

    async def open(self) -> None:
        """Load, recover and own the storage. Idempotent. Raises ServiceError with a message for the operator."""

    async def close(self) -> None:
        """Wait for the commit in flight, bring the storage to rest, let go of it. Idempotent."""

    def read(self, kind: Kind[R], name: str, done: ReadDone[R]) -> None:
        """Call `done` with the committed record, or None if there is none or it has expired by the engine's clock.

        At once from memory, later where a query must run; `unavailable` if the storage cannot be reached.
        """

    async def scan(self, kind: Kind[R], prefix: str, after: str | None, limit: int) -> Page[R]:
        """Records whose name begins with `prefix`, ascending by the name's UTF-8 bytes.

        `after` is exclusive; `limit` is 1..MAX_PAGE_ENTRIES. Committed records only; expired ones are left out.
        A page may end early, even be empty, with its `next_after`: an engine need not pass over many expired records
        at once. `Page.revision` is the head before the first record was read, so every change up to it is in the page.
        """

    async def moment(self) -> Moment:
        """All entries as they are now, for a backup: what is committed meanwhile is not in it."""

    async def changes(self, kind: AnyKind, after_revision: int, prefix: str, limit: int) -> Changes:
        """The latest change of each name changed after `after_revision`, in revision order, removals included.

        Costs what it returns. At most about `limit` changes, and never a part of a revision; `Changes.revision` says up
        to where they are complete, which is the head when nothing is left. Works after a restart and after a
        checkpoint. Raises `revision_compacted` if the space no longer knows all of them (HISTORY_CHANGES).
        """

    async def expired(self, limit: int) -> Sequence[tuple[AnyKind, str]]:
        """Records that have expired by the engine's clock, at most `limit` of each kind, the earliest of a kind first.

        Where several servers use the storage, one of them gets an answer and the others an empty one, so that one
        server at a time cleans up.
        """

    def commit(self, touched: Touched, decide: Decide, done: CommitDone) -> None:
        """Take the one writer's turn, ask `decide`, make its changes durable, publish them, call `done`.

        The caller makes one call at a time. `touched` is what `decide` may look at. On an error nothing
        was published: `storage_full` means that nothing was stored either; after `unavailable` it may have been, as
        the message says. An empty result of `decide` writes nothing and completes.

        An exception from here means that nothing was stored, and that `done` has not been called. Otherwise `done` is
        called, whatever fails, because all later changes wait for it. So an engine keeps one `try` around everything
        that the event loop or a thread calls with a commit in hand, and its handler calls `done`.
        """

    def subscribe(self, kind: AnyKind, published: Published) -> None:
        """Call `published` after each commit that changed records of `kind`, until the space is closed.

        After `done`, in the order of revisions. A commit may be published twice, and the first call may tell of what
        was there before. Must not raise: the commit is over.
        """

    async def recover(self) -> None:
        """Try to leave a fault, by real and durable work. Called every second while there is one; never raises."""


class Engine(Protocol):
    """A place where spaces are kept."""

    name: str
    """As `/health` and the logs call it: `file`, `memory`, `postgres`."""
    shared: bool
    """Several servers may use it at once."""
    durable: bool
    """What it committed outlives the process."""

    def space(self, namespace: str = DEFAULT_NAMESPACE) -> Space:
        """The space of a namespace, the same one each time. Raises `invalid_argument` where there is only one."""


def by_kind(changes: Sequence[Change]) -> Mapping[AnyKind, Sequence[Change]]:
    """The changes of each kind, in the order that they have."""
    if len(changes) == 1:
        return {KIND_OF[type(changes[0])]: changes}
    kinds = {KIND_OF[each] for each in set(map(type, changes))}
    if len(kinds) == 1:  # nearly always
        return {kinds.pop(): changes}
    return {kind: [change for change in changes if KIND_OF[type(change)] is kind] for kind in kinds}


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
