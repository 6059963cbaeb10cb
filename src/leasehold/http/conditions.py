"""Preconditions: If-Match and If-None-Match as revisions (RFC 9110, sections 8.8.3 and 13.1), and If-Lease.

A tag is the entry's revision and, after it, what sets a representation apart: `"42"`, `"42-raw"`, `"42-msgpack"`.
"""

import re
from typing import Final, Literal

from leasehold.errors import ServiceError
from leasehold.http.messages import Request
from leasehold.limits import MAX_LEASE_ID_CHARACTERS
from leasehold.model import Condition, Json

IF_LEASE: Final = b"if-lease"

_ENTITY_TAG = re.compile(r'[\s,]*(W/)?"([\x21\x23-\x7e\x80-\xff]*)"\s*')
_OWN_TAG = re.compile(r"(0|[1-9][0-9]{0,18})((?:-raw)?(?:-msgpack)?)")


def condition(request: Request, *, tag: bytes | None = None) -> Condition | None:
    """What If-Match and If-None-Match ask, as revisions.

    If-Match accepts every representation of a revision. If-None-Match on a read accepts only the one that would be
    sent, with the ETag suffix `tag`, because a caller that has another does not have this; None: any (on writes).
    """
    headers = request.headers
    if b"if-match" not in headers and b"if-none-match" not in headers:
        return None
    if_match = headers.get(b"if-match")
    if_none_match = headers.get(b"if-none-match")
    return Condition(
        if_match=None if if_match is None else _revisions("If-Match", if_match, weak=False, accepts=None),
        if_none_match=(
            None if if_none_match is None else _revisions("If-None-Match", if_none_match, weak=True, accepts=tag)
        ),
    )


def fence(request: Request) -> str | None:
    """The lease that must be alive for a write, from If-Lease."""
    sent = request.headers.get(IF_LEASE)
    return None if sent is None else parse_lease_id(sent.decode("latin-1"))


def parse_lease_id(sent: Json) -> str:
    """What may be a lease_id. Any short text may: whether there is such a lease is found out by the commit."""
    if isinstance(sent, str) and sent.isprintable() and 0 < len(sent) <= MAX_LEASE_ID_CHARACTERS:
        return sent
    raise ServiceError("invalid_argument", f"a lease_id is a text of 1 to {MAX_LEASE_ID_CHARACTERS} characters")


def _revisions(name: str, header: bytes, *, weak: bool, accepts: bytes | None) -> tuple[int, ...] | Literal["*"]:
    text = header.decode("latin-1").strip(" \t,")  # empty elements count for nothing (RFC 9110, 5.6.1.2)
    if text == "*":
        return "*"
    revisions: list[int] = []
    position = 0
    while True:
        match = _ENTITY_TAG.match(text, position)
        if match is None:
            raise ServiceError("invalid_argument", f'{name} takes "*" or quoted entity tags')
        own = _OWN_TAG.fullmatch(match[2])
        if own is not None and (weak or not match[1]) and accepts in (None, own[2].encode()):
            revisions.append(int(own[1]))
        position = match.end()
        if position == len(text):
            return tuple(revisions)
        if text[position] != ",":
            raise ServiceError("invalid_argument", f'{name} takes "*" or quoted entity tags')
        position += 1
