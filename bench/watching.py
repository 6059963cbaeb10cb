"""The load of watches: events that a server sends to many watchers at once. A client of our own, the same for all.

The client makes events in bursts: each writer sends one request, and the next burst begins when all writers have their
answers and all watchers have all events. So no server falls behind, and each event counts as often as it arrived. The
client has one thread, and reports how much of a core it used.
"""

import select
import socket
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import cycle
from time import perf_counter, process_time
from typing import Final

import msgspec

from bench.connections import ANSWER_SECONDS, body_of, connect, connections, raise_descriptor_limit
from bench.load import Load
from bench.processes import BenchError

_CHUNK_BYTES: Final = 1 << 16
_LEAST_BURSTS: Final = 2
_SUCCESS: Final = b"HTTP/1.1 200 "


class Watched(msgspec.Struct, frozen=True):
    """How a server is watched.

    `ready` and `event` are bytes that a stream has once, when it has begun, and once in each event.
    """

    watch: bytes
    """The request that begins a stream of all events of the bench's keys."""
    ready: bytes
    event: bytes
    publish: Callable[[str, bytes], bytes]
    """The request that makes an event, from a key and the JSON text of a value."""
    shown: Callable[[bytes], bytes]
    """What an event has in it for a JSON text."""


class MarkCounter:
    """Counts a mark in a stream that arrives in parts. The mark has at least two bytes, and does not overlap itself."""

    __slots__ = ("_mark", "_tail", "count")

    def __init__(self, mark: bytes) -> None:
        self._mark = mark
        self._tail = b""
        """The end of what was received, which may be the beginning of a mark."""
        self.count = 0

    def feed(self, part: bytes) -> None:
        received = self._tail + part
        self.count += received.count(self._mark)
        self._tail = received[1 - len(self._mark) :]


class Watcher:
    """A connection that is sent events."""

    __slots__ = ("_counter", "connection")

    def __init__(self, stack: ExitStack, port: int, watched: Watched) -> None:
        self.connection = stack.enter_context(connect(port))
        self._counter = MarkCounter(watched.event)

    @property
    def events(self) -> int:
        """How many were received."""
        return self._counter.count

    def begin(self, watched: Watched) -> None:
        self.connection.sendall(watched.watch)

    def wait_for(self, mark: bytes) -> None:
        """Receive until `mark` has arrived."""
        received = b""
        while mark not in received:
            part = self.connection.recv(_CHUNK_BYTES)
            received += part
            if not part or not received.startswith(_SUCCESS[: len(received)]):
                raise BenchError(f"a watcher was answered with {received[:200]!r}")
        self._counter.feed(received)

    def receive(self) -> None:
        """Read once, and count the events."""
        part = self.connection.recv(_CHUNK_BYTES)
        if not part:
            raise BenchError("the stream of a watcher ended")
        self._counter.feed(part)


class _Writer:
    """A connection that makes events."""

    __slots__ = ("_received", "connection")

    def __init__(self, stack: ExitStack, port: int) -> None:
        self.connection = stack.enter_context(connect(port))
        self._received = b""

    def receive(self) -> bool:
        """Read once. Whether the answer is complete."""
        self._received += self.connection.recv(_CHUNK_BYTES)
        if body_of(self._received) is None:
            return False
        self._received = b""
        return True


class Crowd:
    """Watchers, and writers that make events for all of them."""

    def __init__(self, stack: ExitStack, port: int, watched: Watched, *, watchers: int, writers: int) -> None:
        self._ready = stack.enter_context(select.epoll())
        self._watchers = {each.connection.fileno(): each for each in begun(stack, port, watched, watchers)}
        self._writers = {each.connection.fileno(): each for each in (_Writer(stack, port) for _ in range(writers))}
        for descriptor in (*self._watchers, *self._writers):
            self._ready.register(descriptor, select.EPOLLIN)
        for watcher in self._watchers.values():
            watcher.connection.settimeout(0)  # a socket with a timeout polls before each read
        self._due = 0
        """How many events each watcher has after the last burst."""

    def burst(self, requests: Sequence[bytes]) -> None:
        """Send a request with each writer. Returns when all are answered and all watchers have all events."""
        for writer, request in zip(self._writers.values(), requests, strict=True):
            writer.connection.sendall(request)
        self._due += len(requests)
        unanswered, behind, due = len(requests), len(self._watchers), self._due
        while unanswered or behind:
            found = self._ready.poll(ANSWER_SECONDS)
            if not found:
                raise BenchError(f"{unanswered} writers without an answer, {behind} watchers without all events")
            for descriptor, _ in found:
                watcher = self._watchers.get(descriptor)
                if watcher is None:
                    unanswered -= self._writers[descriptor].receive()
                    continue
                before = watcher.events
                watcher.receive()
                if before < due == watcher.events:
                    behind -= 1
                elif watcher.events > due:
                    raise BenchError("a watcher was sent more events than there are")


def begun(stack: ExitStack, port: int, watched: Watched, count: int) -> Iterator[Watcher]:
    """Watchers whose streams have begun."""
    raise_descriptor_limit(count)
    watchers = [Watcher(stack, port, watched) for _ in range(count)]
    for watcher in watchers:
        watcher.begin(watched)
    for watcher in watchers:
        watcher.wait_for(watched.ready)
        yield watcher


def check_delivery(port: int, watched: Watched, name: str, text: bytes) -> None:
    """Raises BenchError unless a watcher is sent this value when it is written."""
    with connections() as stack:
        [watcher] = begun(stack, port, watched, 1)
        writer = _Writer(stack, port)
        writer.connection.sendall(watched.publish(name, text))
        received = b""
        while watched.shown(text) not in received:
            part = _receive(watcher.connection)
            received += part
        while not writer.receive():
            pass


def _receive(connection: socket.socket) -> bytes:
    try:
        part = connection.recv(_CHUNK_BYTES)
    except TimeoutError as error:
        raise BenchError("a watcher is not sent the value that was written") from error
    if not part:
        raise BenchError("the stream of a watcher ended")
    return part


def run_watchers(
    port: int, watched: Watched, *, watchers: int, bursts: Sequence[Sequence[bytes]], seconds: int
) -> Load:
    """Make events for `seconds`, but at least two bursts. An operation is an event that a watcher received.

    `bursts`: the requests of each burst, repeated in a cycle. All bursts have the same length. The latencies are those
    of the last event of each burst, at the last watcher.
    """
    size = len(bursts[0])
    with connections() as stack:
        crowd = Crowd(stack, port, watched, watchers=watchers, writers=size)
        crowd.burst(bursts[0])
        latencies: list[float] = []
        started, own_started = perf_counter(), process_time()
        ended = started
        for requests in cycle(bursts):
            if ended > started + seconds and len(latencies) >= _LEAST_BURSTS:
                break
            began = ended
            crowd.burst(requests)
            ended = perf_counter()
            latencies.append(ended - began)
        own_share = (process_time() - own_started) / (ended - started)
    percentiles = statistics.quantiles(latencies, n=100)
    rate = len(latencies) * size * watchers / (ended - started)
    return Load(rate, 1e3 * percentiles[49], 1e3 * percentiles[98], client_share=own_share)
