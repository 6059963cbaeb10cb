"""`GET /kv/{key}`: an entry, parts of its value, or the value alone. With `wait`, it waits for a change."""

import time
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec.structs import replace

from leasehold.access.permissions import Principal
from leasehold.access.token_verification import unauthenticated
from leasehold.errors import ErrorCode, ServiceError
from leasehold.http.messages import Request, Response
from leasehold.http.routing.parameters import (
    PATHS,
    RAW,
    WAIT,
    is_key_only,
    key_of,
    paths_of,
    raw_tag,
    wait_seconds_of,
)
from leasehold.http.routing.preconditions import CONDITIONS, condition_of
from leasehold.http.routing.route import AsyncEndpoint, DocumentedResponse, Parameter, PureEndpoint, Route, Service
from leasehold.model import Found, NotModified, Outcome, Read
from leasehold.values.entry_text import entry_json, partial_entry_json


def read_entry(request: Request) -> Read:
    if is_key_only(request):
        return Read(key_of(request))
    tag = raw_tag(request) + request.media.tag
    return Read(key_of(request), paths_of(request), condition_of(request, tag=tag))


def show_entry(request: Request, outcome: Outcome) -> Response:
    if isinstance(outcome, NotModified):
        return Response(304, None, outcome.revision, raw_tag(request))
    assert isinstance(outcome, Found)
    entry = outcome.entry
    if not request.query:
        return Response(200, entry_json(entry), entry.revision)
    tag = raw_tag(request)
    value, path = shown_value(request, outcome)
    if tag:
        return Response(200, value, entry.revision, tag)
    return Response(200, partial_entry_json(entry, value=value, path=path), entry.revision)


def shown_value(request: Request, found: Found) -> tuple[bytes, str | None]:
    """The whole value, one part, or an object of several parts by their paths; and the path if it is one part."""
    if found.parts is None:
        return found.entry.value, None
    paths = request.query["path"]
    if len(paths) == 1:
        return found.parts[0], paths[0]
    parts = {path: msgspec.Raw(part) for path, part in zip(paths, found.parts, strict=True)}
    return msgspec.json.encode(parts), None


def waiting(read_of: Callable[[Request], Read]) -> AsyncEndpoint:
    """The endpoint for requests with `wait`. `read_of`: the read that a request asks for.

    The permission does not outlive the token: a wait ends with 401 when the token expires.
    """

    async def read_when_changed(request: Request, service: Service) -> Response:
        read, wait_seconds = read_of(request), wait_seconds_of(request)
        caller = request.principal
        caller.require_covered(read.key)
        token_seconds = caller.expires_at - time.time()
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
    DocumentedResponse(200, "The entry; with `raw`, its value.", "EntryOrValue", etag=True),
    DocumentedResponse(304, "The client already has this revision.", None, etag=True),
)
ERRORS: Final[tuple[ErrorCode, ...]] = (
    "not_found",
    "path_not_found",
    "precondition_failed",
    "too_large",
    "too_many_requests",
)
PARAMETERS: Final[tuple[Parameter, ...]] = (PATHS, RAW, WAIT, *CONDITIONS)

_ROUTE: Final = Route(
    "GET",
    "/kv/{key}",
    PureEndpoint(read_entry, show_entry),
    "Get an entry, parts of its value, or the value alone",
    "read",
    RESPONSES,
    ERRORS,
    PARAMETERS,
)
ROUTE: Final = replace(_ROUTE, waiting=replace(_ROUTE, endpoint=waiting(read_entry)))
