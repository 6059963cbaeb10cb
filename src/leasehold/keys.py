"""Which keys are valid. Every key from outside is checked here: from a request, or from a file that another program
wrote."""

import unicodedata
from collections.abc import Sequence
from typing import Final

from leasehold.errors import ServiceError
from leasehold.limits import MAX_KEY_BYTES

_LAST_CHARACTER: Final = "\U0010ffff"
BEHIND_ANY_KEY: Final = _LAST_CHARACTER * (MAX_KEY_BYTES // len(_LAST_CHARACTER.encode()) + 1)
"""Sorts behind all keys. So a prefix followed by it sorts behind all keys that begin with this prefix."""


def check_key(key: str) -> None:
    """Raise `invalid_key` unless `key` has 1 to MAX_KEY_BYTES bytes of UTF-8, no control characters and valid segments.

    Segments are separated by slashes. A segment must not be empty, `.` or `..`.
    """
    # The fast path for nearly all keys: printable ASCII, and no segment is empty or begins with a dot.
    if (
        key.isascii()
        and key.isprintable()
        and 0 < len(key) <= MAX_KEY_BYTES
        and key[0] not in "/."
        and key[-1] != "/"
        and ("/" not in key or ("//" not in key and "/." not in key))
    ):
        return
    _check_text(key)
    for segment in key.split("/"):
        if segment in ("", ".", ".."):
            raise ServiceError("invalid_key", "segments of a key must not be empty, '.' or '..'")


def check_keys(keys: Sequence[str]) -> None:
    """As `check_key` for each of `keys`. Takes 0.06 µs per key if all of them are plain, and 0.2 µs otherwise."""
    # Keys that are empty, or begin or end with a slash, also make `//` here.
    joined = "/".join(("", *keys, ""))
    if (
        joined.isascii()
        and joined.isprintable()
        and "//" not in joined
        and "/." not in joined
        and max(map(len, keys), default=0) <= MAX_KEY_BYTES
    ):
        return
    for key in keys:
        check_key(key)


def _check_text(key: str) -> None:
    try:
        size = len(key.encode())
    except UnicodeEncodeError as error:
        raise ServiceError("invalid_key", "a key must be valid UTF-8") from error
    if not 0 < size <= MAX_KEY_BYTES:
        raise ServiceError(
            "invalid_key", f"a key must have 1 to {MAX_KEY_BYTES} bytes", details={"limit": MAX_KEY_BYTES}
        )
    if any(unicodedata.category(character) == "Cc" for character in key):
        raise ServiceError("invalid_key", "a key must not contain control characters")
