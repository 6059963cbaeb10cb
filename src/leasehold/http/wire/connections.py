"""All connections of a server, and what they share: the route table, the clock of their deadlines, the current date."""

import asyncio
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from email.utils import formatdate
from itertools import count
from time import perf_counter, time
from typing import Final, Protocol

import structlog

from leasehold.completions import report
from leasehold.errors import ServiceError, unavailable
from leasehold.http.messages import COMMON_HEADERS, VARY, VARY_BY_ORIGIN, Request, Templates
from leasehold.http.routing.admission import Admission
from leasehold.http.routing.refusal_log import RefusalLog
from leasehold.http.routing.router import Router
from leasehold.http.routing.routes import Service
from leasehold.http.wire.header_cache import FamiliarHeads
from leasehold.http.wire.in_flight import BodiesInFlight, UnsentAnswers
from leasehold.limits import KIB
from leasehold.process.descriptors import REFUSED_CONNECTIONS
from leasehold.process.memory_trim import give_back_memory

log = structlog.get_logger(__name__)

SWEEP_SECONDS: Final = 1.0
SWEEP_SLICE_SECONDS: Final = 0.0002
"""A sweep that sends thousands off at once would otherwise hold up all others for most of a second."""
MAX_POSTED_BYTES: Final = 256 * KIB
"""More is sent at once: only the transport tells a connection that its reader does not read, and one packet may ask
for thousands of large values."""
CROWD_CONNECTIONS: Final = 1_000
"""When so many have left, what they took is given back to the system."""


class Member(Protocol):
    """What the registry needs of a connection."""

    def sweep(self) -> None: ...

    def stop(self) -> None: ...

    def abort(self) -> None: ...


class Connections:
    """The registry. Owned by the server, handed to each connection."""

    def __init__(
        self,
        router: Router,
        admission: Admission,
        service: Service,
        *,
        logs_requests: bool,
        most_refused: int = REFUSED_CONNECTIONS,
    ) -> None:
        self.router = router
        self.admission = admission
        self.service = service
        self.metrics = service.metrics
        self.store = service.store
        self.limits = service.limits
        self.loop = asyncio.get_running_loop()
        self.logs_requests = logs_requests
        """One line for each request. Faults are logged where they are noticed, once."""
        self.stopping = False
        self.heads = FamiliarHeads(self.limits.max_request_line_bytes)
        self.bodies = BodiesInFlight()
        self.unsent = UnsentAnswers()
        self.tick = self.loop.time()
        """Seconds; the time of the last sweep, so that a request pays nothing for its deadlines."""
        self.refusals = RefusalLog(self.tick)
        self._fixed_lines = (VARY_BY_ORIGIN if admission.varies_by_origin else VARY) + COMMON_HEADERS
        self.common_lines = self._common_lines()
        self.templates = Templates(self.store.space.incarnation)
        self._most_refused = most_refused
        """Connections over the limit that are still told so; beyond, they are cut at once."""
        self._moment = 0.0
        self._members: set[Member] = set()
        self._by_address: Counter[str] = Counter()
        self._crowd = 0
        """The most connections since memory was given back."""
        self._request_id_prefix = os.urandom(6).hex().encode()
        self._request_numbers = count(1)
        self._emptied = asyncio.Event()
        self._outbox: list[tuple[asyncio.Transport, bytes]] = []
        self._outbox_bytes = 0
        self._going_on: deque[Callable[[], None]] = deque()

    def __len__(self) -> int:
        return len(self._members)

    def admit(self, member: Member, address: str) -> ServiceError | None:
        """Register a connection; the refusal if it is one too many."""
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
        """`templates`, of the incarnation that the store has now."""
        if self.templates.incarnation is not self.store.space.incarnation:
            self.templates = Templates(self.store.space.incarnation)
        return self.templates

    def moment(self) -> float:
        """Seconds, the same for all that the loop does in one turn, so that most requests need not look at a clock."""
        if not self._moment:
            self.loop.call_soon(self._end_moment)
            self._moment = perf_counter()
        return self._moment

    def _end_moment(self) -> None:
        self._moment = 0.0

    def gauges(self) -> Mapping[str, float]:
        return {"connections": len(self._members), **self.store.gauges()}

    def next_request_id(self) -> bytes:
        return b"%b-%x" % (self._request_id_prefix, next(self._request_numbers))

    def post(self, transport: asyncio.Transport, data: bytes) -> None:
        """Send soon: after all that the loop has to do now, with everything else that was posted meanwhile.

        Sent one by one, between the computing of one answer and the next, each packet finds its reader asleep, and
        the system wakes it each time. Sent together they wake it once: a quarter more GETs a second.
        """
        size = len(data)
        if not self._outbox:
            self.loop.call_soon(self.send_posted)
        self._outbox.append((transport, data))
        # Nothing raises from here on: the answer is under way, and whoever posted it must not send another.
        self._outbox_bytes += size
        if self._outbox_bytes > MAX_POSTED_BYTES:
            self.send_posted()

    def send_posted(self) -> None:
        """Send what was posted. Never raises: an answer that cannot be sent costs its own connection only."""
        outbox, self._outbox = self._outbox, []
        self._outbox_bytes = 0
        transport: asyncio.Transport | None = None
        answers: Iterator[tuple[asyncio.Transport, bytes]] | None = None
        while True:
            try:
                if answers is None:
                    answers = iter(outbox)
                for transport, data in answers:
                    if not transport.is_closing():  # uvloop raises on a closed transport
                        transport.write(data)
                return
            except BaseException as failure:  # noqa: BLE001 - the other answers must leave
                report("an answer could not be sent", failure)
                if transport is not None:
                    transport.abort()

    def give_turn(self, go_on: Callable[[], None]) -> None:
        """Call `go_on` when it is the turn of one who has more to do than fits between two others.

        One of them goes on between two looks at the sockets. Each takes up to a millisecond, and all others wait for
        it: with hundreds of lists that were sent on at once, a GET took a tenth of a second.
        """
        if not self._going_on:
            self.loop.call_soon(self._let_go_on)
        self._going_on.append(go_on)

    def _let_go_on(self) -> None:
        go_on = self._going_on.popleft()
        try:
            if self._going_on:
                self.loop.call_soon(self._let_go_on)
        except BaseException as failure:  # noqa: BLE001 - nobody else would call those who wait
            report("others go on at once", failure)
            while self._going_on:
                self._going_on.popleft()()
        go_on()

    def log_request(self, request: Request, status: int) -> None:
        """The path without its query, and never a header or a value."""
        log.debug(
            "request",
            method=request.method,
            path=request.path[:256].decode("ascii", "backslashreplace"),
            status=status,
            request_id=request.request_id.decode(),
        )

    async def keep_deadlines(self) -> None:
        """Sweep once a second, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                self.tick = self.loop.time()
                self.common_lines = self._common_lines()
                self.metrics.leave(self.gauges())
                self.refusals.sweep(self.tick)
                await self._sweep()
                self._look_after_crowd()
            except Exception as failure:  # noqa: BLE001 - the next sweep must come, because it holds all deadlines
                report("a sweep over the connections failed", failure)

    async def _sweep(self) -> None:
        """Let others have their turn in between: when a crowd has come at once, its time is over at once, too."""
        began = perf_counter()
        for member in tuple(self._members):
            if member in self._members:
                member.sweep()
            if perf_counter() - began > SWEEP_SLICE_SECONDS:
                await asyncio.sleep(0)
                began = perf_counter()

    def _look_after_crowd(self) -> None:
        count = len(self._members)
        self._crowd = max(self._crowd, count)
        if self._crowd - count > CROWD_CONNECTIONS and count < self._crowd // 4:
            give_back_memory()
            self._crowd = count

    async def drain(self, timeout_seconds: float) -> int:
        """Let the requests in flight end, then cut what is left. Returns how many were cut."""
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
        """The header lines that every response has, for now."""
        return f"Date: {formatdate(time(), usegmt=True)}\r\n".encode() + self._fixed_lines
