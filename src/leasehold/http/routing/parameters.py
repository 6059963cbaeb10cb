"""Parameters of requests: how each is read, and how `/openapi.json` describes it.

A reader takes a request and returns a checked value. It raises `invalid_argument`, `invalid_key` or `invalid_path`. The
router has already refused parameters that the route does not have. To add a parameter: its reader and its `Parameter`
here, and its name in the `parameters` of a route.
"""

import re
from collections.abc import Mapping
from typing import Final, cast

from leasehold import values
from leasehold.errors import ServiceError
from leasehold.http.requests import Request, percent_decode
from leasehold.http.routing.negotiation import prefers_minimal
from leasehold.http.routing.route import Parameter
from leasehold.keys import check_key
from leasehold.limits import (
    MAX_KEY_BYTES,
    MAX_PAGE_ENTRIES,
    MAX_PATHS,
    MAX_READ_KEYS,
    MAX_TTL_SECONDS,
    MAX_WAIT_SECONDS,
    MIN_TTL_SECONDS,
)
from leasehold.model import Json, Pointer, Ttl

Number = int | float
_STRING: Final[Mapping[str, Json]] = {"type": "string"}
_DECIMAL: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,20})?")
"""A decimal number. `float` alone would also accept `1_000` and `nan`."""
UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
"""A UUID in lower case."""


def is_key_only(request: Request) -> bool:
    """Whether the request has no query and no header that changes its effect or its response.

    Nearly all requests are so. Then no other reader needs to be called.
    """
    return request.headers.is_plain and not request.query


# Keys ---------------------------------------------------------------------------------------------------------


def key_of(request: Request) -> str:
    """The key, or the name of the lock, at the end of the path."""
    try:
        key = percent_decode(request.argument)
    except ValueError:
        raise ServiceError("invalid_key", "the key is not percent-encoded UTF-8") from None
    check_key(key)
    return key


def uuid_of(request: Request) -> str:
    return parse_uuid(key_of(request))


def parse_uuid(text: object) -> str:
    """A UUID in its usual form, in lower case. Raises `invalid_key`."""
    lower = text.lower() if isinstance(text, str) else ""
    if not UUID.fullmatch(lower):
        raise ServiceError("invalid_key", "the key must be a UUID, like 123e4567-e89b-12d3-a456-426614174000")
    return lower


# Parts of a value ---------------------------------------------------------------------------------------------

PATH: Final = Parameter(
    "path", "JSON Pointer (RFC 6901) to a part of the value.", {"type": "string", "examples": ["/a/0"]}
)
PATHS: Final = Parameter(
    "path",
    "JSON Pointer to a part. If it is repeated, the response has each part under its path.",
    _STRING,
    most=MAX_PATHS,
)


def path_of(request: Request) -> Pointer | None:
    sent = request.query.get("path")
    if sent is None:
        return None
    if len(sent) > 1:
        raise ServiceError("invalid_argument", "path can be given only once here")
    return values.parse_pointer(sent[0])


def paths_of(request: Request) -> tuple[Pointer, ...] | None:
    sent = request.query.get("path")
    if sent is None:
        return None
    if len(sent) > MAX_PATHS:
        raise ServiceError("invalid_argument", "too many paths", details={"limit": MAX_PATHS})
    return tuple(values.parse_pointer(text) for text in sent)


# Numbers ------------------------------------------------------------------------------------------------------

TTL: Final = Parameter(
    "ttl",
    "Seconds until the entry expires, or `keep` for the expiry that it has. Without it the entry does not expire.",
    {"anyOf": [{"type": "number", "minimum": MIN_TTL_SECONDS, "maximum": MAX_TTL_SECONDS}, {"const": "keep"}]},
)


def ttl_of(request: Request) -> Ttl:
    """The time to live of an entry, in the query."""
    sent = request.query.get("ttl")
    return None if sent is None else entry_ttl(decimal_of(sent[0]))


def entry_ttl(sent: Json) -> Ttl:
    """The time to live of an entry: a number of seconds, `keep`, or null for none."""
    if sent is None:
        return None
    if sent == "keep":
        return "keep"
    return microseconds_of(sent, name="ttl", minimum=MIN_TTL_SECONDS, maximum=MAX_TTL_SECONDS)


WAIT: Final = Parameter(
    "wait",
    "The maximum number of seconds to wait while the response would be 304 or 404.",
    {"type": "number", "minimum": 0, "maximum": MAX_WAIT_SECONDS},
)


def wait_seconds_of(request: Request) -> float:
    sent = decimal_of(request.query["wait"][0])
    return microseconds_of(sent, name="wait", minimum=0, maximum=MAX_WAIT_SECONDS) / 1_000_000


def decimal_of(text: str) -> float | str:
    """The number in a query parameter, or the text itself if it is not a decimal number."""
    return float(text) if _DECIMAL.fullmatch(text) else text


def microseconds_of(sent: Json, *, name: str, minimum: float, maximum: float) -> int:
    """Microseconds from a number of seconds. `name`, `minimum`, `maximum`: of the parameter, in seconds."""
    is_number = isinstance(sent, Number) and not isinstance(sent, bool)
    if is_number and minimum <= (number := cast("float", sent)) <= maximum:
        return round(number * 1_000_000)
    raise ServiceError("invalid_argument", f"{name} is a number of seconds, {minimum:g} to {maximum:.0f}")


# Lists --------------------------------------------------------------------------------------------------------

PREFIX: Final = Parameter("prefix", "Only names that begin with it.", _STRING)
AFTER: Final = Parameter("after", "Only names greater than it; with `reverse`, only names less than it.", _STRING)
REVERSE: Final = Parameter("reverse", "In descending order.", {"type": "boolean"})
COUNT: Final = Parameter("count", "Only how many there are.", {"type": "boolean"})
LIST_PATHS: Final = Parameter(
    "path",
    "JSON Pointer to a part of each value. Entries without this part, or without one of several, are left out.",
    _STRING,
    most=MAX_PATHS,
)
LIMIT: Final = Parameter(
    "limit",
    "The maximum number of items in the response. Its member `next` is the `after` of the next page.",
    {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_ENTRIES},
)


def prefixes_of(request: Request) -> tuple[str, ...]:
    """The prefixes of the names to list: `prefix`, narrowed to the names that the token covers."""
    return request.principal.covered_prefixes(prefix_of(request))


def prefix_of(request: Request) -> str:
    prefix = request.query.get("prefix", [""])[0]
    if len(prefix.encode()) > MAX_KEY_BYTES:
        raise ServiceError("invalid_argument", "prefix is longer than any key", details={"limit": MAX_KEY_BYTES})
    return prefix


def after_of(request: Request) -> str | None:
    """`after`: the list begins behind this text, which need not be a valid key."""
    after = request.query.get("after", [None])[0]
    if len((after or "").encode()) > MAX_KEY_BYTES:
        raise ServiceError("invalid_argument", "after is longer than any key", details={"limit": MAX_KEY_BYTES})
    return after


def limit_of(request: Request) -> int | None:
    sent = request.query.get("limit")
    if sent is None:
        return None
    text = sent[0]
    limit = int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else 0
    if not 1 <= limit <= MAX_PAGE_ENTRIES:
        raise ServiceError("invalid_argument", f"limit is an integer, 1 to {MAX_PAGE_ENTRIES}")
    return limit


KEYS: Final = Parameter(
    "key",
    "A key. If it is repeated, the response has all of these entries, as of one moment.",
    _STRING,
    most=MAX_READ_KEYS,
)


def keys_of(request: Request) -> list[str]:
    """The keys of several entries, in the order of the request."""
    keys = request.query.get("key", [])
    if len(keys) > MAX_READ_KEYS:
        raise ServiceError("invalid_argument", "too many keys", details={"limit": MAX_READ_KEYS})
    for key in keys:
        check_key(key)
    return keys


# Options of the response --------------------------------------------------------------------------------------

INCREMENT: Final = Parameter(
    "increment", "The body is a number, which is added to the value or to the part at `path`.", {"type": "boolean"}
)
RAW: Final = Parameter("raw", "The body of the response is the value alone.", {"type": "boolean"})
BASE64: Final = Parameter("base64", "In JSON, a value that is bytes is shown in base64.", {"type": "boolean"})
VALUES: Final = Parameter("values", "false leaves the values out.", {"type": "boolean"})
CURRENT: Final = Parameter("current", "The error for failed checks has the current entries.", {"type": "boolean"})
PREFER: Final = Parameter("Prefer", "return=minimal leaves the value out of the response.", _STRING, "header")


def flag_of(request: Request, name: str, *, default: bool) -> bool:
    """A boolean parameter: `?raw`, `?raw=true`, `?values=false`."""
    sent = request.query.get(name)
    if sent is None:
        return default
    if sent[0] in ("", "true", "1"):
        return True
    if sent[0] in ("false", "0"):
        return False
    raise ServiceError("invalid_argument", f"{name} is true or false")


def raw_tag(request: Request) -> bytes:
    """The suffix that `raw` adds to an ETag; empty without `raw`."""
    return b"-raw" if flag_of(request, "raw", default=False) else b""


def wants_minimal(request: Request) -> bool:
    prefer = request.headers.get(b"prefer")
    return prefer is not None and prefers_minimal(prefer)
