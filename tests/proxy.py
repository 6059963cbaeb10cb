"""A TCP proxy in front of a server. It counts the bytes, and cuts or holds the connection at any byte.

It runs on the event loop of the test, or on its own thread (`proxy_on_a_thread`). A cut acts like a network failure:
both ends lose the connection, and each has received what was forwarded before.
"""

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

CHUNK_BYTES = 65_536

Watch = Callable[[bytes], int | None]
"""Gets each chunk before it is forwarded. Returns how many of its bytes may still pass, or None for all."""
NewConnection = Callable[[], tuple[Watch, Watch]]
"""Makes the watches of one connection: for data to the server, and for data from it."""


def cutting(rng: random.Random, request_bytes: int, response_bytes: int) -> NewConnection:
    """Cuts each connection at a byte of its requests or of its responses, before so many have passed."""

    def watch(left: int) -> Watch:
        def passing(data: bytes) -> int | None:
            nonlocal left
            left -= len(data)
            return None if left >= 0 else len(data) + left

        return passing

    return lambda: (watch(rng.randrange(request_bytes)), watch(rng.randrange(response_bytes)))


class Proxy:
    """Listens on `port` and forwards each connection to the server's port on loopback."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listening: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.sent_bytes = 0
        """Bytes from clients to the server."""
        self.cuts = 0
        self.to_server: Watch | None = None
        self.to_client: Watch | None = None
        self.new_connection: NewConnection | None = None
        """Used instead of the two above if a watch must know the connection of a chunk."""
        self.is_open = True
        """Whether it accepts new connections."""
        self.flows = asyncio.Event()
        """While it is cleared, nothing passes, and nobody is told: a network that loses everything."""
        self.flows.set()

    async def __aenter__(self) -> Self:
        self._listening = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._listening.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._listening is not None
        self._listening.close()
        self.flows.set()
        self.cut()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def cut(self) -> None:
        """Cut all connections."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.is_open:
            writer.transport.abort()
            return
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            writer.transport.abort()
            return
        both = (writer, server_writer)
        self._writers.update(both)
        own = (None, None) if self.new_connection is None else self.new_connection()
        for source, target, is_to_server in ((reader, server_writer, True), (server_reader, writer, False)):
            watch = own[0 if is_to_server else 1]
            pump = asyncio.get_running_loop().create_task(
                self._pump(source, target, both, watch, is_to_server=is_to_server)
            )
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        both: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
        own: Watch | None,
        *,
        is_to_server: bool,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(CHUNK_BYTES):
                watch = own or (self.to_server if is_to_server else self.to_client)
                passing = None if watch is None else watch(data)
                if is_to_server:
                    self.sent_bytes += len(data)
                await self.flows.wait()
                if passing is None and target.is_closing():
                    break  # closed during a silence
                target.write(data if passing is None else data[:passing])
                with contextlib.suppress(ConnectionError):
                    await target.drain()
                if passing is not None:
                    self.cuts += 1
                    # An orderly close on this side, so that the forwarded data arrives.
                    break
        for writer in both:
            writer.close()
            self._writers.discard(writer)


@contextlib.contextmanager
def proxy_on_a_thread(server_port: int) -> Iterator[Proxy]:
    """A proxy for the `with` block of a synchronous test. Its watches run on its own thread."""
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    over = asyncio.Event()
    proxy = Proxy(server_port)

    async def last() -> None:
        async with proxy:
            ready.set()
            await over.wait()

    def run() -> None:
        with contextlib.closing(loop):
            loop.run_until_complete(last())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(60), "the proxy did not start"
        yield proxy
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
