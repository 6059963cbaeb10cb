"""What the service keeps and what may be asked of it: frozen data, no behaviour beyond naming a fact.

Values travel as `bytes`: the compact JSON text that `values.encode` made. They are decoded only where something must
look inside. Times are integers, microseconds since the epoch, UTC. To add an operation, add a struct here and a
branch in `commit`.
"""

from collections.abc import Sequence
from typing import Generic, Literal, Protocol, TypeVar

import msgspec

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Pointer = tuple[str, ...]
"""The segments of a JSON Pointer, unescaped; `()` is the whole value."""


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


# Preconditions ------------------------------------------------------------------------------------------------


Tag = int | tuple[int, str]
"""A revision of an entry in one incarnation of the store, or, at the caller's risk, in any."""
Tags = tuple[Tag, ...] | Literal["*"]
"""`"*"`: any revision of an entry that exists."""


class Condition(msgspec.Struct, frozen=True):
    """What must hold of an entry's revision for an operation to be done (RFC 9110, section 13).

    `if_match`: it is one of these. `if_none_match`: the reverse. None: not asked. `changed`: what would stand in
    `if_match`, had not a proxy changed the tags that it gave out; it never matches.
    """

    if_match: Tags | None = None
    if_none_match: Tags | None = None
    changed: tuple[Tag, ...] = ()


# Reads --------------------------------------------------------------------------------------------------------


class Read(msgspec.Struct, frozen=True, gc=False):
    """One entry, or parts of it: `paths` are looked up in its value."""

    key: str
    paths: tuple[Pointer, ...] | None = None
    condition: Condition | None = None


class Found(msgspec.Struct, frozen=True, gc=False):
    """The entry that was read. `parts`: the JSON text at each of `Read.paths`, in their order."""

    entry: Entry
    parts: tuple[bytes, ...] | None = None


class NotModified(msgspec.Struct, frozen=True, gc=False):
    """The caller has this revision already."""

    revision: int


# Changes of entries -------------------------------------------------------------------------------------------
#
# `lease_id`: the change is done only if this lease is alive (a fenced write).


class Put(msgspec.Struct, frozen=True, gc=False):
    """Create or replace an entry, or, with `path`, that part of its value."""

    key: str
    value: bytes
    path: Pointer | None = None
    ttl: int | None = None
    """Microseconds from the commit; None makes the entry last."""
    condition: Condition | None = None
    lease_id: str | None = None


class MergePatch(msgspec.Struct, frozen=True):
    """Change an existing value by RFC 7396."""

    key: str
    patch: Json
    ttl: int | None = None
    condition: Condition | None = None
    lease_id: str | None = None


class PatchStep(msgspec.Struct, frozen=True):
    """One operation of a JSON Patch (RFC 6902). `source` is its `from`."""

    op: Literal["add", "remove", "replace", "move", "copy", "test"]
    path: Pointer
    value: Json = None
    source: Pointer = ()


class JsonPatch(msgspec.Struct, frozen=True):
    """Change an existing value by RFC 6902, all steps or none."""

    key: str
    steps: tuple[PatchStep, ...]
    ttl: int | None = None
    condition: Condition | None = None
    lease_id: str | None = None


class Delete(msgspec.Struct, frozen=True):
    """Remove an entry, or, with `path`, that part of its value."""

    key: str
    path: Pointer | None = None
    ttl: int | None = None
    """As in `Put`; only with `path`."""
    condition: Condition | None = None
    lease_id: str | None = None


class Expire(msgspec.Struct, frozen=True):
    """Remove an entry whose time has come; does nothing when it lives (again). Asked by the service itself."""

    key: str


# Changes of leases --------------------------------------------------------------------------------------------


class Acquire(msgspec.Struct, frozen=True):
    """Take a lock if nobody holds it, under the name `lease_id`, which nobody has used and nobody can guess."""

    lock: str
    lease_id: str
    ttl: int
    """Microseconds."""
    owner: bytes = b"null"
    holder: str = ""


class Renew(msgspec.Struct, frozen=True):
    """Let a lease that is alive last `ttl` microseconds from now, or longer if it does; None: its own ttl."""

    lock: str
    lease_id: str
    ttl: int | None = None


class Release(msgspec.Struct, frozen=True):
    """End the lease `lease_id`; without it, the one with this `token`, if `holder` acquired it.

    `is_forced`: end whichever is alive.
    """

    lock: str
    lease_id: str | None = None
    holder: str = ""
    token: int | None = None
    is_forced: bool = False


class ExpireLease(msgspec.Struct, frozen=True):
    """Remove a lease whose time has come, as `Expire`."""

    lock: str


# What they come to --------------------------------------------------------------------------------------------

EntryOperation = Put | MergePatch | JsonPatch | Delete | Expire
LockOperation = Acquire | Renew | Release | ExpireLease
Operation = EntryOperation | LockOperation
"""Anything that goes through the write lane."""


class Written(msgspec.Struct, frozen=True, gc=False):
    """The entry after a change. `created`: there was none before. `part`: the JSON text written at `path`, if any."""

    entry: Entry
    created: bool
    path: Pointer | None = None
    part: bytes | None = None


class Deleted(msgspec.Struct, frozen=True):
    """An entry is gone, at `revision`."""

    key: str
    revision: int


class Leased(msgspec.Struct, frozen=True):
    """The lease as acquired or renewed, at `now`."""

    lease: Lease
    now: int


class Held(msgspec.Struct, frozen=True):
    """The lock is not free: somebody else's lease is alive at `now`."""

    lease: Lease
    now: int


class Released(msgspec.Struct, frozen=True):
    """A lock is free, from `revision` on."""

    lock: str
    revision: int


class Unchanged(msgspec.Struct, frozen=True):
    """Nothing was to be done (`Expire` of an entry that lives)."""


Outcome = Found | NotModified | Written | Deleted | Leased | Held | Released | Unchanged


def name_of(what: Change | Read | Operation) -> str:
    """The key, or the lock."""
    return what.lock if isinstance(what, LeaseChange | LockOperation) else what.key
