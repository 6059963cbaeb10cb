"""Minted tokens: which claims they have, how long they last, and which are refused."""

import jwt
import pytest
from tokens import NOW, SECRET, bearer, verifier

from leasehold.access.permissions import Principal
from leasehold.access.token_minting import mint_token
from leasehold.errors import ServiceError


def test_a_minted_token_is_verified() -> None:
    made = mint_token(SECRET, "ann", ["read"], prefixes=["a/", "b"], now=NOW, lifetime_seconds=60)
    expected = Principal("ann", frozenset({"read"}), ("a/", "b"), NOW + 60)
    assert verifier().verify(bearer(made)) == expected


def test_a_minted_token_has_the_claims_that_were_asked_for() -> None:
    made = mint_token(SECRET, "a", ["write"], prefixes=None, now=NOW, lifetime_seconds=1, issuer="i", audience="b")
    claims = jwt.decode(made, options={"verify_signature": False})
    assert claims == {
        "sub": "a",
        "permissions": ["write"],
        "iat": int(NOW),
        "exp": int(NOW) + 1,
        "iss": "i",
        "aud": "b",
    }


def test_a_lifetime_is_rounded_up_to_whole_seconds() -> None:
    made = mint_token(SECRET, "a", ["read"], prefixes=None, now=NOW + 0.5, lifetime_seconds=10)
    assert verifier().verify(bearer(made)).expires_at == NOW + 11


def test_an_empty_list_of_prefixes_covers_no_key() -> None:
    made = mint_token(SECRET, "a", ["read"], prefixes=[], now=NOW, lifetime_seconds=10)
    assert verifier().verify(bearer(made)).prefixes == ()


@pytest.mark.parametrize(
    ("subject", "permissions", "prefixes"),
    [
        ("", ["read"], None),
        ("\ud800", ["read"], None),
        ("a", ["root"], None),
        ("a", ["Read"], None),
        ("a", ["read"], [""]),
        ("a", ["read"], ["\udfff"]),
        ("a", ["read"], ["p" * 3_000, "q" * 3_000]),
    ],
)
def test_a_token_that_would_never_verify_is_not_minted(
    subject: str, permissions: list[str], prefixes: list[str] | None
) -> None:
    with pytest.raises(ServiceError) as refusal:
        mint_token(SECRET, subject, permissions, prefixes=prefixes, now=NOW, lifetime_seconds=60)
    assert refusal.value.code == "invalid_argument"


@pytest.mark.parametrize("name", ["issuer", "audience"])
def test_a_claim_that_is_no_text_is_refused(name: str) -> None:
    with pytest.raises(ServiceError, match=f"^{name} .* is empty or not valid text$"):
        mint_token(SECRET, "a", ["read"], prefixes=None, now=NOW, lifetime_seconds=60, **{name: "\udcff"})
