"""The operations that callers ask for. To add one, add a struct here and a branch in `rules`."""

from typing import Literal

import msgspec

from leasehold.model.records import AnyKind

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Pointer = tuple[str, ...]
"""The segments of a JSON Pointer, unescaped; `()` is the whole value."""


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


# Changes of any kind ------------------------------------------------------------------------------------------


class Expire(msgspec.Struct, frozen=True):
    """Remove a record that has expired. It does nothing if the record lives or is gone. Asked by the store itself."""

    kind: AnyKind
    name: str


# Unions -------------------------------------------------------------------------------------------------------

EntryOperation = Put | MergePatch | JsonPatch | Delete
LockOperation = Acquire | Renew | Release
Operation = EntryOperation | LockOperation | Expire
"""Anything that goes through the write lane."""


def name_of(asked: Read | Operation) -> str:
    """The key, or the lock, that an operation is about."""
    if isinstance(asked, LockOperation):
        return asked.lock
    return asked.name if isinstance(asked, Expire) else asked.key
