"""`POST /locks/{name}` and `POST /lock`: acquire a lock; if it is held, wait for it in order of arrival."""

import secrets
from typing import Final

from leasehold import values
from leasehold.errors import ServiceError
from leasehold.http.endpoints.locks.lease_json import lease_json
from leasehold.http.endpoints.locks.lock_requests import BY_UUID, IN_PATH, TTL, Members, Naming, lock_members_of, ttl_of
from leasehold.http.requests import Request
from leasehold.http.responses import Response
from leasehold.http.routing.bodies import bodies_of, is_messagepack
from leasehold.http.routing.parameters import microseconds_of
from leasehold.http.routing.route import AcquireEndpoint, DocumentedResponse, Parameter, Route
from leasehold.limits import DEFAULT_LEASE_SECONDS, DEFAULT_WAIT_SECONDS, MAX_OWNER_BYTES, MAX_WAIT_SECONDS
from leasehold.model import Acquire, Leased, Outcome

MEMBERS: Final = frozenset({"ttl", "wait", "owner"})
LEASE_ID_BYTES: Final = 16
_SECOND: Final = 1_000_000


def _acquire(naming: Naming) -> AcquireEndpoint:
    known = sorted(MEMBERS | naming.members)

    def acquire(request: Request) -> tuple[Acquire, float]:
        members = lock_members_of(request, known)
        lock = naming.name_of(request, members)
        ttl = ttl_of(members)
        operation = Acquire(
            lock,
            secrets.token_hex(LEASE_ID_BYTES),
            round(DEFAULT_LEASE_SECONDS * _SECOND) if ttl is None else ttl,
            _owner_of(members),
            request.principal.subject,
        )
        return operation, _wait_seconds_of(members)

    return AcquireEndpoint(acquire, show_acquired)


def show_acquired(_request: Request, outcome: Outcome) -> Response:
    assert isinstance(outcome, Leased)
    return Response(201, lease_json(outcome.lease))


def _wait_seconds_of(members: Members) -> float:
    sent = members.get("wait")
    if sent is None:
        return DEFAULT_WAIT_SECONDS
    return microseconds_of(sent, name="wait", minimum=0, maximum=MAX_WAIT_SECONDS) / _SECOND


def _owner_of(members: Members) -> bytes:
    """JSON text. Raises `invalid_argument` if it is too large."""
    owner = values.encode(members.get("owner"))
    if len(owner) > MAX_OWNER_BYTES:
        raise ServiceError("invalid_argument", "owner is too large", details={"limit": MAX_OWNER_BYTES})
    return owner


_WAIT: Final = Parameter(
    "wait",
    f"The maximum number of seconds to wait for the lock; {DEFAULT_WAIT_SECONDS:g} by default.",
    {"type": "number", "minimum": 0, "maximum": MAX_WAIT_SECONDS},
)
_OWNER: Final = Parameter(
    "owner", "A text that identifies the holder to others. In the body it may be any JSON value.", {"type": "string"}
)


def _route(pattern: str, naming: Naming, schema: str) -> Route:
    return Route(
        "POST",
        pattern,
        _acquire(naming),
        "Acquire a lock; if it is held, wait for it in order of arrival",
        "write",
        (DocumentedResponse(201, "Acquired.", "Lease"),),
        ("lock_held", "too_many_requests", "storage_full", "invalid_key"),
        (*naming.parameters, TTL, _WAIT, _OWNER),
        bodies_of(schema),
        check_head=is_messagepack,
        needs_body=False,
    )


ROUTE = _route("/locks/{name}", IN_PATH, "Acquire")
ROUTE_BY_UUID = _route("/lock", BY_UUID, "AcquireByUuid")
