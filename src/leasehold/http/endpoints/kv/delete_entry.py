"""`DELETE /kv/{key}`: delete an entry, or a part of its value."""

import msgspec

from leasehold.errors import ServiceError
from leasehold.http.requests import Request
from leasehold.http.responses import Response
from leasehold.http.routing.parameters import PATH, TTL, key_of, path_of, ttl_of
from leasehold.http.routing.preconditions import WRITE_CONDITIONS, condition_of, if_lease_of
from leasehold.http.routing.route import DocumentedResponse, PureEndpoint, Route
from leasehold.model import Delete, Deleted, Outcome, Written


def delete_entry(request: Request) -> Delete:
    path, ttl = path_of(request), ttl_of(request)
    if ttl is not None and not path:
        raise ServiceError("invalid_argument", "ttl is allowed only with path here; without path the entry is deleted")
    return Delete(key_of(request), path, ttl, condition_of(request), if_lease_of(request))


def show_deleted(request: Request, outcome: Outcome) -> Response:
    if isinstance(outcome, Deleted):
        return Response(200, _deleted_json(request, outcome.key, outcome.revision))
    assert isinstance(outcome, Written)  # a part was deleted, and the entry is still there
    entry = outcome.entry
    return Response(200, _deleted_json(request, entry.key, entry.revision), entry.revision)


def _deleted_json(request: Request, key: str, revision: int) -> bytes:
    """`{"key":…,"path":…,"deleted":true,"revision":…}`; `path` if the request has one."""
    body: dict[str, str | int | bool] = {"key": key}
    path = request.query.get("path")
    if path is not None:
        body["path"] = path[0]
    return msgspec.json.encode(body | {"deleted": True, "revision": revision})


ROUTE = Route(
    "DELETE",
    "/kv/{key}",
    PureEndpoint(delete_entry, show_deleted),
    "Delete an entry, or a part of its value",
    "write",
    (DocumentedResponse(200, "Deleted.", "Deleted"),),
    ("not_found", "path_not_found", "conflict", "precondition_failed", "precondition_required", "storage_full"),
    (PATH, TTL, *WRITE_CONDITIONS),
)
