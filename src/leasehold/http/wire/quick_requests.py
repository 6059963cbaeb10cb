"""Requests on the fast paths: begun, completed, answered.

`QuickAnswerer` is the part of a connection that lets `quick_get` and `quick_put` begin or answer a request. Whatever a
fast path does not answer, the general path does (`Answerer`).
"""

from abc import abstractmethod
from typing import Final

from leasehold.completions import report
from leasehold.errors import ServiceError
from leasehold.http.requests import Headers, Request
from leasehold.http.routing.route import PureEndpoint
from leasehold.http.wire.answering import LARGE_BYTES, QUOTA
from leasehold.http.wire.connections import Connections
from leasehold.http.wire.large_bodies import LargeBodyAnswerer
from leasehold.http.wire.quick_get import BegunGet
from leasehold.http.wire.quick_put import BegunPut
from leasehold.http.wire.sending import UNCOUNTED_BYTES
from leasehold.http.wire.states import Answering, Receiving
from leasehold.limits import KIB
from leasehold.model import ENTRY, Entry, Outcome, Read
from leasehold.trace_context import TraceContext

# Globals are looked up faster than members of an enum.
IDLE: Final = Answering.IDLE
WORKING: Final = Answering.WORKING
BETWEEN_REQUESTS: Final = Receiving.IDLE
MAX_WAITING_BYTES: Final = 4 * KIB
"""What a connection reads may wait if it has up to so many bytes: in one iteration, a thousand connections may read."""


class QuickAnswerer(LargeBodyAnswerer):
    """The part of a connection that answers requests on the fast paths."""

    __slots__ = ("_begun", "_familiar", "ready_for")

    def __init__(self, connections: Connections) -> None:
        super().__init__(connections)
        self._begun: BegunGet | BegunPut | None = None
        """A request on a fast path, in place of a current request."""
        self._familiar: Headers | None = None
        """Of an earlier request, if `quick_get` knows it."""
        self.ready_for: Headers | None = None
        """Those of the last GET, if `quick_get` has answered it from memory and nothing else has happened since. So
        `_is_ready` need not be asked again. Whatever changes its answer sets this to None."""

    def _is_ready(self) -> bool:
        """Whether a fast path may be given what is read: between two requests, while the client reads the answers."""
        return (
            self._state is IDLE
            and self._reception.state is BETWEEN_REQUESTS
            and self._quota_used < QUOTA
            and not self._sender.is_paused
        )

    def _note_headers(self, request: Request) -> None:
        quick_get = self._shared.quick_get
        if quick_get is not None and request.headers is not self._familiar and quick_get.knows(request):
            self._familiar = request.headers

    def data_received(self, data: bytes) -> None:
        """Called by the transport. After a GET, what is read waits for the end of the iteration: see `WaitingGets`."""
        shared, transport = self._shared, self._sender.transport
        gets = shared.waiting_gets
        if self.ready_for is not None and len(data) <= MAX_WAITING_BYTES and transport is not None:
            try:
                if gets.waiting:
                    gets.waiting.append((self, transport, data))
                else:
                    gets.add_first(self, transport, data)
                self._reception.since = shared.tick
                return
            except BaseException as failure:  # noqa: BLE001 - the general path answers, or says that it cannot
                report("a GET cannot wait", failure)
        if gets.waiting:
            gets.answer_all()
        self.ready_for = None
        self._receive_data(data, self._familiar)

    def take_back(self, data: bytes) -> None:
        """Called by `WaitingGets` for what it does not answer."""
        self.ready_for = None
        try:
            self._receive_data(data, None)
        except BaseException as failure:  # noqa: BLE001 - the other requests must be answered
            self._break_off(failure)

    def _answer_waiting(self) -> None:
        """Handle what was read before."""
        if self._shared.waiting_gets.waiting:
            self._shared.waiting_gets.answer_all()

    @abstractmethod
    def _receive_data(self, data: bytes, familiar: Headers | None) -> None:
        """Receive what does not wait. `familiar`: `_familiar`, or None if `quick_get` does not answer `data`."""

    def _answer_quickly(self, data: bytes, headers: Headers, trace: TraceContext | None = None) -> bool:
        """Answer `data` on the fast path, or begin the read that it needs. False: the general path must answer it.

        `trace`: see `QuickGet.answer`.
        """
        shared, transport = self._shared, self._sender.transport
        quick_get = shared.quick_get
        if not self._is_ready() or quick_get is None or transport is None:
            return False
        if trace is None:
            self.ready_for = headers  # before the answer, because the transport may say that the client reads slowly
        try:
            answer = quick_get.answer(data, headers, trace)
            if type(answer) is BegunGet:  # `isinstance` takes ten times as long for a struct
                self._begin_read(answer)
                return True
            if answer is not None:
                shared.outbox.post(transport, answer)
                self._reception.since = shared.tick
                return True
        except BaseException as failure:  # noqa: BLE001 - the general path answers, or says that it cannot
            report("the fast path of a GET failed", failure)
            self._forget_begun()
        self.ready_for = None
        return False

    def _begin_read(self, begun: BegunGet) -> None:
        """Let the engine read an entry for the fast path of a GET."""
        self._begun, self._state, self.ready_for = begun, WORKING, None
        self._started_at = self._shared.moment()
        self._quota_used += 1
        self._shared.store.space.read(ENTRY, begun.key, self._complete_read)

    def _begin_quickly(self, data: bytes, trace: TraceContext | None = None) -> bool:
        """Begin `data` on the fast path of a write. Returns False if the general path must begin it.

        `trace`: see `QuickPut.begin`.
        """
        shared = self._shared
        quick_put = shared.quick_put
        if quick_put is None or not self._is_ready():
            return False
        try:
            begun = quick_put.begin(data, trace)
            if begun is None:
                return False
            self._begun, self._state = begun, WORKING
            self._started_at = shared.known_moment or shared.moment()
            self._quota_used += 1
            shared.store.submit(begun.operation, self._complete_write)
        except BaseException as failure:  # noqa: BLE001 - the general path begins it, or says that it cannot
            report("the fast path of a write failed", failure)
            self._forget_begun()
            return False
        return True

    def _forget_begun(self) -> None:
        """The fast path has failed to begin a request, so the general path begins it."""
        if self._begun is not None:
            self._begun, self._state = None, IDLE

    def _complete_read(self, entry: Entry | ServiceError | None) -> None:
        """Called by the engine with the entry of the read that was begun. The connection may be closed by then."""
        begun, quick_get = self._begun, self._shared.quick_get
        if type(begun) is not BegunGet or quick_get is None:
            return
        try:
            answer = quick_get.complete(begun, entry, self._shared.moment() - self._started_at)
            transport = self._sender.transport
            if answer is not None and transport is not None:
                self._shared.outbox.post(transport, answer)
        except BaseException as failure:  # noqa: BLE001 - the general path answers
            report("the fast path of a GET failed", failure)
            answer = None
        if answer is None:
            self._resume(quick_get.request(begun), self._shared.store.outcome(Read(begun.key), entry))
            return
        self._begun = None
        try:
            self._quota_used += len(answer) // LARGE_BYTES
            self._continue()
        except BaseException as failure:  # noqa: BLE001 - the request is answered, so no error can be
            self._break_off(failure)

    def _complete_write(self, outcome: Outcome | ServiceError) -> None:
        """Called by the store with the outcome of the write that was begun. The connection may be closed by then."""
        begun, shared, transport = self._begun, self._shared, self._sender.transport
        quick_put = shared.quick_put
        if type(begun) is not BegunPut or quick_put is None:
            return
        try:
            moment = shared.known_moment or shared.moment()
            answer = quick_put.answer(begun, outcome, moment - self._started_at)
            if answer is not None and transport is not None:
                outbox = shared.outbox
                if outbox.answers and len(answer) <= UNCOUNTED_BYTES:
                    outbox.answers.append((transport, answer))
                else:
                    outbox.post(transport, answer)
        except BaseException as failure:  # noqa: BLE001 - the general path answers
            report("the fast path of a write failed", failure)
            answer = None
        if answer is None:
            self._resume(quick_put.request(begun), outcome)
            return
        self._begun = None
        try:
            self._quota_used += len(answer) // LARGE_BYTES
            self._continue()
        except BaseException as failure:  # noqa: BLE001 - the request is answered, so no error can be
            self._break_off(failure)

    def _resume(self, request: Request, outcome: Outcome | ServiceError) -> None:
        """Let the general path answer a request that a fast path has begun."""
        route = self._shared.router.match(request)
        assert type(route.endpoint) is PureEndpoint
        self._endpoint, self._current, self._begun = route.endpoint, request, None
        self._store = self._shared.store
        self._complete(outcome)
