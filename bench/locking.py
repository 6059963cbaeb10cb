"""The load of locks, and many requests that wait for one: a client of our own, the same for every side.

wrk cannot do this: a release names a value from the previous answer on the same connection, and wrk does not tell its
script on which connection an answer came. This client has one thread, checks each answer, and reports how much of a
core it used. That must stay well below one core, otherwise the client is what is measured.
"""

import select
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from time import perf_counter, process_time
from typing import Final

import msgspec

from bench.connections import ANSWER_SECONDS, body_of, connect, connections, raise_descriptor_limit
from bench.load import Load
from bench.processes import BenchError

LEASE_SECONDS: Final = 60
"""The ttl of the leases in the load, on every side."""
_NO_ANSWER_SECONDS: Final = 0.3
"""A caller without an answer after this time counts as waiting."""
_CHUNK_BYTES: Final = 1 << 16


class Locker(msgspec.Struct, frozen=True):
    """The requests that one client sends again and again."""

    acquire: bytes
    release: Callable[[bytes], bytes]
    """The request that releases a lock, from the body of the answer to `acquire`."""


class _Client:
    """One connection. Each request is sent when the previous answer has arrived."""

    __slots__ = ("_locker", "_received", "began", "connection", "holds")

    def __init__(self, stack: ExitStack, port: int, locker: Locker) -> None:
        self.connection = stack.enter_context(connect(port))
        self._locker = locker
        self._received = b""
        self.holds = False
        """Whether it holds the lock: until the answer to its release."""
        self.began = 0.0
        """When it last started to acquire."""

    def acquire(self) -> None:
        self.began = perf_counter()
        self.connection.sendall(self._locker.acquire)

    def release(self, acquired: bytes) -> None:
        self.connection.sendall(self._locker.release(acquired))

    def receive(self) -> bytes | None:
        """Read once. Returns the body of the answer when it is complete."""
        self._received += self.connection.recv(_CHUNK_BYTES)
        body = body_of(self._received)
        if body is not None:
            self._received = b""
            self.holds = not self.holds
        return body

    def answer(self) -> bytes:
        while (body := self.receive()) is None:
            pass
        return body


def check_exclusion(port: int, first: Locker, second: Locker) -> None:
    """Raises BenchError unless `second` waits for a lock that `first` holds, and gets it after the release."""
    with connections() as stack:
        one, other = (_Client(stack, port, locker) for locker in (first, second))
        one.acquire()
        acquired = one.answer()
        other.acquire()
        if select.select([other.connection], [], [], _NO_ANSWER_SECONDS)[0]:
            raise BenchError("two clients hold the same lock")
        one.release(acquired)
        one.answer()
        other.release(other.answer())
        other.answer()


def run_lockers(port: int, lockers: Sequence[Locker], *, seconds: int) -> Load:
    """Pairs of acquire and release, on a connection for each of `lockers`. Raises BenchError if one fails.

    Every client ends with a release. What ends after `seconds` does not count.
    """
    with connections() as stack, select.epoll() as ready:
        clients = {client.connection.fileno(): client for client in (_Client(stack, port, it) for it in lockers)}
        for descriptor in clients:
            ready.register(descriptor, select.EPOLLIN)
        latencies: list[float] = []
        started, own_started = perf_counter(), process_time()
        end = started + seconds
        for client in clients.values():
            client.acquire()
        while clients:
            events = ready.poll(ANSWER_SECONDS)
            if not events:
                raise BenchError(f"no answer to {len(clients)} clients")
            for descriptor, _ in events:
                client = clients[descriptor]
                body = client.receive()
                if body is None:
                    continue
                if client.holds:
                    client.release(body)
                elif (now := perf_counter()) < end:
                    latencies.append(now - client.began)
                    client.acquire()
                else:
                    ready.unregister(descriptor)
                    del clients[descriptor]
        own_share = (process_time() - own_started) / (perf_counter() - started)
    if len(latencies) < 2:
        raise BenchError(f"{len(latencies)} pairs of acquire and release")
    percentiles = statistics.quantiles(latencies, n=100)
    return Load(len(latencies) / seconds, 1e3 * percentiles[49], 1e3 * percentiles[98], client_share=own_share)


@contextmanager
def waiting(port: int, requests: Sequence[bytes]) -> Iterator[None]:
    """Send all requests and check that none gets an answer until the block ends. Raises BenchError."""
    raise_descriptor_limit(len(requests))
    with connections() as stack, select.epoll() as ready:
        for request in requests:
            connection = stack.enter_context(connect(port))
            connection.sendall(request)
            ready.register(connection, select.EPOLLIN)
        yield
        if answered := ready.poll(0):
            raise BenchError(f"{len(answered)} or more of {len(requests)} did not wait")
