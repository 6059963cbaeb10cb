"""Endpoints of `/kv`: what a request asks of the store, and how the outcome is written.

Each is a pair of pure functions; the lists are coroutines. All rules about entries are in `commit`; here a request is
only read and an answer only written.
"""

import re
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Mapping
from contextlib import aclosing
from typing import Final, cast

import msgspec

from leasehold import values
from leasehold.errors import ServiceError
from leasehold.http.disclosure import may_read
from leasehold.http.messages import GatheredList, Request, Response, Stream, gathered, percent_decode
from leasehold.http.negotiation import (
    ACCEPT,
    ACCEPT_PATCH,
    JSON_PATCH,
    MERGE_PATCH,
    Media,
    content_type,
    prefers_minimal,
)
from leasehold.http.routing.conditions import condition, fence
from leasehold.http.routing.routes import Answer, AsyncEndpoint, Parameter, PureEndpoint, Route, Service
from leasehold.keys import check_key
from leasehold.limits import (
    MAX_GATHERED_BYTES,
    MAX_KEY_BYTES,
    MAX_PAGE_ENTRIES,
    MAX_PATHS,
    MAX_TTL_SECONDS,
    MIN_TTL_SECONDS,
)
from leasehold.model import (
    Delete,
    Deleted,
    Entry,
    Found,
    Json,
    JsonPatch,
    MergePatch,
    NotModified,
    Outcome,
    Page,
    Pointer,
    Put,
    Read,
    Written,
)
from leasehold.values.entry_text import entry_json, partial_entry_json, receipt_json

JSON_TYPES: Final = ("application/json", "application/x-www-form-urlencoded", "")
"""Bodies read as JSON. The form type is what curl sends with `-d` when told nothing else."""
MAX_SHOWN_CHARACTERS: Final = 64
"""Of a caller's own text in an error."""
Pages = AsyncGenerator[Page[Entry]]
"""Entries in ascending order of their keys; the `next_after` of the last page is where the list goes on."""
_DECIMAL: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,20})?")
"""A number as people write it; `float` would take `1_000` and `nan`, too."""


# Reading a request --------------------------------------------------------------------------------------------


def key_of(request: Request) -> str:
    try:
        key = percent_decode(request.argument)
    except ValueError:
        raise ServiceError("invalid_key", "the key is not percent-encoded UTF-8") from None
    check_key(key)
    return key


def value_of(request: Request) -> bytes:
    """The body as a checked, compact JSON text."""
    if is_messagepack(request):
        return values.parse_messagepack(request.body, max_bytes=request.max_value_bytes)
    return values.parse_json(request.body)


def body_value(request: Request) -> Json:
    """The body as a checked value."""
    if is_messagepack(request):
        return values.parse_messagepack_value(request.body, max_bytes=request.max_value_bytes)
    return values.parse_json_value(request.body)


def is_messagepack(request: Request) -> bool:
    """Whether the body is MessagePack and not JSON. Raises `unsupported_media_type` if it is neither."""
    headers = request.headers
    sent = headers.content_type
    if sent is None:
        sent = headers.content_type = content_type(headers)
    if sent in JSON_TYPES:
        return False
    if sent == Media.MESSAGEPACK.content_type:
        return True
    raise ServiceError(
        "unsupported_media_type",
        "send the header Content-Type: application/json, or application/vnd.msgpack",
        headers=ACCEPT,
    )


def members_of(body: Json, known: Collection[str]) -> dict[str, Json]:
    """`body`, an object of `known` members. Raises `invalid_argument`, naming the member that is wrong."""
    expected = f"the body is an object of {', '.join(known)}"
    if not isinstance(body, dict):
        raise ServiceError("invalid_argument", expected)
    for name in body:
        if name not in known:
            shown = name[:MAX_SHOWN_CHARACTERS]
            raise ServiceError("invalid_argument", f'"{shown}" is unknown; {expected}', details={"member": shown})
    return body


def ttl_of(request: Request) -> int | None:
    """`ttl` in microseconds."""
    sent = request.query.get("ttl")
    return None if sent is None else ttl_microseconds(decimal_of(sent[0]))


def ttl_microseconds(sent: Json) -> int:
    """How long an entry is to live."""
    return microseconds_of(sent, name="ttl", minimum=MIN_TTL_SECONDS, maximum=MAX_TTL_SECONDS)


def decimal_of(text: str) -> float | str:
    """A number in a query; what is none stays text."""
    return float(text) if _DECIMAL.fullmatch(text) else text


def microseconds_of(sent: Json, *, name: str, minimum: float, maximum: float) -> int:
    """What was given as a number of seconds."""
    is_number = isinstance(sent, int | float) and not isinstance(sent, bool)
    if is_number and minimum <= (number := cast("float", sent)) <= maximum:
        return round(number * 1_000_000)
    raise ServiceError("invalid_argument", f"{name} is a number of seconds, {minimum:g} to {maximum:.0f}")


def path_of(request: Request) -> Pointer | None:
    sent = request.query.get("path")
    if sent is None:
        return None
    if len(sent) > 1:
        raise ServiceError("invalid_argument", "path may be given once here")
    return values.parse_pointer(sent[0])


def paths_of(request: Request) -> tuple[Pointer, ...] | None:
    sent = request.query.get("path")
    if sent is None:
        return None
    if len(sent) > MAX_PATHS:
        raise ServiceError("invalid_argument", "too many paths", details={"limit": MAX_PATHS})
    return tuple(values.parse_pointer(text) for text in sent)


def prefixes_of(request: Request) -> tuple[str, ...]:
    """`prefix`, narrowed to what the caller may see."""
    prefix = request.query.get("prefix", [""])[0]
    if len(prefix.encode()) > MAX_KEY_BYTES:
        raise ServiceError("invalid_argument", "prefix is longer than a key", details={"limit": MAX_KEY_BYTES})
    return request.principal.covered_prefixes(prefix)


def after_of(request: Request) -> str | None:
    """`after`: a place between keys, not always a key."""
    after = request.query.get("after", [None])[0]
    if len((after or "").encode()) > MAX_KEY_BYTES:
        raise ServiceError("invalid_argument", "after is longer than a key", details={"limit": MAX_KEY_BYTES})
    return after


def flag_of(request: Request, name: str, *, default: bool) -> bool:
    """A yes-or-no parameter: `?raw`, `?raw=true`, `?values=false`."""
    sent = request.query.get(name)
    if sent is None:
        return default
    if sent[0] in ("", "true", "1"):
        return True
    if sent[0] in ("false", "0"):
        return False
    raise ServiceError("invalid_argument", f"{name} is true or false")


def is_plain_request(request: Request) -> bool:
    """Nothing is asked beyond the key: so for nearly all requests, which then need no look for each option."""
    return request.headers.is_plain and not request.query


def wants_minimal(request: Request) -> bool:
    prefer = request.headers.get(b"prefer")
    return prefer is not None and prefers_minimal(prefer)


def raw_tag(request: Request) -> bytes:
    return b"-raw" if flag_of(request, "raw", default=False) else b""


# GET /kv/{key} ------------------------------------------------------------------------------------------------


def read_entry(request: Request) -> Read:
    if is_plain_request(request):
        return Read(key_of(request))
    tag = raw_tag(request) + request.media.tag
    return Read(key_of(request), paths_of(request), condition(request, tag=tag))


def show_entry(request: Request, outcome: Outcome) -> Response:
    if isinstance(outcome, NotModified):
        return Response(304, None, outcome.revision, raw_tag(request))
    assert isinstance(outcome, Found)
    entry = outcome.entry
    if not request.query:
        return Response(200, entry_json(entry), entry.revision)
    tag = raw_tag(request)
    value, path = _shown_value(request, outcome)
    if tag:
        return Response(200, value, entry.revision, tag)
    return Response(200, partial_entry_json(entry, value=value, path=path), entry.revision)


def _shown_value(request: Request, found: Found) -> tuple[bytes, str | None]:
    """The value to show, whole or in parts, and the path when there is one only."""
    if found.parts is None:
        return found.entry.value, None
    paths = request.query["path"]
    if len(paths) == 1:
        return found.parts[0], paths[0]
    parts = {path: msgspec.Raw(part) for path, part in zip(paths, found.parts, strict=True)}
    return msgspec.json.encode(parts), None


# POST, PUT, PATCH, DELETE /kv/{key} ---------------------------------------------------------------------------


def put_entry(request: Request) -> Put:
    if is_plain_request(request):
        return Put(key_of(request), value_of(request))
    path = path_of(request)
    if path and path[-1] == "-" and request.method == "PUT":
        # A proxy may send a PUT again whose answer was lost (RFC 9110, section 9.2.2), and would append twice.
        raise ServiceError("invalid_argument", "PUT does not append; send a path that ends in - with POST")
    return Put(key_of(request), value_of(request), path, ttl_of(request), condition(request), fence(request))


def patch_entry(request: Request) -> MergePatch | JsonPatch:
    key, ttl, wanted, lease_id = key_of(request), ttl_of(request), condition(request), fence(request)
    sent = patch_type_of(request)
    if sent == MERGE_PATCH:
        return MergePatch(key, values.parse_json_value(request.body), ttl, wanted, lease_id)
    steps = values.parse_json_patch(values.parse_json_value(request.body))
    if any(step.op == "test" for step in steps):
        request.principal.require_permission("read")  # it asks for nothing else than what is stored
    return JsonPatch(key, steps, ttl, wanted, lease_id)


def patch_type_of(request: Request) -> str:
    """MERGE_PATCH or JSON_PATCH. Raises `unsupported_media_type`."""
    sent = content_type(request.headers, ACCEPT_PATCH)
    if sent in (MERGE_PATCH, JSON_PATCH):
        return sent
    raise ServiceError(
        "unsupported_media_type",
        f"send the header Content-Type: {MERGE_PATCH}, or {JSON_PATCH}",
        headers=ACCEPT_PATCH,
    )


def show_written(request: Request, outcome: Outcome) -> Response:
    assert isinstance(outcome, Written)
    if not outcome.created and is_plain_request(request) and may_read(request.principal):
        return Response(200, entry_json(outcome.entry), outcome.entry.revision)
    location = request.path.decode("ascii") if outcome.created else None
    return written_response(request, outcome, location=location)


def written_response(request: Request, written: Written, *, location: str | None) -> Response:
    """The answer of a write. `location`: where the entry is, if it is new."""
    entry = written.entry
    headers: tuple[tuple[str, str], ...] = () if location is None else (("Location", location),)
    path = None if written.path is None else values.format_pointer(written.path)
    is_minimal = wants_minimal(request)
    if is_minimal:
        headers += (("Preference-Applied", "return=minimal"),)
    if not may_read(request.principal):
        body = receipt_json(entry, path=path)
    elif is_minimal:
        body = partial_entry_json(entry, value=None, path=path)
    elif written.part is not None:
        body = partial_entry_json(entry, value=written.part, path=path)
    else:
        body = entry_json(entry)
    return Response(201 if written.created else 200, body, entry.revision, headers=headers)


def _sent_path(request: Request) -> str | None:
    sent = request.query.get("path")
    return None if sent is None else sent[0]


def delete_entry(request: Request) -> Delete:
    path, ttl = path_of(request), ttl_of(request)
    if ttl is not None and not path:
        raise ServiceError("invalid_argument", "ttl goes with a path here: the entry itself is deleted")
    return Delete(key_of(request), path, ttl, condition(request), fence(request))


def show_deleted(request: Request, outcome: Outcome) -> Response:
    if isinstance(outcome, Deleted):
        return Response(200, deleted_json(outcome.key, outcome.revision, _sent_path(request)))
    assert isinstance(outcome, Written)
    entry = outcome.entry
    return Response(200, deleted_json(entry.key, entry.revision, _sent_path(request)), entry.revision)


def deleted_json(key: str, revision: int, path: str | None) -> bytes:
    body: dict[str, str | int | bool] = {"key": key}
    if path is not None:
        body["path"] = path
    return msgspec.json.encode(body | {"deleted": True, "revision": revision})


# GET /kv ------------------------------------------------------------------------------------------------------


async def list_entries(request: Request, service: Service) -> Response | Stream:
    prefixes, after = prefixes_of(request), after_of(request)
    return await listed(request, lambda limit: service.store.pages(prefixes, after, limit))


async def listed(request: Request, pages_of: Callable[[int | None], Pages]) -> Response | Stream:
    """A list as it was asked for. `pages_of`: the entries to list, as many as the limit says, or all."""
    with_values = flag_of(request, "values", default=True)
    limit = limit_of(request)
    if request.media is Media.MESSAGEPACK:
        return await _gathered_list(pages_of(limit or MAX_PAGE_ENTRIES), with_values=with_values)
    return Stream(Media.JSON, _list_chunks(pages_of(limit), with_values=with_values))


async def _gathered_list(pages: Pages, *, with_values: bool) -> Response:
    """A MessagePack list says its length in front, so it cannot be streamed: it comes in pages, with `next`.

    A page ends at its limit, or before that when it is heavy: ten thousand values may be gigabytes.
    """
    found = GatheredList("entries", Media.MESSAGEPACK)
    revision: int | None = None
    next_after: str | None = None
    async with aclosing(pages):
        async for page in pages:
            revision = page.revision if revision is None else revision
            await found.add(map(packed_entry if with_values else _packed_without_value, page.records))
            next_after = page.next_after
            if found.size_bytes > MAX_GATHERED_BYTES:
                break
    assert revision is not None
    return found.response(revision, next_after)


def _packed_without_value(entry: Entry) -> bytes:
    return values.to_messagepack(_entry_without_value(entry))


def packed_entry(entry: Entry) -> bytes:
    """An entry as MessagePack. Raises `internal`, naming the key, where MessagePack cannot carry its value."""
    text = entry_json(entry)
    try:
        return values.to_messagepack(text)
    except ServiceError as error:
        raise values.unreadable(key=entry.key) from error


async def _list_chunks(pages: Pages, *, with_values: bool) -> AsyncGenerator[bytes]:
    separator = b'{"entries":[\n'
    revision: int | None = None
    next_after: str | None = None
    async for page in pages:
        # The revision before the first entry was read: every change up to it is in the list.
        revision = page.revision if revision is None else revision
        next_after = page.next_after
        for chunk in gathered(b",\n" + text for text in _entry_texts(page, with_values=with_values)):
            yield separator + chunk.removeprefix(b",\n") if separator else chunk
            separator = b""
    assert revision is not None
    yield separator + b"\n]," + _list_end(revision, next_after) + b"\n"


def _entry_texts(page: Page[Entry], *, with_values: bool) -> Iterator[bytes]:
    return map(entry_json if with_values else _entry_without_value, page.records)


def _entry_without_value(entry: Entry) -> bytes:
    return partial_entry_json(entry, value=None, path=None)


def _list_end(revision: int, next_after: str | None) -> bytes:
    return b'"revision":%d,"next":%b}' % (revision, msgspec.json.encode(next_after))


def limit_of(request: Request) -> int | None:
    sent = request.query.get("limit")
    if sent is None:
        return None
    text = sent[0]
    limit = int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else 0
    if not 1 <= limit <= MAX_PAGE_ENTRIES:
        raise ServiceError("invalid_argument", f"limit is an integer, 1 to {MAX_PAGE_ENTRIES}")
    return limit


# The table ----------------------------------------------------------------------------------------------------

_STRING: Mapping[str, Json] = {"type": "string"}
PATH = Parameter("path", "JSON Pointer (RFC 6901) to a part of the value.", {"type": "string", "examples": ["/a/0"]})
PATHS = Parameter("path", "JSON Pointer to a part; several give each part by its path.", _STRING, repeated=True)
TTL = Parameter(
    "ttl",
    "Seconds until the entry expires; without it the entry lasts.",
    {"type": "number", "minimum": MIN_TTL_SECONDS, "maximum": MAX_TTL_SECONDS},
)
RAW = Parameter("raw", "The value alone as the body.", {"type": "boolean"})
_IF_MATCH = Parameter("If-Match", '"*" or the ETags of revisions that the entry must be at.', _STRING, "header")
_IF_NONE_MATCH = Parameter("If-None-Match", '"*" or ETags that the entry must not be at.', _STRING, "header")
PREFIX = Parameter("prefix", "Only keys that begin with it.", _STRING)
LIST_PARAMETERS = (
    PREFIX,
    Parameter("after", "Only keys greater than it.", _STRING),
    Parameter(
        "limit",
        "At most so many entries; `next` is the `after` to go on with. Without it, all are streamed.",
        {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_ENTRIES},
    ),
    Parameter("values", "false leaves the values out.", {"type": "boolean"}),
)
PREFER = Parameter("Prefer", "return=minimal leaves the value out of the answer.", _STRING, "header")
_IF_LEASE = Parameter("If-Lease", "A lease_id: done only if this lease is alive at the commit.", _STRING, "header")
CONDITIONS = (_IF_MATCH, _IF_NONE_MATCH)
WRITE_CONDITIONS = (*CONDITIONS, _IF_LEASE)
_WRITE_ERRORS = ("not_found", "path_not_found", "conflict", "precondition_failed", "too_large", "storage_full")
_VALUE_BODIES = {"application/json": "Value", "application/vnd.msgpack": "Value"}
_CREATED = Answer(201, "Created.", "Written", etag=True, headers=("Location",))
_REPLACED = Answer(200, "Replaced.", "Written", etag=True)
_PUT = PureEndpoint(put_entry, show_written)


def _put_route(method: str) -> Route:
    return Route(
        method,
        "/kv/{key}",
        _PUT,
        "Create or replace a value, or a part of it",
        "write",
        (_CREATED, _REPLACED),
        ("path_not_found", "conflict", "precondition_failed", "too_large", "unsupported_media_type", "storage_full"),
        (PATH, TTL, *WRITE_CONDITIONS, PREFER),
        _VALUE_BODIES,
        check_head=is_messagepack,
    )


ROUTES = (
    Route(
        "GET",
        "/kv/{key}",
        PureEndpoint(read_entry, show_entry),
        "Get an entry, parts of it, or its bare value",
        "read",
        (
            Answer(200, "The entry; with `raw`, its value.", "EntryOrValue", etag=True),
            Answer(304, "The caller has this revision.", None, etag=True),
        ),
        ("not_found", "path_not_found", "precondition_failed", "too_large"),
        (PATHS, RAW, *CONDITIONS),
    ),
    _put_route("POST"),
    _put_route("PUT"),
    Route(
        "PATCH",
        "/kv/{key}",
        PureEndpoint(patch_entry, show_written),
        "Change a value by a merge patch or a JSON patch",
        "write",
        (Answer(200, "Changed.", "Written", etag=True),),
        (
            "not_found",
            "conflict",
            "precondition_failed",
            "too_large",
            "unsupported_media_type",
            "patch_failed",
            "storage_full",
        ),
        (TTL, *WRITE_CONDITIONS, PREFER),
        {MERGE_PATCH: "Value", JSON_PATCH: "JsonPatch"},
        check_head=patch_type_of,
    ),
    Route(
        "DELETE",
        "/kv/{key}",
        PureEndpoint(delete_entry, show_deleted),
        "Delete an entry, or a part of its value",
        "write",
        (Answer(200, "Deleted.", "Deleted"),),
        ("not_found", "path_not_found", "conflict", "precondition_failed", "precondition_required", "storage_full"),
        (PATH, TTL, *WRITE_CONDITIONS),
    ),
    Route(
        "GET",
        "/kv",
        AsyncEndpoint(list_entries),
        "List entries in ascending order of their keys",
        "read",
        (Answer(200, "The entries.", "EntryList"),),
        ("upgrade_required",),
        LIST_PARAMETERS,
    ),
)
