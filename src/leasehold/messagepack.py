"""How many lists and objects a MessagePack body has, found without decoding it.

The decoder needs 0.1 µs for each, and a body of a megabyte may have a million of them.
"""

import re
from typing import Final

from leasehold.errors import ServiceError

_CONTAINER_BYTES: Final = bytes([*range(0x80, 0xA0), *range(0xDC, 0xE0)])
"""The first bytes of lists and maps. They stand in strings and numbers, too."""

_SHORT_STRINGS: Final = b"|".join(b"%b.{%d}" % (re.escape(bytes([0xA0 + size])), size) for size in range(32))
_NEXT_CONTAINERS: Final = re.compile(
    rb"(?s:[\x00-\x7f\xc0\xc2\xc3\xe0-\xff]|[\xcc\xd0].|[\xcd\xd1]..|[\xca\xce\xd2].{4}|[\xcb\xcf\xd3].{8}|%b)*+"
    rb"([\x80-\x9f]*+)" % _SHORT_STRINGS
)
"""A run of numbers, constants and short strings, and the small lists and maps that begin behind it."""
_LENGTH_BYTES: Final = {0xD9: 1, 0xDA: 2, 0xDB: 4, 0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}
"""Of what says its length behind its first byte: longer strings, lists and maps."""
_FIRST_LARGE_CONTAINER: Final = 0xDC


def has_more_containers(body: bytes, limit: int) -> bool:
    """Whether `body` has more than `limit` lists and maps. Raises `invalid_json` for what is no JSON anyway.

    Up to twice as many may be overlooked: nearly every body is judged by its length, or by one pass over its bytes.
    """
    if len(body) <= 2 * limit or len(body) - len(body.translate(None, _CONTAINER_BYTES)) <= 2 * limit:
        return False
    count = position = 0
    end = len(body)
    next_containers = _NEXT_CONTAINERS.match
    while position < end and count <= limit:
        match = next_containers(body, position)
        assert match is not None
        begin, position = match.span(1)
        if position > begin:
            count += position - begin
        elif position < end:
            length_bytes = _LENGTH_BYTES.get(body[position])
            if length_bytes is None:
                raise ServiceError("invalid_json", "MessagePack that is cut off, or binary data or an extension")
            is_container = body[position] >= _FIRST_LARGE_CONTAINER
            position += 1 + length_bytes
            if is_container:
                count += 1
            else:
                position += int.from_bytes(body[position - length_bytes : position], "big")
    return count > limit
