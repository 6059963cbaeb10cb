"""The fast path of a plain GET: `GET /kv/{key}` with a header block that this connection has sent before.

It takes a third of the instructions of the general path: it parses nothing again, makes neither a request nor a
response, and formats the answer once. It caches no answers.

If the engine has its entries in memory, `answer` gives the answer at once. Otherwise it gives a `BegunGet`, the
connection lets the engine read the entry, and `complete` gives the answer.

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
`messages.OPTIONS`.
"""

from collections.abc import Iterator, Mapping
from typing import Final, Protocol

import msgspec

from leasehold.errors import ServiceError
from leasehold.http.messages import Headers, Request, Templates
from leasehold.http.routing.admission import Admission
from leasehold.keys import check_key
from leasehold.limits import MAX_KEY_BYTES, Limits
from leasehold.metrics import Distribution, Metrics
from leasehold.model import Entry
from leasehold.store.store import Store
from leasehold.times import time_bytes
from leasehold.trace_context import TraceContext
from leasehold.values.entry_text import ENTRY_JSON, encode_text

PATTERN: Final = "/kv/{key}"
_LINE_END: Final = b" HTTP/1.1\r\n"
_BEFORE_KEY: Final = b" /kv/"
_LONGEST_LINE_BYTES: Final = len(b"GET /kv/") + MAX_KEY_BYTES + len(_LINE_END)
_JSON_BYTES: Final = len(ENTRY_JSON % (b"", b"", b"", time_bytes(0), time_bytes(0))) + len(b"\n")
"""The length of a body without its key, value and revision."""

# A path with one of these is not the key itself. A number is found in bytes faster than bytes are.
_PERCENT: Final = ord("%")
_QUESTION_MARK: Final = ord("?")
_NUMBER_SIGN: Final = ord("#")
_SPACE: Final = ord(" ")


class GetContext(Protocol):
    """What the connections of a server share."""

    admission: Admission
    common_lines: bytes
    limits: Limits
    logs_requests: bool
    metrics: Metrics
    request_id_prefix: bytes
    request_numbers: Iterator[int]
    stopping: bool
    store: Store

    def renew_templates(self) -> Templates: ...

    def log_request(self, method: str, path: bytes, status: int, ids: Mapping[str, str]) -> None: ...


class BegunGet(msgspec.Struct, frozen=True, gc=False):
    """A read that waits for the engine."""

    key: str
    headers: Headers
    number: int
    """The number in its request id."""
    trace: TraceContext | None


class QuickGet:
    """Shared by all connections of a server."""

    __slots__ = (
        "_admission",
        "_common_lines",
        "_context",
        "_format",
        "_histogram",
        "_incarnation",
        "_request_numbers",
        "_space",
    )

    def __init__(self, context: GetContext) -> None:
        self._context = context
        self._admission = context.admission
        self._space = context.store.space
        self._request_numbers = context.request_numbers
        self._common_lines = b""
        self._incarnation = ""
        self._format = b""
        """The format string of the answer, with the two above."""
        self._histogram = Distribution([0])
        """That of these requests in the metrics, once there is an answer."""

    def knows(self, request: Request) -> bool:
        """Whether later requests of the connection with the header block of this one may be given to `answer`."""
        headers = request.headers
        return (
            request.method == "GET"
            and not request.body  # so the block announces none
            and headers.is_plain
            and headers.principal is not None
            and "read" in headers.principal.permissions
            and self._context.limits.max_request_line_bytes >= _LONGEST_LINE_BYTES
        )

    def answer(self, data: bytes, headers: Headers, trace: TraceContext | None) -> bytes | BegunGet | None:
        """The answer to `data`, which was read after a whole request, or the read that the engine must do for it.

        None: then the general path must answer. `headers`: of an earlier request of the connection, which this path
        knows. `trace`: the trace of the request, whose field is not in `data`.
        """
        principal = headers.principal
        line, _, block = data.partition(_LINE_END)
        if block != headers.block or self._context.stopping:
            return None
        method, _, path = line.partition(_BEFORE_KEY)
        if method != b"GET" or _PERCENT in path or _QUESTION_MARK in path or _NUMBER_SIGN in path or _SPACE in path:
            return None
        if principal is None or not path.isascii() or not self._admission.readmits(headers, principal):
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
            return BegunGet(key, headers, next(self._request_numbers), trace)
        entry = peek(key)
        if entry is None or entry.expires_at is not None or not entry.value:
            return None
        return self._answer(headers, next(self._request_numbers), entry, 0.0)

    def complete(self, begun: BegunGet, entry: Entry | ServiceError | None, seconds: float) -> bytes | None:
        """The answer to a read. None: the general path must give it, to the request that `request` makes.

        `seconds`: since the beginning, for the metrics.
        """
        if type(entry) is not Entry or entry.expires_at is not None or not entry.value or self._context.stopping:
            return None
        return self._answer(begun.headers, begun.number, entry, seconds)

    def request(self, begun: BegunGet) -> Request:
        """The request as the general path would have made it and admitted it."""
        principal = begun.headers.principal
        assert principal is not None
        return Request(
            "GET",
            b"/kv/" + begun.key.encode(),
            begun.headers,
            keep_alive=True,
            request_id=self._request_id(begun.number),
            principal=principal,
            trace=begun.trace,
        )

    def _answer(self, headers: Headers, number: int, entry: Entry, seconds: float) -> bytes:
        context = self._context
        if context.common_lines is not self._common_lines or self._space.incarnation is not self._incarnation:
            self._renew()
        name, value, revision = encode_text(entry.key), entry.value, b"%d" % entry.revision
        created_at = updated_at = time_bytes(entry.created_at)
        if entry.updated_at != entry.created_at:
            updated_at = time_bytes(entry.updated_at)
        size = len(name) + len(value) + len(revision) + _JSON_BYTES
        cors_lines = headers.cors_lines
        answer = self._format % (number, cors_lines, revision, size, name, value, revision, created_at, updated_at)
        self._histogram.count_seconds(seconds)
        if context.logs_requests:
            request_id = self._request_id(number)
            context.log_request("GET", b"/kv/" + entry.key.encode(), 200, {"request_id": request_id.decode()})
        return answer

    def _request_id(self, number: int) -> bytes:
        return b"%b-%x" % (self._context.request_id_prefix, number)

    def _renew(self) -> None:
        """Bring the format string up to date: once a second, and when the incarnation has changed."""
        context = self._context
        templates = context.renew_templates()
        self._format = templates.entry_read(common=context.common_lines, request_id=context.request_id_prefix + b"-%x")
        self._common_lines, self._incarnation = context.common_lines, templates.incarnation
        self._histogram = context.metrics.seconds_of("GET", PATTERN, 200)
