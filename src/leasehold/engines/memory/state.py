"""The records of a space in memory at the head. It is the View for `decide`. Used on the event loop's thread only."""

from collections.abc import Mapping, Sequence
from typing import Protocol, cast

from leasehold.engines import base
from leasehold.engines.base import by_kind
from leasehold.engines.memory.table import Table, apply_changes
from leasehold.engines.state import Snapshot, StoredState
from leasehold.model import ENTRY, KIND_OF, KINDS, AnyKind, Change, Kind, Quota, R, Record, Usage

AnyTable = Table[Record]


class RecordsOf(Protocol):
    """Gives the records of a kind."""

    def __call__(self, kind: Kind[R], /) -> Mapping[str, R]: ...


class State:
    """All records of a space, by kind."""

    def __init__(self, stored: StoredState) -> None:
        self.incarnation = stored.incarnation
        self.revision = stored.revision
        self.quota: Quota | None = None
        """See `View.quota`."""
        floor = max(stored.compacted_revision, stored.revision - base.HISTORY_CHANGES)
        self._floor = floor
        self._tables: Mapping[AnyKind, AnyTable] = {
            kind: Table(kind, stored.of(kind), floor if kind.has_history else stored.revision)  # type: ignore[arg-type]
            for kind in KINDS
        }

        # The method of a dictionary costs a fifth of a Python function, and each operation calls it.
        self.records = cast("RecordsOf", {kind: table.by_name for kind, table in self._tables.items()}.__getitem__)
        """See `View.records`."""
        self.found = cast("RecordsOf", {kind: table.by_lookup for kind, table in self._tables.items()}.__getitem__)
        """See `View.found`."""

    def table(self, kind: Kind[R]) -> Table[R]:
        """The records of one kind."""
        return cast("Table[R]", self._tables[kind])  # type: ignore[index] # the kind says of which record

    @property
    def counts(self) -> Mapping[str, int]:
        """How many records there are, by the plural of their kind."""
        return {kind.plural: len(table) for kind, table in self._tables.items()}

    @property
    def usage(self) -> Usage:
        """See `View.usage`."""
        entries = self.table(ENTRY)
        return Usage(len(entries), entries.content_bytes)

    @property
    def text_bytes(self) -> int:
        """The approximate size of `data.json`."""
        return sum(table.text_bytes for table in self._tables.values())

    def text_bytes_after(self, change: Change) -> int:
        """An upper bound of `text_bytes` after a change."""
        table = self._tables[KIND_OF[type(change)]]
        return self.text_bytes - table.text_bytes + table.text_bytes_after(change)

    def publish(self, changes: Mapping[AnyKind, Sequence[Change]], head: int) -> None:
        """Make a batch visible to readers. The changes are grouped by kind, each in the order of revisions."""
        for kind, of_kind in changes.items():
            self._tables[kind].publish(of_kind, head)
        self.revision = head

    def rebuilt(self, changes: Mapping[AnyKind, Sequence[Change]], head: int) -> "State":
        """A new state that includes a batch that `publish` could not, or only partly, publish.

        Only the records and removals are copied. The indexes are rebuilt, because they may be inconsistent.
        """
        contents = {kind: table.contents() for kind, table in self._tables.items()}
        for kind, of_kind in changes.items():
            apply_changes(kind, of_kind, contents[kind].by_name, contents[kind].removals)  # type: ignore[misc]
        rebuilt = State(StoredState(contents, head, self.compacted_revision, self.incarnation))
        rebuilt.quota = self.quota
        return rebuilt

    @property
    def compacted_revision(self) -> int:
        """Removals up to this revision may be unknown."""
        return self._compacted_at(self.revision)

    def _compacted_at(self, head: int) -> int:
        floors = (table.history.floor for kind, table in self._tables.items() if kind.has_history)
        return max(self._floor, head - base.HISTORY_CHANGES, *floors)

    def snapshot(self) -> Snapshot:
        """The current state."""
        kinds = [table.snapshot(self.revision) for table in self._tables.values()]
        return Snapshot(self.incarnation, self.revision, self.compacted_revision, kinds)

    def snapshot_after(self, changes: Sequence[Change], head: int) -> Snapshot:
        """The state after a batch."""
        of_kinds = by_kind(changes)
        kinds = [table.snapshot_after(of_kinds.get(kind, ()), head) for kind, table in self._tables.items()]
        return Snapshot(self.incarnation, head, self._compacted_at(head), kinds)
