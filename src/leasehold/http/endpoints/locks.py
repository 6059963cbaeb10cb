"""Endpoints of `/locks`, and of `/lock`, `/renew` and `/unlock`, which name the lock by a UUID in what they are sent.

What is asked may stand in the body or in the query. All rules about leases are in `commit`, waiting is in `queues`.
"""

import asyncio
import re
import secrets
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
import structlog

from leasehold import values
from leasehold.errors import ErrorCode, ServiceError
from leasehold.http.endpoints.by_uuid import parse_uuid
from leasehold.http.endpoints.entries import (
    PREFIX,
    after_of,
    body_value,
    decimal_of,
    flag_of,
    is_messagepack,
    key_of,
    limit_of,
    members_of,
    microseconds_of,
    prefixes_of,
)
from leasehold.http.messages import GatheredList, Request, Response
from leasehold.http.routing.audit import printable
from leasehold.http.routing.conditions import IF_LEASE, parse_lease_id
from leasehold.http.routing.routes import Answer, AsyncEndpoint, Parameter, PureEndpoint, Route, Service
from leasehold.limits import (
    DEFAULT_LEASE_SECONDS,
    DEFAULT_WAIT_SECONDS,
    MAX_GATHERED_BYTES,
    MAX_LEASE_ID_CHARACTERS,
    MAX_LEASE_SECONDS,
    MAX_OWNER_BYTES,
    MAX_PAGE_ENTRIES,
    MAX_WAIT_SECONDS,
    MIN_LEASE_SECONDS,
)
from leasehold.model import Acquire, Json, Lease, Leased, Outcome, Release, Released, Renew
from leasehold.rules import lock_not_found
from leasehold.times import format_time

log = structlog.get_logger(__name__)

LEASE_ID_BYTES: Final = 16
LOCKS_AT_ONCE: Final = 256
"""Looked up, in a list of them, before others have their turn."""
_SECOND: Final = 1_000_000
_TOKEN: Final = re.compile("[0-9]{1,18}")

LockOf = Callable[[Request, Mapping[str, Json]], str]
"""How a route says which lock is meant."""


# Reading a request --------------------------------------------------------------------------------------------


def named_in_path(request: Request, _asked: Mapping[str, Json]) -> str:
    return key_of(request)


def named_by_uuid(_request: Request, asked: Mapping[str, Json]) -> str:
    if asked.get("lock_id") is None:
        raise ServiceError("invalid_argument", "give lock_id, a UUID")
    return parse_uuid(asked["lock_id"])


def asked_of(request: Request, known: frozenset[str]) -> Mapping[str, Json]:
    """What the body and the query ask, by name."""
    if IF_LEASE in request.headers:
        raise ServiceError("invalid_argument", "If-Lease is for writes of entries; give lease_id")
    body = members_of(body_value(request), sorted(known)) if request.body else {}
    query = {name: _in_query(request, name, sent[0]) for name, sent in request.query.items()}
    if twice := body.keys() & query.keys():
        raise ServiceError("invalid_argument", f"{min(twice)} stands in the body and in the query")
    return body | query


def _in_query(request: Request, name: str, text: str) -> Json:
    """A member as it would stand in a body."""
    if name in ("ttl", "wait"):
        return decimal_of(text)
    if name == "force":
        return flag_of(request, "force", default=False)
    if name == "token" and _TOKEN.fullmatch(text):
        return int(text)
    return text


def ttl_of(asked: Mapping[str, Json]) -> int | None:
    """Microseconds."""
    sent = asked.get("ttl")
    if sent is None:
        return None
    return microseconds_of(sent, name="ttl", minimum=MIN_LEASE_SECONDS, maximum=MAX_LEASE_SECONDS)


def wait_seconds_of(asked: Mapping[str, Json]) -> float:
    sent = asked.get("wait")
    if sent is None:
        return DEFAULT_WAIT_SECONDS
    return microseconds_of(sent, name="wait", minimum=0, maximum=MAX_WAIT_SECONDS) / _SECOND


def owner_of(asked: Mapping[str, Json]) -> bytes:
    owner = values.encode(asked.get("owner"))
    if len(owner) > MAX_OWNER_BYTES:
        raise ServiceError("invalid_argument", "owner is too large", details={"limit": MAX_OWNER_BYTES})
    return owner


def lease_id_of(asked: Mapping[str, Json]) -> str | None:
    sent = asked.get("lease_id")
    return None if sent is None else parse_lease_id(sent)


def token_of(asked: Mapping[str, Json]) -> int | None:
    sent = asked.get("token")
    if sent is None or (isinstance(sent, int) and not isinstance(sent, bool)):
        return sent
    raise ServiceError("invalid_argument", "token is an integer, as the lease has it")


def is_forced(asked: Mapping[str, Json]) -> bool:
    sent = asked.get("force")
    if sent is None or isinstance(sent, bool):
        return bool(sent)
    raise ServiceError("invalid_argument", "force is true or false")


def required_lease_id_of(asked: Mapping[str, Json]) -> str:
    lease_id = lease_id_of(asked)
    if lease_id is None:
        raise ServiceError("invalid_argument", "give the lease_id")
    return lease_id


# Writing an answer --------------------------------------------------------------------------------------------


def lease_json(lease: Lease) -> bytes:
    """What its holder is told."""
    return msgspec.json.encode({"lock": lease.lock, "lease_id": lease.lease_id, **_facts(lease)})


def lock_json(lease: Lease, waiters: int) -> bytes:
    """What others may know of it."""
    return msgspec.json.encode({"lock": lease.lock, **_facts(lease), "waiters": waiters})


def _facts(lease: Lease) -> dict[str, object]:
    seconds, rest = divmod(lease.ttl, _SECOND)
    return {
        "token": lease.token,
        "owner": msgspec.Raw(lease.owner),
        "acquired_at": format_time(lease.acquired_at),
        "expires_at": format_time(lease.expires_at),
        "ttl": lease.ttl / _SECOND if rest else seconds,
    }


def show_lease(_request: Request, outcome: Outcome) -> Response:
    assert isinstance(outcome, Leased)
    return Response(200, lease_json(outcome.lease))


def show_released(_request: Request, outcome: Outcome) -> Response:
    assert isinstance(outcome, Released)
    body = {"lock": outcome.lock, "released": True, "revision": outcome.revision}
    return Response(200, msgspec.json.encode(body))


# Acquire, renew, release --------------------------------------------------------------------------------------


class _Locking:
    """The three requests for locks that `lock_of` names, with `extra` members beside the usual ones."""

    def __init__(self, lock_of: LockOf, *extra: str) -> None:
        self._lock_of = lock_of
        self._of_acquire = frozenset({"ttl", "wait", "owner", *extra})
        self._of_renewal = frozenset({"lease_id", "ttl", *extra})
        self._of_release = frozenset({"lease_id", "token", "force", *extra})

    async def acquire(self, request: Request, service: Service) -> Response:
        asked = asked_of(request, self._of_acquire)
        lock = self._lock_of(request, asked)
        request.principal.require_covered(lock)
        ttl = ttl_of(asked)
        operation = Acquire(
            lock,
            secrets.token_hex(LEASE_ID_BYTES),
            round(DEFAULT_LEASE_SECONDS * _SECOND) if ttl is None else ttl,
            owner_of(asked),
            request.principal.subject,
        )
        lease = await service.store.acquire(operation, wait_seconds_of(asked), request.is_there)
        return Response(201, lease_json(lease))

    def renew(self, request: Request) -> Renew:
        asked = asked_of(request, self._of_renewal)
        return Renew(self._lock_of(request, asked), required_lease_id_of(asked), ttl_of(asked))

    def release(self, request: Request) -> Release:
        asked = asked_of(request, self._of_release)
        lock = self._lock_of(request, asked)
        lease_id, token = lease_id_of(asked), token_of(asked)
        is_named = lease_id is not None or token is not None
        if is_forced(asked):
            return _forced_release(request, lock, is_named=is_named)
        if not is_named:
            raise ServiceError("invalid_argument", "give the lease_id, or the token of a lease of yours")
        return Release(lock, lease_id, request.principal.subject, token)


def _forced_release(request: Request, lock: str, *, is_named: bool) -> Release:
    """End whichever lease is alive. Logged before it is done: the caller may have gone by the time it is durable."""
    if is_named:
        raise ServiceError("invalid_argument", "force ends whichever lease is alive; give no lease_id and no token")
    request.principal.require_permission("admin")
    request.principal.require_covered(lock)
    log.warning(
        "a lease is ended by force",
        lock=printable(lock),
        sub=printable(request.principal.subject),
        request_id=request.request_id.decode(),
    )
    return Release(lock, is_forced=True)


_BY_NAME = _Locking(named_in_path)
_BY_UUID = _Locking(named_by_uuid, "lock_id")


# GET /locks/{name}, GET /locks --------------------------------------------------------------------------------


async def inspect_lock(request: Request, service: Service) -> Response:
    lock = key_of(request)
    request.principal.require_covered(lock)
    lease = await service.store.lease(lock)
    if lease is None:
        raise lock_not_found()
    return Response(200, lock_json(lease, service.store.waiting_for(lock)))


async def list_locks(request: Request, service: Service) -> Response:
    """In pages: a list of locks is for people, and there are not many."""
    store, prefixes, after = service.store, prefixes_of(request), after_of(request)
    left = limit_of(request) or MAX_PAGE_ENTRIES
    found = GatheredList("locks", request.media)
    revision: int | None = None
    while True:
        page = await store.lease_page(prefixes, after, min(left, LOCKS_AT_ONCE))
        revision = page.revision if revision is None else revision
        texts = (lock_json(lease, store.waiting_for(lease.lock)) for lease in page.records)
        await found.add(map(values.to_messagepack, texts) if found.is_packed else texts)
        left -= len(page.records)
        after = page.next_after
        if after is None or not left or found.size_bytes > MAX_GATHERED_BYTES:
            return found.response(revision, after)
        await asyncio.sleep(0)


# The table ----------------------------------------------------------------------------------------------------

_UUID: Mapping[str, Json] = {"type": "string", "format": "uuid"}
_LOCK_ID = Parameter("lock_id", "The lock, a UUID.", _UUID)
_LEASE_ID = Parameter(
    "lease_id",
    "The lease, as it was given to its holder.",
    {"type": "string", "minLength": 1, "maxLength": MAX_LEASE_ID_CHARACTERS},
)
_TOKEN_OF_LEASE = Parameter(
    "token",
    "The token of a lease that the caller acquired, in place of its lease_id.",
    {"type": "integer", "minimum": 1},
)
_FORCE = Parameter("force", "End whichever lease is alive; needs the permission `admin`.", {"type": "boolean"})
_TTL = Parameter(
    "ttl",
    "Seconds until the lease ends unless it is renewed.",
    {"type": "number", "minimum": MIN_LEASE_SECONDS, "maximum": MAX_LEASE_SECONDS},
)
_WAIT = Parameter(
    "wait",
    f"Seconds to wait for the lock, {DEFAULT_WAIT_SECONDS:g} unless given.",
    {"type": "number", "minimum": 0, "maximum": MAX_WAIT_SECONDS},
)
_OWNER = Parameter("owner", "What the holder says of itself; any JSON in the body.", {"type": "string"})

_ACQUIRE_ERRORS: tuple[ErrorCode, ...] = ("lock_held", "too_many_requests", "storage_full")
_RENEW_ERRORS: tuple[ErrorCode, ...] = ("lease_lost",)
_RELEASE_ERRORS: tuple[ErrorCode, ...] = ("lock_not_found", "lease_lost")
_ACQUIRED = (Answer(201, "Acquired.", "Lease"),)
_RENEWED = (Answer(200, "Renewed.", "Lease"),)
_RELEASED = (Answer(200, "Released.", "Released"),)


def _bodies(schema: str) -> Mapping[str, str]:
    return {"application/json": schema, "application/vnd.msgpack": schema}


def _acquire_route(pattern: str, locking: _Locking, schema: str, *extra: Parameter) -> Route:
    return Route(
        "POST",
        pattern,
        AsyncEndpoint(locking.acquire, waits=True),
        "Acquire a lock, waiting for it in order of arrival",
        "write",
        _ACQUIRED,
        (*_ACQUIRE_ERRORS, "invalid_key"),
        (*extra, _TTL, _WAIT, _OWNER),
        _bodies(schema),
        check_head=is_messagepack,
        needs_body=False,
    )


def _renew_route(method: str, pattern: str, locking: _Locking, schema: str, *extra: Parameter) -> Route:
    return Route(
        method,
        pattern,
        PureEndpoint(locking.renew, show_lease),
        "Renew a lease: it lasts `ttl` seconds from now, or longer if it does already",
        "write",
        _RENEWED,
        (*_RENEW_ERRORS, "invalid_key"),
        (*extra, _LEASE_ID, _TTL),
        _bodies(schema),
        check_head=is_messagepack,
        needs_body=False,
    )


def _release_route(pattern: str, locking: _Locking, schema: str, *extra: Parameter) -> Route:
    return Route(
        "DELETE",
        pattern,
        PureEndpoint(locking.release, show_released),
        "Release a lock",
        "write",
        _RELEASED,
        (*_RELEASE_ERRORS, "invalid_key"),
        (*extra, _LEASE_ID, _TOKEN_OF_LEASE, _FORCE),
        _bodies(schema),
        check_head=is_messagepack,
        needs_body=False,
    )


ROUTES = (
    _acquire_route("/locks/{name}", _BY_NAME, "Acquire"),
    _renew_route("PUT", "/locks/{name}", _BY_NAME, "Renew"),
    _release_route("/locks/{name}", _BY_NAME, "Release"),
    Route(
        "GET",
        "/locks/{name}",
        AsyncEndpoint(inspect_lock),
        "Who holds a lock, and how many wait for it at this server",
        "read",
        (Answer(200, "It is held.", "Lock"),),
        ("lock_not_found",),
    ),
    Route(
        "GET",
        "/locks",
        AsyncEndpoint(list_locks),
        "List the locks that are held in ascending order of their names",
        "read",
        (Answer(200, "The locks.", "LockList"),),
        (),
        (
            PREFIX,
            Parameter("after", "Only locks greater than it.", {"type": "string"}),
            Parameter(
                "limit",
                "At most so many locks; `next` is the `after` to go on with.",
                {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_ENTRIES},
            ),
        ),
    ),
    _acquire_route("/lock", _BY_UUID, "AcquireByUuid", _LOCK_ID),
    _renew_route("POST", "/renew", _BY_UUID, "RenewByUuid", _LOCK_ID),
    _release_route("/unlock", _BY_UUID, "ReleaseByUuid", _LOCK_ID),
)
