"""What is known of a namespace as a whole: its quota, what it uses, and its description."""

import msgspec


class Quota(msgspec.Struct, frozen=True):
    """How much a namespace may hold. None: as much as there is room for."""

    max_entries: int | None = None
    max_bytes: int | None = None
    """See `Usage.bytes`."""


class QuotaChange(msgspec.Struct, frozen=True):
    """A change of a quota. UNSET: as it is."""

    max_entries: int | msgspec.UnsetType | None = msgspec.UNSET
    max_bytes: int | msgspec.UnsetType | None = msgspec.UNSET

    def applied_to(self, quota: Quota) -> Quota:
        """The quota after the change."""
        max_entries = quota.max_entries if self.max_entries is msgspec.UNSET else self.max_entries
        max_bytes = quota.max_bytes if self.max_bytes is msgspec.UNSET else self.max_bytes
        return Quota(max_entries, max_bytes)


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
    created_at: int
    """Microseconds since the epoch."""
