"""The bytes of a response: its head, and its body in the representation that the client asked for.

To add a representation, add it to `media_types.Media` and here.
"""

from http import HTTPStatus
from typing import Final

from leasehold import values
from leasehold.http.media_types import Media
from leasehold.http.requests import Request
from leasehold.http.responses import EventStream, Response, Stream
from leasehold.values.entry_text import PLAIN_KEY_ENTRY_JSON

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
        assert response.pieces is None, "the client would wait for the body"
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
