r"""Divides a long JSON text into pieces that are JSON themselves, so that it can be checked and decoded in steps.

A piece ends behind a comma outside of strings. It is completed with what is open there: `[1,{"a":2,"b":3}]` becomes
`[1,{"a":2,END}]` and `[{BEGIN,"b":3}]`, where BEGIN and END are members or items with names that no value has.
If all pieces are JSON, so is the text: only behind a comma in a list or object may END follow, only the right brackets
close what is open, and with BEGIN the next piece begins in the same state. If the text is not JSON, a piece is not.
To divide a mebibyte takes 1 to 3 ms, and more with many brackets.
"""

from collections.abc import Generator, Iterator
from typing import Final

import msgspec

from leasehold.limits import KIB
from leasehold.values import json_text

PIECE_BYTES: Final = 256 * KIB
"""To decode so much takes up to 5 ms. A piece is longer if it ends with a long string."""
BEGIN: Final = "\0"
"""The name of the first member of a piece that begins in an object. Where it begins in a list, the first item is 0."""
END: Final = "\0\0"
"""The name and value of the last member of a piece that ends in an object, or the last item, if it ends in a list."""

_NOT_STRUCTURE: Final = bytes(byte for byte in range(256) if chr(byte) not in '[]{}"')
_OPENING: Final = b"[{"
_CLOSING: Final = bytes.maketrans(b"[{", b"]}")
_OBJECT: Final = ord("{")
_MANY_BRACKETS: Final = 32_768
"""A piece with more of them is shorter: to follow each takes 60 ns."""
_MOST_STRINGS: Final = 1_000
"""Among so many strings there is a comma, unless objects are nested deeper than any value is."""


class Piece(msgspec.Struct, frozen=True, gc=False):
    """`text[begin:end]`, which is JSON between `opening` and `closing`. `depth`: how many brackets are open at its end.

    `kept`: how many of those that are open at its beginning are not closed in it.
    """

    begin: int
    end: int
    opening: bytes
    closing: bytes
    depth: int
    kept: int

    def completed(self, text: bytes) -> bytes:
        if not self.opening and not self.closing:
            return text
        return b"".join((self.opening, memoryview(text)[self.begin : self.end], self.closing))


def pieces(text: bytes) -> Iterator[Piece | None]:
    """The pieces of a text. None: a long string goes on, and another PIECE_BYTES of it were read.

    The last piece has no `closing`. If the text is not JSON, it may be long.
    """
    opened = bytearray()
    """The brackets that are open at `at`."""
    begin = at = kept = 0
    opening = b""
    in_string = False
    """Whether a string goes on at `at`."""
    while len(text) - at > PIECE_BYTES:
        window = text[at : at + PIECE_BYTES]
        if json_text.brackets_at_most(window) > _MANY_BRACKETS:
            window = window[: PIECE_BYTES // 4]
        window = _masked(window)
        ends_in_string = in_string ^ (window.count(b'"') % 2 == 1)
        comma = _last_comma(window, in_string=ends_in_string)
        if comma >= 0:
            window = window[: comma + 1]
        lowest = _follow(opened, window, in_string=in_string)
        at += len(window)
        kept = min(kept, lowest)
        if comma < 0:
            in_string = ends_in_string
            yield None
            continue
        if not opened:
            break  # it is not JSON
        in_string = False
        yield Piece(begin, at, opening, _closing(opened), len(opened), kept)
        begin, opening, kept = at, _opening(opened), len(opened)
    yield Piece(begin, len(text), opening, b"", 0, 0)


def with_float_zeros_steps(text: bytes) -> Generator[None, None, bytes]:
    """`json_text.with_float_zeros` in steps. No number goes on behind the comma at which a piece ends."""
    parts: list[bytes] = []
    for piece in pieces(text):
        yield
        if piece is not None:
            parts.append(json_text.with_float_zeros(text[piece.begin : piece.end]))
    return b"".join(parts)


def _masked(window: bytes) -> bytes:
    """The window without quotes in strings, in the same length. It ends before an escape that is cut off."""
    if json_text.BACKSLASH not in window:
        return window
    if (len(window) - len(window.rstrip(b"\\"))) % 2:
        window = window[:-1]
    return window.replace(b"\\\\", b"..").replace(b'\\"', b"..")


def _last_comma(window: bytes, *, in_string: bool) -> int:
    """The place of the last comma outside of strings, or -1. `in_string`: whether a string goes on at the end."""
    end = len(window)
    for _ in range(_MOST_STRINGS):
        quote = window.rfind(b'"', 0, end)
        if not in_string and (comma := window.rfind(b",", quote + 1, end)) >= 0:
            return comma
        if quote < 0:
            break
        end, in_string = quote, not in_string
    return -1


def _follow(opened: bytearray, window: bytes, *, in_string: bool) -> int:
    """Change `opened` by the brackets of the window. Returns how few were open. `in_string`: at the beginning."""
    structure = window.translate(None, _NOT_STRUCTURE)
    if in_string:
        structure = b'"' + structure
    structure = structure.replace(b'""', b"")  # strings without brackets; it changes for no bracket if it is in one
    if b'"' in structure:
        structure = b"".join(structure.split(b'"')[::2])
    lowest = len(opened)
    for bracket in structure.replace(b"[]", b"").replace(b"{}", b""):
        if bracket in _OPENING:
            opened.append(bracket)
        elif opened:
            opened.pop()
            if len(opened) < lowest:
                lowest = len(opened)
    return lowest


def _opening(opened: bytearray) -> bytes:
    *outer, inner = opened
    begin = b"".join(b'{"\\u0000":' if bracket == _OBJECT else b"[" for bracket in outer)
    return begin + (b'{"\\u0000":0,' if inner == _OBJECT else b"[0,")


def _closing(opened: bytearray) -> bytes:
    end = b'"\\u0000\\u0000"'
    if opened[-1] == _OBJECT:
        end += b":" + end
    return end + bytes(reversed(opened)).translate(_CLOSING)
