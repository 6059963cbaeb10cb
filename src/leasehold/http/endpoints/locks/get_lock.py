"""`GET /locks/{name}`: the current lease of a lock, and how many clients wait for the lock."""

from leasehold.http.endpoints.locks.lease_json import lock_json
from leasehold.http.requests import Request
from leasehold.http.responses import Response
from leasehold.http.routing.parameters import key_of
from leasehold.http.routing.route import AsyncEndpoint, DocumentedResponse, Route, Service
from leasehold.rules import lock_not_found


async def get_lock(request: Request, service: Service) -> Response:
    lock = key_of(request)
    request.principal.require_covered(lock)
    lease = await service.store.lease(lock)
    if lease is None:
        raise lock_not_found()
    return Response(200, lock_json(lease, service.store.waiting_for(lock)))


ROUTE = Route(
    "GET",
    "/locks/{name}",
    AsyncEndpoint(get_lock),
    "Get the current lease of a lock, and the number of clients that wait for it at this server",
    "read",
    (DocumentedResponse(200, "The lock is held.", "Lock"),),
    ("lock_not_found",),
)
