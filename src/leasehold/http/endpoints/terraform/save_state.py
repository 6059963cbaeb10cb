"""`POST /terraform/{state}` and `PUT /terraform/{state}`: save a state."""

from collections.abc import Generator
from typing import Final

import msgspec

from leasehold import values
from leasehold.errors import ServiceError
from leasehold.http.endpoints.terraform.state_requests import ID, TTL, lock_id_of, state_key_of
from leasehold.http.media_types import Media, content_type
from leasehold.http.requests import Request
from leasehold.http.responses import Response
from leasehold.http.routing.bodies import JSON_TYPES
from leasehold.http.routing.preconditions import IF_LEASE, refuse_conditions
from leasehold.http.routing.route import DocumentedResponse, PureEndpoint, Route
from leasehold.limits import MAX_STATE_BRACKETS, MAX_STATE_COMMAS
from leasehold.model import Binary, Content, Outcome, SaveState, Written

_MEDIA: Final = "text/plain; charset=utf-8"
"""A state is kept as text. A value of this type can also be written with `PUT /kv/{key}`."""


def save_state(request: Request) -> SaveState:
    key = state_key_of(request)
    refuse_other_conditions(request)
    check_state_head(request)
    if not request.is_body_checked:
        values.check_json_text(request.body, max_brackets=MAX_STATE_BRACKETS, max_commas=MAX_STATE_COMMAS)
    return SaveState(key, Binary(_MEDIA, Content(request.body)), lock_id_of(request))


def state_steps(request: Request) -> Generator[None]:
    """Check a large state in steps."""
    yield from values.check_steps(request.body, max_brackets=MAX_STATE_BRACKETS, max_commas=MAX_STATE_COMMAS)
    request.is_body_checked = True


def show_saved(_request: Request, outcome: Outcome) -> Response:
    assert isinstance(outcome, Written)
    entry = outcome.entry
    return Response(201 if outcome.created else 200, msgspec.json.encode({"version": entry.revision}), entry.revision)


def check_state_head(request: Request) -> None:
    """Raise `unsupported_media_type` for a body that is not JSON."""
    accepted = {"Accept": Media.JSON.content_type}
    if content_type(request.headers, accepted) not in JSON_TYPES:
        raise ServiceError("unsupported_media_type", "send the header Content-Type: application/json", headers=accepted)


def refuse_other_conditions(request: Request) -> None:
    """Raise `invalid_argument` for conditions of other routes. Ignored, they would not protect anything."""
    refuse_conditions(request, "a state is protected by its lock")
    if IF_LEASE in request.headers:
        raise ServiceError("invalid_argument", "If-Lease applies to writes of entries; a state has the parameter ID")


def _route(method: str) -> Route:
    return Route(
        method,
        "/terraform/{state}",
        PureEndpoint(save_state, show_saved),
        "Save a Terraform state; the one before is kept as a version",
        "write",
        (
            DocumentedResponse(200, "Replaced.", "StateSaved", etag=True),
            DocumentedResponse(201, "Created.", "StateSaved", etag=True),
        ),
        ("lease_lost", "lock_held"),
        (ID, TTL),
        {Media.JSON.content_type: "TerraformState"},
        check_head=check_state_head,
        read_body=state_steps,
        body_limit="max_state_bytes",
        takes_basic=True,
    )


ROUTES: Final = (_route("POST"), _route("PUT"))
