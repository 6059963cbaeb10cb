"""The fast path of a plain write: `POST /kv/{key}` or `PUT /kv/{key}` with a JSON body and a known header block.

It takes a third of the instructions of the general path: it parses no head again, makes neither a request nor a
response, and formats the answer once. The write itself goes through the lane, as every write does.

Invariants:

- It begins and answers exactly as the general path would, or it leaves that to the general path. So the service works
  without it: without this module, and without the lines in `QuickAnswerer`, `Connection` and `Connections` that name
  it.
- It begins one kind of write: a whole value, without a query and without a header that changes its effect.
- It gives one kind of answer: 200 with the replaced entry. For each other outcome `request` makes the request that the
  general path would have had, and the general path answers it.
- Whatever may change between two requests is checked for each of them: the token and what it covers, the incarnation,
  a stop of the service. Only the decision about Host and Origin is kept with the header block, as `admission` keeps it.
- A connection calls it only between two requests, while none is queued and its client reads what is sent.

A new option of these requests needs nothing here if it is a query parameter. If it is a header field, add it to
`messages.OPTIONS`.
"""

from collections.abc import Iterator, Mapping
from typing import Final, Protocol

import msgspec

from leasehold import values
from leasehold.errors import ServiceError
from leasehold.http.messages import Headers, Request, Templates
from leasehold.http.routing.admission import Admission
from leasehold.http.routing.bodies import JSON_TYPES
from leasehold.http.wire.header_cache import HeaderCache
from leasehold.keys import check_key
from leasehold.limits import MAX_KEY_BYTES, Limits
from leasehold.metrics import Distribution, Metrics
from leasehold.model import Outcome, Put, Written
from leasehold.store.store import Store
from leasehold.times import time_bytes
from leasehold.trace_context import TraceContext
from leasehold.values.entry_text import ENTRY_JSON, encode_text

PATTERN: Final = "/kv/{key}"
_METHODS: Final = {b"POST": "POST", b"PUT": "PUT"}
_LINE_END: Final = b" HTTP/1.1\r\n"
_BEFORE_KEY: Final = b" /kv/"
_LONGEST_LINE_BYTES: Final = len(b"POST /kv/") + MAX_KEY_BYTES + len(_LINE_END)
_JSON_BYTES: Final = len(ENTRY_JSON % (b"", b"", b"", time_bytes(0), time_bytes(0))) + len(b"\n")
"""The length of a body without its key, value and revision."""

# A path with one of these is not the key itself. A number is found in bytes faster than bytes are.
_PERCENT: Final = ord("%")
_QUESTION_MARK: Final = ord("?")
_NUMBER_SIGN: Final = ord("#")
_SPACE: Final = ord(" ")


class PutContext(Protocol):
    """What the connections of a server share."""

    admission: Admission
    common_lines: bytes
    header_cache: HeaderCache
    limits: Limits
    logs_requests: bool
    metrics: Metrics
    request_id_prefix: bytes
    request_numbers: Iterator[int]
    stopping: bool
    store: Store

    def renew_templates(self) -> Templates: ...

    def log_request(self, method: str, path: bytes, status: int, ids: Mapping[str, str]) -> None: ...


class BegunPut(msgspec.Struct, frozen=True, gc=False):
    """A write that waits for its commit."""

    operation: Put
    method: str
    headers: Headers
    number: int
    """The number in its request id."""
    trace: TraceContext | None


class QuickPut:
    """Shared by all connections of a server."""

    __slots__ = (
        "_admission",
        "_common_lines",
        "_context",
        "_format",
        "_header_cache",
        "_histograms",
        "_incarnation",
        "_is_enabled",
        "_space",
    )

    def __init__(self, context: PutContext) -> None:
        self._context = context
        self._admission = context.admission
        self._header_cache = context.header_cache
        self._space = context.store.space
        self._is_enabled = context.limits.max_request_line_bytes >= _LONGEST_LINE_BYTES
        self._histograms: dict[str, Distribution] = {}
        """Those of these requests in the metrics, by method."""
        self._common_lines = b""
        self._incarnation = ""
        self._format = b""
        """The format string of the answer, with the two above."""

    def begin(self, data: bytes, trace: TraceContext | None) -> BegunPut | None:
        """The write that `data`, read after a whole request, asks for. None: the general path must begin it.

        `trace`: the trace of the request, whose field is not in `data`.
        """
        if data[:9] != b"POST /kv/" and data[:8] != b"PUT /kv/":
            return None
        line, _, rest = data.partition(_LINE_END)
        method_name, _, path = line.partition(_BEFORE_KEY)
        method = _METHODS.get(method_name)
        if (
            method is None
            or _PERCENT in path
            or _QUESTION_MARK in path
            or _NUMBER_SIGN in path
            or _SPACE in path
            or not path.isascii()
        ):
            return None
        found = self._header_cache.split(rest)
        if found is None or not self._is_enabled or self._context.stopping:
            return None
        headers, body = found
        principal = headers.principal
        if (
            principal is None
            or "write" not in principal.permissions
            or "read" not in principal.permissions
            or not headers.is_plain
            or headers.content_type not in JSON_TYPES
            or not self._admission.readmits(headers, principal)
        ):
            return None
        key = path.decode()
        if principal.prefixes is not None and not principal.covers(key):
            return None
        peek = self._space.peek
        try:
            if peek is None or peek(key) is None:
                check_key(key)
            operation = Put(key, values.parse_json(body))
        except ServiceError:
            return None
        return BegunPut(operation, method, headers, next(self._context.request_numbers), trace)

    def answer(self, begun: BegunPut, outcome: Outcome | ServiceError, seconds: float) -> bytes | None:
        """The answer to a write. None: the general path must give it, to the request that `request` makes.

        `seconds`: since the beginning, for the metrics.
        """
        context = self._context
        if type(outcome) is not Written or outcome.created or context.stopping:
            return None
        if context.common_lines is not self._common_lines or self._space.incarnation is not self._incarnation:
            self._renew()
        entry = outcome.entry
        name, value, revision = encode_text(entry.key), entry.value, b"%d" % entry.revision
        size = len(name) + len(value) + len(revision) + _JSON_BYTES
        created_at, updated_at = time_bytes(entry.created_at), time_bytes(entry.updated_at)
        lines = begun.headers.cors_lines
        answer = self._format % (begun.number, lines, revision, size, name, value, revision, created_at, updated_at)
        histogram = self._histograms.get(begun.method)
        if histogram is None:
            histogram = self._histograms[begun.method] = context.metrics.seconds_of(begun.method, PATTERN, 200)
        histogram.count_seconds(seconds)
        if context.logs_requests:
            context.log_request(begun.method, _path(begun), 200, {"request_id": self._request_id(begun).decode()})
        return answer

    def request(self, begun: BegunPut) -> Request:
        """The request as the general path would have made it and admitted it, without its body."""
        principal = begun.headers.principal
        assert principal is not None
        return Request(
            begun.method,
            _path(begun),
            begun.headers,
            keep_alive=True,
            request_id=self._request_id(begun),
            principal=principal,
            trace=begun.trace,
        )

    def _request_id(self, begun: BegunPut) -> bytes:
        return b"%b-%x" % (self._context.request_id_prefix, begun.number)

    def _renew(self) -> None:
        """Bring the format string up to date: once a second, and when the incarnation has changed."""
        context = self._context
        templates = context.renew_templates()
        self._format = templates.entry_written(
            common=context.common_lines, request_id=context.request_id_prefix + b"-%x"
        )
        self._common_lines, self._incarnation = context.common_lines, templates.incarnation


def _path(begun: BegunPut) -> bytes:
    return b"/kv/" + begun.operation.key.encode()
