"""The secret that signs and verifies HS256 tokens, loaded from a file.

`leasehold token` needs only this module. PyJWT and cryptography, which it does not import, take 60 ms.
"""

import re
import stat
from pathlib import Path
from typing import Final

from leasehold.errors import unavailable
from leasehold.limits import MIN_SECRET_BYTES

_PLAIN_TEXT: Final = re.compile(rb"[A-Za-z0-9+/=_-]+")
"""Hexadecimal, base64 and base64url: how commands print random bytes."""


def load_secret(path: Path) -> bytes:
    """The HS256 secret in a file, without the line break at its end. Raises `unavailable`."""
    secret = read_key_file(path, "the secret's file").rstrip(b"\r\n")
    if len(secret) < MIN_SECRET_BYTES:
        raise unavailable(f"the secret must have at least {MIN_SECRET_BYTES} bytes")
    if not is_unambiguous_secret(secret):
        _refuse_other_keys(secret)
    return secret


def is_unambiguous_secret(secret: bytes) -> bool:
    """Whether the text can only be a secret, and no public or private key.

    PEM and JWK have spaces, quotes or braces, and DER has control bytes.
    """
    return _PLAIN_TEXT.fullmatch(secret) is not None and not secret.startswith((b"ssh-", b"ecdsa-"))


def _refuse_other_keys(key: bytes) -> None:
    """Raise `unavailable` for a key that PyJWT would refuse at each verification, by the rule of PyJWT itself."""
    import jwt
    from jwt.algorithms import HMACAlgorithm

    try:
        HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(key)
    except jwt.InvalidKeyError as error:
        raise unavailable("the secret is a public or private key; use random bytes") from error


def read_key_file(path: Path, name: str) -> bytes:
    """The content of a file. Raises `unavailable`. `name`: what the file is, for the message."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise unavailable(f"{name} cannot be read: {error.strerror}") from error


def is_exposed(path: Path) -> bool:
    """Whether users other than the owner may read or change the file."""
    try:
        return bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH))
    except OSError:
        return False  # reading the file reports the error
