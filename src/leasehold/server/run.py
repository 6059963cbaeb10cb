"""The composition root: settings → engine → store → listener; signals; the log.

`run` is given its settings and a `ready` callback, and returns when a signal has ended the service in good order.
"""

import asyncio
import gc
import io
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from ipaddress import ip_address
from pathlib import Path
from types import FrameType
from typing import TextIO, cast

import structlog
import uvloop
from msgspec.structs import replace

from leasehold.access.hosts import parse_allowed_hosts, parse_allowed_origins
from leasehold.access.token_keys import VerificationKey, is_exposed, public_key, secret_key
from leasehold.access.token_verification import Verifier
from leasehold.completions import report
from leasehold.engines import open_engine
from leasehold.errors import ServiceError, unavailable
from leasehold.http.endpoints import ROUTES
from leasehold.http.routing.admission import Admission
from leasehold.http.routing.openapi import openapi
from leasehold.http.routing.router import Router
from leasehold.http.routing.routes import Service
from leasehold.http.wire.connection import Connection
from leasehold.http.wire.connections import Connections
from leasehold.limits import KIB, SHUTDOWN_REST_SECONDS
from leasehold.metrics import Metrics
from leasehold.process.descriptors import connections_within, raise_limit
from leasehold.process.shutdown import Deadline
from leasehold.process.signals import ENDS, ignore_ends, take_ends
from leasehold.process.streams import STANDARD_ERROR
from leasehold.server.config import Settings
from leasehold.store.store import Store

log = structlog.get_logger(__name__)

Ready = Callable[[str, int], None]
"""Called with the host and port once requests are accepted."""
Notify = Callable[[], None]

BACKLOG = 4_096
UNSENT_BYTES = 16 * KIB
"""What the system takes of an answer ahead of its sending. By itself it takes megabytes, of each client that asks for
much and does not read: work that holds up the others, and memory."""
COLLECTOR_THRESHOLDS = (1_000, 1, 200)
"""Everybody waits while the collector walks. What is new it walks in small steps, of less than 1 ms: a load makes no
more objects than it lets go, but each connection has a dozen. All there is, which takes 20 ms with thousands of
connections, it walks seldom: hardly anything refers to itself here."""
SWITCH_INTERVAL_SECONDS = 0.0002
"""A sync thread that ends while the loop computes waits so long for the interpreter, not the usual 5 ms."""


def run(settings: Settings, ready: Ready, *, lifeline: int | None = None, metrics_folder: Path | None = None) -> None:
    """Serve until SIGTERM or SIGINT, or until the other end of the pipe `lifeline` is closed.

    `metrics_folder`: where workers leave their figures for one another. Raises ServiceError when the service cannot
    start.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    deadline = Deadline(settings.limits.shutdown_timeout_seconds + SHUTDOWN_REST_SECONDS)
    try:
        uvloop.run(serve(settings, ready, lifeline, metrics_folder, deadline))
    finally:
        deadline.cancel()


async def serve(
    settings: Settings, ready: Ready, lifeline: int | None, metrics_folder: Path | None, deadline: Deadline
) -> None:
    """The life of one server, in the order of its parts; they are let go in the reverse order."""
    settings, most_refused = _with_room(settings, raise_limit(settings.limits.max_connections))
    loop = asyncio.get_running_loop()
    started = loop.time()
    stop = asyncio.Event()

    def end() -> None:
        deadline.begin()
        stop.set()

    def end_from_signal(_number: int, _frame: FrameType | None) -> None:
        deadline.begin()
        loop.call_soon_threadsafe(stop.set)

    for number in ENDS:
        # Not by the loop, which may be what hangs: so the deadline begins all the same.
        signal.signal(number, end_from_signal)
    take_ends()
    loop.set_exception_handler(_report_unhandled)
    if lifeline is not None:
        loop.add_reader(lifeline, _end_once, loop, lifeline, end)

    async with AsyncExitStack() as stack:
        stack.callback(ignore_ends)
        # Bound before anything is loaded, so that a port in use is told at once. Listening comes later.
        listening = bind(settings.host, settings.port, shared=settings.workers > 1)
        stack.callback(listening.close)
        admission = _admission(settings, listening.getsockname()[0])
        if lifeline is None:  # of workers, the supervisor says it once
            warn_of_exposure(settings, listening.getsockname()[0])

        metrics = Metrics(metrics_folder)
        store = Store(open_engine(settings.store), settings.limits, metrics)
        if not await _opened(store, stop):
            return
        stack.push_async_callback(store.close)

        def gauges() -> Mapping[str, float]:
            return connections.gauges()

        router = Router(ROUTES)
        service = Service(
            store,
            settings.limits,
            uptime_seconds=lambda: loop.time() - started,
            openapi=openapi(router),
            metrics=metrics,
            gauges=gauges,
        )
        connections = Connections(
            router, admission, service, logs_requests=settings.log_level == "debug", most_refused=most_refused
        )
        sweeper = loop.create_task(connections.keep_deadlines())
        stack.callback(sweeper.cancel)

        # What was loaded stays; the collector need not walk it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECTOR_THRESHOLDS)

        try:
            server = await loop.create_server(lambda: Connection(connections), sock=listening, backlog=BACKLOG)
        except OSError as error:  # another process bound to the same port in the same moment
            raise _cannot_listen(settings.host, settings.port, error) from error
        host, port = listening.getsockname()[:2]
        log.info("ready", host=host, port=port, store=store.engine.name, revision=store.space.revision)
        ready(host, port)
        await stop.wait()

        log.info("stopping", connections=len(connections))
        server.close()
        store.stop_waiting()
        cut = await connections.drain(settings.limits.shutdown_timeout_seconds)
        if cut:
            log.warning("connections cut", count=cut)
    log.info("stopped")


async def _opened(store: Store, stop: asyncio.Event) -> bool:
    """Open the store; False if the service is told to stop before it is open."""
    opening = asyncio.create_task(store.open())
    told = asyncio.create_task(stop.wait())
    await asyncio.wait((opening, told), return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if not opening.done():
        opening.cancel()
    try:
        await opening
    except asyncio.CancelledError:
        log.info("stopped before the store was open")
        return False
    return True


def _end_once(loop: asyncio.AbstractEventLoop, lifeline: int, end: Callable[[], None]) -> None:
    """The end of a pipe is told again and again as long as it is watched."""
    loop.remove_reader(lifeline)
    end()


def _report_unhandled(_loop: asyncio.AbstractEventLoop, context: Mapping[str, object]) -> None:
    """An exception that came back to the event loop, in the service's own log. Nothing waits for what raised it."""
    failure = context.get("exception")
    if isinstance(failure, BaseException):
        report("something failed that nothing waits for", failure, reason=context["message"])
    else:
        log.error("the event loop has found a fault", reason=context["message"])


def bind(host: str, port: int, *, shared: bool) -> socket.socket:
    """A socket bound to an address, not listening yet. `shared`: other processes may bind to it too."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # Linux and macOS; connections inherit it
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        listening.bind(address)
    except (OSError, UnicodeError) as error:
        raise _cannot_listen(host, port, error) from error
    listening.setblocking(False)  # noqa: FBT003 - the method's name says what
    return listening


def _cannot_listen(host: str, port: int, error: OSError | UnicodeError) -> ServiceError:
    reason = error.strerror if isinstance(error, OSError) else "not a name of a host"
    return unavailable(f"cannot listen on {host} port {port}: {reason}")


def _admission(settings: Settings, address: str) -> Admission:
    """Who is let in. Raises `unavailable` if it would be everybody, from anywhere."""
    verifier = _verifier(settings)
    is_loopback = _is_loopback(address)
    if verifier is None and not is_loopback and not settings.insecure_open:
        raise unavailable(
            f"without a key for tokens the service runs on loopback only, and {settings.host} is not: "
            "give --auth-secret-file or --auth-public-key-file, or --insecure-open if the network is trusted"
        )
    allowed = parse_allowed_hosts(settings.allowed_hosts)
    origins = parse_allowed_origins(settings.allowed_origins)
    if not is_loopback and not allowed and verifier is not None:
        return Admission(verifier, None, origins=origins)
    # A page that makes its own name lead here has no token, but where none is asked for only the name tells. No page
    # can have an address for its name, so those are taken until the operator says which names there are.
    own_hosts = {"localhost", "127.0.0.1", "::1", settings.host.lower(), address} | allowed
    takes_addresses = not is_loopback and not allowed
    return Admission(verifier, frozenset(own_hosts), takes_addresses=takes_addresses, origins=origins)


def _is_loopback(address: str) -> bool:
    return ip_address(address.partition("%")[0]).is_loopback


def _verifier(settings: Settings) -> Verifier | None:
    keys = _keys(settings.auth_secret_file, secret_key) + _keys(settings.auth_public_key_file, public_key)
    if not keys:
        return None
    return Verifier(
        keys,
        issuer=settings.auth_issuer,
        audience=settings.auth_audience,
        leeway_seconds=settings.auth_leeway_seconds,
        expiry_leeway_seconds=settings.auth_expiry_leeway_seconds,
        now=time.time,
    )


def _keys(files: Sequence[str], load: Callable[[Path], VerificationKey]) -> list[VerificationKey]:
    """The key in each file. Raises `unavailable`, which says of several files which one it is."""
    keys: list[VerificationKey] = []
    for file in map(Path, files):
        try:
            keys.append(load(file))
        except ServiceError as error:
            if len(files) == 1:
                raise
            raise unavailable(f"{file.name}: {error.message}") from error
    return keys


def warn_of_ignored(variables: Mapping[str, str]) -> None:
    """`variables`: why each is ignored."""
    for variable, reason in variables.items():
        log.warning("a variable is ignored", variable=variable, reason=reason)


def warn_of_silence(error: OSError) -> None:
    """Whoever waits for the ready line does not get it."""
    reason = "nobody reads it" if isinstance(error, BlockingIOError) else error.strerror
    log.warning("the ready line cannot be printed to standard output", reason=reason)


def warn_of_exposure(settings: Settings, address: str) -> None:
    """Say once at the start what outsiders may see or do. `address` is the one that is listened on."""
    for name in settings.auth_secret_file:
        if is_exposed(Path(name)):
            log.warning("others than its owner may read or change the file of the secret; chmod 600", file=name)
    if _is_loopback(address):
        return
    if settings.auth_secret_file or settings.auth_public_key_file:
        log.warning("tokens and values travel in clear over plain HTTP; put TLS in front", host=settings.host)
    elif settings.insecure_open:
        log.warning(
            "whoever reaches the port may read, write and end any lease: no key for tokens is set", host=settings.host
        )


def _with_room(settings: Settings, descriptors: int) -> tuple[Settings, int]:
    """The settings with as many connections as fit, and how many beyond them can be told that they are too many."""
    wanted = settings.limits.max_connections
    served, refused = connections_within(descriptors, wanted)
    if served < wanted:
        log.warning("max_connections is lowered to fit the limit of open files", to=served, open_files=descriptors)
        settings = replace(settings, limits=replace(settings.limits, max_connections=served))
    return settings, refused


class _StandardError(io.TextIOBase):
    """Standard error that never raises.

    A log that cannot be written (its disk is full, its reader has gone) must not break off what is being logged: it
    would be the failure of a write, say, which then nobody hears of, and all other writes wait behind it for ever.
    """

    def write(self, text: str, /) -> int:
        with suppress(OSError):
            os.write(STANDARD_ERROR, text.encode("utf-8", "backslashreplace"))
        return len(text)


def configure_log(settings: Settings) -> None:
    """Log to standard error: a line of text, or of JSON, for each event."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    renderer: structlog.typing.Processor
    if settings.log_format == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _StandardError())),
        cache_logger_on_first_use=True,
    )
