"""Making tokens: JWTs (RFC 7519) signed with HS256. `leasehold token` uses it; the service itself never does."""

import math
from collections.abc import Sequence
from typing import Any

import jwt

from leasehold.access.permissions import PERMISSIONS, is_valid_name
from leasehold.errors import ServiceError
from leasehold.limits import MAX_TOKEN_BYTES


def mint_token(
    secret: bytes,
    subject: str,
    permissions: Sequence[str],
    *,
    prefixes: Sequence[str] | None,
    now: float,
    lifetime_seconds: float,
    issuer: str | None = None,
    audience: str | None = None,
) -> str:
    """A token. `prefixes`: None covers all keys and locks. `now`: seconds since the epoch.

    Raises `invalid_argument` for claims that `Verifier` would refuse.
    """
    for permission in permissions:
        if permission not in PERMISSIONS:
            raise ServiceError("invalid_argument", f"permission {permission!r} is not one of {', '.join(PERMISSIONS)}")
    for name, text in (("subject", subject), *(("prefix", prefix) for prefix in prefixes or ())):
        if not is_valid_name(text):
            raise ServiceError("invalid_argument", f"{name} {text!r} is empty or not valid text")
    claims: dict[str, Any] = {
        "sub": subject,
        "permissions": list(permissions),
        "iat": int(now),
        "exp": math.ceil(now + lifetime_seconds),
    }
    optional = {"prefixes": None if prefixes is None else list(prefixes), "iss": issuer, "aud": audience}
    claims |= {name: value for name, value in optional.items() if value is not None}
    token = jwt.encode(claims, secret, algorithm="HS256")
    if len(token) > MAX_TOKEN_BYTES:
        raise ServiceError("invalid_argument", f"a token has at most {MAX_TOKEN_BYTES} bytes: give fewer prefixes")
    return token
