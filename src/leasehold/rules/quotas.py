"""The rule of quotas: no change takes a namespace beyond its quota.

It is checked where a change is added to the batch, so each change counts on what the changes before it have left, and
a transaction counts as a whole. Deletions and writes that make nothing larger are always done, also in a namespace that
is beyond its quota because the quota was lowered.

Expired entries count until they are removed, because they still take their room.
"""

from collections.abc import Mapping, Sequence

from leasehold.errors import ServiceError
from leasehold.model import ENTRY, AnyKind, Change, Entry, Operation, Put, Quota, Usage, View
from leasehold.rules.overlay import Overlay


class LimitedOverlay(Overlay):
    """The overlay of a batch in a namespace with a quota."""

    __slots__ = ("_quota", "usage")

    def __init__(self, view: View, revision: int, now: int, max_value_bytes: int, quota: Quota) -> None:
        super().__init__(view, revision, now, max_value_bytes)
        self._quota = quota
        self.usage = view.usage
        """With the changes so far."""

    def put(self, kind: AnyKind, name: str, change: Change) -> None:
        if kind is ENTRY:
            try:
                self.take_room({name: change})
            except ServiceError:
                self.revision = change.revision - 1  # it was taken for this change only
                raise
        super().put(kind, name, change)

    def take_room(self, entries: Mapping[str, Change]) -> None:
        count, size = 0, 0
        for key, change in entries.items():
            before = self.stored(ENTRY, key)
            after = change if isinstance(change, Entry) else None
            count += (after is not None) - (before is not None)
            size += _bytes_of(after) - _bytes_of(before)
        usage = Usage(self.usage.entries + count, self.usage.bytes + size)
        _check(usage.entries, self._quota.max_entries, "entries", grows=count > 0)
        _check(usage.bytes, self._quota.max_bytes, "bytes of keys and values", grows=size > 0)
        self.usage = usage


def has_room_for_all(operations: Sequence[Operation], usage: Usage, quota: Quota) -> bool:
    """Whether these are puts of whole values, and would all be within the quota even if all of them were new."""
    size = 0
    for operation in operations:
        if type(operation) is not Put:
            return False
        size += len(operation.key.encode()) + len(operation.value)
    return (quota.max_entries is None or usage.entries + len(operations) <= quota.max_entries) and (
        quota.max_bytes is None or usage.bytes + size <= quota.max_bytes
    )


def _bytes_of(entry: Entry | None) -> int:
    return 0 if entry is None else len(entry.key.encode()) + len(entry.value)


def _check(amount: int, limit: int | None, noun: str, *, grows: bool) -> None:
    if grows and limit is not None and amount > limit:
        raise ServiceError(
            "quota_exceeded", f"the namespace may have {limit} {noun}; nothing was stored", details={"limit": limit}
        )
