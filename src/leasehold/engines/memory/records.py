"""What is kept in memory by name, in order, some of it until a certain time: entries by key, leases by lock.

Invariants: `_names` holds exactly the names of `_by_name`; each record with an expiry stands in `_expiries` (which may
hold more: what was replaced or removed is dropped when its time comes, or when there is too much of it).
"""

import heapq
from typing import Final, Generic, TypeVar

from sortedcontainers import SortedList

from leasehold.model import Entry, Lease, Page, is_expired, name_of

STALE_EXPIRIES: Final = 1_024
"""Expiries of records that are gone, kept at most besides one for each record."""

MAX_PASSED: Final = 5_000
"""Records that one call passes over, because they have expired or gone, before it ends early: 1 to 5 ms."""

R = TypeVar("R", bound=Entry | Lease)


class Records(Generic[R]):
    """Records by name. For the event loop's thread."""

    def __init__(self, by_name: dict[str, R]) -> None:
        self._by_name = by_name
        self.get = by_name.get
        """The record as stored. The dictionary's own method, since each read passes here."""
        self._names: SortedList[str] = SortedList(by_name)
        self._expiries = [
            (record.expires_at, name) for name, record in by_name.items() if record.expires_at is not None
        ]
        heapq.heapify(self._expiries)

    def by_name(self) -> dict[str, R]:
        """All records, as they are now."""
        return dict(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def page(self, prefix: str, after: str | None, limit: int, revision: int, now: int) -> Page[R]:
        """Live records in the order of their names, as in `Engine.scan`.

        Strings compare by code points, which is the order of their UTF-8 bytes.
        """
        exclusive = after is not None and after >= prefix
        found: list[R] = []
        passed = 0
        for name in self._names.irange(after if exclusive else prefix, inclusive=(not exclusive, True)):
            if not name.startswith(prefix):
                break
            record = self._by_name[name]
            if is_expired(record, now):
                passed += 1
                if passed == MAX_PASSED:
                    return Page(found, revision, name)
                continue
            if len(found) == limit:
                return Page(found, revision, name_of(found[-1]))
            found.append(record)
        return Page(found, revision, None)

    def expired(self, limit: int, now: int) -> list[str]:
        """Names, as in `Engine.expired`. What is returned stays known until it is removed."""
        due: list[tuple[int, str]] = []
        passed = 0
        while self._expiries and self._expiries[0][0] <= now and len(due) < limit and passed < MAX_PASSED:
            expiry = heapq.heappop(self._expiries)
            passed += 1
            if self._is_current(expiry) and (not due or due[-1] != expiry):
                due.append(expiry)
        for expiry in due:
            heapq.heappush(self._expiries, expiry)
        return [name for _, name in due]

    def _note_expiry(self, expires_at: int, name: str) -> None:
        heapq.heappush(self._expiries, (expires_at, name))
        if len(self._expiries) > 2 * len(self._by_name) + STALE_EXPIRIES:
            self._expiries = [expiry for expiry in set(self._expiries) if self._is_current(expiry)]
            heapq.heapify(self._expiries)

    def _is_current(self, expiry: tuple[int, str]) -> bool:
        record = self._by_name.get(expiry[1])
        return record is not None and record.expires_at == expiry[0]
