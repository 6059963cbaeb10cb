"""Leases in memory, by lock and by `lease_id`."""

from collections.abc import Sequence
from typing import Final

from leasehold.engines.memory.records import Records
from leasehold.model import Lease, LeaseChange

LEASE_LINE_BYTES: Final = 320
"""About what a line of `data.json` has for a lease."""


class Leases(Records[Lease]):
    """All leases of a store."""

    def __init__(self, by_lock: dict[str, Lease]) -> None:
        super().__init__(by_lock)
        self._by_id = {lease.lease_id: lease for lease in by_lock.values()}
        self.get_by_id = self._by_id.get

    def publish(self, changes: Sequence[LeaseChange]) -> list[str]:
        """Let readers see a batch. Returns the locks that it set free."""
        freed: list[str] = []
        for change in changes:
            lock = change.lock
            before = self._by_name.get(lock)
            if before is not None:
                del self._by_id[before.lease_id]
            if type(change) is Lease:
                self._by_name[lock] = change
                self._by_id[change.lease_id] = change
                if before is None:
                    self._names.add(lock)
                self._note_expiry(change.expires_at, lock)
            elif before is not None:
                del self._by_name[lock]
                self._names.remove(lock)
                freed.append(lock)
        return freed

    @property
    def text_bytes(self) -> int:
        """About what they take in `data.json`."""
        return LEASE_LINE_BYTES * len(self._by_name)

    def copy(self) -> Sequence[Lease]:
        """The leases in the order of their locks, as they are now."""
        return [self._by_name[lock] for lock in self._names]

    def copy_after(self, changes: Sequence[LeaseChange]) -> Sequence[Lease]:
        """As `copy`, as they will be."""
        by_lock: dict[str, Lease] = dict(self._by_name)
        for change in changes:
            if type(change) is Lease:
                by_lock[change.lock] = change
            else:
                by_lock.pop(change.lock, None)
        return [by_lock[lock] for lock in sorted(by_lock)]
