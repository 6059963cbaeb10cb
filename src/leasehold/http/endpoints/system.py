"""Endpoints of the service itself: health, figures and its own description."""

import msgspec

from leasehold import VERSION
from leasehold.http.messages import Request, Response
from leasehold.http.negotiation import Media
from leasehold.http.routing.routes import Answer, AsyncEndpoint, Route, Service


async def health(_request: Request, service: Service) -> Response:
    """200 while writes can be made durable, else 503 with `degraded`."""
    store = service.store
    fault = service.store.fault
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
    """The process answers; nothing else is looked at."""
    return Response(200, b'{"status":"ok"}')


async def openapi(_request: Request, service: Service) -> Response:
    return Response(200, service.openapi)


async def metrics(_request: Request, service: Service) -> Response:
    """Figures of the whole service, whichever worker is asked."""
    return Response(200, service.metrics.text(service.gauges()))


_HEALTHY = Answer(200, "Writes can be made durable.", "Health")
_DEGRADED = Answer(503, "Reads work, writes cannot be made durable at present.", "Health")

ROUTES = (
    Route("GET", "/health", AsyncEndpoint(health), "State of the service", None, (_HEALTHY, _DEGRADED)),
    Route("GET", "/health/ready", AsyncEndpoint(health), "Whether to send requests here", None, (_HEALTHY, _DEGRADED)),
    Route(
        "GET",
        "/health/live",
        AsyncEndpoint(live),
        "Whether the process answers",
        None,
        (Answer(200, "It does.", "Live"),),
    ),
    Route(
        "GET",
        "/metrics",
        AsyncEndpoint(metrics),
        "Figures for Prometheus",
        "read",
        (Answer(200, "Prometheus' text format.", "Text"),),
        offers=(Media.PROMETHEUS,),
    ),
    Route(
        "GET",
        "/openapi.json",
        AsyncEndpoint(openapi),
        "This description",
        None,
        (Answer(200, "OpenAPI 3.1.", "OpenApi"),),
    ),
)
