"""The keys that verify tokens: what they are, and the secret. `public_keys.py` loads the others.

Each key has one algorithm, which the kind of the key decides: HS256 for a secret, EdDSA, ES256 or RS256 for a public
key.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from leasehold.access.token_secret import load_secret

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey


class VerificationKey(msgspec.Struct, frozen=True):
    """A key and its only algorithm."""

    algorithm: Literal["HS256", "EdDSA", "ES256", "RS256"]
    key: "bytes | Ed25519PublicKey | EllipticCurvePublicKey | RSAPublicKey"


def secret_key(path: Path) -> VerificationKey:
    return VerificationKey("HS256", load_secret(path))
