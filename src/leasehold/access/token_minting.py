"""Making tokens: JWTs (RFC 7519) signed with HS256. `leasehold token` uses it; the service itself never does.

Signed with the standard library, because PyJWT and cryptography take 60 ms to import.
"""

import hmac
import math
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from leasehold.access.permissions import PERMISSIONS, is_valid_name
from leasehold.errors import ServiceError
from leasehold.limits import MAX_TOKEN_BYTES
from leasehold.namespaces import ALL_NAMESPACES, check_namespace

_HEADER: Final = b'{"alg":"HS256","typ":"JWT"}'


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
    namespaces: Sequence[str] | None = None,
) -> str:
    """A token. `prefixes`: None covers all keys and locks. `namespaces`: `*` is all of them, None is `default` only.

    `now`: seconds since the epoch.

    Raises `invalid_argument` for claims that `Verifier` would refuse.
    """
    for permission in permissions:
        if permission not in PERMISSIONS:
            raise ServiceError("invalid_argument", f"permission {permission!r} is not one of {', '.join(PERMISSIONS)}")
    names = [("subject", subject), ("issuer", issuer), ("audience", audience)]
    names += [("prefix", prefix) for prefix in prefixes or ()]
    for name, text in names:
        if text is not None and not is_valid_name(text):
            raise ServiceError("invalid_argument", f"{name} {text!r} is empty or not valid text")
    for namespace in namespaces or ():
        if namespace != ALL_NAMESPACES:
            check_namespace(namespace)
    claims: dict[str, str | int | list[str]] = {
        "sub": subject,
        "permissions": list(permissions),
        "iat": int(now),
        "exp": math.ceil(now + lifetime_seconds),
    }
    optional = {
        "prefixes": None if prefixes is None else list(prefixes),
        "namespaces": None if namespaces is None else list(namespaces),
        "iss": issuer,
        "aud": audience,
    }
    claims |= {name: value for name, value in optional.items() if value is not None}
    token = _signed(claims, secret)
    if len(token) > MAX_TOKEN_BYTES:
        raise ServiceError("invalid_argument", f"a token has at most {MAX_TOKEN_BYTES} bytes: give fewer prefixes")
    return token


def _signed(claims: Mapping[str, object], secret: bytes) -> str:
    """The compact serialization (RFC 7515, section 7.1)."""
    signed = b".".join(map(_base64url, (_HEADER, msgspec.json.encode(claims))))
    return b".".join((signed, _base64url(hmac.digest(secret, signed, "sha256")))).decode()


def _base64url(data: bytes) -> bytes:
    """Without padding (RFC 7515, section 2)."""
    return urlsafe_b64encode(data).rstrip(b"=")
