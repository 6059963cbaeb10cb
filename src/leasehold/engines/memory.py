"""Entries in memory: the state that the file engine serves, and by itself the engine `memory:`.

Invariants of `Entries`: `_keys` holds exactly the keys of `_by_key`; each entry with an expiry stands in `_expiries`
(which may hold more: what was replaced or removed is dropped when its time comes, or when there is too much of it);
`_history` names the latest changes in the order of their revisions.
"""

import asyncio
import heapq
import operator
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

from sortedcontainers import SortedList

from leasehold.engines.base import Clock, CommitDone, Decide, ReadDone, SteadyClock
from leasehold.engines.snapshot import LINE_BYTES, Snapshot
from leasehold.errors import ServiceError, unavailable
from leasehold.model import Change, Deletion, Entry, Page, is_expired

HISTORY_CHANGES: Final = 100_000
STALE_EXPIRIES: Final = 1_024
"""Expiries of entries that are gone, kept at most besides one for each entry."""

revision_of = operator.attrgetter("revision")


class Entries:
    """All entries of a store, in order where it is asked for. A View for `decide`. For the event loop's thread."""

    def __init__(self, by_key: dict[str, Entry], revision: int) -> None:
        self.revision = revision
        self._by_key = by_key
        self.entry = by_key.get
        """Part of the View; the dictionary's own method, since each read passes here."""
        self._keys: SortedList[str] = SortedList(by_key)
        self._expiries = [(e.expires_at, e.key) for e in by_key.values() if e.expires_at is not None]
        heapq.heapify(self._expiries)
        self._history: deque[tuple[int, str]] = deque(maxlen=HISTORY_CHANGES)
        self._history_floor = revision
        self.text_bytes = sum(_line_bytes(entry) for entry in by_key.values())
        """About the size of `data.json`."""

    def __len__(self) -> int:
        return len(self._by_key)

    def publish(self, changes: Sequence[Change]) -> None:
        """Let readers see a batch. `changes` are in the order of their revisions. 0.5 µs for an entry replaced."""
        by_key, history = self._by_key, self._history
        for change in changes:
            key = change.key
            before = by_key.get(key)
            if type(change) is Entry:
                by_key[key] = change
                if before is None:
                    self._keys.add(key)
                    self.text_bytes += _line_bytes(change)
                else:
                    self.text_bytes += len(change.value) - len(before.value)
                if change.expires_at is not None:
                    self._note_expiry(change.expires_at, key)
            elif before is not None:
                del by_key[key]
                self._keys.remove(key)
                self.text_bytes -= _line_bytes(before)
            history.append((change.revision, key))
        self.revision = changes[-1].revision

    def text_bytes_after(self, change: Change) -> int:
        """`text_bytes` as it will be."""
        before = self._by_key.get(change.key)
        after = _line_bytes(change) if type(change) is Entry else 0
        return self.text_bytes + after - (0 if before is None else _line_bytes(before))

    def snapshot(self) -> Snapshot:
        """The state as it is now; later changes do not reach it, since entries are immutable."""
        return Snapshot(self.revision, list(self._keys), list(self._by_key.values()))

    def snapshot_after(self, changes: Sequence[Change]) -> Snapshot:
        """The state as it will be. For small stores: it copies and sorts here and now."""
        by_key = dict(self._by_key)
        for change in changes:
            if type(change) is Entry:
                by_key[change.key] = change
            else:
                by_key.pop(change.key, None)
        return Snapshot(changes[-1].revision, sorted(by_key), list(by_key.values()))

    def page(self, prefix: str, after: str | None, limit: int, now: int) -> Page:
        """See `Engine.scan`. Strings compare by code points, which is the order of their UTF-8 bytes."""
        exclusive = after is not None and after >= prefix
        found: list[Entry] = []
        for key in self._keys.irange(after if exclusive else prefix, inclusive=(not exclusive, True)):
            if not key.startswith(prefix):
                break
            entry = self._by_key[key]
            if is_expired(entry, now):
                continue
            if len(found) == limit:
                return Page(found, self.revision, found[-1].key)
            found.append(entry)
        return Page(found, self.revision, None)

    def changes(self, after_revision: int, prefix: str, limit: int) -> list[Change]:
        """See `Engine.changes`."""
        history = self._history
        floor = history[0][0] - 1 if len(history) == HISTORY_CHANGES else self._history_floor
        if after_revision < floor:
            raise ServiceError("revision_compacted", "changes that old are no longer known")
        latest: dict[str, int] = {}
        for revision, key in reversed(history):
            if revision <= after_revision:
                break
            if key.startswith(prefix):
                latest.setdefault(key, revision)
        oldest_first = _last_keys(latest, limit)
        return [self._by_key.get(key) or Deletion(key, latest[key]) for key in oldest_first]

    def expired(self, limit: int, now: int) -> list[str]:
        """See `Engine.expired`. What is returned stays known until it is removed."""
        due: list[tuple[int, str]] = []
        while self._expiries and self._expiries[0][0] <= now and len(due) < limit:
            expiry = heapq.heappop(self._expiries)
            if self._is_current(expiry) and (not due or due[-1] != expiry):
                due.append(expiry)
        for expiry in due:
            heapq.heappush(self._expiries, expiry)
        return [key for _, key in due]

    def _note_expiry(self, expires_at: int, key: str) -> None:
        heapq.heappush(self._expiries, (expires_at, key))
        if len(self._expiries) > 2 * len(self._by_key) + STALE_EXPIRIES:
            self._expiries = [expiry for expiry in set(self._expiries) if self._is_current(expiry)]
            heapq.heapify(self._expiries)

    def _is_current(self, expiry: tuple[int, str]) -> bool:
        entry = self._by_key.get(expiry[1])
        return entry is not None and entry.expires_at == expiry[0]


def _last_keys(latest: dict[str, int], limit: int) -> list[str]:
    """The last `limit` keys put in, last first."""
    keys = list(latest)
    return keys[: -limit - 1 : -1]


def _line_bytes(entry: Entry) -> int:
    return LINE_BYTES + len(entry.key) + len(entry.value)


class EntriesEngine:
    """What engines share that keep every entry in memory: all the reading."""

    def __init__(self, clock: Clock | None) -> None:
        self._entries = Entries({}, 0)
        self._clock: Clock = clock or SteadyClock()
        self._published = asyncio.Event()

    @property
    def revision(self) -> int:
        return self._entries.revision

    def figures(self) -> Mapping[str, float]:
        return {"entries": len(self._entries)}

    def read(self, key: str, done: ReadDone) -> None:
        entry = self._entries.entry(key)
        if entry is not None and entry.expires_at is not None and entry.expires_at <= self._clock():
            entry = None
        done(entry)

    async def scan(self, prefix: str, after: str | None, limit: int) -> Page:
        return self._entries.page(prefix, after, limit, self._clock())

    async def changes(self, after_revision: int, prefix: str, limit: int) -> list[Change]:
        return self._entries.changes(after_revision, prefix, limit)

    async def expired(self, limit: int) -> list[str]:
        return self._entries.expired(limit, self._clock())

    async def wait(self, revision: int) -> None:
        while self._entries.revision <= revision:
            await self._published.wait()

    def _decide(self, decide: Decide) -> list[Change]:
        return sorted(decide(self._entries, self._entries.revision, self._clock()), key=revision_of)

    def _publish(self, changes: Sequence[Change]) -> None:
        self._entries.publish(changes)
        # Wakes those who wait now; who comes later waits for the next batch.
        self._published.set()
        self._published.clear()


class MemoryEngine(EntriesEngine):
    """Keeps entries as long as the process lives. For trying out, and for tests."""

    name = "memory"
    shared = False
    durable = False

    def __init__(self, *, clock: Clock | None = None) -> None:
        super().__init__(clock)
        self._closed = False

    @property
    def fault(self) -> ServiceError | None:
        return None

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        self._closed = True

    def commit(self, touched: Sequence[str], decide: Decide, done: CommitDone) -> None:  # noqa: ARG002
        if self._closed:
            done(unavailable("the store is closed"))
            return
        changes = self._decide(decide)
        if changes:
            self._publish(changes)
        done(None)

    async def recover(self) -> None:
        pass
