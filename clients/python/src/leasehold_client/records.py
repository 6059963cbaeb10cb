"""What the service returns, as frozen data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from .values import Json


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry, or the part of it at `path`.

    `value` is `bytes` if `media` is set. It is None if it was not asked for, in the results of a transaction, in the
    events of a watch if it is bytes, and if the token may not read. `etag` is what `if_match` sends: it protects
    against a restored store, too, unless the entry comes from a list, a transaction or a watch.
    """

    key: str
    value: Json
    revision: int
    etag: str
    created_at: datetime | None = None
    updated_at: datetime | None = None
    expires_at: datetime | None = None
    path: str | None = None
    media: str | None = None


@dataclass(frozen=True, slots=True)
class Deletion:
    """What a deletion did; `path` if it removed only this part of the value."""

    key: str
    revision: int
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """A lease as the service grants it. `lease_id` is a secret of the holder."""

    lock: str
    lease_id: str
    token: int
    owner: Json
    ttl: float
    acquired_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Holder:
    """A lease that is alive, as all clients see it. `waiters` is None in a list."""

    lock: str
    token: int
    owner: Json
    ttl: float
    acquired_at: datetime
    expires_at: datetime
    waiters: int | None = None


@dataclass(frozen=True, slots=True)
class NamespaceInfo:
    """A namespace: what is in it, and its quotas.

    `entries` and `bytes` (of keys and values) count what is stored. `max_entries` and `max_bytes` are None without a
    quota.
    """

    name: str
    revision: int
    entries: int
    bytes: int
    max_entries: int | None = None
    max_bytes: int | None = None
    created_at: datetime | None = None


# Events of a watch. `cursor`: all changes up to this revision were reported; None in the middle of a revision. -------


@dataclass(frozen=True, slots=True)
class EntryPut:
    entry: Entry
    cursor: int | None = None


@dataclass(frozen=True, slots=True)
class EntryDeleted:
    key: str
    revision: int
    cursor: int | None = None


@dataclass(frozen=True, slots=True)
class LockChanged:
    """`token`, `owner` and `expires_at` are those of the lease, or None if the lock is free."""

    lock: str
    revision: int
    is_held: bool
    token: int | None = None
    owner: Json = None
    expires_at: datetime | None = None
    cursor: int | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """The snapshot is complete. Without `snapshot` it is the first event."""

    revision: int
    cursor: int | None = None


@dataclass(frozen=True, slots=True)
class Reset:
    """Forget everything: a snapshot follows."""

    cursor: int | None = None


Event: TypeAlias = EntryPut | EntryDeleted | LockChanged | Ready | Reset
