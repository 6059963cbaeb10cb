"""Lists that leave entries out, or show a part of each value (`?path=`).

The work of one request is bounded: such a list may read much more than it shows.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import aclosing
from typing import Final

import msgspec
from msgspec.structs import replace

from leasehold import rules
from leasehold.errors import ServiceError
from leasehold.http.endpoints.kv.get_entry import shown_value
from leasehold.http.pieces import CHUNK_BYTES
from leasehold.http.requests import Request
from leasehold.http.routing.parameters import paths_of
from leasehold.limits import MAX_LIST_WORK_BYTES
from leasehold.model import Binary, Entry, Found, Page, Pointer, Read
from leasehold.values import PIECE_BYTES
from leasehold.values.steps import Steps, finished

Pages = AsyncGenerator[Page[Entry]]
"""Entries in the order of the list. It continues behind the `next_after` of the last page."""
Shown = Callable[[Entry], Entry | Steps[Entry | None] | None]
"""What a list shows of an entry: the entry itself, or another one, whose value is a part. None: it is left out.

Steps: those that find it out for a large entry.
"""

_ENTRY_BYTES: Final = 64
"""The work for an entry that is left out, beside its value."""
_QUICK_BYTES: Final = CHUNK_BYTES // 8
"""Less work than this takes no turn of its own: 0.3 ms."""


async def shown_pages(pages: Pages, shown: Shown, limit: int | None, turn: asyncio.Lock) -> Pages:
    """The entries that are shown, at most `limit`. Closes `pages`.

    It ends after MAX_LIST_WORK_BYTES. The work is done in pieces of about CHUNK_BYTES. `turn` is that of the store: of
    all such lists, one does one piece in an iteration of the event loop. It is free while a page is sent.
    """
    left = limit
    work = 0
    last: str | None = None
    async with aclosing(pages):
        async for page in pages:
            begin = 0
            while begin < len(page.records) or not page.records:
                async with turn:
                    piece = await _piece(page.records, begin, shown, left)
                    if piece.work_bytes > _QUICK_BYTES:
                        await asyncio.sleep(0)
                begin, work = piece.end, work + piece.work_bytes
                left = None if left is None else left - len(piece.records)
                if piece.records:
                    last = piece.records[-1].key
                if piece.has_more:
                    yield Page(piece.records, page.revision, last)
                    return
                is_page_over = begin >= len(page.records)
                yield Page(
                    piece.records, page.revision, page.next_after if is_page_over else page.records[begin - 1].key
                )
                if work > MAX_LIST_WORK_BYTES:
                    return
                if not piece.records:
                    await asyncio.sleep(0)  # an empty page sends nothing, so only this lets the event loop go on
                if is_page_over:
                    break


class _Piece(msgspec.Struct, frozen=True):
    """What is shown of some entries. `end`: the index of the next entry."""

    records: list[Entry]
    end: int
    work_bytes: int
    has_more: bool
    """Another entry would be shown, but the limit is reached."""


async def _piece(entries: Sequence[Entry], begin: int, shown: Shown, limit: int | None) -> _Piece:
    """What is shown of the entries from `begin` on, until this takes CHUNK_BYTES of work. A step of a large entry is
    done in each iteration of the event loop."""
    records: list[Entry] = []
    work = 0
    for index in range(begin, len(entries)):
        entry = entries[index]
        result = shown(entry)
        if isinstance(result, Generator):
            result = await _in_iterations(result)
        if result is not entry:
            work += len(entry.value) + _ENTRY_BYTES
        if result is not None:
            if len(records) == limit:
                return _Piece(records, index, work, has_more=True)
            records.append(result)
        if work > CHUNK_BYTES:
            return _Piece(records, index + 1, work, has_more=False)
    return _Piece(records, len(entries), work, has_more=False)


async def _in_iterations(steps: Steps[Entry | None]) -> Entry | None:
    try:
        while True:
            next(steps)
            await asyncio.sleep(0)
    except StopIteration as end:
        shown: Entry | None = end.value
        return shown
    finally:
        steps.close()


def shown_parts_of(request: Request) -> Shown | None:
    """What `path` asks to show of each entry. None: the entry itself."""
    paths = paths_of(request)
    return None if paths is None else lambda entry: _part(request, entry, paths)


def _part(request: Request, entry: Entry, paths: Sequence[Pointer]) -> Entry | Steps[Entry | None] | None:
    """The entry with the value that a GET with these paths shows. None if the GET would not find it.

    Also None if its value is bytes, which have no parts.
    """
    text = entry.value
    if isinstance(text, Binary):
        return None
    steps = _part_steps(request, entry, text, paths)
    return steps if len(text) > PIECE_BYTES else finished(steps)


def _part_steps(request: Request, entry: Entry, text: bytes, paths: Sequence[Pointer]) -> Steps[Entry | None]:
    try:
        found = yield from rules.read_steps(Read(entry.key, tuple(paths)), entry, "")
    except ServiceError as error:
        if error.code == "path_not_found":
            return None
        if error.code == "too_large":
            raise ServiceError(error.code, error.message, details={**error.details, "key": entry.key}) from error
        raise
    assert isinstance(found, Found)
    value, _ = shown_value(request, text, found.parts)
    return replace(entry, value=value)
