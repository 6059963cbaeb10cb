"""`GET /kv`: entries in the order of their keys, streamed as JSON or as a page of MessagePack; or their number."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final

import msgspec

from leasehold.errors import ErrorCode
from leasehold.http.endpoints.kv.listed_entry import Encoder, encoder_of
from leasehold.http.endpoints.kv.several_entries import several_entries
from leasehold.http.endpoints.kv.shown_parts import Pages, Shown, shown_pages, shown_parts_of
from leasehold.http.media_types import Media
from leasehold.http.pieces import GatheredList, gathered
from leasehold.http.requests import Request
from leasehold.http.responses import Response, Stream
from leasehold.http.routing.parameters import (
    AFTER,
    BASE64,
    COUNT,
    KEYS,
    LIMIT,
    LIST_PATHS,
    PREFIX,
    REVERSE,
    VALUES,
    after_of,
    flag_of,
    limit_of,
    prefixes_of,
)
from leasehold.http.routing.route import AsyncEndpoint, DocumentedResponse, Route, Service
from leasehold.limits import MAX_COUNTED_ENTRIES, MAX_GATHERED_BYTES, MAX_PAGE_ENTRIES
from leasehold.model import Counted
from leasehold.store.store import Store


async def list_entries(request: Request, service: Service) -> Response | Stream:
    if "key" in request.query:
        return await several_entries(request, service)
    return await list_response(request, service, prefixes_of(request), shown_parts_of(request))


async def list_response(
    request: Request, service: Service, prefixes: Sequence[str], shown: Shown | None
) -> Response | Stream:
    """The list of the entries with these prefixes, or how many there are. `shown`: what is shown of each; None: all."""
    listing = _Listing(service.store, prefixes, after_of(request), flag_of(request, REVERSE.name, default=False), shown)
    limit = limit_of(request)
    if flag_of(request, COUNT.name, default=False):
        counted = await listing.count(limit)
        next_after = None if counted.is_complete else counted.last
        return Response(200, b'{"count":%d,' % counted.count + _list_end(counted.revision, next_after))
    with_values = flag_of(request, "values", default=True)
    paths = request.query.get("path", ())
    encoder = encoder_of(
        request.media,
        with_values=with_values,
        path=paths[0] if len(paths) == 1 else None,
        with_base64=flag_of(request, BASE64.name, default=False),
    )
    if request.media is Media.MESSAGEPACK:
        return await _packed_list(service, listing.pages(limit or MAX_PAGE_ENTRIES), encoder)
    return Stream(Media.JSON, _json_chunks(service, listing.pages(limit), encoder))


class _Listing(msgspec.Struct, frozen=True):
    """What a request lists. It continues behind `after`."""

    store: Store
    prefixes: Sequence[str]
    after: str | None
    is_reversed: bool
    shown: Shown | None

    def pages(self, limit: int | None) -> Pages:
        """The entries as they are shown, at most `limit`."""
        if self.shown is None:
            return self.store.pages(self.prefixes, self.after, limit, is_reversed=self.is_reversed)
        pages = self.store.pages(self.prefixes, self.after, None, is_reversed=self.is_reversed)
        return shown_pages(pages, self.shown, limit, self.store.turn)

    async def count(self, limit: int | None) -> Counted:
        """How many entries the list has, but at most `limit`."""
        if self.shown is None:
            limit = limit or MAX_COUNTED_ENTRIES
            return await self.store.count(self.prefixes, self.after, limit, is_reversed=self.is_reversed)
        count = 0
        revision: int | None = None
        last: str | None = None
        async with aclosing(self.pages(limit)) as pages:
            async for page in pages:
                revision = page.revision if revision is None else revision
                count += len(page.records)
                last = page.next_after
        assert revision is not None
        return Counted(count, revision, last, is_complete=last is None)


async def _packed_list(service: Service, pages: Pages, encoder: Encoder) -> Response:
    """The list as MessagePack, which cannot be streamed, because the length comes first.

    It ends at its limit, or at MAX_GATHERED_BYTES: ten thousand values may be gigabytes.
    """
    found = GatheredList("entries", Media.MESSAGEPACK, service.store.turn)
    revision: int | None = None
    next_after: str | None = None
    async with service.store.gathering, aclosing(pages):
        async for page in pages:
            revision = page.revision if revision is None else revision
            added = await found.add(map(encoder, page.records), until_bytes=MAX_GATHERED_BYTES)
            is_whole = added == len(page.records)
            next_after = page.next_after if is_whole else page.records[added - 1].key
            if found.size_bytes > MAX_GATHERED_BYTES:
                break
    assert revision is not None
    return found.response(revision, next_after)


async def _json_chunks(service: Service, pages: Pages, encoder: Encoder) -> AsyncGenerator[bytes]:
    separator = b'{"entries":[\n'
    revision: int | None = None
    next_after: str | None = None
    async for page in pages:
        # The revision before the first entry was read: the list has every change up to it.
        revision = page.revision if revision is None else revision
        next_after = page.next_after
        entries = map(encoder, page.records)
        async with aclosing(gathered(entries, service.store.turn, before=b",\n")) as chunks:
            async for chunk in chunks:
                yield separator + chunk.removeprefix(b",\n") if separator else chunk
                separator = b""
    assert revision is not None
    yield separator + b"\n]," + _list_end(revision, next_after) + b"\n"


def _list_end(revision: int, next_after: str | None) -> bytes:
    return b'"revision":%d,"next":%b}' % (revision, msgspec.json.encode(next_after))


LIST_PARAMETERS = (PREFIX, AFTER, LIMIT, REVERSE, COUNT, LIST_PATHS, VALUES, BASE64)
"""Those of every list of entries."""
LIST_RESPONSES = (DocumentedResponse(200, "The entries, or how many there are.", "EntryListOrCount"),)
LIST_ERRORS: Final[tuple[ErrorCode, ...]] = ("invalid_path", "too_large", "upgrade_required")

ROUTE = Route(
    "GET",
    "/kv",
    AsyncEndpoint(list_entries),
    "List or count entries in the order of their keys, or get several entries by key",
    "read",
    LIST_RESPONSES,
    LIST_ERRORS,
    (*LIST_PARAMETERS, KEYS),
)
