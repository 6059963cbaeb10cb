"""The outcomes of operations."""

import msgspec

from leasehold.model.operations import Pointer
from leasehold.model.records import Entry, Lease


class Found(msgspec.Struct, frozen=True, gc=False):
    """The entry that was read. `parts`: the JSON text at each of `Read.paths`, in their order."""

    entry: Entry
    parts: tuple[bytes, ...] | None = None


class NotModified(msgspec.Struct, frozen=True, gc=False):
    """The caller has this revision already."""

    revision: int


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
