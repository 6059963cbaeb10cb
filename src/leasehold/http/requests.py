"""Requests as endpoints see them."""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote_to_bytes

import msgspec

from leasehold.access.permissions import ANYONE, Principal
from leasehold.errors import ServiceError
from leasehold.http.media_types import Media
from leasehold.model import Json, PatchStep
from leasehold.namespaces import DEFAULT_NAMESPACE
from leasehold.trace_context import TraceContext

NO_QUERY: Final[Mapping[str, list[str]]] = {}
CONTENT_RANGE: Final = b"content-range"
RANGE: Final = b"range"
OPTIONS: Final = frozenset(
    (b"if-match", b"if-none-match", b"if-lease", b"idempotency-key", b"prefer", RANGE, CONTENT_RANGE)
)
USUAL_ACCEPT: Final = frozenset((b"*/*", b"application/json"))
"""Each asks for JSON. For a value that is bytes they differ, and its endpoints look at the field themselves."""


class Headers(dict[bytes, bytes]):
    """Header fields by their names in lower case. The values of a repeated field are joined with commas.

    Requests with the same header block share one object, so it also keeps what was concluded from the fields.
    """

    __slots__ = (
        "block",
        "content_type",
        "cors_lines",
        "is_checked",
        "is_plain",
        "principal",
        "quick_writer",
        "verified_by",
    )

    def __init__(self) -> None:
        super().__init__()
        self.block = b""
        """What follows the target of a request: the version, and the header fields up to the blank line.

        Empty unless the header block is in the cache.
        """
        self.content_type: str | None = None
        """The result of `media_types.content_type`, once that was called."""
        self.is_plain = False
        """No field asks for another response than usual."""
        self.is_checked = False
        """Whether `admission` has accepted the Host and Origin fields."""
        self.principal: Principal | None = None
        """The caller that `admission` has admitted with these fields."""
        self.verified_by: object = None
        """The verifier that has verified the token of `principal`."""
        self.quick_writer: Principal | None = None
        """A caller whose writes with these fields may take the fast path (`quick_put`)."""
        self.cors_lines = b""
        """Response header lines (CORS) that let the page which sent the request read the response. Empty for others."""

    def look_for_options(self) -> None:
        """Set `is_plain`. Call it once all fields are set."""
        self.is_plain = OPTIONS.isdisjoint(self) and self.get(b"accept", b"*/*") in USUAL_ACCEPT


class Request(msgspec.Struct):
    """One complete request."""

    method: str
    path: bytes
    headers: Headers
    version: str = "1.1"
    body: bytes = b""
    keep_alive: bool = False
    request_id: bytes = b""
    query: Mapping[str, list[str]] = NO_QUERY
    refusal: ServiceError | None = None
    """Set if the request is refused before its route is looked up."""
    media: Media = Media.JSON
    """The representation of the response."""
    principal: Principal = ANYONE
    """The caller. Set once the request is admitted."""
    pattern: str = "-"
    """The pattern of its route. Set by the router; `-` without a route."""
    max_value_bytes: int | None = None
    """The largest value that it may store. Set if its body is large."""
    lane_bytes: int = 0
    """What its body takes of the budget of those in the write lane. 0 if it is small."""
    brackets: int | None = None
    """Of its body, as `brackets_at_most` counts them. Set if it is not small, and JSON."""
    fingerprint: bytes = b""
    """See `idempotency.fingerprint_steps`. Empty unless its body is large and it has an Idempotency-Key."""
    value: Json | msgspec.UnsetType = msgspec.UNSET
    """The value in its body, checked. Set if the body is large, and was read in steps."""
    patch: tuple[PatchStep, ...] | None = None
    """The JSON patch in its body, in place of `value`."""
    is_body_checked: bool = False
    """Its body, which is kept as it is, was checked in steps."""
    namespace: str = DEFAULT_NAMESPACE
    """The namespace that its path names, whether it exists or not. Set by the router."""
    argument: bytes = b""
    """The variable part of the path (a key), still percent-encoded. Set by the router."""
    trace: TraceContext | None = None
    """The trace that it belongs to."""

    @property
    def ids(self) -> dict[str, str]:
        """What its log lines and its error name: the request id, and the id of its trace if it has one."""
        own = {"request_id": self.request_id.decode("ascii")}
        return own if self.trace is None else own | {"trace_id": self.trace.trace_id}

    @property
    def log_fields(self) -> dict[str, str]:
        """The fields of its log lines: its ids, and its namespace unless that is `default`."""
        return self.ids if self.namespace is DEFAULT_NAMESPACE else self.ids | {"namespace": self.namespace}

    def take_query(self, query: bytes) -> None:
        """Set the query, or the refusal if it is malformed."""
        try:
            self.query = parse_query(query)
        except ServiceError as refusal:
            self.refusal = refusal


# Names and values in requests ----------------------------------------------------------------------------------

_PERCENT = ord("%")  # `in` finds a number in bytes faster than it finds bytes
_ESCAPE_FAULT = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def percent_decode(text: bytes) -> str:
    """Raises ValueError for an incomplete escape, and if the result is not UTF-8."""
    if _PERCENT in text:
        if _ESCAPE_FAULT.search(text):
            raise ValueError("incomplete percent escape")
        text = unquote_to_bytes(text)
    return text.decode("utf-8")


def parse_query(query: bytes) -> dict[str, list[str]]:
    """The parameters of a query, by name. `+` is a space, as forms and most clients write it.

    Raises `invalid_argument`.
    """
    parameters: dict[str, list[str]] = {}
    for field in query.split(b"&"):
        if not field:
            continue
        name, _, value = field.replace(b"+", b" ").partition(b"=")
        try:
            parameters.setdefault(percent_decode(name), []).append(percent_decode(value))
        except ValueError:
            raise ServiceError("invalid_argument", "the query is not percent-encoded UTF-8") from None
    return parameters
