"""The latest changes of one kind in the order of their revisions.

They are in two parallel lists, sorted by revision. An item is current if its name has not changed since: then the
record of the name, or its removal, has the revision of the item. Other items are skipped.
"""

from bisect import bisect_right
from collections.abc import Mapping
from itertools import compress
from typing import Final, Generic, cast

from leasehold.engines import base
from leasehold.engines.state import Contents
from leasehold.model import Change, Changes, Kind, R, Removal

TRIM_CHANGES: Final = 1_000
"""How many changes are removed at a time. A removal moves the rest of the lists; this makes it 0.1 µs per change."""
MAX_CHANGES_FACTOR: Final = 2
"""The history has at most this many times HISTORY_CHANGES changes. Without this limit, transactions of 128 deletions
each would let it grow to 13 million changes and 2 GB."""
MAX_SKIPPED: Final = 5_000
"""After skipping this many items (not current, or another prefix), a call ends early. It has then taken 1 ms."""


class History(Generic[R]):
    """Changes after `floor`. `by_name` has the records of the kind; the owner updates it."""

    __slots__ = ("_by_name", "_kind", "floor", "names", "removals", "revisions")

    def __init__(self, kind: Kind[R], contents: Contents[R], by_name: Mapping[str, R], floor: int) -> None:
        self._kind = kind
        self._by_name = by_name
        self.floor = floor
        """Changes up to this revision may be unknown."""
        self.removals: dict[str, int] = {}
        """Names that were removed after `floor` and do not exist now, with the revision of their removal."""
        self.revisions: list[int] = []
        self.names: list[str] = []
        if not by_name and not contents.removals:
            return  # so are nearly all leases and receipts of thousands of namespaces
        self.removals = {name: revision for name, revision in contents.removals.items() if revision > floor}
        revisions = list(map(base.revision_of, by_name.values()))
        is_known = list(map(floor.__lt__, revisions))
        known = list(zip(compress(revisions, is_known), compress(by_name, is_known), strict=True))
        known += [(revision, name) for name, revision in self.removals.items()]
        known.sort()
        # Not a list of pairs: the garbage collector would visit 100,000 tuples, which took 65 ms.
        self.revisions = [revision for revision, _ in known]
        self.names = [name for _, name in known]

    def trim(self, head: int) -> None:
        """Remove changes that are more than HISTORY_CHANGES revisions older than `head`, TRIM_CHANGES at a time.

        Revisions may have many changes. If there are too many, fewer revisions are kept.
        """
        floor = head - base.HISTORY_CHANGES
        excess = len(self.revisions) - MAX_CHANGES_FACTOR * base.HISTORY_CHANGES
        if excess > TRIM_CHANGES:
            floor = max(floor, self.revisions[excess - 1])
        elif not self.revisions or self.revisions[0] > floor - TRIM_CHANGES:
            return
        end = bisect_right(self.revisions, floor)
        if end < TRIM_CHANGES:
            return
        removals = self.removals
        for name in self.names[:end]:
            if removals.get(name, floor + 1) <= floor:
                del removals[name]
        del self.revisions[:end], self.names[:end]
        self.floor = max(self.floor, floor)

    def known_removals(self, head: int) -> dict[str, int]:
        """A copy of the removals that `changes` may still return."""
        floor = max(self.floor, head - base.HISTORY_CHANGES)
        return {name: revision for name, revision in self.removals.items() if revision > floor}

    def changes(self, after_revision: int, prefix: str, limit: int, head: int) -> Changes:
        """See `Space.changes`."""
        oldest = max(self.floor, head - base.HISTORY_CHANGES)
        if after_revision < oldest:
            raise base.compacted(oldest)
        revisions, names = self.revisions, self.names
        begin = bisect_right(revisions, after_revision)
        current = self._all_current(begin, begin + limit, prefix)
        if current is not None:
            return current
        found: list[Change] = []
        skipped = 0
        for index in range(begin, len(revisions)):
            revision, name = revisions[index], names[index]
            if (len(found) >= limit or skipped >= MAX_SKIPPED) and revision != revisions[index - 1]:
                return Changes(found, revisions[index - 1])
            change = self._current(name, revision) if name.startswith(prefix) else None
            if change is None:
                skipped += 1
            else:
                found.append(change)
        return Changes(found, head)

    def _all_current(self, begin: int, end: int, prefix: str) -> Changes | None:
        """The items from `begin` up to `end`, if all of them are current and are told. None if one is not.

        A reader that catches up mostly finds such items. `map` takes a third of the time of the loop in `changes`.
        """
        if end >= len(self.revisions) or self.revisions[end] == self.revisions[end - 1]:
            return None  # these are the last changes, or a revision would be divided
        revisions, names = self.revisions[begin:end], self.names[begin:end]
        if prefix and not all(name.startswith(prefix) for name in names):
            return None
        records = list(map(self._by_name.get, names))
        if not all(records) or list(map(base.revision_of, records)) != revisions:
            return None
        return Changes(cast("list[Change]", records), revisions[-1])

    def _current(self, name: str, revision: int) -> R | Removal | None:
        record = self._by_name.get(name)
        if record is not None:
            return record if record.revision == revision else None
        return self._kind.removal(name, revision) if self.removals.get(name) == revision else None


class NoHistory(History[R]):
    """The history of a kind without one: it knows no change before the head."""

    __slots__ = ()

    def trim(self, head: int) -> None:  # noqa: ARG002 - all changes are before it
        """Forget all changes."""
        self.revisions.clear()
        self.names.clear()
        self.removals.clear()

    def changes(self, after_revision: int, prefix: str, limit: int, head: int) -> Changes:  # noqa: ARG002 - there are none
        if after_revision < head:
            raise base.compacted(head)
        return Changes([], head)
