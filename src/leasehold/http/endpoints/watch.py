"""`GET /watch`: changes of entries and locks as they are committed, in a response that does not end."""

import re
import time
from collections.abc import Mapping
from typing import Final

from leasehold.access.permissions import Principal
from leasehold.errors import ServiceError
from leasehold.http.event_formats import FORMATS
from leasehold.http.media_types import Media
from leasehold.http.requests import Request
from leasehold.http.responses import EventStream
from leasehold.http.routing.parameters import decimal_of, flag_of, microseconds_of
from leasehold.http.routing.route import AsyncEndpoint, DocumentedResponse, Parameter, Route, Service
from leasehold.limits import (
    DEFAULT_HEARTBEAT_SECONDS,
    MAX_HEARTBEAT_SECONDS,
    MAX_KEY_BYTES,
    MAX_WATCH_PREFIXES,
    MIN_HEARTBEAT_SECONDS,
)
from leasehold.model import Json
from leasehold.store.watchers import Interest, Sink, Watch

LAST_EVENT_ID: Final = b"last-event-id"
_CURSOR: Final = re.compile(r"[0-9]{1,18}")


async def watch(request: Request, service: Service) -> EventStream:
    interest = Interest(
        _prefixes_of(request),
        FORMATS[request.media, flag_of(request, "values", default=True)],
        with_locks=flag_of(request, "locks", default=False),
    )
    asked = Watch(
        interest,
        _cursor_of(request),
        with_snapshot=flag_of(request, "snapshot", default=False),
        heartbeat_seconds=_heartbeat_seconds_of(request),
        token_seconds=_token_seconds_of(request.principal),
    )
    store = service.store
    if asked.since is not None and not asked.with_snapshot:
        await store.require_known(asked.since)

    async def run(sink: Sink) -> None:
        await store.watch(asked, sink)

    return EventStream(request.media, run)


def _token_seconds_of(principal: Principal) -> float:
    return principal.expires_at - time.time()


def _prefixes_of(request: Request) -> tuple[str, ...]:
    """The prefixes to watch, narrowed to the names that the token covers: sorted, and none begins with another."""
    sent = request.query.get("prefix", [""])
    if len(sent) > MAX_WATCH_PREFIXES:
        raise ServiceError("invalid_argument", "too many prefixes", details={"limit": MAX_WATCH_PREFIXES})
    if any(len(prefix.encode()) > MAX_KEY_BYTES for prefix in sent):
        raise ServiceError("invalid_argument", "prefix is longer than any key", details={"limit": MAX_KEY_BYTES})
    covered = sorted({each for prefix in sent for each in request.principal.covered_prefixes(prefix)})
    disjoint: list[str] = []
    for prefix in covered:
        if not disjoint or not prefix.startswith(disjoint[-1]):
            disjoint.append(prefix)
    return tuple(disjoint)


def _cursor_of(request: Request) -> int | None:
    """Where the caller is: `Last-Event-ID`, or else `since`. An empty `Last-Event-ID` counts as none."""
    header = request.headers.get(LAST_EVENT_ID, b"").strip()
    if header:
        return _parse_cursor(header.decode("latin-1"), "Last-Event-ID")
    sent = request.query.get("since")
    return None if sent is None else _parse_cursor(sent[0], "since")


def _parse_cursor(text: str, name: str) -> int:
    if _CURSOR.fullmatch(text):
        return int(text)
    raise ServiceError("invalid_argument", f"{name} is a revision")


def _heartbeat_seconds_of(request: Request) -> float:
    sent = request.query.get("heartbeat")
    if sent is None:
        return DEFAULT_HEARTBEAT_SECONDS
    microseconds = microseconds_of(
        decimal_of(sent[0]), name="heartbeat", minimum=MIN_HEARTBEAT_SECONDS, maximum=MAX_HEARTBEAT_SECONDS
    )
    return microseconds / 1_000_000


_BOOLEAN: Final[Mapping[str, Json]] = {"type": "boolean"}
_REVISION: Final[Mapping[str, Json]] = {"type": "integer", "minimum": 0}

ROUTE: Final = Route(
    "GET",
    "/watch",
    AsyncEndpoint(watch, waits=True),
    "Watch changes of entries and locks",
    "read",
    (
        DocumentedResponse(
            200,
            "The events. The response ends when the token expires or the service stops.",
            "Event",
            headers=("X-Accel-Buffering",),
        ),
    ),
    ("upgrade_required", "revision_compacted"),
    (
        Parameter("prefix", "Only names that begin with one of these.", {"type": "string"}, most=MAX_WATCH_PREFIXES),
        Parameter("snapshot", "First send all entries.", _BOOLEAN),
        Parameter("since", "Begin after this revision; without it, at the current one.", _REVISION),
        Parameter("locks", "Also send changes of locks.", _BOOLEAN),
        Parameter("values", "false leaves the values out.", _BOOLEAN),
        Parameter(
            "heartbeat",
            "Seconds of silence after which a `progress` is sent.",
            {"type": "number", "minimum": MIN_HEARTBEAT_SECONDS, "maximum": MAX_HEARTBEAT_SECONDS},
        ),
        Parameter("Last-Event-ID", "The id of the last event; it replaces `since`.", _REVISION, "header"),
    ),
    offers=(Media.EVENTS, Media.NDJSON, Media.MESSAGEPACK),
)
