"""CORS (Fetch, section 3.2): headers by which pages of allowed origins may send requests and read the responses.

`admission.py` decides which origins are allowed. The router sends the headers of a preflight.
"""

from typing import Final

EXPOSED_HEADERS: Final = (
    "ETag, Location, Retry-After, Allow, Accept-Patch, Accept-Ranges, Content-Disposition, Content-Range, "
    "Idempotent-Replayed, Preference-Applied, WWW-Authenticate, X-Request-Id"
)
"""Headers of a response that a page of an allowed origin may read, beside those that any page may read."""
_REQUEST_HEADERS: Final = (
    "Authorization, Content-Type, Idempotency-Key, If-Lease, If-Match, If-None-Match, If-Range, Last-Event-ID, Prefer, "
    "Range, X-Request-Id"
)
PREFLIGHT_HEADERS: Final = (
    ("Access-Control-Allow-Headers", _REQUEST_HEADERS),
    ("Access-Control-Max-Age", "3600"),
)
"""Of the response to a preflight, beside `Access-Control-Allow-Methods`."""


def allow_origin_lines(origin: str) -> bytes:
    """Header lines by which pages of this origin may read the response, each after a line end."""
    lines = f"\r\nAccess-Control-Allow-Origin: {origin}\r\nAccess-Control-Expose-Headers: {EXPOSED_HEADERS}"
    return lines.encode("ascii")
