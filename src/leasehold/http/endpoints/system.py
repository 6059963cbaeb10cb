"""`/health`, `/metrics` and `/openapi.json`: the state of the service and its description."""

import msgspec

from leasehold import VERSION
from leasehold.http.media_types import Media
from leasehold.http.requests import Request
from leasehold.http.responses import Response
from leasehold.http.routing.route import AsyncEndpoint, DocumentedResponse, Route, Service


async def health(_request: Request, service: Service) -> Response:
    """200 if writes can be made durable, otherwise 503 with the status `degraded` and the error."""
    store = service.store
    fault = store.fault
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


async def metrics(_request: Request, service: Service) -> Response:
    """Metrics of the whole service; all workers give the same."""
    return Response(200, service.metrics.text(service.gauges()))


_HEALTHY = DocumentedResponse(200, "Writes can be made durable.", "Health")
_DEGRADED = DocumentedResponse(503, "Reads work. Writes cannot be made durable now.", "Health")

ROUTES = (
    Route("GET", "/health", AsyncEndpoint(health), "The state of the service", None, (_HEALTHY, _DEGRADED)),
    Route(
        "GET",
        "/health/ready",
        AsyncEndpoint(health),
        "Whether the service is ready for requests",
        None,
        (_HEALTHY, _DEGRADED),
    ),
    Route(
        "GET",
        "/health/live",
        AsyncEndpoint(live),
        "Whether the process runs",
        None,
        (DocumentedResponse(200, "The process runs.", "Live"),),
    ),
    Route(
        "GET",
        "/metrics",
        AsyncEndpoint(metrics),
        "Metrics for Prometheus",
        "read",
        (DocumentedResponse(200, "In the text format of Prometheus.", "Text"),),
        offers=(Media.PROMETHEUS,),
    ),
    Route(
        "GET",
        "/openapi.json",
        AsyncEndpoint(openapi),
        "The description of this API",
        None,
        (DocumentedResponse(200, "OpenAPI 3.1.", "OpenApi"),),
    ),
)
