"""Sending responses: posted to be sent together, written at once, or streamed at the client's pace.

`Outbox` and `RoundRobin` belong to the server and serve all connections. A `Sender` is the sending half of one.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Final, Protocol

from leasehold.completions import report
from leasehold.errors import ServiceError
from leasehold.http.pieces import LAST_CHUNK, chunked
from leasehold.http.wire import socket_state
from leasehold.http.wire.deadlines import ReadProgress
from leasehold.http.wire.in_flight import UnsentAnswers
from leasehold.limits import KIB, Limits

MAX_POSTED_BYTES: Final = 256 * KIB
"""More than this is sent at once. Only the transport notices that a client does not read, and one read may bring
thousands of requests for large values."""
UNCOUNTED_BYTES: Final = 4 * KIB
"""A response up to this size need not be counted if it is the only one that one read brings."""


class Outbox:
    """Responses that are sent together at the end of an iteration of the event loop.

    A response that is sent alone wakes the process that reads it. Responses that are sent together wake it once:
    a quarter more GETs a second.
    """

    __slots__ = ("_bytes", "_loop", "answers")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.answers: list[tuple[asyncio.Transport, bytes]] = []
        """If there are any, or if it calls `flush` in this iteration, a caller may append a response of up to
        UNCOUNTED_BYTES in place of a call of `post`."""
        self._bytes = 0

    def post(self, transport: asyncio.Transport, data: bytes) -> None:
        size = len(data)
        if not self.answers:
            self._loop.call_soon(self.flush)
        self.answers.append((transport, data))
        # Nothing raises from here on: the response will be sent, and its request must not be answered again.
        self._bytes += size
        if self._bytes > MAX_POSTED_BYTES:
            self.flush()

    def flush(self) -> None:
        """Send what was posted. Never raises: a response that cannot be sent aborts only its own connection."""
        if not self.answers:
            return
        posted, self.answers = self.answers, []
        self._bytes = 0
        transport: asyncio.Transport | None = None
        answers: Iterator[tuple[asyncio.Transport, bytes]] | None = None
        while True:
            try:
                if answers is None:
                    answers = iter(posted)
                for transport, data in answers:
                    transport.write(data)
                return
            except BaseException as failure:  # noqa: BLE001 - the other responses must be sent
                # uvloop raises on a closed transport. To ask each one before takes 1 % of the instructions of a GET.
                if transport is None or not transport.is_closing():
                    report("an answer could not be sent", failure)
                if transport is not None:
                    transport.abort()


class RoundRobin:
    """Round-robin among long senders: one callback per iteration of the event loop.

    A callback takes up to 1 ms and blocks the event loop for so long. When hundreds of lists continued in the same
    iteration, a GET took 0.1 s.
    """

    __slots__ = ("_callbacks", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._callbacks: deque[Callable[[], None]] = deque()

    def enqueue(self, callback: Callable[[], None]) -> None:
        """Call `callback` after all that were enqueued before it."""
        if not self._callbacks:
            self._loop.call_soon(self._call_next)
        self._callbacks.append(callback)

    def _call_next(self) -> None:
        callback = self._callbacks.popleft()
        try:
            if self._callbacks:
                self._loop.call_soon(self._call_next)
        except BaseException as failure:  # noqa: BLE001 - nothing else would call the rest
            report("long senders continue at once", failure)
            while self._callbacks:
                self._callbacks.popleft()()
        callback()


class SendingContext(Protocol):
    """What all senders of a server share."""

    outbox: Outbox
    round_robin: RoundRobin
    unsent: UnsentAnswers
    tick: float


class Sender:
    """The sending half of a connection.

    `is_paused`: the client reads more slowly than responses are made, so no request is begun.
    """

    __slots__ = ("_context", "_progress", "_resumed", "is_paused", "transport")

    def __init__(self, context: SendingContext) -> None:
        self._context = context
        self.transport: asyncio.Transport | None = None
        """None before the connection is made and after it is lost. The receiving half pauses it, too."""
        self.is_paused = False
        self._progress = ReadProgress()
        self._resumed: asyncio.Event | None = None

    @property
    def is_closing(self) -> bool:
        return self.transport is None or self.transport.is_closing()

    def is_connected(self) -> bool:
        return self.transport is not None and socket_state.is_connected(self.transport)

    # Flow control ---------------------------------------------------------------------------------------------

    def pause(self) -> None:
        self.is_paused = True
        self._progress.begin(self._unacknowledged_bytes(), tick=self._context.tick)
        if self.transport is not None:
            self._context.unsent.note(self, self.transport.get_write_buffer_size())

    def resume(self) -> None:
        self.is_paused = False
        self._context.unsent.forget(self)
        if self._resumed is not None:
            self._resumed.set()

    def is_stalled(self, limits: Limits) -> bool:
        """Whether the client has missed its deadline as a reader. Called by each sweep while the sender is paused."""
        return self._progress.has_stalled(self._unacknowledged_bytes(), limits, tick=self._context.tick)

    @property
    def last_progress(self) -> float:
        """The tick since which the client has read nothing."""
        return self._progress.since

    def _unacknowledged_bytes(self) -> int:
        return 0 if self.transport is None else socket_state.unacknowledged_bytes(self.transport)

    # Sending --------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send now, after what was posted."""
        transport = self.transport
        self._context.outbox.flush()
        if transport is not None and not transport.is_closing():  # uvloop raises on a closed transport
            transport.write(data)

    async def stream(self, first: bytes | None, rest: AsyncGenerator[bytes]) -> None:
        """Send a body in chunks, at the client's pace. `first`: None if there are no chunks."""
        if first is not None:
            await self._send_chunk(first)
            async for chunk in rest:
                await self._send_chunk(chunk)
        self.write(LAST_CHUNK)

    async def _send_chunk(self, chunk: bytes) -> None:
        self.write(chunked(chunk))
        await self.give_way()

    async def give_way(self) -> None:
        """Return when the client has read what was sent, and other long senders were served."""
        if self.is_paused:
            self._resumed = asyncio.Event()
            await self._resumed.wait()
            self._resumed = None
        others_served = asyncio.Event()
        self._context.round_robin.enqueue(others_served.set)
        await others_served.wait()

    # Ends -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close after everything is sent."""
        self._context.outbox.flush()
        if self.transport is not None:
            self.transport.close()

    def shut_down(self) -> None:
        """Shut down the sending side. What the client sends is still read."""
        self._context.outbox.flush()
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write_eof()

    def abort(self) -> None:
        """Close at once. Unsent bytes are dropped."""
        if self.transport is not None:
            self.transport.abort()

    def resume_reading(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def lose(self) -> None:
        """Called when the connection is lost."""
        self.transport = None
        self._context.unsent.forget(self)


def unframed() -> ServiceError:
    """In HTTP/1.0 the end of the connection ends a stream, so an incomplete one would look complete."""
    return ServiceError(
        "upgrade_required",
        "lists and streams need HTTP/1.1; a proxy in front must speak it, in nginx: proxy_http_version 1.1",
        headers={"Upgrade": "HTTP/1.1"},
    )
