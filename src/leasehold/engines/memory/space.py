"""Spaces in memory: the base class of the file engine's space, and the space of the engine `memory:`."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Final

from leasehold.completions import ends_the_process, report
from leasehold.engines.base import (
    Clock,
    CommitDone,
    Decide,
    Moment,
    Published,
    ReadDone,
    SteadyClock,
    by_kind,
    new_incarnation,
    revision_of,
)
from leasehold.engines.memory.state import State
from leasehold.engines.state import StoredState, empty_state
from leasehold.errors import ServiceError, no_such_namespace, outcome_unknown, unavailable
from leasehold.model import (
    ENTRY,
    KINDS,
    AnyKind,
    Change,
    Changes,
    Counted,
    Entry,
    Kind,
    Page,
    Quota,
    R,
    Touched,
    Usage,
    is_expired,
)

PAGE_ENTRIES: Final = 512
"""Entries in one page of a moment."""
SLICE_SPACES: Final = 256
"""So many spaces are searched for expired records before other work is done: 0.5 ms."""


class InMemorySpace:
    """The base of spaces that keep all records in memory: reads, publishing and subscriptions."""

    turn = None
    """See `Space.turn`."""

    def __init__(self, clock: Clock | None, state: StoredState) -> None:
        self._use(State(state))
        self.incarnation = state.incarnation
        self._clock: Clock = clock or SteadyClock()
        self._subscribers: dict[AnyKind, list[Published]] = {kind: [] for kind in KINDS}
        self._unpublished: Sequence[Change] = ()
        """Changes that are stored but could not be published, because memory ran out. They must be published before
        the next batch is decided."""

    def _use(self, state: State) -> None:
        """Serve this state from now on."""
        self._state = state
        self.peek = state.records(ENTRY).get
        """See `Space.peek`."""

    @property
    def revision(self) -> int:
        return self._state.revision

    @property
    def usage(self) -> Usage:
        """What the entries take; see `Usage`."""
        return self._state.usage

    @property
    def quota(self) -> Quota:
        """How much there may be."""
        return self._state.quota or Quota()

    @quota.setter
    def quota(self, quota: Quota) -> None:
        self._state.quota = None if quota == Quota() else quota

    def gauges(self) -> Mapping[str, float]:
        return self._state.counts

    def read(self, kind: Kind[R], name: str, done: ReadDone[R]) -> None:
        record = self._state.records(kind).get(name)
        if record is not None and record.expires_at is not None and record.expires_at <= self._clock():
            record = None
        done(record)

    async def scan(
        self, kind: Kind[R], prefix: str, after: str | None, limit: int, *, is_reversed: bool = False
    ) -> Page[R]:
        table, now = self._state.table(kind), self._clock()
        return table.page(prefix, after, limit, self.revision, now, is_reversed=is_reversed)

    async def count(
        self, kind: Kind[R], prefix: str, after: str | None, limit: int, *, is_reversed: bool = False
    ) -> Counted:
        table, now = self._state.table(kind), self._clock()
        return table.count(prefix, after, limit, self.revision, now, is_reversed=is_reversed)

    async def read_all(self, kind: Kind[R], names: Sequence[str]) -> AsyncGenerator[Page[R]]:
        now = self._clock()
        found = map(self._state.records(kind).get, names)
        yield Page([each for each in found if each is not None and not is_expired(each, now)], self.revision, None)

    async def moment(self) -> Moment:
        keys, by_key = self._state.table(ENTRY).copy_by_name()
        return Moment(self.incarnation, self.revision, _pages(keys, by_key, self._clock()))

    async def changes(self, kind: AnyKind, after_revision: int, prefix: str, limit: int) -> Changes:
        history = self._state.table(kind).history  # type: ignore[misc] # one of several kinds
        return history.changes(after_revision, prefix, limit, self.revision)

    async def expired(self, limit: int) -> Sequence[tuple[AnyKind, str]]:
        """The expired records of this space, at most `limit` of each kind; see `Engine.expired`."""
        now = self._clock()
        return [(kind, name) for kind in KINDS for name in self._state.table(kind).expired(limit, now)]  # type: ignore[misc]

    async def surplus(self, kind: AnyKind, most: int, most_bytes: int, limit: int) -> Sequence[str]:
        """The surplus records of this space, at most `limit`; see `Engine.surplus`."""
        return self._state.table(kind).surplus(most, most_bytes, limit)  # type: ignore[misc] # one of several kinds

    def subscribe(self, kind: AnyKind, published: Published) -> None:
        self._subscribers[kind].append(published)

    def _decide(self, decide: Decide) -> list[Change]:
        state = self._current()
        return sorted(decide(state, state.revision, self._clock()), key=revision_of)

    def _current(self) -> State:
        """The state with all stored changes. Raises if they cannot be published."""
        if self._unpublished:
            self._publish(self._unpublished)
        return self._state

    def _conclude(self, changes: Sequence[Change], done: CommitDone) -> None:
        """A batch is stored: publish it, call `done`, notify the subscribers. If this raises, call `done` again."""
        of_kinds = self._publish(changes)
        try:
            done(None)
        finally:
            for kind, of_kind in of_kinds.items():
                for published in self._subscribers[kind]:
                    published(self._state.revision, of_kind)

    def _publish(self, changes: Sequence[Change]) -> Mapping[AnyKind, Sequence[Change]]:
        self._unpublished = changes
        of_kinds, head = by_kind(changes), changes[-1].revision
        try:
            self._state.publish(of_kinds, head)
        except Exception as failure:  # noqa: BLE001 - the batch is stored, so it must be published completely
            report("a batch could not be published; the state is rebuilt", failure)
            self._use(self._state.rebuilt(of_kinds, head))
        self._unpublished = ()
        return of_kinds


async def _pages(keys: Sequence[str], by_key: Mapping[str, Entry], now: int) -> AsyncGenerator[Sequence[Entry]]:
    for begin in range(0, len(keys), PAGE_ENTRIES):
        page = (by_key[key] for key in keys[begin : begin + PAGE_ENTRIES])
        yield [entry for entry in page if not is_expired(entry, now)]


async def expired_in(spaces: Mapping[str, InMemorySpace], limit: int) -> Sequence[tuple[str, AnyKind, str]]:
    """See `Engine.expired`. `spaces`: all of an engine, by namespace. 2 µs for each in which nothing has expired."""
    found: list[tuple[str, AnyKind, str]] = []
    for number, (namespace, space) in enumerate(list(spaces.items()), start=1):
        found += [(namespace, *each) for each in await space.expired(limit)]
        if len(found) >= limit:
            break
        await _give_way(number)
    return found


async def surplus_in(
    spaces: Mapping[str, InMemorySpace], kind: AnyKind, most: int, most_bytes: int, limit: int
) -> Sequence[tuple[str, str]]:
    """See `Engine.surplus`."""
    found: list[tuple[str, str]] = []
    for number, (namespace, space) in enumerate(list(spaces.items()), start=1):
        found += [(namespace, name) for name in await space.surplus(kind, most, most_bytes, limit)]
        if len(found) >= limit:
            break
        await _give_way(number)
    return found


async def _give_way(number: int) -> None:
    """Let other work be done after each SLICE_SPACES. Some of the next spaces may be deleted by then, and are empty."""
    if number % SLICE_SPACES == 0:
        await asyncio.sleep(0)


class DeletableSpace(InMemorySpace):
    """A space whose namespace can be deleted: its reads are refused from then on.

    The class that commits must look at `is_deleted`, too.
    """

    is_deleted = False

    def delete(self) -> None:
        """Refuse all reads from now on, and free the records. The revision stays."""
        self.is_deleted = True
        state = empty_state()
        state.revision = state.compacted_revision = self._state.revision
        self._use(State(state))

    def _require_existence(self) -> None:
        if self.is_deleted:
            raise no_such_namespace()

    def read(self, kind: Kind[R], name: str, done: ReadDone[R]) -> None:
        if self.is_deleted:
            done(no_such_namespace())
        else:
            super().read(kind, name, done)

    async def scan(
        self, kind: Kind[R], prefix: str, after: str | None, limit: int, *, is_reversed: bool = False
    ) -> Page[R]:
        self._require_existence()
        return await super().scan(kind, prefix, after, limit, is_reversed=is_reversed)

    async def count(
        self, kind: Kind[R], prefix: str, after: str | None, limit: int, *, is_reversed: bool = False
    ) -> Counted:
        self._require_existence()
        return await super().count(kind, prefix, after, limit, is_reversed=is_reversed)

    async def read_all(self, kind: Kind[R], names: Sequence[str]) -> AsyncGenerator[Page[R]]:
        self._require_existence()
        async for page in super().read_all(kind, names):
            yield page

    async def moment(self) -> Moment:
        self._require_existence()
        return await super().moment()

    async def changes(self, kind: AnyKind, after_revision: int, prefix: str, limit: int) -> Changes:
        self._require_existence()
        return await super().changes(kind, after_revision, prefix, limit)


class MemorySpace(DeletableSpace):
    """Keeps records until the process ends. For experiments and tests."""

    def __init__(self, *, clock: Clock | None = None, revision: int = 0) -> None:
        """`revision`: that of the namespace of this name that was deleted last, so that no token is given out twice."""
        state = empty_state()
        state.revision = state.compacted_revision = revision
        state.incarnation = new_incarnation()
        super().__init__(clock, state)
        self.created_at = self._clock()
        self._closed = False

    @property
    def fault(self) -> ServiceError | None:
        return None

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        self._closed = True

    def commit(self, touched: Touched, decide: Decide, done: CommitDone) -> None:  # noqa: ARG002
        if self.is_deleted:
            done(no_such_namespace())
            return
        if self._closed:
            done(unavailable("the store is closed"))
            return
        changes = self._decide(decide)
        if not changes:
            done(None)
            return
        try:
            self._conclude(changes, done)
        except BaseException as failure:  # `done` must be called, because all later changes wait for it
            report("a commit ended in an unexpected way", failure)
            done(outcome_unknown())
            if ends_the_process(failure):
                raise

    async def recover(self) -> None:
        pass
