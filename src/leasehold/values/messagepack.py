"""Counts the lists and maps of a MessagePack body without decoding it.

The decoder takes 0.1 µs for each of them, and a body of a megabyte may have a million.
"""

import re
from collections.abc import Generator
from typing import Final

from leasehold.errors import ServiceError
from leasehold.limits import KIB
from leasehold.values.steps import finished

_CONTAINER_BYTES: Final = bytes([*range(0x80, 0xA0), *range(0xDC, 0xE0)])
"""The first bytes of lists and maps. The same bytes also occur within strings and numbers."""

_SIZED: Final = b"|".join(b"%b.{%d}" % (re.escape(bytes([size])), size) for size in range(256))
"""The last byte of a size, followed by as many bytes. Trying each size costs 2 ns per byte of a string."""
_SHORT_STRINGS: Final = b"|".join(b"%b.{%d}" % (re.escape(bytes([0xA0 + size])), size) for size in range(32))
_SCALAR: Final = (
    rb"[\x00-\x7f\xc0\xc2\xc3\xe0-\xff]++|[\xcc\xd0].|[\xcd\xd1]..|[\xca\xce\xd2].{4}|[\xcb\xcf\xd3].{8}"
    rb"|(?:\xd9|\xda\x00|\xdb\x00\x00\x00)(?:%b)|%b" % (_SIZED, _SHORT_STRINGS)
)
"""A number, a constant or a string of at most 255 bytes. Consecutive values of one byte are matched together."""
_CONTAINER: Final = rb"[\x80-\x9f]|[\xdc\xde]..|[\xdd\xdf].{4}"
"""The header of a list or map, with its length."""
_RUN: Final = re.compile(rb"(?s:%b|%b){0,30000}+" % (_SCALAR, _CONTAINER))
"""The repetition is bounded, so that a body of a million lists is not read to its end, and a step is short."""
_CONTAINERS: Final = re.compile(rb"(?s:(?:%b)*+(?:(%b)|\Z))" % (_SCALAR, _CONTAINER))
"""Each match ends with one list or map, or with nothing after the last one."""
_SIZE_BYTES: Final = {0xDA: 2, 0xDB: 4}
"""The bytes of the size field of longer strings, by their first byte."""
_STEP_BYTES: Final = 32 * KIB


def containers_at_most(body: bytes) -> int:
    """An upper bound for the lists and maps: it also counts bytes of strings and numbers that look like one."""
    return len(body) - len(body.translate(None, _CONTAINER_BYTES))


def has_more_containers(body: bytes, limit: int) -> bool:
    """Whether `body` has more than `limit` lists and maps; see `count_steps`."""
    return len(body) > 2 * limit and finished(count_steps(body, limit))


def count_steps(body: bytes, limit: int) -> Generator[None, None, bool]:
    """Returns whether `body` has more than `limit` lists and maps. Raises `invalid_json` if it is not valid as JSON.

    The count is not exact: a body with up to twice the limit may pass, because nearly every body is judged by its
    length or by one pass over its bytes. The others are matched with regular expressions. Only strings over 255 bytes
    end a match, because one step of Python takes as long as matching a hundred bytes. The worst case is 20 to 40 ms for
    a megabyte. It yields about every 5 ms.
    """
    if len(body) <= 2 * limit or containers_at_most(body) <= 2 * limit:
        return False
    count = position = yielded_at = 0
    while position < len(body):
        run = _RUN.match(body, position)
        if run is not None and run.end() > position:
            found = _CONTAINERS.findall(body, position, run.end())
            count += len(found) - found.count(b"")
            if count > limit:
                return True
            position = run.end()
        else:
            size_bytes = _SIZE_BYTES.get(body[position])
            if size_bytes is None:
                raise ServiceError("invalid_json", "the MessagePack is cut off, or has binary data or an extension")
            begin = position + 1 + size_bytes
            position = begin + int.from_bytes(body[position + 1 : begin], "big")
        if position - yielded_at >= _STEP_BYTES:
            yielded_at = position
            yield
    return False
