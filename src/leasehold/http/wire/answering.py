"""Answering one request: begin it, let the store or a task complete it, and send the response, whatever fails.

`Answerer` is the part of a connection that does this for one request. `Connection` calls `_begin`, and implements
`_finish`, which is called when the request is answered. Unexpected exceptions become `internal` in `_fail`.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Generator
from contextlib import aclosing
from functools import partial
from typing import Final, TypeVar

import structlog

from leasehold.completions import report
from leasehold.errors import ServiceError, internal
from leasehold.http.encoding import encode_response, encode_stream_head
from leasehold.http.media_types import JSON_FIRST, Media
from leasehold.http.pieces import LAST_CHUNK, whole
from leasehold.http.requests import Request
from leasehold.http.responses import EventStream, Response, Stream, error_response
from leasehold.http.routing.admission import require_covered
from leasehold.http.routing.negotiation import error_media, negotiate, negotiate_or_bytes
from leasehold.http.routing.refusal_log import REFUSALS
from leasehold.http.routing.route import AcquireEndpoint, AsyncEndpoint, PureEndpoint, ReadBody, Route
from leasehold.http.wire.connections import Connections
from leasehold.http.wire.in_flight import STEPWISE_BODY_BYTES
from leasehold.http.wire.reception import Reception
from leasehold.http.wire.sending import Sender, unframed
from leasehold.http.wire.states import Answering, Receiving, moved
from leasehold.limits import KIB
from leasehold.model import Operation, Outcome, Read, is_change
from leasehold.namespaces import DEFAULT_NAMESPACE
from leasehold.tasks import Cancellable, start_task

log = structlog.get_logger(__name__)

QUOTA: Final = 8
"""How many pipelined requests of one connection are begun before other connections are served."""
LARGE_BYTES: Final = 4 * KIB
"""A request counts once more toward the quota for each so many bytes of its body and of its response."""
SLOW_ANSWER_BYTES: Final = 64 * KIB
"""A longer response is converted to MessagePack in iterations of its own: one commit may complete many requests."""

# Globals are looked up faster than members of an enum.
WORKING: Final = Answering.WORKING
STREAMING: Final = Answering.STREAMING
WAITING: Final = Answering.WAITING
MESSAGEPACK: Final = Media.MESSAGEPACK

Work = TypeVar("Work")


class Answerer(ABC):
    """The part of a connection that answers one request."""

    __slots__ = (
        "_address",
        "_current",
        "_endpoint",
        "_is_in_lane",
        "_quota_used",
        "_reception",
        "_sender",
        "_shared",
        "_started_at",
        "_state",
        "_store",
        "_task",
    )

    def __init__(self, connections: Connections) -> None:
        self._shared = connections
        self._address = ""
        self._state = Answering.IDLE
        self._reception = Reception(connections)
        self._sender = Sender(connections)
        self._quota_used = 0
        # Of the request that is being answered:
        self._current: Request | None = None
        self._store = connections.store
        """That of its namespace."""
        self._endpoint: PureEndpoint | AcquireEndpoint | None = None
        self._is_in_lane = False
        """Its body counts as one in the lane, also after the connection is closed."""
        self._started_at = 0.0
        self._task: Cancellable | None = None
        """The task that works on it, or its place in the queue of a lock."""

    @abstractmethod
    def _finish(self, request: Request, *, close: bool) -> None:
        """Called when the request is answered. `close`: no more are answered."""

    @abstractmethod
    def _continue(self) -> None:
        """Begin the next request, or wait for it. Called by `_finish`, too."""

    @abstractmethod
    def _close(self) -> None:
        """Close after the responses that were posted."""

    @abstractmethod
    def abort(self) -> None:
        """Close at once."""

    @abstractmethod
    def _read_large(self, request: Request, read_body: ReadBody, endpoint: PureEndpoint) -> None:
        """Read a large body in steps, then call `_ask_store`."""

    @abstractmethod
    def _submit_change(self, request: Request, operation: Operation) -> None:
        """Put a change into the lane, in a later iteration if it must be prepared. `_complete` is called then."""

    @abstractmethod
    def _read_in_steps(self, request: Request, steps: Generator[None, None, Outcome]) -> None:
        """Do `steps` in later iterations. Their result is the outcome of the request; `_complete` is called with it."""

    @abstractmethod
    def _respond_in_steps(self, request: Request, response: Response, outcome: Outcome | ServiceError | None) -> None:
        """Make the body of a large response in later iterations, then send it. `outcome`: what it shows."""

    @abstractmethod
    def begin_large(self) -> None:
        """Begin the next request in an iteration of the connection's own. Never raises."""

    def _begin(self, request: Request) -> None:
        shared = self._shared
        self._current = request
        self._state = WORKING
        try:
            self._started_at = shared.moment()
            if request.refusal is not None:
                self._respond_error(request, request.refusal)
                return
            route = shared.router.match(request)
            request.principal = shared.admission.admit(request, route)
            self._store = shared.store
            if request.namespace is not DEFAULT_NAMESPACE and route.needs_store:
                store = shared.stores.opened(request.namespace)
                if store is None:
                    self._task = start_task(shared.loop, self._run(request, self._open_store, route))
                    return
                self._store = store
            self._begin_admitted(request, route)
        except ServiceError as refusal:
            self._refuse(request, refusal)
        except BaseException as failure:  # noqa: BLE001 - whatever it is, the client is answered
            self._fail(request, failure)

    async def _open_store(self, request: Request, route: Route) -> None:
        """Begin a request whose namespace is used for the first time, or does not exist."""
        store = await self._shared.stores.open(request.namespace)
        self._task = None
        if self._current is request:  # otherwise the connection is closed
            self._store = store
            self._begin_admitted(request, route)

    def _begin_admitted(self, request: Request, route: Route) -> None:
        """Begin a request that was admitted, in the namespace of `_store`. Raises what its endpoint raises."""
        endpoint = route.endpoint
        if not request.headers.is_plain or route.offers is not JSON_FIRST:
            accept = request.headers.get(b"accept")
            request.media = (negotiate_or_bytes if route.serves_bytes else negotiate)(accept, route.offers)
            endpoint = self._shared.idempotency.endpoint_of(request, route)
        if type(endpoint) is PureEndpoint:
            self._endpoint = endpoint
            if request.lane_bytes and len(request.body) > STEPWISE_BODY_BYTES and route.read_body is not None:
                self._read_large(request, route.read_body, endpoint)
            else:
                self._ask_store(request, endpoint)
        elif not isinstance(endpoint, PureEndpoint):
            self._start(endpoint, request)

    def _ask_store(self, request: Request, endpoint: PureEndpoint) -> None:
        operation = endpoint.operation(request)
        if request.principal.prefixes is not None:
            require_covered(request.principal, operation)
        if isinstance(operation, Read):
            if operation.paths is None:
                self._store.read(operation, self._complete)
            else:
                self._quota_used = QUOTA  # the whole value is decoded for it
                self._store.read(operation, self._complete, partial(self._read_in_steps, request))
            return
        self._submit_change(request, operation)

    def _leave_lane(self) -> None:
        self._shared.lane_bodies.give_back(self)
        self._is_in_lane = False

    def _complete(self, outcome: Outcome | ServiceError) -> None:
        """Called by the store with the outcome of the current request. The connection may be closed by then."""
        if self._is_in_lane:
            self._leave_lane()
        request = self._current
        if request is None or self._endpoint is None:
            return
        self._task = None
        try:
            if isinstance(outcome, ServiceError):
                self._respond_error(request, outcome)
                return
            self._respond_in_turn(request, self._endpoint.response(request, outcome), outcome)
        except BaseException as failure:  # noqa: BLE001 - as in _begin
            self._fail(request, failure, is_stored=is_change(outcome))

    def _respond_in_turn(
        self, request: Request, response: Response, outcome: Outcome | ServiceError | None = None
    ) -> None:
        """`outcome`: what the response shows, if the store was asked."""
        is_slow = request.media is MESSAGEPACK and len(response.body or b"") > SLOW_ANSWER_BYTES
        if is_slow or response.pieces is not None:
            self._respond_in_steps(request, response, outcome)
        else:
            self._respond(response)

    def _start(self, endpoint: AcquireEndpoint | AsyncEndpoint, request: Request) -> None:
        if endpoint.waits and self._reception.state is Receiving.CLIENT_CLOSED:
            self._close()  # the client may be gone, and must not get the lock
        elif isinstance(endpoint, AcquireEndpoint):
            self._acquire(endpoint, request)
        else:
            if endpoint.waits:
                self._state = WAITING
            self._task = start_task(self._shared.loop, self._run(request, self._answer, endpoint))

    # Requests that wait for a lock ----------------------------------------------------------------------------

    def _acquire(self, endpoint: AcquireEndpoint, request: Request) -> None:
        operation, wait_seconds = endpoint.operation(request)
        if request.principal.prefixes is not None:
            require_covered(request.principal, operation)
        self._endpoint = endpoint
        self._state = WAITING
        self._task = self._store.acquire(operation, wait_seconds, self._complete, self._may_get_lock)

    def _may_get_lock(self) -> bool:
        """Whether the client is still there. If it is not, nothing else will end the connection."""
        if self._state is WAITING and self._sender.is_connected():
            return True
        self.abort()
        return False

    # Requests that stream or wait -----------------------------------------------------------------------------

    async def _run(self, request: Request, work: Callable[[Request, Work], Awaitable[None]], on: Work) -> None:
        """Await `work(request, on)`, which answers the request. If it raises, the error is the answer."""
        try:
            await work(request, on)
        except ServiceError as refusal:
            self._task = None
            self._refuse(request, refusal)
        except asyncio.CancelledError:
            self._task = None
            if not self._sender.is_closing:
                self.abort()  # the client is gone, though the end of its data was not read yet
            raise
        except BaseException as failure:  # noqa: BLE001 - as in _begin
            self._task = None
            self._fail(request, failure)

    async def _answer(self, request: Request, endpoint: AsyncEndpoint) -> None:
        answer = await endpoint.run(request, self._shared.service_of(self._store))
        if isinstance(answer, Stream):
            await self._send_stream(request, answer)
        elif isinstance(answer, EventStream):
            await self._send_events(request, answer)
        else:
            if answer.pieces is not None:
                answer = await whole(answer, self._store.turn)
            self._task = None
            self._respond(answer)

    async def _send_stream(self, request: Request, stream: Stream) -> None:
        """Send the head when the first chunk is made, so that a failure before it still gets an error response."""
        shared = self._shared
        close = not request.keep_alive or shared.stopping
        common, templates = shared.common_lines, shared.templates_of(self._store)
        head = encode_stream_head(request, stream, common=common, templates=templates, close=close)
        async with aclosing(stream.chunks) as chunks:
            if request.version == "1.0":
                raise unframed()
            await self._sender.give_way()  # many clients may have begun in this iteration, and a chunk takes 1 ms
            first = None if request.method == "HEAD" else await anext(chunks, None)
            if self._state is not WORKING:  # the connection is closed
                return
            self._sender.write(head)
            self._state = moved(self._state, STREAMING)
            if request.method != "HEAD":
                try:
                    await self._sender.stream(first, chunks)
                except Exception as error:  # the status is sent already: only an incomplete response shows it
                    log.warning("stream broken off", **request.log_fields, exc_info=error)
                    self.abort()
        self._task = None
        self._shared.note(request, 200, self._started_at, self._address)
        if self._state is STREAMING:
            self._current = None
            self._finish(request, close=close)

    async def _send_events(self, request: Request, stream: EventStream) -> None:
        """Send the head at once, then what the stream sends until it ends. It may take days."""
        if request.version == "1.0":
            raise unframed()
        shared = self._shared
        close = not request.keep_alive or shared.stopping
        common, templates = shared.common_lines, shared.templates_of(self._store)
        head = encode_stream_head(request, stream, common=common, templates=templates, close=close)
        if self._state is not WAITING:  # the connection is closed
            return
        self._current = None  # whatever fails from here on, the request must not be answered again
        self._sender.write(head)
        self._shared.note(request, 200, self._started_at, self._address)
        if request.method != "HEAD":
            try:
                await stream.run(self._sender)
                self._sender.write(LAST_CHUNK)
            except Exception as error:  # only an incomplete response shows it
                log.warning("stream broken off", **request.log_fields, exc_info=error)
                self.abort()
        self._task = None
        if self._state is WAITING:
            self._finish(request, close=close or shared.stopping)

    # Responses ------------------------------------------------------------------------------------------------

    def _respond(self, response: Response) -> None:
        request = self._current
        if request is None:
            return
        shared = self._shared
        close = not request.keep_alive or shared.stopping
        shared.note(request, response.status, self._started_at, self._address)
        if (transport := self._sender.transport) is not None:
            templates = shared.templates
            if templates.incarnation is not self._store.space.incarnation:
                templates = shared.templates_of(self._store)
            data = encode_response(request, response, common=shared.common_lines, templates=templates, close=close)
            self._quota_used += len(data) // LARGE_BYTES
            shared.outbox.post(transport, data)
        self._current = None  # whatever fails from here on, the request must not be answered again
        self._finish(request, close=close)

    def _respond_error(self, request: Request, error: ServiceError) -> None:
        if error.code == "internal":
            details = dict(error.details)
            log.error(
                "request failed", **request.log_fields, reason=error.message, exc_info=error.__cause__, details=details
            )
        self._shared.count_refusal(error)
        self._shared.admission.set_cors_lines(request.headers)  # it may have been refused before it was admitted
        if error.status in REFUSALS:
            self._shared.refusals.record(request, error, self._address)
        request.media = error_media(request.headers.get(b"accept"))
        self._respond_in_turn(request, error_response(request, error))

    def _refuse(self, request: Request, refusal: ServiceError) -> None:
        """Respond with an error, or with `internal` if that fails."""
        if self._state is STREAMING:
            self._break_off(refusal)
            return
        try:
            self._respond_error(request, refusal)
        except BaseException as failure:  # noqa: BLE001 - as in _begin
            self._fail(request, failure)

    def _fail(self, request: Request, failure: BaseException, *, is_stored: bool = False) -> None:
        """The only place where an unexpected exception becomes `internal`.

        `is_stored`: the change was made, and only its response failed. If the request is answered already, something
        after it failed, so the connection is closed.
        """
        if self._current is not request or self._state is STREAMING:
            self._break_off(failure)
            return
        message = "the change was stored, but its answer could not be made" if is_stored else "the service failed"
        error = internal(f"{message}; its log has the request id")
        error.__cause__ = failure
        try:
            self._respond_error(request, error)
        except BaseException as second:  # noqa: BLE001 - not even the error response can be made
            self._break_off(second)

    def _break_off(self, failure: BaseException) -> None:
        """Close the connection, because its state is unknown. Responses that were posted before are still sent."""
        report("a connection was broken off", failure)
        try:
            if self._state is STREAMING:
                self.abort()  # an incomplete response must not look complete
            else:
                self._close()
        except BaseException as second:  # noqa: BLE001 - then close at once
            report("a connection could not be closed in good order", second)
            self._sender.abort()
