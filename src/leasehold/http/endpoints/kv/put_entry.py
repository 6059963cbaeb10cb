"""`POST /kv/{key}` and `PUT /kv/{key}`: create or replace a value, or a part of it; `POST` also adds to a number."""

from leasehold.errors import ServiceError
from leasehold.http.endpoints.kv.written_entry import show_written
from leasehold.http.messages import Request
from leasehold.http.routing.bodies import amount_of, bodies_of, body_text, body_value, is_messagepack
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


def put_entry(request: Request) -> Put | Increment:
    if is_key_only(request):
        return Put(key_of(request), body_text(request))
    path = path_of(request)
    if path and path[-1] == "-" and request.method == "PUT":
        # A proxy may repeat a PUT whose response was lost (RFC 9110, section 9.2.2). That would append twice.
        raise ServiceError("invalid_argument", "PUT cannot append; use POST for a path that ends in -")
    ttl, condition, lease_id = ttl_of(request), condition_of(request), if_lease_of(request)
    if flag_of(request, INCREMENT.name, default=False):
        return Increment(key_of(request), amount_of(body_value(request)), path or (), ttl, condition, lease_id)
    return Put(key_of(request), body_text(request), path, ttl, condition, lease_id)


_PUT = PureEndpoint(put_entry, show_written)


def _route(method: str, *more: Parameter) -> Route:
    return Route(
        method,
        "/kv/{key}",
        _PUT,
        "Create or replace a value, or a part of it",
        "write",
        (
            DocumentedResponse(201, "Created.", "Written", etag=True, headers=("Location",)),
            DocumentedResponse(200, "Replaced.", "Written", etag=True),
        ),
        ("path_not_found", "conflict", "precondition_failed", "too_large", "unsupported_media_type", "storage_full"),
        (PATH, TTL, *more, *WRITE_CONDITIONS, PREFER),
        bodies_of("Value"),
        check_head=is_messagepack,
    )


ROUTES = (_route("POST", INCREMENT), _route("PUT"))  # a proxy may repeat a PUT, and that would add twice
