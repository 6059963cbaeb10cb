"""What is wrong with the head of a request, and the refusals of requests that break the protocol or a limit. Pure."""

import re
from collections.abc import Mapping
from typing import Final

from leasehold.errors import ServiceError
from leasehold.limits import Limits

_METHOD: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
REQUEST_LINE: Final = re.compile(_METHOD + rb" [^\x00- \x7f]+ HTTP/[0-9]\.[0-9]\r\n")
"""RFC 9112, section 3: single spaces, no white space in the target, and this protocol."""
BEGUN_LINE: Final = re.compile(_METHOD + rb"(?: (?:[^\x00- \x7f]+(?: (?:H(?:T(?:T(?:P(?:/[0-9.]*\r?)?)?)?)?)?)?)?)?")
"""The beginning of a request line."""
_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._~!$&'()*+,;=%-]*)(?::[0-9]*)?")
"""RFC 9110, section 7.2: a host and a port, without a user and without a path."""

SINGLE: Final = frozenset({b"idempotency-key"})
"""Fields that may not be repeated, because two values joined by a comma are another valid value."""


def head_fault(
    version: str, target: bytes, headers: Mapping[bytes, bytes], hosts: int, limits: Limits
) -> ServiceError | None:
    """What is wrong with a head that llhttp accepts. `hosts`: how many Host fields it has."""
    if version == "1.1":
        if hosts != 1:
            return ServiceError("invalid_request", "a request has exactly one Host header")
    elif version != "1.0" or hosts > 1:
        return ServiceError("invalid_request", "HTTP/1.1 and HTTP/1.0 are spoken here")
    coding = headers.get(b"transfer-encoding")
    if coding is not None and (version == "1.0" or coding.lower() != b"chunked"):
        return ServiceError("invalid_request", "the only transfer coding is chunked, in HTTP/1.1")
    if not _HOST.fullmatch(headers.get(b"host", b"")):
        return ServiceError("invalid_request", "Host is a name or an address, and a port")
    if len(target) > limits.max_request_line_bytes:
        return uri_too_long(limits)
    if b"#" in target:
        return ServiceError("invalid_request", "a request target has no fragment")
    return None


def repeated(name: bytes) -> ServiceError:
    return ServiceError("invalid_request", f"a request has at most one {name.decode().title()} header")


def malformed() -> ServiceError:
    return ServiceError("invalid_request", "this is not a well-formed HTTP/1.1 request")


def headers_too_large(limits: Limits) -> ServiceError:
    return ServiceError(
        "headers_too_large",
        f"at most {limits.max_header_fields} header fields, {limits.max_header_bytes} bytes together",
        details={"limit": limits.max_header_bytes},
    )


def uri_too_long(limits: Limits) -> ServiceError:
    limit = limits.max_request_line_bytes
    return ServiceError("uri_too_long", f"the request line is longer than {limit} bytes", details={"limit": limit})


def body_too_large(limit: int) -> ServiceError:
    return ServiceError("too_large", f"the body is larger than {limit} bytes", details={"limit": limit})
