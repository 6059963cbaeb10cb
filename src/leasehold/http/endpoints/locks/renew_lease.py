"""`PUT /locks/{name}` and `POST /renew`: renew a lease."""

from typing import Final

from leasehold.errors import ServiceError
from leasehold.http.endpoints.locks.lease_json import lease_json
from leasehold.http.endpoints.locks.lock_requests import (
    BY_UUID,
    IN_PATH,
    LEASE_ID,
    TTL,
    Naming,
    lease_id_of,
    lock_members_of,
    ttl_of,
)
from leasehold.http.requests import Request
from leasehold.http.responses import Response
from leasehold.http.routing.bodies import bodies_of, is_messagepack
from leasehold.http.routing.route import DocumentedResponse, PureEndpoint, Route
from leasehold.model import Leased, Outcome, Renew

MEMBERS: Final = frozenset({"lease_id", "ttl"})


def _renew(naming: Naming) -> PureEndpoint:
    known = sorted(MEMBERS | naming.members)

    def renew(request: Request) -> Renew:
        members = lock_members_of(request, known)
        lock, lease_id = naming.name_of(request, members), lease_id_of(members)
        if lease_id is None:
            raise ServiceError("invalid_argument", "lease_id is missing")
        return Renew(lock, lease_id, ttl_of(members))

    return PureEndpoint(renew, show_renewed)


def show_renewed(_request: Request, outcome: Outcome) -> Response:
    assert isinstance(outcome, Leased)
    return Response(200, lease_json(outcome.lease))


def _route(method: str, pattern: str, naming: Naming, schema: str) -> Route:
    return Route(
        method,
        pattern,
        _renew(naming),
        "Renew a lease: it ends `ttl` seconds from now, and not earlier than before",
        "write",
        (DocumentedResponse(200, "Renewed.", "Lease"),),
        ("lease_lost", "invalid_key"),
        (*naming.parameters, LEASE_ID, TTL),
        bodies_of(schema),
        check_head=is_messagepack,
        needs_body=False,
    )


ROUTE = _route("PUT", "/locks/{name}", IN_PATH, "Renew")
ROUTE_BY_UUID = _route("POST", "/renew", BY_UUID, "RenewByUuid")
