"""The router: finds the route and the namespace of a request, refuses unknown parameters, and responds to OPTIONS."""

from collections.abc import Mapping, Sequence
from typing import Literal

from leasehold.errors import ServiceError, not_implemented
from leasehold.http.media_types import ACCEPT_PATCH
from leasehold.http.requests import CONTENT_RANGE, Request
from leasehold.http.responses import Response
from leasehold.http.routing.cors import PREFLIGHT_HEADERS
from leasehold.http.routing.namespaced_paths import NAMESPACE_PATTERN, NAMESPACES, namespace_of, path_within
from leasehold.http.routing.route import AsyncEndpoint, DocumentedResponse, Route, Service
from leasehold.namespaces import DEFAULT_NAMESPACE


class Router:
    """Finds the route of a request, by exact path or by the path up to the second slash, and perhaps by its end."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = tuple(routes)
        self._methods = {"HEAD", "OPTIONS", *(route.method for route in routes)}
        self._exact: dict[bytes, dict[str, Route]] = {}
        self._prefixed: dict[bytes, dict[str, Route]] = {}
        self._with_end: dict[bytes, dict[bytes, dict[str, Route]]] = {}
        """By the path up to the second slash, and by the fixed part at its end, which begins with a slash."""
        self._with_end[NAMESPACES] = {}  # so that other paths need no further look-up
        self._body_limits: dict[bytes, Literal["max_body_bytes", "max_state_bytes"]] = {}
        """By the path up to the second slash, where it is not that of most routes."""
        for route in routes:
            fixed, brace, rest = route.pattern.partition("{")
            end = rest.partition("}")[2].encode()
            table = self._prefixed if brace else self._exact
            if end:
                methods = self._with_end.setdefault(fixed.encode(), {}).setdefault(end, {})
            else:
                methods = table.setdefault(fixed.encode(), {})
            methods[route.method] = route
            if route.method == "GET":
                methods.setdefault("HEAD", route)
            if route.body_limit != "max_body_bytes":
                self._body_limits[fixed.encode()] = route.body_limit
        with_end = [methods for ends in self._with_end.values() for methods in ends.values()]
        for methods in (*self._exact.values(), *self._prefixed.values(), *with_end):
            methods["OPTIONS"] = _options(methods)
        # The server as a whole (RFC 9110, section 9.3.7).
        self._exact[b"*"] = {"OPTIONS": _options(dict.fromkeys(self._methods))}

    def match(self, request: Request) -> Route:
        """The route. Sets `request.argument` to the part of the path that the pattern leaves open, and `namespace`.

        Raises `not_implemented` for a method that no route has, `no_such_route`, `method_not_allowed`, and
        `invalid_argument` for a parameter that the route does not have: otherwise a misspelt `ttl` would create an
        entry that never expires.
        """
        methods = self._methods_of(request, request.path)
        route = methods.get(request.method)
        if route is None:
            self._check_method(request)
            allowed = ", ".join(sorted(methods))
            raise ServiceError("method_not_allowed", f"allowed methods: {allowed}", headers={"Allow": allowed})
        request.pattern = route.pattern
        if request.namespace is not DEFAULT_NAMESPACE and route.scope == "namespace":
            request.pattern = NAMESPACE_PATTERN + route.pattern
        # A preflight has the query of the request that follows it, which may be one of any other method.
        if request.query and request.method != "OPTIONS":
            for name, sent in request.query.items():
                if not route.takes(name):
                    raise ServiceError("invalid_argument", "unknown query parameter", details={"parameter": name[:64]})
                if len(sent) > 1 and name != "path" and not route.repeats(name):
                    raise ServiceError("invalid_argument", f"{name} is given more than once")
            if route.waiting is not None and "wait" in request.query:
                route = route.waiting
        if not request.headers.is_plain and route.permission in ("write", "any") and CONTENT_RANGE in request.headers:
            # If it were ignored, the part would replace the whole value (RFC 9110, section 14.5).
            raise ServiceError("invalid_argument", "Content-Range is not supported; use ?path= to write a part")
        return route

    def body_limit(self, path: bytes) -> Literal["max_body_bytes", "max_state_bytes"]:
        """See `Route.body_limit`."""
        path = path_within(path)
        return self._body_limits.get(path[: path.find(b"/", 1) + 1], "max_body_bytes")

    def _methods_of(self, request: Request, path: bytes) -> dict[str, Route]:
        """The routes of the path, by their methods. Sets `request.argument` and `request.namespace`.

        Raises `no_such_route`, and `invalid_argument` for a namespace that cannot exist.
        """
        end = path.find(b"/", 1) + 1
        begin = path[:end]
        methods = self._prefixed.get(begin)
        if methods is None:
            methods = self._exact.get(path)
            if methods is None:
                self._check_method(request)
                raise _no_such_route()
            return methods
        argument = request.argument = path[end:]
        if begin in self._with_end:
            if begin == NAMESPACES:
                request.namespace = namespace_of(path)
                return self._methods_within(request, path) if b"/" in argument else methods
            for fixed, of_fixed in self._with_end[begin].items():
                if argument.endswith(fixed) and argument != fixed:
                    request.argument = argument.removesuffix(fixed)
                    return of_fixed
        return methods

    def _methods_within(self, request: Request, path: bytes) -> dict[str, Route]:
        """The routes of a path that begins with a namespace."""
        within = path_within(path)
        if not within.startswith(NAMESPACES):  # namespaces are not nested
            methods = self._methods_of(request, within)
            if next(iter(methods.values())).scope == "namespace":
                return methods
        self._check_method(request)
        raise _no_such_route()

    def _check_method(self, request: Request) -> None:
        if request.method not in self._methods:
            raise not_implemented()


def _no_such_route() -> ServiceError:
    return ServiceError("no_such_route", "no such path; see /openapi.json")


def _options(methods: Mapping[str, Route | None]) -> Route:
    """The route of OPTIONS for a path. A browser sends it before a cross-origin request (CORS preflight)."""
    allowed = ", ".join(sorted({*methods, "OPTIONS"}))
    patch = (("Accept-Patch", ACCEPT_PATCH["Accept-Patch"]),) if methods.get("PATCH") else ()
    preflight = (("Access-Control-Allow-Methods", allowed), *PREFLIGHT_HEADERS)

    async def options(request: Request, _service: Service) -> Response:
        is_preflight = request.headers.cors_lines and b"access-control-request-method" in request.headers
        return Response(204, None, headers=(("Allow", allowed), *patch, *(preflight if is_preflight else ())))

    route = next((route for route in methods.values() if route is not None), None)
    pattern = "*" if route is None else route.pattern
    return Route(
        "OPTIONS",
        pattern,
        AsyncEndpoint(options),
        "The allowed methods",
        None,
        (DocumentedResponse(204, "In the header `Allow`."),),
        scope="server" if route is None else route.scope,
    )
