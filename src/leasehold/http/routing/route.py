"""What a route is: method, pattern, permission, endpoint, parameters, bodies and responses.

Routes are data. The router, the check of query parameters and `/openapi.json` all use them. Each file in `endpoints/`
has the routes of its endpoints. To add a route, add it there, and to the table `ROUTES` of its package.
"""

from collections.abc import Awaitable, Callable, Generator, Mapping
from typing import ClassVar, Literal

import msgspec

from leasehold.access.permissions import RoutePermission
from leasehold.errors import ErrorCode
from leasehold.http.media_types import JSON_FIRST, Media
from leasehold.http.requests import Request
from leasehold.http.responses import EventStream, Response, Stream
from leasehold.limits import Limits
from leasehold.metrics import Metrics
from leasehold.model import Acquire, Json, Keyed, Operation, Outcome, Read
from leasehold.store.store import Store
from leasehold.store.stores import Stores


class Service(msgspec.Struct, frozen=True):
    """What an `AsyncEndpoint` may use."""

    store: Store
    """That of the namespace of the request."""
    limits: Limits
    uptime_seconds: Callable[[], float]
    openapi: bytes
    metrics: Metrics
    gauges: Callable[[], Mapping[str, float]]
    """Gauges of this process."""
    stores: Stores


class PureEndpoint(msgspec.Struct, frozen=True):
    """An endpoint of two pure functions: the operation of a request, and the response for its outcome.

    The connection gives the operation to the store, and writes the response when the store calls back. This needs no
    coroutine and no task.
    """

    operation: Callable[[Request], Read | Operation]
    response: Callable[[Request, Outcome], Response]


class AcquireEndpoint(msgspec.Struct, frozen=True):
    """An endpoint of two pure functions that acquires a lock.

    `operation` returns, in addition, the maximum number of seconds to wait for the lock. As long as the request waits,
    the connection must watch whether the client is still there. This needs no coroutine and no task, either.
    """

    operation: Callable[[Request], tuple[Acquire | Keyed, float]]
    response: Callable[[Request, Outcome], Response]
    waits: ClassVar[bool] = True
    """As `AsyncEndpoint.waits`."""


class AsyncEndpoint(msgspec.Struct, frozen=True):
    """An endpoint that streams or waits, as a coroutine.

    `waits`: it waits for a change, so the connection must watch whether the client is still there.
    """

    run: Callable[[Request, Service], Awaitable[Response | Stream | EventStream]]
    waits: bool = False


class Parameter(msgspec.Struct, frozen=True):
    """A query parameter or header, as `/openapi.json` describes it."""

    name: str
    description: str
    schema: Mapping[str, Json]
    location: Literal["query", "header"] = "query"
    most: int = 1
    """How many times it may be given."""
    required: bool = False


class DocumentedResponse(msgspec.Struct, frozen=True):
    """A response of a route, other than its errors. `schema`: a component of the OpenAPI document; None: no body."""

    status: int
    description: str
    schema: str | None = None
    etag: bool = False
    headers: tuple[str, ...] = ()
    has_bytes: bool = False
    """It may be a value that is bytes, with the media type of the value."""


ReadBody = Callable[[Request], Generator[None]]
"""Reads a large body in steps, each for an iteration of the event loop of its own. It raises what a reader of the body
raises (`bodies.py`)."""


class Route(msgspec.Struct, frozen=True):
    """A route. A pattern may have one `{name}`, which matches the rest of the path, slashes included.

    A fixed part may follow it: `/terraform/{state}/lock`. It is matched before `/terraform/{state}`.
    """

    method: str
    pattern: str
    endpoint: PureEndpoint | AcquireEndpoint | AsyncEndpoint
    summary: str
    permission: RoutePermission | None
    """None: no token is needed."""
    responses: tuple[DocumentedResponse, ...]
    errors: tuple[ErrorCode, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    bodies: Mapping[str, str] = {}
    """Media type → schema component of the request's body; empty: no body."""
    needs_body: bool = True
    """Whether a body is required, if there are `bodies`."""
    check_head: Callable[[Request], object] | None = None
    """Called before the body is received. Raises `unsupported_media_type`."""
    read_body: ReadBody | None = None
    """Called with a large body before the operation of a `PureEndpoint` is."""
    body_limit: Literal["max_body_bytes", "max_state_bytes"] = "max_body_bytes"
    """The limit of its body, in `Limits`. It holds for all routes whose patterns begin with the same fixed part."""
    takes_basic: bool = False
    """Its token may also be the password of Basic authentication."""
    offers: tuple[Media, ...] = JSON_FIRST
    """Representations of the response; the first is the default."""
    serves_bytes: bool = False
    """The response may be a value that is bytes. Then `Accept` is decided when the value is known: until then,
    `Request.media` is BYTES if it takes none of `offers`."""
    scope: Literal["namespace", "server"] = "namespace"
    """`namespace`: it is for one namespace, and its path may begin with `/ns/{namespace}`. `server`: for the whole
    server."""
    is_described: bool = True
    """Whether `/openapi.json` has it. Pages for browsers are no part of the interface for programs."""
    waiting: "Route | None" = None
    """The route of requests with the parameter `wait`. Without that parameter, a request needs no task."""

    @property
    def needs_store(self) -> bool:
        """Whether its requests use the store of their namespace. To answer OPTIONS, no token and no store is needed."""
        return self.scope == "namespace" and self.permission is not None

    @property
    def takes_idempotency_key(self) -> bool:
        """Whether its requests may change something in a namespace, which then keeps their outcome."""
        return self.method not in ("GET", "OPTIONS") and self.scope == "namespace"

    def repeats(self, name: str) -> bool:
        """Whether a request may have the parameter several times."""
        return any(parameter.name == name and parameter.most > 1 for parameter in self.parameters)

    def takes(self, name: str) -> bool:
        return any(parameter.name == name and parameter.location == "query" for parameter in self.parameters)
