"""Text that must be JSON, but is kept byte by byte as it was sent: the states of Terraform."""

import codecs
from collections.abc import Generator, Iterator
from typing import Final

import msgspec

from leasehold.errors import ServiceError
from leasehold.limits import KIB, MIB
from leasehold.values import json_text
from leasehold.values.json_pieces import pieces
from leasehold.values.steps import finished
from leasehold.values.text import refusal_of

_PART_BYTES: Final = 128 * KIB
"""Such parts fit into the processor's cache: new memory of 16 MiB takes 4 ms."""
_PARTS_OF_STEP: Final = 4 * MIB // _PART_BYTES
_Utf8Decoder: Final = codecs.getincrementaldecoder("utf-8")
_skip: Final = msgspec.json.Decoder(msgspec.Raw).decode


def check_json_text(text: bytes, *, max_brackets: int, max_commas: int) -> None:
    """Raise `invalid_json` unless `text` is JSON in UTF-8. No value is decoded: numbers may have any size.

    Raises `too_large` for more than `max_brackets` opening brackets or `max_commas` commas. Those in strings count,
    because to tell them apart would take longer than the check. Takes 2 to 4 ms for a megabyte, and more if it has many
    brackets.
    """
    finished(check_steps(text, max_brackets=max_brackets, max_commas=max_commas))


def check_steps(text: bytes, *, max_brackets: int, max_commas: int) -> Generator[None]:
    """`check_json_text` in steps of a few milliseconds. One with a long string takes up to 20 ms."""
    if len(text) > max_brackets:
        yield from _count_steps(text, max_brackets, max_commas)
    yield from _syntax_steps(text)
    if not text.isascii():
        yield from _encoding_steps(text)


def _count_steps(text: bytes, max_brackets: int, max_commas: int) -> Generator[None]:
    brackets = commas = 0
    for number, part in enumerate(_parts(text), start=1):
        brackets += json_text.brackets_at_most(part)
        commas += part.count(b",")
        if number % _PARTS_OF_STEP == 0:
            yield
    if brackets > max_brackets:
        raise _too_many("characters [ and {", max_brackets)
    if commas > max_commas:
        raise _too_many("character ,", max_commas)


def _syntax_steps(text: bytes) -> Generator[None]:
    for piece in pieces(text):
        if piece is not None and not _is_json(piece.completed(text)):
            try:
                _skip(piece.opening + text[piece.begin :])  # as if it were not divided: that says what is wrong
            except (msgspec.DecodeError, RecursionError) as error:
                raise refusal_of(error, text, "text", piece.begin - len(piece.opening)) from error
        yield


def _encoding_steps(text: bytes) -> Generator[None]:
    decoder = _Utf8Decoder()
    try:
        for number, part in enumerate(_parts(text), start=1):
            decoder.decode(part)  # JSON ends with ASCII, so the last one ends with a whole character
            if number % _PARTS_OF_STEP == 0:
                yield
    except UnicodeDecodeError as error:
        raise refusal_of(error, text, "text") from error


def _is_json(text: bytes) -> bool:
    try:
        _skip(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _too_many(what: str, limit: int) -> ServiceError:
    return ServiceError("too_large", f"more than {limit} of the {what}", details={"limit": limit})


def _parts(text: bytes) -> Iterator[bytes]:
    return (text[begin : begin + _PART_BYTES] for begin in range(0, len(text), _PART_BYTES))
