"""`GET /stream/{uuid}`: a value as MessagePack, or the bytes that it is. `GET /stream`: all entries, as MessagePack or
lines of JSON.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial
from itertools import chain
from typing import Final

import msgspec

from leasehold import values
from leasehold.http.endpoints.kv.binary_entry import headers_of_bytes
from leasehold.http.endpoints.kv.listed_entry import Encoder, packed_entry
from leasehold.http.event_formats import json_line
from leasehold.http.media_types import Media
from leasehold.http.pieces import CHUNK_BYTES, gathered
from leasehold.http.requests import Request
from leasehold.http.responses import Response, Stream
from leasehold.http.routing.negotiation import negotiate_bytes, not_acceptable
from leasehold.http.routing.parameters import BASE64, PATH, PREFIX, flag_of, path_of, prefixes_of, uuid_of
from leasehold.http.routing.preconditions import CONDITIONS, condition_of
from leasehold.http.routing.route import AsyncEndpoint, DocumentedResponse, Route, Service
from leasehold.model import Binary, Condition, Entry, Found, NotModified, Read
from leasehold.values.entry_text import entry_json, entry_json_with_base64
from leasehold.values.steps import Encoded

# GET /stream/{uuid} -------------------------------------------------------------------------------------------


async def stream_value(request: Request, service: Service) -> Response | Stream:
    key = uuid_of(request)
    request.principal.require_covered(key)
    path = path_of(request)
    condition = condition_of(request, tag=request.media.tag)
    paths = None if path is None else (path,)
    outcome = await service.store.fetch(Read(key, paths, condition, partial(_condition_of_bytes, request)))
    if isinstance(outcome, NotModified):
        if outcome.media is not None:
            request.media = _representation_of_bytes(request, outcome.media) or Media.MESSAGEPACK
        return Response(304, None, outcome.revision)
    assert isinstance(outcome, Found)
    entry, value = outcome.entry, outcome.entry.value
    if not value:
        return _stream_of_bytes(request, entry)
    if request.media is not Media.MESSAGEPACK:
        raise not_acceptable((Media.MESSAGEPACK.content_type,))
    packed = values.to_messagepack(value if outcome.parts is None else outcome.parts[0])
    return Stream(Media.MESSAGEPACK, _chunks_of(packed), entry.revision)


def _stream_of_bytes(request: Request, entry: Entry) -> Stream:
    """The bytes as they are if `Accept` takes their media type; else as MessagePack."""
    value = entry.value
    assert isinstance(value, Binary)
    media = _representation_of_bytes(request, value.media)
    if media is None:
        raise not_acceptable((values.type_of(value.media), Media.MESSAGEPACK.content_type))
    if media is Media.MESSAGEPACK:
        return Stream(media, _chunks_of(msgspec.msgpack.encode(bytes(value.data))), entry.revision)
    headers = headers_of_bytes(value.media, takes_ranges=False)
    return Stream(media, _chunks_of(value.data), entry.revision, value.media, headers)


def _representation_of_bytes(request: Request, media: str) -> Media | None:
    return negotiate_bytes(request.headers.get(b"accept"), values.type_of(media), _OFFERS)


def _condition_of_bytes(request: Request, media: str) -> Condition | None:
    representation = _representation_of_bytes(request, media)
    return condition_of(request, tag=b"" if representation is None else representation.tag)


_OFFERS: Final = (Media.MESSAGEPACK,)


async def _chunks_of(data: bytes) -> AsyncGenerator[bytes]:
    for begin in range(0, len(data), CHUNK_BYTES):
        yield data[begin : begin + CHUNK_BYTES]


# GET /stream --------------------------------------------------------------------------------------------------


async def stream_entries(request: Request, service: Service) -> Stream:
    with_base64 = flag_of(request, BASE64.name, default=False)
    encode: Encoder = packed_entry
    if request.media is Media.NDJSON:
        encode = _json_line_with_base64 if with_base64 else _json_line
    return Stream(request.media, _entry_chunks(service, prefixes_of(request), encode))


async def _entry_chunks(service: Service, prefixes: Sequence[str], encode: Encoder) -> AsyncGenerator[bytes]:
    store = service.store
    async for page in store.pages(prefixes, None, None):
        async with aclosing(gathered(map(encode, page.records), store.turn)) as chunks:
            async for chunk in chunks:
                yield chunk


def _json_line(entry: Entry) -> bytes:
    return json_line(entry_json(entry)) + b"\n"


def _json_line_with_base64(entry: Entry) -> Encoded:
    text = entry_json_with_base64(entry)
    if isinstance(text, bytes):
        return json_line(text) + b"\n"
    return chain(map(json_line, text), (b"\n",))


# Routes -------------------------------------------------------------------------------------------------------

ROUTES = (
    Route(
        "GET",
        "/stream/{uuid}",
        AsyncEndpoint(stream_value),
        "Get a value, or a part of it, as MessagePack, in chunks; a value that is bytes as it is",
        "read",
        (
            DocumentedResponse(200, "The value, or the part.", "Value", etag=True, has_bytes=True),
            DocumentedResponse(304, "The client already has this revision.", None, etag=True),
        ),
        ("not_found", "path_not_found", "conflict", "precondition_failed", "upgrade_required"),
        (PATH, *CONDITIONS),
        offers=_OFFERS,
        serves_bytes=True,
    ),
    Route(
        "GET",
        "/stream",
        AsyncEndpoint(stream_entries),
        "Get all entries, one after the other, as MessagePack maps or lines of JSON",
        "read",
        (DocumentedResponse(200, "The entries in ascending order of their keys.", "Entry"),),
        ("upgrade_required",),
        (PREFIX, BASE64),
        offers=(Media.MESSAGEPACK, Media.NDJSON),
    ),
)
