"""`GET /kv`: entries in ascending order of their keys, streamed as JSON or as a page of MessagePack."""

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing

import msgspec

from leasehold.http.endpoints.kv.listed_entry import encoder_of
from leasehold.http.endpoints.kv.several_entries import several_entries
from leasehold.http.media_types import Media
from leasehold.http.messages import GatheredList, Request, Response, Stream, gathered
from leasehold.http.routing.parameters import (
    AFTER,
    KEYS,
    LIMIT,
    PREFIX,
    VALUES,
    after_of,
    flag_of,
    limit_of,
    prefixes_of,
)
from leasehold.http.routing.route import AsyncEndpoint, DocumentedResponse, Route, Service
from leasehold.limits import MAX_GATHERED_BYTES, MAX_PAGE_ENTRIES
from leasehold.model import Entry, Page

Pages = AsyncGenerator[Page[Entry]]
"""Entries in ascending order of their keys. The list continues after the `next_after` of the last page."""


async def list_entries(request: Request, service: Service) -> Response | Stream:
    if "key" in request.query:
        return await several_entries(request, service)
    prefixes, after = prefixes_of(request), after_of(request)
    return await list_response(request, lambda limit: service.store.pages(prefixes, after, limit))


async def list_response(request: Request, pages_of: Callable[[int | None], Pages]) -> Response | Stream:
    """The response of a list. `pages_of`: given the limit, the entries to list; None: all of them."""
    with_values = flag_of(request, "values", default=True)
    limit = limit_of(request)
    if request.media is Media.MESSAGEPACK:
        return await _packed_list(pages_of(limit or MAX_PAGE_ENTRIES), with_values=with_values)
    return Stream(Media.JSON, _json_chunks(pages_of(limit), with_values=with_values))


async def _packed_list(pages: Pages, *, with_values: bool) -> Response:
    """The list as MessagePack, which cannot be streamed, because the length comes first.

    It ends at its limit, or at MAX_GATHERED_BYTES: ten thousand values may be gigabytes.
    """
    found = GatheredList("entries", Media.MESSAGEPACK)
    revision: int | None = None
    next_after: str | None = None
    async with aclosing(pages):
        async for page in pages:
            revision = page.revision if revision is None else revision
            await found.add(map(encoder_of(Media.MESSAGEPACK, with_values=with_values), page.records))
            next_after = page.next_after
            if found.size_bytes > MAX_GATHERED_BYTES:
                break
    assert revision is not None
    return found.response(revision, next_after)


async def _json_chunks(pages: Pages, *, with_values: bool) -> AsyncGenerator[bytes]:
    separator = b'{"entries":[\n'
    revision: int | None = None
    next_after: str | None = None
    async for page in pages:
        # The revision before the first entry was read: the list has every change up to it.
        revision = page.revision if revision is None else revision
        next_after = page.next_after
        for chunk in gathered(b",\n" + text for text in _entry_texts(page, with_values=with_values)):
            yield separator + chunk.removeprefix(b",\n") if separator else chunk
            separator = b""
    assert revision is not None
    yield separator + b"\n]," + _list_end(revision, next_after) + b"\n"


def _entry_texts(page: Page[Entry], *, with_values: bool) -> Iterator[bytes]:
    return map(encoder_of(Media.JSON, with_values=with_values), page.records)


def _list_end(revision: int, next_after: str | None) -> bytes:
    return b'"revision":%d,"next":%b}' % (revision, msgspec.json.encode(next_after))


LIST_PARAMETERS = (PREFIX, AFTER, LIMIT, VALUES)
"""Those of every list of entries."""

ROUTE = Route(
    "GET",
    "/kv",
    AsyncEndpoint(list_entries),
    "List entries in ascending order of their keys, or get several entries by key",
    "read",
    (DocumentedResponse(200, "The entries.", "EntryList"),),
    ("upgrade_required", "too_large"),
    (*LIST_PARAMETERS, KEYS),
)
