"""The schemas of Terraform states and their locks in `/openapi.json`."""

from typing import Final

from leasehold.http.routing.openapi_schemas import LEASE_MEMBERS, exactly
from leasehold.limits import MAX_LEASE_ID_CHARACTERS, MAX_LOCK_INFO_BYTES, MAX_STATE_NAME_BYTES, MAX_STATE_VERSIONS
from leasehold.model import Json
from leasehold.rules.terraform import LOCK_INFO_MEMBERS

_REVISION: Final[Json] = {"type": "integer", "minimum": 1}

STATE_SCHEMAS: Final[dict[str, Json]] = {
    "State": {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_STATE_NAME_BYTES,
        "description": f"The name of a state: at most {MAX_STATE_NAME_BYTES} bytes, with the rules of a key. "
        "Its second and later segments are not `lock` or `versions`.",
    },
    "TerraformState": {"description": "Any JSON text. It is kept as it is: its numbers may have any size."},
    "LockInfo": {
        "type": "object",
        "properties": {
            **{name: {"type": "string"} for name in LOCK_INFO_MEMBERS},
            "ID": {"type": "string", "minLength": 1, "maxLength": MAX_LEASE_ID_CHARACTERS},
        },
        "required": ["ID"],
        "description": f"What Terraform says of itself, at most {MAX_LOCK_INFO_BYTES} bytes. "
        "Other members are kept, too.",
    },
    "StateLock": exactly({"lock": {"$ref": "#/components/schemas/Name"}, **LEASE_MEMBERS}),
    "StateUnlocked": exactly(
        {"unlocked": {"type": "boolean", "description": "Whether it was locked."}},
    ),
    "StateSaved": exactly({"version": _REVISION}),
    "StateDeleted": exactly({"deleted": {"const": True}, "revision": _REVISION}),
    "StateVersions": exactly(
        {
            "versions": {
                "type": "array",
                "minItems": 1,
                "maxItems": MAX_STATE_VERSIONS,
                "items": exactly(
                    {
                        "version": _REVISION,
                        "saved_at": {"type": "string", "format": "date-time"},
                        "size": {"type": "integer", "minimum": 0, "description": "In bytes."},
                    }
                ),
            }
        }
    ),
}
