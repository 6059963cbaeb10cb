"""The route table: method, pattern, permission, endpoint, and what is sent and answered.

The table is data. Dispatch, the check of query parameters and `/openapi.json` all come from it. To add a route, add
a row to the table of the module that holds its endpoint (`entries.ROUTES`, `system.ROUTES`).
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Literal

import msgspec

from leasehold.access.permissions import Permission
from leasehold.errors import ErrorCode, ServiceError, not_implemented
from leasehold.http.messages import CONTENT_RANGE, Request, Response, Stream
from leasehold.http.negotiation import ACCEPT_PATCH, JSON_FIRST, Media
from leasehold.limits import Limits
from leasehold.metrics import Metrics
from leasehold.model import Json, Operation, Outcome, Read
from leasehold.store.store import Store


class Service(msgspec.Struct, frozen=True):
    """What endpoints that are not pure may use."""

    store: Store
    limits: Limits
    uptime_seconds: Callable[[], float]
    openapi: bytes
    metrics: Metrics
    gauges: Callable[[], Mapping[str, float]]
    """Gauges of this process."""


class PureEndpoint(msgspec.Struct, frozen=True):
    """An endpoint of two pure functions: what is asked, and how the outcome is written.

    The connection hands the operation to the store and writes the response when it completes; no coroutine, no task.
    """

    operation: Callable[[Request], Read | Operation]
    response: Callable[[Request, Outcome], Response]


class AsyncEndpoint(msgspec.Struct, frozen=True):
    """An endpoint that streams or waits. `waits`: for a lock, which a client that has gone must not get."""

    run: Callable[[Request, Service], Awaitable[Response | Stream]]
    waits: bool = False


class Parameter(msgspec.Struct, frozen=True):
    """A query parameter or header, as OpenAPI describes it."""

    name: str
    description: str
    schema: Mapping[str, Json]
    location: Literal["query", "header"] = "query"
    repeated: bool = False


class Answer(msgspec.Struct, frozen=True):
    """One kind of success. `schema` names a component of the OpenAPI document; None: no body."""

    status: int
    description: str
    schema: str | None = None
    etag: bool = False
    headers: tuple[str, ...] = ()


class Route(msgspec.Struct, frozen=True):
    """One row. A pattern may end in one `{name}`, which takes the rest of the path, slashes included."""

    method: str
    pattern: str
    endpoint: PureEndpoint | AsyncEndpoint
    summary: str
    permission: Permission | None
    answers: tuple[Answer, ...]
    errors: tuple[ErrorCode, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    bodies: Mapping[str, str] = {}
    """Media type → schema component of the request's body."""
    needs_body: bool = True
    """Where there are `bodies`: one must be sent."""
    check_head: Callable[[Request], object] | None = None
    """Raises what can be refused before the body is received: `unsupported_media_type`."""
    offers: tuple[Media, ...] = JSON_FIRST
    """What the answer may be; the first where the caller does not mind."""

    def takes(self, name: str) -> bool:
        return any(parameter.name == name and parameter.location == "query" for parameter in self.parameters)


PREFLIGHT: Final = (
    (
        "Access-Control-Allow-Headers",
        "Authorization, Content-Type, Idempotency-Key, If-Lease, If-Match, If-None-Match, Prefer, X-Request-Id",
    ),
    ("Access-Control-Max-Age", "3600"),
)
"""What a browser is told that asks before it sends what a page of an allowed origin wants, beside the methods."""


def _options(methods: Mapping[str, Route | None]) -> Route:
    """What may be asked of a path: for people, and for browsers before a request from another origin (Fetch, 3.2)."""
    allowed = ", ".join(sorted({*methods, "OPTIONS"}))
    patch = (("Accept-Patch", ACCEPT_PATCH["Accept-Patch"]),) if methods.get("PATCH") else ()
    preflight = (("Access-Control-Allow-Methods", allowed), *PREFLIGHT)

    async def options(request: Request, _service: Service) -> Response:
        asked_by_browser = request.headers.sharing and b"access-control-request-method" in request.headers
        return Response(204, None, headers=(("Allow", allowed), *patch, *(preflight if asked_by_browser else ())))

    route = next((route for route in methods.values() if route is not None), None)
    pattern = "*" if route is None else route.pattern
    return Route("OPTIONS", pattern, AsyncEndpoint(options), "What may be asked here", None, (Answer(204, "This."),))


class Router:
    """Finds the route of a request."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = tuple(routes)
        self._methods = {"HEAD", "OPTIONS", *(route.method for route in routes)}
        self._exact: dict[bytes, dict[str, Route]] = {}
        self._prefixed: dict[bytes, dict[str, Route]] = {}
        for route in routes:
            fixed, brace, _ = route.pattern.partition("{")
            table = self._prefixed if brace else self._exact
            methods = table.setdefault(fixed.encode(), {})
            methods[route.method] = route
            if route.method == "GET":
                methods.setdefault("HEAD", route)
        for methods in (*self._exact.values(), *self._prefixed.values()):
            methods["OPTIONS"] = _options(methods)
        self._exact[b"*"] = {"OPTIONS": _options(dict.fromkeys(self._methods))}  # of the server as a whole

    def match(self, request: Request) -> Route:
        """The route; `request.argument` becomes the part of the path that its pattern leaves open.

        Raises `not_implemented` for a method of no route, `no_such_route`, `method_not_allowed`, and `invalid_argument`
        for a parameter that the route does not know: a misspelt `ttl` must not make an entry last for ever.
        """
        path = request.path
        end = path.find(b"/", 1) + 1
        methods = self._prefixed.get(path[:end])
        if methods is not None:
            request.argument = path[end:]
        else:
            methods = self._exact.get(path)
            if methods is None:
                self._check_method(request)
                raise ServiceError("no_such_route", "there is nothing at this path; see /openapi.json")
        route = methods.get(request.method)
        if route is None:
            self._check_method(request)
            allowed = ", ".join(sorted(methods))
            raise ServiceError("method_not_allowed", f"allowed here: {allowed}", headers={"Allow": allowed})
        request.pattern = route.pattern
        if request.query:
            for name, sent in request.query.items():
                if not route.takes(name):
                    raise ServiceError("invalid_argument", "unknown query parameter", details={"parameter": name[:64]})
                if len(sent) > 1 and name != "path":
                    raise ServiceError("invalid_argument", f"{name} was given more than once")
        if not request.headers.is_plain and route.permission == "write" and CONTENT_RANGE in request.headers:
            # Taken for the whole, a part would replace what it is a part of (RFC 9110, section 14.5).
            raise ServiceError("invalid_argument", "Content-Range is not taken; write a part with ?path=")
        return route

    def _check_method(self, request: Request) -> None:
        if request.method not in self._methods:
            raise not_implemented()
