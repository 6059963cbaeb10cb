"""Requests and responses as endpoints see them, and how a response and an error are written.

A body is made as JSON text once; MessagePack is made from it in one place (`encode_response`), so that no endpoint
knows of representations. To add a representation, add it to `media_types.Media` and there.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote_to_bytes

import msgspec

from leasehold import values
from leasehold.access.permissions import ANYONE, Principal
from leasehold.errors import ServiceError
from leasehold.http.media_types import Media
from leasehold.http.redaction import may_read, redacted
from leasehold.limits import KIB, MAX_REQUEST_ID_CHARACTERS

NO_QUERY: Final[Mapping[str, list[str]]] = {}


CONTENT_RANGE: Final = b"content-range"
OPTIONS: Final = frozenset((b"if-match", b"if-none-match", b"if-lease", b"prefer", CONTENT_RANGE))


class Headers(dict[bytes, bytes]):
    """Header fields by their names in lower case; one that came more than once is joined with commas.

    Requests with the same header block share one, so what was found out about it is kept with it.
    """

    __slots__ = ("content_type", "is_plain", "is_vetted", "sharing")

    def __init__(self) -> None:
        super().__init__()
        self.content_type: str | None = None
        """As `media_types.content_type` says, once it was asked."""
        self.is_plain = False
        """Nothing in it asks for another answer than usual."""
        self.is_vetted = False
        """It does not come from a page of a foreign site: see `admission`."""
        self.sharing = b""
        """Header lines by which the page that asks may read the answer; empty where no such page asks."""

    def look_for_options(self) -> None:
        """Set `is_plain`, once all fields are there."""
        self.is_plain = OPTIONS.isdisjoint(self) and self.get(b"accept", b"*/*") == b"*/*"


class Request(msgspec.Struct):
    """One request, complete."""

    method: str
    path: bytes
    headers: Headers
    version: str = "1.1"
    body: bytes = b""
    keep_alive: bool = False
    request_id: bytes = b""
    query: Mapping[str, list[str]] = NO_QUERY
    refusal: ServiceError | None = None
    """Set when the request is to be refused without looking further."""
    media: Media = Media.JSON
    """What the answer is to be."""
    principal: Principal = ANYONE
    """Who asks. Set once the request is admitted."""
    pattern: str = "-"
    """Of its route, set by the router; `-` if it has none."""
    is_there: Callable[[], bool] = lambda: True
    """Whether the client is still connected. Set where an endpoint waits."""
    max_value_bytes: int | None = None
    """What its value may take once it is stored. Set where its body is large."""
    argument: bytes = b""
    """What the route's pattern leaves open (a key), still encoded. Set by the router."""

    def take_query(self, query: bytes) -> None:
        """Become a request with this query, or a refused one."""
        try:
            self.query = parse_query(query)
        except ServiceError as refusal:
            self.refusal = refusal


class Response(msgspec.Struct, frozen=True, gc=False):
    """`body` is JSON text, or None for an answer that has none: 304, which has a `revision`, and 204, which has not."""

    status: int
    body: bytes | None
    revision: int | None = None
    """Becomes the ETag."""
    tag: bytes = b""
    """Sets the ETag apart beside the representation's own tag (`-raw`)."""
    headers: tuple[tuple[str, str], ...] = ()
    is_packed: bool = False
    """`body` is MessagePack already."""


CHUNK_BYTES: Final = 64 * KIB
"""A piece of a stream is no longer, unless one entry is."""


class Stream(msgspec.Struct, frozen=True):
    """A response whose body is made while it is sent. `chunks` are sent as they are, at the reader's pace."""

    media: Media
    chunks: AsyncGenerator[bytes]
    revision: int | None = None
    """Becomes the ETag."""


def gathered(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in fewer pieces, made as they are asked for: a page of large values is never whole in memory."""
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
    """A list that is answered whole: `{"NAME": [items], "revision": …, "next": …}`.

    It is made item by item, in the representation that was asked for, because making MessagePack of all of them at
    once would stop the event loop.
    """

    def __init__(self, name: str, media: Media) -> None:
        self._name = name
        self.is_packed = media is Media.MESSAGEPACK
        self._items: list[bytes] = []
        self._unyielded_bytes = 0
        self.size_bytes = 0
        """Of the items."""

    async def add(self, items: Iterable[bytes]) -> None:
        """Take items, in the representation of the list, and let others have their turn in between."""
        for item in items:
            self._items.append(item)
            self.size_bytes += len(item)
            self._unyielded_bytes += len(item)
            if self._unyielded_bytes > CHUNK_BYTES:
                self._unyielded_bytes = 0
                await asyncio.sleep(0)

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

_JSON: Final = Media.JSON  # a name of this module is found in a tenth of the time
_NO_STORE: Final = b"Cache-Control: no-store\r\n"
_REVALIDATE: Final = b"Cache-Control: no-cache\r\n"
_START: Final = b"%b%bX-Request-Id: %b\r\n"
_BODY: Final = b"Content-Type: %b\r\nContent-Length: %d\r\n\r\n%b"
# Nearly all answers are JSON; what is known of those stands in their templates.
_JSON_BODY: Final = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b\n"
_JSON_PLAIN: Final = _START + _NO_STORE + _JSON_BODY


class Templates:
    """What answers with an ETag look like in one incarnation of the store.

    Made once for all of them: the incarnation stands in the text that is formatted anyway, and costs an answer nothing.
    """

    __slots__ = ("etag", "incarnation", "json_read", "json_written", "not_modified")

    def __init__(self, incarnation: str) -> None:
        self.incarnation = incarnation
        name = incarnation.encode("ascii")
        self.etag = b'ETag: "%%d.%b%%b%%b"\r\n' % name
        json_etag = b'ETag: "%%d.%b%%b"\r\n' % name
        self.not_modified = _START + _REVALIDATE + self.etag + b"\r\n"
        self.json_read = _START + _REVALIDATE + json_etag + _JSON_BODY
        self.json_written = _START + _NO_STORE + json_etag + _JSON_BODY


def encode_response(request: Request, response: Response, *, common: bytes, templates: Templates, close: bool) -> bytes:
    """The whole response, head and body, in one piece, so that it leaves in one system call.

    `common` is the lines that all responses have at the time, `templates` those of the store's incarnation. A JSON
    body ends with a newline, so that the prompt of a shell does not stick to it. What a read answers with an ETag may
    be kept and must be revalidated; nothing else may be kept (RFC 9111, section 5.2.2).
    """
    media, body, method = request.media, response.body, request.method
    fields = request.request_id
    if response.headers:
        fields += b"".join(f"\r\n{name}: {value}".encode("latin-1") for name, value in response.headers)
    if close or request.version == "1.0":
        fields += b"\r\nConnection: close" if close else b"\r\nConnection: keep-alive"
        if response.status == HTTPStatus.UPGRADE_REQUIRED:
            fields += b", Upgrade"  # goes with the header Upgrade (RFC 9110, section 7.8)
    if request.headers.sharing:
        fields += request.headers.sharing
    start = STATUS_LINES[response.status]
    # One formatting each: two, one for a part, would take half as long again.
    if media is not _JSON or body is None or method == "HEAD":
        return _encode_other(request, response, (start, common, fields), templates)
    if response.revision is None:
        return _JSON_PLAIN % (start, common, fields, len(body) + 1, body)
    template = templates.json_read if method == "GET" else templates.json_written
    return template % (start, common, fields, response.revision, response.tag, len(body) + 1, body)


def _encode_other(
    request: Request, response: Response, start: tuple[bytes, bytes, bytes], templates: Templates
) -> bytes:
    """What is no JSON, or has no body."""
    media, body, revision = request.media, response.body, response.revision
    tag = (revision, response.tag, media.tag)
    if body is None:
        return (_START + _NO_STORE + b"\r\n") % start if revision is None else templates.not_modified % (*start, *tag)
    if media is Media.MESSAGEPACK and not response.is_packed:
        body = values.to_messagepack(body)
    size = len(body) + (media is _JSON)
    if request.method == "HEAD":
        body = b""
    if revision is None:
        return (_START + _NO_STORE + _BODY) % (*start, media.line, size, body)
    cache = _REVALIDATE if request.method in ("GET", "HEAD") else _NO_STORE
    return (_START + cache + templates.etag + _BODY) % (*start, *tag, media.line, size, body)


def encode_stream_head(request: Request, stream: Stream, *, common: bytes, templates: Templates, close: bool) -> bytes:
    media = stream.media
    parts = [_START % (STATUS_LINES[200], common, request.request_id + request.headers.sharing)]
    if stream.revision is None:
        parts.append(_NO_STORE)
    else:
        parts.append(_REVALIDATE + templates.etag % (stream.revision, b"", media.tag))
    parts.append(b"Content-Type: " + media.line + b"\r\nTransfer-Encoding: chunked")
    if close:
        parts.append(b"\r\nConnection: close")
    parts.append(b"\r\n\r\n")
    return b"".join(parts)


def error_response(request: Request, error: ServiceError) -> Response:
    """How every error looks, whatever it came from."""
    if not may_read(request.principal):
        error = redacted(error)
    body = {
        "error": error.code,
        "message": error.message,
        "request_id": request.request_id.decode("ascii"),
        **error.details,
    }
    return Response(error.status, msgspec.json.encode(body), headers=tuple(error.headers.items()))


# Reading ------------------------------------------------------------------------------------------------------

_PERCENT = ord("%")  # as a number, see `values`
_ESCAPE_FAULT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_PRINTABLE = re.compile(rb"[\x21-\x7e]{1,%d}" % MAX_REQUEST_ID_CHARACTERS)


def percent_decode(text: bytes) -> str:
    """Raises ValueError for an incomplete escape and for what is not UTF-8."""
    if _PERCENT in text:
        if _ESCAPE_FAULT.search(text):
            raise ValueError("incomplete percent escape")
        text = unquote_to_bytes(text)
    return text.decode("utf-8")


def parse_query(query: bytes) -> dict[str, list[str]]:
    """The parameters of a query. `+` is a space, as forms and most clients write it.

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


def accepted_request_id(sent: bytes | None) -> bytes | None:
    """The caller's X-Request-Id if it is short and printable, else None."""
    return sent if sent is not None and _PRINTABLE.fullmatch(sent) else None
