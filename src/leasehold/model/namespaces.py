"""What is known of a namespace as a whole: its quota, what it uses, and its description."""

import msgspec

from leasehold.model.records import Time


class Quota(msgspec.Struct, frozen=True):
    """How much a namespace may hold. None: as much as there is room for."""

    max_entries: int | None = None
    max_bytes: int | None = None
    """See `Usage.bytes`."""


class Usage(msgspec.Struct, frozen=True):
    """What a namespace holds. Expired entries count until they are removed; leases and receipts do not count."""

    entries: int
    bytes: int
    """Of all keys, in UTF-8, and of all values: JSON text as it is stored, or the bytes themselves."""


class Namespace(msgspec.Struct, frozen=True):
    """A namespace that exists, as of one moment."""

    name: str
    revision: int
    """Its head."""
    usage: Usage
    quota: Quota
    created_at: Time
