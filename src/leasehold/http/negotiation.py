"""Representations: what a caller accepts and prefers, and what it sent."""

import re
from collections.abc import Mapping
from enum import Enum
from functools import lru_cache
from typing import Final

from leasehold.errors import ServiceError


class Media(Enum):
    """A representation. `tag` is what sets its ETag apart from the others of the same revision."""

    JSON = ("application/json", b"")
    MESSAGEPACK = ("application/vnd.msgpack", b"-msgpack")
    NDJSON = ("application/x-ndjson", b"-ndjson")
    PROMETHEUS = ("text/plain", b"", "; version=0.0.4; charset=utf-8")

    def __init__(self, content_type: str, tag: bytes, parameters: str = "") -> None:
        self.content_type = content_type
        self.line = (content_type + parameters).encode()
        self.tag = tag


MERGE_PATCH: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"
ACCEPT: Final = {"Accept": f"{Media.JSON.content_type}, {Media.MESSAGEPACK.content_type}"}
ACCEPT_PATCH: Final = {"Accept-Patch": f"{MERGE_PATCH}, {JSON_PATCH}"}
ALIASES: Final = dict.fromkeys(("application/msgpack", "application/x-msgpack"), Media.MESSAGEPACK.content_type)
"""Other names by which MessagePack is asked for and sent. It is answered by its registered one."""


JSON_FIRST: Final = (Media.JSON, Media.MESSAGEPACK)


@lru_cache(maxsize=256)
def negotiate(accept: bytes | None, offered: tuple[Media, ...]) -> Media:
    """What an Accept header likes best of what is `offered` (RFC 9110, section 12.5.1); the first of several equals.

    Raises `not_acceptable`.
    """
    if accept is None or not accept.strip():
        return offered[0]
    ranges = [_media_range(text) for text in accept.decode("latin-1").split(",") if text.strip()]
    best = max(offered, key=lambda media: _quality(media.content_type, ranges))
    if not _quality(best.content_type, ranges):
        raise ServiceError("not_acceptable", f"offered here: {', '.join(media.content_type for media in offered)}")
    return best


def error_media(accept: bytes | None) -> Media:
    """The representation of an error: JSON also for a caller who accepts neither kind, because it must be told."""
    try:
        return negotiate(accept, JSON_FIRST)
    except ServiceError:
        return Media.JSON


def _media_range(text: str) -> tuple[str, float]:
    name, *parameters = (part.strip().lower() for part in text.split(";"))
    quality = 1.0
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                quality = float(parameter[2:])
            except ValueError:
                quality = 0.0
    return ALIASES.get(name, name), quality


def _quality(candidate: str, ranges: list[tuple[str, float]]) -> float:
    """The quality of the most specific range that names `candidate`; 0 if none does."""
    kind = candidate.partition("/")[0] + "/*"
    for name in (candidate, kind, "*/*"):
        found = [quality for range_name, quality in ranges if range_name == name]
        if found:
            return max(found)
    return 0.0


def content_type(headers: Mapping[bytes, bytes], accepted: Mapping[str, str] = ACCEPT) -> str:
    """The media type of the body, in lower case, without parameters; "" when not given.

    Raises `unsupported_media_type` for a charset other than UTF-8 and for a compressed body, with the header that says
    what is `accepted` there (RFC 9110, section 15.5.16).
    """
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise ServiceError(
            "unsupported_media_type",
            "compressed bodies are not taken",
            headers={**accepted, "Accept-Encoding": "identity"},
        )
    sent = headers.get(b"content-type")
    if sent is None:
        return ""
    name, is_utf8 = _parsed_content_type(sent)
    if not is_utf8:
        raise ServiceError("unsupported_media_type", "the charset is UTF-8", headers=accepted)
    return name


@lru_cache(maxsize=256)
def _parsed_content_type(sent: bytes) -> tuple[str, bool]:
    """The name, and whether the charset is UTF-8."""
    name, *parameters = (part.strip().lower() for part in sent.decode("latin-1").split(";"))
    charsets = [each[8:].strip('"') for each in parameters if each.startswith("charset=")]
    return ALIASES.get(name, name), all(charset in ("utf-8", "utf8", "us-ascii") for charset in charsets)


# Prefer (RFC 7240) --------------------------------------------------------------------------------------------

_PREFERENCE: Final = re.compile(rb'(?:[^",]|"(?:[^"\\]|\\.?)*+"?)++')
"""Up to a comma outside of quotes. Possessive: the time grows with the length only."""


def prefers_minimal(prefer: bytes) -> bool:
    """Whether `return=minimal` is preferred. The first `return` counts; a parameter of another preference is none."""
    for preference in _PREFERENCE.findall(prefer):
        name, _, word = preference.partition(b";")[0].partition(b"=")
        if name.strip().lower() == b"return":
            return bytes(word.strip().strip(b'"').lower()) == b"minimal"
    return False
