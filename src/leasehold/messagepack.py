"""How many lists and objects a MessagePack body has, found without decoding it.

The decoder needs 0.1 µs for each, and a body of a megabyte may have a million of them.
"""

import re
from typing import Final

from leasehold.errors import ServiceError

_CONTAINER_BYTES: Final = bytes([*range(0x80, 0xA0), *range(0xDC, 0xE0)])
"""The first bytes of lists and maps. They stand in strings and numbers, too."""

_SHORT_STRINGS: Final = b"|".join(b"%b.{%d}" % (re.escape(bytes([0xA0 + size])), size) for size in range(32))
_RUN_OF_SCALARS: Final = (
    rb"(?s:[\x00-\x7f\xc0\xc2\xc3\xe0-\xff]|[\xcc\xd0].|[\xcd\xd1]..|[\xca\xce\xd2].{4}|[\xcb\xcf\xd3].{8}|%b)*+"
    % _SHORT_STRINGS
)
"""Numbers, constants and short strings."""
_SCALARS: Final = re.compile(_RUN_OF_SCALARS)
_NEXT_CONTAINER: Final = re.compile(_RUN_OF_SCALARS + rb"(?s:[\x80-\x9f]|[\xdc\xde]..|[\xdd\xdf].{4})")
"""With what a list or map says of its length."""
_LENGTH_BYTES: Final = {0xD9: 1, 0xDA: 2, 0xDB: 4}
"""Of longer strings, which say their length behind their first byte."""


def has_more_containers(body: bytes, limit: int) -> bool:
    """Whether `body` has more than `limit` lists and maps. Raises `invalid_json` for what is no JSON anyway.

    Up to twice as many may be overlooked: nearly every body is judged by its length, or by one pass over its bytes.
    """
    if len(body) <= 2 * limit or len(body) - len(body.translate(None, _CONTAINER_BYTES)) <= 2 * limit:
        return False
    count = position = 0
    next_container, scalars = _NEXT_CONTAINER.match, _SCALARS.match
    while position < len(body):
        while (match := next_container(body, position)) is not None:
            position = match.end()
            count += 1
            if count > limit:
                return True
        if (match := scalars(body, position)) is not None:
            position = match.end()
        if position < len(body):
            length_bytes = _LENGTH_BYTES.get(body[position])
            if length_bytes is None:
                raise ServiceError("invalid_json", "MessagePack that is cut off, or binary data or an extension")
            begin = position + 1 + length_bytes
            position = begin + int.from_bytes(body[position + 1 : begin], "big")
    return False
