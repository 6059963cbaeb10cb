"""`/openapi.json`: an OpenAPI 3.1 document, generated from the routes.

It has every parameter, body, response and error of every route, so that a fuzzer can test the service with it alone.
The schemas are in `openapi_schemas.py`.
"""

import msgspec

from leasehold import VERSION
from leasehold.errors import STATUS_BY_CODE, ErrorCode
from leasehold.http.media_types import JSON_FIRST, Media
from leasehold.http.routing import idempotency
from leasehold.http.routing.namespaced_paths import NAMESPACE_PATTERN
from leasehold.http.routing.openapi_namespace_schemas import NAMESPACE_SCHEMAS
from leasehold.http.routing.openapi_schemas import HEADERS, SCHEMAS
from leasehold.http.routing.openapi_state_schemas import STATE_SCHEMAS
from leasehold.http.routing.route import DocumentedResponse, Parameter, PureEndpoint, Route
from leasehold.http.routing.router import Router
from leasehold.model import Json
from leasehold.namespaces import DEFAULT_NAMESPACE

EVERYWHERE: tuple[ErrorCode, ...] = (
    "invalid_request",
    "unauthenticated",
    "forbidden",
    "not_acceptable",
    "request_timeout",
    "uri_too_long",
    "headers_too_large",
    "internal",
    "unavailable",
)
"""Errors that every route can send."""
KEY_ERRORS: tuple[ErrorCode, ...] = ("invalid_key", "invalid_argument")
KEY_REUSE_ERRORS: tuple[ErrorCode, ...] = ("idempotency_key_reused", "invalid_argument")
BODY_ERRORS: tuple[ErrorCode, ...] = ("invalid_json", "too_large", "unsupported_media_type")

ERROR_MEDIA = tuple(media.content_type for media in JSON_FIRST)
METHODS: frozenset[str] = frozenset(("GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE"))
"""Those that OpenAPI 3.1 can describe. Routes with other methods do the same as a route that is described."""
OF_FENCED_WRITES: dict[int, tuple[ErrorCode, ...]] = {412: ("lease_lost",)}
"""Codes that a fenced write sends with another status than the one in `STATUS_BY_CODE`."""
ERROR_HEADERS: dict[int, tuple[str, ...]] = {401: ("WWW-Authenticate",), 416: ("Content-Range",)}


SERVERS: list[Json] = [
    {"url": "/", "description": "The namespace `default`."},
    {
        "url": NAMESPACE_PATTERN,
        "description": "Another namespace.",
        "variables": {
            "namespace": {"default": DEFAULT_NAMESPACE, "description": "Its name: 1 to 63 of a to z, 0 to 9 and -."}
        },
    },
]
"""Of the paths that are the same in each namespace."""


def openapi(router: Router) -> bytes:
    """The document, as JSON text."""
    paths: dict[str, dict[str, Json]] = {}
    for route in router.routes:
        if route.method not in METHODS or not route.is_described:
            continue
        methods = paths.setdefault(route.pattern, {})
        methods[route.method.lower()] = _operation(route)
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "Leasehold",
            "version": VERSION,
            "description": "A durable JSON key-value store over HTTP, with lock leases that it enforces on writes.",
        },
        "paths": paths,
        "components": {
            "schemas": {**SCHEMAS, **STATE_SCHEMAS, **NAMESPACE_SCHEMAS},
            "responses": _error_responses(router),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "basic": {"type": "http", "scheme": "basic", "description": "The password is the token."},
            },
        },
    }
    return msgspec.json.encode(document)


def _operation(route: Route) -> Json:
    operation: dict[str, Json] = {
        "summary": route.summary,
        "operationId": f"{route.method.lower()} {route.pattern}",
        "parameters": _path_parameters(route.pattern),
        "responses": {},
    }
    parameters = operation["parameters"]
    assert isinstance(parameters, list)
    parameters += [_parameter(parameter) for parameter in route.parameters]
    if route.takes_idempotency_key:
        parameters.append(_parameter(idempotency.PARAMETER))
    if route.bodies:
        operation["requestBody"] = {
            "required": route.needs_body,
            "content": {media: _schema(name) for media, name in route.bodies.items()},
        }
    responses: dict[str, Json] = {
        str(response.status): _response(response, route.offers, replayable=route.takes_idempotency_key)
        for response in route.responses
    }
    for status in sorted({STATUS_BY_CODE[code] for code in _errors(route)}):
        responses.setdefault(str(status), {"$ref": f"#/components/responses/Error{status}"})
    operation["responses"] = responses
    schemes = ("bearer", "basic") if route.takes_basic else ("bearer",)
    security: list[Json] = [{}]
    if route.permission:
        security += [{scheme: []} for scheme in schemes]
    operation["security"] = security
    if route.scope == "namespace":
        operation["servers"] = SERVERS
    return operation


def _errors(route: Route) -> tuple[ErrorCode, ...]:
    errors = EVERYWHERE + route.errors
    if "{" in route.pattern or route.parameters:
        errors += KEY_ERRORS
    if route.takes_idempotency_key:
        errors += KEY_REUSE_ERRORS
    if route.bodies:
        errors += BODY_ERRORS
    if type(route.endpoint) is PureEndpoint and route.permission == "write":
        errors += ("storage_full", "quota_exceeded")
    if route.scope == "namespace":
        errors += ("no_such_namespace",)
    return errors


def _path_parameters(pattern: str) -> list[Json]:
    """The parameter in the pattern, if there is one. Its schema has the same name."""
    name = pattern.partition("{")[2].partition("}")[0]
    schema: Json = {"$ref": f"#/components/schemas/{name.capitalize()}"}
    return [{"name": name, "in": "path", "required": True, "schema": schema}] if name else []


def _parameter(parameter: Parameter) -> Json:
    schema: Json = dict(parameter.schema)
    if parameter.most > 1:
        schema = {"type": "array", "items": schema, "maxItems": parameter.most}
    described: dict[str, Json] = {
        "name": parameter.name,
        "in": parameter.location,
        "description": parameter.description,
        "schema": schema,
    }
    return {**described, "required": True} if parameter.required else described


def _response(response: DocumentedResponse, offers: tuple[Media, ...], *, replayable: bool) -> Json:
    headers = ["X-Request-Id", "Cache-Control", *(["ETag"] if response.etag else []), *response.headers]
    if replayable:
        headers.append(idempotency.REPLAYED[0])
    shown: dict[str, Json] = {
        "description": response.description,
        "headers": {name: HEADERS[name] for name in headers},
    }
    content: dict[str, Json] = {}
    if response.schema is not None:
        content |= {media.content_type: _schema(response.schema) for media in offers}
    if response.has_bytes:
        content["*/*"] = _schema("Bytes")
    if content:
        shown["content"] = content
    return shown


def _error_responses(router: Router) -> dict[str, Json]:
    codes = {code for route in router.routes for code in _errors(route)}
    responses: dict[str, Json] = {}
    for status in sorted({STATUS_BY_CODE[code] for code in codes}):
        names = sorted(code for code in codes if STATUS_BY_CODE[code] == status)
        names += OF_FENCED_WRITES.get(status, ())
        responses[f"Error{status}"] = {
            "description": ", ".join(names),
            "headers": {
                name: HEADERS[name] for name in ("X-Request-Id", "Cache-Control", *ERROR_HEADERS.get(status, ()))
            },
            "content": {media: _schema("Error") for media in ERROR_MEDIA},
        }
    return responses


def _schema(name: str) -> Json:
    return {"schema": {"$ref": f"#/components/schemas/{name}"}}
