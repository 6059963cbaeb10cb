"""`PUT /ns/{namespace}`: create a namespace, or change its quota."""

import msgspec

from leasehold.errors import ServiceError
from leasehold.http.endpoints.namespaces.management import managed_namespace, shown
from leasehold.http.requests import Request
from leasehold.http.responses import Response
from leasehold.http.routing.bodies import bodies_of, body_value, is_messagepack, members_of
from leasehold.http.routing.route import AsyncEndpoint, DocumentedResponse, Route, Service
from leasehold.limits import MAX_QUOTA
from leasehold.model import Json, QuotaChange


async def put_namespace(request: Request, service: Service) -> Response:
    """A member that the body lacks keeps its value, so the request can be repeated to be sure that it exists."""
    name = managed_namespace(request)
    namespace, is_new = await service.stores.create(name, _change_of(request))
    body = msgspec.json.encode(shown(namespace))
    return Response(201, body, headers=(("Location", f"/ns/{name}"),)) if is_new else Response(200, body)


def _change_of(request: Request) -> QuotaChange:
    if not request.body:
        return QuotaChange()
    members = members_of(body_value(request), QuotaChange.__struct_fields__)
    return QuotaChange(**{name: _limit_of(name, sent) for name, sent in members.items()})


def _limit_of(name: str, sent: Json) -> int | None:
    if sent is None or (isinstance(sent, int) and not isinstance(sent, bool) and 0 <= sent <= MAX_QUOTA):
        return sent
    raise ServiceError("invalid_argument", f"{name} is an integer, 0 to {MAX_QUOTA}, or null", details={"member": name})


ROUTE = Route(
    "PUT",
    "/ns/{namespace}",
    AsyncEndpoint(put_namespace),
    "Create a namespace, or change its quota",
    "admin",
    (
        DocumentedResponse(200, "It existed.", "NamespaceDescription"),
        DocumentedResponse(201, "It was created.", "NamespaceDescription", headers=("Location",)),
    ),
    ("storage_full",),
    bodies=bodies_of("Quota"),
    needs_body=False,
    check_head=is_messagepack,
    scope="server",
)
