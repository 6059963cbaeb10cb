"""One client's connection: the order of answers, flow control, deadlines.

The service owns its listener, as databases do. `Reception` receives; here requests are done, one after the other, so
that pipelined answers are in order. A request's life:

    received → queued → begun (the route's operation goes to the store) → completed (the response is written)

All deadlines are held by one sweep a second over all connections, no timer for each request.
"""

import asyncio
import fcntl
import select
import struct
import termios
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Final, cast

import structlog

from leasehold.completions import report
from leasehold.errors import ServiceError, internal
from leasehold.http.media_types import JSON_FIRST, Media
from leasehold.http.messages import (
    Request,
    Response,
    Stream,
    encode_response,
    encode_stream_head,
    error_response,
)
from leasehold.http.routing.negotiation import error_media, negotiate
from leasehold.http.routing.refusal_log import REFUSALS
from leasehold.http.routing.routes import AsyncEndpoint, PureEndpoint
from leasehold.http.wire.connections import SWEEP_SECONDS, Connections
from leasehold.http.wire.reception import Phase, Reception
from leasehold.limits import KIB, MAX_QUEUED_BODY_BYTES
from leasehold.model import Found, NotModified, Outcome, Read, name_of
from leasehold.tasks import begun

log = structlog.get_logger(__name__)

MAX_QUEUED_REQUESTS: Final = 32
"""Pipelined requests waiting on one connection before it is read no further."""
MAX_BEGUN_AT_ONCE: Final = 8
"""Pipelined requests that one connection has answered before others have their turn."""
LARGE_BYTES: Final = 4 * KIB
"""For so much of a body, or of an answer, it counts as one more."""
COUNTED_BODY_BYTES: Final = 16 * KIB
"""The bodies of requests that wait are counted for all connections together if they are larger."""
SLOW_ANSWER_BYTES: Final = 64 * KIB
"""An answer of so much JSON that is to become MessagePack has a turn of its own: many come from one commit."""
SLICE_BYTES: Final = 4 * KIB
"""So much of what was read is received before a look at how many requests wait: one read may bring thousands."""
LINGER_SECONDS: Final = 2.0
"""How long a refused client may go on sending; closing at once would reset the connection and lose the answer."""
MESSAGEPACK: Final = Media.MESSAGEPACK
"""By itself: to look for a member of an Enum takes longer."""
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
NOTHING: Final = memoryview(b"")


class Connection(asyncio.Protocol):
    """The protocol of one accepted socket."""

    __slots__ = (
        "_address",
        "_advancing",
        "_all",
        "_continue_due",
        "_current",
        "_drained",
        "_exchange",
        "_feeding",
        "_half_closed",
        "_has_turn",
        "_is_streaming",
        "_outstanding",
        "_queue",
        "_queued_bytes",
        "_reading_paused",
        "_reception",
        "_started_at",
        "_task",
        "_transport",
        "_turn_requests",
        "_unfed",
        "_waits",
        "_write_paused",
        "_write_since",
    )

    def __init__(self, connections: Connections) -> None:
        self._all = connections
        self._transport: asyncio.Transport | None = None
        self._address = ""
        self._reception = Reception(self, connections)
        self._queue: deque[Request] = deque()
        self._queued_bytes = 0
        """Of their bodies."""
        self._current: Request | None = None
        """The request being answered; None also once the client has gone."""
        self._exchange: PureEndpoint | None = None
        self._started_at = 0.0
        self._turn_requests = 0
        """Requests begun in this connection's turn."""
        self._has_turn = True
        """Not if it has used up its turn, and the next was asked for."""
        self._task: asyncio.Task[None] | None = None
        self._waits = False
        """The task waits for something that only a caller who is still there should get."""
        self._advancing = False
        self._is_streaming = False
        """The head of an answer is sent, so that a failure can only be told by breaking off."""
        self._continue_due = False
        self._half_closed = False
        """The client will send no more, so the connection ends with the answers under way."""
        self._reading_paused = False
        self._unfed = NOTHING
        """Read before the pause, and to be received after it."""
        self._feeding = False
        self._write_paused = False
        self._write_since = 0.0
        self._outstanding = 0
        self._drained: asyncio.Event | None = None

    # The transport --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._address = peer[0] if isinstance(peer, tuple) else ""
        refusal = self._all.admit(self, self._address)
        if refusal is not None:
            self._reception.refuse(refusal)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's name
        self._all.forget(self, self._address)
        self._transport = None
        self._all.unsent.forget(self)
        if self._current is not None:
            self._queue.append(self._current)
            self._current = None
        self._drop_queue()
        self._unfed = NOTHING
        self._reception.let_go()
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._has_turn:
            self._turn_requests = 0
        if len(data) <= SLICE_BYTES:
            self._reception.feed(data)
        else:
            self._unfed = memoryview(data)
            self._feed()

    def _feed(self) -> None:
        """Take of what was read as long as there is room for requests."""
        self._feeding = True
        while self._unfed and not self._reading_paused:
            part, self._unfed = self._unfed[:SLICE_BYTES], self._unfed[SLICE_BYTES:]
            self._reception.feed(bytes(part))
        if not self._unfed:
            self._unfed = NOTHING  # a view without bytes still keeps all that was read in memory
        self._feeding = False

    def eof_received(self) -> bool:
        """The client sends no more; what it asked is still answered. True keeps the connection for that.

        One that has gone looks the same until something is sent to it. So whoever waits is taken to have left.
        """
        waiting = self._waiting_task()
        if waiting is not None:
            # Now, and not when the transport tells that the connection is lost: it may get the lock in between.
            waiting.cancel()
            self._close()
            return False
        self._half_closed = True
        self._reception.end()
        is_busy = self._current is not None or bool(self._queue)
        if not is_busy:
            self._all.send_posted()  # the transport closes now, and what is sent to a closed one is lost
        return is_busy

    def pause_writing(self) -> None:
        self._write_paused = True
        self._write_since = self._all.tick
        self._outstanding = self._outstanding_bytes()
        if self._transport is not None:
            self._all.unsent.note(self, self._transport.get_write_buffer_size())

    @property
    def still_since(self) -> float:
        return self._write_since

    def resume_writing(self) -> None:
        self._write_paused = False
        try:
            self._all.unsent.forget(self)
            if self._drained is not None:
                self._drained.set()
            self._advance()
        except BaseException as failure:  # noqa: BLE001 - the transport would only log it
            self._break_off(failure)

    # Requests, one after the other ----------------------------------------------------------------------------

    def receive(self, request: Request) -> None:
        if request.body and len(request.body) > COUNTED_BODY_BYTES:
            self._all.bodies.take(len(request.body))
            request.max_value_bytes = self._all.limits.max_body_bytes
        if (
            self._current is None
            and not self._queue
            and not self._write_paused
            and self._turn_requests < MAX_BEGUN_AT_ONCE
        ):
            self._turn_requests += 1
            self._begin(request)
            return
        self._queue.append(request)
        self._queued_bytes += len(request.body)
        is_much = len(self._queue) > MAX_QUEUED_REQUESTS or self._queued_bytes > MAX_QUEUED_BODY_BYTES
        if is_much and not self._reading_paused and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()
        self._advance()

    def _advance(self) -> None:
        """Begin the next requests while none is under way. A loop, because many may complete at once."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._queue and self._current is None and not self._write_paused:
                if self._turn_requests >= MAX_BEGUN_AT_ONCE:
                    self._end_turn()
                    break
                self._turn_requests += 1
                request = self._queue.popleft()
                self._queued_bytes -= len(request.body)
                self._begin(request)
        finally:
            self._advancing = False
        if self._current is None and not self._queue:
            self._rest()

    def _end_turn(self) -> None:
        if self._has_turn:
            self._all.give_turn(self._begin_turn)
            self._has_turn = False

    def _begin_turn(self) -> None:
        self._has_turn = True
        self._turn_requests = 0
        try:
            if self._queue:
                self._advance()
        except BaseException as failure:  # noqa: BLE001 - the loop would only log it
            self._break_off(failure)

    def _rest(self) -> None:
        """Nothing is left to do of what was received."""
        if self._transport is None or self._feeding:
            return
        if self._half_closed:
            self._close()
            return
        if self._reading_paused:
            self._reading_paused = False
            self._feed()
            if not self._reading_paused and not self._transport.is_closing():
                self._transport.resume_reading()
        if self._continue_due:
            self.expect_continue()

    def _begin(self, request: Request) -> None:
        shared = self._all
        self._current = request
        try:
            self._started_at = shared.moment()
            if request.refusal is not None:
                self._respond_error(request, request.refusal)
                return
            route = shared.router.match(request)
            request.principal = principal = shared.admission.admit(request, route.permission)
            if not request.headers.is_plain or route.offers is not JSON_FIRST:
                request.media = negotiate(request.headers.get(b"accept"), route.offers)
            endpoint = route.endpoint
            if type(endpoint) is PureEndpoint:
                self._exchange = endpoint
                operation = endpoint.operation(request)
                if principal.prefixes is not None:
                    principal.require_covered(name_of(operation))
                if isinstance(operation, Read):
                    if operation.paths is not None:
                        self._turn_requests = MAX_BEGUN_AT_ONCE  # the whole value is decoded for it
                    shared.store.read(operation, self._complete)
                else:
                    self._turn_requests += len(request.body) // LARGE_BYTES
                    shared.store.submit(operation, self._complete)
            elif type(endpoint) is AsyncEndpoint:
                self._start(endpoint, request)
        except ServiceError as refusal:
            self._refuse(request, refusal)
        except BaseException as failure:  # noqa: BLE001 - whatever it is, the client is answered
            self._fail(request, failure)

    def _start(self, procedure: AsyncEndpoint, request: Request) -> None:
        self._waits = procedure.waits
        if self._waits:
            if self._half_closed:  # it left before its turn
                self._close()
                return
            request.is_there = self._client_is_there
        self._task = begun(self._all.loop, self._run(procedure, request))

    def _complete(self, outcome: Outcome | ServiceError) -> None:
        """The store is done with the current request; its client may have gone meanwhile."""
        request = self._current
        if request is None or self._exchange is None:
            return
        is_stored = not isinstance(outcome, ServiceError | Found | NotModified)
        try:
            if isinstance(outcome, ServiceError):
                self._respond_error(request, outcome)
                return
            response = self._exchange.response(request, outcome)
            if request.media is MESSAGEPACK and len(response.body or b"") > SLOW_ANSWER_BYTES:
                self._all.give_turn(partial(self._respond_in_turn, request, response, is_stored=is_stored))
            else:
                self._respond(response)
        except BaseException as failure:  # noqa: BLE001 - as in _begin
            self._fail(request, failure, is_stored=is_stored)

    def _respond_in_turn(self, request: Request, response: Response, *, is_stored: bool) -> None:
        if self._current is not request:  # its client has gone
            return
        try:
            self._respond(response)
        except BaseException as failure:  # noqa: BLE001 - as in _begin
            self._fail(request, failure, is_stored=is_stored)

    def _waiting_task(self) -> asyncio.Task[None] | None:
        return self._task if self._waits else None

    async def _run(self, procedure: AsyncEndpoint, request: Request) -> None:
        try:
            answer = await procedure.run(request, self._all.service)
            if isinstance(answer, Stream):
                await self._send_stream(request, answer)
                return
            self._task = None
            self._respond(answer)
        except ServiceError as refusal:
            self._task = None
            self._refuse(request, refusal)
        except asyncio.CancelledError:
            self._task = None
            if self._transport is not None and not self._transport.is_closing():
                self.abort()  # the client is not there any more, though the end of its connection was not read yet
            raise
        except BaseException as failure:  # noqa: BLE001 - as in _begin
            self._task = None
            self._fail(request, failure)

    # Answers --------------------------------------------------------------------------------------------------

    def _respond(self, response: Response) -> None:
        request = self._current
        if request is None:
            return
        shared = self._all
        close = not request.keep_alive or shared.stopping
        shared.metrics.count_request(
            request.method, request.pattern, response.status, shared.moment() - self._started_at
        )
        if shared.logs_requests:
            shared.log_request(request, response.status)
        if self._transport is not None:
            templates = shared.templates
            if templates.incarnation is not shared.store.space.incarnation:
                templates = shared.renew_templates()
            data = encode_response(request, response, common=shared.common_lines, templates=templates, close=close)
            self._turn_requests += len(data) // LARGE_BYTES
            shared.post(self._transport, data)
        self._current = None  # it is answered: whatever fails from here on, it must not be answered again
        self._finish(request, close=close)

    def _respond_error(self, request: Request, error: ServiceError) -> None:
        if error.code == "internal":
            log.error(
                "request failed",
                request_id=request.request_id.decode(),
                reason=error.message,
                exc_info=error.__cause__,
                details=dict(error.details),
            )
        self._all.admission.share(request.headers)  # it may have been refused before it was admitted
        if error.status in REFUSALS:
            self._all.refusals.record(request, error, self._address)
        request.media = error_media(request.headers.get(b"accept"))
        self._respond(error_response(request, error))

    async def _send_stream(self, request: Request, stream: Stream) -> None:
        shared = self._all
        close = not request.keep_alive or shared.stopping
        common, templates = shared.common_lines, shared.renew_templates()
        head = encode_stream_head(request, stream, common=common, templates=templates, close=close)
        async with aclosing(stream.chunks) as chunks:
            if request.version == "1.0":
                raise _unframed()
            if request.method == "HEAD":
                self._write(head)
                self._is_streaming = True
            else:
                await self._send_chunks(request, head, chunks)
        self._current = self._task = None
        self._is_streaming = False
        shared.metrics.count_request(request.method, request.pattern, 200, shared.moment() - self._started_at)
        if shared.logs_requests:
            shared.log_request(request, 200)
        self._finish(request, close=close)

    async def _send_chunks(self, request: Request, head: bytes, chunks: AsyncGenerator[bytes]) -> None:
        started = False
        try:
            async for chunk in chunks:
                if not started:  # the head goes with the first chunk, so that a failure before it is a proper error
                    self._write(head)
                    started = self._is_streaming = True
                self._write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                await self._writable()
        except Exception as error:
            if not started:
                raise
            # Too late for another status: an unfinished answer is the only honest sign.
            log.warning("stream broken off", request_id=request.request_id.decode(), exc_info=error)
            self.abort()
            return
        if not started:
            self._write(head)
            self._is_streaming = True
        self._write(b"0\r\n\r\n")

    async def _writable(self) -> None:
        """Wait for a slow reader, and let others have their turn."""
        if self._write_paused:
            self._drained = asyncio.Event()
            await self._drained.wait()
            self._drained = None
        turn = asyncio.Event()
        self._all.give_turn(turn.set)
        await turn.wait()

    def _let_go(self) -> None:
        """The current request will not be answered (any more)."""
        request, self._current = self._current, None
        if request is not None and len(request.body) > COUNTED_BODY_BYTES:
            self._all.bodies.give_back(len(request.body))

    def _drop_queue(self) -> None:
        """What was received will not be answered."""
        for request in self._queue:
            if len(request.body) > COUNTED_BODY_BYTES:
                self._all.bodies.give_back(len(request.body))
        self._queue.clear()
        self._queued_bytes = 0

    def _refuse(self, request: Request, refusal: ServiceError) -> None:
        """Answer an error, or `internal` if that fails."""
        if self._is_streaming:
            self._break_off(refusal)
            return
        try:
            self._respond_error(request, refusal)
        except BaseException as failure:  # noqa: BLE001 - as in _begin
            self._fail(request, failure)

    def _fail(self, request: Request, failure: BaseException, *, is_stored: bool = False) -> None:
        """The one place where an exception that nobody foresaw becomes `internal`.

        `is_stored`: the change that was asked for is made, and only its answer failed. If the request is answered, the
        failure belongs to what came after it, so the connection ends.
        """
        if self._current is not request or self._is_streaming:
            self._break_off(failure)
            return
        message = "the change was stored, but its answer could not be made" if is_stored else "the service failed"
        error = internal(f"{message}; its log has the request id")
        error.__cause__ = failure
        try:
            self._respond_error(request, error)
        except BaseException as second:  # noqa: BLE001 - not even the error can be told
            self._break_off(second)

    def _break_off(self, failure: BaseException) -> None:
        """End the connection, because what comes next on it is unknown. What was answered before still leaves."""
        report("a connection was broken off", failure)
        self._let_go()
        try:
            if self._is_streaming:
                self.abort()  # an unfinished answer must not look complete
            else:
                self._end(linger=False)
        except BaseException as second:  # noqa: BLE001 - then at once
            report("a connection could not be closed in good order", second)
            self.abort()

    def _finish(self, request: Request, *, close: bool) -> None:
        self._current = None
        if request.body and len(request.body) > COUNTED_BODY_BYTES:
            self._all.bodies.give_back(len(request.body))
        if close:
            self._end(linger=request.refusal is not None)
            return
        self._reception.since = self._all.tick
        if self._queue:
            self._advance()
        elif self._half_closed or self._reading_paused or self._continue_due:
            self._rest()

    def _write(self, data: bytes) -> None:
        """Send now, after what was posted."""
        transport = self._transport
        self._all.send_posted()
        if transport is not None and not transport.is_closing():  # uvloop raises on a closed transport
            transport.write(data)

    def refusal_at_head(self, request: Request) -> ServiceError | None:
        """What is said of a request by its head alone, so that its body need not be received."""
        shared = self._all
        try:
            route = shared.router.match(request)
            shared.admission.admit(request, route.permission)
            if route.check_head is not None:
                route.check_head(request)
        except ServiceError as refusal:
            # Its traceback leads to all callers, one of which keeps the refusal: a cycle, with what was read in it.
            return refusal.with_traceback(None)
        except Exception as failure:  # noqa: BLE001 - as in _begin
            error = internal("the service failed; its log has the request id")
            error.__cause__ = failure
            return error
        return None

    def expect_continue(self) -> None:
        """The client waits for `100 Continue` before it sends the body; it comes after the answers before it."""
        self._continue_due = self._current is not None or bool(self._queue)
        if not self._continue_due and self._reception.phase is Phase.BODY:
            self._write(CONTINUE)

    # Ends -----------------------------------------------------------------------------------------------------

    def _end(self, *, linger: bool) -> None:
        """Close after the answers written; with `linger`, give the client time to read them."""
        self._reception.end()
        self._drop_queue()
        self._unfed = NOTHING
        self._all.send_posted()
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if linger and not self._half_closed:
            transport.write_eof()
        else:
            transport.close()

    def _close(self) -> None:
        self._all.send_posted()
        if self._transport is not None:
            self._transport.close()

    def stop(self) -> None:
        """The service stops: end now if nothing is asked, else after the answer."""
        busy = self._current is not None or self._queue or self._reception.phase is Phase.BODY
        if not busy:
            self._close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def sweep(self) -> None:
        """Hold the deadlines. Called once a second."""
        if self._write_paused:
            self._sweep_reader()
        elif self._current is None and not self._queue:
            self._sweep_sender()
        elif self._reading_paused and self._waiting_task() is not None and not self._client_is_there():
            self.abort()  # it is not read from, for the requests behind, so nobody else notices

    def _sweep_reader(self) -> None:
        outstanding = self._outstanding_bytes()
        if outstanding < self._outstanding:
            # It read before this sweep, not after it, so the deadline needs no sweep more.
            self._write_since = self._all.tick - SWEEP_SECONDS
        self._outstanding = outstanding
        if self._has_passed(self._write_since, self._all.limits.write_timeout_seconds):
            self.abort()

    def _client_is_there(self) -> bool:
        """What the system knows of one that waits, before its end is read. 2 µs."""
        sock = self._transport.get_extra_info("socket") if self._transport is not None else None
        if sock is None:
            return self._transport is not None
        poll = select.poll()
        poll.register(sock.fileno(), getattr(select, "POLLRDHUP", 0))  # elsewhere than on Linux only a reset is told
        return not poll.poll(0)

    def _sweep_sender(self) -> None:
        reception, limits = self._reception, self._all.limits
        since = reception.since
        if reception.phase is Phase.HEAD and self._has_passed(since, limits.header_timeout_seconds):
            if reception.has_begun:
                reception.refuse(ServiceError("request_timeout", "the head of the request did not come in time"))
            else:
                self.abort()  # nothing was asked, so there is nothing to answer
        elif reception.phase is Phase.BODY and self._has_passed(since, limits.body_timeout_seconds):
            reception.refuse(ServiceError("request_timeout", "the body of the request did not come in time"))
        elif (reception.phase is Phase.IDLE and self._has_passed(since, limits.idle_timeout_seconds)) or (
            reception.phase is Phase.ENDED and self._has_passed(since, LINGER_SECONDS)
        ):
            self.abort()

    def _has_passed(self, since: float, seconds: float) -> bool:
        """Whether a deadline is over. `since` may lie a whole sweep before what it marks; none shall end early."""
        return self._all.tick - since > seconds + SWEEP_SECONDS

    def _outstanding_bytes(self) -> int:
        """What was written and not yet acknowledged by the reader, the kernel's share included.

        The kernel's buffer may hold megabytes, so a slow but honest reader shows progress only there.
        """
        transport = self._transport
        if transport is None:
            return 0
        unsent = transport.get_write_buffer_size()
        sock = transport.get_extra_info("socket")
        if sock is not None and hasattr(termios, "TIOCOUTQ"):
            unsent += struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))[0]
        return unsent


def _unframed() -> ServiceError:
    """In HTTP/1.0 a stream ends with the connection, so that one which was cut off looks like a whole one."""
    return ServiceError(
        "upgrade_required",
        "lists and streams need HTTP/1.1; a proxy in front must speak it, in nginx: proxy_http_version 1.1",
        headers={"Upgrade": "HTTP/1.1"},
    )
