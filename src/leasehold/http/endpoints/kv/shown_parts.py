"""Lists that leave entries out, or show a part of each value (`?path=`).

The work of one request is bounded: such a list may read much more than it shows.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Final

from msgspec.structs import replace

from leasehold import rules
from leasehold.errors import ServiceError
from leasehold.http.endpoints.kv.get_entry import shown_value
from leasehold.http.messages import CHUNK_BYTES, Request
from leasehold.http.routing.parameters import paths_of
from leasehold.limits import MAX_LIST_WORK_BYTES
from leasehold.model import Entry, Found, Page, Pointer, Read

Pages = AsyncGenerator[Page[Entry]]
"""Entries in the order of the list. It continues behind the `next_after` of the last page."""
Shown = Callable[[Entry], Entry | None]
"""What a list shows of an entry: the entry itself, or another one, whose value is a part. None: it is left out."""

_ENTRY_BYTES: Final = 64
"""The work for an entry that is left out, beside its value."""


async def shown_pages(pages: Pages, shown: Shown, limit: int | None) -> Pages:
    """The entries that are shown, at most `limit`. Closes `pages`.

    It ends after MAX_LIST_WORK_BYTES. A page ends after CHUNK_BYTES of work, and then the event loop goes on.
    """
    left = limit
    work = work_of_page = 0
    last: str | None = None
    async with aclosing(pages):
        async for page in pages:
            records: list[Entry] = []
            for entry in page.records:
                result = shown(entry)
                if result is not entry:
                    work_of_page += len(entry.value) + _ENTRY_BYTES
                if result is not None:
                    if left == 0:
                        yield Page(records, page.revision, last)
                        return
                    records.append(result)
                    last = entry.key
                    left = None if left is None else left - 1
                if work_of_page > CHUNK_BYTES:
                    work, work_of_page = work + work_of_page, 0
                    await asyncio.sleep(0)  # the receiver encodes what was just decoded, which takes as long again
                    yield Page(records, page.revision, entry.key)
                    if work > MAX_LIST_WORK_BYTES:
                        return
                    records = []
            yield Page(records, page.revision, page.next_after)
            if not records:
                await asyncio.sleep(0)  # an empty page sends nothing, so only this lets the event loop go on


def shown_parts_of(request: Request) -> Shown | None:
    """What `path` asks to show of each entry. None: the entry itself."""
    paths = paths_of(request)
    return None if paths is None else lambda entry: _part(request, entry, paths)


def _part(request: Request, entry: Entry, paths: Sequence[Pointer]) -> Entry | None:
    """The entry with the value that a GET with these paths shows. None if the GET would not find it."""
    try:
        found = rules.evaluate_read(Read(entry.key, tuple(paths)), entry, "")
    except ServiceError as error:
        if error.code == "path_not_found":
            return None
        if error.code == "too_large":
            raise ServiceError(error.code, error.message, details={**error.details, "key": entry.key}) from error
        raise
    assert isinstance(found, Found)
    value, _ = shown_value(request, found)
    return replace(entry, value=value)
