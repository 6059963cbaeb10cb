"""The records that the service keeps, and what a commit leaves of them."""

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

import msgspec


class Entry(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=1):
    """A key and its value, as committed.

    `gc=False`: an entry refers to plain strings, bytes and integers only, and a million of them should not be
    walked by the collector. The order of the fields is the order in the journal; new ones go to the end.
    """

    key: str
    value: bytes
    revision: int
    created_at: int
    updated_at: int
    expires_at: int | None = None


class Deletion(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=0):
    """A key that a commit removed."""

    key: str
    revision: int


class Lease(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=2):
    """A lock that is held, until `expires_at`. The order of the fields is the order in the journal, as in `Entry`."""

    lock: str
    lease_id: str
    """The holder's secret."""
    token: int
    """The revision of the acquisition, so larger than that of every lease before."""
    revision: int
    """Of the last change: the acquisition or a renewal."""
    acquired_at: int
    expires_at: int
    ttl: int
    """Microseconds, as it was last asked for."""
    holder: str
    """The `sub` of the caller who acquired it."""
    owner: bytes
    """What the holder says of itself, as JSON text."""


class LeaseEnd(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=3):
    """A lock that a commit set free."""

    lock: str
    revision: int


EntryChange = Entry | Deletion
"""What one commit left of one key."""
LeaseChange = Lease | LeaseEnd
"""What one commit left of one lock."""
Change = EntryChange | LeaseChange


class Touched(msgspec.Struct, frozen=True):
    """What a batch may look at. `lease_ids`: of fenced writes, which do not say to which lock a lease belongs."""

    keys: Sequence[str] = ()
    locks: Sequence[str] = ()
    lease_ids: Sequence[str] = ()


class View(Protocol):
    """The committed state of what a batch touches, at the moment of its commit. What has expired is included.

    Whether it counts is a rule.
    """

    @property
    def incarnation(self) -> str:
        """That of the store, which is part of each ETag."""

    def entry(self, key: str) -> Entry | None:
        """The entry as stored."""

    def lease(self, lock: str) -> Lease | None:
        """The lease of a lock as stored."""

    def lease_by_id(self, lease_id: str) -> Lease | None:
        """The lease with this `lease_id`, as stored."""


def is_expired(record: Entry | Lease, now: int) -> bool:
    """True from the very microsecond of `expires_at` on."""
    return record.expires_at is not None and record.expires_at <= now


R = TypeVar("R", bound=Entry | Lease)


class Page(msgspec.Struct, Generic[R], frozen=True, gc=False):
    """A part of a list. `next_after` is the `after` of the following part, None at the end."""

    records: list[R]
    revision: int
    next_after: str | None
