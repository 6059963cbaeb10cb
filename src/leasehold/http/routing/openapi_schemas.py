"""Components of `/openapi.json`: the schemas of keys, values, entries, locks, bodies and responses; and the headers."""

from collections.abc import Mapping

from leasehold.errors import STATUS_BY_CODE
from leasehold.limits import (
    MAX_INTEGER,
    MAX_KEY_BYTES,
    MAX_LEASE_ID_CHARACTERS,
    MAX_LEASE_SECONDS,
    MAX_OWNER_BYTES,
    MAX_TRANSACTION_CHECKS,
    MAX_TRANSACTION_OPERATIONS,
    MAX_TTL_SECONDS,
    MAX_WAIT_SECONDS,
    MIN_LEASE_SECONDS,
    MIN_TTL_SECONDS,
)
from leasehold.model import Json

HEADERS: dict[str, Json] = {
    "Cache-Control": {
        "description": "no-cache if the response can be revalidated by its ETag, otherwise no-store.",
        "schema": {"enum": ["no-cache", "no-store"]},
    },
    "Content-Range": {"description": "The number of bytes of the value.", "schema": {"type": "string"}},
    "ETag": {
        "description": 'The revision of the entry and the incarnation of the store: "42.5f3a9c".',
        "schema": {"type": "string"},
    },
    "Idempotent-Replayed": {
        "description": "The request was done before, with the same Idempotency-Key. This repeats the response.",
        "required": False,
        "schema": {"const": "true"},
    },
    "Location": {"description": "The path of the new entry.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}},
    "WWW-Authenticate": {"description": "Bearer: a token is needed.", "schema": {"type": "string"}},
    "X-Accel-Buffering": {"description": "no: a proxy sends each event on at once.", "schema": {"const": "no"}},
    "X-Request-Id": {"description": "Identifies this request in the log.", "schema": {"type": "string"}},
}

TIME: Json = {"type": "string", "format": "date-time", "examples": ["2026-01-31T12:00:00.000001Z"]}
_ENTRY_MEMBERS: dict[str, Json] = {
    "key": {"$ref": "#/components/schemas/Key"},
    "value": {"description": "Any JSON value, or bytes in base64; missing if it was not asked for."},
    "path": {"type": "string", "description": "The JSON Pointer of `value`, if `value` is a part."},
    "media": {"type": "string", "description": "The media type of a value that is bytes."},
    "size": {"type": "integer", "minimum": 0, "description": "The number of bytes, if the value is bytes."},
    "revision": {"type": "integer", "minimum": 1},
    "created_at": TIME,
    "updated_at": TIME,
    "expires_at": TIME,
}
_ENTRY: dict[str, Json] = {
    "type": "object",
    "properties": _ENTRY_MEMBERS,
    "required": ["key", "revision", "created_at", "updated_at"],
    "additionalProperties": False,
}
_STORED_ENTRY: dict[str, Json] = {
    **_ENTRY,
    "properties": {**_ENTRY_MEMBERS, "base64": {"type": "string", "description": "A value that is bytes."}},
}
_UUID: Json = {"type": "string", "format": "uuid"}
_NAME: Json = {"$ref": "#/components/schemas/Name"}
_LEASE_TTL: Json = {"type": ["number", "null"], "minimum": MIN_LEASE_SECONDS, "maximum": MAX_LEASE_SECONDS}
_WAIT: Json = {"type": ["number", "null"], "minimum": 0, "maximum": MAX_WAIT_SECONDS}
_OWNER: Json = {
    "description": f"Any JSON value of at most {MAX_OWNER_BYTES} bytes that identifies the holder to others."
}
_LEASE_ID: Json = {"type": ["string", "null"], "minLength": 1, "maxLength": MAX_LEASE_ID_CHARACTERS}
_TOKEN: Json = {"type": ["integer", "null"], "minimum": 1}
_FORCE: Json = {"type": ["boolean", "null"]}
LEASE_MEMBERS: dict[str, Json] = {
    "token": {
        "type": "integer",
        "minimum": 1,
        "description": "A fencing token: larger for every later lease of any lock.",
    },
    "owner": _OWNER,
    "acquired_at": TIME,
    "expires_at": TIME,
    "ttl": {"type": "number", "minimum": MIN_LEASE_SECONDS, "maximum": MAX_LEASE_SECONDS},
}


def exactly(members: Mapping[str, Json]) -> Json:
    """A response with exactly these members."""
    return {"type": "object", "properties": dict(members), "required": list(members), "additionalProperties": False}


def request_body(members: Mapping[str, Json]) -> Json:
    """A body with any of these members. A member that is missing may be in the query."""
    return {"type": "object", "properties": dict(members), "additionalProperties": False}


def _members(required: Mapping[str, Json], optional: Mapping[str, Json] | None = None) -> Json:
    """An object in a body, with these members and no others."""
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


_KEY: Json = {"$ref": "#/components/schemas/Key"}
_ANY: Json = {"description": "Any JSON value."}
_PATH: Json = {"type": ["string", "null"], "description": "A JSON Pointer."}
_TTL: Json = {
    "anyOf": [
        {"type": ["number", "null"], "minimum": MIN_TTL_SECONDS, "maximum": MAX_TTL_SECONDS},
        {"const": "keep"},
    ]
}
_BASE64: Json = {"type": "string", "contentEncoding": "base64", "description": "A value that is bytes."}
_MEDIA: Json = {"type": ["string", "null"], "description": "The media type of the bytes: application/octet-stream."}
_CHECKS: list[Json] = [
    _members({"key": _KEY, "revision": {"type": ["integer", "null"], "minimum": 0, "maximum": MAX_INTEGER}}),
    _members({"key": _KEY, "exists": {"type": "boolean"}}),
    _members({"key": _KEY, "value": _ANY}, {"path": _PATH}),
    _members({"lease": {"type": "string", "minLength": 1, "maxLength": MAX_LEASE_ID_CHARACTERS}}),
]
_TRANSACTION_OPERATIONS: list[Json] = [
    _members({"op": {"const": "put"}, "key": _KEY, "value": _ANY}, {"path": _PATH, "ttl": _TTL}),
    _members({"op": {"const": "put"}, "key": _KEY, "base64": _BASE64}, {"media": _MEDIA, "ttl": _TTL}),
    _members({"op": {"const": "increment"}, "key": _KEY, "value": {"type": "number"}}, {"path": _PATH, "ttl": _TTL}),
    _members({"op": {"const": "merge"}, "key": _KEY, "value": _ANY}, {"ttl": _TTL}),
    _members(
        {"op": {"const": "patch"}, "key": _KEY, "patch": {"$ref": "#/components/schemas/JsonPatch"}}, {"ttl": _TTL}
    ),
    _members({"op": {"const": "delete"}, "key": _KEY}),
    _members({"op": {"const": "get"}, "key": _KEY}),
]

_LOCK: Json = exactly(
    {
        "lock": _NAME,
        **LEASE_MEMBERS,
        "waiters": {
            "type": "integer",
            "minimum": 0,
            "description": "The number of clients that wait for it at this server.",
        },
    }
)
_REVISION: Json = {"type": "integer", "minimum": 1}
_FAILED_CHECK: Json = _members(
    {"index": {"type": "integer", "minimum": 0}},
    {
        "key": _KEY,
        "revision": {"type": ["integer", "null"], "minimum": 1},
        "current": {"anyOf": [_ENTRY, {"type": "null"}]},
        "error": {"const": "lease_lost"},
    },
)
_CURSOR: Json = {"type": "integer", "minimum": 0, "description": "All changes up to here that match have been sent."}
_HOLDER: dict[str, Json] = {
    **{name: LEASE_MEMBERS[name] for name in ("token", "owner", "expires_at")},
    "revision": _REVISION,
}
_HEAD: Json = exactly({"revision": {"type": "integer", "minimum": 0}})
_END: Json = _members({"error": {"enum": list(STATUS_BY_CODE)}, "message": {"type": "string"}}, {"oldest": _CURSOR})


def _change_event(name: str, data: Json) -> Json:
    """An event of one change. It has an id if it is the last one of its revision, and none in a snapshot."""
    return _members({"event": {"const": name}, "data": data}, {"id": _CURSOR})


SCHEMAS: dict[str, Json] = {
    "Key": {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_KEY_BYTES,
        "description": f"UTF-8, 1 to {MAX_KEY_BYTES} bytes; no control characters; no empty, '.' or '..' segments.",
    },
    "Value": {"description": "Any JSON value."},
    "Bytes": {"type": "string", "format": "binary"},
    "Entry": _ENTRY,
    "Written": {
        **_ENTRY,
        "required": ["key", "revision", "updated_at"],
        "description": "The entry; without the permission `read`, without `value` and `created_at`.",
    },
    "EntryOrValue": {"description": "An Entry; with `raw`, any JSON value; or bytes."},
    "EntryList": {
        "type": "object",
        "properties": {
            "entries": {"type": "array", "items": _ENTRY},
            "revision": {"type": "integer", "minimum": 0},
            "next": {"type": ["string", "null"], "description": "The `after` of the next page."},
        },
        "required": ["entries", "revision", "next"],
    },
    "EntryListOrCount": {
        "anyOf": [
            {"$ref": "#/components/schemas/EntryList"},
            exactly(
                {
                    "count": {"type": "integer", "minimum": 0},
                    "revision": {"type": "integer", "minimum": 0},
                    "next": {
                        "type": ["string", "null"],
                        "description": "The `after` for the entries that are not counted.",
                    },
                }
            ),
        ],
        "description": "The entries; with `count`, how many there are.",
    },
    "Event": {
        "description": "An event of a watch. In `text/event-stream` its members are the fields of an event.",
        "anyOf": [
            _change_event("put", {"$ref": "#/components/schemas/Entry"}),
            _change_event("delete", exactly({"key": _KEY, "revision": _REVISION})),
            _change_event("lock", exactly({"lock": _NAME, "state": {"const": "held"}, **_HOLDER})),
            _change_event("lock", exactly({"lock": _NAME, "state": {"const": "free"}, "revision": _REVISION})),
            exactly({"event": {"enum": ["ready", "progress"]}, "id": _CURSOR, "data": _HEAD}),
            exactly({"event": {"const": "reset"}, "data": _HEAD}),
            exactly({"event": {"const": "end"}, "data": _END}),
        ],
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
    "DeletedEntries": exactly(
        {
            "prefix": {"type": "string"},
            "deleted": {"type": "integer", "minimum": 0},
            "revision": {"type": "integer", "minimum": 0},
        }
    ),
    "Transaction": {
        "type": "object",
        "properties": {
            "if": {"type": ["array", "null"], "maxItems": MAX_TRANSACTION_CHECKS, "items": {"anyOf": _CHECKS}},
            "do": {
                "type": "array",
                "minItems": 1,
                "maxItems": MAX_TRANSACTION_OPERATIONS,
                "items": {"anyOf": _TRANSACTION_OPERATIONS},
            },
        },
        "required": ["do"],
        "additionalProperties": False,
    },
    "TransactionDone": exactly(
        {
            "revision": {"type": "integer", "minimum": 0, "description": "That of all changes of the transaction."},
            "results": {
                "type": "array",
                "description": "One for each operation. A write has no value. `get` has the entry, or revision null.",
                "items": {
                    "type": "object",
                    "properties": {
                        **_ENTRY_MEMBERS,
                        "revision": {"type": ["integer", "null"], "minimum": 1},
                        "deleted": {"const": True},
                    },
                    "required": ["key", "revision"],
                    "additionalProperties": False,
                },
            },
        }
    ),
    "Uuid": _UUID,
    "Set": {
        "type": "object",
        "properties": {
            "key": {
                "type": ["string", "null"],
                "format": "uuid",
                "description": "If it is missing, a new UUID is generated.",
            },
            "value": {"description": "Any JSON value."},
            "path": {
                "type": ["string", "array", "null"],
                "items": {"type": ["string", "integer"]},
                "description": "The part to write: a JSON Pointer or a list of its segments.",
            },
            "ttl": _TTL,
        },
        "required": ["value"],
        "additionalProperties": False,
    },
    "Name": {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_KEY_BYTES,
        "description": "The name of a lock, with the rules of a key.",
    },
    "Lease": exactly({"lock": _NAME, "lease_id": {"type": "string"}, **LEASE_MEMBERS}),
    "Lock": _LOCK,
    "LockList": exactly(
        {
            "locks": {"type": "array", "items": _LOCK},
            "revision": {"type": "integer", "minimum": 0},
            "next": {"type": ["string", "null"], "description": "The `after` of the next page."},
        }
    ),
    "Released": exactly(
        {"lock": _NAME, "released": {"const": True}, "revision": {"type": "integer", "minimum": 1}},
    ),
    "Acquire": request_body({"ttl": _LEASE_TTL, "wait": _WAIT, "owner": _OWNER}),
    "Renew": request_body({"lease_id": _LEASE_ID, "ttl": _LEASE_TTL}),
    "Release": request_body({"lease_id": _LEASE_ID, "token": _TOKEN, "force": _FORCE}),
    "AcquireByUuid": request_body({"lock_id": _UUID, "ttl": _LEASE_TTL, "wait": _WAIT, "owner": _OWNER}),
    "RenewByUuid": request_body({"lock_id": _UUID, "lease_id": _LEASE_ID, "ttl": _LEASE_TTL}),
    "ReleaseByUuid": request_body({"lock_id": _UUID, "lease_id": _LEASE_ID, "token": _TOKEN, "force": _FORCE}),
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
            "entries": {"type": "array", "items": _STORED_ENTRY},
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
            "trace_id": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
            "limit": {"type": "integer", "description": "The limit that the request exceeds."},
            "revision": {"type": ["integer", "null"], "description": "Of the entry; null if there is none."},
            "index": {"type": "integer", "minimum": 0, "description": "The operation that is refused."},
            "key": {"type": "string", "description": "The key of this operation, or of an entry of a list."},
            "failed": {"type": "array", "minItems": 1, "items": _FAILED_CHECK},
            "oldest": {"type": "integer", "minimum": 0, "description": "A revision from which a watch can begin."},
            "deleted": {"type": "integer", "minimum": 0, "description": "How many entries were deleted before."},
            "step": {"type": "integer", "minimum": 0, "description": "The operation of the JSON patch that failed."},
            "size": {"type": "integer", "minimum": 0, "description": "The number of bytes of the value."},
            "member": {"type": "string", "description": "The member of the body that is wrong."},
            "owner": _OWNER,
            "expires_at": TIME,
        },
        "required": ["error", "message", "request_id"],
        "description": "`error` is for programs, `message` for people. There may be more members.",
    },
}
