"""Responses as endpoints make them. `encoding` makes bytes of them.

An endpoint makes a body as JSON text, so that no endpoint handles representations.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable

import msgspec

from leasehold.errors import ServiceError
from leasehold.http.media_types import Media
from leasehold.http.redaction import may_read, redacted
from leasehold.http.requests import Request
from leasehold.store.watchers import Sink
from leasehold.values.steps import Encoded, Pieces


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
    pieces: Pieces | None = None
    """The body in its representation, if it is large: it is made in steps. `body` is None then."""


def encoded_response(
    body: Encoded, revision: int | None = None, tag: bytes = b"", *, is_packed: bool = False
) -> Response:
    """200 with a body that may be in pieces."""
    if isinstance(body, bytes):
        return Response(200, body, revision, tag, is_packed=is_packed)
    return Response(200, None, revision, tag, is_packed=is_packed, pieces=body)


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
