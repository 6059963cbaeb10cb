"""`UNLOCK /terraform/{state}` and `DELETE /terraform/{state}/lock`: release the lock of a state.

The body is the lock info, or an object with its ID. Without a body the lease of any holder is ended: this is what
`terraform force-unlock` sends. It needs the permission `admin`.
"""

from typing import Final

import msgspec
import structlog

from leasehold.http.endpoints.terraform.state_requests import TTL, lock_info_of, state_key_of
from leasehold.http.requests import Request
from leasehold.http.responses import Response
from leasehold.http.routing.bodies import bodies_of, is_messagepack
from leasehold.http.routing.refusal_log import printable
from leasehold.http.routing.route import DocumentedResponse, PureEndpoint, Route
from leasehold.model import Outcome, Released, UnlockState

log = structlog.get_logger(__name__)


def unlock_state(request: Request) -> UnlockState:
    key, caller = state_key_of(request), request.principal
    is_admin = "admin" in caller.permissions
    if request.body:
        return UnlockState(key, str(lock_info_of(request)["ID"]), caller.subject, is_admin)
    caller.require_permission("admin")
    caller.require_covered(key)
    # Logged before it is done, because the client may be gone when it is durable.
    log.warning(
        "a state is unlocked by force", lock=printable(key), sub=printable(caller.subject), **request.log_fields
    )
    return UnlockState(key, None, caller.subject, is_admin)


def show_unlocked(_request: Request, outcome: Outcome) -> Response:
    """200 in any case: Terraform takes every other status for a failure, also when it repeats the request."""
    return Response(200, msgspec.json.encode({"unlocked": isinstance(outcome, Released)}))


def _route(method: str, pattern: str) -> Route:
    return Route(
        method,
        pattern,
        PureEndpoint(unlock_state, show_unlocked),
        "Unlock a Terraform state; without a body by force. UNLOCK /terraform/{state} does the same",
        "write",
        (DocumentedResponse(200, "The state is not locked (any more).", "StateUnlocked"),),
        ("lease_lost",),
        (TTL,),
        bodies_of("LockInfo"),
        check_head=is_messagepack,
        needs_body=False,
        body_limit="max_state_bytes",
        takes_basic=True,
    )


ROUTES: Final = (_route("DELETE", "/terraform/{state}/lock"), _route("UNLOCK", "/terraform/{state}"))
