"""A connection by itself, with a transport that sends nowhere."""

import asyncio
import gc

import pytest

from leasehold.engines.memory import MemoryEngine
from leasehold.http import entries
from leasehold.http.admission import Admission
from leasehold.http.connection import Connection
from leasehold.http.connections import CROWD_CONNECTIONS, Connections
from leasehold.http.routes import Router, Service
from leasehold.limits import Limits
from leasehold.metrics import Metrics
from leasehold.store import Store


class Transport(asyncio.Transport):
    """Takes what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False


def connections_of(store: Store) -> Connections:
    metrics = Metrics()
    service = Service(store, Limits(), lambda: 0.0, b"{}", metrics, dict)
    return Connections(Router(entries.ROUTES), Admission(None, None), service, logs_requests=False)


def living_connections() -> int:
    return sum(isinstance(each, Connection) for each in gc.get_objects())


def test_a_connection_that_was_lost_goes_without_the_collector() -> None:
    """It comes seldom, and thousands may come and go until then."""

    async def scenario() -> tuple[bytes, int]:
        store = Store(MemoryEngine(), Limits())
        await store.open()
        shared = connections_of(store)
        gc.collect()
        gc.disable()
        try:
            connection, transport = Connection(shared), Transport()
            connection.connection_made(transport)
            connection.data_received(b"GET /kv/a HTTP/1.1\r\nHost: a\r\n\r\nPOST /kv/a HTTP/1.1\r\nHost: a\r\n")
            await asyncio.sleep(0)
            connection.connection_lost(None)
            written = transport.written
            del connection, transport
            await asyncio.sleep(0)
            return written, living_connections()
        finally:
            gc.enable()
            await store.close()

    written, living = asyncio.run(scenario())
    assert written.startswith(b"HTTP/1.1 404 ")
    assert living == 0


async def two_sweeps(shared: Connections) -> None:
    seen = {shared.tick}
    async with asyncio.timeout(10):
        while len(seen) < 3:
            await asyncio.sleep(0)
            seen.add(shared.tick)


def test_what_a_crowd_took_is_given_back_when_it_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    given_back: list[int] = []
    monkeypatch.setattr("leasehold.http.connections.SWEEP_SECONDS", 0.001)

    async def scenario() -> None:
        shared = connections_of(Store(MemoryEngine(), Limits()))
        monkeypatch.setattr("leasehold.http.connections.give_back_memory", lambda: given_back.append(len(shared)))
        sweeper = asyncio.create_task(shared.keep_deadlines())
        for coming, staying in ((CROWD_CONNECTIONS + 1, 0), (CROWD_CONNECTIONS * 2, 10), (CROWD_CONNECTIONS // 2, 0)):
            crowd = [Connection(shared) for _ in range(coming)]
            for each in crowd:
                each.connection_made(Transport())
            await two_sweeps(shared)
            for each in crowd[staying:]:
                each.connection_lost(None)
            await two_sweeps(shared)
            for each in crowd[:staying]:
                each.connection_lost(None)
            await two_sweeps(shared)
        sweeper.cancel()

    asyncio.run(scenario())
    assert given_back == [0, 10]
