"""The latest changes of one kind in the order of their revisions.

Two lists beside one another, ascending by revision. An item is current if its name has not changed since: then the
record of the name, or its removal, has the revision of the item. Items that are not current are passed over.
"""

from bisect import bisect_right
from collections.abc import Mapping
from typing import Final, Generic

from leasehold.engines import base
from leasehold.engines.state import Contents
from leasehold.errors import ServiceError
from leasehold.model import Change, Changes, Kind, R, Removal

TRIM_CHANGES: Final = 1_000
"""Forgotten at a time, because the rest of the lists is moved for it: 0.1 µs for each change."""
MAX_PASSED: Final = 5_000
"""Items that one call passes over, because they are not current or of another prefix, before it ends early: 1 ms."""


class History(Generic[R]):
    """Changes after `floor`. `by_name` are the records of the kind, which the owner keeps up to date."""

    def __init__(self, kind: Kind[R], contents: Contents[R], by_name: Mapping[str, R], floor: int) -> None:
        self._kind = kind
        self._by_name = by_name
        self.floor = floor
        """Changes up to this revision may be unknown."""
        self.removals = {name: revision for name, revision in contents.removals.items() if revision > floor}
        """The revision by name, of names that were removed after `floor` and are not there."""
        known = [(record.revision, name) for name, record in by_name.items() if record.revision > floor]
        known += [(revision, name) for name, revision in self.removals.items()]
        known.sort()
        # Not pairs: the garbage collector would visit 100,000 tuples, which stopped the event loop for 65 ms.
        self.revisions = [revision for revision, _ in known]
        self.names = [name for _, name in known]

    def trim(self, head: int) -> None:
        """Forget what is more than HISTORY_CHANGES revisions behind `head`, now and then."""
        floor = head - base.HISTORY_CHANGES
        if not self.revisions or self.revisions[0] > floor - TRIM_CHANGES:
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
        """A copy of the removals that `changes` may still tell of."""
        floor = max(self.floor, head - base.HISTORY_CHANGES)
        return {name: revision for name, revision in self.removals.items() if revision > floor}

    def changes(self, after_revision: int, prefix: str, limit: int, head: int) -> Changes:
        """See `Space.changes`."""
        if after_revision < max(self.floor, head - base.HISTORY_CHANGES):
            raise ServiceError("revision_compacted", "changes that old are no longer known")
        revisions, names = self.revisions, self.names
        found: list[Change] = []
        passed = 0
        begin = bisect_right(revisions, after_revision)
        for index in range(begin, len(revisions)):
            revision, name = revisions[index], names[index]
            if (len(found) >= limit or passed >= MAX_PASSED) and revision != revisions[index - 1]:
                return Changes(found, revisions[index - 1])
            change = self._current(name, revision) if name.startswith(prefix) else None
            if change is None:
                passed += 1
            else:
                found.append(change)
        return Changes(found, head)

    def _current(self, name: str, revision: int) -> R | Removal | None:
        record = self._by_name.get(name)
        if record is not None:
            return record if record.revision == revision else None
        return self._kind.removal(name, revision) if self.removals.get(name) == revision else None
