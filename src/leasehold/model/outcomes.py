"""The results of operations. Those that change something can be stored (`Memo`).

Their form in a store is a list: the tag, then the fields in their order. So never change a tag or the order, and add
new fields at the end, with a default.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from leasehold.model.operations import Pointer
from leasehold.model.records import Entry, Lease, restored, storable


class Found(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """The entry that was read. `parts`: the JSON text at each of `Read.paths`, in their order.

    `is_ranged`: a range of the bytes may be sent. It is false if the entry does not have the tag in If-Range.
    """

    entry: Entry
    parts: tuple[bytes, ...] | None = None
    is_ranged: bool = True


class NotModified(msgspec.Struct, frozen=True, gc=False):
    """The caller already has this revision. `media`: the media type of the value, if it is bytes."""

    revision: int
    media: str | None = None


class Written(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """The entry after a change. `created`: there was none before. `part`: the JSON text written at `path`, if any."""

    entry: Entry
    created: bool
    path: Pointer | None = None
    part: bytes | None = None


class Deleted(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """An entry was deleted, at `revision`."""

    key: str
    revision: int


class Missing(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """A `Read` in a transaction found no entry."""

    key: str


class Committed(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """A transaction was done. `revision`: that of all its changes; if it has none, the head that it saw.

    `results`: one for each operation.
    """

    revision: int
    results: tuple[Written | Deleted | Found | Missing, ...]


class Leased(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """The lease as acquired or renewed, at `now`."""

    lease: Lease
    now: int


class Held(msgspec.Struct, frozen=True):
    """The lock is not free: another lease is alive at `now`."""

    lease: Lease
    now: int


class Released(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """A lock was released, at `revision`."""

    lock: str
    revision: int


class Expired(msgspec.Struct, frozen=True):
    """An expired record was removed, at `revision`."""

    revision: int


class Unchanged(msgspec.Struct, frozen=True):
    """There was nothing to do: an `Expire` of a record that has not expired or does not exist."""


class DeletedEntries(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """So many entries were deleted by a deletion by prefix. `revision`: the last one that it has seen or made."""

    deleted: int
    revision: int


class Replayed(msgspec.Struct, frozen=True):
    """A request with an idempotency key was done before, with this outcome. Nothing was changed now."""

    outcome: "StoredOutcome"


StoredOutcome = Written | Deleted | Committed | Leased | Released | DeletedEntries
"""The outcomes that are kept in receipts: those of requests that changed something."""
Outcome = Found | NotModified | StoredOutcome | Missing | Held | Expired | Unchanged | Replayed


def is_change(outcome: object) -> bool:
    """Whether it is the outcome of an operation that may have changed something. An error and None are none."""
    return isinstance(outcome, Outcome) and not isinstance(outcome, Found | NotModified)


class Memo(msgspec.Struct, frozen=True, array_like=True):
    """What a receipt keeps of a request: a digest of it, and its outcome without what a repetition brings along."""

    fingerprint: bytes
    outcome: StoredOutcome


encode_memo: Final[Callable[[Memo], bytes]] = msgspec.msgpack.Encoder(enc_hook=storable).encode
decode_memo: Final[Callable[[bytes], Memo]] = msgspec.msgpack.Decoder(Memo, dec_hook=restored).decode
"""Raises `msgspec.DecodeError` for bytes that are not from `encode_memo`."""
