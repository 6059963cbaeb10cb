"""Decodes large stored values in steps: a mebibyte of short members takes 20 to 40 ms, and a response may have two."""

from collections.abc import Generator

from leasehold.errors import ServiceError
from leasehold.model import Json
from leasehold.values import json_text
from leasehold.values.json_pieces import BEGIN, END, PIECE_BYTES, pieces
from leasehold.values.text import decode, pack

_Container = list[Json] | dict[str, Json]


def decode_steps(text: bytes) -> Generator[None, None, Json]:
    """`decode` in steps of about PIECE_BYTES. The caller pauses the garbage collection."""
    if len(text) <= PIECE_BYTES or json_text.holds_nul(text):  # in a value, BEGIN would be ambiguous
        return decode(text)
    try:
        return (yield from _joined(text))
    except (ServiceError, _AmbiguousError):
        return decode(text)  # another program wrote it


def to_messagepack_steps(text: bytes) -> Generator[None, None, bytes]:
    """`to_messagepack` in steps. The caller pauses the garbage collection."""
    value = yield from decode_steps(text)
    yield
    return pack(value)


class _AmbiguousError(Exception):
    """An object has two members with the same name, so it is not certain in which of them a piece ends."""


def _joined(text: bytes) -> Generator[None, None, Json]:
    """The value, joined from its decoded pieces."""
    value: Json = None
    opened: list[_Container] = []
    """The lists and objects of the value that are open at the end of the last piece, each of them in the one before."""
    for number, piece in enumerate(pieces(text)):
        if number:
            yield
        if piece is None:
            continue
        part = decode(piece.completed(text))
        if opened:
            _add(opened, part)
        else:
            value = part
        del opened[piece.kept :]
        while len(opened) < piece.depth:
            child = _last_of(opened[-1]) if opened else value
            if not isinstance(child, list | dict):
                raise _AmbiguousError
            opened.append(child)
        if opened:
            _remove_end(opened[-1])
    return value


def _add(opened: list[_Container], part: Json) -> None:
    """Add a piece to the lists and objects that were open at its beginning."""
    for container in opened:
        if isinstance(container, list):
            assert isinstance(part, list), "the piece begins with the same brackets"
            inner = part.pop(0)
            container.extend(part)
        else:
            assert isinstance(part, dict), "as above"
            inner = part.pop(BEGIN)
            container.update(part)
        part = inner


def _last_of(container: _Container) -> Json:
    if not container:
        return None
    return container[-1] if isinstance(container, list) else container[next(reversed(container))]


def _remove_end(container: _Container) -> None:
    end: Json = None
    if isinstance(container, dict):
        end = container.pop(END, None)
    elif container:
        end = container.pop()
    if end != END:
        raise _AmbiguousError
