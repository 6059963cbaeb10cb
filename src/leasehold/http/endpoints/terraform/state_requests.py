"""What a request about a Terraform state says: the name of the state, the ID of its lock, and the lock info.

Readers raise `invalid_key`, `invalid_argument` and `too_large`.
"""

from collections.abc import Mapping
from typing import Final

from leasehold.errors import ServiceError
from leasehold.http.requests import Request
from leasehold.http.routing.bodies import body_value
from leasehold.http.routing.parameters import decimal_of, key_of, microseconds_of
from leasehold.http.routing.route import Parameter
from leasehold.limits import (
    DEFAULT_STATE_LOCK_SECONDS,
    MAX_LEASE_ID_CHARACTERS,
    MAX_LEASE_SECONDS,
    MAX_LOCK_INFO_BYTES,
    MAX_STATE_NAME_BYTES,
    MIN_LEASE_SECONDS,
)
from leasehold.model import Json
from leasehold.rules.terraform import LOCK_INFO_MEMBERS

_PREFIX: Final = "terraform/"
_RESERVED: Final = frozenset(("lock", "versions"))
_SECOND: Final = 1_000_000

ID: Final = Parameter(
    "ID",
    "The ID of the lock under which the state is written. Terraform sends it.",
    {"type": "string", "minLength": 1, "maxLength": MAX_LEASE_ID_CHARACTERS},
)
TTL: Final = Parameter(
    "ttl",
    f"Seconds until an acquired lock ends, unless a write renews it; {DEFAULT_STATE_LOCK_SECONDS:.0f} by default. "
    "Requests that do not lock accept it, so that Terraform can have one address for all.",
    {"type": "number", "minimum": MIN_LEASE_SECONDS, "maximum": MAX_LEASE_SECONDS},
)


def state_key_of(request: Request) -> str:
    """The key of the state in the path: `terraform/NAME`. It is the name of its lock, too.

    A `ttl` that is wrong is refused here, because the address of each request may have it.
    """
    lock_microseconds_of(request)
    name = key_of(request)
    if len(name.encode()) > MAX_STATE_NAME_BYTES:
        raise ServiceError(
            "invalid_key",
            f"the name of a state has at most {MAX_STATE_NAME_BYTES} bytes",
            details={"limit": MAX_STATE_NAME_BYTES},
        )
    reserved = _RESERVED.intersection(name.split("/")[1:])
    if reserved:
        raise ServiceError("invalid_key", f"only the first segment of the name of a state may be '{min(reserved)}'")
    return _PREFIX + name


def lock_microseconds_of(request: Request) -> int:
    """The time to live of a lock."""
    sent = request.query.get("ttl")
    if sent is None:
        return round(DEFAULT_STATE_LOCK_SECONDS * _SECOND)
    return microseconds_of(decimal_of(sent[0]), name="ttl", minimum=MIN_LEASE_SECONDS, maximum=MAX_LEASE_SECONDS)


def lock_id_of(request: Request) -> str | None:
    """The ID of the lock in the query; None if the request does not claim to hold the lock."""
    sent = request.query.get("ID")
    return None if sent is None else _checked_id(sent[0])


def lock_info_of(request: Request) -> Mapping[str, Json]:
    """The lock info in the body: an object with an ID. What Terraform shows of it are strings."""
    if len(request.body) > MAX_LOCK_INFO_BYTES:
        raise ServiceError(
            "too_large",
            f"a lock info has at most {MAX_LOCK_INFO_BYTES} bytes",
            details={"limit": MAX_LOCK_INFO_BYTES},
        )
    sent = body_value(request)
    if not isinstance(sent, dict):
        raise ServiceError("invalid_argument", "a lock info is an object")
    for name in LOCK_INFO_MEMBERS:
        if not isinstance(sent.get(name, ""), str):
            raise ServiceError("invalid_argument", f"{name} is a string", details={"member": name})
    _checked_id(sent.get("ID"))
    return sent


def _checked_id(sent: Json) -> str:
    if isinstance(sent, str) and sent.isprintable() and 0 < len(sent) <= MAX_LEASE_ID_CHARACTERS:
        return sent
    raise ServiceError("invalid_argument", f"ID is a string of 1 to {MAX_LEASE_ID_CHARACTERS} printable characters")
