"""Receiving requests: bytes of one connection in, whole requests or refusals out, within the limits.

`httptools` (llhttp) parses, and refuses by itself what makes smuggling possible: both Content-Length and
Transfer-Encoding, repeated or signed lengths, bare LF, folded headers, a space before the colon, bad chunks. It is
lenient about the request line, which is held back until it is whole and checked here (`_hold_line`); the rest is
checked in `_head_fault`. After a refusal nothing more is read.
"""

import re
from enum import Enum, auto
from typing import Final, Protocol

import httptools

from leasehold.errors import ServiceError, not_implemented
from leasehold.http.messages import Headers, Request, accepted_request_id
from leasehold.http.wire.header_cache import FamiliarHeads
from leasehold.http.wire.in_flight import BodiesInFlight
from leasehold.limits import DRAINED_BODY_BYTES, KIB, Limits

FRAMING_ALLOWANCE: Final = 8
"""A body in chunks of one byte takes six bytes a chunk; more than this many times its limit is an attack."""
READ_BYTES: Final = 256 * KIB
"""The most that one read from the transport brings, of which a part may belong to the request before."""

_METHOD: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE: Final = re.compile(_METHOD + rb" [^\x00- \x7f]+ HTTP/[0-9]\.[0-9]\r\n")
"""RFC 9112, section 3: single spaces, no white space in the target, and this protocol."""
_BEGUN_LINE: Final = re.compile(_METHOD + rb"(?: (?:[^\x00- \x7f]+(?: (?:H(?:T(?:T(?:P(?:/[0-9.]*\r?)?)?)?)?)?)?)?)?")
"""What may still become one."""
_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._~!$&'()*+,;=%-]*)(?::[0-9]*)?")
"""RFC 9110, section 7.2: a host and a port, without a user and without a path."""


PIECE_BYTES: Final = 64
"""What each piece of a body takes beside its bytes."""


class Phase(Enum):
    """What is being received."""

    IDLE = auto()
    HEAD = auto()
    BODY = auto()
    ENDED = auto()
    """Nothing any more: refused, or the last request of the connection is in."""


class Receiver(Protocol):
    """Whom the requests are for."""

    def receive(self, request: Request) -> None:
        """Take the next request. One that must be refused carries its `refusal`."""

    def refusal_at_head(self, request: Request) -> ServiceError | None:
        """Why a request whose body is still to come will be refused whatever the body is."""

    def expect_continue(self) -> None:
        """The client waits for `100 Continue`."""


class ServerContext(Protocol):
    """What all receptions of a server share. `tick`: the time, as `Reception.since` tells it."""

    limits: Limits
    heads: FamiliarHeads
    bodies: BodiesInFlight
    tick: float

    def next_request_id(self) -> bytes: ...


class Reception:
    """The receiving half of a connection. `since`: when the phase began."""

    __slots__ = (
        "_all",
        "_body",
        "_body_bytes",
        "_field_bytes",
        "_fields",
        "_headers",
        "_heads",
        "_hosts",
        "_limits",
        "_line",
        "_line_is_good",
        "_own_parser",
        "_raw_bytes",
        "_received_any",
        "_receiver",
        "_refused",
        "_replaying",
        "_url",
        "phase",
        "since",
    )

    def __init__(self, receiver: Receiver, context: ServerContext) -> None:
        self._receiver = receiver
        self._all = context
        self._limits = context.limits
        self._heads = context.heads
        self._own_parser: httptools.HttpRequestParser | None = None
        self.phase = Phase.HEAD  # a new connection must send its first request within a head's time
        self.since = context.tick
        self._received_any = False
        """A message has begun, or a request came whole."""
        # Of the request being received:
        self._line = b""
        """The request line as far as it is here, until it is whole."""
        self._line_is_good = False
        """It was whole, and checked. Not so if it began behind another request in one read."""
        self._url = b""
        self._headers = Headers()
        self._hosts = 0
        self._fields = 0
        self._field_bytes = 0
        self._raw_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._refused: Request | None = None
        """The request, if its head was refused and its body is thrown away as it comes."""
        self._replaying = False

    @property
    def _parser(self) -> httptools.HttpRequestParser:
        """Made when it is needed: many connections send nothing, or nothing that is not familiar."""
        if self._own_parser is None:
            self._own_parser = httptools.HttpRequestParser(self)
        return self._own_parser

    @property
    def has_begun(self) -> bool:
        """Something of the request being received is in."""
        return self.phase is Phase.BODY or (self.phase is Phase.HEAD and bool(self._url or self._line))

    def feed(self, data: bytes) -> None:
        """Take what the transport read."""
        is_between = self.phase is Phase.IDLE or (self.phase is Phase.HEAD and not self._received_any)
        if is_between and not self._line:
            request = self._heads.recall(data)
            if request is not None:
                request.request_id = self._all.next_request_id()
                self.phase = Phase.IDLE
                self._received_any = True
                self._receiver.receive(request)
                return
        elif self.phase is Phase.ENDED:
            return
        self._raw_bytes += len(data)
        if is_between or self._line:
            data = self._hold_line(data)
            if not data:
                return
        self._parse(data)
        if self.phase is Phase.HEAD or self.phase is Phase.BODY:
            self._check_unfinished()
        elif is_between and self.phase is Phase.IDLE:
            self._heads.remember(data, self._headers)

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserInvalidMethodError:
            self._refuse_line(not_implemented() if self._line_is_good else _malformed())
        except httptools.HttpParserError:
            self.refuse(_malformed())

    def end(self) -> None:
        self.phase = Phase.ENDED
        self.since = self._all.tick
        if self._body:
            self._body = []
        self._all.bodies.forget(self)

    def let_go(self) -> None:
        """Receive no more, and know the connection no longer: so both go at once, without the collector's help."""
        self.end()
        del self._own_parser, self._receiver

    def refuse(self, refusal: ServiceError, request: Request | None = None) -> None:
        """Deliver a refusal in its turn and receive no further. `request`: what was received, if it was looked at."""
        if self.phase is Phase.ENDED:
            return
        self.end()
        request = self._new_request() if request is None else request
        request.refusal = refusal
        self._receiver.receive(request)

    # Called by the parser -------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._replaying or self.phase is Phase.ENDED:
            return
        self._received_any = True
        self.phase = Phase.HEAD
        self.since = self._all.tick
        self._url = b""
        self._headers = Headers()
        self._hosts = self._fields = self._field_bytes = self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        if not self._replaying:
            self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._replaying:
            return
        self._fields += 1
        self._field_bytes += len(name) + len(value) + 4
        if self._fields > self._limits.max_header_fields or self._field_bytes > self._limits.max_header_bytes:
            self.refuse(self._headers_too_large())
            return
        if self.phase is Phase.BODY:
            return  # a trailer: it counts, but must not change what the head said
        name, value = name.lower(), value.rstrip()  # llhttp strips only what stands before the value
        headers = self._headers
        if name in headers:
            value = headers[name] + b", " + value
        if name == b"host":
            self._hosts += 1
        headers[name] = value

    def on_headers_complete(self) -> None:
        if self._replaying or self.phase is Phase.ENDED:
            return
        refusal = self._head_fault()
        if refusal is not None:
            self.refuse(refusal)
            return
        self._headers.look_for_options()
        self.phase = Phase.BODY
        self.since = self._all.tick
        self._raw_bytes = 0
        self._refused = None
        expects = (
            self._headers.get(b"expect", b"").lower() == b"100-continue" and self._parser.get_http_version() == "1.1"
        )
        if self._announces_body():
            request = self._new_request()
            refusal = request.refusal or self._receiver.refusal_at_head(request)
            if refusal is not None:
                self._refuse_at_head(refusal, request, expects=expects)
                return
        if expects:
            self._receiver.expect_continue()

    def _refuse_at_head(self, refusal: ServiceError, request: Request, *, expects: bool) -> None:
        """Before the body has come, so that it takes no memory.

        A short body is waited for all the same: its sender may keep the connection then.
        """
        length = self._headers.get(b"content-length")
        if expects or length is None or int(length) > DRAINED_BODY_BYTES:
            self.refuse(refusal, request)
        else:
            request.refusal = refusal
            self._refused = request

    def on_body(self, data: bytes) -> None:
        if self.phase is Phase.ENDED:
            return
        self._body_bytes += len(data)
        if self._body_bytes > self._limits.max_body_bytes:
            self.refuse(self._body_too_large())
        elif self._refused is None:
            self._body.append(data)

    def on_message_complete(self) -> None:
        if self.phase is Phase.ENDED:
            return
        upgrade = self._parser.should_upgrade()
        if upgrade and not self._replaying and self._announces_body():
            return  # its body is still to come: see _ignore_upgrade
        self._replaying = False
        request = self._new_request() if self._refused is None else self._refused
        self._refused = None
        if self._body:
            request.body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            self._body = []
            self._all.bodies.forget(self)
        request.keep_alive = upgrade or self._parser.should_keep_alive()
        self.phase = Phase.IDLE if request.keep_alive else Phase.ENDED
        self.since = self._all.tick
        self._raw_bytes = 0
        self._line_is_good = False
        self._receiver.receive(request)

    # ----------------------------------------------------------------------------------------------------------

    def _hold_line(self, data: bytes) -> bytes:
        """What the parser may have of `data`: nothing before the request line is whole, and found to be good."""
        data = self._line + data
        line = data.lstrip(b"\r\n")  # empty lines before a request are ignored (RFC 9112, section 2.2)
        if not line:
            return data
        self._line = b""
        self._line_is_good = _REQUEST_LINE.match(line) is not None
        if self._line_is_good:
            return data
        if b"\n" in line or not _BEGUN_LINE.fullmatch(line):
            self._refuse_line(_malformed())
        elif len(line) > self._limits.max_request_line_bytes:
            # A method longer than any is unknown, not a target too long (RFC 9112, section 3).
            self._refuse_line(self._uri_too_long() if b" " in line else not_implemented())
        else:
            if self.phase is not Phase.HEAD:
                self.phase = Phase.HEAD
                self.since = self._all.tick
            self._line = data
        return b""

    def _refuse_line(self, refusal: ServiceError) -> None:
        self._own_parser = None  # it still has the method of the request before, which may be HEAD
        self.refuse(refusal)

    def _new_request(self) -> Request:
        """The request whose head was received, as far as it was."""
        path, _, query = _origin_form(self._url).partition(b"?")
        request = Request(
            self._parser.get_method().decode("ascii"),
            path,
            self._headers,
            version=self._parser.get_http_version(),
            request_id=accepted_request_id(self._headers.get(b"x-request-id")) or self._all.next_request_id(),
        )
        if query:
            request.take_query(query)
        return request

    def _head_fault(self) -> ServiceError | None:
        """What is wrong with a head that llhttp let pass."""
        headers = self._headers
        version = self._parser.get_http_version()
        if version == "1.1":
            if self._hosts != 1:
                return ServiceError("invalid_request", "a request has exactly one Host header")
        elif version != "1.0" or self._hosts > 1:
            return ServiceError("invalid_request", "HTTP/1.1 and HTTP/1.0 are spoken here")
        coding = headers.get(b"transfer-encoding")
        if coding is not None and (version == "1.0" or coding.lower() != b"chunked"):
            return ServiceError("invalid_request", "the only transfer coding is chunked, in HTTP/1.1")
        if not _HOST.fullmatch(headers.get(b"host", b"")):
            return ServiceError("invalid_request", "Host is a name or an address, and a port")
        if len(self._url) > self._limits.max_request_line_bytes:
            return self._uri_too_long()
        if b"#" in self._url:
            return ServiceError("invalid_request", "a request target has no fragment")
        length = headers.get(b"content-length")
        if length is not None and int(length) > self._limits.max_body_bytes:
            return self._body_too_large()
        return None

    def _check_unfinished(self) -> None:
        """Refuse what has outgrown its limit before it is complete, and so was not yet seen by the callbacks."""
        limits = self._limits
        if self.phase is Phase.BODY:
            if self._body:
                self._all.bodies.note(self, self._body_bytes + PIECE_BYTES * len(self._body))
            if self._raw_bytes > FRAMING_ALLOWANCE * limits.max_body_bytes + READ_BYTES:
                self.refuse(self._body_too_large())
        elif len(self._url) > limits.max_request_line_bytes:
            self.refuse(self._uri_too_long())
        elif self._raw_bytes > limits.max_request_line_bytes + limits.max_header_bytes:
            self.refuse(self._headers_too_large())

    def _announces_body(self) -> bool:
        return b"transfer-encoding" in self._headers or int(self._headers.get(b"content-length", b"0")) > 0

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Go on in HTTP/1.1 after a request that offered another protocol (RFC 9110, section 7.8).

        llhttp stops there and leaves the body unparsed. A new parser is brought to the same state by a head that
        announces just the body.
        """
        if self.phase is Phase.ENDED:
            return
        method = self._parser.get_method()
        self._own_parser = None
        if self.phase is Phase.BODY:
            self._replaying = True
            framing = b"Transfer-Encoding: chunked"
            if b"content-length" in self._headers:
                framing = b"Content-Length: " + self._headers[b"content-length"]
            self._parser.feed_data(b"%b / HTTP/1.1\r\nHost: -\r\n%b\r\n\r\n" % (method, framing))
        self.feed(rest)

    def _headers_too_large(self) -> ServiceError:
        limits = self._limits
        return ServiceError(
            "headers_too_large",
            f"at most {limits.max_header_fields} header fields, {limits.max_header_bytes} bytes together",
            details={"limit": limits.max_header_bytes},
        )

    def _uri_too_long(self) -> ServiceError:
        limit = self._limits.max_request_line_bytes
        return ServiceError("uri_too_long", f"the request line is longer than {limit} bytes", details={"limit": limit})

    def _body_too_large(self) -> ServiceError:
        limit = self._limits.max_body_bytes
        return ServiceError("too_large", f"the body is larger than {limit} bytes", details={"limit": limit})


def _malformed() -> ServiceError:
    return ServiceError("invalid_request", "this is not a well-formed HTTP/1.1 request")


def _origin_form(target: bytes) -> bytes:
    """The path and query of a request target; the absolute form that proxies send is taken too."""
    if target[:1] == b"/" or b"://" not in target:
        return target
    _, slash, path = target.partition(b"://")[2].partition(b"/")
    return b"/" + path if slash else b"/"
