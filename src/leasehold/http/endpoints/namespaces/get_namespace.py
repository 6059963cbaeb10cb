"""`GET /ns/{namespace}`: what a namespace holds, and its quota."""

import msgspec

from leasehold.http.endpoints.namespaces.management import managed_namespace, shown
from leasehold.http.requests import Request
from leasehold.http.responses import Response
from leasehold.http.routing.route import AsyncEndpoint, DocumentedResponse, Route, Service


async def get_namespace(request: Request, service: Service) -> Response:
    namespace = await service.stores.namespace(managed_namespace(request))
    return Response(200, msgspec.json.encode(shown(namespace)))


ROUTE = Route(
    "GET",
    "/ns/{namespace}",
    AsyncEndpoint(get_namespace),
    "Show what a namespace holds, and its quota",
    "admin",
    (DocumentedResponse(200, "The namespace.", "NamespaceDescription"),),
    ("no_such_namespace",),
    scope="server",
)
