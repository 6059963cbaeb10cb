"""What a request for a lock says: the name of the lock, and the members of its body or its query.

Each member can be in the body or in the query, but not in both. Readers raise `invalid_argument` and `invalid_key`.
"""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Final

import msgspec

from leasehold.errors import ServiceError
from leasehold.http.requests import Request
from leasehold.http.routing.bodies import body_value, members_of
from leasehold.http.routing.parameters import decimal_of, flag_of, key_of, microseconds_of, parse_uuid
from leasehold.http.routing.preconditions import IF_LEASE, parse_lease_id
from leasehold.http.routing.route import Parameter
from leasehold.limits import MAX_LEASE_ID_CHARACTERS, MAX_LEASE_SECONDS, MIN_LEASE_SECONDS
from leasehold.model import Json

Members = Mapping[str, Json]
_TOKEN: Final = re.compile("[0-9]{1,18}")


def lock_members_of(request: Request, known: Collection[str]) -> Members:
    """The members of the body and of the query. Only `known` ones are allowed; an error lists them in this order."""
    if IF_LEASE in request.headers:
        raise ServiceError("invalid_argument", "If-Lease applies to writes of entries; send lease_id instead")
    body = members_of(body_value(request), known) if request.body else {}
    if not request.query:  # nearly always
        return body
    query = {name: _in_query(request, name, sent[0]) for name, sent in request.query.items()}
    if twice := body.keys() & query.keys():
        raise ServiceError("invalid_argument", f"{min(twice)} is in the body and in the query; send it once")
    return body | query


def _in_query(request: Request, name: str, text: str) -> Json:
    """The member as it would be in a body: a number, a boolean, or text."""
    if name in ("ttl", "wait"):
        return decimal_of(text)
    if name == "force":
        return flag_of(request, "force", default=False)
    if name == "token" and _TOKEN.fullmatch(text):
        return int(text)
    return text


# How a lock is named ------------------------------------------------------------------------------------------


class Naming(msgspec.Struct, frozen=True):
    """How a route names the lock. `members`, `parameters`: what the name adds to those of the command."""

    name_of: Callable[[Request, Members], str]
    members: frozenset[str] = frozenset()
    parameters: tuple[Parameter, ...] = ()


def _name_in_path(request: Request, _members: Members) -> str:
    return key_of(request)


def _name_in_lock_id(_request: Request, members: Members) -> str:
    if members.get("lock_id") is None:
        raise ServiceError("invalid_argument", "lock_id is missing; it is a UUID")
    return parse_uuid(members["lock_id"])


IN_PATH: Final = Naming(_name_in_path)
BY_UUID: Final = Naming(
    _name_in_lock_id,
    frozenset({"lock_id"}),
    (Parameter("lock_id", "The name of the lock, a UUID.", {"type": "string", "format": "uuid"}),),
)


# Members that several commands have ---------------------------------------------------------------------------

TTL: Final = Parameter(
    "ttl",
    "Seconds until the lease ends, unless it is renewed.",
    {"type": "number", "minimum": MIN_LEASE_SECONDS, "maximum": MAX_LEASE_SECONDS},
)
LEASE_ID: Final = Parameter(
    "lease_id",
    "The lease_id that the response to the acquisition has.",
    {"type": "string", "minLength": 1, "maxLength": MAX_LEASE_ID_CHARACTERS},
)


def ttl_of(members: Members) -> int | None:
    """The time to live of a lease, in microseconds."""
    sent = members.get("ttl")
    if sent is None:
        return None
    return microseconds_of(sent, name="ttl", minimum=MIN_LEASE_SECONDS, maximum=MAX_LEASE_SECONDS)


def lease_id_of(members: Members) -> str | None:
    sent = members.get("lease_id")
    return None if sent is None else parse_lease_id(sent)
