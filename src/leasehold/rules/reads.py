"""What a read returns: the entry, parts of its value, or that the caller already has this revision."""

from collections.abc import Generator, Sequence
from typing import Final

from msgspec.structs import replace

from leasehold import values
from leasehold.errors import ServiceError, not_found
from leasehold.limits import KIB, MAX_PARTS_BYTES
from leasehold.model import Binary, Entry, Found, NotModified, Pointer, Read
from leasehold.rules.binary import no_parts
from leasehold.rules.conditions import check_match, matches
from leasehold.values.steps import finished

_STEP_BYTES: Final = 64 * KIB
"""Parts are encoded together until they have so many bytes."""


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
    return finished(_with_parts(entry, entry.value, read.paths))


def read_steps(read: Read, entry: Entry, incarnation: str) -> Generator[None, None, Found | NotModified]:
    """`evaluate_read` in steps, for an entry with a large value."""
    text = entry.value
    if not text or read.paths is None:
        return evaluate_read(read, entry, incarnation)
    result = evaluate_read(replace(read, paths=None), entry, incarnation)
    if isinstance(result, NotModified):
        return result
    return (yield from _with_parts(entry, text, read.paths))


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


def _with_parts(entry: Entry, text: bytes, paths: Sequence[Pointer]) -> Generator[None, None, Found]:
    with values.collector_paused(len(text)):
        return Found(entry, (yield from _parts(text, paths)))


def _parts(text: bytes, paths: Sequence[Pointer]) -> Generator[None, None, tuple[bytes, ...]]:
    """The JSON text at each of `paths`; one may contain another. Raises `path_not_found`, `too_large`."""
    value = yield from values.decode_steps(text)
    texts: dict[Pointer, bytes] = {(): text}
    parts: list[bytes] = []
    size = step_bytes = 0
    for path in paths:
        if path not in texts:
            if step_bytes > _STEP_BYTES:
                yield
                step_bytes = 0
            texts[path] = values.encode(values.get_at(value, path))
            step_bytes += len(texts[path])
        parts.append(texts[path])
        size += len(parts[-1])
        if size > MAX_PARTS_BYTES and len(paths) > 1:
            raise ServiceError(
                "too_large",
                f"the parts together are larger than {MAX_PARTS_BYTES} bytes",
                details={"limit": MAX_PARTS_BYTES},
            )
    return tuple(parts)
