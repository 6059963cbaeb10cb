"""The operations that callers request. To add one, add a struct here and a branch in `rules/batch.py`."""

from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from leasehold.errors import ServiceError
from leasehold.model.records import AnyKind, Binary, Value

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Pointer = tuple[str, ...]
"""The segments of a JSON Pointer, unescaped; `()` is the whole value."""


# Preconditions ------------------------------------------------------------------------------------------------


Tag = int | tuple[int, str]
"""A revision with its incarnation, or a revision alone. The latter matches in any incarnation, at the caller's risk."""
Tags = tuple[Tag, ...] | Literal["*"]
"""`"*"`: any revision of an entry that exists."""


class Condition(msgspec.Struct, frozen=True):
    """The precondition of an operation (RFC 9110, section 13).

    `if_match`: the entry must have one of these tags. `if_none_match`: it must have none of them. None: no condition.
    `changed`: tags in If-Match that a proxy has altered, in their original form. They never match; they are there to
    explain the error. `if_range`: a range of the bytes is sent only if the entry has one of these tags.
    """

    if_match: Tags | None = None
    if_none_match: Tags | None = None
    changed: tuple[Tag, ...] = ()
    if_range: tuple[Tag, ...] | None = None


# Reads --------------------------------------------------------------------------------------------------------


class Read(msgspec.Struct, frozen=True, gc=False):
    """Read an entry, or the parts of its value at `paths`."""

    key: str
    paths: tuple[Pointer, ...] | None = None
    condition: Condition | None = None
    condition_of_bytes: Callable[[str], Condition | None] | None = None
    """Given the media type of a value that is bytes, the condition in place of `condition`: which representation is
    read, and so which tags count, depends on the media type. None: `condition`."""


# Changes of entries -------------------------------------------------------------------------------------------
#
# `lease_id`: the change is done only if this lease is alive (a fenced write). `prepared`: of a partial update.

Ttl = int | Literal["keep"] | None
"""Microseconds from the commit. `keep`: the expiry that the entry has. None: the entry does not expire."""


class Prepared(msgspec.Struct, frozen=True):
    """What a partial update makes of a value. It depends on nothing else, so it can be computed before the change is
    decided. It counts only if the value is still the same then.

    `before`: the text of the value that it was computed from; None: there was no entry. `after`: the text of the new
    value, or the refusal. `part`: the text of the number that an increment results in. `work_bytes`: what the change
    has cost beside decoding and encoding the value (`values/budgets.py`).
    """

    before: bytes | None
    after: bytes | ServiceError
    part: bytes | None = None
    work_bytes: int = 0


class Put(msgspec.Struct, frozen=True, gc=False):
    """Create or replace an entry, or, with `path`, that part of its value."""

    key: str
    value: Value
    path: Pointer | None = None
    ttl: Ttl = None
    condition: Condition | None = None
    lease_id: str | None = None
    prepared: Prepared | None = None


class MergePatch(msgspec.Struct, frozen=True):
    """Change an existing value by RFC 7396."""

    key: str
    patch: Json
    ttl: Ttl = None
    condition: Condition | None = None
    lease_id: str | None = None
    prepared: Prepared | None = None


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
    ttl: Ttl = None
    condition: Condition | None = None
    lease_id: str | None = None
    prepared: Prepared | None = None


class Increment(msgspec.Struct, frozen=True):
    """Add `amount` to a number: the value, or, with `path`, that part of it. What is missing counts as 0."""

    key: str
    amount: int | float
    path: Pointer = ()
    ttl: Ttl = None
    condition: Condition | None = None
    lease_id: str | None = None
    prepared: Prepared | None = None


class Delete(msgspec.Struct, frozen=True):
    """Remove an entry, or, with `path`, that part of its value."""

    key: str
    path: Pointer | None = None
    ttl: Ttl = None
    """Only with `path`."""
    condition: Condition | None = None
    lease_id: str | None = None
    prepared: Prepared | None = None


# Changes of leases --------------------------------------------------------------------------------------------


class Acquire(msgspec.Struct, frozen=True):
    """Acquire a lock if no lease on it is alive. `lease_id` must be new and impossible to guess."""

    lock: str
    lease_id: str
    ttl: int
    """Microseconds."""
    owner: bytes = b"null"
    holder: str = ""


class Renew(msgspec.Struct, frozen=True):
    """Extend a lease that is alive to at least `ttl` microseconds from now. None: the ttl of the lease."""

    lock: str
    lease_id: str
    ttl: int | None = None


class Release(msgspec.Struct, frozen=True):
    """End the lease `lease_id`; without it, the lease with this `token`, if `holder` acquired it.

    `is_forced`: end any lease on the lock.
    """

    lock: str
    lease_id: str | None = None
    holder: str = ""
    token: int | None = None
    is_forced: bool = False


# States of Terraform ------------------------------------------------------------------------------------------
#
# `lock_id`: the ID in the lock info of Terraform. It is not secret, so it is not the `lease_id` of the lease.


class SaveState(msgspec.Struct, frozen=True, gc=False):
    """Create or replace a state, and keep the state before it as a version.

    `lock_id`: the lock must be held with this ID, and is renewed. None: the lock must be free.
    """

    key: str
    value: Binary
    lock_id: str | None = None


class DeleteState(msgspec.Struct, frozen=True, gc=False):
    """Delete a state and its versions. `lock_id`: as in `SaveState`."""

    key: str
    lock_id: str | None = None


class LockState(msgspec.Struct, frozen=True, gc=False):
    """Acquire the lock of a state. The lock has the name of the state's key."""

    lock: str
    lock_id: str
    acquisition: Acquire
    """Its `owner` is the lock info, an object with the member ID."""


class UnlockState(msgspec.Struct, frozen=True, gc=False):
    """End the lease with this `lock_id`, which `holder` acquired. None: end any lease on the lock.

    `is_admin`: the holder may be another one.
    """

    lock: str
    lock_id: str | None
    holder: str
    is_admin: bool


# Changes of any kind ------------------------------------------------------------------------------------------


class Expire(msgspec.Struct, frozen=True):
    """Remove a record if it has expired. Only the store itself submits this, from `store/cleaning.py`."""

    kind: AnyKind
    name: str


class DeleteEach(msgspec.Struct, frozen=True):
    """Delete those of these entries that exist: the last step of a deletion by prefix.

    `deleted`: how many entries the steps before have deleted. `revision`: the last revision that they have seen.
    """

    keys: tuple[str, ...]
    deleted: int
    revision: int
    lease_id: str | None = None


# Transactions -------------------------------------------------------------------------------------------------

EntryOperation = Put | Increment | MergePatch | JsonPatch | Delete
"""A Put or Delete with a `path`, an Increment and a patch are partial updates."""


class RevisionCheck(msgspec.Struct, frozen=True, gc=False):
    """The entry must have this revision. None: there must be no entry."""

    key: str
    revision: int | None


class ExistenceCheck(msgspec.Struct, frozen=True, gc=False):
    """There must be an entry."""

    key: str


class PreparedCheck(msgspec.Struct, frozen=True):
    """Whether a check holds for the value `before`. It counts only if the value is still the same."""

    before: bytes
    holds: bool


class ValueCheck(msgspec.Struct, frozen=True):
    """The part of the value at `path` must be equal to `value`, as JSON."""

    key: str
    path: Pointer
    value: Json
    prepared: PreparedCheck | None = None


class LeaseCheck(msgspec.Struct, frozen=True, gc=False):
    """The lease must be alive."""

    lease_id: str


EntryCheck = RevisionCheck | ExistenceCheck | ValueCheck
Check = EntryCheck | LeaseCheck


class Transaction(msgspec.Struct, frozen=True):
    """Do all `operations`, in order, if all `checks` hold; otherwise do none.

    The checks see the state before the first operation. All changes get the same revision. Each key is written at most
    once, which the caller ensures. The operations are whole (`Read.paths` is None) and have no conditions of their own.
    """

    checks: tuple[Check, ...]
    operations: tuple[EntryOperation | Read, ...]
    lease_id: str | None = None
    shows_current: bool = False
    """Whether the error for failed checks has the entries that they are about."""


# Unions -------------------------------------------------------------------------------------------------------

LockOperation = Acquire | Renew | Release
StateOperation = SaveState | DeleteState | LockState | UnlockState
SingleOperation = EntryOperation | LockOperation | StateOperation | Expire
RequestedOperation = EntryOperation | LockOperation | StateOperation | DeleteEach | Transaction
"""What callers can request with an idempotency key."""


class Keyed(msgspec.Struct, frozen=True):
    """Do `operation` unless the same request was done already; then repeat its outcome.

    `receipt`: the name of the receipt, a digest of the caller's `sub` and the idempotency key. `fingerprint`: a digest
    of the rest of the request. A request with another fingerprint and the same receipt is refused. `ttl`: how long the
    receipt is kept, in microseconds.
    """

    operation: RequestedOperation
    receipt: str
    fingerprint: bytes
    ttl: int


class Forget(msgspec.Struct, frozen=True):
    """Remove those of these receipts that have expired, or whose revision is at most `up_to`; all at one revision.

    Only the store itself submits this, from `store/cleaning.py`. Receipts that were written since it looked are newer
    than `up_to`.
    """

    receipts: tuple[str, ...]
    up_to: int


Operation = SingleOperation | DeleteEach | Transaction | Keyed | Forget
"""Anything that goes through the write lane."""


def name_of(asked: Read | SingleOperation) -> str:
    """The key or lock of an operation."""
    if isinstance(asked, LockOperation | LockState | UnlockState):
        return asked.lock
    return asked.name if isinstance(asked, Expire) else asked.key


def names_asked(asked: Read | Operation) -> Sequence[str]:
    """The keys and locks that an operation of a caller is about."""
    if isinstance(asked, Keyed):
        asked = asked.operation
    if isinstance(asked, Transaction):
        return keys_in(asked)
    if isinstance(asked, DeleteEach):
        return asked.keys
    assert not isinstance(asked, Keyed | Forget), "only the store submits it"
    return (name_of(asked),)


def keys_in(transaction: Transaction) -> list[str]:
    """The keys of all checks and operations, some perhaps more than once."""
    checked = [check.key for check in transaction.checks if not isinstance(check, LeaseCheck)]
    return checked + [operation.key for operation in transaction.operations]
