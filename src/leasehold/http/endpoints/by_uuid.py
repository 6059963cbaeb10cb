"""Endpoints that name entries by UUID: `/set`, `/get/{uuid}`, and `/stream`, which sends values as MessagePack.

They are the entries of `/kv/{uuid}`. A UUID is written in lower case, whatever case it came in.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final
from uuid import uuid4

from leasehold import values
from leasehold.errors import ServiceError
from leasehold.http.endpoints.entries import (
    CONDITIONS,
    LIST_PARAMETERS,
    PATH,
    PATHS,
    PREFER,
    PREFIX,
    RAW,
    WRITE_CONDITIONS,
    Pages,
    after_of,
    body_value,
    is_messagepack,
    key_of,
    listed,
    members_of,
    packed_entry,
    path_of,
    paths_of,
    prefixes_of,
    raw_tag,
    show_entry,
    ttl_microseconds,
    written_response,
)
from leasehold.http.messages import CHUNK_BYTES, Request, Response, Stream, gathered
from leasehold.http.negotiation import Media
from leasehold.http.routing.conditions import condition, fence
from leasehold.http.routing.routes import Answer, AsyncEndpoint, PureEndpoint, Route, Service
from leasehold.model import Entry, Found, Json, NotModified, Outcome, Page, Pointer, Put, Read, Written
from leasehold.values.entry_text import entry_json

SET_MEMBERS: Final = ("key", "value", "path", "ttl")

_LINE_ENDS: Final = re.compile(rb"\xe2\x80[\xa8\xa9]|\xc2\x85")
_FIRST_DIGITS: Final = tuple("0123456789abcdef")
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def parse_uuid(text: object) -> str:
    """A UUID in its usual form, in lower case. Raises `invalid_key`."""
    lower = text.lower() if isinstance(text, str) else ""
    if not _UUID.fullmatch(lower):
        raise ServiceError("invalid_key", "the key must be a UUID, like 123e4567-e89b-12d3-a456-426614174000")
    return lower


def uuid_of(request: Request) -> str:
    return parse_uuid(key_of(request))


# POST /set ----------------------------------------------------------------------------------------------------


def set_entry(request: Request) -> Put:
    body = members_of(body_value(request), SET_MEMBERS)
    if "value" not in body:
        raise ServiceError("invalid_argument", '"value" is missing', details={"member": "value"})
    key = parse_uuid(body["key"]) if body.get("key") is not None else str(uuid4())
    ttl = body.get("ttl")
    return Put(
        key,
        values.encode(body["value"]),
        _path_in(body.get("path")),
        None if ttl is None else ttl_microseconds(ttl),
        condition(request),
        fence(request),
    )


def _path_in(path: Json) -> Pointer | None:
    """A path in a body: a JSON Pointer, or a list of its segments."""
    if path is None:
        return None
    if isinstance(path, str):
        return values.parse_pointer(path)
    if isinstance(path, list) and all(type(segment) in (str, int) for segment in path):
        return values.parse_pointer(values.format_pointer(tuple(str(segment) for segment in path)))
    raise ServiceError("invalid_path", "path is a JSON Pointer or a list of its segments")


def show_set(request: Request, outcome: Outcome) -> Response:
    assert isinstance(outcome, Written)
    return written_response(request, outcome, location=f"/get/{outcome.entry.key}" if outcome.created else None)


# GET /get/{uuid} ----------------------------------------------------------------------------------------------


def get_entry(request: Request) -> Read:
    tag = raw_tag(request) + request.media.tag
    return Read(uuid_of(request), paths_of(request), condition(request, tag=tag))


async def list_by_uuid(request: Request, service: Service) -> Response | Stream:
    prefixes, after = prefixes_of(request), after_of(request)
    if prefixes == ("",):
        prefixes = _FIRST_DIGITS
    return await listed(request, lambda limit: _uuid_pages(service, prefixes, after, limit))


async def _uuid_pages(service: Service, prefixes: Sequence[str], after: str | None, limit: int | None) -> Pages:
    """As `Store.pages`, of the keys that are UUIDs."""
    left = limit
    last: str | None = None
    async with aclosing(service.store.pages(prefixes, after, None)) as pages:
        async for page in pages:
            records = [entry for entry in page.records if _UUID.fullmatch(entry.key)]
            if left is not None and len(records) > left:
                records = records[:left]
                yield Page(records, page.revision, records[-1].key if records else last)
                return
            if records:
                last = records[-1].key
                left = None if left is None else left - len(records)
            yield Page(records, page.revision, page.next_after)
            if not records:
                await asyncio.sleep(0)  # nothing is sent, so that nothing else lets others have their turn


# GET /stream/{uuid}, GET /stream ------------------------------------------------------------------------------


async def stream_value(request: Request, service: Service) -> Response | Stream:
    key = uuid_of(request)
    request.principal.require_covered(key)
    path = path_of(request)
    wanted = condition(request, tag=Media.MESSAGEPACK.tag)
    outcome = await service.store.fetch(Read(key, None if path is None else (path,), wanted))
    if isinstance(outcome, NotModified):
        return Response(304, None, outcome.revision)
    assert isinstance(outcome, Found)
    packed = values.to_messagepack(outcome.entry.value if outcome.parts is None else outcome.parts[0])
    return Stream(Media.MESSAGEPACK, _pieces(packed), outcome.entry.revision)


async def _pieces(data: bytes) -> AsyncGenerator[bytes]:
    for begin in range(0, len(data), CHUNK_BYTES):
        yield data[begin : begin + CHUNK_BYTES]


async def stream_entries(request: Request, service: Service) -> Stream:
    return Stream(request.media, _entry_chunks(service, prefixes_of(request), request.media))


async def _entry_chunks(service: Service, prefixes: Sequence[str], media: Media) -> AsyncGenerator[bytes]:
    async for page in service.store.pages(prefixes, None, None):
        for chunk in gathered(map(_line if media is Media.NDJSON else packed_entry, page.records)):
            yield chunk


def _line(entry: Entry) -> bytes:
    """JSON text as a line, for readers who end lines also at U+0085, U+2028 and U+2029, as Unicode does.

    The text has these only in strings, where an escape means the same.
    """
    text = entry_json(entry)
    if b"\xe2\x80" in text or b"\xc2\x85" in text:
        text = _LINE_ENDS.sub(lambda match: b"\\u%04x" % ord(match[0].decode()), text)
    return text + b"\n"


# The table ----------------------------------------------------------------------------------------------------

ROUTES = (
    Route(
        "POST",
        "/set",
        PureEndpoint(set_entry, show_set),
        "Create or replace a value by UUID, or a part of it",
        "write",
        (
            Answer(201, "Created.", "Written", etag=True, headers=("Location",)),
            Answer(200, "Replaced.", "Written", etag=True),
        ),
        ("invalid_key", "invalid_path", "path_not_found", "conflict", "precondition_failed", "too_large"),
        (*WRITE_CONDITIONS, PREFER),
        {"application/json": "Set", "application/vnd.msgpack": "Set"},
        check_head=is_messagepack,
    ),
    Route(
        "GET",
        "/get/{uuid}",
        PureEndpoint(get_entry, show_entry),
        "Get an entry by UUID, or parts of it",
        "read",
        (
            Answer(200, "The entry; with `raw`, its value.", "EntryOrValue", etag=True),
            Answer(304, "The caller has this revision.", None, etag=True),
        ),
        ("not_found", "path_not_found", "precondition_failed", "too_large"),
        (PATHS, RAW, *CONDITIONS),
    ),
    Route(
        "GET",
        "/get",
        AsyncEndpoint(list_by_uuid),
        "List the entries whose keys are UUIDs in ascending order",
        "read",
        (Answer(200, "The entries.", "EntryList"),),
        ("upgrade_required",),
        LIST_PARAMETERS,
    ),
    Route(
        "GET",
        "/stream/{uuid}",
        AsyncEndpoint(stream_value),
        "Get a value, or a part of it, as MessagePack, in chunks",
        "read",
        (
            Answer(200, "The value, or the part.", "Value", etag=True),
            Answer(304, "The caller has this revision.", None, etag=True),
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
        (Answer(200, "The entries in ascending order of their keys.", "Entry"),),
        ("upgrade_required",),
        (PREFIX,),
        offers=(Media.MESSAGEPACK, Media.NDJSON),
    ),
)
