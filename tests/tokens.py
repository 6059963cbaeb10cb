"""Tokens for tests: claims, keys, signatures, and a verifier whose clock stands still."""

import base64
import hashlib
import hmac
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from leasehold.access.token_keys import VerificationKey
from leasehold.access.token_verification import Verifier
from leasehold.errors import ServiceError

PRIVATE_KEYS: dict[str, Any] = {
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "RS256": rsa.generate_private_key(65_537, 2_048),
}
NOW = 1_800_000_000.0
SECRET = b"0123456789abcdef0123456789abcdef"
OTHER_SECRET = b"x" * 32
CLAIMS = {"sub": "ann", "exp": NOW + 60, "permissions": ["read", "write"]}
REFUSED = ("unauthenticated", "a valid bearer token is needed", {"WWW-Authenticate": "Bearer"})


class Clock:
    """A clock that stands still until a test sets `now`."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def verifier(key: bytes | VerificationKey = SECRET, **options: Any) -> Verifier:
    if isinstance(key, bytes):
        key = VerificationKey("HS256", key)
    return Verifier([key], **({"now": Clock()} | options))


def token(claims: Any = CLAIMS, **header: Any) -> str:
    return signed(json.dumps(claims).encode(), **header)


def segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(claims: bytes, *, secret: bytes = SECRET, raw_header: bytes | None = None, **header: Any) -> str:
    """A token with a correct HS256 signature over these claims and this header, even malformed ones."""
    head = json.dumps({"alg": "HS256", "typ": "JWT"} | header).encode() if raw_header is None else raw_header
    text = f"{segment(head)}.{segment(claims)}"
    return f"{text}.{segment(hmac.digest(secret, text.encode(), hashlib.sha256))}"


def fault(authorization: bytes | None, checked_by: Verifier | None = None) -> Any:
    """The error for an Authorization header as (code, message, headers), or the principal if it is accepted."""
    try:
        return (checked_by or verifier()).verify(authorization)
    except ServiceError as error:
        return error.code, error.message, error.headers


def bearer(text: str) -> bytes:
    return b"Bearer " + text.encode()


def public_pem(private: Any) -> bytes:
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert isinstance(pem, bytes)
    return pem


def private_pem(private: Any) -> bytes:
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert isinstance(pem, bytes)
    return pem
