"""Keys of tokens, loaded from files: which algorithm each kind of key verifies, and which files are refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import HMACAlgorithm
from tokens import (
    CLAIMS,
    PRIVATE_KEYS,
    REFUSED,
    SECRET,
    bearer,
    fault,
    private_pem,
    public_pem,
    segment,
    signed,
    verifier,
)

from leasehold.access.public_keys import public_key
from leasehold.access.token_keys import VerificationKey, secret_key
from leasehold.access.token_secret import is_unambiguous_secret, load_secret
from leasehold.errors import ServiceError


@pytest.fixture
def pem_file(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(content: bytes) -> Path:
        path = tmp_path / "key.pem"
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize("algorithm", PRIVATE_KEYS)
def test_a_public_key_verifies_with_the_algorithm_of_its_kind(
    pem_file: Callable[[bytes], Path], algorithm: str
) -> None:
    private = PRIVATE_KEYS[algorithm]
    key = public_key(pem_file(public_pem(private)))
    made = jwt.encode(CLAIMS, private, algorithm=algorithm)
    assert (key.algorithm, verifier(key).verify(bearer(made)).subject) == (algorithm, "ann")


@pytest.mark.parametrize("algorithm", PRIVATE_KEYS)
@pytest.mark.parametrize("claimed", ["HS256", "HS384", "HS512"])
def test_a_token_signed_with_the_text_of_the_public_key_is_refused(
    pem_file: Callable[[bytes], Path], algorithm: str, claimed: str
) -> None:
    pem = public_pem(PRIVATE_KEYS[algorithm])
    key = public_key(pem_file(pem))
    forged = [signed(json.dumps(CLAIMS).encode(), secret=text, alg=claimed) for text in (pem, pem.strip())]
    assert [fault(bearer(made), verifier(key)) for made in forged] == [REFUSED] * 2


@pytest.mark.parametrize("algorithm", PRIVATE_KEYS)
def test_a_token_signed_with_another_key_of_the_same_kind_is_refused(
    pem_file: Callable[[bytes], Path], algorithm: str
) -> None:
    others: dict[str, Any] = {
        "EdDSA": ed25519.Ed25519PrivateKey.generate(),
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "RS256": rsa.generate_private_key(65_537, 2_048),
    }
    key = public_key(pem_file(public_pem(PRIVATE_KEYS[algorithm])))
    assert fault(bearer(jwt.encode(CLAIMS, others[algorithm], algorithm=algorithm)), verifier(key)) == REFUSED


@pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS256"])
def test_a_token_signed_by_the_right_key_with_another_algorithm_is_refused(
    pem_file: Callable[[bytes], Path], algorithm: str
) -> None:
    private = PRIVATE_KEYS["RS256"]
    key = public_key(pem_file(public_pem(private)))
    assert fault(bearer(jwt.encode(CLAIMS, private, algorithm=algorithm)), verifier(key)) == REFUSED


@pytest.mark.parametrize("algorithm", PRIVATE_KEYS)
def test_a_token_signed_with_a_private_key_is_refused_by_a_secret(algorithm: str) -> None:
    assert fault(bearer(jwt.encode(CLAIMS, PRIVATE_KEYS[algorithm], algorithm=algorithm))) == REFUSED


WRONG_PUBLIC_KEYS: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "noise": lambda: b"\xff\x00" * 100,
    "a secret": lambda: SECRET,
    "half of a key": lambda: public_pem(PRIVATE_KEYS["RS256"])[:200],
    "no key inside": lambda: b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    "a private key": lambda: private_pem(PRIVATE_KEYS["EdDSA"]),
    "RSA of 1024 bits": lambda: public_pem(rsa.generate_private_key(65_537, 1_024)),
    "EC P-384": lambda: public_pem(ec.generate_private_key(ec.SECP384R1())),
    "EC secp256k1": lambda: public_pem(ec.generate_private_key(ec.SECP256K1())),
    "Ed448": lambda: public_pem(ed448.Ed448PrivateKey.generate()),
    "an unknown algorithm": lambda: (
        b"-----BEGIN PUBLIC KEY-----\nMBIwCwYJKwYBBAGC3AwBAwMA/////w==\n-----END PUBLIC KEY-----\n"
    ),
}


@pytest.mark.parametrize("kind", WRONG_PUBLIC_KEYS)
def test_a_file_without_a_supported_public_key_is_refused(pem_file: Callable[[bytes], Path], kind: str) -> None:
    with pytest.raises(ServiceError, match=r"^the public key") as refusal:
        public_key(pem_file(WRONG_PUBLIC_KEYS[kind]()))
    assert refusal.value.code == "unavailable"


@pytest.mark.parametrize("load", [public_key, secret_key])
def test_the_error_for_an_unreadable_key_file_does_not_show_its_path(
    tmp_path: Path, load: Callable[[Path], VerificationKey]
) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(ServiceError, match="cannot be read") as refusal:
            load(path)
        assert str(tmp_path) not in refusal.value.message


# Secrets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n", b"\n\n"])
def test_the_line_break_at_the_end_of_a_secret_is_removed(pem_file: Callable[[bytes], Path], ending: bytes) -> None:
    assert load_secret(pem_file(SECRET + ending)) == SECRET


@pytest.mark.parametrize("content", [b"", b"\n" * 40, SECRET[:31], SECRET[:31] + b"\r\n"])
def test_a_short_secret_is_refused(pem_file: Callable[[bytes], Path], content: bytes) -> None:
    with pytest.raises(ServiceError, match=r"^the secret must have at least 32 bytes$"):
        load_secret(pem_file(content))


def test_a_public_or_private_key_in_place_of_a_secret_is_refused(pem_file: Callable[[bytes], Path]) -> None:
    jwk = json.dumps({"kty": "oct", "k": segment(SECRET)}).encode()
    for content in (public_pem(PRIVATE_KEYS["EdDSA"]), private_pem(PRIVATE_KEYS["ES256"]), jwk):
        with pytest.raises(ServiceError, match=r"^the secret is a public or private key"):
            load_secret(pem_file(content))


@pytest.mark.parametrize("prefix", [b"ssh-ed25519", b"ssh-rsa", b"ecdsa-sha2-nistp256", b""])
@given(secret=st.from_regex(rb"[ -~]{0,3}[A-Za-z0-9+/=_-]{32,40}", fullmatch=True) | st.binary(min_size=32))
def test_what_is_taken_for_a_secret_at_once_is_one_for_pyjwt(prefix: bytes, secret: bytes) -> None:
    key = prefix + secret
    if is_unambiguous_secret(key):
        assert HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(key) == key


@pytest.mark.parametrize("algorithm", PRIVATE_KEYS)
def test_no_key_of_another_kind_is_taken_for_a_secret_at_once(algorithm: str) -> None:
    public = PRIVATE_KEYS[algorithm].public_key()
    for encoding, style in (
        (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        (Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        (Encoding.OpenSSH, PublicFormat.OpenSSH),
    ):
        assert not is_unambiguous_secret(public.public_bytes(encoding, style))
