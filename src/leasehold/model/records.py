"""The kinds of records that engines store, and the changes of a commit.

To add a kind, add its record and its removal here, and a `Kind` in KINDS. Write its operations and rules (`rules`). The
PostgreSQL engine needs the SQL of a table for it (`engines/postgres/tables`); the other engines need nothing. The first
field of a record is its name. The annotations of the other fields define their form in text: see `Time`, `JsonText` and
`Revision`. If the name of a field differs in text, it is a `msgspec.field(name=…)`.
"""

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Generic, Literal, Protocol, TypeVar

import msgspec

from leasehold.model.namespaces import Quota, Usage

Time = Annotated[int, "time"]
"""Microseconds since the epoch, UTC. In files and responses it is text: `2026-11-24T09:30:00.000000Z`."""
JsonText = Annotated[bytes, "json"]
"""Compact JSON text that the API has accepted. Files and responses contain it unchanged."""
Revision = Annotated[int, "revision"]
"""A revision of the space, 1 or greater, and not greater than the head."""


class Content(bytes):
    """The bytes of a value that is not JSON.

    A class of its own, because `bytes` are JSON text, and because an encoder of MessagePack must be told how to store
    it: see `storable`.
    """

    __slots__ = ()


class Binary(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A value that is bytes. `media`: their media type, as in a Content-Type.

    It counts as false, as UNREADABLE does. So `not value` asks whether there is no JSON text, and what serves JSON
    values only needs no further check.
    """

    media: str
    data: Content

    def __post_init__(self) -> None:
        if type(self.data) is not Content:  # it would be stored as it is, and not be read back
            raise TypeError("the data of a Binary is Content")

    def __len__(self) -> int:
        """The number of bytes."""
        return len(self.data)

    def __bool__(self) -> Literal[False]:
        return False


Value = JsonText | Binary


def storable(content: object) -> bytes:
    """How Content is stored within MessagePack: as base64, which cannot look like a record of the journal.

    The `enc_hook` of an encoder. Raises NotImplementedError for an object of any other class.
    """
    if type(content) is Content:
        return b64encode(content)
    raise NotImplementedError


def restored(kind: type, stored: object) -> object:
    """The inverse of `storable`: the `dec_hook` of a decoder. Raises ValueError for what is not base64."""
    if kind is Content and isinstance(stored, bytes):
        return Content(b64decode(stored, validate=True))
    raise NotImplementedError


class Entry(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=1):
    """A key and its value, as committed.

    `gc=False`: an entry refers only to strings, bytes and integers, so the garbage collector does not have to visit a
    million entries. The order of the fields is the order in the journal; add new fields at the end.
    """

    key: str
    value: Value
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
    """The fencing token: the revision of the acquisition, larger than the tokens of all earlier leases."""
    revision: Revision
    """The revision of the last change: the acquisition or a renewal."""
    acquired_at: Time
    expires_at: Time
    ttl: int = msgspec.field(name="ttl_microseconds")
    """Microseconds, as last requested."""
    holder: str
    """The `sub` of the caller who acquired it."""
    owner: JsonText
    """JSON that the holder gave to describe itself to others."""

    @property
    def name(self) -> str:
        """The lock."""
        return self.lock


class LeaseEnd(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=3):
    """A lock whose lease a commit removed, because it was released or had expired."""

    lock: str
    revision: int

    @property
    def name(self) -> str:
        """The lock."""
        return self.lock


class Receipt(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=4):
    """A change that was requested with an idempotency key, and its outcome. It is kept until `expires_at`.

    There may be 100,000, and each takes less than 400 bytes of memory: so it has few fields, and what a repetition
    needs is packed into one of them.
    """

    request: str
    """A digest of the caller's `sub` and the idempotency key."""
    memo: bytes
    """A `Memo` (`outcomes.py`), encoded."""
    revision: Revision
    """That of the change, or the last one if the change has several."""
    expires_at: Time

    @property
    def name(self) -> str:
        """The digest."""
        return self.request


class ReceiptEnd(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=5):
    """A receipt that a commit removed, because it had expired or there were too many."""

    request: str
    revision: int

    @property
    def name(self) -> str:
        """The digest."""
        return self.request


Record = Entry | Lease | Receipt
Removal = Deletion | LeaseEnd | ReceiptEnd
Change = Record | Removal
"""The state of one name after a commit: its record, or its removal."""

R = TypeVar("R", bound=Record)


class Kind(Generic[R]):
    """What an engine knows about a kind of record. Kinds are compared by identity.

    Each kind has its own names. A record replaces the record with the same name; a removal removes it.
    """

    __slots__ = ("has_history", "lookup", "name", "plural", "record", "removal")

    def __init__(
        self,
        name: str,
        plural: str,
        record: type[R],
        removal: type[Removal],
        *,
        lookup: str = "",
        has_history: bool = True,
    ) -> None:
        self.name = name
        """In notifications and in messages: `entry`."""
        self.plural = plural
        """The member of `data.json`, the gauge, and the list in responses: `entries`."""
        self.record = record
        self.removal = removal
        """Called with the name and the revision."""
        self.lookup = lookup
        """A second field by which a record can be found: a string that is unique. Empty: there is none."""
        self.has_history = has_history
        """Whether `Space.changes` knows the changes. Without a history, a removal leaves nothing behind."""

    def __repr__(self) -> str:
        return f"<kind {self.name}>"


AnyKind = Kind[Entry] | Kind[Lease] | Kind[Receipt]

ENTRY: Final = Kind("entry", "entries", Entry, Deletion)
LEASE: Final = Kind("lease", "leases", Lease, LeaseEnd, lookup="lease_id")
RECEIPT: Final = Kind("receipt", "receipts", Receipt, ReceiptEnd, has_history=False)
KINDS: Final[Sequence[AnyKind]] = (ENTRY, LEASE, RECEIPT)
KIND_OF: Final[Mapping[type, AnyKind]] = {change: kind for kind in KINDS for change in (kind.record, kind.removal)}
"""The kind of a change, by its type."""


def is_removal(change: Change) -> bool:
    """Whether the change is a removal."""
    return type(change) is Deletion or type(change) is LeaseEnd or type(change) is ReceiptEnd


class Touched(msgspec.Struct, frozen=True):
    """The records that a batch may read: names by kind, and values of `Kind.lookup` by kind.

    A fenced write gives the `lease_id` alone and does not know the name of its lock.
    """

    names: Mapping[AnyKind, Sequence[str]] = {}
    lookups: Mapping[AnyKind, Sequence[str]] = {}


class View(Protocol):
    """The committed records that a batch may read, at the time of its commit.

    Expired records are included, because the rules decide what has expired.
    """

    @property
    def incarnation(self) -> str:
        """The incarnation of the space, which is part of each ETag."""

    @property
    def quota(self) -> Quota | None:
        """How much the namespace may hold; None: there is no limit."""

    @property
    def usage(self) -> Usage:
        """What the namespace holds, this batch not included. Asked for only if there is a quota."""

    def records(self, kind: Kind[R], /) -> Mapping[str, R]:
        """The records of a kind by name, as stored."""

    def found(self, kind: Kind[R], /) -> Mapping[str, R]:
        """The records of a kind by the value of its `lookup`, as stored."""


def is_expired(record: Record, now: int) -> bool:
    """True from exactly `expires_at` on."""
    return record.expires_at is not None and record.expires_at <= now


class Page(msgspec.Struct, Generic[R], frozen=True, gc=False):
    """A page of a list. `next_after` is the `after` of the next page, None at the end."""

    records: list[R]
    revision: int
    next_after: str | None


class Counted(msgspec.Struct, frozen=True, gc=False):
    """How many records a part of a list has.

    `last`: the name at which the part ends, from which on the rest can be counted; None: there was nothing to count.
    """

    count: int
    revision: int
    last: str | None
    is_complete: bool
    """The part is the whole list."""


class Changes(msgspec.Struct, frozen=True, gc=False):
    """Changes in the order of their revisions, complete up to `revision`: the `after` of the next call."""

    changes: list[Change]
    revision: int
