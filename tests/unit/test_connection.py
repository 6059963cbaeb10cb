"""A connection by itself, with a transport that sends nowhere."""

import asyncio
import gc

from leasehold.engines.memory import MemoryEngine
from leasehold.http import entries
from leasehold.http.admission import Admission
from leasehold.http.connection import Connection
from leasehold.http.connections import Connections
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


def living_connections() -> int:
    return sum(isinstance(each, Connection) for each in gc.get_objects())


def test_a_connection_that_was_lost_goes_without_the_collector() -> None:
    """It comes seldom, and thousands may come and go until then."""

    async def scenario() -> tuple[bytes, int]:
        metrics = Metrics()
        store = Store(MemoryEngine(), Limits(), metrics)
        await store.open()
        service = Service(store, Limits(), lambda: 0.0, b"{}", metrics, dict)
        shared = Connections(Router(entries.ROUTES), Admission(None, None), service, logs_requests=False)
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
