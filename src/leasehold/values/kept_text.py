"""Text that must be JSON, but is kept byte by byte as it was sent: the states of Terraform."""

import codecs
from collections.abc import Generator, Iterator
from typing import Final

import msgspec

from leasehold.errors import ServiceError
from leasehold.limits import KIB, MIB
from leasehold.values import json_text
from leasehold.values.steps import finished
from leasehold.values.text import refusal_of

_PIECE_BYTES: Final = 128 * KIB
"""Such pieces fit into the processor's cache: new memory of 16 MiB takes 4 ms."""
_PIECES_OF_STEP: Final = 4 * MIB // _PIECE_BYTES
_Utf8Decoder: Final = codecs.getincrementaldecoder("utf-8")
_skip: Final = msgspec.json.Decoder(msgspec.Raw).decode


def check_json_text(text: bytes, *, max_brackets: int, max_commas: int) -> None:
    """Raise `invalid_json` unless `text` is JSON in UTF-8. No value is decoded: numbers may have any size.

    Raises `too_large` for more than `max_brackets` opening brackets or `max_commas` commas. Those in strings count,
    because to tell them apart would take longer than the check. Takes up to 2 ms per megabyte.
    """
    finished(check_steps(text, max_brackets=max_brackets, max_commas=max_commas))


def check_steps(text: bytes, *, max_brackets: int, max_commas: int) -> Generator[None]:
    """`check_json_text` in steps of 4 MiB, but for the check of the syntax, which cannot be divided."""
    if len(text) > max_brackets:
        brackets = commas = 0
        for number, piece in enumerate(_pieces(text), start=1):
            brackets += json_text.brackets_at_most(piece)
            commas += piece.count(b",")
            if number % _PIECES_OF_STEP == 0:
                yield
        if brackets > max_brackets:
            raise _too_many("characters [ and {", max_brackets)
        if commas > max_commas:
            raise _too_many("character ,", max_commas)
    try:
        _skip(text)
        if not text.isascii():
            yield
            decoder = _Utf8Decoder()
            for number, piece in enumerate(_pieces(text), start=1):
                decoder.decode(piece)  # JSON ends with ASCII, so the last one ends with a whole character
                if number % _PIECES_OF_STEP == 0:
                    yield
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise refusal_of(error, text, "text") from error


def _too_many(what: str, limit: int) -> ServiceError:
    return ServiceError("too_large", f"more than {limit} of the {what}", details={"limit": limit})


def _pieces(text: bytes) -> Iterator[bytes]:
    return (text[begin : begin + _PIECE_BYTES] for begin in range(0, len(text), _PIECE_BYTES))
