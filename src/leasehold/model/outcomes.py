"""The results of operations. The union is tagged, so outcomes can be stored (`encode_outcome`, `decode_outcome`)."""

from collections.abc import Callable
from typing import Final

import msgspec

from leasehold.model.operations import Pointer
from leasehold.model.records import Entry, Lease, restored, storable


class Found(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The entry that was read. `parts`: the JSON text at each of `Read.paths`, in their order.

    `is_ranged`: a range of the bytes may be sent. It is false if the entry does not have the tag in If-Range.
    """

    entry: Entry
    parts: tuple[bytes, ...] | None = None
    is_ranged: bool = True


class NotModified(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The caller already has this revision. `media`: the media type of the value, if it is bytes."""

    revision: int
    media: str | None = None


class Written(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The entry after a change. `created`: there was none before. `part`: the JSON text written at `path`, if any."""

    entry: Entry
    created: bool
    path: Pointer | None = None
    part: bytes | None = None


class Deleted(msgspec.Struct, frozen=True, tag=True):
    """An entry was deleted, at `revision`."""

    key: str
    revision: int


class Missing(msgspec.Struct, frozen=True, tag=True, gc=False):
    """A `Read` in a transaction found no entry."""

    key: str


class Committed(msgspec.Struct, frozen=True, tag=True):
    """A transaction was done. `revision`: that of all its changes; if it has none, the head that it saw.

    `results`: one for each operation.
    """

    revision: int
    results: tuple[Written | Deleted | Found | Missing, ...]


class Leased(msgspec.Struct, frozen=True, tag=True):
    """The lease as acquired or renewed, at `now`."""

    lease: Lease
    now: int


class Held(msgspec.Struct, frozen=True, tag=True):
    """The lock is not free: another lease is alive at `now`."""

    lease: Lease
    now: int


class Released(msgspec.Struct, frozen=True, tag=True):
    """A lock was released, at `revision`."""

    lock: str
    revision: int


class Expired(msgspec.Struct, frozen=True, tag=True):
    """An expired record was removed, at `revision`."""

    revision: int


class Unchanged(msgspec.Struct, frozen=True, tag=True):
    """There was nothing to do: an `Expire` of a record that has not expired or does not exist."""


Outcome = Found | NotModified | Written | Deleted | Missing | Committed | Leased | Held | Released | Expired | Unchanged

encode_outcome: Final[Callable[[Outcome], bytes]] = msgspec.msgpack.Encoder(enc_hook=storable).encode
decode_outcome: Final[Callable[[bytes], Outcome]] = msgspec.msgpack.Decoder(Outcome, dec_hook=restored).decode
"""Raises `msgspec.DecodeError` for bytes that are not from `encode_outcome`."""
