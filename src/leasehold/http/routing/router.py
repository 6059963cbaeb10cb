"""The router: finds the route of a request, refuses unknown parameters, and responds to OPTIONS."""

from collections.abc import Mapping, Sequence

from leasehold.errors import ServiceError, not_implemented
from leasehold.http.media_types import ACCEPT_PATCH
from leasehold.http.messages import CONTENT_RANGE, Request, Response
from leasehold.http.routing.cors import PREFLIGHT_HEADERS
from leasehold.http.routing.route import AsyncEndpoint, DocumentedResponse, Route, Service


class Router:
    """Finds the route of a request, by exact path or by the path up to the second slash."""

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
        # The server as a whole (RFC 9110, section 9.3.7).
        self._exact[b"*"] = {"OPTIONS": _options(dict.fromkeys(self._methods))}

    def match(self, request: Request) -> Route:
        """The route. Sets `request.argument` to the part of the path that the pattern leaves open.

        Raises `not_implemented` for a method that no route has, `no_such_route`, `method_not_allowed`, and
        `invalid_argument` for a parameter that the route does not have: otherwise a misspelt `ttl` would create an
        entry that never expires.
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
                raise ServiceError("no_such_route", "no such path; see /openapi.json")
        route = methods.get(request.method)
        if route is None:
            self._check_method(request)
            allowed = ", ".join(sorted(methods))
            raise ServiceError("method_not_allowed", f"allowed methods: {allowed}", headers={"Allow": allowed})
        request.pattern = route.pattern
        if request.query:
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

    def _check_method(self, request: Request) -> None:
        if request.method not in self._methods:
            raise not_implemented()


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
    )
