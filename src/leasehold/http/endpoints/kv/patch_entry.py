"""`PATCH /kv/{key}`: change a value by a merge patch (RFC 7396) or a JSON patch (RFC 6902)."""

from collections.abc import Generator

from leasehold import values
from leasehold.errors import ServiceError
from leasehold.http.endpoints.kv.written_entry import show_written
from leasehold.http.media_types import ACCEPT_PATCH, JSON_PATCH, MERGE_PATCH, content_type
from leasehold.http.requests import Request
from leasehold.http.routing.bodies import json_steps, json_value
from leasehold.http.routing.parameters import PREFER, TTL, key_of, ttl_of
from leasehold.http.routing.preconditions import WRITE_CONDITIONS, condition_of, if_lease_of
from leasehold.http.routing.route import DocumentedResponse, PureEndpoint, Route
from leasehold.model import JsonPatch, MergePatch


def patch_entry(request: Request) -> MergePatch | JsonPatch:
    key, ttl, condition, lease_id = key_of(request), ttl_of(request), condition_of(request), if_lease_of(request)
    if patch_type_of(request) == MERGE_PATCH:
        return MergePatch(key, json_value(request), ttl, condition, lease_id)
    if request.patch is None:
        steps = values.parse_json_patch(json_value(request))
    else:
        steps, request.patch = request.patch, None  # as json_value: the request no longer refers to it
    if any(step.op == "test" for step in steps):
        request.principal.require_permission("read")  # the result of `test` shows what is stored
    return JsonPatch(key, steps, ttl, condition, lease_id)


def patch_steps(request: Request) -> Generator[None]:
    """Read the body in steps. A JSON patch can have 20,000 paths, which take as long to parse as the JSON."""
    yield from json_steps(request)
    if patch_type_of(request) == JSON_PATCH:
        yield
        request.patch = yield from values.json_patch_document_steps(json_value(request))


def patch_type_of(request: Request) -> str:
    """MERGE_PATCH or JSON_PATCH. Raises `unsupported_media_type`."""
    sent = content_type(request.headers, ACCEPT_PATCH)
    if sent in (MERGE_PATCH, JSON_PATCH):
        return sent
    raise ServiceError(
        "unsupported_media_type",
        f"send the header Content-Type: {MERGE_PATCH}, or {JSON_PATCH}",
        headers=ACCEPT_PATCH,
    )


ROUTE = Route(
    "PATCH",
    "/kv/{key}",
    PureEndpoint(patch_entry, show_written),
    "Change a value by a merge patch or a JSON patch",
    "write",
    (DocumentedResponse(200, "Changed.", "Written", etag=True),),
    (
        "not_found",
        "conflict",
        "precondition_failed",
        "too_large",
        "unsupported_media_type",
        "patch_failed",
        "storage_full",
    ),
    (TTL, *WRITE_CONDITIONS, PREFER),
    {MERGE_PATCH: "Value", JSON_PATCH: "JsonPatch"},
    check_head=patch_type_of,
    read_body=patch_steps,
)
