"""`DELETE /kv?prefix=…`: delete all entries whose keys begin with a prefix, in steps."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing

import msgspec

from leasehold.errors import ErrorDetail, ServiceError
from leasehold.http.requests import Request
from leasehold.http.responses import Response
from leasehold.http.routing.idempotency import key_of, keyed, replay
from leasehold.http.routing.parameters import PREFIX, prefix_of
from leasehold.http.routing.preconditions import FENCE, if_lease_of, refuse_conditions
from leasehold.http.routing.route import AsyncEndpoint, DocumentedResponse, Route, Service
from leasehold.model import Delete, Deleted, DeletedEntries, DeleteEach, Keyed, Outcome, Replayed
from leasehold.store.store import Store

LastStep = Callable[[tuple[str, ...], DeletedEntries], Keyed]
"""Makes the operation that deletes the last page, from its keys and what was deleted before."""


async def delete_entries(request: Request, service: Service) -> Response:
    """Delete in steps, so that other requests are answered meanwhile. An error says how many were deleted before it."""
    refuse_conditions(request, "entries with a prefix have no common ETag")
    prefix, lease_id, key = prefix_of(request), if_lease_of(request), key_of(request)
    if not prefix:
        raise ServiceError("invalid_argument", "prefix is missing or empty; a store is not emptied by mistake")
    request.principal.require_covered(prefix)
    store = service.store
    if key is None:
        return _response(prefix, await _delete_all(store, prefix, lease_id))

    def last_step(keys: tuple[str, ...], so_far: DeletedEntries) -> Keyed:
        step = DeleteEach(keys, so_far.deleted, so_far.revision, lease_id)
        return keyed(request, key, step, service.limits.idempotency_seconds)

    outcome = await store.fetch_recalled(last_step((), DeletedEntries(0, 0))) or await _delete_all(
        store, prefix, lease_id, last_step
    )
    if isinstance(outcome, Replayed):
        return replay(_response(prefix, outcome.outcome), service.metrics)
    return _response(prefix, outcome)


async def _delete_all(
    store: Store, prefix: str, lease_id: str | None, last_step: LastStep | None = None
) -> DeletedEntries | Replayed:
    """Delete page by page. With `last_step`, it deletes the last page, and its receipt is in the same commit."""
    deleted, revision = 0, store.space.revision
    last_keys: tuple[str, ...] = ()
    async with aclosing(store.pages((prefix,), None, None)) as pages:
        async for page in pages:
            keys: Sequence[str] = [entry.key for entry in page.records]
            if last_step is not None and keys:
                keys, last_keys = last_keys, tuple(keys)
            elif last_step is not None:
                keys = ()
            outcomes = await _delete(store, keys, lease_id)
            done = [outcome.revision for outcome in outcomes if isinstance(outcome, Deleted)]
            deleted += len(done)
            revision = max(revision, page.revision, *done) if done else max(revision, page.revision)
            for outcome in outcomes:
                if isinstance(outcome, ServiceError) and outcome.code != "not_found":  # deleted by another request
                    raise _broken_off(outcome, deleted)
    so_far = DeletedEntries(deleted, revision)
    if last_step is None:
        return so_far
    try:
        # Also without keys: an equal request may have deleted all of them meanwhile.
        last = await store.change(last_step(last_keys, so_far))
    except ServiceError as error:
        raise _broken_off(error, deleted) from error
    assert isinstance(last, DeletedEntries | Replayed)
    return last


def _response(prefix: str, outcome: Outcome) -> Response:
    assert isinstance(outcome, DeletedEntries)
    body = {"prefix": prefix, "deleted": outcome.deleted, "revision": outcome.revision}
    return Response(200, msgspec.json.encode(body))


async def _delete(store: Store, keys: Sequence[str], lease_id: str | None) -> Sequence[object]:
    """Delete these entries together. Returns an outcome or a ServiceError for each."""
    deletions = (store.change(Delete(key, lease_id=lease_id)) for key in keys)
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
