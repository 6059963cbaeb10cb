"""Two services with equal stores and clocks get the same bytes, and one of them has no fast paths.

All that can be noticed of them is compared: each byte that they send, their metrics, their logs, and their spans. The
service without fast paths also parses each request that has a `traceparent`.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from unittest.mock import patch

import uvloop
from checked_connection import ILLEGAL, CheckedConnection, Transport, connected
from running import ANSWER_SECONDS
from structlog.testing import capture_logs

from leasehold.access.token_keys import VerificationKey
from leasehold.access.token_verification import Verifier
from leasehold.completions import complete_all
from leasehold.engines.base import Clock, Engine, ReadDone
from leasehold.engines.memory.engine import MemoryEngine
from leasehold.engines.memory.space import MemorySpace
from leasehold.errors import ServiceError, internal
from leasehold.http.endpoints import ROUTES
from leasehold.http.requests import Request
from leasehold.http.routing.admission import Admission
from leasehold.http.routing.route import Service
from leasehold.http.routing.router import Router
from leasehold.http.wire.connection import Connection
from leasehold.http.wire.connections import Connections
from leasehold.http.wire.quick_get import BegunGet, QuickGet
from leasehold.http.wire.quick_put import QuickPut
from leasehold.http.wire.states import Answering
from leasehold.http.wire.trace_field import without_trace
from leasehold.http.wire.waiting_gets import WaitingGets
from leasehold.limits import Limits
from leasehold.metrics import Metrics
from leasehold.model import Kind, R
from leasehold.namespaces import DEFAULT_NAMESPACE
from leasehold.store.stores import Stores
from leasehold.trace_context import TraceContext

SECRET = b"s" * 32
INCARNATION = "5f3a9c"
ORIGIN = ("http", "page.example", 80)
TURNS = 6
"""Of the event loop: enough for what is scheduled while no request is being answered."""
Step = Callable[["Scene"], None]
ENDINGS = ["lose", "close", "eof", "abort", "stop", "stop and drain"]
"""Ways in which the last connection, or the service, may end while a request is in flight."""
EngineOf = Callable[[Clock], Engine]


class DistantSpace(MemorySpace):
    """As if the records were on another machine: there is no `peek`, and a read ends in a later turn of the loop."""

    fault_of_reads: ServiceError | None = None
    """What the next reads end with."""

    @property  # type: ignore[override]
    def peek(self) -> None:
        return None

    @peek.setter
    def peek(self, _: object) -> None:
        pass

    def read(self, kind: Kind[R], name: str, done: ReadDone[R]) -> None:
        asyncio.get_running_loop().call_soon(self._end_read, kind, name, done)

    def _end_read(self, kind: Kind[R], name: str, done: ReadDone[R]) -> None:
        results: list[R | ServiceError | None] = []
        if self.fault_of_reads is None:
            super().read(kind, name, results.append)
        else:
            results.append(self.fault_of_reads)
        complete_all(iter([(done, results[0])]), lambda: internal("the service failed while it answered"))


def in_memory(clock: Clock) -> MemoryEngine:
    return MemoryEngine(clock=clock)


def distant(clock: Clock) -> MemoryEngine:
    engine = MemoryEngine(clock=clock)
    engine._spaces[DEFAULT_NAMESPACE] = DistantSpace(clock=clock)
    return engine


ENGINES: dict[str, EngineOf] = {"in memory": in_memory, "distant": distant}
usual_engine: EngineOf = in_memory
"""The engine of scenes whose test names none."""


@dataclass
class Seen:
    """What can be noticed of a service."""

    written: list[bytes] = field(default_factory=list)
    """By its connections, in the order in which they were made."""
    requests: dict[str, Any] = field(default_factory=dict)
    log: list[Any] = field(default_factory=list)
    spans: list[Any] = field(default_factory=list)
    quick: int = 0
    """Answers of the fast path of GET."""
    quick_writes: int = 0
    """Answers of the fast path of POST and PUT."""

    def noticed(self) -> dict[str, Any]:
        return {"written": self.written, "requests": self.requests, "log": self.log, "spans": self.spans}


class Scene:
    """A service without a network, and one client, which connects again when its connection is closed."""

    def __init__(
        self,
        engine_of: EngineOf,
        *,
        fast_paths: bool,
        tokens: bool,
        limits: Limits,
        logs: bool,
        spans: list[Any] | None,
    ) -> None:
        self.now = 1_000_000
        """Seconds, of the store's clock and of the clock for tokens."""
        self.passed = 1.0
        """Seconds, of the clock of the metrics."""
        engine = engine_of(lambda: self.now * 1_000_000)
        self.space: Any = engine.space()
        self.is_in_process = isinstance(self.space, MemorySpace)
        stores = Stores(engine, limits)
        self.store = stores.default
        if self.is_in_process:
            self.restore(INCARNATION)
        verifier = Verifier([VerificationKey("HS256", SECRET)], now=lambda: self.now) if tokens else None
        admission = Admission(verifier, frozenset({"a", "localhost"}), origins=frozenset({ORIGIN}))
        self.metrics = Metrics()
        service = Service(self.store, limits, lambda: 0.0, b"{}", self.metrics, dict, stores)

        def record_span(request: Request, trace: TraceContext, status: int, _started_at: float, client: str) -> None:
            assert spans is not None
            spans.append((request.method, request.path, trace, status, client))

        self.shared = Connections(
            Router(ROUTES),
            admission,
            service,
            logs_requests=logs,
            fast_paths=fast_paths,
            record_span=None if spans is None else record_span,
        )
        self.shared.request_id_prefix = b"0" * 12
        for _ in range(0xFFF):  # then all ids have the same length
            next(self.shared.request_numbers)
        self.connections: list[CheckedConnection] = []
        self._may_be_busy: list[CheckedConnection] = []
        """The last one, and those before it that had something to do when the service had settled last."""
        self.transports: list[Transport] = []
        self.connect()

    async def open(self) -> None:
        await self.store.open()

    async def settle(self) -> None:
        """Wait until the service has done what it can do without another step."""
        async with asyncio.timeout(ANSWER_SECONDS):
            await self._turn()
            while self._is_busy():  # noqa: ASYNC110 - it may wait for another process
                await asyncio.sleep(0.0 if self.is_in_process else 0.0005)
            await self._turn()
        # Only the last connection gets requests. A scene may have hundreds, and most of them have nothing more to do.
        self._may_be_busy = [
            each
            for each in self._may_be_busy
            if each is self.connection or each._state not in (Answering.IDLE, Answering.CLOSED, Answering.LOST)
        ]

    async def _turn(self) -> None:
        for _ in range(TURNS):
            await asyncio.sleep(0)

    def _is_busy(self) -> bool:
        return self.store._lane._progress() is not None or any(
            connection._state is Answering.WORKING
            or (connection._state in (Answering.STREAMING, Answering.QUEUED) and not connection._sender.is_paused)
            for connection in self._may_be_busy
        )

    def restore(self, incarnation: str) -> None:
        """As if the store had been restored from a backup."""
        self.space.incarnation = self.space._state.incarnation = incarnation

    def connect(self) -> None:
        self.connection, transport = connected(self.shared)
        self.connections.append(self.connection)
        self._may_be_busy.append(self.connection)
        self.transports.append(transport)

    def send(self, data: bytes) -> None:
        transport = self.transports[-1]
        if transport.is_closing():
            self.connect()
        elif not transport.reads:
            return
        self.connection.data_received(data)
        self.connection.check()

    def read_slowly(self) -> None:
        if not self.connection._sender.is_paused and not self.transports[-1].is_lost:
            self.connection.pause_writing()

    def read_on(self) -> None:
        if self.connection._sender.is_paused and not self.transports[-1].is_lost:
            self.connection.resume_writing()

    def stop(self) -> None:
        self.shared.stopping = True

    def wait(self, seconds: int) -> None:
        self.now += seconds

    def end(self, way: str) -> None:
        """`way`: one of ENDINGS."""
        if way == "lose":
            self.transports[-1].lose()
        elif way == "close":
            self.transports[-1].close()
        elif way == "eof":
            assert self.connection.eof_received() is True
        elif way == "abort":
            self.connection.abort()
        else:
            self.stop()
            if way == "stop and drain":
                self.connection.stop()


def seen(
    steps: Sequence[Step],
    *,
    fast_paths: bool,
    tokens: bool = False,
    limits: Limits | None = None,
    logs: bool = True,
    spans: bool = False,
    engine_of: EngineOf | None = None,
) -> Seen:
    """What a service does at these steps. `logs`: whether it logs each request. `spans`: whether it records spans."""
    result = Seen()
    scenes: list[Scene] = []
    answer, complete = QuickGet.answer, QuickGet.complete

    def counted(self: QuickGet, *arguments: Any) -> bytes | BegunGet | None:
        data = answer(self, *arguments)
        result.quick += isinstance(data, bytes)
        return data

    def counted_completion(self: QuickGet, *arguments: Any) -> bytes | None:
        data = complete(self, *arguments)
        result.quick += data is not None
        return data

    answer_all, take_back = WaitingGets.answer_all, Connection.take_back

    def counted_answers(self: WaitingGets) -> None:
        result.quick += len(self.waiting)
        answer_all(self)

    def counted_return(self: Connection, data: bytes) -> None:
        result.quick -= 1
        take_back(self, data)

    write = QuickPut.answer

    def counted_write(self: QuickPut, *arguments: Any) -> bytes | None:
        data = write(self, *arguments)
        result.quick_writes += data is not None
        return data

    async def run() -> None:
        scene = Scene(
            engine_of or usual_engine,
            fast_paths=fast_paths,
            tokens=tokens,
            limits=limits or Limits(),
            logs=logs,
            spans=result.spans if spans else None,
        )
        scenes.append(scene)
        await scene.open()
        for step in steps:
            step(scene)
            await scene.settle()
        for transport in scene.transports:
            transport.lose()
        await scene.settle()
        await scene.store.close()
        result.written = [transport.written for transport in scene.transports]
        figures = scene.metrics._figures({})
        result.requests = {name: (seconds.counts, seconds.total) for name, seconds in figures.requests.items()}

    numbers = count(1)
    with (
        patch("leasehold.http.wire.connections.time", lambda: 0.0),
        patch("leasehold.http.wire.connections.perf_counter", lambda: scenes[0].passed),
        patch("leasehold.http.endpoints.locks.acquire_lock.secrets.token_hex", lambda _: f"{next(numbers):032x}"),
        patch(
            "leasehold.http.endpoints.by_uuid.set_entry.uuid4", lambda: f"00000000-0000-4000-8000-{next(numbers):012x}"
        ),
        patch("leasehold.http.wire.connection.without_trace", without_trace if fast_paths else lambda _: None),
        patch.object(QuickGet, "answer", counted),
        patch.object(QuickGet, "complete", counted_completion),
        patch.object(WaitingGets, "answer_all", counted_answers),
        patch.object(Connection, "take_back", counted_return),
        patch.object(QuickPut, "answer", counted_write),
        capture_logs() as log,
    ):
        ILLEGAL.clear()
        uvloop.run(run())
        assert ILLEGAL == []
    result.log = log
    return result


def answered_quickly(steps: Sequence[Step], **options: Any) -> int:
    """How many GETs took the fast path. Fails if a fast path can be noticed."""
    return compared(steps, **options).quick


def written_quickly(steps: Sequence[Step], **options: Any) -> int:
    """How many writes took the fast path. Fails if a fast path can be noticed."""
    return compared(steps, **options).quick_writes


def compared(steps: Sequence[Step], *, same_ids: bool = True, **options: Any) -> Seen:
    """What the service with fast paths does. Fails if the one without does anything else.

    `same_ids`: whether their request ids are compared, too. A request with a body takes two when it is parsed.
    """
    quick, general = (seen(steps, fast_paths=fast_paths, **options) for fast_paths in (True, False))
    noticed = [each.noticed() if same_ids else _without_ids(each.noticed()) for each in (quick, general)]
    assert noticed[0] == noticed[1]
    assert (general.quick, general.quick_writes) == (0, 0)
    return quick


def _without_ids(noticed: dict[str, Any]) -> dict[str, Any]:
    return noticed | {
        "written": [re.sub(b"0{12}-[0-9a-f]+", b"id", each) for each in noticed["written"]],
        "log": [line | {"request_id": "id"} for line in noticed["log"]],
    }


def message(method: str, target: str, *fields: str, body: bytes = b"") -> bytes:
    length = [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: a", *fields, *length, "", ""]).encode() + body


def send(*data: bytes) -> Step:
    return lambda scene: scene.send(b"".join(data))


CONNECTION_FIELDS: Sequence[tuple[tuple[str, ...], bool]] = (
    (("Connection: keep-alive",), True),
    (("connection: Keep-Alive",), True),
    (("CONNECTION:KEEP-ALIVE \t",), True),
    (("Connection: keep-alive", "Keep-Alive: timeout=5, max=100"), True),
    (("Proxy-Connection: keep-alive",), True),
    (("Connection: close",), False),
    (("Connection: keep-alive, close",), False),
    (("Connection: close, keep-alive",), False),
    (("Connection: keep-alive", "Connection: close"), False),
    (("Connection: keep-alive", "Connection: keep-alive"), False),
    (("Connection: keep-alive", "Proxy-Connection: close"), False),
    (("Connection: keep-alive,",), False),
    (("Connection: keep-alive, X-Request-Id",), False),
    (("Connection: keep-alive, Upgrade", "Upgrade: h2c"), False),
    (("Connection: keep-alive", "Upgrade: h2c"), False),
    (("Connection: keepalive",), False),
    (("Connection:",), False),
)
"""Fields of a request, and whether a fast path may answer requests with them."""


def put(target: str, body: bytes = b'{"a":1}', *fields: str) -> Step:
    return send(message("PUT", target, *fields, body=body))
