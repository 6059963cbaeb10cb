"""`DELETE /kv?prefix=…`: delete all entries whose keys begin with a prefix, in steps."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

import msgspec

from leasehold.errors import ErrorDetail, ServiceError
from leasehold.http.messages import Request, Response
from leasehold.http.routing.parameters import PREFIX, prefix_of
from leasehold.http.routing.preconditions import FENCE, if_lease_of, refuse_conditions
from leasehold.http.routing.route import AsyncEndpoint, DocumentedResponse, Route, Service
from leasehold.model import Delete, Deleted, Entry
from leasehold.store.store import Store


async def delete_entries(request: Request, service: Service) -> Response:
    """Delete in steps, so that other requests are answered meanwhile. An error says how many were deleted before it."""
    refuse_conditions(request, "entries with a prefix have no common ETag")
    prefix, lease_id = prefix_of(request), if_lease_of(request)
    if not prefix:
        raise ServiceError("invalid_argument", "prefix is missing or empty; a store is not emptied by mistake")
    request.principal.require_covered(prefix)
    deleted, revision = 0, service.store.space.revision
    async with aclosing(service.store.pages((prefix,), None, None)) as pages:
        async for page in pages:
            outcomes = await _delete(service.store, page.records, lease_id)
            done = [outcome.revision for outcome in outcomes if isinstance(outcome, Deleted)]
            deleted += len(done)
            revision = max(revision, page.revision, *done) if done else max(revision, page.revision)
            for outcome in outcomes:
                if isinstance(outcome, ServiceError) and outcome.code != "not_found":  # deleted by another request
                    raise _broken_off(outcome, deleted)
    return Response(200, msgspec.json.encode({"prefix": prefix, "deleted": deleted, "revision": revision}))


async def _delete(store: Store, entries: Sequence[Entry], lease_id: str | None) -> Sequence[object]:
    """Delete these entries together. Returns an outcome or a ServiceError for each."""
    deletions = (store.change(Delete(entry.key, lease_id=lease_id)) for entry in entries)
    return await asyncio.gather(*deletions, return_exceptions=True)


def _broken_off(error: ServiceError, deleted: int) -> ServiceError:
    details: dict[str, ErrorDetail] = {**error.details, "deleted": deleted}
    return ServiceError(
        error.code,
        error.message,
        details=details,
        headers=error.headers,
        status=error.status,
        is_outcome_unknown=error.is_outcome_unknown,
    )


ROUTE = Route(
    "DELETE",
    "/kv",
    AsyncEndpoint(delete_entries),
    "Delete all entries whose keys begin with a prefix",
    "write",
    (DocumentedResponse(200, "How many were deleted.", "DeletedEntries"),),
    ("precondition_failed", "storage_full"),
    (msgspec.structs.replace(PREFIX, schema={"type": "string", "minLength": 1}, required=True), FENCE),
)
