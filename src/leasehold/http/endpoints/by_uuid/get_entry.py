"""`GET /get/{uuid}`: an entry by UUID, parts of its value, or the value alone; with `wait` as for `/kv`."""

from typing import Final

from msgspec.structs import replace

from leasehold.http.endpoints.kv.get_entry import ERRORS, PARAMETERS, RESPONSES, read_of, show_entry, waiting
from leasehold.http.requests import Request
from leasehold.http.routing.parameters import uuid_of
from leasehold.http.routing.route import PureEndpoint, Route
from leasehold.model import Read


def read_entry(request: Request) -> Read:
    return read_of(request, uuid_of(request))


_ROUTE: Final = Route(
    "GET",
    "/get/{uuid}",
    PureEndpoint(read_entry, show_entry),
    "Get an entry by UUID, parts of its value, or the value alone",
    "read",
    RESPONSES,
    ERRORS,
    PARAMETERS,
    serves_bytes=True,
)
ROUTE: Final = replace(_ROUTE, waiting=replace(_ROUTE, endpoint=waiting(read_entry)))
