"""The whole of a space at one revision, as it is loaded (`StoredState`) and as it is written (`Snapshot`)."""

from collections.abc import Mapping, Sequence
from typing import Generic

import msgspec

from leasehold.model import KINDS, AnyKind, Kind, R, Record


class Contents(msgspec.Struct, Generic[R], gc=False):
    """Everything of one kind. `removals`: the revision by name, of removals that are still known."""

    by_name: dict[str, R] = {}
    removals: dict[str, int] = {}


AnyContents = Contents[Record]


class StoredState(msgspec.Struct, gc=False):
    """A space as it was loaded. `foreign`: another tool wrote the file.

    `incarnation` is empty where the space does not have one yet. Removals up to `compacted_revision` are not known.
    """

    contents: dict[AnyKind, AnyContents]
    revision: int = 0
    compacted_revision: int = 0
    incarnation: str = ""
    foreign: bool = False

    def of(self, kind: Kind[R]) -> Contents[R]:
        """What the space holds of one kind."""
        return self.contents.setdefault(kind, Contents())  # type: ignore[arg-type, return-value] # the kind says which

    def by_name(self, kind: AnyKind) -> dict[str, Record]:
        """The records of a kind, whichever it is."""
        return self.contents[kind].by_name

    @property
    def is_empty(self) -> bool:
        """Nothing was ever written."""
        return not self.revision and not any(contents.by_name for contents in self.contents.values())


def empty_state() -> StoredState:
    """A space in which nothing was ever written."""
    return StoredState({kind: Contents() for kind in KINDS})


class KindSnapshot(msgspec.Struct, Generic[R], frozen=True):
    """One kind of a snapshot. `names` are sorted and are those of `records`, which need no order.

    Taken so because a million references are copied in 30 ms on the event loop; the thread that writes puts the records
    into order.
    """

    kind: Kind[R]
    names: Sequence[str]
    records: Sequence[R]
    removals: Mapping[str, int] = {}


AnyKindSnapshot = KindSnapshot[Record]


class Snapshot(msgspec.Struct, frozen=True):
    """A space at one revision, to be written; later changes do not reach it, since records are immutable."""

    incarnation: str
    revision: int
    compacted_revision: int
    kinds: Sequence[AnyKindSnapshot]


def snapshot_of(state: StoredState) -> Snapshot:
    """The snapshot of a state as it was loaded."""
    kinds = [
        KindSnapshot(kind, sorted(contents.by_name), list(contents.by_name.values()), contents.removals)
        for kind, contents in state.contents.items()
    ]
    return Snapshot(state.incarnation, state.revision, state.compacted_revision, kinds)
