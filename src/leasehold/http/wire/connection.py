"""One client's connection: requests are begun in the order in which they arrive, and answered in that order.

The service owns its listener, as databases do, so this is an `asyncio.Protocol`. The parts of a connection:

- `RequestParser` and `Reception` make requests of the bytes that arrive.
- `Connection` queues the requests and begins one after the other.
- `Answerer`, a base class, answers one request.
- `LargeBodyAnswerer` is an `Answerer` that works on large bodies and values in several iterations of the event loop.
- `QuickAnswerer`, its other base class, begins and answers requests on the fast paths.
- `Sender` sends the responses.

`states.py` says what a connection may do next. The life of a request:

    received → queued → begun (the operation of its route goes to the store) → completed (the response is posted)
"""

import asyncio
from collections import deque
from typing import Final, cast

from leasehold.errors import ServiceError
from leasehold.http.requests import Headers, Request
from leasehold.http.wire.answering import QUOTA
from leasehold.http.wire.connections import Connections
from leasehold.http.wire.deadlines import missed, timeout
from leasehold.http.wire.in_flight import SLOW_BODY_BYTES, lane_bytes
from leasehold.http.wire.quick_put import QUICK_PUTS
from leasehold.http.wire.quick_requests import QuickAnswerer
from leasehold.http.wire.request_parser import RequestParser
from leasehold.http.wire.states import AT_END, WHEN_IDLE, Answering, AtEnd, Receiving, Step, is_busy, moved
from leasehold.http.wire.trace_field import without_trace
from leasehold.limits import KIB, MAX_QUEUED_BODY_BYTES

MAX_QUEUED_REQUESTS: Final = 32
"""When more pipelined requests are queued, no more is read from the connection."""
LANE_BODY_BYTES: Final = 4 * KIB
"""Larger bodies count toward the budget of those in the write lane."""
COUNTED_BODY_BYTES: Final = 16 * KIB
"""Larger bodies count toward the budget of all connections together."""
_RENEWED: Final = -1
"""The quota that is used directly after it was renewed, in an iteration of the connection's own."""
SLICE_BYTES: Final = 4 * KIB
"""How much of a read is parsed before the queued requests are counted: one read may bring thousands."""
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
NOTHING: Final = memoryview(b"")

# Globals are looked up faster than members of an enum.
IDLE: Final = Answering.IDLE
QUEUED: Final = Answering.QUEUED
WAITING: Final = Answering.WAITING
CLOSED: Final = Answering.CLOSED
LOST: Final = Answering.LOST
BETWEEN_REQUESTS: Final = Receiving.IDLE


class Connection(QuickAnswerer, asyncio.Protocol):
    """The protocol of one accepted socket."""

    __slots__ = (
        "_awaits_quota",
        "_is_advancing",
        "_is_feeding",
        "_is_reading_paused",
        "_is_traced",
        "_parser",
        "_queue",
        "_queued_bytes",
        "_unparsed",
    )

    def __init__(self, connections: Connections) -> None:
        super().__init__(connections)
        # Reading:
        self._parser = RequestParser(self._reception, connections)
        self._is_feeding = False
        """The requests of a read are being taken. No later ones may be taken before them."""
        self._is_reading_paused = False
        self._unparsed = NOTHING
        """Read before the pause."""
        self._is_traced = False
        """The last request that `_receive_traced` was given had a `traceparent`, so it is given the next one first."""
        # Requests behind the one that is being answered:
        self._queue: deque[Request] = deque()
        self._queued_bytes = 0
        """Of their bodies."""
        self._is_advancing = False
        self._awaits_quota = False
        """The quota is used up, and `_renew_quota` is enqueued."""

    # The transport --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._sender.transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._address = peer[0] if isinstance(peer, tuple) else ""
        refusal = self._shared.admit(self, self._address)
        if refusal is not None:
            self.refuse(refusal)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's name
        self._answer_waiting()
        self._shared.forget(self, self._address)
        self._state = moved(self._state, LOST)
        self._sender.lose()
        self._end_requests()
        if self._task is not None:
            self._task.cancel()
            self._task = None  # a waiter refers to this connection

    def _receive_data(self, data: bytes, familiar: Headers | None) -> None:
        if not self._awaits_quota:
            self._quota_used = 0
        if self._is_traced and self._receive_traced(data):
            return
        if familiar is not None and self._answer_quickly(data, familiar):
            return
        if len(data) <= SLICE_BYTES:
            if data.startswith(QUICK_PUTS) and self._begin_quickly(data):
                return
            request = self._parser.recall(data)
            if request is not None:
                self._receive_recalled(request)
                return
            if not self._is_traced and self._receive_traced(data):
                return
        self._parse(data)

    def eof_received(self) -> bool:
        """The client has shut down its side. Returns True to keep the connection for the responses that are due."""
        self._answer_waiting()
        action = AT_END[self._state]
        if action is AtEnd.ANSWER:
            self._end_receiving(Receiving.CLIENT_CLOSED)
            return True
        if action is AtEnd.CANCEL and self._task is not None:
            # Not later in connection_lost: it could get the lock in between.
            self._task.cancel()
        self._close()
        return False

    def pause_writing(self) -> None:
        self.ready_for = None
        self._sender.pause()

    def resume_writing(self) -> None:
        try:
            self._sender.resume()
            self._advance()
        except BaseException as failure:  # noqa: BLE001 - the transport would only log it
            self._break_off(failure)

    # Receiving ------------------------------------------------------------------------------------------------

    def _receive_recalled(self, request: Request) -> None:
        self._receive(request)
        self._note_headers(request)

    def _receive_traced(self, data: bytes) -> bool:
        """Receive a request that has a `traceparent` and whose other fields are in the cache.

        Returns False if `data` must be parsed. The fast paths neither log a trace nor record a span.
        """
        found = without_trace(data) if len(data) <= SLICE_BYTES else None
        self._is_traced = found is not None
        if found is None:
            return False
        rest, trace = found
        shared = self._shared
        if not shared.logs_requests and (shared.record_span is None or not trace.is_sampled):
            if self._familiar is not None and self._answer_quickly(rest, self._familiar, trace):
                return True
            if rest.startswith(QUICK_PUTS) and self._begin_quickly(rest, trace):
                return True
        request = self._parser.recall(rest)
        if request is None:
            return False
        request.trace = trace
        self._receive_recalled(request)
        return True

    def _parse(self, data: bytes) -> None:
        if len(data) <= SLICE_BYTES:
            self._feed(data)
        else:
            self._unparsed = memoryview(data)
            self._feed_unparsed()
        if self._state is IDLE:
            self._rest()

    def _feed_unparsed(self) -> None:
        """Parse what was read until reading is paused."""
        while self._unparsed and not self._is_reading_paused:
            size = max(SLICE_BYTES, self._reception.awaited_bytes)  # no request begins within a body
            part, self._unparsed = self._unparsed[:size], self._unparsed[size:]
            self._feed(bytes(part))
        if not self._unparsed:
            self._unparsed = NOTHING  # an empty view still keeps the whole read in memory

    def _feed(self, data: bytes) -> None:
        self._is_feeding = True
        requests = self._parser.feed(data)
        if requests:
            self._shared.bodies.forget(self)
        for request in requests:
            if self._state is CLOSED:
                break
            self._receive(request)
        held_bytes = self._reception.held_bytes
        if held_bytes:
            self._shared.bodies.note(self, held_bytes)
        self._is_feeding = False

    def refuse(self, refusal: ServiceError) -> None:
        """Refuse the request that is being received, in its place in the queue, and receive no more."""
        self.ready_for = None
        self._reception.refuse(refusal)
        self._shared.bodies.forget(self)
        for request in self._reception.taken():
            self._receive(request)

    def _receive(self, request: Request) -> None:
        size = len(request.body)
        if size > COUNTED_BODY_BYTES:
            self._shared.bodies.take(size)
            request.max_value_bytes = self._shared.limits.max_body_bytes
        is_quick = True
        if size > LANE_BODY_BYTES:
            is_quick = size <= SLOW_BODY_BYTES and self._shared.lane_bodies.has_room(lane_bytes(request))
        if self._state is IDLE and is_quick and self._quota_used < QUOTA and not self._sender.is_paused:
            self._quota_used += 1
            self._begin(request)
            return
        self._queue.append(request)
        self._queued_bytes += size
        if self._state is IDLE:
            self._state = QUEUED
        is_much = len(self._queue) > MAX_QUEUED_REQUESTS or self._queued_bytes > MAX_QUEUED_BODY_BYTES
        if is_much and not self._is_reading_paused and self._sender.transport is not None:
            self._is_reading_paused = True
            self._sender.transport.pause_reading()
        self._advance()

    def _end_receiving(self, state: Receiving = Receiving.ENDED) -> None:
        self.ready_for = None
        self._reception.end(state)
        self._shared.bodies.forget(self)
        self._unparsed = NOTHING

    # Requests, one after the other ----------------------------------------------------------------------------

    def _advance(self) -> None:
        """Begin queued requests while none is being answered. A loop, because many may complete at once."""
        if self._is_advancing:
            return
        self._is_advancing = True
        try:
            while self._state is QUEUED and not self._sender.is_paused:
                request = self._queue[0]
                size = len(request.body)
                if self._quota_used >= QUOTA or (size > SLOW_BODY_BYTES and self._quota_used > _RENEWED):
                    self._ask_for_quota()
                    break
                if size > LANE_BODY_BYTES and not self._shared.lane_bodies.admit(self, lane_bytes(request)):
                    break
                self._quota_used += 1
                self._queue.popleft()
                self._queued_bytes -= size
                self._begin(request)
        finally:
            self._is_advancing = False

    def _finish(self, request: Request, *, close: bool) -> None:
        if request.body and len(request.body) > COUNTED_BODY_BYTES:
            self._shared.bodies.give_back(len(request.body))
        if close:
            if request.refusal is None:
                self._close()
            else:
                self._linger()
            return
        self._continue()

    def _continue(self) -> None:
        """A request is answered: begin the next one, or wait for it."""
        self._reception.since = self._shared.tick
        if self._queue:
            self._state = QUEUED
            self._advance()
        else:
            self._state = IDLE
            if self._is_reading_paused or self._reception.state is not BETWEEN_REQUESTS:
                self._rest()

    def _ask_for_quota(self) -> None:
        if not self._awaits_quota:
            self._shared.round_robin.enqueue(self._renew_quota)
            self._awaits_quota = True

    def _renew_quota(self) -> None:
        self._awaits_quota = False
        self.begin_large()

    def begin_large(self) -> None:
        self._quota_used = _RENEWED
        try:
            self._advance()
        except BaseException as failure:  # noqa: BLE001 - the loop would only log it
            self._break_off(failure)

    def _rest(self) -> None:
        """Called when all complete requests are answered: read on, send `100 Continue`, or close."""
        if self._is_feeding:
            return
        while self._is_reading_paused and self._state is IDLE:
            self._is_reading_paused = False
            self._feed_unparsed()
            if not self._is_reading_paused:
                self._sender.resume_reading()
        if self._state is not IDLE:
            return
        step = WHEN_IDLE[self._reception.state]
        if step is Step.CLOSE:
            self._close()
        elif step is Step.SEND_CONTINUE:
            self._sender.write(CONTINUE)
            self._reception.begin_body()

    # Ends -----------------------------------------------------------------------------------------------------

    def _close(self) -> None:
        """Close after the responses that were posted."""
        self._end_requests()
        self._sender.close()

    def _linger(self) -> None:
        """Send the end of the responses. The client gets time to read them before the connection is closed."""
        self._end_requests()
        if self._reception.state is Receiving.CLIENT_CLOSED:
            self._sender.close()
            return
        self._sender.shut_down()
        if self._is_reading_paused:
            self._is_reading_paused = False
            self._sender.resume_reading()

    def abort(self) -> None:
        """Close at once."""
        self._answer_waiting()
        self._end_requests()
        self._sender.abort()

    def _end_requests(self) -> None:
        """Receive no more, and drop the requests that are not answered."""
        if self._state is not LOST:
            self._state = moved(self._state, CLOSED)
        self._end_receiving()
        self._shared.lane_bodies.leave(self)
        if self._current is not None:
            self._queue.append(self._current)
            self._current = None
        self._begun = None
        for request in self._queue:
            if len(request.body) > COUNTED_BODY_BYTES:
                self._shared.bodies.give_back(len(request.body))
        self._queue.clear()
        self._queued_bytes = 0

    def stop(self) -> None:
        """The service stops. Close now, unless a request has begun; then its response closes the connection."""
        self._answer_waiting()
        if not is_busy(self._reception.state, self._state):
            self._close()

    def sweep(self) -> None:
        """End the connection if it has missed a deadline. Called once a second."""
        limits = self._shared.limits
        if self._sender.is_paused:
            if self._sender.is_stalled(limits):
                self.abort()
        elif self._state is IDLE or self._state is CLOSED:
            reception = self._reception
            deadline = missed(reception.state, limits, since=reception.since, tick=self._shared.tick)
            if deadline is None:
                return
            if deadline.message is None or not reception.has_begun:
                self.abort()
            else:
                self.refuse(timeout(deadline.message))
        elif self._state is WAITING and self._is_reading_paused and not self._sender.is_connected():
            self.abort()  # reading is paused, because of the queued requests, so nothing else notices its end
