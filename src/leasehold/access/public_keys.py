"""The public keys that verify tokens, loaded from files.

Only this module imports cryptography, which takes 9 MB. A service whose tokens are signed with a secret does not need
it.
"""

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from leasehold.access.token_keys import VerificationKey
from leasehold.access.token_secret import read_key_file
from leasehold.errors import unavailable
from leasehold.limits import MIN_RSA_BITS


def public_key(path: Path) -> VerificationKey:
    """The public key in a PEM file: Ed25519, EC P-256, or RSA. Raises `unavailable`."""
    try:
        key = load_pem_public_key(read_key_file(path, "the public key's file"))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise unavailable("the public key's file has no public key in PEM") from error
    if isinstance(key, Ed25519PublicKey):
        return VerificationKey("EdDSA", key)
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return VerificationKey("ES256", key)
    if isinstance(key, RSAPublicKey) and key.key_size >= MIN_RSA_BITS:
        return VerificationKey("RS256", key)
    raise unavailable(f"the public key must be Ed25519, EC P-256, or RSA of {MIN_RSA_BITS} bits")
