"""All connections of a server, and what they share: the route table, the budgets, the clock of their deadlines.

`Connections` refers to the connections, and each connection refers to it.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from email.utils import formatdate
from itertools import count
from time import perf_counter, time
from typing import Final, Protocol

import structlog
from msgspec.structs import replace

from leasehold.completions import report
from leasehold.errors import ErrorCode, ServiceError, internal, unavailable
from leasehold.http.encoding import COMMON_HEADERS, VARY, VARY_BY_ORIGIN, Templates
from leasehold.http.requests import Request
from leasehold.http.routing.admission import Admission
from leasehold.http.routing.idempotency import Idempotency
from leasehold.http.routing.refusal_log import RefusalLog
from leasehold.http.routing.route import Service
from leasehold.http.routing.router import Router
from leasehold.http.wire.deadlines import SWEEP_SECONDS, sweep
from leasehold.http.wire.header_cache import HeaderCache
from leasehold.http.wire.in_flight import BodiesInFlight, BodiesInLane, UnsentAnswers
from leasehold.http.wire.preparations import Preparations
from leasehold.http.wire.quick_get import QuickGet
from leasehold.http.wire.quick_put import QuickPut
from leasehold.http.wire.sending import Outbox, RoundRobin
from leasehold.http.wire.waiting_gets import WaitingGets
from leasehold.process.descriptors import REFUSED_CONNECTIONS
from leasehold.process.memory_trim import give_back_memory
from leasehold.rules.fences import refused_by_fence
from leasehold.store.store import Store
from leasehold.trace_context import TraceContext

log = structlog.get_logger(__name__)

CROWD_CONNECTIONS: Final = 1_000
"""When so many have closed, the memory that they took is returned to the system."""


MAX_KEPT_TEMPLATES: Final = 1_000
"""To make them takes 2 µs, so they are made again if there are more namespaces."""

COUNTED_REFUSALS: Final[Mapping[ErrorCode, str]] = {
    "quota_exceeded": "quota_refusals",
    "storage_full": "storage_full_refusals",
}
"""The counters in the metrics, by code."""

RecordSpan = Callable[[Request, TraceContext, int, float, str], None]
"""Records the span of an answered request. Gets the request, its trace, the status, the `perf_counter` at which it
began, and the address of the client."""


class Member(Protocol):
    """What the registry needs of a connection."""

    def sweep(self) -> None: ...

    def stop(self) -> None: ...

    def abort(self) -> None: ...


class Connections:
    """The registry. Owned by the server, and an argument of each connection."""

    def __init__(
        self,
        router: Router,
        admission: Admission,
        service: Service,
        *,
        logs_requests: bool,
        most_refused: int = REFUSED_CONNECTIONS,
        fast_paths: bool = True,
        record_span: RecordSpan | None = None,
    ) -> None:
        self.router = router
        self.admission = admission
        self.service = service
        self.metrics = service.metrics
        self.stores = service.stores
        self.store = service.store
        """That of the namespace `default`. The fast paths use no other one."""
        self.limits = service.limits
        self.idempotency = Idempotency(self.limits.idempotency_seconds, self.metrics)
        self.loop = asyncio.get_running_loop()
        self.logs_requests = logs_requests
        """Whether each request is logged. Faults are logged in any case."""
        self.record_span = record_span
        """None: no spans are recorded."""
        self.stopping = False
        self.header_cache = HeaderCache(self.limits)
        self.bodies = BodiesInFlight()
        self.unsent = UnsentAnswers()
        self.outbox = Outbox(self.loop)
        self.round_robin = RoundRobin(self.loop)
        self.lane_bodies = BodiesInLane(self.round_robin.enqueue)
        self.preparations = Preparations(self.round_robin.enqueue)
        self.answers = Preparations(self.round_robin.enqueue)
        """Of large answers. They do not wait for changes, which wait for the disk."""
        self.tick = self.loop.time()
        """The time of the last sweep, in seconds of the event loop's clock. Requests read it in place of the clock."""
        self.refusals = RefusalLog(self.tick)
        self._fixed_lines = (VARY_BY_ORIGIN if admission.varies_by_origin else VARY) + COMMON_HEADERS
        self.common_lines = self._common_lines()
        self.templates = Templates(self.store.space.incarnation)
        """Those of the namespace `default`."""
        self._templates: dict[str, Templates] = {}
        """Those of other namespaces, by their incarnation."""
        self._most_refused = most_refused
        """How many connections over the limit get a response that says so. More are closed at once."""
        self.known_moment = 0.0
        """The result of `moment`, if it was called in this iteration of the event loop, else 0."""
        self._members: set[Member] = set()
        self._by_address: Counter[str] = Counter()
        self._crowd = 0
        """The most connections since memory was last returned to the system."""
        self.request_id_prefix = os.urandom(6).hex().encode()
        self.request_numbers: Iterator[int] = count(1)
        self._emptied = asyncio.Event()
        quick_get = QuickGet(self)
        self.waiting_gets = WaitingGets(self, quick_get)
        self.quick_get = quick_get if fast_paths else None
        self.quick_put = QuickPut(self) if fast_paths else None
        """None: every request takes the general path. For tests."""

    def __len__(self) -> int:
        return len(self._members)

    def admit(self, member: Member, address: str) -> ServiceError | None:
        """Register a connection. Returns the refusal if it is one too many."""
        self._members.add(member)
        self._by_address[address] += 1
        if len(self._members) > self.limits.max_connections + self._most_refused:
            member.abort()
        elif (
            len(self._members) > self.limits.max_connections
            or self._by_address[address] > self.limits.max_connections_per_address
        ):
            return unavailable("too many connections", retry_after_seconds=5)
        return None

    def forget(self, member: Member, address: str) -> None:
        self._members.discard(member)
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]
        if not self._members:
            self._emptied.set()

    def renew_templates(self) -> Templates:
        """Bring `templates` up to the incarnation of the store, and return them."""
        if self.templates.incarnation is not self.store.space.incarnation:
            self.templates = Templates(self.store.space.incarnation)
        return self.templates

    def templates_of(self, store: Store) -> Templates:
        """The templates for responses of a store, in its incarnation."""
        if store is self.store:
            return self.renew_templates()
        incarnation = store.space.incarnation
        templates = self._templates.get(incarnation)
        if templates is None:
            if len(self._templates) >= MAX_KEPT_TEMPLATES:
                self._templates.clear()
            templates = self._templates[incarnation] = Templates(incarnation)
        return templates

    def service_of(self, store: Store) -> Service:
        """What an `AsyncEndpoint` may use for a request in the namespace of a store."""
        return self.service if store is self.store else replace(self.service, store=store)

    def moment(self) -> float:
        """Seconds. The clock is read once in an iteration of the event loop, so most requests need not read it."""
        if not self.known_moment:
            self.loop.call_soon(self._end_moment)
            self.known_moment = perf_counter()
        return self.known_moment

    def _end_moment(self) -> None:
        self.known_moment = 0.0

    def gauges(self) -> Mapping[str, float]:
        own = {"connections": len(self._members), "max_connections": self.limits.max_connections}
        return {**own, **self.stores.gauges()}

    def next_request_id(self) -> bytes:
        return b"%b-%x" % (self.request_id_prefix, next(self.request_numbers))

    def refusal_at_head(self, request: Request) -> ServiceError | None:
        """Why a request is refused by its head alone, or None. Its body need not be received then."""
        try:
            route = self.router.match(request)
            self.admission.admit(request, route)
            if route.check_head is not None:
                route.check_head(request)
        except ServiceError as refusal:
            # Its traceback refers to all callers. One keeps the refusal: a reference cycle, with what was read in it.
            return refusal.with_traceback(None)
        except Exception as failure:  # noqa: BLE001 - whatever it is, the client is answered
            error = internal("the service failed; its log has the request id")
            error.__cause__ = failure
            return error
        return None

    def body_limit(self, path: bytes) -> int:
        """The most bytes that the body of a request with this path may have."""
        limit: int = getattr(self.limits, self.router.body_limit(path))
        return limit

    def note(self, request: Request, status: int, started_at: float, client: str) -> None:
        """Count a request that was answered, log it, and record its span.

        `started_at`: the `moment` at which it began. `client`: the address of the connection's peer.
        """
        seconds = self.moment() - started_at
        self.metrics.count_request(request.method, request.pattern, status, seconds, request.version)
        if self.logs_requests:
            self.log_request(request.method, request.path, status, request.log_fields)
        if request.trace is not None and self.record_span is not None and request.trace.is_sampled:
            self.record_span(request, request.trace, status, started_at, client)

    def count_refusal(self, error: ServiceError) -> None:
        """Count an error that is an answer, if there is a counter for it."""
        if error.code in COUNTED_REFUSALS:
            self.metrics.count(COUNTED_REFUSALS[error.code])
        elif refused_by_fence(error):
            self.metrics.count("fenced_writes_refused")

    def log_request(self, method: str, path: bytes, status: int, fields: Mapping[str, str]) -> None:
        """Log the path without its query, and neither a header field nor a value. See `Request.log_fields`."""
        log.debug(
            "request",
            method=method,
            path=path[:256].decode("ascii", "backslashreplace"),
            status=status,
            **fields,
        )

    async def keep_deadlines(self) -> None:
        """Sweep once a second, until it is cancelled."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                self.tick = self.loop.time()
                self.common_lines = self._common_lines()
                self.metrics.write_to_folder(self.gauges)
                self.refusals.sweep(self.tick)
                await sweep(self._members)
                self._look_after_crowd()
            except Exception as failure:  # noqa: BLE001 - the next sweep must take place: it enforces all deadlines
                report("a sweep over the connections failed", failure)

    def _look_after_crowd(self) -> None:
        count = len(self._members)
        self._crowd = max(self._crowd, count)
        if self._crowd - count > CROWD_CONNECTIONS and count < self._crowd // 4:
            give_back_memory()
            self._crowd = count

    async def drain(self, timeout_seconds: float) -> int:
        """Wait for the requests in flight, then close the connections that are left. Returns how many those were."""
        self.stopping = True
        self._emptied.clear()
        for member in tuple(self._members):
            member.stop()
        if self._members:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_seconds):
                    await self._emptied.wait()
        left = tuple(self._members)
        for member in left:
            member.abort()
        self.refusals.sweep(self.loop.time(), last=True)
        return len(left)

    def _common_lines(self) -> bytes:
        """The header lines of every response until the next sweep."""
        return f"Date: {formatdate(time(), usegmt=True)}\r\n".encode() + self._fixed_lines
