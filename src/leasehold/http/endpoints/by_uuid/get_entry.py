"""`GET /get/{uuid}`: an entry by UUID, parts of its value, or the value alone."""

from leasehold.http.endpoints.kv.get_entry import show_entry
from leasehold.http.messages import Request
from leasehold.http.routing.parameters import PATHS, RAW, paths_of, raw_tag, uuid_of
from leasehold.http.routing.preconditions import CONDITIONS, condition_of
from leasehold.http.routing.route import DocumentedResponse, PureEndpoint, Route
from leasehold.model import Read


def read_entry(request: Request) -> Read:
    tag = raw_tag(request) + request.media.tag
    return Read(uuid_of(request), paths_of(request), condition_of(request, tag=tag))


ROUTE = Route(
    "GET",
    "/get/{uuid}",
    PureEndpoint(read_entry, show_entry),
    "Get an entry by UUID, parts of its value, or the value alone",
    "read",
    (
        DocumentedResponse(200, "The entry; with `raw`, its value.", "EntryOrValue", etag=True),
        DocumentedResponse(304, "The client already has this revision.", None, etag=True),
    ),
    ("not_found", "path_not_found", "precondition_failed", "too_large"),
    (PATHS, RAW, *CONDITIONS),
)
