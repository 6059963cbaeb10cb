"""Verifying bearer tokens: JWTs (RFC 7519).

The algorithm is fixed by the key. What the token's own header asks for is never followed. Every fault of a token gives
the same error, `unauthenticated`; only the log says which fault it was.

There may be several keys, so that keys can be rotated. A token is valid if one of them verifies it.
"""

from base64 import urlsafe_b64decode
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import jwt
import msgspec

from leasehold.access.authorization import unauthenticated
from leasehold.access.permissions import Permission, Principal, is_valid_name
from leasehold.access.token_keys import VerificationKey
from leasehold.limits import MAX_CACHED_TOKENS, MAX_TOKEN_BYTES
from leasehold.namespaces import ALL_NAMESPACES, DEFAULT_NAMESPACE, is_valid_namespace

MAX_AUTHORIZATION_BYTES: Final = len("Bearer ") + MAX_TOKEN_BYTES
MAX_TOKEN_CONTAINERS: Final = 200
"""Lists and objects in the header of a token, and as many in its claims."""
MAX_EXPIRY_SECONDS: Final = 2.0**53
"""The largest `exp` that is accepted: up to it, a float holds every integer."""
FORBIDDEN_HEADERS: Final = ("crit", "jku", "jwk", "x5u", "x5c")
"""Header members by which a token would choose its own key or the way it is verified."""

_SIGNED_WITH_ANOTHER_KEY: Final = (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError, jwt.InvalidKeyError)
"""PyJWT's errors for a token that this key did not sign, but another key may have signed."""


def _has_many_containers(token: bytes) -> bool:
    """Which nesting Python's decoder refuses depends on its version, so what could nest deeply is refused before."""
    texts = [urlsafe_b64decode(part + b"==") for part in token.split(b".")[:2]]
    return any(text.count(b"[") + text.count(b"{") > MAX_TOKEN_CONTAINERS for text in texts)


class Verifier:
    """Verifies tokens against the keys, and caches the principals of verified tokens until their `exp`.

    Its keys never change: to replace them, give `Admission` another verifier.

    `leeway_seconds`: how long before its `nbf` a token is accepted. `expiry_leeway_seconds`: how long after its `exp`.
    Both are for clocks that differ (RFC 7519, sections 4.1.4 and 4.1.5). The value of `iat` is not checked (section
    4.1.6).
    """

    def __init__(
        self,
        keys: Sequence[VerificationKey],
        *,
        issuer: str | None = None,
        audience: str | None = None,
        leeway_seconds: float = 0.0,
        expiry_leeway_seconds: float = 0.0,
        now: Callable[[], float],
    ) -> None:
        self._keys = tuple(keys)
        self._leeway_seconds = leeway_seconds
        self._expiry_leeway_seconds = expiry_leeway_seconds
        self._issuer = issuer
        self._audience = audience
        self.now = now
        self._verified: Final[dict[bytes, Principal]] = {}
        """The cache, by Authorization header."""

    def verify(self, authorization: bytes | None) -> Principal:
        """The principal of an Authorization header. Raises `unauthenticated`, the same error for every fault."""
        principal = self._verified.get(authorization or b"")
        if principal is not None and self.now() < principal.expires_at:
            return principal
        if authorization is None:
            raise unauthenticated("no token")
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() != b"bearer" or len(authorization) > MAX_AUTHORIZATION_BYTES:
            raise unauthenticated("malformed")
        principal = self._decode(token.strip())
        if len(self._verified) >= MAX_CACHED_TOKENS:
            self._verified.clear()
        self._verified[authorization] = principal
        return principal

    def _decode(self, token: bytes) -> Principal:
        if b"=" in token:
            raise unauthenticated("malformed")  # JWS has no padding (RFC 7515, section 2); PyJWT accepts it
        try:
            if _has_many_containers(token):
                raise unauthenticated("malformed")
            if any(name in jwt.get_unverified_header(token) for name in FORBIDDEN_HEADERS):
                raise unauthenticated("malformed")
            return self._principal(self._claims(token))
        except (jwt.InvalidIssuerError, jwt.InvalidAudienceError) as error:
            raise unauthenticated("wrong issuer or audience") from error
        except jwt.MissingRequiredClaimError as error:
            raise unauthenticated("wrong claims") from error
        except _SIGNED_WITH_ANOTHER_KEY as error:
            raise unauthenticated("signed with another key") from error
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise unauthenticated("malformed") from error

    def _claims(self, token: bytes) -> dict[str, Any]:
        """The claims, verified by one of the keys. If no key verifies them, raises PyJWT's error for the last key."""
        *others, last = self._keys
        for key in others:
            with suppress(*_SIGNED_WITH_ANOTHER_KEY):
                return self._claims_by(key, token)
        return self._claims_by(last, token)

    def _claims_by(self, key: VerificationKey, token: bytes) -> dict[str, Any]:
        return jwt.decode(
            token,
            key.key,
            algorithms=[key.algorithm],
            audience=self._audience,
            issuer=self._issuer,
            options={
                "require": ["exp", "sub"],
                "verify_aud": self._audience is not None,
                # `_principal` checks the times, because PyJWT cannot be given a clock.
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
            },
        )

    def _principal(self, claims: dict[str, Any]) -> Principal:
        try:
            checked = msgspec.convert(claims, _Claims)
        except (msgspec.ValidationError, RecursionError) as error:
            raise unauthenticated("wrong claims") from error
        now = self.now()
        if not abs(checked.exp) <= MAX_EXPIRY_SECONDS:  # refuses NaN, infinity, and integers above a float, too
            raise unauthenticated("wrong claims")
        expires_at = checked.exp + self._expiry_leeway_seconds
        if not now < expires_at:
            raise unauthenticated("expired")
        if checked.nbf is not None and not checked.nbf <= now + self._leeway_seconds:
            raise unauthenticated("not valid yet")
        if not all(map(is_valid_name, (checked.sub, *(checked.prefixes or ())))):
            raise unauthenticated("wrong claims")
        prefixes = None if checked.prefixes is None else tuple(checked.prefixes)
        named = [DEFAULT_NAMESPACE] if checked.namespaces is None else checked.namespaces
        namespaces = None if ALL_NAMESPACES in named else frozenset(named)
        if not all(map(is_valid_namespace, namespaces or ())):
            raise unauthenticated("wrong claims")
        return Principal(checked.sub, frozenset(checked.permissions), prefixes, expires_at, namespaces)


class _Claims(msgspec.Struct):
    """The claims that are read, and their types. msgspec takes no boolean for a number."""

    exp: int | float
    sub: str
    permissions: list[Permission] = []
    prefixes: list[str] | None = None
    namespaces: list[str] | None = None
    nbf: int | float | None = None
    iat: int | float | None = None
