"""Content negotiation: which representation an Accept header selects, and what a Prefer header asks for."""

import re
from functools import lru_cache
from typing import Final

from leasehold.errors import ServiceError
from leasehold.http.media_types import ALIASES, JSON_FIRST, Media

_PREFERENCE: Final = re.compile(rb'(?:[^",]|"(?:[^"\\]|\\.?)*+"?)++')
"""Text up to a comma outside of quotes. Possessive quantifiers keep the time linear."""


@lru_cache(maxsize=256)
def negotiate(accept: bytes | None, offered: tuple[Media, ...]) -> Media:
    """The offered representation with the highest quality in the Accept header; of several equals, the first.

    Source: RFC 9110, section 12.5.1. Raises `not_acceptable`.
    """
    if accept is None or not accept.strip():
        return offered[0]
    ranges = [_media_range(text) for text in accept.decode("latin-1").split(",") if text.strip()]
    best = max(offered, key=lambda media: _quality(media.content_type, ranges))
    if not _quality(best.content_type, ranges):
        available = ", ".join(media.content_type for media in offered)
        raise ServiceError("not_acceptable", f"available media types: {available}")
    return best


def error_media(accept: bytes | None) -> Media:
    """The representation of an error. It is JSON if the client accepts neither JSON nor MessagePack."""
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
    """The quality of the most specific range that matches `candidate`; 0 if none does."""
    kind = candidate.partition("/")[0] + "/*"
    for name in (candidate, kind, "*/*"):
        found = [quality for range_name, quality in ranges if range_name == name]
        if found:
            return max(found)
    return 0.0


def prefers_minimal(prefer: bytes) -> bool:
    """Whether a Prefer header asks for `return=minimal` (RFC 7240). The first preference `return` decides."""
    for preference in _PREFERENCE.findall(prefer):
        name, _, word = preference.partition(b";")[0].partition(b"=")
        if name.strip().lower() == b"return":
            return bytes(word.strip().strip(b'"').lower()) == b"minimal"
    return False
