"""JSON values and times as the service writes them. Pure functions.

Numbers are `int` or `float`, never `Decimal`: the service stores integers from -2^63 to 2^64 - 1 exactly, and other
numbers as doubles.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any, Final, Literal, TypeAlias

Json: TypeAlias = Any
"""None, bool, int, float, str, or lists and dicts of these. Only the caller knows what it has stored, and a union of
these types would ask for a cast wherever a value is used."""


class Missing(Enum):
    """A type for `MISSING`, because None is a value that a caller may give."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING
MissingType: TypeAlias = Literal[Missing.MISSING]


def encode(value: Json) -> bytes:
    """A value as compact JSON in UTF-8.

    Raises ValueError for NaN, infinities, circular values and lone surrogates, and TypeError for other types.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def decode(text: bytes) -> Json:
    """Raises ValueError if it is not JSON."""
    return json.loads(text)


def decode_object(text: bytes) -> Mapping[str, Json]:
    """Raises ValueError if it is not a JSON object."""
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def parse_time(text: str) -> datetime:
    """RFC 3339 in UTC, `2026-01-31T12:00:00.000001Z`. Python 3.10 does not know the `Z`."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def parse_optional_time(text: str | None) -> datetime | None:
    return None if text is None else parse_time(text)
