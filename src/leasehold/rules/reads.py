"""What a read returns: the entry, parts of its value, or that the caller already has this revision."""

from collections.abc import Sequence

from leasehold import values
from leasehold.errors import ServiceError, not_found
from leasehold.limits import MAX_PARTS_BYTES
from leasehold.model import Entry, Found, Json, NotModified, Pointer, Read
from leasehold.rules.conditions import check_match, matches


def evaluate_read(read: Read, entry: Entry | None, incarnation: str) -> Found | NotModified:
    """The result of a read. `entry` is the live entry or None; `incarnation` is that of the store.

    Raises `not_found`, `path_not_found`, and `precondition_failed` for If-Match.
    """
    if entry is None:
        raise not_found()
    condition = read.condition
    if condition is not None:
        check_match(condition, entry, incarnation)
        if condition.if_none_match is not None and matches(condition.if_none_match, entry, incarnation):
            return NotModified(entry.revision)
    if not entry.value:
        raise values.unreadable(key=entry.key)
    if read.paths is None:
        return Found(entry)
    with values.collector_paused(len(entry.value)):
        return Found(entry, _parts(values.decode(entry.value), read.paths))


def _parts(value: Json, paths: Sequence[Pointer]) -> tuple[bytes, ...]:
    """The JSON text at each of `paths`; one may contain another. Raises `path_not_found`, `too_large`."""
    parts: list[bytes] = []
    size = 0
    for path in paths:
        parts.append(values.encode(values.get_at(value, path)))
        size += len(parts[-1])
        if size > MAX_PARTS_BYTES and len(paths) > 1:
            raise ServiceError(
                "too_large",
                f"the parts together are larger than {MAX_PARTS_BYTES} bytes",
                details={"limit": MAX_PARTS_BYTES},
            )
    return tuple(parts)
