"""`DELETE /ns/{namespace}`: delete a namespace with all its entries, locks and history."""

import msgspec

from leasehold.http.endpoints.namespaces.management import managed_namespace
from leasehold.http.requests import Request
from leasehold.http.responses import Response
from leasehold.http.routing.route import AsyncEndpoint, DocumentedResponse, Route, Service


async def delete_namespace(request: Request, service: Service) -> Response:
    name = managed_namespace(request)
    revision = await service.stores.delete(name)
    return Response(200, msgspec.json.encode({"namespace": name, "deleted": True, "revision": revision}))


ROUTE = Route(
    "DELETE",
    "/ns/{namespace}",
    AsyncEndpoint(delete_namespace),
    "Delete a namespace with all that it has",
    "admin",
    (DocumentedResponse(200, "Deleted.", "NamespaceDeleted"),),
    ("no_such_namespace", "storage_full"),
    scope="server",
)
