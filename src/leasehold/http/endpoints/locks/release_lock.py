"""`DELETE /locks/{name}` and `DELETE /unlock`: release a lock, or end the lease of another holder by force."""

from typing import Final

import msgspec
import structlog

from leasehold.errors import ServiceError
from leasehold.http.endpoints.locks.lock_requests import (
    BY_UUID,
    IN_PATH,
    LEASE_ID,
    Members,
    Naming,
    lease_id_of,
    lock_members_of,
)
from leasehold.http.requests import Request
from leasehold.http.responses import Response
from leasehold.http.routing.bodies import bodies_of, is_messagepack
from leasehold.http.routing.refusal_log import printable
from leasehold.http.routing.route import DocumentedResponse, Parameter, PureEndpoint, Route
from leasehold.model import Outcome, Release, Released

log = structlog.get_logger(__name__)

MEMBERS: Final = frozenset({"lease_id", "token", "force"})


def _release(naming: Naming) -> PureEndpoint:
    known = sorted(MEMBERS | naming.members)

    def release(request: Request) -> Release:
        members = lock_members_of(request, known)
        lock = naming.name_of(request, members)
        lease_id, token = lease_id_of(members), _token_of(members)
        has_lease = lease_id is not None or token is not None
        if _is_forced(members):
            return _forced_release(request, lock, has_lease=has_lease)
        if not has_lease:
            raise ServiceError("invalid_argument", "lease_id is missing; send it, or the token of a lease of your own")
        return Release(lock, lease_id, request.principal.subject, token)

    return PureEndpoint(release, show_released)


def _forced_release(request: Request, lock: str, *, has_lease: bool) -> Release:
    """End the current lease, whichever it is. Needs the permission `admin`.

    It is logged before it is done, because the client may be gone when it is durable.
    """
    if has_lease:
        raise ServiceError("invalid_argument", "force ends the current lease; send no lease_id and no token with it")
    request.principal.require_permission("admin")
    request.principal.require_covered(lock)
    log.warning(
        "a lease is ended by force",
        lock=printable(lock),
        sub=printable(request.principal.subject),
        **request.log_fields,
    )
    return Release(lock, is_forced=True)


def _token_of(members: Members) -> int | None:
    sent = members.get("token")
    if sent is None or (isinstance(sent, int) and not isinstance(sent, bool)):
        return sent
    raise ServiceError("invalid_argument", "token is an integer")


def _is_forced(members: Members) -> bool:
    sent = members.get("force")
    if sent is None or isinstance(sent, bool):
        return bool(sent)
    raise ServiceError("invalid_argument", "force is true or false")


def show_released(_request: Request, outcome: Outcome) -> Response:
    assert isinstance(outcome, Released)
    body = {"lock": outcome.lock, "released": True, "revision": outcome.revision}
    return Response(200, msgspec.json.encode(body))


_TOKEN: Final = Parameter(
    "token",
    "The token of a lease that the caller acquired, instead of its lease_id.",
    {"type": "integer", "minimum": 1},
)
_FORCE: Final = Parameter(
    "force", "End the current lease, whichever it is. Needs the permission `admin`.", {"type": "boolean"}
)


def _route(pattern: str, naming: Naming, schema: str) -> Route:
    return Route(
        "DELETE",
        pattern,
        _release(naming),
        "Release a lock",
        "write",
        (DocumentedResponse(200, "Released.", "Released"),),
        ("lock_not_found", "lease_lost", "invalid_key"),
        (*naming.parameters, LEASE_ID, _TOKEN, _FORCE),
        bodies_of(schema),
        check_head=is_messagepack,
        needs_body=False,
    )


ROUTE = _route("/locks/{name}", IN_PATH, "Release")
ROUTE_BY_UUID = _route("/unlock", BY_UUID, "ReleaseByUuid")
