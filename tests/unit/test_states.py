"""The table of a connection's states, and connections that go through all of it and never leave it."""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import suppress

import pytest
from checked_connection import ILLEGAL, USED, CheckedConnection, Transition, Transport, connected
from driving import stores_of
from hypothesis import given, settings
from hypothesis import strategies as st

from leasehold.engines.memory.engine import MemoryEngine
from leasehold.errors import ServiceError
from leasehold.http.endpoints import ROUTES
from leasehold.http.media_types import Media
from leasehold.http.requests import Request
from leasehold.http.responses import Response, Stream
from leasehold.http.routing.admission import Admission
from leasehold.http.routing.route import AsyncEndpoint, DocumentedResponse, Route, Service
from leasehold.http.routing.router import Router
from leasehold.http.wire.connections import Connections
from leasehold.http.wire.deadlines import DEADLINES, SWEEP_SECONDS
from leasehold.http.wire.states import (
    AT_END,
    IN_BODY,
    TRANSITIONS,
    WHEN_IDLE,
    Answering,
    IllegalTransitionError,
    Receiving,
    is_busy,
    moved,
)
from leasehold.limits import Limits
from leasehold.metrics import Metrics
from leasehold.store.store import Store

# The table ----------------------------------------------------------------------------------------------------

State = Receiving | Answering


def reachable(first: State) -> set[State]:
    found: set[State] = set()
    left = [first]
    while left:
        state = left.pop()
        if state not in found:
            found.add(state)
            left += TRANSITIONS[state]
    return found


@pytest.mark.parametrize(("states", "first"), [(Receiving, Receiving.NEW), (Answering, Answering.IDLE)])
def test_every_state_can_be_reached(states: type[Receiving] | type[Answering], first: State) -> None:
    assert reachable(first) == set(states)


def test_every_state_has_its_place_in_every_table() -> None:
    assert set(TRANSITIONS) == {*Receiving, *Answering}
    assert set(WHEN_IDLE) == set(DEADLINES) == set(Receiving)
    assert set(AT_END) == set(Answering)


def test_a_lost_connection_does_nothing_more() -> None:
    assert [state for state, targets in TRANSITIONS.items() if not targets] == [Receiving.CLIENT_CLOSED, Answering.LOST]


@pytest.mark.parametrize("state", Answering)
def test_a_connection_can_be_lost_in_every_state(state: Answering) -> None:
    assert state is Answering.LOST or Answering.LOST in TRANSITIONS[state]


@pytest.mark.parametrize("state", Receiving)
def test_a_request_can_be_refused_in_every_state_until_the_client_is_done(state: Receiving) -> None:
    assert state is Receiving.CLIENT_CLOSED or Receiving.ENDED in TRANSITIONS[state]


def test_a_closed_connection_begins_nothing() -> None:
    assert reachable(Answering.CLOSED) == {Answering.CLOSED, Answering.LOST}


def test_after_the_last_request_nothing_is_received() -> None:
    assert reachable(Receiving.ENDED) == {Receiving.ENDED, Receiving.CLIENT_CLOSED}


@pytest.mark.parametrize("state", [Answering.WAITING, Answering.STREAMING])
def test_a_request_that_waits_or_streams_ends_before_the_next_begins(state: Answering) -> None:
    assert TRANSITIONS[state] == {Answering.IDLE, Answering.QUEUED, Answering.CLOSED, Answering.LOST}


@pytest.mark.parametrize("state", sorted(IN_BODY, key=str))
def test_a_body_comes_only_after_a_head(state: Receiving) -> None:
    before = {each for each, targets in TRANSITIONS.items() if state in targets}
    assert before <= {Receiving.HEAD, Receiving.EXPECTING}


def test_a_transition_that_the_table_does_not_list_is_refused() -> None:
    assert moved(Answering.WORKING, Answering.STREAMING) is Answering.STREAMING
    with pytest.raises(IllegalTransitionError):
        moved(Answering.LOST, Answering.IDLE)
    with pytest.raises(IllegalTransitionError):
        moved(Receiving.BODY, Receiving.HEAD)


def test_a_stop_waits_for_requests_that_have_begun_and_for_answers() -> None:
    waits = {state for state in Answering if is_busy(Receiving.IDLE, state)}
    assert waits == {Answering.QUEUED, Answering.WORKING, Answering.WAITING, Answering.STREAMING}
    assert {state for state in Receiving if is_busy(state, Answering.IDLE)} == IN_BODY


# Connections that check themselves ----------------------------------------------------------------------------


async def _breaks(_request: Request, _service: Service) -> Stream:
    async def chunks() -> AsyncGenerator[bytes]:
        yield b"1"
        await asyncio.sleep(0)
        raise OSError

    return Stream(Media.JSON, chunks())


async def _holds_on(_request: Request, _service: Service) -> Response:
    """Takes its cancellation for a timeout of its own, as libraries do."""
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(3_600)
    return Response(200, b"1")


FAULTY = (
    Route("GET", "/breaks", AsyncEndpoint(_breaks), "", None, (DocumentedResponse(200, ""),)),
    Route("GET", "/holds-on", AsyncEndpoint(_holds_on), "", None, (DocumentedResponse(200, ""),)),
    Route("GET", "/waits", AsyncEndpoint(_holds_on, waits=True), "", None, (DocumentedResponse(200, ""),)),
)


class Scene:
    """A server's connections without a network, and one client."""

    def __init__(self, store: Store, limits: Limits) -> None:
        self.store = store
        metrics = Metrics()
        service = Service(store, limits, lambda: 0.0, b"{}", metrics, dict, stores_of(store))
        router = Router(ROUTES + FAULTY)
        self.shared = Connections(router, Admission(None, None), service, logs_requests=False)
        self.connection: CheckedConnection
        self.transport: Transport
        self.connect()

    def connect(self) -> None:
        self.connection, self.transport = connected(self.shared)

    def send(self, *requests: bytes) -> None:
        if self.transport.reads and not self.transport.is_closing():
            self.connection.data_received(b"".join(requests))
            self.connection.check()

    def end(self) -> None:
        """The client shuts down its side."""
        if self.transport.reads and not self.transport.is_closing() and not self.has_ended:
            if not self.connection.eof_received():
                self.transport.close()
            self.connection.check()

    @property
    def has_ended(self) -> bool:
        return self.connection.states[0] is Receiving.CLIENT_CLOSED

    def read_slowly(self) -> None:
        if not self.connection._sender.is_paused and not self.transport.is_lost:
            self.connection.pause_writing()
            self.connection.check()

    def read_on(self) -> None:
        if self.connection._sender.is_paused and not self.transport.is_lost:
            self.connection.resume_writing()
            self.connection.check()

    def refuse(self) -> None:
        """As the budget of bodies does."""
        if not self.transport.is_lost:
            self.connection.refuse(ServiceError("unavailable", "no room"))
            self.connection.check()

    def stop(self) -> None:
        self.shared.stopping = True
        if not self.transport.is_lost:
            self.connection.stop()
            self.connection.check()

    def sweep(self, seconds: float) -> None:
        self.shared.tick += seconds
        if not self.transport.is_lost:
            self.connection.sweep()
            self.connection.check()

    def lose(self) -> None:
        self.transport.lose()
        self.connection.check()

    async def settle(self, iterations: int = 40) -> None:
        for _ in range(iterations):
            await asyncio.sleep(0)
            self.connection.check()


def play(scenario: Callable[[Scene], Awaitable[None]], limits: Limits | None = None) -> None:
    """Run a scenario, lose the connection, and see that nothing is left of it."""

    async def run() -> None:
        store = Store(MemoryEngine(), Limits())
        await store.open()
        scene = Scene(store, limits or Limits())
        await scenario(scene)
        scene.lose()
        await scene.settle()
        assert scene.connection.states[1] is Answering.LOST
        assert (scene.shared.bodies.total_bytes, scene.shared.unsent.total_bytes, len(scene.shared)) == (0, 0, 0)
        await store.close()

    ILLEGAL.clear()
    asyncio.run(run())
    assert ILLEGAL == []


def message(method: str, target: str, *fields: str, body: bytes = b"", version: str = "1.1") -> bytes:
    length = [f"Content-Length: {len(body)}"] if body else []
    lines = [f"{method} {target} HTTP/{version}", "Host: a", *fields, *length, "", ""]
    return "\r\n".join(lines).encode() + body


GET = message("GET", "/kv/a")
PUT = message("PUT", "/kv/a", body=b'{"a":1}')
LARGE = message("PUT", "/kv/large", body=b'"%b"' % (b"x" * 20_000))
LIST = message("GET", "/kv")
LOCK = message("POST", "/locks/a", body=b'{"ttl":60,"wait":60}')
EXPECTING = message("PUT", "/kv/a", "Expect: 100-continue", "Content-Length: 7")
REFUSED = message("PUT", "/kv/a", "Content-Type: text/html", "Content-Length: 7")
"""By its head, and its body is short."""
BREAKS, HOLDS_ON, WAITS = (message("GET", path) for path in ("/breaks", "/holds-on", "/waits"))
LAST = message("GET", "/kv/a", "Connection: close")
BODY = b'{"a":1}'


Scenario = Callable[[Scene], Awaitable[None]]


async def whole_requests(scene: Scene) -> None:
    scene.send(GET)
    scene.send(GET)
    scene.lose()
    scene.connect()
    scene.send(GET)  # known by now
    scene.send(PUT)
    await scene.settle()


async def requests_in_pieces(scene: Scene) -> None:
    for request in (PUT, EXPECTING + BODY, REFUSED + BODY):
        for end in range(len(request)):
            scene.send(request[end : end + 1])
        await scene.settle()


async def expectations(scene: Scene) -> None:
    scene.send(EXPECTING)
    scene.send(BODY)
    await scene.settle()
    scene.send(EXPECTING + BODY)
    await scene.settle()
    scene.send(PUT, EXPECTING)
    await scene.settle()
    scene.send(BODY)


async def pipelined(scene: Scene) -> None:
    scene.send(*[GET, PUT] * 50)
    scene.read_slowly()
    await scene.settle()
    scene.read_on()
    await scene.settle(200)
    scene.read_slowly()
    scene.send(GET, LAST)
    scene.read_on()
    await scene.settle()


async def locks_and_lists(scene: Scene) -> None:
    scene.send(LOCK, LIST, GET, LIST)
    await scene.settle()
    scene.send(LIST)
    await scene.settle()
    scene.send(message("POST", "/locks/b", body=b'{"ttl":60,"wait":60}'))
    await scene.settle()


WAYS_TO_END: dict[str, Callable[[Scene], None]] = {
    "the client leaves": Scene.end,
    "the client vanishes": Scene.lose,
    "the service refuses": Scene.refuse,
    "a deadline ends": lambda scene: scene.sweep(3_600.0),
    "the service cuts it": lambda scene: scene.connection.abort(),
}


def ending(requests: tuple[bytes, ...], iterations: int, way: Callable[[Scene], None], *, slowly: bool) -> Scenario:
    async def run(scene: Scene) -> None:
        if slowly:
            scene.read_slowly()
        for request in requests:
            scene.send(request)
        await scene.settle(iterations)
        way(scene)
        scene.connection.check()
        scene.stop()
        await scene.settle()
        scene.read_on()
        scene.stop()
        await scene.settle()

    return run


BEFORE_ENDS: dict[str, tuple[tuple[bytes, ...], int, bool]] = {
    # What is sent, after how many iterations the connection ends, and whether its answers are read slowly.
    "nothing": ((), 0, False),
    "a request": ((GET,), 5, False),
    "a write under way": ((PUT,), 0, False),
    "a write and a line": ((PUT, GET[:8]), 0, False),
    "a write and a head": ((PUT, GET[:-4]), 0, False),
    "a write and an expectation": ((PUT, EXPECTING), 0, False),
    "a write and a part of a body": ((PUT, PUT[:-2]), 0, False),
    "a write and a part of a refused body": ((PUT, REFUSED + BODY[:2]), 0, False),
    "a write and the last request": ((PUT, LAST), 0, False),
    "a line": ((GET[:8],), 0, False),
    "a head": ((GET[:-4],), 0, False),
    "an expectation": ((EXPECTING,), 0, False),
    "a part of a body": ((LARGE[:-2],), 0, False),
    "a part of a refused body": ((REFUSED + BODY[:2],), 0, False),
    "a malformed line": ((b"BROKEN\r\n",), 0, False),
    "requests that wait": ((PUT, GET, LARGE, LARGE), 0, True),
    "a lock that is waited for": ((LOCK, LOCK), 20, False),
    "a lock and requests behind it": ((LOCK, LOCK, GET), 20, False),
    "a list": ((PUT, LIST), 4, False),
    "a stream that breaks": ((BREAKS, GET), 4, False),
    "a task that swallows its cancellation": ((HOLDS_ON, GET), 4, False),
    "a waiting task that swallows its cancellation": ((WAITS, GET), 4, False),
    "many requests and a malformed one": ((PUT, GET * 40 + b"BROKEN\r\n\r\n"), 0, False),
}


def all_scenarios() -> Iterator[Scenario]:
    yield from (whole_requests, requests_in_pieces, expectations, pipelined, locks_and_lists)
    for requests, iterations, slowly in BEFORE_ENDS.values():
        for way in WAYS_TO_END.values():
            yield ending(requests, iterations, way, slowly=slowly)


@pytest.fixture(scope="module")
def used() -> set[Transition]:
    """The transitions of all scenarios."""
    USED.clear()
    for scenario in all_scenarios():
        play(scenario)
    return set(USED)


@pytest.mark.parametrize(
    ("state", "to"), [(state, to) for state, targets in TRANSITIONS.items() for to in sorted(targets, key=str)], ids=str
)
def test_every_transition_of_the_table_is_used(used: set[Transition], state: State, to: State) -> None:
    assert (state, to) in used


# Any order of events ------------------------------------------------------------------------------------------

SENT = [
    *(GET, PUT, LARGE, LIST, LOCK, EXPECTING, BODY, REFUSED, LAST, BREAKS, HOLDS_ON, WAITS),
    *(b"BROKEN\r\n", b"\r\n", GET * 40, LARGE * 4),
]
EVENTS: list[Callable[[Scene], None]] = [
    *WAYS_TO_END.values(),
    Scene.stop,
    *[Scene.read_slowly] * 3,
    *[Scene.read_on] * 6,
    *[lambda scene: scene.sweep(SWEEP_SECONDS)] * 3,
]


async def any_events(scene: Scene, rng: random.Random) -> None:
    unsent = b""
    for _ in range(60):
        if rng.random() < 0.6:
            unsent += rng.choice(SENT) if len(unsent) < 10 or rng.random() < 0.3 else b""
            size = len(unsent) if rng.random() < 0.6 else rng.randrange(len(unsent))
            scene.send(unsent[:size])
            unsent = unsent[size:]
        elif rng.random() < 0.7:
            await scene.settle(rng.randrange(4))
        else:
            rng.choice(EVENTS)(scene)
        if scene.transport.is_lost:
            unsent = b""
            scene.shared.stopping = False
            scene.connect()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_no_order_of_events_leaves_the_table(seed: int) -> None:
    async def run(scene: Scene) -> None:
        await any_events(scene, random.Random(seed))

    play(run)
