"""`GET /ns`: the namespaces that the caller may use, in pages, in ascending order of their names."""

from collections.abc import Sequence
from typing import Final

import msgspec

from leasehold.errors import ServiceError
from leasehold.http.endpoints.namespaces.management import require_all_keys, shown
from leasehold.http.requests import Request
from leasehold.http.responses import Response
from leasehold.http.routing.parameters import AFTER, LIMIT, after_of, limit_of
from leasehold.http.routing.route import AsyncEndpoint, DocumentedResponse, Route, Service
from leasehold.model import Namespace
from leasehold.store.stores import Stores

USUAL_LIMIT: Final = 1_000


async def list_namespaces(request: Request, service: Service) -> Response:
    require_all_keys(request.principal)
    limit, after = limit_of(request) or USUAL_LIMIT, after_of(request)
    named = request.principal.namespaces
    if named is None:
        found = await service.stores.namespaces(after, limit + 1)
    else:
        found = await _those_named(service.stores, sorted(name for name in named if name > (after or "")), limit + 1)
    page = found[:limit]
    body = {"namespaces": list(map(shown, page)), "next": page[-1].name if len(found) > limit else None}
    return Response(200, msgspec.json.encode(body))


async def _those_named(stores: Stores, names: Sequence[str], most: int) -> Sequence[Namespace]:
    """The first of the namespaces that a token names, those that exist."""
    found: list[Namespace] = []
    for name in names:
        if len(found) == most:
            break
        try:
            found.append(await stores.namespace(name))
        except ServiceError as error:
            if error.code != "no_such_namespace":
                raise
    return found


ROUTE = Route(
    "GET",
    "/ns",
    AsyncEndpoint(list_namespaces),
    "List the namespaces in ascending order of their names",
    "admin",
    (DocumentedResponse(200, "The namespaces.", "NamespaceList"),),
    (),
    (AFTER, LIMIT),
    scope="server",
)
