"""`GET /get`: the entries whose keys are UUIDs, in the order of their keys; or how many there are."""

from typing import Final

from leasehold.http.endpoints.kv.list_entries import LIST_ERRORS, LIST_PARAMETERS, LIST_RESPONSES, list_response
from leasehold.http.endpoints.kv.shown_parts import shown_parts_of
from leasehold.http.requests import Request
from leasehold.http.responses import Response, Stream
from leasehold.http.routing.parameters import UUID, prefixes_of
from leasehold.http.routing.route import AsyncEndpoint, Route, Service
from leasehold.model import Entry
from leasehold.values.steps import Steps

_FIRST_DIGITS: Final = tuple("0123456789abcdef")


async def list_entries(request: Request, service: Service) -> Response | Stream:
    prefixes, shown_part = prefixes_of(request), shown_parts_of(request)
    if prefixes == ("",):
        prefixes = _FIRST_DIGITS

    def shown(entry: Entry) -> Entry | Steps[Entry | None] | None:
        if not UUID.fullmatch(entry.key):
            return None
        return entry if shown_part is None else shown_part(entry)

    return await list_response(request, service, prefixes, shown)


ROUTE = Route(
    "GET",
    "/get",
    AsyncEndpoint(list_entries),
    "List or count the entries whose keys are UUIDs in the order of their keys",
    "read",
    LIST_RESPONSES,
    LIST_ERRORS,
    LIST_PARAMETERS,
)
