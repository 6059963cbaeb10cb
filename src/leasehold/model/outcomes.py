"""What operations come to. An outcome can be stored: the union is tagged (`encode_outcome`, `decode_outcome`)."""

from collections.abc import Callable
from typing import Final

import msgspec

from leasehold.model.operations import Pointer
from leasehold.model.records import Entry, Lease


class Found(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The entry that was read. `parts`: the JSON text at each of `Read.paths`, in their order."""

    entry: Entry
    parts: tuple[bytes, ...] | None = None


class NotModified(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The caller has this revision already."""

    revision: int


class Written(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The entry after a change. `created`: there was none before. `part`: the JSON text written at `path`, if any."""

    entry: Entry
    created: bool
    path: Pointer | None = None
    part: bytes | None = None


class Deleted(msgspec.Struct, frozen=True, tag=True):
    """An entry is gone, at `revision`."""

    key: str
    revision: int


class Leased(msgspec.Struct, frozen=True, tag=True):
    """The lease as acquired or renewed, at `now`."""

    lease: Lease
    now: int


class Held(msgspec.Struct, frozen=True, tag=True):
    """The lock is not free: somebody else's lease is alive at `now`."""

    lease: Lease
    now: int


class Released(msgspec.Struct, frozen=True, tag=True):
    """A lock is free, from `revision` on."""

    lock: str
    revision: int


class Expired(msgspec.Struct, frozen=True, tag=True):
    """A record that had expired is removed, at `revision`."""

    revision: int


class Unchanged(msgspec.Struct, frozen=True, tag=True):
    """Nothing was to be done (`Expire` of an entry that lives)."""


Outcome = Found | NotModified | Written | Deleted | Leased | Held | Released | Expired | Unchanged

encode_outcome: Final[Callable[[Outcome], bytes]] = msgspec.msgpack.Encoder().encode
decode_outcome: Final[Callable[[bytes], Outcome]] = msgspec.msgpack.Decoder(Outcome).decode
"""Raises `msgspec.DecodeError` for anything else than `encode_outcome` makes."""
