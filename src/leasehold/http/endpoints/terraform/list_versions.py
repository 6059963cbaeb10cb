"""`GET /terraform/{state}/versions`: the versions of a state that are kept, the current one first."""

from contextlib import aclosing

import msgspec

from leasehold.errors import not_found
from leasehold.http.endpoints.terraform.state_requests import TTL, state_key_of
from leasehold.http.requests import Request
from leasehold.http.responses import Response
from leasehold.http.routing.route import AsyncEndpoint, DocumentedResponse, Route, Service
from leasehold.model import Entry
from leasehold.rules.terraform import earlier_versions, is_state, version_of, versions_key


async def list_versions(request: Request, service: Service) -> Response:
    key = state_key_of(request)
    request.principal.require_covered(key)
    entries: dict[str, Entry] = {}
    async with aclosing(service.store.entries([key, versions_key(key)])) as pages:
        async for page in pages:
            entries |= {entry.key: entry for entry in page.records}
    versions = earlier_versions(entries.get(versions_key(key)))
    current = entries.get(key)
    if current is not None and is_state(current):
        versions.append(version_of(current))
    if not versions:
        raise not_found()
    return Response(200, msgspec.json.encode({"versions": versions[::-1]}))


ROUTE = Route(
    "GET",
    "/terraform/{state}/versions",
    AsyncEndpoint(list_versions),
    "List the versions of a Terraform state that are kept, the latest one first",
    "read",
    (DocumentedResponse(200, "The versions.", "StateVersions"),),
    ("not_found",),
    (TTL,),
    body_limit="max_state_bytes",
    takes_basic=True,
)
