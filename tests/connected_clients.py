"""A server without a socket: connections whose data a test hands over, and whose responses it reads."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from driving import stores_of

from leasehold.engines.memory.engine import MemoryEngine
from leasehold.http.endpoints import ROUTES
from leasehold.http.routing.admission import Admission
from leasehold.http.routing.route import Service
from leasehold.http.routing.router import Router
from leasehold.http.wire.connection import Connection
from leasehold.http.wire.connections import Connections
from leasehold.http.wire.in_flight import BodiesInLane, LargeSender
from leasehold.limits import MAX_LANE_BODIES_BYTES, Limits
from leasehold.metrics import Metrics
from leasehold.model import Operation
from leasehold.store.batch import Done
from leasehold.store.store import Store


class Transport(asyncio.Transport):
    """Records what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.written = b""
        self.is_aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.is_aborted

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def close(self) -> None:
        self.is_aborted = True

    def abort(self) -> None:
        self.is_aborted = True

    @property
    def statuses(self) -> list[int]:
        return [int(status) for status in re.findall(rb"HTTP/1.1 (\d+)", self.written)]


class Counted(BodiesInLane):
    """Keeps the most that was taken."""

    most_bytes = most_bodies = 0

    def take(self, sender: LargeSender, size: int) -> None:
        super().take(sender, size)
        self.most_bytes = max(self.most_bytes, self.total_bytes)
        self.most_bodies = max(self.most_bodies, len(self._taken))


class Server:
    """Connections to an empty store."""

    def __init__(self, store: Store, budget: int) -> None:
        service = Service(store, Limits(), lambda: 0.0, b"{}", Metrics(), dict, stores_of(store))
        self.shared = Connections(Router(ROUTES), Admission(None, None), service, logs_requests=False)
        self.bodies = self.shared.lane_bodies = Counted(self.shared.round_robin.enqueue, budget)
        self.clients: list[tuple[Connection, Transport]] = []

    def connect(self) -> tuple[Connection, Transport]:
        connection, transport = Connection(self.shared), Transport()
        connection.connection_made(transport)
        self.clients.append((connection, transport))
        return connection, transport

    def send(self, request: bytes) -> tuple[Connection, Transport]:
        connection, transport = self.connect()
        connection.data_received(request)
        return connection, transport


def served(scenario: Callable[[Server], Awaitable[None]], *, budget: int = MAX_LANE_BODIES_BYTES) -> None:
    """Run a scenario. At its end nothing may be counted, and nobody may wait."""

    async def run() -> None:
        store = Store(MemoryEngine(), Limits())
        await store.open()
        server = Server(store, budget)
        await scenario(server)
        for connection, _ in server.clients:
            connection.connection_lost(None)
        await store.close()
        assert (server.bodies.total_bytes, server.bodies._taken, server.bodies._waiting) == (0, {}, {})

    asyncio.run(run())


async def iterations(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@contextmanager
def held(store: Store) -> Iterator[list[tuple[Operation, Done]]]:
    """Keep the changes that are submitted, and complete none."""
    submitted: list[tuple[Operation, Done]] = []
    submit = store.submit
    store.submit = lambda operation, done: submitted.append((operation, done))
    yield submitted
    store.submit = submit


def message(method: str, target: str, body: bytes, media: str = "application/json") -> bytes:
    head = f"{method} {target} HTTP/1.1\r\nHost: a\r\nContent-Type: {media}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
