"""Ranges of a value that is bytes (RFC 9110, section 14): the header Range, and the parts of a response."""

import re
from collections.abc import Sequence
from typing import Final

from leasehold.errors import ServiceError
from leasehold.limits import MAX_RANGES

_RANGES: Final = re.compile(r"[Bb][Yy][Tt][Ee][Ss]=[ \t,]*(?P<ranges>[0-9][0-9 \t,-]*|-[0-9][0-9 \t,-]*)")
_RANGE: Final = re.compile(r"(?P<first>[0-9]{1,18})-(?P<last>[0-9]{0,18})|-(?P<length>[0-9]{1,18})")


def parse_ranges(header: bytes, size: int) -> Sequence[range] | None:
    """The ranges of a value of `size` bytes that the header Range asks for, in the order of the header.

    None if the header is ignored, as RFC 9110 allows: another unit, a malformed list, more than MAX_RANGES, or ranges
    that are together longer than the value. Raises `range_not_satisfiable` if no range has a byte of the value.
    """
    found = _RANGES.fullmatch(header.decode("latin-1").strip())
    if found is None:
        return None
    texts = [text.strip() for text in found["ranges"].split(",") if text.strip()]
    asked = [_RANGE.fullmatch(text) for text in texts]
    if len(asked) > MAX_RANGES or not all(map(_is_well_formed, asked)):
        return None
    ranges = [each for each in (_range(match, size) for match in asked if match is not None) if each]
    if not ranges:
        if size == 0 and any(match is not None and match["length"] for match in asked):
            return None  # the last bytes of nothing are nothing, and no Content-Range can say that
        raise ServiceError(
            "range_not_satisfiable",
            f"the value has {size} bytes",
            details={"size": size},
            headers={"Content-Range": f"bytes */{size}"},
        )
    return None if sum(map(len, ranges)) > size else ranges


def _is_well_formed(asked: re.Match[str] | None) -> bool:
    if asked is None:
        return False
    return not asked["last"] or int(asked["first"]) <= int(asked["last"])


def _range(asked: re.Match[str], size: int) -> range:
    if asked["length"]:
        return range(max(size - int(asked["length"]), 0), size)
    last = int(asked["last"]) if asked["last"] else size
    return range(int(asked["first"]), min(last + 1, size))


def content_range(positions: range, size: int) -> str:
    """The value of the header Content-Range."""
    return f"bytes {positions.start}-{positions.stop - 1}/{size}"


def multipart(data: bytes, ranges: Sequence[range], content_type: str, boundary: str) -> bytes:
    """A body of the type `multipart/byteranges` (RFC 9110, section 14.6). `boundary` must not occur in `data`."""
    parts: list[bytes] = []
    for positions in ranges:
        head = f"--{boundary}\r\nContent-Type: {content_type}\r\nContent-Range: {content_range(positions, len(data))}"
        parts += [head.encode("latin-1"), b"\r\n\r\n", data[positions.start : positions.stop], b"\r\n"]
    return b"".join((*parts, f"--{boundary}--\r\n".encode()))
