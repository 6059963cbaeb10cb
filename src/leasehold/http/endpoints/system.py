"""`/health`, `/metrics` and `/openapi.json`: the state of the service and its description."""

from collections.abc import Awaitable, Callable

import msgspec

from leasehold import VERSION
from leasehold.http.media_types import Media
from leasehold.http.requests import Request
from leasehold.http.responses import Response
from leasehold.http.routing.route import AsyncEndpoint, DocumentedResponse, Route, Service
from leasehold.store.namespace_gauges import gauges_of_namespaces


async def health(_request: Request, service: Service) -> Response:
    """200 if writes can be made durable in every namespace, otherwise 503 with the status `degraded` and the error."""
    store = service.store
    fault = service.stores.fault
    body = {
        "status": "ok" if fault is None else "degraded",
        "store": store.engine.name,
        "revision": store.space.revision,
        "incarnation": store.space.incarnation,
        "uptime_s": round(service.uptime_seconds(), 3),
        "version": VERSION,
    }
    if fault is None:
        return Response(200, msgspec.json.encode(body))
    body["error"] = fault.code
    body["message"] = fault.message
    return Response(503, msgspec.json.encode(body), headers=(("Retry-After", "1"),))


async def live(_request: Request, _service: Service) -> Response:
    """200 whenever the process runs. The store is not checked."""
    return Response(200, b'{"status":"ok"}')


async def openapi(_request: Request, service: Service) -> Response:
    return Response(200, service.openapi)


async def metrics(request: Request, service: Service) -> Response:
    """Metrics of the whole service; all workers give the same. The token is shown only its own namespaces."""
    namespaces = await gauges_of_namespaces(service.stores, request.principal.may_use)
    return Response(200, service.metrics.text(service.gauges(), namespaces))


def _route(
    path: str, endpoint: Callable[[Request, Service], Awaitable[Response]], summary: str, *responses: DocumentedResponse
) -> Route:
    """A route that needs no token."""
    return Route("GET", path, AsyncEndpoint(endpoint), summary, None, responses, scope="server")


_HEALTHY = DocumentedResponse(200, "Writes can be made durable.", "Health")
_DEGRADED = DocumentedResponse(503, "Reads work. Writes cannot be made durable now.", "Health")

ROUTES = (
    _route("/health", health, "The state of the service", _HEALTHY, _DEGRADED),
    _route("/health/ready", health, "Whether the service is ready for requests", _HEALTHY, _DEGRADED),
    _route("/health/live", live, "Whether the process runs", DocumentedResponse(200, "The process runs.", "Live")),
    Route(
        "GET",
        "/metrics",
        AsyncEndpoint(metrics),
        "Metrics for Prometheus",
        "read",
        (DocumentedResponse(200, "In the text format of Prometheus.", "Text"),),
        offers=(Media.PROMETHEUS,),
        scope="server",
    ),
    _route("/openapi.json", openapi, "The description of this API", DocumentedResponse(200, "OpenAPI 3.1.", "OpenApi")),
)
