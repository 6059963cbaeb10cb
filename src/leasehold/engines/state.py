"""The whole content of a space at one revision: as loaded (`StoredState`) and to be written (`Snapshot`).

Also what a namespace has beside its space (`Description`).
"""

from collections.abc import Mapping, Sequence
from typing import Generic

import msgspec

from leasehold.model import KINDS, AnyKind, Kind, Quota, R, Record


class Description(msgspec.Struct, frozen=True):
    """What a namespace has beside its space. `deleted_at_revision`: it was deleted, and nothing else is kept of it."""

    quota: Quota = Quota()
    created_at: int | None = None
    """Microseconds since the epoch. None: it is `default` without a quota, of which nothing has to be kept."""
    deleted_at_revision: int | None = None

    @property
    def is_deleted(self) -> bool:
        return self.deleted_at_revision is not None


class Contents(msgspec.Struct, Generic[R], gc=False):
    """All records of one kind. `removals`: the names of removed records that are still known, with their revision."""

    by_name: dict[str, R] = {}
    removals: dict[str, int] = {}


AnyContents = Contents[Record]


class StoredState(msgspec.Struct, gc=False):
    """A space as loaded. `foreign`: the file was written by another tool.

    `incarnation` is empty if the space does not have one yet. Removals up to `compacted_revision` are not known.
    """

    contents: dict[AnyKind, AnyContents]
    revision: int = 0
    compacted_revision: int = 0
    incarnation: str = ""
    foreign: bool = False

    def of(self, kind: Kind[R]) -> Contents[R]:
        """The content of one kind."""
        return self.contents.setdefault(kind, Contents())  # type: ignore[arg-type, return-value] # the kind says which

    def by_name(self, kind: AnyKind) -> dict[str, Record]:
        """The records of any kind, by name."""
        return self.contents[kind].by_name

    def advance(self, by: int, incarnation: str) -> None:
        """Increase the head. A client that has seen earlier revisions may have seen changes that are not here."""
        self.revision += by
        self.compacted_revision = self.revision
        self.incarnation = incarnation
        for contents in self.contents.values():
            contents.removals = {}

    @property
    def is_empty(self) -> bool:
        """Nothing was ever written."""
        return not self.revision and not any(contents.by_name for contents in self.contents.values())


def empty_state() -> StoredState:
    """A space in which nothing was ever written."""
    return StoredState({kind: Contents() for kind in KINDS})


class KindSnapshot(msgspec.Struct, Generic[R], frozen=True):
    """One kind of a snapshot. `names` are the sorted names of `records`; `records` may have any order.

    The event loop only copies references, which takes 30 ms for a million. The thread that writes the snapshot sorts
    the records.
    """

    kind: Kind[R]
    names: Sequence[str]
    records: Sequence[R]
    removals: Mapping[str, int] = {}


AnyKindSnapshot = KindSnapshot[Record]


class Snapshot(msgspec.Struct, frozen=True):
    """A space at one revision, to be written. Later changes do not affect it, because records are immutable."""

    incarnation: str
    revision: int
    compacted_revision: int
    kinds: Sequence[AnyKindSnapshot]


def snapshot_of(state: StoredState) -> Snapshot:
    """The snapshot of a loaded state."""
    kinds = [
        KindSnapshot(kind, sorted(contents.by_name), list(contents.by_name.values()), contents.removals)
        for kind, contents in state.contents.items()
    ]
    return Snapshot(state.incarnation, state.revision, state.compacted_revision, kinds)
