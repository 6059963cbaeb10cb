"""`POST /set`: create or replace a value by UUID, or a part of it. Key, path and ttl are members of the body."""

from typing import Final
from uuid import uuid4

from leasehold import values
from leasehold.errors import ServiceError
from leasehold.http.endpoints.kv.written_entry import written_response
from leasehold.http.requests import Request
from leasehold.http.responses import Response
from leasehold.http.routing.bodies import bodies_of, body_value, is_messagepack, members_of, value_steps
from leasehold.http.routing.parameters import PREFER, entry_ttl, parse_uuid
from leasehold.http.routing.preconditions import WRITE_CONDITIONS, condition_of, if_lease_of
from leasehold.http.routing.route import DocumentedResponse, PureEndpoint, Route
from leasehold.model import Json, Outcome, Pointer, Put, Written

MEMBERS: Final = ("key", "value", "path", "ttl")


def set_entry(request: Request) -> Put:
    body = members_of(body_value(request), MEMBERS)
    if "value" not in body:
        raise ServiceError("invalid_argument", '"value" is missing', details={"member": "value"})
    key = parse_uuid(body["key"]) if body.get("key") is not None else str(uuid4())
    return Put(
        key,
        values.encode(body["value"]),
        _path_in(body.get("path")),
        entry_ttl(body.get("ttl")),
        condition_of(request),
        if_lease_of(request),
    )


def _path_in(path: Json) -> Pointer | None:
    """A path in a body: a JSON Pointer, or a list of its segments. Raises `invalid_path`."""
    if path is None:
        return None
    if isinstance(path, str):
        return values.parse_pointer(path)
    if isinstance(path, list) and all(type(segment) in (str, int) for segment in path):
        return values.parse_pointer(values.format_pointer(tuple(str(segment) for segment in path)))
    raise ServiceError("invalid_path", "path is a JSON Pointer or a list of its segments")


def show_set(request: Request, outcome: Outcome) -> Response:
    assert isinstance(outcome, Written)
    namespace = request.path.removesuffix(b"/set").decode("ascii")  # as the client has written it, or nothing
    location = f"{namespace}/get/{outcome.entry.key}" if outcome.created else None
    return written_response(request, outcome, location=location)


ROUTE = Route(
    "POST",
    "/set",
    PureEndpoint(set_entry, show_set),
    "Create or replace a value by UUID, or a part of it",
    "write",
    (
        DocumentedResponse(201, "Created.", "Written", etag=True, headers=("Location",)),
        DocumentedResponse(200, "Replaced.", "Written", etag=True),
    ),
    ("invalid_key", "invalid_path", "path_not_found", "conflict", "precondition_failed", "too_large"),
    (*WRITE_CONDITIONS, PREFER),
    bodies_of("Set"),
    check_head=is_messagepack,
    read_body=value_steps,
)
