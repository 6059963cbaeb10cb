"""`/openapi.json`: OpenAPI 3.1, made from the route table.

Complete enough that a fuzzer can drive the service from it: every parameter, body, answer and error of every route.
"""

from collections.abc import Mapping

import msgspec

from leasehold import VERSION
from leasehold.errors import STATUS_BY_CODE, ErrorCode
from leasehold.http.negotiation import JSON_FIRST, Media
from leasehold.http.routing.routes import Answer, Parameter, PureEndpoint, Route, Router
from leasehold.limits import (
    MAX_KEY_BYTES,
    MAX_LEASE_ID_CHARACTERS,
    MAX_LEASE_SECONDS,
    MAX_OWNER_BYTES,
    MAX_TTL_SECONDS,
    MAX_WAIT_SECONDS,
    MIN_LEASE_SECONDS,
    MIN_TTL_SECONDS,
)
from leasehold.model import Json

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
"""Errors that any request may meet."""
KEY_ERRORS: tuple[ErrorCode, ...] = ("invalid_key", "invalid_argument")
BODY_ERRORS: tuple[ErrorCode, ...] = ("invalid_json", "too_large", "unsupported_media_type")

ERROR_MEDIA = tuple(media.content_type for media in JSON_FIRST)
HEADERS: dict[str, Json] = {
    "Cache-Control": {
        "description": "no-cache where the answer can be revalidated by its ETag, else no-store.",
        "schema": {"enum": ["no-cache", "no-store"]},
    },
    "ETag": {
        "description": 'Revision of the entry and incarnation of the store: "42.5f3a9c".',
        "schema": {"type": "string"},
    },
    "Location": {"description": "Where the new entry is.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}},
    "WWW-Authenticate": {"description": "Bearer: send a token.", "schema": {"type": "string"}},
    "X-Request-Id": {"description": "Names this request in the log.", "schema": {"type": "string"}},
}
OF_FENCED_WRITES: dict[int, tuple[ErrorCode, ...]] = {412: ("lease_lost",)}
"""An error that there has another status than its usual one."""
ERROR_HEADERS: dict[int, tuple[str, ...]] = {401: ("WWW-Authenticate",)}

_TIME: Json = {"type": "string", "format": "date-time", "examples": ["2026-01-31T12:00:00.000001Z"]}
_ENTRY_MEMBERS: dict[str, Json] = {
    "key": {"$ref": "#/components/schemas/Key"},
    "value": {"description": "Any JSON value; left out where it was not wanted."},
    "path": {"type": "string", "description": "Where `value` is a part: its JSON Pointer."},
    "revision": {"type": "integer", "minimum": 1},
    "created_at": _TIME,
    "updated_at": _TIME,
    "expires_at": _TIME,
}
_ENTRY: dict[str, Json] = {
    "type": "object",
    "properties": _ENTRY_MEMBERS,
    "required": ["key", "revision", "created_at", "updated_at"],
    "additionalProperties": False,
}
_UUID: Json = {"type": "string", "format": "uuid"}
_NAME: Json = {"$ref": "#/components/schemas/Name"}
_LEASE_TTL: Json = {"type": ["number", "null"], "minimum": MIN_LEASE_SECONDS, "maximum": MAX_LEASE_SECONDS}
_WAIT: Json = {"type": ["number", "null"], "minimum": 0, "maximum": MAX_WAIT_SECONDS}
_OWNER: Json = {"description": f"Any JSON value of at most {MAX_OWNER_BYTES} bytes: what the holder says of itself."}
_LEASE_ID: Json = {"type": ["string", "null"], "minLength": 1, "maxLength": MAX_LEASE_ID_CHARACTERS}
_TOKEN: Json = {"type": ["integer", "null"], "minimum": 1}
_FORCE: Json = {"type": ["boolean", "null"]}
_LEASE_MEMBERS: dict[str, Json] = {
    "token": {"type": "integer", "minimum": 1, "description": "Larger for every later lease of any lock."},
    "owner": _OWNER,
    "acquired_at": _TIME,
    "expires_at": _TIME,
    "ttl": {"type": "number", "minimum": MIN_LEASE_SECONDS, "maximum": MAX_LEASE_SECONDS},
}


def _object(members: Mapping[str, Json]) -> Json:
    """An answer that has all of these members and no others."""
    return {"type": "object", "properties": dict(members), "required": list(members), "additionalProperties": False}


def _asked(members: Mapping[str, Json]) -> Json:
    """What may be asked in a body; what is not there may stand in the query."""
    return {"type": "object", "properties": dict(members), "additionalProperties": False}


_LOCK: Json = _object(
    {
        "lock": _NAME,
        **_LEASE_MEMBERS,
        "waiters": {"type": "integer", "minimum": 0, "description": "Who wait for it at this server."},
    }
)
SCHEMAS: dict[str, Json] = {
    "Key": {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_KEY_BYTES,
        "description": f"UTF-8, 1 to {MAX_KEY_BYTES} bytes; no control characters; no empty, '.' or '..' segments.",
    },
    "Value": {"description": "Any JSON value."},
    "Entry": _ENTRY,
    "Written": {
        **_ENTRY,
        "required": ["key", "revision", "updated_at"],
        "description": "The entry; without the permission `read`, neither `value` nor `created_at`.",
    },
    "EntryOrValue": {"description": "An Entry; with `raw`, any JSON value."},
    "EntryList": {
        "type": "object",
        "properties": {
            "entries": {"type": "array", "items": _ENTRY},
            "revision": {"type": "integer", "minimum": 0},
            "next": {"type": ["string", "null"], "description": "The `after` to go on with."},
        },
        "required": ["entries", "revision", "next"],
    },
    "Deleted": {
        "type": "object",
        "properties": {
            "key": {"type": "string"},
            "path": {"type": "string"},
            "deleted": {"const": True},
            "revision": {"type": "integer", "minimum": 1},
        },
        "required": ["key", "deleted", "revision"],
    },
    "Uuid": _UUID,
    "Set": {
        "type": "object",
        "properties": {
            "key": {"type": ["string", "null"], "format": "uuid", "description": "Without it a new one is made."},
            "value": {"description": "Any JSON value."},
            "path": {
                "type": ["string", "array", "null"],
                "items": {"type": ["string", "integer"]},
                "description": "A JSON Pointer or a list of its segments: the part to write.",
            },
            "ttl": {"type": ["number", "null"], "minimum": MIN_TTL_SECONDS, "maximum": MAX_TTL_SECONDS},
        },
        "required": ["value"],
        "additionalProperties": False,
    },
    "Name": {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_KEY_BYTES,
        "description": "The name of a lock: the rules of a key.",
    },
    "Lease": _object({"lock": _NAME, "lease_id": {"type": "string"}, **_LEASE_MEMBERS}),
    "Lock": _LOCK,
    "LockList": _object(
        {
            "locks": {"type": "array", "items": _LOCK},
            "revision": {"type": "integer", "minimum": 0},
            "next": {"type": ["string", "null"], "description": "The `after` to go on with."},
        }
    ),
    "Released": _object(
        {"lock": _NAME, "released": {"const": True}, "revision": {"type": "integer", "minimum": 1}},
    ),
    "Acquire": _asked({"ttl": _LEASE_TTL, "wait": _WAIT, "owner": _OWNER}),
    "Renew": _asked({"lease_id": _LEASE_ID, "ttl": _LEASE_TTL}),
    "Release": _asked({"lease_id": _LEASE_ID, "token": _TOKEN, "force": _FORCE}),
    "AcquireByUuid": _asked({"lock_id": _UUID, "ttl": _LEASE_TTL, "wait": _WAIT, "owner": _OWNER}),
    "RenewByUuid": _asked({"lock_id": _UUID, "lease_id": _LEASE_ID, "ttl": _LEASE_TTL}),
    "ReleaseByUuid": _asked({"lock_id": _UUID, "lease_id": _LEASE_ID, "token": _TOKEN, "force": _FORCE}),
    "JsonPatch": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "op": {"enum": ["add", "remove", "replace", "move", "copy", "test"]},
                "path": {"type": "string"},
                "from": {"type": "string"},
                "value": {},
            },
            "required": ["op", "path"],
        },
    },
    "Health": {
        "type": "object",
        "properties": {
            "status": {"enum": ["ok", "degraded"]},
            "store": {"type": "string"},
            "revision": {"type": "integer"},
            "incarnation": {"type": "string", "pattern": "^[0-9a-f]{6}$"},
            "uptime_s": {"type": "number"},
            "version": {"type": "string"},
        },
        "required": ["status", "store", "revision", "incarnation", "uptime_s", "version"],
    },
    "Backup": {
        "type": "object",
        "properties": {
            "leasehold": {"type": "integer"},
            "incarnation": {"type": "string", "pattern": "^[0-9a-f]{6}$"},
            "revision": {"type": "integer"},
            "entries": {"type": "array", "items": {"$ref": "#/components/schemas/Entry"}},
            "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
        },
        "required": ["leasehold", "incarnation", "revision", "entries", "sha256"],
    },
    "Live": {"type": "object", "properties": {"status": {"const": "ok"}}, "required": ["status"]},
    "OpenApi": {"type": "object", "required": ["openapi", "info", "paths"]},
    "Text": {"type": "string"},
    "Error": {
        "type": "object",
        "properties": {
            "error": {"enum": list(STATUS_BY_CODE)},
            "message": {"type": "string"},
            "request_id": {"type": "string"},
        },
        "required": ["error", "message", "request_id"],
        "description": "`error` is for programs, `message` for people. More members may follow.",
    },
}


def openapi(router: Router) -> bytes:
    """The document, as JSON."""
    paths: dict[str, dict[str, Json]] = {}
    for route in router.routes:
        methods = paths.setdefault(route.pattern, {})
        methods[route.method.lower()] = _operation(route)
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "Leasehold",
            "version": VERSION,
            "description": "JSON values under keys over HTTP, durable, with leases that are enforced on writes.",
        },
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "responses": _error_responses(router),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
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
    if route.bodies:
        operation["requestBody"] = {
            "required": route.needs_body,
            "content": {media: _schema(name) for media, name in route.bodies.items()},
        }
    responses: dict[str, Json] = {str(answer.status): _answer(answer, route.offers) for answer in route.answers}
    for status in sorted({STATUS_BY_CODE[code] for code in _errors(route)}):
        responses.setdefault(str(status), {"$ref": f"#/components/responses/Error{status}"})
    operation["responses"] = responses
    operation["security"] = [{}, {"bearer": []}] if route.permission else [{}]
    return operation


def _errors(route: Route) -> tuple[ErrorCode, ...]:
    errors = EVERYWHERE + route.errors
    if "{" in route.pattern or route.parameters:
        errors += KEY_ERRORS
    if route.bodies:
        errors += BODY_ERRORS
    if type(route.endpoint) is PureEndpoint and route.permission == "write":
        errors += ("storage_full",)
    return errors


def _path_parameters(pattern: str) -> list[Json]:
    """The one that a pattern may end in; its schema has its name."""
    name = pattern.partition("{")[2].rstrip("}")
    schema: Json = {"$ref": f"#/components/schemas/{name.capitalize()}"}
    return [{"name": name, "in": "path", "required": True, "schema": schema}] if name else []


def _parameter(parameter: Parameter) -> Json:
    schema: Json = dict(parameter.schema)
    if parameter.repeated:
        schema = {"type": "array", "items": schema}
    return {
        "name": parameter.name,
        "in": parameter.location,
        "description": parameter.description,
        "schema": schema,
    }


def _answer(answer: Answer, offers: tuple[Media, ...]) -> Json:
    headers = ["X-Request-Id", "Cache-Control", *(["ETag"] if answer.etag else []), *answer.headers]
    shown: dict[str, Json] = {
        "description": answer.description,
        "headers": {name: HEADERS[name] for name in headers},
    }
    if answer.schema is not None:
        shown["content"] = {media.content_type: _schema(answer.schema) for media in offers}
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
