"""Preconditions: the headers If-Match and If-None-Match (RFC 9110, sections 8.8.3 and 13.1), and If-Lease.

An ETag consists of the entry's revision, the incarnation of the store, and a suffix for the representation:
`"42.5f3a9c"`, `"42.5f3a9c-raw"`, `"42.5f3a9c-msgpack"`, `"42.5f3a9c-bytes"`. A tag without the incarnation, `"42"`, is
accepted, too.

This module only parses the headers. `rules` decides whether a precondition holds.
"""

import re
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from leasehold.errors import ServiceError
from leasehold.http.requests import Request
from leasehold.http.routing.route import Parameter
from leasehold.limits import MAX_LEASE_ID_CHARACTERS
from leasehold.model import Condition, Json, Tag, Tags

IF_LEASE: Final = b"if-lease"
IF_RANGE: Final = b"if-range"

CONDITIONS: Final = (
    Parameter("If-Match", '"*" or the ETags of the revisions that the entry must have.', {"type": "string"}, "header"),
    Parameter(
        "If-None-Match", '"*" or the ETags of revisions that the entry must not have.', {"type": "string"}, "header"
    ),
)
RANGES: Final = (
    Parameter("Range", "Ranges of a value that is bytes.", {"type": "string", "examples": ["bytes=0-99"]}, "header"),
    Parameter("If-Range", "The ETag for which the ranges are meant.", {"type": "string"}, "header"),
)
FENCE: Final = Parameter(
    "If-Lease",
    "A lease_id. The write is done only if this lease is alive at the commit.",
    {"type": "string"},
    "header",
)
WRITE_CONDITIONS: Final = (*CONDITIONS, FENCE)

_ENTITY_TAG = re.compile(r'[\s,]*(W/)?"([\x21\x23-\x7e\x80-\xff]*)"\s*')
_OWN = (
    r"(?P<revision>0|[1-9][0-9]{0,18})(?:\.(?P<incarnation>[0-9a-f]{6}))?"
    "(?P<representation>-bytes|(?:-raw)?(?:-msgpack)?)"
)
_OWN_TAG = re.compile(_OWN)
_COMPRESSED_TAG = re.compile(_OWN + "(?:--?|[;+:])(?:gzip|br|brotli|zstd|deflate|compress|df)")
"""As compressing proxies write it: `"42.5f3a9c-gzip"` (Apache, Caddy), `"…;gzip"`, `"…-br"`, `"…--gzip"` (Jetty)."""


def condition_of(request: Request, *, tag: bytes | None = None) -> Condition | None:
    """If-Match and If-None-Match, as tags; None if the request has neither.

    If-Match compares revisions, whichever representation a tag has, and no weak tag matches (RFC 9110, section
    13.1.1). Compressing proxies make our tags weak or append to them. Such tags are kept in `changed`, so that the
    error can name the reason.

    `tag`: the ETag suffix of the representation that a read would send. Only tags with it count in If-None-Match,
    because a client with another representation does not have this one. None, on writes: all tags count.
    """
    headers = request.headers
    if b"if-match" not in headers and b"if-none-match" not in headers:
        return None
    sent = headers.get(b"if-match")
    if_match, changed = (None, ()) if sent is None else _if_match(_entity_tags("If-Match", sent))
    sent = headers.get(b"if-none-match")
    if_none_match = None if sent is None else _if_none_match(_entity_tags("If-None-Match", sent), accepts=tag)
    return Condition(if_match, if_none_match, changed)


def if_range_of(request: Request, *, tag: bytes) -> tuple[Tag, ...] | None:
    """If-Range (RFC 9110, section 13.1.5): the tags of which the entry must have one if a range is to be sent.

    None without the header. Only a strong tag with the suffix `tag` counts. A date does not, because no response has a
    Last-Modified.
    """
    sent = request.headers.get(IF_RANGE)
    if sent is None:
        return None
    found = _ENTITY_TAG.fullmatch(sent.decode("latin-1").strip())
    own = None if found is None or found[1] is not None else _OWN_TAG.fullmatch(found[2])
    return () if own is None or own["representation"].encode() != tag else (_tag(own),)


def if_lease_of(request: Request) -> str | None:
    """If-Lease: the lease_id of the lease that must be alive at the commit."""
    sent = request.headers.get(IF_LEASE)
    return None if sent is None else parse_lease_id(sent.decode("latin-1"))


def refuse_conditions(request: Request, message: str) -> None:
    """Raise `invalid_argument` for If-Match and If-None-Match, if the target has no ETag. Ignored, they would not
    protect anything."""
    if b"if-match" in request.headers or b"if-none-match" in request.headers:
        raise ServiceError("invalid_argument", f"If-Match and If-None-Match are not supported here; {message}")


def parse_lease_id(sent: Json) -> str:
    """A text that may be a lease_id. Only the commit finds out whether there is such a lease."""
    if isinstance(sent, str) and sent.isprintable() and 0 < len(sent) <= MAX_LEASE_ID_CHARACTERS:
        return sent
    raise ServiceError(
        "invalid_argument", f"a lease_id is a string of 1 to {MAX_LEASE_ID_CHARACTERS} printable characters"
    )


class _EntityTag(NamedTuple):
    is_weak: bool
    opaque: str


def _if_match(sent: Sequence[_EntityTag] | Literal["*"]) -> tuple[Tags, tuple[Tag, ...]]:
    """The tags to compare, and our own tags that a proxy changed."""
    if sent == "*":
        return "*", ()
    tags: list[Tag] = []
    changed: list[Tag] = []
    for is_weak, opaque in sent:
        own = _OWN_TAG.fullmatch(opaque)
        if own is not None and not is_weak:
            tags.append(_tag(own))
        elif own is not None or (own := _COMPRESSED_TAG.fullmatch(opaque)) is not None:
            changed.append(_tag(own))
    return tuple(tags), tuple(changed)


def _if_none_match(sent: Sequence[_EntityTag] | Literal["*"], *, accepts: bytes | None) -> Tags:
    if sent == "*":
        return "*"
    own_tags = (own for _, opaque in sent if (own := _OWN_TAG.fullmatch(opaque)) is not None)
    return tuple(_tag(own) for own in own_tags if accepts in (None, own["representation"].encode()))


def _tag(own: re.Match[str]) -> Tag:
    revision, incarnation = int(own["revision"]), own["incarnation"]
    return revision if incarnation is None else (revision, incarnation)


def _entity_tags(name: str, header: bytes) -> Sequence[_EntityTag] | Literal["*"]:
    text = header.decode("latin-1").strip(" \t,")  # empty elements are ignored (RFC 9110, section 5.6.1.2)
    if text == "*":
        return "*"
    tags: list[_EntityTag] = []
    position = 0
    while True:
        match = _ENTITY_TAG.match(text, position)
        if match is None:
            raise ServiceError("invalid_argument", f'{name} takes "*" or quoted entity tags')
        tags.append(_EntityTag(match[1] is not None, match[2]))
        position = match.end()
        if position == len(text):
            return tags
        if text[position] != ",":
            raise ServiceError("invalid_argument", f'{name} takes "*" or quoted entity tags')
        position += 1
