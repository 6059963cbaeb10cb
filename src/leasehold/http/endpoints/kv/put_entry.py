"""`POST /kv/{key}` and `PUT /kv/{key}`: create or replace a value, or a part of it; `POST` also adds to a number."""

from collections.abc import Sequence
from functools import partial

from leasehold.errors import ServiceError
from leasehold.http.endpoints.kv.written_entry import show_written
from leasehold.http.requests import Request
from leasehold.http.routing.bodies import (
    amount_of,
    bodies_of,
    body_of_entry,
    body_value,
    check_entry_head,
    entry_steps,
)
from leasehold.http.routing.parameters import (
    INCREMENT,
    PATH,
    PREFER,
    TTL,
    flag_of,
    is_key_only,
    key_of,
    path_of,
    ttl_of,
)
from leasehold.http.routing.preconditions import WRITE_CONDITIONS, condition_of, if_lease_of
from leasehold.http.routing.route import DocumentedResponse, Parameter, PureEndpoint, Route
from leasehold.model import Increment, Put


def put_entry(binary_types: Sequence[str], request: Request) -> Put | Increment:
    if is_key_only(request):
        return Put(key_of(request), body_of_entry(request, binary_types))
    path = path_of(request)
    if path and path[-1] == "-" and request.method == "PUT":
        # A proxy may repeat a PUT whose response was lost (RFC 9110, section 9.2.2). That would append twice.
        raise ServiceError("invalid_argument", "PUT cannot append; use POST for a path that ends in -")
    ttl, condition, lease_id = ttl_of(request), condition_of(request), if_lease_of(request)
    if flag_of(request, INCREMENT.name, default=False):
        return Increment(key_of(request), amount_of(body_value(request)), path or (), ttl, condition, lease_id)
    return Put(key_of(request), body_of_entry(request, binary_types), path, ttl, condition, lease_id)


def routes(binary_types: Sequence[str]) -> tuple[Route, ...]:
    """`binary_types`: see `media_types.binary_type`."""
    # A proxy may repeat a PUT, and that would add twice.
    return (_route("POST", binary_types, INCREMENT), _route("PUT", binary_types))


def _route(method: str, binary_types: Sequence[str], *more: Parameter) -> Route:
    return Route(
        method,
        "/kv/{key}",
        PureEndpoint(partial(put_entry, binary_types), show_written),
        "Create or replace a value, or a part of it",
        "write",
        (
            DocumentedResponse(201, "Created.", "Written", etag=True, headers=("Location",)),
            DocumentedResponse(200, "Replaced.", "Written", etag=True),
        ),
        ("path_not_found", "conflict", "precondition_failed", "too_large", "unsupported_media_type", "storage_full"),
        (PATH, TTL, *more, *WRITE_CONDITIONS, PREFER),
        {**bodies_of("Value"), **dict.fromkeys(binary_types, "Bytes")},
        check_head=partial(check_entry_head, binary_types),
        read_body=partial(entry_steps, binary_types),
    )
