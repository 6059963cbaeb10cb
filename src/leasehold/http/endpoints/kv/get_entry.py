"""`GET /kv/{key}`: an entry, parts of its value, or the value alone. With `wait`, it waits for a change."""

import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from leasehold.access.authorization import unauthenticated
from leasehold.access.permissions import Principal
from leasehold.errors import ErrorCode, ServiceError
from leasehold.http.endpoints.kv.binary_entry import (
    condition_of_bytes,
    show_bytes,
    show_not_acceptable,
    show_not_modified,
)
from leasehold.http.media_types import JSON_FIRST, Media
from leasehold.http.requests import Request
from leasehold.http.responses import Response
from leasehold.http.routing.parameters import (
    BASE64,
    PATHS,
    RAW,
    WAIT,
    flag_of,
    is_key_only,
    key_of,
    paths_of,
    raw_tag,
    wait_seconds_of,
)
from leasehold.http.routing.preconditions import CONDITIONS, RANGES, condition_of
from leasehold.http.routing.route import AsyncEndpoint, DocumentedResponse, Parameter, PureEndpoint, Route, Service
from leasehold.model import Found, NotModified, Outcome, Read
from leasehold.values.entry_text import entry_json, partial_entry_json

_EARLY_SECONDS: Final = 0.01
"""A timer may be that early: the clock of the event loop stands still during an iteration, and has milliseconds."""
_BYTES: Final = Media.BYTES
"""Of a request whose `Accept` takes no representation of a JSON value."""


def read_entry(request: Request) -> Read:
    if is_key_only(request):
        return Read(key_of(request))
    return read_of(request, key_of(request))


def read_of(request: Request, key: str) -> Read:
    flag_of(request, BASE64.name, default=False)  # a wrong one is refused, whatever the value is
    tag = raw_tag(request) + request.media.tag
    return Read(key, paths_of(request), condition_of(request, tag=tag), condition_of_bytes(request))


def show_entry(request: Request, outcome: Outcome) -> Response:
    if isinstance(outcome, NotModified):
        if outcome.media is not None:
            return show_not_modified(request, outcome, outcome.media)
        return Response(304, None, outcome.revision, raw_tag(request))
    assert isinstance(outcome, Found)
    entry = outcome.entry
    text = entry.value
    if not text:
        return show_bytes(request, outcome)
    if request.media is _BYTES:
        return show_not_acceptable(request, *(media.content_type for media in JSON_FIRST))
    if not request.query:
        return Response(200, entry_json(entry), entry.revision)
    tag = raw_tag(request)
    value, path = shown_value(request, text, outcome.parts)
    if tag:
        return Response(200, value, entry.revision, tag)
    return Response(200, partial_entry_json(entry, value=value, path=path), entry.revision)


def shown_value(request: Request, value: bytes, parts: Sequence[bytes] | None) -> tuple[bytes, str | None]:
    """The whole value, one part, or an object of several parts by their paths; and the path if it is one part."""
    if parts is None:
        return value, None
    paths = request.query["path"]
    if len(paths) == 1:
        return parts[0], paths[0]
    by_path = {path: msgspec.Raw(part) for path, part in zip(paths, parts, strict=True)}
    return msgspec.json.encode(by_path), None


def waiting(read_of: Callable[[Request], Read]) -> AsyncEndpoint:
    """The endpoint for requests with `wait`. `read_of`: the read that a request asks for.

    The permission does not outlive the token: a wait ends with 401 when the token expires.
    """

    async def read_when_changed(request: Request, service: Service) -> Response:
        read, wait_seconds = read_of(request), wait_seconds_of(request)
        caller = request.principal
        caller.require_covered(read.key)
        token_seconds = caller.expires_at - time.time() + _EARLY_SECONDS
        try:
            outcome = await service.store.fetch_waiting(read, min(wait_seconds, token_seconds))
        except ServiceError:
            _require_unexpired(caller)
            raise
        _require_unexpired(caller)
        return show_entry(request, outcome)

    return AsyncEndpoint(read_when_changed, waits=True)


def _require_unexpired(caller: Principal) -> None:
    if time.time() >= caller.expires_at:
        raise unauthenticated("expired")


RESPONSES: Final = (
    DocumentedResponse(
        200, "The entry; with `raw`, its value; or a value that is bytes.", "EntryOrValue", etag=True, has_bytes=True
    ),
    DocumentedResponse(206, "Ranges of a value that is bytes.", etag=True, has_bytes=True),
    DocumentedResponse(304, "The client already has this revision.", None, etag=True),
)
ERRORS: Final[tuple[ErrorCode, ...]] = (
    "not_found",
    "path_not_found",
    "conflict",
    "precondition_failed",
    "range_not_satisfiable",
    "too_large",
    "too_many_requests",
)
PARAMETERS: Final[tuple[Parameter, ...]] = (PATHS, RAW, BASE64, WAIT, *CONDITIONS, *RANGES)

_ROUTE: Final = Route(
    "GET",
    "/kv/{key}",
    PureEndpoint(read_entry, show_entry),
    "Get an entry, parts of its value, or the value alone",
    "read",
    RESPONSES,
    ERRORS,
    PARAMETERS,
    serves_bytes=True,
)
ROUTE: Final = replace(_ROUTE, waiting=replace(_ROUTE, endpoint=waiting(read_entry)))
