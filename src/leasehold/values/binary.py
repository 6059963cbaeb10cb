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
"""Divisible by 3, so the pieces of base64 fit together. One takes 0.5 ms."""


def parse_media_type(text: str) -> str | None:
    """A media type with its parameters, the type in lower case; None if it is malformed or too long."""
    found = _MEDIA_TYPE.fullmatch(text) if len(text) <= MAX_MEDIA_TYPE_CHARACTERS else None
    return None if found is None else found[1].lower() + found[2]


def type_of(media: str) -> str:
    """A media type without its parameters."""
    return media.partition(";")[0].rstrip()


def to_base64(data: bytes) -> bytes:
    """Base64 (RFC 4648, section 4), with padding and without line breaks."""
    return b64encode(data) if len(data) <= PIECE_BYTES else b"".join(base64_pieces(data))


def base64_pieces(data: bytes) -> Iterator[bytes]:
    """`to_base64` in pieces, so that another thread need not wait for all of it: an encoder keeps the interpreter."""
    view = memoryview(data)
    for begin in range(0, len(data), PIECE_BYTES):
        yield b64encode(view[begin : begin + PIECE_BYTES])


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
