"""A connection on its own, with a transport that is not connected to anything."""

import asyncio
import gc
import re
import sys
from itertools import pairwise
from typing import cast

import pytest
from driving import stores_of

from leasehold.engines.memory.engine import MemoryEngine
from leasehold.http.endpoints import kv
from leasehold.http.routing.admission import Admission
from leasehold.http.routing.route import Service
from leasehold.http.routing.router import Router
from leasehold.http.wire.connection import SLICE_BYTES, Connection
from leasehold.http.wire.connections import CROWD_CONNECTIONS, Connections
from leasehold.http.wire.in_flight import BodiesInFlight, UnsentAnswers
from leasehold.http.wire.reception import Reception
from leasehold.limits import Limits
from leasehold.metrics import Metrics
from leasehold.model import Operation
from leasehold.store.batch import Done
from leasehold.store.store import Store


class Transport(asyncio.Transport):
    """Records what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False

    def write_eof(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass


def connections_of(store: Store) -> Connections:
    metrics = Metrics()
    service = Service(store, Limits(), lambda: 0.0, b"{}", metrics, dict, stores_of(store))
    return Connections(Router(kv.routes(())), Admission(None, None), service, logs_requests=False)


GET = b"GET /kv/a HTTP/1.1\r\nHost: a\r\n\r\n"
PUT = b"PUT /kv/a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1"
RECEIVED = {
    "nothing": [],
    "a request, and a part of another": [GET, b"POST /kv/a HTTP/1.1\r\nHost: a\r\n"],
    "a part of a body": [b"PUT /kv/a HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n1"],
    "requests that wait": [PUT, GET * 40],
    "a malformed request": [GET, b"BROKEN\r\n\r\n"],
    "a body after an upgrade": [GET.replace(b"GET", b"PUT")[:-2] + b"Upgrade: b\r\nContent-Length: 9\r\n\r\n1"],
    "an expectation": [PUT.replace(b"Host", b"Expect: 100-continue\r\nHost")[:-1]],
}


def parts_of_connections() -> int:
    return sum(isinstance(each, Connection | Reception) for each in gc.get_objects())


@pytest.mark.parametrize("kind", RECEIVED)
def test_a_lost_connection_is_freed_without_garbage_collection(kind: str) -> None:
    """Full collections are rare, and thousands of connections may come and go in between."""

    async def scenario() -> int:
        store = Store(MemoryEngine(), Limits())
        await store.open()
        shared = connections_of(store)
        gc.collect()
        gc.disable()
        before = parts_of_connections()  # an earlier test may have left some
        try:
            connection, transport = Connection(shared), Transport()
            connection.connection_made(transport)
            for data in RECEIVED[kind]:
                connection.data_received(data)
            await asyncio.sleep(0)
            connection.connection_lost(None)
            del connection, transport
            for _ in range(20):
                await asyncio.sleep(0)
            return parts_of_connections() - before
        finally:
            gc.enable()
            await store.close()

    assert asyncio.run(scenario()) == 0


async def two_sweeps(shared: Connections) -> None:
    seen = {shared.tick}
    async with asyncio.timeout(10):
        while len(seen) < 3:
            await asyncio.sleep(0)
            seen.add(shared.tick)


def test_memory_is_returned_after_many_connections_have_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    given_back: list[int] = []
    monkeypatch.setattr("leasehold.http.wire.connections.SWEEP_SECONDS", 0.001)

    async def scenario() -> None:
        shared = connections_of(Store(MemoryEngine(), Limits()))
        monkeypatch.setattr("leasehold.http.wire.connections.give_back_memory", lambda: given_back.append(len(shared)))
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


READ = {
    "whole requests": b"POST /kv/a HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\n" + b"1" * 9000,
    "a part of a body": b"POST /kv/a HTTP/1.1\r\nHost: a\r\nContent-Length: 90000\r\n\r\n" + b"1" * 9000,
    "a body that its head refused": b"POST /nothing HTTP/1.1\r\nHost: a\r\nContent-Length: 90000\r\n\r\n" + b"1" * 9000,
}


@pytest.mark.parametrize("kind", READ)
def test_received_data_is_not_kept_after_its_requests(kind: str) -> None:
    """With a thousand connections it would be hundreds of megabytes, and collections are too rare to free them."""

    async def scenario() -> tuple[int, int]:
        store = Store(MemoryEngine(), Limits())
        await store.open()
        connection, transport = Connection(connections_of(store)), Transport()
        connection.connection_made(transport)
        gc.disable()
        try:
            data = bytearray(READ[kind])
            before = sys.getrefcount(data)
            connection.data_received(cast("bytes", data))
            for _ in range(5):
                await asyncio.sleep(0)
            return before, sys.getrefcount(data)
        finally:
            gc.enable()
            connection.connection_lost(None)
            await store.close()

    before, after = asyncio.run(scenario())
    assert after == before


class Stalled(Transport):
    """A transport whose client does not read."""

    def __init__(self) -> None:
        super().__init__()
        self.is_cut = False

    def get_write_buffer_size(self) -> int:
        return len(self.written)

    def abort(self) -> None:
        self.is_cut = True


def test_connections_that_do_not_read_are_closed_when_their_responses_exceed_the_budget() -> None:
    async def scenario() -> list[bool]:
        shared = connections_of(Store(MemoryEngine(), Limits()))
        shared.unsent = UnsentAnswers(100)
        readers: list[Stalled] = []
        for _ in range(3):
            connection, transport = Connection(shared), Stalled()
            connection.connection_made(transport)
            transport.write(b"x" * 40)
            connection.pause_writing()
            readers.append(transport)
        return [reader.is_cut for reader in readers]

    assert asyncio.run(scenario()) == [True, False, False]


def test_an_incomplete_body_is_refused_when_other_requests_need_its_memory() -> None:
    async def scenario() -> list[bytes]:
        shared = connections_of(Store(MemoryEngine(), Limits()))
        shared.bodies = BodiesInFlight(2_500)
        transports: list[Transport] = []
        for _ in range(3):
            connection, transport = Connection(shared), Transport()
            connection.connection_made(transport)
            connection.data_received(b"POST /kv/a HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\n")
            connection.data_received(b"1" * 1000)
            transports.append(transport)
        await asyncio.sleep(0)
        return [transport.written[:12] for transport in transports]

    assert asyncio.run(scenario()) == [b"HTTP/1.1 503", b"", b""]


@pytest.mark.parametrize("field_bytes", [1, SLICE_BYTES])
def test_leave_to_continue_comes_after_the_answers_to_all_requests_of_one_read(field_bytes: int) -> None:
    async def scenario() -> list[bytes]:
        store = Store(MemoryEngine(), Limits())
        await store.open()
        connection, transport = Connection(connections_of(store)), Transport()
        connection.connection_made(transport)
        get = b"GET /kv/a HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (b"x" * field_bytes)
        expecting = b"PUT /kv/a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"
        connection.data_received(get * 3 + expecting)
        for _ in range(20):
            await asyncio.sleep(0)
        connection.connection_lost(None)
        await store.close()
        return re.findall(rb"HTTP/1.1 (\d+)", transport.written)

    assert asyncio.run(scenario()) == [b"404", b"404", b"404", b"100"]


def test_requests_with_large_bodies_of_many_clients_are_begun_one_in_an_iteration() -> None:
    """Each may take 40 ms."""
    body = b'"%b"' % (b"x" * 100_000)
    put = b"PUT /kv/a HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    async def scenario() -> tuple[int, list[bytes]]:
        store = Store(MemoryEngine(), Limits())
        await store.open()
        submitted, submit = 0, store.submit

        def count(operation: Operation, done: Done) -> None:
            nonlocal submitted
            submitted += 1
            submit(operation, done)

        store.submit = count
        shared, transports = connections_of(store), [Transport() for _ in range(20)]
        connections = [Connection(shared) for _ in transports]
        for connection, transport in zip(connections, transports, strict=True):
            connection.connection_made(transport)
            connection.data_received(put + GET)
        most = before = 0
        for _ in range(100):
            await asyncio.sleep(0)
            most, before = max(most, submitted - before), submitted
        for connection in connections:
            connection.connection_lost(None)
        await store.close()
        return most, [b" ".join(re.findall(rb"HTTP/1.1 (\d+)", transport.written)) for transport in transports]

    most, answers = asyncio.run(scenario())
    assert (most, sorted(set(answers)), len(answers)) == (1, [b"200 200", b"201 200"], 20)


def responses_to(*sent: bytes) -> bytes:
    """What a connection of an empty store sends."""

    async def scenario() -> bytes:
        store = Store(MemoryEngine(), Limits())
        await store.open()
        connection, transport = Connection(connections_of(store)), Transport()
        connection.connection_made(transport)
        for data in sent:
            connection.data_received(data)
            for _ in range(20):
                await asyncio.sleep(0)
        connection.connection_lost(None)
        await store.close()
        return transport.written

    return asyncio.run(scenario())


def test_a_client_that_sends_its_body_with_the_head_is_not_told_to_continue() -> None:
    written = responses_to(PUT.replace(b"Host", b"Expect: 100-continue\r\nHost"))
    assert re.findall(rb"HTTP/1.1 (\d+)", written) == [b"201"]


@pytest.mark.parametrize("line", [b"BROKEN\r\n", b"GET  /kv/a HTTP/1.1\r\n", b"BREW /kv/a HTTP/1.1\r\nHost: a\r\n\r\n"])
def test_a_refused_request_line_takes_nothing_from_the_request_before_it(line: bytes) -> None:
    before = GET.replace(b"GET", b"HEAD").replace(b"Host", b"X-Request-Id: mine\r\nAccept: application/msgpack\r\nHost")
    _, _, refused = responses_to(before, line).partition(b"\r\n\r\n")
    assert refused.startswith((b"HTTP/1.1 400", b"HTTP/1.1 501"))
    assert b"mine" not in refused
    assert b'"error"' in refused


def test_an_iteration_makes_the_first_chunk_of_one_list_however_many_begin_at_once() -> None:
    async def scenario() -> list[int]:
        store = Store(MemoryEngine(), Limits())
        await store.open()
        shared = connections_of(store)
        transports = [Transport() for _ in range(20)]
        begun: list[int] = []
        try:
            for transport in transports:
                connection = Connection(shared)
                connection.connection_made(transport)
                connection.data_received(b"GET /kv HTTP/1.1\r\nHost: a\r\n\r\n")
            async with asyncio.timeout(10):
                while not all(transport.written.endswith(b"0\r\n\r\n") for transport in transports):
                    await asyncio.sleep(0)
                    begun.append(sum(bool(transport.written) for transport in transports))
        finally:
            await store.close()
        return begun

    begun = asyncio.run(scenario())
    assert begun[-1] == 20
    assert max(after - before for before, after in pairwise([0, *begun])) == 1
