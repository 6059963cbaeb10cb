"""`LOCK /terraform/{state}` and `POST /terraform/{state}/lock`: acquire the lock of a state.

It does not wait: Terraform repeats the request, for as long as its option `-lock-timeout` says.
"""

import secrets
from typing import Final

from leasehold import values
from leasehold.http.endpoints.locks.acquire_lock import LEASE_ID_BYTES
from leasehold.http.endpoints.locks.lease_json import holder_json
from leasehold.http.endpoints.terraform.state_requests import TTL, lock_info_of, lock_microseconds_of, state_key_of
from leasehold.http.requests import Request
from leasehold.http.responses import Response
from leasehold.http.routing.bodies import bodies_of, is_messagepack
from leasehold.http.routing.route import DocumentedResponse, PureEndpoint, Route
from leasehold.model import Acquire, Leased, LockState, Outcome


def lock_state(request: Request) -> LockState:
    key, lock_info = state_key_of(request), lock_info_of(request)
    acquisition = Acquire(
        key,
        secrets.token_hex(LEASE_ID_BYTES),
        lock_microseconds_of(request),
        values.encode(dict(lock_info)),
        request.principal.subject,
    )
    return LockState(key, str(lock_info["ID"]), acquisition)


def show_locked(_request: Request, outcome: Outcome) -> Response:
    assert isinstance(outcome, Leased)
    return Response(200, holder_json(outcome.lease))


def _route(method: str, pattern: str) -> Route:
    return Route(
        method,
        pattern,
        PureEndpoint(lock_state, show_locked),
        "Lock a Terraform state. LOCK /terraform/{state} does the same",
        "write",
        (DocumentedResponse(200, "Locked, or locked already by the same request.", "StateLock"),),
        ("lock_held",),
        (TTL,),
        bodies_of("LockInfo"),
        check_head=is_messagepack,
        body_limit="max_state_bytes",
        takes_basic=True,
    )


ROUTES: Final = (_route("POST", "/terraform/{state}/lock"), _route("LOCK", "/terraform/{state}"))
