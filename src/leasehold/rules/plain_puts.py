"""A batch of plain puts, which nearly every batch is: decided in one loop, in a quarter of the time.

A put is plain if it has no path, ttl, condition or lease. `entries.put` is the general rule; a test compares the
outcomes of both. A rule that concerns every put must be added here, too, or make this return None.
Quotas do not concern it: `evaluate` calls it only if all puts are within the quota (`quotas.has_room_for_all`).
"""

from collections.abc import Sequence
from operator import attrgetter

from leasehold.errors import ServiceError
from leasehold.model import ENTRY, Change, Entry, Operation, Outcome, Put, View, Written

_revision_of = attrgetter("revision")


def put_all(
    operations: Sequence[Operation], view: View, revision: int, now: int, *, max_value_bytes: int
) -> tuple[list[Outcome | ServiceError], list[Change]] | None:
    """The outcomes and changes of a batch, as `evaluate` returns them. None unless all operations are plain puts."""
    stored = view.records(ENTRY)
    changes: dict[str, Entry] = {}
    outcomes: list[Outcome | ServiceError] = []
    for operation in operations:
        if (
            type(operation) is not Put
            or operation.path is not None
            or operation.ttl is not None
            or operation.condition is not None
            or operation.lease_id is not None
            or len(operation.value) > max_value_bytes
        ):
            return None
        key = operation.key
        current = changes[key] if key in changes else stored.get(key)
        created = current is None or (current.expires_at is not None and current.expires_at <= now)
        created_at = now
        if current is not None and not created:
            key, created_at = current.key, current.created_at  # the same string, as in `entries`
        revision += 1
        changes[key] = entry = Entry(key, operation.value, revision, created_at, now)
        outcomes.append(Written(entry, created))
    in_order: list[Change] = list(changes.values())
    if len(in_order) < len(outcomes):  # a key that was put twice is at the place of its first put
        in_order.sort(key=_revision_of)
    return outcomes, in_order
