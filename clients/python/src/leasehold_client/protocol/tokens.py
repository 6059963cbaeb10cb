"""When a bearer token must be replaced."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from typing import Final

from leasehold_client.values import decode_object

LONGEST_MARGIN_SECONDS: Final = 30.0
MARGIN_FRACTION: Final = 0.2


def checked(token: str) -> str:
    """The token without the white space around it. Raises ValueError, which does not contain the token."""
    text = token.strip()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("a token is text of printable ASCII characters without spaces")
    return text


def expiry_of(token: str) -> float | None:
    """The claim `exp` of a JWT: seconds since 1970. None if there is none, or the token is not a JWT.

    The signature is not checked: the service does that.
    """
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = decode_object(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return None
    expiry = claims.get("exp")
    return float(expiry) if isinstance(expiry, (int, float)) else None


def seconds_of_use(token: str, now: float) -> float | None:
    """How long the token is used: until 30 seconds or a fifth of its time before `exp`. None: until it is refused."""
    expiry = expiry_of(token)
    if expiry is None:
        return None
    lifetime = max(expiry - now, 0.0)
    return lifetime - min(LONGEST_MARGIN_SECONDS, lifetime * MARGIN_FRACTION)
