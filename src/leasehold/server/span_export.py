"""Spans of OpenTelemetry, for requests whose `traceparent` says that the trace is recorded.

This is the only module that imports OpenTelemetry, which the extra `leasehold[otel]` installs. The SDK reads its own
settings from the environment (`OTEL_EXPORTER_OTLP_…`, `OTEL_SERVICE_NAME`, `OTEL_BSP_…`). A thread of the SDK sends the
spans to the collector. Spans that it cannot send are lost: no request waits for it, and its queue is bounded.

The attributes are those of the conventions for HTTP servers:
https://opentelemetry.io/docs/specs/semconv/http/http-spans
"""

import asyncio
import logging
import threading
from contextlib import suppress
from time import monotonic, perf_counter, time_ns
from typing import Final

import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from leasehold import VERSION
from leasehold.errors import ServiceError
from leasehold.http.requests import Request
from leasehold.metrics import KNOWN_METHODS, NO_ROUTE, OTHER_METHOD
from leasehold.namespaces import DEFAULT_NAMESPACE
from leasehold.trace_context import TraceContext

log = structlog.get_logger(__name__)

END_SECONDS: Final = 3.0
"""How long a shutdown waits until the last spans are sent."""
LOG_PERIOD_SECONDS: Final = 60.0
_SECOND: Final = 1_000_000_000
_SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.23.0"
"""The version in which the conventions for HTTP became stable."""


class SpanExport:
    """Records spans and sends them. Create it in the process that serves: it starts a thread.

    Raises `invalid_argument` for a wrong setting of the SDK.
    """

    def __init__(self) -> None:
        _log_what_the_sdk_says()
        own = Resource.create({SERVICE_NAME: "leasehold", SERVICE_VERSION: VERSION})
        resource = own.merge(OTELResourceDetector().detect())  # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES
        # The caller has decided whether the trace is sampled.
        self._provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
        try:
            self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        except ValueError as error:
            message = "a variable OTEL_EXPORTER_OTLP_… or OTEL_BSP_… has a value that OpenTelemetry does not accept"
            raise ServiceError("invalid_argument", message) from error
        self._tracer = self._provider.get_tracer("leasehold", VERSION, schema_url=_SCHEMA_URL)

    def record(self, request: Request, trace: TraceContext, status: int, started_at: float, client: str) -> None:
        """Record the span of an answered request. `started_at`: by `perf_counter`. `client`: the peer's address."""
        ended_at_ns = time_ns()
        duration_ns = int((perf_counter() - started_at) * _SECOND)
        method = request.method if request.method in KNOWN_METHODS else OTHER_METHOD
        name = method if method != OTHER_METHOD else "HTTP"
        attributes: dict[str, str | int | list[str]] = {
            "http.request.method": method,
            "http.response.status_code": status,
            "http.response.header.x-request-id": [request.request_id.decode("ascii")],
            "network.protocol.version": request.version,
            "url.path": request.path.decode("ascii", "backslashreplace"),
            "url.scheme": "http",
        }
        if request.pattern != NO_ROUTE:
            attributes["http.route"] = request.pattern
            name = f"{name} {request.pattern}"
        if request.namespace != DEFAULT_NAMESPACE:
            attributes["leasehold.namespace"] = request.namespace
        if method == OTHER_METHOD:
            attributes["http.request.method_original"] = request.method
        if client:
            attributes["client.address"] = attributes["network.peer.address"] = client
        if b"user-agent" in request.headers:
            attributes["user_agent.original"] = request.headers[b"user-agent"].decode("ascii", "backslashreplace")
        is_failure = status >= 500
        if is_failure:
            attributes["error.type"] = str(status)
        span = self._tracer.start_span(
            name,
            context=_parent(trace, request.headers.get(b"tracestate", b"")),
            kind=SpanKind.SERVER,
            attributes=attributes,
            start_time=ended_at_ns - duration_ns,
        )
        if is_failure:
            span.set_status(Status(StatusCode.ERROR))
        span.end(ended_at_ns)

    async def close(self) -> None:
        """Send the last spans, for at most END_SECONDS."""
        loop, closed = asyncio.get_running_loop(), asyncio.Event()

        def close() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # the loop is closed: END_SECONDS are over
                loop.call_soon_threadsafe(closed.set)

        # Not in an executor of the event loop, because its end waits for its threads.
        threading.Thread(target=close, name="leasehold-last-spans", daemon=True).start()
        try:
            async with asyncio.timeout(END_SECONDS):
                await closed.wait()
        except TimeoutError:
            log.warning("the last spans were not sent in time")


def _parent(trace: TraceContext, tracestate: bytes) -> Context:
    """The span of the caller."""
    caller = SpanContext(
        int(trace.trace_id, 16),
        int(trace.parent_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(trace.flags),
        trace_state=TraceState.from_header([tracestate.decode("latin-1")]),
    )
    return set_span_in_context(NonRecordingSpan(caller), Context())


class _LogHandler(logging.Handler):
    """Writes what the SDK logs to the log of the service: each message once in LOG_PERIOD_SECONDS.

    While the collector cannot be reached, the SDK logs each attempt.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._last: dict[str, float] = {}
        """When each message was last written, by its text without arguments."""

    def emit(self, record: logging.LogRecord) -> None:
        now = monotonic()
        if now - self._last.get(record.msg, -LOG_PERIOD_SECONDS) >= LOG_PERIOD_SECONDS:
            self._last[record.msg] = now
            log.warning("OpenTelemetry reports a fault", reason=record.getMessage())


def _log_what_the_sdk_says() -> None:
    """It says when spans are dropped, and when the collector cannot be reached."""
    sdk = logging.getLogger("opentelemetry")
    sdk.propagate = False
    sdk.handlers = [_LogHandler()]
