"""The request that is being received: assembled from what the parser reports, within the limits.

`httptools` (llhttp) calls a `Reception` for each part of a request. It refuses by itself what makes request smuggling
possible: both Content-Length and Transfer-Encoding, repeated or signed lengths, bare LF, folded header fields, a space
before the colon, malformed chunks. `head_faults` checks what llhttp accepts too leniently. After a refusal nothing
more is received.

Ownership: a `RequestParser` owns the parser, which refers to the reception. The reception refers to neither, except
while the parser runs (`parser`), so there is no reference cycle and a lost connection is freed at once.
"""

import re
from typing import Final, Protocol

import httptools

from leasehold.errors import ServiceError
from leasehold.http.requests import Headers, Request
from leasehold.http.wire import head_faults
from leasehold.http.wire.states import Receiving, moved
from leasehold.limits import DRAINED_BODY_BYTES, KIB, MAX_REQUEST_ID_CHARACTERS, Limits
from leasehold.trace_context import HEADER as TRACEPARENT
from leasehold.trace_context import parse_traceparent

FRAMING_ALLOWANCE: Final = 8
"""A body in chunks of one byte takes six bytes a chunk. More than this many times the limit of a body is an attack."""
READ_BYTES: Final = 256 * KIB
"""The most that one read from the transport brings. A part of it may belong to the request before."""
PIECE_BYTES: Final = 64
"""What each piece of a body takes in memory beside its bytes."""
UNKNOWN_METHOD: Final = "-"
"""The method of a request that was refused before its method was known."""

# Globals are looked up faster than members of an enum.
IDLE: Final = Receiving.IDLE
HEAD: Final = Receiving.HEAD
EXPECTING: Final = Receiving.EXPECTING
BODY: Final = Receiving.BODY
DISCARDING: Final = Receiving.DISCARDING
ENDED: Final = Receiving.ENDED
CLIENT_CLOSED: Final = Receiving.CLIENT_CLOSED

_PRINTABLE = re.compile(rb"[\x21-\x7e]{1,%d}" % MAX_REQUEST_ID_CHARACTERS)


class ReceptionContext(Protocol):
    """What all receptions of a server share."""

    limits: Limits
    tick: float
    """The time of the last sweep, in seconds of the event loop's clock."""

    def next_request_id(self) -> bytes: ...

    def body_limit(self, path: bytes) -> int:
        """The most bytes that the body of a request with this path may have."""

    def refusal_at_head(self, request: Request) -> ServiceError | None:
        """Why a request whose body is still to come will be refused whatever the body is."""


class Reception:
    """The receiving half of a connection, one request after the other.

    `since`: the tick at which its state began. `parser`: set while it runs. A request that must be refused carries its
    `refusal`.
    """

    __slots__ = (
        "_body",
        "_body_bytes",
        "_complete",
        "_context",
        "_field_bytes",
        "_fields",
        "_hosts",
        "_is_replaying",
        "_least_body_limit",
        "_limits",
        "_method",
        "_refused",
        "_url",
        "_version",
        "headers",
        "line",
        "line_is_good",
        "parser",
        "raw_bytes",
        "since",
        "state",
    )

    def __init__(self, context: ReceptionContext) -> None:
        self._context = context
        self._limits = context.limits
        self._least_body_limit = min(self._limits.max_body_bytes, self._limits.max_state_bytes)
        """A body up to this size is within the limit of any route."""
        self.state = Receiving.NEW
        self.since = context.tick
        self.parser: httptools.HttpRequestParser | None = None
        self._complete: list[Request] = []
        """Complete requests, until `taken` returns them."""
        # Of the request being received:
        self.line = b""
        """The request line as far as it has arrived. Empty once it is complete."""
        self.line_is_good = False
        """The request line was checked. It is not if it arrived in one read with the request before."""
        self.raw_bytes = 0
        """Bytes of the head so far, or of the body with its framing."""
        self._is_replaying = False
        """The parser reads a `replayed_head`."""
        self._url = b""
        self.headers = Headers()
        self._body_bytes = 0
        self._method = UNKNOWN_METHOD
        self._version = "1.1"
        self._hosts = 0
        self._fields = 0
        self._field_bytes = 0
        self._body: list[bytes] = []
        self._refused: Request | None = None
        """The request in the state DISCARDING."""

    # The states -----------------------------------------------------------------------------------------------

    @property
    def has_begun(self) -> bool:
        """Whether a part of the next request has arrived."""
        return bool(self._url or self.line) if self.state is HEAD else self.state in (EXPECTING, BODY, DISCARDING)

    @property
    def held_bytes(self) -> int:
        """What a body that is not complete takes in memory."""
        return self._body_bytes + PIECE_BYTES * len(self._body) if self._body else 0

    @property
    def awaited_bytes(self) -> int:
        """How many bytes of a body are still to come, if its length is known. 0: no body is received."""
        if self.state is not BODY and self.state is not DISCARDING:
            return 0
        return int(self.headers.get(b"content-length", b"0")) - self._body_bytes

    def taken(self) -> list[Request]:
        """The requests that were completed since the last call."""
        complete = self._complete
        if complete:
            self._complete = []
        return complete

    def hold_line(self, line: bytes) -> None:
        """Keep the first part of a request line. A new connection gets no more time for it."""
        if self.state is not HEAD:
            self._begin_head()
            if self.state is IDLE:
                self.since = self._context.tick
            self.state = HEAD
        self.line = line

    def refuse_line(self, refusal: ServiceError) -> None:
        """Refuse a request of which not even the line is well-formed."""
        self.line = b""
        self._begin_head()
        self.refuse(refusal)

    def replayed_head(self) -> bytes:
        """A head that brings a new parser to the body of the current request. The parser's calls for it are ignored."""
        self._is_replaying = True
        framing = b"Transfer-Encoding: chunked"
        if b"content-length" in self.headers:
            framing = b"Content-Length: " + self.headers[b"content-length"]
        return b"%b / HTTP/1.1\r\nHost: -\r\n%b\r\n\r\n" % (self._method.encode(), framing)

    def begin_body(self) -> None:
        """The client was told to send its body."""
        self.state = moved(self.state, BODY)

    def end(self, state: Receiving = ENDED) -> None:
        """Receive no more. `state`: ENDED or CLIENT_CLOSED."""
        if self.state is not CLIENT_CLOSED:
            self.state = moved(self.state, state)
        self.since = self._context.tick
        self.line = b""
        self._body = []

    def refuse(self, refusal: ServiceError, request: Request | None = None) -> None:
        """Complete the request with a refusal, and receive no more. `request`: if one was made of its head already."""
        if self.state is ENDED or self.state is CLIENT_CLOSED:
            return
        self.end()
        request = self._new_request() if request is None else request
        request.refusal = refusal
        self._complete.append(request)

    def check_unfinished(self) -> None:
        """Refuse a request that has outgrown a limit in a part that the parser has not reported yet."""
        limits = self._limits
        if self.state is not HEAD:
            if self._is_body_too_large(self.raw_bytes - READ_BYTES, allowance=FRAMING_ALLOWANCE):
                self._refuse_body()
        elif len(self._url) > limits.max_request_line_bytes:
            self.refuse(head_faults.uri_too_long(limits))
        elif self.raw_bytes > limits.max_request_line_bytes + limits.max_header_bytes:
            self.refuse(head_faults.headers_too_large(limits))

    # Called by the parser -------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._is_replaying or self.state is ENDED:
            return
        self.state = HEAD
        self.since = self._context.tick
        self._begin_head()

    def on_url(self, url: bytes) -> None:
        if self._is_replaying:
            return
        if not self._url:
            assert self.parser is not None
            self._method = self.parser.get_method().decode("ascii")
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_replaying:
            return
        self._fields += 1
        self._field_bytes += len(name) + len(value) + 4
        if self._fields > self._limits.max_header_fields or self._field_bytes > self._limits.max_header_bytes:
            self.refuse(head_faults.headers_too_large(self._limits))
            return
        if self.state is not HEAD:
            return  # a trailer: it counts, but must not change what the head said
        name, value = name.lower(), value.rstrip()  # llhttp strips only what stands before the value
        headers = self.headers
        if name in headers:
            if name in head_faults.SINGLE:
                self.refuse(head_faults.repeated(name))
                return
            value = headers[name] + b", " + value
        if name == b"host":
            self._hosts += 1
        headers[name] = value

    def on_headers_complete(self) -> None:
        if self._is_replaying or self.state is ENDED:
            return
        assert self.parser is not None
        self._version = self.parser.get_http_version()
        refusal = head_faults.head_fault(self._version, self._url, self.headers, self._hosts, self._limits)
        if refusal is not None:
            self.refuse(refusal)
            return
        if self._is_body_too_large(int(self.headers.get(b"content-length", b"0"))):
            self._refuse_body()
            return
        self.headers.look_for_options()
        self.since = self._context.tick
        self.raw_bytes = 0
        self._refused = None
        expects = self.headers.get(b"expect", b"").lower() == b"100-continue" and self._version == "1.1"
        if self._announces_body():
            request = self._new_request()
            refusal = request.refusal or self._context.refusal_at_head(request)
            if refusal is not None:
                self._refuse_at_head(refusal, request, expects=expects)
                return
        self.state = EXPECTING if expects else BODY

    def _refuse_at_head(self, refusal: ServiceError, request: Request, *, expects: bool) -> None:
        """Refuse before the body arrives, so that it takes no memory.

        A short body is received all the same, so that the client may keep the connection.
        """
        length = self.headers.get(b"content-length")
        if expects or length is None or int(length) > DRAINED_BODY_BYTES:
            self.refuse(refusal, request)
        else:
            request.refusal = refusal
            self._refused = request
            self.state = DISCARDING

    def on_body(self, data: bytes) -> None:
        if self.state is ENDED:
            return
        self._body_bytes += len(data)
        if self._is_body_too_large(self._body_bytes):
            self._refuse_body()
        elif self.state is not DISCARDING:
            self._body.append(data)

    def on_message_complete(self) -> None:
        if self.state is ENDED:
            return
        assert self.parser is not None
        upgrade = self.parser.should_upgrade()
        if upgrade and not self._is_replaying and self._announces_body():
            return  # its body is still to come: see RequestParser._ignore_upgrade
        self._is_replaying = False
        request = self._new_request() if self._refused is None else self._refused
        self._refused = None
        if self._body:
            request.body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            self._body = []
        request.keep_alive = upgrade or self.parser.should_keep_alive()
        self.state = IDLE if request.keep_alive else ENDED
        self.since = self._context.tick
        self.raw_bytes = 0
        self.line_is_good = False
        self._complete.append(request)

    # ----------------------------------------------------------------------------------------------------------

    def _begin_head(self) -> None:
        self._url = b""
        self.headers = Headers()
        self._method = UNKNOWN_METHOD
        self._hosts = self._fields = self._field_bytes = self._body_bytes = 0

    def _is_body_too_large(self, size: int, *, allowance: int = 1) -> bool:
        """Whether `size` is more than `allowance` times the limit."""
        return size > allowance * self._least_body_limit and size > allowance * self._body_limit()

    def _body_limit(self) -> int:
        return self._context.body_limit(_origin_form(self._url).partition(b"?")[0])

    def _refuse_body(self) -> None:
        self.refuse(head_faults.body_too_large(self._body_limit()))

    def _announces_body(self) -> bool:
        return b"transfer-encoding" in self.headers or int(self.headers.get(b"content-length", b"0")) > 0

    def _new_request(self) -> Request:
        """The request whose head was received, as far as it was."""
        path, _, query = _origin_form(self._url).partition(b"?")
        request = Request(
            self._method,
            path,
            self.headers,
            version=self._version,
            request_id=accepted_request_id(self.headers.get(b"x-request-id")) or self._context.next_request_id(),
        )
        if query:
            request.take_query(query)
        traceparent = self.headers.get(TRACEPARENT)
        if traceparent is not None:
            request.trace = parse_traceparent(traceparent)
        return request


def _origin_form(target: bytes) -> bytes:
    """The path and query of a request target. Proxies may send the absolute form (RFC 9112, section 3.2.2)."""
    if target[:1] == b"/" or b"://" not in target:
        return target
    _, slash, path = target.partition(b"://")[2].partition(b"/")
    return b"/" + path if slash else b"/"


def accepted_request_id(sent: bytes | None) -> bytes | None:
    """The caller's X-Request-Id if it is printable and not too long, else None."""
    return sent if sent is not None and _PRINTABLE.fullmatch(sent) else None
