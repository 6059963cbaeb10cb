"""The fast path of a plain GET: `GET /kv/{key}` with a header block that this connection has sent before.

It takes a third of the instructions of the general path: it parses nothing again, makes neither a request nor a
response, and formats the answer once. It caches no answers.

If the engine has its entries in memory, `answer` gives the answer at once. Otherwise it gives a `BegunGet`, the
connection lets the engine read the entry, and `complete` gives the answer. `waiting_gets` does what `answer` does in
memory, for many GETs together: a change of one is a change of both.

Invariants:

- It begins and answers exactly as the general path would, or it leaves that to the general path. So the service works
  without it: without this module, and without the lines in `QuickAnswerer`, `Connection` and `Connections` that name
  it.
- It gives one kind of answer: 200 with an entry that does not expire. For each other result of a read,
  `request` makes the request that the general path would have had, and the general path answers it.
- Whatever may change between two requests is checked for each of them: the token and what it covers, the entry, the
  incarnation, a stop of the service. Only the decision about Host and Origin is kept with the header block, as
  `admission` keeps it.
- It counts and logs as the general path does. An answer from memory takes no time by the clock of the metrics, which is
  read once in an iteration of the event loop.
- A connection calls it only between two requests, while none is queued and its client reads what is sent.

A new option of a GET needs nothing here if it is a query parameter. If it is a header field, add it to
`requests.OPTIONS`.
"""

from typing import Final, final

import msgspec

from leasehold.access.permissions import Principal
from leasehold.errors import ServiceError
from leasehold.http.encoding import Templates
from leasehold.http.requests import Headers, Request
from leasehold.http.wire.quick_answer import BEFORE_KEY, LONGEST_LINE_BYTES, OTHER_BYTES, QuickAnswer, QuickContext
from leasehold.keys import check_key
from leasehold.model import Entry
from leasehold.trace_context import TraceContext

BEGIN: Final = b"GET" + BEFORE_KEY
BEGIN_BYTES: Final = len(BEGIN)


@final
class BegunGet(msgspec.Struct, frozen=True, gc=False):
    """A read that waits for the engine."""

    key: str
    path: bytes
    """The key as the request has it."""
    headers: Headers
    number: int
    """The number in its request id."""
    trace: TraceContext | None


class QuickGet:
    """Shared by all connections of a server."""

    __slots__ = ("_admission", "_context", "_request_numbers", "_space", "quick_answer")

    def __init__(self, context: QuickContext) -> None:
        self._context = context
        self._admission = context.admission
        self._space = context.store.space
        self._request_numbers = context.request_numbers
        self.quick_answer = QuickAnswer("GET", context, Templates.entry_read)

    def knows(self, request: Request) -> bool:
        """Whether later requests of the connection with the header block of this one may be given to `answer`."""
        headers = request.headers
        return (
            request.method == "GET"
            and not request.body  # so the block announces none
            and headers.is_plain
            and headers.principal is not None
            and "read" in headers.principal.permissions
            and self._context.limits.max_request_line_bytes >= LONGEST_LINE_BYTES
        )

    def answer(self, data: bytes, headers: Headers, trace: TraceContext | None = None) -> bytes | BegunGet | None:
        """The answer to `data`, which was read after a whole request, or the read that the engine must do for it.

        None: then the general path must answer. `headers`: of an earlier request of the connection, which this path
        knows. `trace`: the trace of the request, whose field is not in `data`.
        """
        path = data.removesuffix(headers.block).removeprefix(BEGIN)  # half the instructions of two `partition`
        if len(data) - len(path) != len(headers.block) + BEGIN_BYTES:  # `data` lacks one of them
            return None
        if path.translate(OTHER_BYTES) != path or self._context.stopping:
            return None
        principal = self.caller(headers)
        if principal is None:
            return None
        key = path.decode()
        if principal.prefixes is not None and not principal.covers(key):
            return None
        peek = self._space.peek
        if peek is None:
            try:
                check_key(key)
            except ServiceError:
                return None
            return BegunGet(key, path, headers, next(self._request_numbers), trace)
        entry = peek(key)
        if entry is None or entry.expires_at is not None or not entry.value:
            return None
        return self.quick_answer.encode(path, entry, headers, next(self._request_numbers), 0.0)

    def caller(self, headers: Headers) -> Principal | None:
        """The caller that sends requests with these fields, if `Admission.admit` would admit it now."""
        principal, verifier = headers.principal, self._admission.verifier
        if principal is None or verifier is None:
            return principal
        now = verifier.now
        return principal if headers.verified_by is verifier and now() < principal.expires_at else None

    def complete(self, begun: BegunGet, entry: Entry | ServiceError | None, seconds: float) -> bytes | None:
        """The answer to a read. None: the general path must give it, to the request that `request` makes.

        `seconds`: since the beginning, for the metrics.
        """
        if type(entry) is not Entry or entry.expires_at is not None or not entry.value or self._context.stopping:
            return None
        return self.quick_answer.encode(begun.path, entry, begun.headers, begun.number, seconds)

    def request(self, begun: BegunGet) -> Request:
        """The request as the general path would have made it and admitted it."""
        return self.quick_answer.request(begun.path, begun.headers, begun.number, begun.trace)
