"""The records that engines store, by kind, and what one commit leaves of each.

To add a kind, add its record and its removal here, and a `Kind` in KINDS. The rules give it a meaning (`rules`). An
engine that keeps each kind in a table of its own needs the SQL of that table (`engines/postgres/tables`); the others
need nothing. The first field of a record is its name. The others are annotated with what they are in text: see `Time`,
`JsonText` and `Revision`. A field with another name in text than here is a `msgspec.field(name=…)`.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Generic, Protocol, TypeVar

import msgspec

Time = Annotated[int, "time"]
"""Microseconds since the epoch, UTC. In files and in answers it is text: `2026-11-24T09:30:00.000000Z`."""
JsonText = Annotated[bytes, "json"]
"""Compact JSON text that the API has accepted. In files and in answers it stands as it is."""
Revision = Annotated[int, "revision"]
"""A revision of the space, 1 or greater, and not greater than the head."""


class Entry(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=1):
    """A key and its value, as committed.

    `gc=False`: an entry refers to plain strings, bytes and integers only, and the garbage collector need not visit a
    million of them. The order of the fields is the order in the journal; new ones go to the end.
    """

    key: str
    value: JsonText
    revision: Revision
    created_at: Time
    updated_at: Time
    expires_at: Time | None = None

    @property
    def name(self) -> str:
        """The key."""
        return self.key


class Deletion(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=0):
    """A key that a commit removed."""

    key: str
    revision: int

    @property
    def name(self) -> str:
        """The key."""
        return self.key


class Lease(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=2):
    """A lock that is held until `expires_at`. The order of the fields is the order in the journal, as in `Entry`."""

    lock: str
    lease_id: str
    """The holder's secret."""
    token: Revision
    """The revision of the acquisition, so larger than that of every lease before."""
    revision: Revision
    """Of the last change: the acquisition or a renewal."""
    acquired_at: Time
    expires_at: Time
    ttl: int = msgspec.field(name="ttl_microseconds")
    """Microseconds, as it was last asked for."""
    holder: str
    """The `sub` of the caller who acquired it."""
    owner: JsonText
    """What the holder says of itself."""

    @property
    def name(self) -> str:
        """The lock."""
        return self.lock


class LeaseEnd(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=3):
    """A lock that a commit released, or whose lease it removed after its end."""

    lock: str
    revision: int

    @property
    def name(self) -> str:
        """The lock."""
        return self.lock


Record = Entry | Lease
Removal = Deletion | LeaseEnd
Change = Record | Removal
"""What one commit left of one name: its record, or its removal."""

R = TypeVar("R", bound=Record)


class Kind(Generic[R]):
    """What an engine knows of a kind of record. Compared by identity.

    Names of one kind say nothing about names of another. A record replaces the one of its name; a removal removes it.
    """

    __slots__ = ("lookup", "name", "plural", "record", "removal")

    def __init__(self, name: str, plural: str, record: type[R], removal: type[Removal], *, lookup: str = "") -> None:
        self.name = name
        """In notifications and in messages: `entry`."""
        self.plural = plural
        """The member of `data.json`, the gauge, the list of the kind: `entries`."""
        self.record = record
        self.removal = removal
        """Takes the name and the revision."""
        self.lookup = lookup
        """A field of text by whose value a record is found, too; it is unique. Empty: there is none."""

    def __repr__(self) -> str:
        return f"<kind {self.name}>"


AnyKind = Kind[Entry] | Kind[Lease]

ENTRY: Final = Kind("entry", "entries", Entry, Deletion)
LEASE: Final = Kind("lease", "leases", Lease, LeaseEnd, lookup="lease_id")
KINDS: Final[Sequence[AnyKind]] = (ENTRY, LEASE)
KIND_OF: Final[Mapping[type, AnyKind]] = {change: kind for kind in KINDS for change in (kind.record, kind.removal)}
"""The kind of a change, by its type."""


def is_removal(change: Change) -> bool:
    """Whether a commit left nothing under this name."""
    return type(change) is Deletion or type(change) is LeaseEnd


class Touched(msgspec.Struct, frozen=True):
    """What a batch may look at: names by kind, and values of `Kind.lookup` by kind.

    A fenced write gives the `lease_id` alone and does not know the name of its lock.
    """

    names: Mapping[AnyKind, Sequence[str]] = {}
    lookups: Mapping[AnyKind, Sequence[str]] = {}


class View(Protocol):
    """The committed state of what a batch touches, at the moment of its commit.

    What has expired is included: whether it counts is a rule.
    """

    @property
    def incarnation(self) -> str:
        """That of the space, which is part of each ETag."""

    def records(self, kind: Kind[R], /) -> Mapping[str, R]:
        """The records of a kind by name, as stored."""

    def found(self, kind: Kind[R], /) -> Mapping[str, R]:
        """The records of a kind by the value of its `lookup`, as stored."""


def is_expired(record: Record, now: int) -> bool:
    """True from the very microsecond of `expires_at` on."""
    return record.expires_at is not None and record.expires_at <= now


class Page(msgspec.Struct, Generic[R], frozen=True, gc=False):
    """A part of a list. `next_after` is the `after` of the following part, None at the end."""

    records: list[R]
    revision: int
    next_after: str | None


class Changes(msgspec.Struct, frozen=True, gc=False):
    """Changes in the order of their revisions, complete up to `revision`: the `after` of the next call."""

    changes: list[Change]
    revision: int
