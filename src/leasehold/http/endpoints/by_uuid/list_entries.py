"""`GET /get`: the entries whose keys are UUIDs, in ascending order."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

from leasehold.http.endpoints.kv.list_entries import LIST_PARAMETERS, Pages, list_response
from leasehold.http.messages import Request, Response, Stream
from leasehold.http.routing.parameters import UUID, after_of, prefixes_of
from leasehold.http.routing.route import AsyncEndpoint, DocumentedResponse, Route, Service
from leasehold.model import Page

_FIRST_DIGITS: Final = tuple("0123456789abcdef")


async def list_entries(request: Request, service: Service) -> Response | Stream:
    prefixes, after = prefixes_of(request), after_of(request)
    if prefixes == ("",):
        prefixes = _FIRST_DIGITS
    return await list_response(request, lambda limit: _uuid_pages(service, prefixes, after, limit))


async def _uuid_pages(service: Service, prefixes: Sequence[str], after: str | None, limit: int | None) -> Pages:
    """Like `Store.pages`, without the entries whose keys are not UUIDs."""
    left = limit
    last: str | None = None
    async with aclosing(service.store.pages(prefixes, after, None)) as pages:
        async for page in pages:
            records = [entry for entry in page.records if UUID.fullmatch(entry.key)]
            if left is not None and len(records) > left:
                records = records[:left]
                yield Page(records, page.revision, records[-1].key if records else last)
                return
            if records:
                last = records[-1].key
                left = None if left is None else left - len(records)
            yield Page(records, page.revision, page.next_after)
            if not records:
                await asyncio.sleep(0)  # an empty page sends nothing, so only this lets the event loop go on


ROUTE = Route(
    "GET",
    "/get",
    AsyncEndpoint(list_entries),
    "List the entries whose keys are UUIDs in ascending order",
    "read",
    (DocumentedResponse(200, "The entries.", "EntryList"),),
    ("upgrade_required",),
    LIST_PARAMETERS,
)
