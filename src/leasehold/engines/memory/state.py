"""A space in memory at one revision. A View for `decide`. For the event loop's thread."""

from collections.abc import Mapping, Sequence
from typing import Protocol, cast

from leasehold.engines import base
from leasehold.engines.base import by_kind
from leasehold.engines.memory.table import Table, apply_changes
from leasehold.engines.state import Snapshot, StoredState
from leasehold.model import KIND_OF, KINDS, AnyKind, Change, Kind, R, Record

AnyTable = Table[Record]


class RecordsOf(Protocol):
    """Gives the records of a kind."""

    def __call__(self, kind: Kind[R], /) -> Mapping[str, R]: ...


class State:
    """All records of a space, by kind."""

    def __init__(self, stored: StoredState) -> None:
        self.incarnation = stored.incarnation
        self.revision = stored.revision
        floor = max(stored.compacted_revision, stored.revision - base.HISTORY_CHANGES)
        self._floor = floor
        self._tables: Mapping[AnyKind, AnyTable] = {
            kind: Table(kind, stored.of(kind), floor)  # type: ignore[arg-type] # one of several kinds
            for kind in KINDS
        }

        # A dictionary's own method costs a fifth of a function, and each operation calls it.
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
    def text_bytes(self) -> int:
        """About the size of `data.json`."""
        return sum(table.text_bytes for table in self._tables.values())

    def text_bytes_after(self, change: Change) -> int:
        """`text_bytes` as it will be, at most."""
        table = self._tables[KIND_OF[type(change)]]
        return self.text_bytes - table.text_bytes + table.text_bytes_after(change)

    def publish(self, changes: Mapping[AnyKind, Sequence[Change]], head: int) -> None:
        """Let readers see a batch, by kind, each in the order of its revisions."""
        for kind, of_kind in changes.items():
            self._tables[kind].publish(of_kind, head)
        self.revision = head

    def rebuilt(self, changes: Mapping[AnyKind, Sequence[Change]], head: int) -> "State":
        """A new state that has a batch of which `publish` did a part, or nothing, before it raised.

        Only the records themselves are taken over: whatever else is kept beside them may not fit them any more.
        """
        contents = {kind: table.contents() for kind, table in self._tables.items()}
        for kind, of_kind in changes.items():
            apply_changes(kind, of_kind, contents[kind].by_name, contents[kind].removals)  # type: ignore[misc]
        return State(StoredState(contents, head, self.compacted_revision, self.incarnation))

    @property
    def compacted_revision(self) -> int:
        """Removals up to here may be unknown."""
        return max(self._floor, self.revision - base.HISTORY_CHANGES)

    def snapshot(self) -> Snapshot:
        """The state as it is now."""
        kinds = [table.snapshot(self.revision) for table in self._tables.values()]
        return Snapshot(self.incarnation, self.revision, self.compacted_revision, kinds)

    def snapshot_after(self, changes: Sequence[Change], head: int) -> Snapshot:
        """The state as it will be."""
        of_kinds = by_kind(changes)
        kinds = [table.snapshot_after(of_kinds.get(kind, ()), head) for kind, table in self._tables.items()]
        return Snapshot(self.incarnation, head, max(self._floor, head - base.HISTORY_CHANGES), kinds)
