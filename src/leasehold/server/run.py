"""The composition root: settings → engine → store → connections → listener, then wait for the stop.

    access.py        who may use the service, and warnings about what outsiders can reach
    config.py        settings from flags and environment
    interpreter.py   thread switching and garbage collection
    listening.py     the socket
    log.py           the log
    span_export.py   spans for OpenTelemetry; imported only if they are exported
    stopping.py      what stops the service
    workers.py       several of these servers on one port

To add a part, create it in `serve` and push what closes it onto the exit stack; parts close in reverse order.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import structlog
import uvloop
from msgspec.structs import replace

from leasehold.engines import open_engine
from leasehold.http.endpoints import routes
from leasehold.http.media_types import parse_binary_types
from leasehold.http.routing.admission import Admission
from leasehold.http.routing.openapi import openapi
from leasehold.http.routing.route import Service
from leasehold.http.routing.router import Router
from leasehold.http.wire.connections import Connections, RecordSpan
from leasehold.limits import SHUTDOWN_REST_SECONDS
from leasehold.metrics import Metrics
from leasehold.process.descriptors import connections_within, raise_limit
from leasehold.process.huge_pages import HugePages
from leasehold.process.memory_trim import give_back_memory, return_large_blocks
from leasehold.process.shutdown import Deadline
from leasehold.process.signal_mask import ignore_ends
from leasehold.progress import reported
from leasehold.server.access import admission_for, warn_of_exposure
from leasehold.server.config import Settings
from leasehold.server.interpreter import freeze_loaded_objects, shorten_switch_interval
from leasehold.server.listening import bind, listen
from leasehold.server.log import log_unhandled
from leasehold.server.stopping import stop_event
from leasehold.store.stores import Stores

log = structlog.get_logger(__name__)

Ready = Callable[[str, int], None]
"""Called with the host and port once requests are accepted."""


def run(settings: Settings, ready: Ready, *, lifeline: int | None = None, metrics_folder: Path | None = None) -> None:
    """Serve until SIGTERM or SIGINT, or until the other end of the pipe `lifeline` is closed.

    `metrics_folder`: where the workers exchange their metrics; None for a single process. Raises ServiceError if the
    service cannot start.
    """
    return_large_blocks()
    shorten_switch_interval()
    deadline = Deadline(settings.limits.shutdown_timeout_seconds + SHUTDOWN_REST_SECONDS)
    try:
        uvloop.run(serve(settings, ready, lifeline, metrics_folder, deadline))
    finally:
        deadline.cancel()


async def serve(
    settings: Settings, ready: Ready, lifeline: int | None, metrics_folder: Path | None, deadline: Deadline
) -> None:
    """Start the parts of one server in order, wait for the stop, and close them in reverse order."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    settings, most_refused = _fit_to_descriptors(settings)
    stop = stop_event(loop, deadline, lifeline)
    loop.set_exception_handler(log_unhandled)

    async with AsyncExitStack() as stack:
        stack.callback(ignore_ends)
        # Bind before the store is loaded, so that a port in use is reported at once. Listening starts last.
        listening = bind(settings.host, settings.port, shared=settings.workers > 1)
        stack.callback(listening.close)
        address = listening.getsockname()[0]
        admission = admission_for(settings, address)
        if lifeline is None:  # the supervisor warns once for all its workers
            warn_of_exposure(settings, address)

        # Before the store, so that the store is closed first.
        record_span = _open_span_export(stack) if settings.exports_spans else None
        metrics = Metrics(metrics_folder)
        stores = Stores(open_engine(settings.store), settings.limits, metrics)
        if not await _open_unless_stopped(stores, stop):
            return
        stack.push_async_callback(stores.close)

        connections = _connections(settings, stores, admission, metrics, started, most_refused, record_span)
        sweeper = loop.create_task(connections.keep_deadlines())
        stack.callback(sweeper.cancel)

        freeze_loaded_objects()
        give_back_memory()  # what reading the store has freed
        huge_pages = HugePages()
        huge_pages.start()
        stack.callback(huge_pages.stop)
        server = await listen(listening, connections, settings)
        host, port = listening.getsockname()[:2]
        log.info("ready", host=host, port=port, store=stores.engine.name, revision=stores.default.space.revision)
        ready(host, port)
        await stop.wait()

        log.info("stopping", connections=len(connections))
        server.close()
        stores.stop_waiting()
        with reported("waiting for requests in progress", lambda: {"connections": len(connections)}):
            cut = await connections.drain(settings.limits.shutdown_timeout_seconds)
        if cut:
            log.warning("connections cut", count=cut)
    log.info("stopped")


def _fit_to_descriptors(settings: Settings) -> tuple[Settings, int]:
    """Lower `max_connections` to what the limit of open files allows.

    Returns the settings, and how many connections over that limit can still be answered with a refusal.
    """
    wanted = settings.limits.max_connections
    descriptors = raise_limit(wanted)
    served, refused = connections_within(descriptors, wanted)
    if served < wanted:
        log.warning("max_connections is lowered to fit the limit of open files", to=served, open_files=descriptors)
        settings = replace(settings, limits=replace(settings.limits, max_connections=served))
    return settings, refused


async def _open_unless_stopped(stores: Stores, stop: asyncio.Event) -> bool:
    """Open the store of the namespace `default`. Returns False if the service is stopped before the store is open."""
    opening = asyncio.create_task(stores.start())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((opening, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not opening.done():
        opening.cancel()
    try:
        await opening
    except asyncio.CancelledError:
        log.info("stopped before the store was open")
        return False
    return True


def _open_span_export(stack: AsyncExitStack) -> RecordSpan | None:
    """Begin to export spans. None if the extra is not installed: the variables may be meant for other programs."""
    try:
        from leasehold.server.span_export import SpanExport  # OpenTelemetry is an extra
    except ModuleNotFoundError:
        log.warning("no spans are exported: OpenTelemetry is missing; install '.[otel]' from a clone of Leasehold")
        return None
    export = SpanExport()
    stack.push_async_callback(export.close)
    return export.record


def _connections(
    settings: Settings,
    stores: Stores,
    admission: Admission,
    metrics: Metrics,
    started: float,
    most_refused: int,
    record_span: RecordSpan | None,
) -> Connections:
    """The HTTP side: the routes, what their endpoints use, and the connections. `started`: by the loop's clock."""
    loop = asyncio.get_running_loop()

    def gauges() -> Mapping[str, float]:
        return connections.gauges()

    router = Router(routes(parse_binary_types(settings.binary_types)))
    service = Service(
        stores.default,
        settings.limits,
        uptime_seconds=lambda: loop.time() - started,
        openapi=openapi(router),
        metrics=metrics,
        gauges=gauges,
        stores=stores,
    )
    connections = Connections(
        router,
        admission,
        service,
        logs_requests=settings.log_level == "debug",
        most_refused=most_refused,
        record_span=record_span,
    )
    return connections
