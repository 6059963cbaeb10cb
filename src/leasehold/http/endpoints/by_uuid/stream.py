"""`GET /stream/{uuid}`: a value as MessagePack. `GET /stream`: all entries as MessagePack or lines of JSON."""

from collections.abc import AsyncGenerator, Sequence

from leasehold import values
from leasehold.http.endpoints.kv.listed_entry import packed_entry
from leasehold.http.event_formats import json_line
from leasehold.http.media_types import Media
from leasehold.http.messages import CHUNK_BYTES, Request, Response, Stream, gathered
from leasehold.http.routing.parameters import PATH, PREFIX, path_of, prefixes_of, uuid_of
from leasehold.http.routing.preconditions import CONDITIONS, condition_of
from leasehold.http.routing.route import AsyncEndpoint, DocumentedResponse, Route, Service
from leasehold.model import Entry, Found, NotModified, Read
from leasehold.values.entry_text import entry_json

# GET /stream/{uuid} -------------------------------------------------------------------------------------------


async def stream_value(request: Request, service: Service) -> Response | Stream:
    key = uuid_of(request)
    request.principal.require_covered(key)
    path = path_of(request)
    condition = condition_of(request, tag=Media.MESSAGEPACK.tag)
    outcome = await service.store.fetch(Read(key, None if path is None else (path,), condition))
    if isinstance(outcome, NotModified):
        return Response(304, None, outcome.revision)
    assert isinstance(outcome, Found)
    packed = values.to_messagepack(outcome.entry.value if outcome.parts is None else outcome.parts[0])
    return Stream(Media.MESSAGEPACK, _chunks_of(packed), outcome.entry.revision)


async def _chunks_of(data: bytes) -> AsyncGenerator[bytes]:
    for begin in range(0, len(data), CHUNK_BYTES):
        yield data[begin : begin + CHUNK_BYTES]


# GET /stream --------------------------------------------------------------------------------------------------


async def stream_entries(request: Request, service: Service) -> Stream:
    return Stream(request.media, _entry_chunks(service, prefixes_of(request), request.media))


async def _entry_chunks(service: Service, prefixes: Sequence[str], media: Media) -> AsyncGenerator[bytes]:
    async for page in service.store.pages(prefixes, None, None):
        for chunk in gathered(map(_json_line if media is Media.NDJSON else packed_entry, page.records)):
            yield chunk


def _json_line(entry: Entry) -> bytes:
    return json_line(entry_json(entry)) + b"\n"


# Routes -------------------------------------------------------------------------------------------------------

ROUTES = (
    Route(
        "GET",
        "/stream/{uuid}",
        AsyncEndpoint(stream_value),
        "Get a value, or a part of it, as MessagePack, in chunks",
        "read",
        (
            DocumentedResponse(200, "The value, or the part.", "Value", etag=True),
            DocumentedResponse(304, "The client already has this revision.", None, etag=True),
        ),
        ("not_found", "path_not_found", "precondition_failed", "upgrade_required"),
        (PATH, *CONDITIONS),
        offers=(Media.MESSAGEPACK,),
    ),
    Route(
        "GET",
        "/stream",
        AsyncEndpoint(stream_entries),
        "Get all entries, one after the other, as MessagePack maps or lines of JSON",
        "read",
        (DocumentedResponse(200, "The entries in ascending order of their keys.", "Entry"),),
        ("upgrade_required",),
        (PREFIX,),
        offers=(Media.MESSAGEPACK, Media.NDJSON),
    ),
)
