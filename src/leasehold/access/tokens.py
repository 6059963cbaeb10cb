"""Bearer tokens: made, verified, and what their bearer may do.

A token is a JWT (RFC 7519), signed with one algorithm for each key, fixed by the kind of key: HS256 for a secret,
EdDSA, ES256 or RS256 for a public key. What a token's own header asks for is never followed. Any fault of a token is
the same `unauthenticated`; a good token without the right is `forbidden`. Which fault it was is for the log alone.

There may be several keys, while one takes the place of another: a token is good if one of them verifies it.
"""

import math
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import HMACAlgorithm

from leasehold.errors import ServiceError, unavailable
from leasehold.limits import MAX_CACHED_TOKENS, MAX_TOKEN_BYTES, MIN_RSA_BITS, MIN_SECRET_BYTES

Permission = Literal["read", "write", "admin"]
PERMISSIONS: Final[tuple[Permission, ...]] = ("read", "write", "admin")
"""`admin`: end the leases of others."""
MAX_AUTHORIZATION_BYTES: Final = len("Bearer ") + MAX_TOKEN_BYTES
MAX_EXPIRY_SECONDS: Final = 2.0**53
FORBIDDEN_HEADERS: Final = ("crit", "jku", "jwk", "x5u", "x5c")
"""Header members by which a token would choose how, or with which key, it is verified."""


class Principal(msgspec.Struct, frozen=True):
    """Who asks, and what they may do. `prefixes`: only keys and locks that begin with one of them; None: all."""

    subject: str
    permissions: frozenset[Permission]
    prefixes: tuple[str, ...] | None = None
    expires_at: float = math.inf
    """Seconds since the epoch."""

    def covers(self, name: str) -> bool:
        return self.prefixes is None or name.startswith(self.prefixes)

    def permit(self, permission: Permission) -> None:
        """Raise `forbidden` unless the token has the permission."""
        if permission not in self.permissions:
            raise lacks(permission)

    def require(self, name: str) -> None:
        """Raise `forbidden` unless the key or lock is covered."""
        if not self.covers(name):
            raise forbidden("the token does not cover this key", reason="not covered by the prefixes")

    def within(self, prefix: str) -> tuple[str, ...]:
        """The prefixes, ascending and apart from one another, of all names that begin with `prefix` and are covered."""
        if self.covers(prefix):
            return (prefix,)
        narrower = sorted(name for name in set(self.prefixes or ()) if name.startswith(prefix))
        apart: list[str] = []
        for name in narrower:
            if not apart or not name.startswith(apart[-1]):
                apart.append(name)
        return tuple(apart)


ANYONE: Final = Principal("", frozenset(PERMISSIONS))
"""The bearer of nothing, where the service runs open."""


class VerificationKey(msgspec.Struct, frozen=True):
    """A key and the one algorithm that goes with it."""

    algorithm: Literal["HS256", "EdDSA", "ES256", "RS256"]
    key: bytes | Ed25519PublicKey | EllipticCurvePublicKey | RSAPublicKey


def load_secret(path: Path) -> bytes:
    """The HS256 secret in a file, without the line break at its end. Raises `unavailable`."""
    secret = _read(path, "the secret's file").rstrip(b"\r\n")
    if len(secret) < MIN_SECRET_BYTES:
        raise unavailable(f"the secret must have at least {MIN_SECRET_BYTES} bytes")
    try:
        HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)
    except jwt.InvalidKeyError as error:
        raise unavailable("the secret is a public or private key; give random bytes") from error
    return secret


def secret_key(path: Path) -> VerificationKey:
    return VerificationKey("HS256", load_secret(path))


def public_key(path: Path) -> VerificationKey:
    """The public key in a PEM file: Ed25519, EC P-256, or RSA. Raises `unavailable`."""
    try:
        key = load_pem_public_key(_read(path, "the public key's file"))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise unavailable("the public key's file has no public key in PEM") from error
    if isinstance(key, Ed25519PublicKey):
        return VerificationKey("EdDSA", key)
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return VerificationKey("ES256", key)
    if isinstance(key, RSAPublicKey) and key.key_size >= MIN_RSA_BITS:
        return VerificationKey("RS256", key)
    raise unavailable(f"the public key must be Ed25519, EC P-256, or RSA of {MIN_RSA_BITS} bits")


def is_exposed(path: Path) -> bool:
    """Whether others than its owner may read or change a file."""
    try:
        return bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH))
    except OSError:
        return False  # whoever reads it tells why it cannot


def _read(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise unavailable(f"{name} cannot be read: {error.strerror}") from error


def mint(
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
    """A token signed with HS256. `prefixes`: None for all keys.

    Raises `invalid_argument` for what would never verify.
    """
    for permission in permissions:
        if permission not in PERMISSIONS:
            raise ServiceError("invalid_argument", f"permission {permission!r} is none of {', '.join(PERMISSIONS)}")
    for name, text in (("subject", subject), *(("prefix", prefix) for prefix in prefixes or ())):
        if not _is_name(text):
            raise ServiceError("invalid_argument", f"{name} {text!r} is empty or no text")
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


def _is_name(text: str) -> bool:
    """Not empty, and Unicode that every engine can keep."""
    return text != "" and not any("\ud800" <= character <= "\udfff" or character == "\0" for character in text)


_OF_ANOTHER_KEY: Final = (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError, jwt.InvalidKeyError)
"""What PyJWT raises for a token that this key did not sign; another key may have."""


class Verifier:
    """Verifies tokens against the keys. A verified token is remembered by its whole text, never past its `exp`.

    `leeway_seconds`: how much before its `nbf` a token is taken, `expiry_leeway_seconds`: how much after its `exp`, for
    clocks that differ (RFC 7519, sections 4.1.4 and 4.1.5). An `iat` is no condition (section 4.1.6), whatever it is.
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
        self._now = now
        self._verified: dict[bytes, Principal] = {}

    def verify(self, authorization: bytes | None) -> Principal:
        """The principal of an Authorization header. Raises `unauthenticated`, the same for every fault."""
        principal = self._verified.get(authorization or b"")
        if principal is not None and self._now() < principal.expires_at:
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
            raise unauthenticated("malformed")  # padding, which JWS leaves out (RFC 7515, section 2); PyJWT takes it
        try:
            if any(name in jwt.get_unverified_header(token) for name in FORBIDDEN_HEADERS):
                raise unauthenticated("malformed")
            return self._principal(self._claims(token))
        except (jwt.InvalidIssuerError, jwt.InvalidAudienceError) as error:
            raise unauthenticated("wrong issuer or audience") from error
        except jwt.MissingRequiredClaimError as error:
            raise unauthenticated("wrong claims") from error
        except _OF_ANOTHER_KEY as error:
            raise unauthenticated("signed with another key") from error
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise unauthenticated("malformed") from error

    def _claims(self, token: bytes) -> dict[str, Any]:
        """The claims, verified by one of the keys. Raises what PyJWT raises; of several keys, for the last one."""
        *others, last = self._keys
        for key in others:
            with suppress(*_OF_ANOTHER_KEY):
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
                # Times are checked by `_principal`, against a clock that is an argument.
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
        now = self._now()
        if not abs(checked.exp) <= MAX_EXPIRY_SECONDS:  # also refuses NaN, infinity, and integers that no float holds
            raise unauthenticated("wrong claims")
        expires_at = checked.exp + self._expiry_leeway_seconds
        if not now < expires_at:
            raise unauthenticated("expired")
        if checked.nbf is not None and not checked.nbf <= now + self._leeway_seconds:
            raise unauthenticated("not valid yet")
        if not all(map(_is_name, (checked.sub, *(checked.prefixes or ())))):
            raise unauthenticated("wrong claims")
        prefixes = None if checked.prefixes is None else tuple(checked.prefixes)
        return Principal(checked.sub, frozenset(checked.permissions), prefixes, expires_at)


class _Claims(msgspec.Struct):
    """The claims that count, and their types; booleans are no numbers here."""

    exp: int | float
    sub: str
    permissions: list[Permission] = []
    prefixes: list[str] | None = None
    nbf: int | float | None = None
    iat: int | float | None = None


def unauthenticated(reason: str) -> ServiceError:
    """The same for every fault. `reason` is for the log."""
    return ServiceError(
        "unauthenticated", "a valid bearer token is needed", headers={"WWW-Authenticate": "Bearer"}, reason=reason
    )


def lacks(permission: Permission) -> ServiceError:
    return forbidden(f"the token lacks the permission {permission}", reason=f"no permission to {permission}")


def forbidden(message: str, *, reason: str) -> ServiceError:
    return ServiceError("forbidden", message, reason=reason)
