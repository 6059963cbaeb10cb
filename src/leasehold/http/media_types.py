"""Media types: the representations of responses, and the Content-Type of a request's body."""

from collections.abc import Mapping, Sequence
from enum import Enum
from functools import lru_cache
from typing import Final

from leasehold import values
from leasehold.errors import ServiceError


class Media(Enum):
    """A representation of a response. `tag`: the suffix of its ETags, which differ between representations."""

    JSON = ("application/json", b"")
    MESSAGEPACK = ("application/vnd.msgpack", b"-msgpack")
    NDJSON = ("application/x-ndjson", b"-ndjson")
    EVENTS = ("text/event-stream", b"-events")
    PROMETHEUS = ("text/plain", b"", "; version=0.0.4; charset=utf-8")
    BYTES = ("application/octet-stream", b"-bytes")
    """A value that is bytes, as they are. The response has the media type of the value instead of this one."""

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


DEFAULT_BINARY_TYPES: Final = ("application/octet-stream", "image/*", "application/pdf", "text/plain")
"""Bodies of these types are stored as bytes."""


def content_type(headers: Mapping[bytes, bytes], accepted: Mapping[str, str] = ACCEPT) -> str:
    """The media type of the body, in lower case, without parameters; "" if the header is missing.

    Raises `unsupported_media_type` for a charset other than UTF-8 and for a compressed body. `accepted`: the header of
    that error which lists the accepted types (RFC 9110, section 15.5.16).
    """
    _refuse_compressed(headers, accepted)
    sent = headers.get(b"content-type")
    if sent is None:
        return ""
    name, is_utf8 = _parsed_content_type(sent)
    if not is_utf8:
        raise ServiceError("unsupported_media_type", "the charset must be UTF-8", headers=accepted)
    return name


def binary_type(headers: Mapping[bytes, bytes], allowed: Sequence[str]) -> str | None:
    """The media type of a body that is stored as bytes, with its parameters; None for any other body.

    `allowed`: types and ranges (`image/*`) in lower case. Raises `unsupported_media_type` for a compressed body.
    """
    sent = headers.get(b"content-type")
    media = None if sent is None else _parsed_binary_type(sent, tuple(allowed))
    if media is None:
        return None
    _refuse_compressed(headers, {"Accept": accepted_types(allowed)})
    return media


@lru_cache(maxsize=256)
def _parsed_binary_type(sent: bytes, allowed: tuple[str, ...]) -> str | None:
    media = values.parse_media_type(sent.decode("latin-1").strip())
    return media if media is not None and is_allowed(media, allowed) else None


def is_allowed(media: str, allowed: Sequence[str]) -> bool:
    """Whether bytes of this media type are stored. JSON and MessagePack are not, because they are read as values."""
    name = values.type_of(media)
    if name in _READ_AS_VALUES or name.endswith(("+json", "+msgpack")):
        return False
    return name in allowed or f"{name.partition('/')[0]}/*" in allowed or "*/*" in allowed


_READ_AS_VALUES: Final = frozenset(
    (
        Media.JSON.content_type,
        "text/json",
        "application/x-www-form-urlencoded",
        Media.MESSAGEPACK.content_type,
        *ALIASES,
    )
)


def parse_binary_types(setting: str) -> tuple[str, ...]:
    """The media types of a setting: types and ranges (`image/*`), separated by commas, or `none`.

    Raises `invalid_argument`.
    """
    if setting.strip() == "none":
        return ()
    allowed = tuple(text.strip().lower() for text in setting.split(",") if text.strip())
    for name in allowed:
        example = f"{name[:-1]}x" if name.endswith("/*") else name
        if name != "*/*" and (";" in name or values.parse_media_type(example) is None):
            raise ServiceError("invalid_argument", f"{name[:64]!r} is not a media type, nor a range like image/*")
        if name in _READ_AS_VALUES or name.endswith(("+json", "+msgpack")):
            raise ServiceError("invalid_argument", f"{name[:64]!r} cannot be stored as bytes")
    return allowed


def accepted_types(allowed: Sequence[str]) -> str:
    """The types of bodies that a write accepts, for the header `Accept`."""
    return ", ".join((ACCEPT["Accept"], *allowed))


def _refuse_compressed(headers: Mapping[bytes, bytes], accepted: Mapping[str, str]) -> None:
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise ServiceError(
            "unsupported_media_type",
            "compressed bodies are not supported",
            headers={**accepted, "Accept-Encoding": "identity"},
        )


@lru_cache(maxsize=256)
def _parsed_content_type(sent: bytes) -> tuple[str, bool]:
    """The name, and whether the charset is UTF-8."""
    name, *parameters = (part.strip().lower() for part in sent.decode("latin-1").split(";"))
    charsets = [each[8:].strip('"') for each in parameters if each.startswith("charset=")]
    return ALIASES.get(name, name), all(charset in ("utf-8", "utf8", "us-ascii") for charset in charsets)
