"""Requests and responses as endpoints see them, content negotiation, and how a response and an error are written.

A body is made as JSON text once; MessagePack is made from it in one place (`encode_response`), so that no endpoint
knows of representations. To add a representation, add it to `Media` and there.
"""

import re
from collections.abc import AsyncGenerator, Mapping
from enum import Enum
from functools import lru_cache
from http import HTTPStatus
from typing import Final, Literal
from urllib.parse import unquote_to_bytes

import msgspec

from leasehold import values
from leasehold.errors import ServiceError
from leasehold.limits import MAX_REQUEST_ID_CHARACTERS
from leasehold.model import Condition


class Media(Enum):
    """A representation. `tag` is what sets its ETag apart from the others of the same revision."""

    JSON = ("application/json", "")
    MESSAGEPACK = ("application/vnd.msgpack", "-msgpack")

    def __init__(self, content_type: str, tag: str) -> None:
        self.content_type = content_type
        self.tag = tag


MERGE_PATCH: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"
ACCEPT_PATCH: Final = {"Accept-Patch": f"{MERGE_PATCH}, {JSON_PATCH}"}

NO_QUERY: Final[Mapping[str, list[str]]] = {}


class Request:
    """One request, complete. `argument` is what the route's pattern left open (a key), still encoded, set by the router.

    Header names are in lower case. A header that came more than once is joined with commas.
    """

    __slots__ = (
        "argument",
        "body",
        "headers",
        "keep_alive",
        "media",
        "method",
        "path",
        "query",
        "refusal",
        "request_id",
        "version",
    )

    def __init__(self, method: str, path: bytes, headers: dict[bytes, bytes]) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.query: Mapping[str, list[str]] = NO_QUERY
        self.body = b""
        self.argument = b""
        self.media = Media.JSON
        self.request_id = b""
        self.version = "1.1"
        self.keep_alive = False
        self.refusal: ServiceError | None = None
        """Set by the connection when the request is to be refused without looking further."""


class Response(msgspec.Struct, frozen=True, gc=False):
    """`body` is JSON text, or None for an answer that has none (304)."""

    status: int
    body: bytes | None
    revision: int | None = None
    """Becomes the ETag."""
    tag: str = ""
    """Sets the ETag apart beside the representation's own tag (`-raw`)."""
    headers: tuple[tuple[str, str], ...] = ()


class Stream(msgspec.Struct, frozen=True):
    """A response whose body is made while it is sent. `chunks` are sent as they are, at the reader's pace."""

    content_type: str
    chunks: AsyncGenerator[bytes]


# Writing ------------------------------------------------------------------------------------------------------

STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
COMMON_HEADERS: Final = b"Vary: Accept\r\nX-Content-Type-Options: nosniff\r\n"


def encode_response(request: Request, response: Response, *, date: bytes, close: bool) -> bytes:
    """The whole response, head and body, in one piece, so that it leaves in one system call.

    `date` is the complete Date line.
    """
    body = response.body
    media = request.media
    parts = [STATUS_LINES[response.status], date, COMMON_HEADERS, b"X-Request-Id: ", request.request_id]
    if response.revision is not None:
        parts.append(b'\r\nETag: "%d%b"' % (response.revision, (response.tag + media.tag).encode()))
    for name, value in response.headers:
        parts.append(f"\r\n{name}: {value}".encode("latin-1"))
    if close:
        parts.append(b"\r\nConnection: close")
    if body is None:
        parts.append(b"\r\n\r\n")
        return b"".join(parts)
    if media is Media.MESSAGEPACK:
        body = values.to_messagepack(body)
        parts.append(b"\r\nContent-Type: application/vnd.msgpack\r\nContent-Length: %d\r\n\r\n" % len(body))
    else:
        parts.append(b"\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body))
    if request.method != "HEAD":
        parts.append(body)
    return b"".join(parts)


def encode_stream_head(request: Request, stream: Stream, *, date: bytes, chunked: bool, close: bool) -> bytes:
    parts = [STATUS_LINES[200], date, COMMON_HEADERS, b"X-Request-Id: ", request.request_id]
    parts.append(f"\r\nContent-Type: {stream.content_type}\r\n".encode())
    if chunked:
        parts.append(b"Transfer-Encoding: chunked\r\n")
    if close:
        parts.append(b"Connection: close\r\n")
    parts.append(b"\r\n")
    return b"".join(parts)


def error_response(request: Request, error: ServiceError) -> Response:
    """How every error looks, whatever it came from."""
    body = {
        "error": error.code,
        "message": error.message,
        "request_id": request.request_id.decode("ascii"),
        **error.details,
    }
    return Response(error.status, msgspec.json.encode(body), headers=tuple(error.headers.items()))


# Reading ------------------------------------------------------------------------------------------------------

_ESCAPE_FAULT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_PRINTABLE = re.compile(rb"[\x21-\x7e]{1,%d}" % MAX_REQUEST_ID_CHARACTERS)


def percent_decode(text: bytes) -> str:
    """Raises ValueError for an incomplete escape and for what is not UTF-8."""
    if b"%" in text:
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


@lru_cache(maxsize=256)
def negotiate(accept: bytes | None) -> Media:
    """The representation that `Accept` likes best; JSON when it likes several equally. Raises `not_acceptable`."""
    media = preferred(accept, tuple(media.content_type for media in Media))
    return next(candidate for candidate in Media if candidate.content_type == media)


def preferred(accept: bytes | None, offered: tuple[str, ...]) -> str:
    """The media type among those `offered` that an Accept header likes best (RFC 9110, section 12.5.1)."""
    if accept is None or not accept.strip():
        return offered[0]
    ranges = [_media_range(text) for text in accept.decode("latin-1").split(",") if text.strip()]
    best, best_quality = "", 0.0
    for candidate in offered:
        quality = _quality(candidate, ranges)
        if quality > best_quality:
            best, best_quality = candidate, quality
    if not best:
        raise ServiceError("not_acceptable", f"offered here: {', '.join(offered)}")
    return best


def _media_range(text: str) -> tuple[str, float]:
    name, *parameters = (part.strip().lower() for part in text.split(";"))
    quality = 1.0
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                quality = float(parameter[2:])
            except ValueError:
                quality = 0.0
    return name, quality


def _quality(candidate: str, ranges: list[tuple[str, float]]) -> float:
    """The quality of the most specific range that names `candidate`; 0 if none does."""
    kind = candidate.partition("/")[0] + "/*"
    for name in (candidate, kind, "*/*"):
        found = [quality for range_name, quality in ranges if range_name == name]
        if found:
            return max(found)
    return 0.0


def content_type(request: Request) -> str:
    """The media type of the body, in lower case, without parameters; "" when not given.

    Raises `unsupported_media_type` for a charset other than UTF-8 and for a compressed body.
    """
    if request.headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise ServiceError("unsupported_media_type", "compressed bodies are not taken")
    sent = request.headers.get(b"content-type")
    return "" if sent is None else _parsed_content_type(sent)


@lru_cache(maxsize=256)
def _parsed_content_type(sent: bytes) -> str:
    name, *parameters = (part.strip().lower() for part in sent.decode("latin-1").split(";"))
    for parameter in parameters:
        if parameter.startswith("charset=") and parameter[8:].strip('"') not in ("utf-8", "utf8", "us-ascii"):
            raise ServiceError("unsupported_media_type", "JSON is UTF-8")
    return name


# Preconditions ------------------------------------------------------------------------------------------------

_ENTITY_TAG = re.compile(r'\s*(W/)?"([\x21\x23-\x7e\x80-\xff]*)"\s*')
_OWN_TAG = re.compile(r"(0|[1-9][0-9]{0,18})((?:-raw)?(?:-msgpack)?)")


def condition(request: Request, *, tag: str | None = None) -> Condition | None:
    """What If-Match and If-None-Match ask, as revisions.

    If-Match accepts every representation of a revision. If-None-Match on a read accepts only the one that would be
    sent, with the ETag suffix `tag`, because a caller that has another does not have this; None: any (on writes).
    """
    headers = request.headers
    if b"if-match" not in headers and b"if-none-match" not in headers:
        return None
    if_match = headers.get(b"if-match")
    if_none_match = headers.get(b"if-none-match")
    return Condition(
        if_match=None if if_match is None else _revisions("If-Match", if_match, weak=False, accepts=None),
        if_none_match=(
            None if if_none_match is None else _revisions("If-None-Match", if_none_match, weak=True, accepts=tag)
        ),
    )


def _revisions(name: str, header: bytes, *, weak: bool, accepts: str | None) -> tuple[int, ...] | Literal["*"]:
    text = header.decode("latin-1").strip()
    if text == "*":
        return "*"
    revisions: list[int] = []
    position = 0
    while True:
        match = _ENTITY_TAG.match(text, position)
        if match is None:
            raise ServiceError("invalid_argument", f'{name} takes "*" or quoted entity tags')
        own = _OWN_TAG.fullmatch(match[2])
        if own is not None and (weak or not match[1]) and accepts in (None, own[2]):
            revisions.append(int(own[1]))
        position = match.end()
        if position == len(text):
            return tuple(revisions)
        if text[position] != ",":
            raise ServiceError("invalid_argument", f'{name} takes "*" or quoted entity tags')
        position += 1
