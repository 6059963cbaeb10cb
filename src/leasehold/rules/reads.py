"""What a read returns: the entry, parts of its value, or that the caller already has this revision."""

from collections.abc import Sequence

from leasehold import values
from leasehold.errors import ServiceError, not_found
from leasehold.limits import MAX_PARTS_BYTES
from leasehold.model import Binary, Entry, Found, NotModified, Pointer, Read
from leasehold.rules.binary import no_parts
from leasehold.rules.conditions import check_match, matches


def evaluate_read(read: Read, entry: Entry | None, incarnation: str) -> Found | NotModified:
    """The result of a read. `entry` is the live entry or None; `incarnation` is that of the store.

    Raises `not_found`, `path_not_found`, and `precondition_failed` for If-Match.
    """
    if entry is None:
        raise not_found()
    if not entry.value:
        return _without_text(read, entry, incarnation)
    condition = read.condition
    if condition is not None:
        check_match(condition, entry, incarnation)
        if condition.if_none_match is not None and matches(condition.if_none_match, entry, incarnation):
            return NotModified(entry.revision)
    if read.paths is None:
        return Found(entry)
    with values.collector_paused(len(entry.value)):
        return Found(entry, _parts(entry.value, read.paths))


def _without_text(read: Read, entry: Entry, incarnation: str) -> Found | NotModified:
    """The result of a read if the value is bytes, or if it is UNREADABLE."""
    value = entry.value
    media = value.media if isinstance(value, Binary) else None
    condition = read.condition
    if media is not None and read.condition_of_bytes is not None:
        condition = read.condition_of_bytes(media)
    if condition is not None:
        check_match(condition, entry, incarnation)
        if condition.if_none_match is not None and matches(condition.if_none_match, entry, incarnation):
            return NotModified(entry.revision, media)
    if media is None:
        raise values.unreadable(key=entry.key)
    if read.paths is not None:
        raise no_parts()
    if_range = None if condition is None else condition.if_range
    return Found(entry, None, if_range is None or matches(if_range, entry, incarnation))


def _parts(text: bytes, paths: Sequence[Pointer]) -> tuple[bytes, ...]:
    """The JSON text at each of `paths`; one may contain another. Raises `path_not_found`, `too_large`."""
    value = values.decode(text)
    texts: dict[Pointer, bytes] = {(): text}
    parts: list[bytes] = []
    size = 0
    for path in paths:
        if path not in texts:
            texts[path] = values.encode(values.get_at(value, path))
        parts.append(texts[path])
        size += len(parts[-1])
        if size > MAX_PARTS_BYTES and len(paths) > 1:
            raise ServiceError(
                "too_large",
                f"the parts together are larger than {MAX_PARTS_BYTES} bytes",
                details={"limit": MAX_PARTS_BYTES},
            )
    return tuple(parts)
