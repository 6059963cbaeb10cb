"""Content negotiation: which representation an Accept header selects, and what a Prefer header asks for."""

import re
from collections.abc import Iterable, Sequence
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
    best = _best(accept, tuple(media.content_type for media in offered))
    if best is None:
        raise not_acceptable(media.content_type for media in offered)
    return offered[best]


@lru_cache(maxsize=256)
def negotiate_bytes(accept: bytes | None, name: str, offered: tuple[Media, ...]) -> Media | None:
    """As `negotiate`, for a value that is bytes: also BYTES, which comes first of several equals. None: none of them.

    `name`: the media type of the bytes, without parameters.
    """
    best = _best(accept, (name, *(media.content_type for media in offered)))
    return None if best is None else (Media.BYTES, *offered)[best]


def negotiate_or_bytes(accept: bytes | None, offered: tuple[Media, ...]) -> Media:
    """As `negotiate`; BYTES instead of an error, because the value may be bytes of a type that the client accepts."""
    try:
        return negotiate(accept, offered)
    except ServiceError:
        return Media.BYTES


def not_acceptable(names: Iterable[str]) -> ServiceError:
    return ServiceError("not_acceptable", f"available media types: {', '.join(names)}")


def _best(accept: bytes | None, names: Sequence[str]) -> int | None:
    """The index of the name with the highest quality; None if all have the quality 0."""
    if accept is None or not accept.strip():
        return 0
    ranges = [_media_range(text) for text in accept.decode("latin-1").split(",") if text.strip()]
    qualities = [_quality(name, ranges) for name in names]
    best = max(qualities)
    return qualities.index(best) if best else None


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
