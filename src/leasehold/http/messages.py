"""Requests and responses as endpoints see them, and how a response and an error are encoded.

An endpoint makes a body as JSON text. `encode_response` makes MessagePack of it, so that no endpoint handles
representations. To add a representation, add it to `media_types.Media` and there.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote_to_bytes

import msgspec

from leasehold import values
from leasehold.access.permissions import ANYONE, Principal
from leasehold.errors import ServiceError
from leasehold.http.media_types import Media
from leasehold.http.redaction import may_read, redacted
from leasehold.limits import KIB
from leasehold.store.turns import Turn
from leasehold.store.watchers import Sink
from leasehold.trace_context import TraceContext
from leasehold.values.entry_text import PLAIN_KEY_ENTRY_JSON

NO_QUERY: Final[Mapping[str, list[str]]] = {}
CONTENT_RANGE: Final = b"content-range"
RANGE: Final = b"range"
OPTIONS: Final = frozenset(
    (b"if-match", b"if-none-match", b"if-lease", b"idempotency-key", b"prefer", RANGE, CONTENT_RANGE)
)


USUAL_ACCEPT: Final = frozenset((b"*/*", b"application/json"))
"""Each asks for JSON. For a value that is bytes they differ, and its endpoints look at the field themselves."""


class Headers(dict[bytes, bytes]):
    """Header fields by their names in lower case. The values of a repeated field are joined with commas.

    Requests with the same header block share one object, so it also keeps what was concluded from the fields.
    """

    __slots__ = ("block", "content_type", "cors_lines", "is_checked", "is_plain", "principal", "verified_by")

    def __init__(self) -> None:
        super().__init__()
        self.block = b""
        """What follows the target of a request: the version, and the header fields up to the blank line.

        Empty unless the header block is in the cache.
        """
        self.content_type: str | None = None
        """The result of `media_types.content_type`, once that was called."""
        self.is_plain = False
        """No field asks for another response than usual."""
        self.is_checked = False
        """Whether `admission` has accepted the Host and Origin fields."""
        self.principal: Principal | None = None
        """The caller that `admission` has admitted with these fields."""
        self.verified_by: object = None
        """The verifier that has verified the token of `principal`."""
        self.cors_lines = b""
        """Response header lines (CORS) that let the page which sent the request read the response. Empty for others."""

    def look_for_options(self) -> None:
        """Set `is_plain`. Call it once all fields are set."""
        self.is_plain = OPTIONS.isdisjoint(self) and self.get(b"accept", b"*/*") in USUAL_ACCEPT


class Request(msgspec.Struct):
    """One complete request."""

    method: str
    path: bytes
    headers: Headers
    version: str = "1.1"
    body: bytes = b""
    keep_alive: bool = False
    request_id: bytes = b""
    query: Mapping[str, list[str]] = NO_QUERY
    refusal: ServiceError | None = None
    """Set if the request is refused before its route is looked up."""
    media: Media = Media.JSON
    """The representation of the response."""
    principal: Principal = ANYONE
    """The caller. Set once the request is admitted."""
    pattern: str = "-"
    """The pattern of its route. Set by the router; `-` without a route."""
    max_value_bytes: int | None = None
    """The largest value that it may store. Set if its body is large."""
    lane_bytes: int = 0
    """What its body takes of the budget of those in the write lane. 0 if it is small."""
    brackets: int | None = None
    """Of its body, as `brackets_at_most` counts them. Set if it is not small, and JSON."""
    argument: bytes = b""
    """The variable part of the path (a key), still percent-encoded. Set by the router."""
    trace: TraceContext | None = None
    """The trace that it belongs to."""

    @property
    def ids(self) -> dict[str, str]:
        """What its log lines and its error name: the request id, and the id of its trace if it has one."""
        own = {"request_id": self.request_id.decode("ascii")}
        return own if self.trace is None else own | {"trace_id": self.trace.trace_id}

    def take_query(self, query: bytes) -> None:
        """Set the query, or the refusal if it is malformed."""
        try:
            self.query = parse_query(query)
        except ServiceError as refusal:
            self.refusal = refusal


class Response(msgspec.Struct, frozen=True, gc=False):
    """`body` is JSON text. It is None for 304, which has a `revision` or an own ETag, and for 204, which has neither.

    If `Request.media` is BYTES, `body` is sent as it is, with `content_type`.
    """

    status: int
    body: bytes | None
    revision: int | None = None
    """Becomes the ETag."""
    tag: bytes = b""
    """A suffix of the ETag (`-raw`), before that of the representation."""
    headers: tuple[tuple[str, str], ...] = ()
    is_packed: bool = False
    """`body` is MessagePack already."""
    content_type: str = ""
    """If `Request.media` is BYTES: the Content-Type."""
    has_own_etag: bool = False
    """`headers` has an ETag that is not one of the store. Caches may keep the response, and must revalidate it."""


CHUNK_BYTES: Final = 64 * KIB
"""The largest chunk of a stream, unless one entry is larger."""


class Stream(msgspec.Struct, frozen=True):
    """A response whose body is made while it is sent. `chunks` are sent unchanged, at the client's pace."""

    media: Media
    chunks: AsyncGenerator[bytes]
    revision: int | None = None
    """Becomes the ETag."""
    content_type: str = ""
    """If `media` is BYTES: the Content-Type."""
    headers: tuple[tuple[str, str], ...] = ()


class EventStream(msgspec.Struct, frozen=True):
    """A response whose body goes on until `run` returns. Its head is sent at once.

    What `run` sends is chunked already (`chunked`), so that many connections can be sent the same bytes.
    """

    media: Media
    run: Callable[[Sink], Awaitable[None]]


def chunked(data: bytes) -> bytes:
    """A chunk of a chunked body (RFC 9112, section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK: Final = b"0\r\n\r\n"


def gathered(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in fewer pieces, made one at a time: a page of large values is never whole in memory."""
    gathering: list[bytes] = []
    size = 0
    for part in parts:
        if gathering and size + len(part) > CHUNK_BYTES:
            yield b"".join(gathering)
            gathering, size = [], 0
        gathering.append(part)
        size += len(part)
    if gathering:
        yield b"".join(gathering)


class GatheredList:
    """A list in one response: `{"NAME": [items], "revision": …, "next": …}`.

    Its items are encoded one by one, because to encode all of them at once would block the event loop. `turn`: that of
    the store, for which all lists wait.
    """

    def __init__(self, name: str, media: Media, turn: Turn) -> None:
        self._name = name
        self._turn = turn
        self.is_packed = media is Media.MESSAGEPACK
        self._items: list[bytes] = []
        self.size_bytes = 0
        """Of the items."""

    async def add(self, items: Iterable[bytes]) -> None:
        """Add items in the representation of the list. All lists together yield to the event loop every 64 KiB."""
        left = iter(items)
        is_over = False
        while not is_over:
            async with self._turn:
                is_over = self._add_some(left)
                if self._turn.encoded_bytes > CHUNK_BYTES:
                    self._turn.encoded_bytes = 0
                    await asyncio.sleep(0)

    def _add_some(self, items: Iterator[bytes]) -> bool:
        """Add items until the turn has CHUNK_BYTES or more. True: there are no more."""
        for item in items:
            self._items.append(item)
            self.size_bytes += len(item)
            self._turn.encoded_bytes += len(item)
            if self._turn.encoded_bytes > CHUNK_BYTES:
                return False
        return True

    def response(self, revision: int, next_after: str | None) -> Response:
        items = self._items
        if not self.is_packed:
            end = b'"revision":%d,"next":%b}' % (revision, msgspec.json.encode(next_after))
            return Response(200, b'{"%b":[%b],%b' % (self._name.encode(), b",\n".join(items), end))
        pack = msgspec.msgpack.encode
        head = b"\x83" + pack(self._name) + b"\xdd" + len(items).to_bytes(4, "big")
        end = pack("revision") + pack(revision) + pack("next") + pack(next_after)
        return Response(200, b"".join((head, *items, end)), is_packed=True)


# Writing ------------------------------------------------------------------------------------------------------

STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
VARY: Final = b"Vary: Accept\r\n"
VARY_BY_ORIGIN: Final = b"Vary: Accept, Origin\r\n"
COMMON_HEADERS: Final = b"X-Content-Type-Options: nosniff\r\n"

_JSON: Final = Media.JSON  # a global is looked up in a tenth of the time that a member of an enum takes
_NO_STORE: Final = b"Cache-Control: no-store\r\n"
_NO_BUFFERING: Final = b"X-Accel-Buffering: no\r\n"
"""Makes nginx pass on each event at once."""
_REVALIDATE: Final = b"Cache-Control: no-cache\r\n"
_START: Final = b"%b%bX-Request-Id: %b\r\n"
_BODY: Final = b"Content-Type: %b\r\nContent-Length: %d\r\n\r\n%b"
# Nearly all responses are JSON, so these templates contain what is the same in all of them.
_JSON_BODY: Final = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b\n"
_JSON_PLAIN: Final = _START + _NO_STORE + _JSON_BODY


class Templates:
    """The format strings of responses with an ETag, in one incarnation of the store.

    They contain the incarnation, so that a response need not format it.
    """

    __slots__ = ("_name", "etag", "incarnation", "json_read", "json_written", "not_modified")

    def __init__(self, incarnation: str) -> None:
        self.incarnation = incarnation
        name = self._name = incarnation.encode("ascii")
        self.etag = b'ETag: "%%d.%b%%b%%b"\r\n' % name
        json_etag = b'ETag: "%%d.%b%%b"\r\n' % name
        self.not_modified = _START + _REVALIDATE + self.etag + b"\r\n"
        self.json_read = _START + _REVALIDATE + json_etag + _JSON_BODY
        self.json_written = _START + _NO_STORE + json_etag + _JSON_BODY

    def entry_read(self, *, common: bytes, request_id: bytes) -> bytes:
        """The format string of `json_read` with an entry as its body, for the fast path of a GET.

        Its fields: those of the format string `request_id`, the CORS lines, the revision as text, the length of the
        body, and the fields of PLAIN_KEY_ENTRY_JSON.
        """
        return self._entry(_REVALIDATE, common, request_id)

    def entry_written(self, *, common: bytes, request_id: bytes) -> bytes:
        """As `entry_read`, for the fast path of a write that has replaced an entry."""
        return self._entry(_NO_STORE, common, request_id)

    def _entry(self, cache: bytes, common: bytes, request_id: bytes) -> bytes:
        start = _START % (STATUS_LINES[200], common, request_id + b"%b")
        etag = b'ETag: "%%b.%b"\r\n' % self._name
        return start + cache + etag + _JSON_BODY.replace(b"%b", PLAIN_KEY_ENTRY_JSON)


def encode_response(request: Request, response: Response, *, common: bytes, templates: Templates, close: bool) -> bytes:
    """The head and the body in one piece, so that one system call sends them.

    `common`: the header lines of all responses at present. `templates`: those of the store's incarnation. A JSON body
    ends with a newline, so that the prompt of a shell starts on the next line. Caches may keep the response to a read
    if it has an ETag, and must revalidate it. They may keep no other (RFC 9111, section 5.2.2).
    """
    media, body, method = request.media, response.body, request.method
    fields = request.request_id
    if response.headers:
        fields += b"".join(f"\r\n{name}: {value}".encode("latin-1") for name, value in response.headers)
    if close or request.version == "1.0":
        fields += b"\r\nConnection: close" if close else b"\r\nConnection: keep-alive"
        if response.status == HTTPStatus.UPGRADE_REQUIRED:
            fields += b", Upgrade"  # required with the field Upgrade (RFC 9110, section 7.8)
    if request.headers.cors_lines:
        fields += request.headers.cors_lines
    start = STATUS_LINES[response.status]
    # One formatting for a response: to format the head and the body apart takes half as long again.
    if media is not _JSON or body is None or method == "HEAD":
        return _encode_other(request, response, (start, common, fields), templates)
    if response.revision is None:
        return _JSON_PLAIN % (start, common, fields, len(body) + 1, body)
    template = templates.json_read if method == "GET" else templates.json_written
    return template % (start, common, fields, response.revision, response.tag, len(body) + 1, body)


def _encode_other(
    request: Request, response: Response, start: tuple[bytes, bytes, bytes], templates: Templates
) -> bytes:
    """A response that is not JSON or has no body."""
    media, body, revision = request.media, response.body, response.revision
    tag = (revision, response.tag, media.tag)
    no_revision = _START + (_REVALIDATE if response.has_own_etag else _NO_STORE)
    if body is None:
        return (no_revision + b"\r\n") % start if revision is None else templates.not_modified % (*start, *tag)
    if media is Media.MESSAGEPACK and not response.is_packed:
        body = values.to_messagepack(body)
    content_type = media.line
    if media is Media.BYTES:
        content_type = response.content_type.encode("latin-1")
    size = len(body) + (media is _JSON)
    if request.method == "HEAD":
        body = b""
    if revision is None:
        return (no_revision + _BODY) % (*start, content_type, size, body)
    cache = _REVALIDATE if request.method in ("GET", "HEAD") else _NO_STORE
    return (_START + cache + templates.etag + _BODY) % (*start, *tag, content_type, size, body)


def encode_stream_head(
    request: Request, stream: Stream | EventStream, *, common: bytes, templates: Templates, close: bool
) -> bytes:
    media = stream.media
    line = media.line
    parts = [_START % (STATUS_LINES[200], common, request.request_id + request.headers.cors_lines)]
    if isinstance(stream, EventStream):
        parts.append(_NO_STORE + _NO_BUFFERING)
    elif stream.revision is None:
        parts.append(_NO_STORE)
    else:
        parts.append(_REVALIDATE + templates.etag % (stream.revision, b"", media.tag))
    if isinstance(stream, Stream) and media is Media.BYTES:
        line = stream.content_type.encode("latin-1")
        parts += [f"{name}: {value}\r\n".encode("latin-1") for name, value in stream.headers]
    parts.append(b"Content-Type: " + line + b"\r\nTransfer-Encoding: chunked")
    if close:
        parts.append(b"\r\nConnection: close")
    parts.append(b"\r\n\r\n")
    return b"".join(parts)


def error_response(request: Request, error: ServiceError) -> Response:
    """The response for any error."""
    if not may_read(request.principal):
        error = redacted(error)
    body = {
        "error": error.code,
        "message": error.message,
        **request.ids,
        **error.details,
    }
    return Response(error.status, msgspec.json.encode(body), headers=tuple(error.headers.items()))


# Reading ------------------------------------------------------------------------------------------------------

_PERCENT = ord("%")  # `in` finds a number in bytes faster than it finds bytes
_ESCAPE_FAULT = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def percent_decode(text: bytes) -> str:
    """Raises ValueError for an incomplete escape, and if the result is not UTF-8."""
    if _PERCENT in text:
        if _ESCAPE_FAULT.search(text):
            raise ValueError("incomplete percent escape")
        text = unquote_to_bytes(text)
    return text.decode("utf-8")


def parse_query(query: bytes) -> dict[str, list[str]]:
    """The parameters of a query, by name. `+` is a space, as forms and most clients write it.

    Raises `invalid_argument`.
    """
    parameters: dict[str, list[str]] = {}
    for field in query.split(b"&"):
        if not field:
            continue
        name, _, value = field.replace(b"+", b" ").partition(b"=")
        try:
            parameters.setdefault(percent_decode(name), []).append(percent_decode(value))
        except ValueError:
            raise ServiceError("invalid_argument", "the query is not percent-encoded UTF-8") from None
    return parameters
