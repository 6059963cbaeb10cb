"""Values that are bytes: their media type, and their form in JSON."""

import re
from base64 import b64decode, b64encode
from collections.abc import Iterator
from typing import Final

from leasehold.limits import KIB, MAX_MEDIA_TYPE_CHARACTERS
from leasehold.model import Content

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_NAME: Final = "[0-9A-Za-z][!#$&^_.+0-9A-Za-z-]*"
"""RFC 6838, section 4.2."""
_MEDIA_TYPE: Final = re.compile(
    rf'({_NAME}/{_NAME})((?:[ \t]*;[ \t]*{_WORD}=(?:{_WORD}|"(?:[\t !#-\[\]-~]|\\[\t -~])*+"))*+)[ \t]*;?'
)
"""RFC 9110, section 8.3.1. Groups: the type without parameters, and the parameters."""


PIECE_BYTES: Final = 768 * KIB
"""Divisible by 3, as _ENCODED_AT_ONCE_BYTES is, so the pieces of base64 fit together."""
_ENCODED_AT_ONCE_BYTES: Final = 48 * KIB
"""An encoder keeps the interpreter, in this case for 0.1 ms. If it kept it for 2 ms on another thread, the event loop
would wait as long after each of its system calls, of which it makes dozens in an iteration."""


def parse_media_type(text: str) -> str | None:
    """A media type with its parameters, the type in lower case; None if it is malformed or too long."""
    found = _MEDIA_TYPE.fullmatch(text) if len(text) <= MAX_MEDIA_TYPE_CHARACTERS else None
    return None if found is None else found[1].lower() + found[2]


def type_of(media: str) -> str:
    """A media type without its parameters."""
    return media.partition(";")[0].rstrip()


def to_base64(data: bytes) -> bytes:
    """Base64 (RFC 4648, section 4), with padding and without line breaks."""
    return b"".join(base64_pieces(data))


def base64_pieces(data: bytes) -> Iterator[bytes]:
    """`to_base64` in pieces."""
    view = memoryview(data)
    for begin in range(0, len(data), PIECE_BYTES):
        end = min(begin + PIECE_BYTES, len(data))
        parts = range(begin, end, _ENCODED_AT_ONCE_BYTES)
        yield b"".join([b64encode(view[part : min(part + _ENCODED_AT_ONCE_BYTES, end)]) for part in parts])


def slices(data: bytes) -> Iterator[bytes]:
    """The bytes in pieces."""
    for begin in range(0, len(data), PIECE_BYTES):
        yield data[begin : begin + PIECE_BYTES]


def from_base64(text: str) -> Content:
    """Raises ValueError for anything that `to_base64` does not return."""
    data = b64decode(text, validate=True)
    if b64encode(data) != text.encode():
        raise ValueError("bits after the last byte, or characters after the padding")
    return Content(data)
