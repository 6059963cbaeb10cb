"""`GET /locks`: the locks that are held, in pages, in ascending order of their names."""

import asyncio
from typing import Final

from leasehold import values
from leasehold.http.endpoints.locks.lease_json import lock_json
from leasehold.http.pieces import GatheredList
from leasehold.http.requests import Request
from leasehold.http.responses import Response
from leasehold.http.routing.parameters import AFTER, LIMIT, PREFIX, after_of, limit_of, prefixes_of
from leasehold.http.routing.route import AsyncEndpoint, DocumentedResponse, Route, Service
from leasehold.limits import MAX_GATHERED_BYTES, MAX_PAGE_ENTRIES

LOCKS_AT_ONCE: Final = 256
"""How many locks are looked up before the event loop goes on."""


async def list_locks(request: Request, service: Service) -> Response:
    """A page in one piece. It is not streamed: only few locks are held at a time."""
    store, prefixes, after = service.store, prefixes_of(request), after_of(request)
    left = limit_of(request) or MAX_PAGE_ENTRIES
    found = GatheredList("locks", request.media, store.turn)
    revision: int | None = None
    async with store.gathering:
        while True:
            page = await store.lease_page(prefixes, after, min(left, LOCKS_AT_ONCE))
            revision = page.revision if revision is None else revision
            texts = (lock_json(lease, store.waiting_for(lease.lock)) for lease in page.records)
            await found.add(map(values.to_messagepack, texts) if found.is_packed else texts)
            left -= len(page.records)
            after = page.next_after
            if after is None or not left or found.size_bytes > MAX_GATHERED_BYTES:
                return found.response(revision, after)
            await asyncio.sleep(0)


ROUTE = Route(
    "GET",
    "/locks",
    AsyncEndpoint(list_locks),
    "List the locks that are held in ascending order of their names",
    "read",
    (DocumentedResponse(200, "The locks.", "LockList"),),
    (),
    (PREFIX, AFTER, LIMIT),
)
