"""What the service keeps and what may be asked of it: frozen data, no behaviour beyond naming a fact.

Values travel as `bytes`: the compact JSON text that `values.encode` made. They are decoded only where something must
look inside. Times are integers, microseconds since the epoch, UTC. To add an operation, add a struct here and a
branch in `commit`.
"""

from typing import Literal, Protocol

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


Change = Entry | Deletion
"""What one commit left of one key."""


class View(Protocol):
    """The committed state of the keys that a batch touches, at the moment of its commit."""

    def entry(self, key: str) -> Entry | None:
        """The entry as stored, an expired one included: whether it counts is a rule."""


def is_expired(entry: Entry, now: int) -> bool:
    """True from the very microsecond of `expires_at` on."""
    return entry.expires_at is not None and entry.expires_at <= now


class Page(msgspec.Struct, frozen=True, gc=False):
    """A part of a list. `next_after` is the `after` of the following part, None at the end."""

    entries: list[Entry]
    revision: int
    next_after: str | None


# Preconditions ------------------------------------------------------------------------------------------------


class Condition(msgspec.Struct, frozen=True):
    """What must hold of an entry's revision for an operation to be done (RFC 9110, section 13).

    `if_match`: the revision is one of these; `"*"`: the entry exists. `if_none_match`: the reverse. None: not asked.
    """

    if_match: tuple[int, ...] | Literal["*"] | None = None
    if_none_match: tuple[int, ...] | Literal["*"] | None = None


# Reads --------------------------------------------------------------------------------------------------------


class Read(msgspec.Struct, frozen=True):
    """One entry, or parts of it: `paths` are looked up in its value."""

    key: str
    paths: tuple[Pointer, ...] | None = None
    condition: Condition | None = None


class Found(msgspec.Struct, frozen=True):
    """The entry that was read. `parts`: the JSON text at each of `Read.paths`, in their order."""

    entry: Entry
    parts: tuple[bytes, ...] | None = None


class NotModified(msgspec.Struct, frozen=True):
    """The caller has this revision already."""

    revision: int


# Changes ------------------------------------------------------------------------------------------------------


class Put(msgspec.Struct, frozen=True):
    """Create or replace an entry, or, with `path`, that part of its value."""

    key: str
    value: bytes
    path: Pointer | None = None
    ttl: int | None = None
    """Microseconds from the commit; None makes the entry last."""
    condition: Condition | None = None


class MergePatch(msgspec.Struct, frozen=True):
    """Change an existing value by RFC 7396."""

    key: str
    patch: Json
    ttl: int | None = None
    condition: Condition | None = None


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


class Delete(msgspec.Struct, frozen=True):
    """Remove an entry, or, with `path`, that part of its value."""

    key: str
    path: Pointer | None = None
    ttl: int | None = None
    """As in `Put`; only with `path`."""
    condition: Condition | None = None


class Expire(msgspec.Struct, frozen=True):
    """Remove an entry whose time has come; does nothing when it lives (again). Asked by the service itself."""

    key: str


Operation = Put | MergePatch | JsonPatch | Delete | Expire
"""Anything that goes through the write lane."""


class Written(msgspec.Struct, frozen=True):
    """The entry after a change. `created`: there was none before. `part`: the JSON text written at `path`, if any."""

    entry: Entry
    created: bool
    path: Pointer | None = None
    part: bytes | None = None


class Deleted(msgspec.Struct, frozen=True):
    """An entry is gone, at `revision`."""

    key: str
    revision: int


class Unchanged(msgspec.Struct, frozen=True):
    """Nothing was to be done (`Expire` of an entry that lives)."""


Outcome = Found | NotModified | Written | Deleted | Unchanged
