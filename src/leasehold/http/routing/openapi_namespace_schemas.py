"""The schemas of namespaces and their quotas in `/openapi.json`."""

from typing import Final

from leasehold.http.routing.openapi_schemas import TIME, exactly, request_body
from leasehold.limits import MAX_NAMESPACE_CHARACTERS, MAX_QUOTA
from leasehold.model import Json

_HEAD_REVISION: Json = {"type": "integer", "minimum": 0}
_LIMIT: Json = {
    "type": ["integer", "null"],
    "minimum": 0,
    "maximum": MAX_QUOTA,
    "description": "Null: as much as there is room for.",
}
_NAMESPACE_NAME: Json = {"type": "string", "pattern": f"^[a-z0-9-]{{1,{MAX_NAMESPACE_CHARACTERS}}}$"}
_NAMESPACE: Json = exactly(
    {
        "namespace": _NAMESPACE_NAME,
        "revision": _HEAD_REVISION,
        "entries": {"type": "integer", "minimum": 0},
        "bytes": {"type": "integer", "minimum": 0, "description": "Of all keys and values."},
        "max_entries": _LIMIT,
        "max_bytes": _LIMIT,
        "created_at": TIME,
    }
)

NAMESPACE_SCHEMAS: Final[dict[str, Json]] = {
    "Namespace": _NAMESPACE_NAME,
    "NamespaceDescription": _NAMESPACE,
    "NamespaceDeleted": exactly({"namespace": _NAMESPACE_NAME, "deleted": {"const": True}, "revision": _HEAD_REVISION}),
    "NamespaceList": exactly(
        {
            "namespaces": {"type": "array", "items": _NAMESPACE},
            "next": {"type": ["string", "null"], "description": "The `after` of the next page."},
        }
    ),
    "Quota": request_body(dict.fromkeys(("max_entries", "max_bytes"), _LIMIT)),
}
