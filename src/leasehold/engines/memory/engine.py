"""The whole of a store in memory: the state that the file engine serves, and by itself the engine `memory:`."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Final

from leasehold.completions import ends_the_process, report
from leasehold.engines.base import (
    Clock,
    CommitDone,
    Decide,
    Freed,
    Moment,
    ReadDone,
    SteadyClock,
    by_kind,
    new_incarnation,
    revision_of,
)
from leasehold.engines.file.snapshot import Snapshot, StoredState
from leasehold.engines.memory.entries import Entries
from leasehold.engines.memory.leases import LEASE_LINE_BYTES, Leases
from leasehold.errors import ServiceError, outcome_unknown, unavailable
from leasehold.model import Change, Deletion, Entry, EntryChange, Lease, Page, Touched, is_expired, name_of

PAGE_ENTRIES: Final = 512
"""Of a moment, between two turns of the event loop."""


class State:
    """Entries and leases at one revision. A View for `decide`. For the event loop's thread."""

    def __init__(self, stored: StoredState) -> None:
        self.incarnation = stored.incarnation
        self.revision = stored.revision
        self.entries = Entries(stored.entries, stored.revision)
        self.leases = Leases(stored.leases)
        self.entry = self.entries.get
        self.lease = self.leases.get
        self.lease_by_id = self.leases.get_by_id

    @property
    def text_bytes(self) -> int:
        """About the size of `data.json`."""
        return self.entries.text_bytes + self.leases.text_bytes

    def text_bytes_after(self, change: Change) -> int:
        """`text_bytes` as it will be, at most."""
        if type(change) is Entry or type(change) is Deletion:
            return self.leases.text_bytes + self.entries.text_bytes_after(change)
        return self.text_bytes + LEASE_LINE_BYTES

    def publish(self, changes: Sequence[Change]) -> list[str]:
        """Let readers see a batch, in the order of its revisions. Returns the locks that it set free."""
        of_entries, of_leases = by_kind(changes)
        self.entries.publish(of_entries)
        self.revision = changes[-1].revision
        return self.leases.publish(of_leases) if of_leases else []

    def rebuilt(self, changes: Sequence[Change]) -> "State":
        """A new state that has a batch of which `publish` did a part, or nothing, before it raised.

        Only the records themselves are taken over: whatever else is kept beside them may not fit them any more.
        """
        entries, leases = self.entries.by_name(), self.leases.by_name()
        for change in changes:
            if type(change) is Entry:
                entries[change.key] = change
            elif type(change) is Lease:
                leases[change.lock] = change
            elif type(change) is Deletion:
                entries.pop(change.key, None)
            else:
                leases.pop(name_of(change), None)
        return State(StoredState(entries, changes[-1].revision, leases=leases, incarnation=self.incarnation))

    def snapshot(self) -> Snapshot:
        """The state as it is now; later changes do not reach it, since records are immutable."""
        return Snapshot(self.incarnation, self.revision, *self.entries.copy(), self.leases.copy())

    def snapshot_after(self, changes: Sequence[Change]) -> Snapshot:
        """The state as it will be."""
        of_entries, of_leases = by_kind(changes)
        entries, leases = self.entries.copy_after(of_entries), self.leases.copy_after(of_leases)
        return Snapshot(self.incarnation, changes[-1].revision, *entries, leases)


class InMemoryEngine:
    """What engines share that keep everything in memory: all the reading."""

    def __init__(self, clock: Clock | None) -> None:
        self._state = State(StoredState({}))
        self.incarnation = ""
        self._clock: Clock = clock or SteadyClock()
        self._published = asyncio.Event()
        self._freed: Freed = lambda _: None
        self._unpublished: Sequence[Change] = ()
        """What is stored but could not be published: memory ran out in the middle of it. Nothing may pass it by."""

    @property
    def revision(self) -> int:
        return self._state.revision

    def gauges(self) -> Mapping[str, float]:
        return {"entries": len(self._state.entries), "leases": len(self._state.leases)}

    def read(self, key: str, done: ReadDone) -> None:
        entry = self._state.entry(key)
        if entry is not None and entry.expires_at is not None and entry.expires_at <= self._clock():
            entry = None
        done(entry)

    async def scan(self, prefix: str, after: str | None, limit: int) -> Page[Entry]:
        return self._state.entries.page(prefix, after, limit, self.revision, self._clock())

    async def moment(self) -> Moment:
        keys, by_key = self._state.entries.copy_by_key()
        return Moment(self.incarnation, self.revision, _pages(keys, by_key, self._clock()))

    async def changes(self, after_revision: int, prefix: str, limit: int) -> list[EntryChange]:
        return self._state.entries.changes(after_revision, prefix, limit)

    async def expired(self, limit: int) -> list[str]:
        return self._state.entries.expired(limit, self._clock())

    async def lease(self, lock: str) -> Lease | None:
        lease = self._state.lease(lock)
        return None if lease is None or is_expired(lease, self._clock()) else lease

    async def leases(self, prefix: str, after: str | None, limit: int) -> Page[Lease]:
        return self._state.leases.page(prefix, after, limit, self.revision, self._clock())

    async def expired_leases(self, limit: int) -> list[str]:
        return self._state.leases.expired(limit, self._clock())

    def watch_locks(self, freed: Freed) -> None:
        self._freed = freed

    async def wait(self, revision: int) -> None:
        while self._state.revision <= revision:
            await self._published.wait()

    def _decide(self, decide: Decide) -> list[Change]:
        state = self._current()
        return sorted(decide(state, state.revision, self._clock()), key=revision_of)

    def _current(self) -> State:
        """The state with all that is stored. Raises if there is something that cannot be published."""
        if self._unpublished:
            self._publish(self._unpublished)
        return self._state

    def _conclude(self, changes: Sequence[Change], done: CommitDone) -> None:
        """A batch is stored: let readers see it, and tell those who wait. `done` may be called again if this raises."""
        freed = self._publish(changes)
        try:
            done(None)
        finally:
            # Wakes those who wait now; who comes later waits for the next batch.
            self._published.set()
            self._published.clear()
            if freed is None or freed:
                self._freed(freed)

    def _publish(self, changes: Sequence[Change]) -> Sequence[str] | None:
        """Returns the locks that are free now; None: some, unknown which."""
        self._unpublished = changes
        freed: Sequence[str] | None = None
        try:
            freed = self._state.publish(changes)
        except Exception as failure:  # noqa: BLE001 - part of it may be done, and what is stored must be seen
            report("a batch could not be published; the state is built anew", failure)
            self._state = self._state.rebuilt(changes)
        self._unpublished = ()
        return freed


async def _pages(keys: Sequence[str], by_key: Mapping[str, Entry], now: int) -> AsyncGenerator[Sequence[Entry]]:
    for begin in range(0, len(keys), PAGE_ENTRIES):
        page = (by_key[key] for key in keys[begin : begin + PAGE_ENTRIES])
        yield [entry for entry in page if not is_expired(entry, now)]


class MemoryEngine(InMemoryEngine):
    """Keeps entries as long as the process lives. For trying out, and for tests."""

    name = "memory"
    shared = False
    durable = False

    def __init__(self, *, clock: Clock | None = None) -> None:
        super().__init__(clock)
        self.incarnation = self._state.incarnation = new_incarnation()
        self._closed = False

    @property
    def fault(self) -> ServiceError | None:
        return None

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        self._closed = True

    def commit(self, touched: Touched, decide: Decide, done: CommitDone) -> None:  # noqa: ARG002
        if self._closed:
            done(unavailable("the store is closed"))
            return
        changes = self._decide(decide)
        if not changes:
            done(None)
            return
        try:
            self._conclude(changes, done)
        except BaseException as failure:  # all later changes wait for this one
            report("a commit ended in an unexpected way", failure)
            done(outcome_unknown())
            if ends_the_process(failure):
                raise

    async def recover(self) -> None:
        pass
