"""The responses to a GET of an entry whose value is bytes: the bytes or a range of them, or the entry.

`Accept` decides. If it takes the media type of the value, the response is the bytes as they are. Otherwise it is the
entry: as JSON with `media` and `size`, as MessagePack also with the bytes. With `base64` it is always the entry, which
then has the bytes in JSON, too. With `raw` it is the value alone.
"""

import secrets
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Final

import msgspec

from leasehold import values
from leasehold.errors import ServiceError
from leasehold.http.media_types import JSON_FIRST, Media
from leasehold.http.requests import RANGE, Request
from leasehold.http.responses import Response, encoded_response, error_response
from leasehold.http.routing.negotiation import error_media, negotiate, negotiate_bytes, not_acceptable
from leasehold.http.routing.parameters import BASE64, RAW, flag_of, raw_tag
from leasehold.http.routing.preconditions import IF_RANGE, condition_of, if_range_of
from leasehold.http.routing.ranges import content_range, multipart, parse_ranges
from leasehold.model import Binary, Condition, Entry, Found, NotModified
from leasehold.values.entry_text import (
    base64_json_pieces,
    binary_pieces,
    entry_json,
    entry_json_with_base64,
    entry_messagepack_pieces,
    joined_if_small,
)

_SHOWN_BY_BROWSERS: Final = ("image/", "audio/", "video/", "font/")
_HARMLESS: Final = frozenset(("text/plain", "application/pdf", "application/octet-stream"))


def representation_of(request: Request, media: str) -> Media | None:
    """The representation of a value that is bytes of this media type. None: `Accept` takes none of them."""
    accept = request.headers.get(b"accept")
    if flag_of(request, BASE64.name, default=False):
        try:
            return negotiate(accept, JSON_FIRST)
        except ServiceError:
            return None
    return negotiate_bytes(accept, values.type_of(media), JSON_FIRST)


def condition_of_bytes(request: Request) -> Callable[[str], Condition | None] | None:
    """See `Read.condition_of_bytes`."""
    headers = request.headers
    if b"if-match" in headers or b"if-none-match" in headers or (IF_RANGE in headers and RANGE in headers):
        return partial(_condition, request)
    return None


def _condition(request: Request, media: str) -> Condition | None:
    representation = representation_of(request, media)
    if representation is not Media.BYTES:
        tag = b"" if representation is None else raw_tag(request) + representation.tag
        return condition_of(request, tag=tag)
    condition = condition_of(request, tag=Media.BYTES.tag) or Condition()
    return msgspec.structs.replace(condition, if_range=if_range_of(request, tag=Media.BYTES.tag))


def show_not_modified(request: Request, outcome: NotModified, media: str) -> Response:
    """304 with the ETag of the representation that the client has."""
    request.media = representation_of(request, media) or Media.JSON
    return Response(304, None, outcome.revision, b"" if request.media is Media.BYTES else raw_tag(request))


def show_bytes(request: Request, found: Found) -> Response:
    """The response to the read of an entry whose value is bytes."""
    entry, value = found.entry, found.entry.value
    assert isinstance(value, Binary)
    representation = representation_of(request, value.media)
    is_raw = flag_of(request, RAW.name, default=False)
    with_base64 = flag_of(request, BASE64.name, default=False)
    if representation is None or (representation is Media.JSON and is_raw and not with_base64):
        return show_not_acceptable(request, values.type_of(value.media), *(() if is_raw else _NAMES))
    request.media = representation
    if representation is Media.BYTES:
        return _content(request, entry, value, takes_ranges=found.is_ranged)
    tag = raw_tag(request)
    if representation is Media.MESSAGEPACK:
        packed = joined_if_small(value, binary_pieces(value)) if is_raw else entry_messagepack_pieces(entry)
        return encoded_response(packed, entry.revision, tag, is_packed=True)
    if is_raw:
        return encoded_response(joined_if_small(value, base64_json_pieces(value)), entry.revision, tag)
    body = entry_json_with_base64(entry) if with_base64 else entry_json(entry)
    return encoded_response(body, entry.revision, tag)


_NAMES: Final = tuple(media.content_type for media in JSON_FIRST)


def show_not_acceptable(request: Request, *available: str) -> Response:
    """406, which can be decided only when the value is known."""
    return _error(request, not_acceptable(available))


def _error(request: Request, error: ServiceError) -> Response:
    request.media = error_media(request.headers.get(b"accept"))
    return error_response(request, error)


def _content(request: Request, entry: Entry, value: Binary, *, takes_ranges: bool) -> Response:
    """200 with all bytes, or 206 with ranges of them, or 416."""
    data: bytes = value.data
    media = value.media
    headers = headers_of_bytes(media)
    asked = request.headers.get(RANGE)
    ranges = None
    if asked is not None and takes_ranges and request.method == "GET":
        try:
            ranges = parse_ranges(asked, len(data))
        except ServiceError as refusal:
            return _error(request, refusal)
    if ranges is None:
        return Response(HTTPStatus.OK, data, entry.revision, headers=headers, content_type=media)
    if len(ranges) == 1:
        headers += (("Content-Range", content_range(ranges[0], len(data))),)
        data = data[ranges[0].start : ranges[0].stop]
    else:
        boundary = secrets.token_hex(16)
        data = multipart(data, ranges, media, boundary)
        media = f"multipart/byteranges; boundary={boundary}"
    return Response(HTTPStatus.PARTIAL_CONTENT, data, entry.revision, headers=headers, content_type=media)


def headers_of_bytes(media: str, *, takes_ranges: bool = True) -> tuple[tuple[str, str], ...]:
    """What a response with bytes has beside the headers of every response.

    A browser must not run the bytes as a page of this origin, so it saves all types that it might run. It keeps to the
    type because every response has `X-Content-Type-Options: nosniff`.
    """
    name = values.type_of(media)
    is_shown = name in _HARMLESS or (name.startswith(_SHOWN_BY_BROWSERS) and not name.endswith("+xml"))
    headers: tuple[tuple[str, str], ...] = (("Accept-Ranges", "bytes"),) if takes_ranges else ()
    return headers if is_shown else (*headers, ("Content-Disposition", "attachment"))
