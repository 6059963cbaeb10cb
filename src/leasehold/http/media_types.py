"""Media types: the representations of responses, and the Content-Type of a request's body."""

from collections.abc import Mapping
from enum import Enum
from functools import lru_cache
from typing import Final

from leasehold.errors import ServiceError


class Media(Enum):
    """A representation of a response. `tag`: the suffix of its ETags, which differ between representations."""

    JSON = ("application/json", b"")
    MESSAGEPACK = ("application/vnd.msgpack", b"-msgpack")
    NDJSON = ("application/x-ndjson", b"-ndjson")
    EVENTS = ("text/event-stream", b"-events")
    PROMETHEUS = ("text/plain", b"", "; version=0.0.4; charset=utf-8")

    def __init__(self, content_type: str, tag: bytes, parameters: str = "") -> None:
        self.content_type = content_type
        self.line = (content_type + parameters).encode()
        self.tag = tag


JSON_FIRST: Final = (Media.JSON, Media.MESSAGEPACK)
"""What nearly all routes offer."""
MERGE_PATCH: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"
ACCEPT: Final = {"Accept": f"{Media.JSON.content_type}, {Media.MESSAGEPACK.content_type}"}
ACCEPT_PATCH: Final = {"Accept-Patch": f"{MERGE_PATCH}, {JSON_PATCH}"}
ALIASES: Final = dict.fromkeys(("application/msgpack", "application/x-msgpack"), Media.MESSAGEPACK.content_type)
"""Other names of MessagePack, accepted in requests. Responses have the registered name."""


def content_type(headers: Mapping[bytes, bytes], accepted: Mapping[str, str] = ACCEPT) -> str:
    """The media type of the body, in lower case, without parameters; "" if the header is missing.

    Raises `unsupported_media_type` for a charset other than UTF-8 and for a compressed body. `accepted`: the header of
    that error which lists the accepted types (RFC 9110, section 15.5.16).
    """
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise ServiceError(
            "unsupported_media_type",
            "compressed bodies are not supported",
            headers={**accepted, "Accept-Encoding": "identity"},
        )
    sent = headers.get(b"content-type")
    if sent is None:
        return ""
    name, is_utf8 = _parsed_content_type(sent)
    if not is_utf8:
        raise ServiceError("unsupported_media_type", "the charset must be UTF-8", headers=accepted)
    return name


@lru_cache(maxsize=256)
def _parsed_content_type(sent: bytes) -> tuple[str, bool]:
    """The name, and whether the charset is UTF-8."""
    name, *parameters = (part.strip().lower() for part in sent.decode("latin-1").split(";"))
    charsets = [each[8:].strip('"') for each in parameters if each.startswith("charset=")]
    return ALIASES.get(name, name), all(charset in ("utf-8", "utf8", "us-ascii") for charset in charsets)
