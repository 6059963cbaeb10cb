"""Verification of tokens: which are accepted, and which are refused with which reason for the log."""

import json
import math
from typing import Any

import jwt
import pytest
from tokens import (
    CLAIMS,
    NOW,
    OTHER_SECRET,
    PRIVATE_KEYS,
    REFUSED,
    SECRET,
    Clock,
    bearer,
    fault,
    public_pem,
    segment,
    signed,
    token,
    verifier,
)

from leasehold.access.token_keys import VerificationKey
from leasehold.access.token_minting import mint_token
from leasehold.access.token_verification import Verifier
from leasehold.errors import ServiceError

# Accepted tokens ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_is_accepted_in_any_case(scheme: str) -> None:
    assert verifier().verify(f"{scheme} {token()}".encode()).subject == "ann"


def test_claims_that_are_not_checked_may_have_any_value() -> None:
    claims = CLAIMS | {"jti": "1", "scope": {"a": [1]}, "aud": "elsewhere", "iss": "somebody", "iat": NOW + 1e6}
    assert verifier().verify(bearer(token(claims))).subject == "ann"


def test_a_token_without_permissions_is_accepted_with_no_permission() -> None:
    assert verifier().verify(bearer(token({"sub": "a", "exp": NOW + 1}))).permissions == frozenset()


def test_a_token_with_a_kid_is_accepted() -> None:
    assert verifier().verify(bearer(token(kid="2026"))).subject == "ann"


# Several keys -------------------------------------------------------------------------------------------------

KEYS = [VerificationKey("HS256", secret) for secret in (SECRET, OTHER_SECRET, b"y" * 32)]


def several(*keys: VerificationKey, **options: Any) -> Verifier:
    return Verifier(keys, **({"now": Clock()} | options))


@pytest.mark.parametrize("secret", [SECRET, OTHER_SECRET, b"y" * 32])
def test_a_token_signed_with_any_of_the_keys_is_accepted(secret: bytes) -> None:
    own = several(*KEYS)
    made = mint_token(secret, "ann", ["read"], prefixes=None, now=NOW, lifetime_seconds=60)
    assert [own.verify(bearer(made)).subject for _ in range(2)] == ["ann", "ann"]


def test_a_token_signed_with_a_removed_key_is_refused() -> None:
    made = mint_token(SECRET, "ann", ["read"], prefixes=None, now=NOW, lifetime_seconds=60)
    assert fault(bearer(made), several(*KEYS[1:])) == REFUSED


def test_with_keys_of_several_kinds_each_verifies_only_its_own_algorithm() -> None:
    """A public key is known to everyone, so a token signed with its text by HS256 must be refused."""
    private = PRIVATE_KEYS["EdDSA"]
    own = several(
        VerificationKey("EdDSA", private.public_key()),
        KEYS[0],
        VerificationKey("ES256", PRIVATE_KEYS["ES256"].public_key()),
    )
    by_each = [
        jwt.encode(CLAIMS, private, algorithm="EdDSA"),
        token(),
        jwt.encode(CLAIMS, PRIVATE_KEYS["ES256"], algorithm="ES256"),
    ]
    assert [own.verify(bearer(made)).subject for made in by_each] == ["ann"] * 3
    forged = signed(json.dumps(CLAIMS).encode(), secret=public_pem(private))
    assert fault(bearer(forged), own) == REFUSED


@pytest.mark.parametrize("keys", [KEYS[:1], KEYS, KEYS[::-1]], ids=["alone", "first", "last"])
def test_the_claims_are_checked_whichever_key_verifies_the_token(keys: list[VerificationKey]) -> None:
    own = several(*keys, audience="db")
    for claims, reason in (({"aud": "other"}, "wrong issuer or audience"), ({"aud": "db", "exp": NOW}, "expired")):
        with pytest.raises(ServiceError) as refusal:
            own.verify(bearer(token(CLAIMS | claims)))
        assert refusal.value.reason == reason


# Why a token is refused, for the log --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("authorization", "reason"),
    [
        (None, "no token"),
        (b"", "malformed"),
        (b"Basic x", "malformed"),
        (b"Bearer garbage", "malformed"),
        (bearer(signed(json.dumps(CLAIMS).encode(), secret=OTHER_SECRET)), "signed with another key"),
        (bearer(token(alg="HS512")), "signed with another key"),
        (bearer(token(jku="http://localhost/")), "malformed"),
        (bearer(token({"sub": "ann"})), "wrong claims"),
        (bearer(token(CLAIMS | {"sub": ""})), "wrong claims"),
        (bearer(token(CLAIMS | {"exp": NOW})), "expired"),
        (bearer(token(CLAIMS | {"exp": math.nan})), "wrong claims"),
        (bearer(token(CLAIMS | {"nbf": NOW + 1})), "not valid yet"),
    ],
)
def test_every_refusal_has_the_same_answer_and_its_own_reason_for_the_log(
    authorization: bytes | None, reason: str
) -> None:
    with pytest.raises(ServiceError) as refusal:
        verifier().verify(authorization)
    assert (refusal.value.reason, fault(authorization)) == (reason, REFUSED)


# Refused tokens -----------------------------------------------------------------------------------------------

GOOD = token()
HEAD, BODY, SIGNATURE = GOOD.split(".")

BAD_HEADERS: dict[str, bytes | None] = {
    "none": None,
    "empty": b"",
    "no scheme": GOOD.encode(),
    "scheme alone": b"Bearer",
    "scheme and a space": b"Bearer ",
    "Basic": b"Basic " + GOOD.encode(),
    "Token": b"Token " + GOOD.encode(),
    "scheme with a colon": b"Bearer: " + GOOD.encode(),
    "scheme with a tab": b"Bearer\t" + GOOD.encode(),
    "scheme twice": b"Bearer Bearer " + GOOD.encode(),
    "quoted": b'Bearer "' + GOOD.encode() + b'"',
    "sent twice, as joined": b"Bearer " + GOOD.encode() + b", Bearer " + GOOD.encode(),
    "two tokens": b"Bearer " + GOOD.encode() + b" " + GOOD.encode(),
    "not ASCII": "Bearer ä.ö.ü".encode(),
    "not UTF-8": b"Bearer \xff.\xff.\xff",
    "a NUL": b"Bearer \0" + GOOD.encode(),
}


@pytest.mark.parametrize("kind", BAD_HEADERS)
def test_an_authorization_header_without_a_bearer_token_is_refused(kind: str) -> None:
    assert fault(BAD_HEADERS[kind]) == REFUSED


def alg(name: str) -> str:
    return f"{segment(json.dumps({'alg': name, 'typ': 'JWT'}).encode())}.{BODY}."


DEEP = b"[" * 1_400 + b"]" * 1_400
BAD_TOKENS: dict[str, str] = {
    "garbage": "garbage",
    "dots alone": "..",
    "no dots": HEAD,
    "padding": GOOD + "=",
    "one dot": f"{HEAD}.{BODY}",
    "no signature": f"{HEAD}.{BODY}.",
    "three dots": f"{GOOD}.{SIGNATURE}",
    "signature of another key": signed(json.dumps(CLAIMS).encode(), secret=OTHER_SECRET),
    "signature cut": GOOD[:-2],
    "signature of other claims": f"{HEAD}.{segment(json.dumps(CLAIMS | {'sub': 'root'}).encode())}.{SIGNATURE}",
    "base64 with other letters": f"{HEAD}.{BODY}.{SIGNATURE[:-4]}+/+/",
    "header no JSON": signed(b"{}", raw_header=b"alg"),
    "header a list": signed(b"{}", raw_header=b"[]"),
    "header deep": signed(json.dumps(CLAIMS).encode(), raw_header=b'{"alg":"HS256","x":%b}' % DEEP),
    "header without alg": signed(json.dumps(CLAIMS).encode(), raw_header=b"{}"),
    "claims no JSON": signed(b"sub"),
    "claims a list": signed(b"[]"),
    "claims null": signed(b"null"),
    "claims not UTF-8": signed(b'{"sub": "\xff"}'),
    "claims empty": signed(b""),
    "claims deep": signed(b'{"sub":"a","exp":%d,"x":%b}' % (NOW + 60, DEEP)),
    "permissions deep": signed(b'{"sub":"a","exp":%d,"permissions":%b}' % (NOW + 60, DEEP)),
    "number of very many digits": signed(b'{"sub":"a","exp":1%b}' % (b"0" * 2_900)),
} | {f"alg {name!r}": alg(name) for name in ("none", "None", "NONE", "nOnE", "", " none", "HS256", "HS512", "XX")}


@pytest.mark.parametrize("kind", BAD_TOKENS)
def test_a_malformed_or_forged_token_is_refused(kind: str) -> None:
    assert fault(bearer(BAD_TOKENS[kind])) == REFUSED


@pytest.mark.parametrize("value", ["none", None, 0, True, ["HS256"], {"HS256": 1}, "hs256", "HS256 ", "HS384"])
def test_a_signed_token_that_names_another_algorithm_is_refused(value: Any) -> None:
    assert fault(bearer(token(alg=value))) == REFUSED


@pytest.mark.parametrize("name", ["crit", "jku", "jwk", "x5u", "x5c"])
@pytest.mark.parametrize("value", [None, [], ["exp"], "http://localhost/key", {"kty": "oct", "k": segment(SECRET)}])
def test_a_token_whose_header_names_a_key_or_an_extension_is_refused(name: str, value: Any) -> None:
    assert fault(bearer(token(**{name: value}))) == REFUSED


def test_a_detached_payload_is_refused() -> None:
    assert fault(bearer(token(b64=False))) == REFUSED
    assert fault(bearer(token(b64=False, crit=["b64"]))) == REFUSED


def test_a_token_of_4_kib_is_accepted_and_a_longer_one_refused() -> None:
    sizes = {len(text): text for pad in range(2_700, 3_100) for text in [token(CLAIMS | {"x": "x" * pad})]}
    largest, next_one = max(n for n in sizes if n <= 4_096), min(n for n in sizes if n > 4_096)
    assert (verifier().verify(bearer(sizes[largest])).subject, fault(bearer(sizes[next_one]))) == ("ann", REFUSED)


# Claims -------------------------------------------------------------------------------------------------------

ABSENT: Any = ...

BAD_CLAIMS: dict[str, dict[str, Any]] = {
    "no exp": {"exp": ABSENT},
    "exp null": {"exp": None},
    "exp a string": {"exp": str(NOW + 60)},
    "exp true": {"exp": True},
    "exp a list": {"exp": [NOW + 60]},
    "exp an object": {"exp": {}},
    "exp NaN": {"exp": math.nan},
    "exp infinite": {"exp": math.inf},
    "exp beyond all floats": {"exp": 10**400},
    "exp beyond all times": {"exp": 1e300},
    "exp 0": {"exp": 0},
    "exp negative": {"exp": -NOW},
    "exp past": {"exp": NOW - 1},
    "exp now": {"exp": NOW},
    "nbf to come": {"nbf": NOW + 1},
    "nbf a little to come": {"nbf": NOW + 0.001},
    "nbf a string": {"nbf": "0"},
    "nbf true": {"nbf": True},
    "nbf NaN": {"nbf": math.nan},
    "nbf beyond all floats": {"nbf": 10**400},
    "iat a string": {"iat": "0"},
    "iat true": {"iat": True},
    "no sub": {"sub": ABSENT},
    "sub null": {"sub": None},
    "sub empty": {"sub": ""},
    "sub a number": {"sub": 1},
    "sub a list": {"sub": ["ann"]},
    "sub half a surrogate pair": {"sub": "\ud800"},
    "permissions a string": {"permissions": "read"},
    "permissions an object": {"permissions": {"read": True}},
    "permissions null": {"permissions": None},
    "permissions true": {"permissions": True},
    "permission unknown": {"permissions": ["read", "root"]},
    "permission in capitals": {"permissions": ["READ"]},
    "permission a number": {"permissions": [1]},
    "permission null": {"permissions": [None]},
    "prefixes a string": {"prefixes": "a/"},
    "prefixes an object": {"prefixes": {"a/": 1}},
    "prefix empty": {"prefixes": ["a/", ""]},
    "prefix a number": {"prefixes": [1]},
    "prefix null": {"prefixes": [None]},
    "prefix half a surrogate pair": {"prefixes": ["\udc00"]},
}


@pytest.mark.parametrize("kind", BAD_CLAIMS)
def test_a_token_with_wrong_claims_is_refused(kind: str) -> None:
    claims = {name: value for name, value in (CLAIMS | BAD_CLAIMS[kind]).items() if value is not ABSENT}
    assert fault(bearer(token(claims))) == REFUSED


@pytest.mark.parametrize("claims", [{"nbf": NOW}, {"nbf": 0}, {"nbf": None}, {"exp": NOW + 0.001}, {"prefixes": None}])
def test_claims_just_within_their_limits_are_accepted(claims: dict[str, Any]) -> None:
    assert verifier().verify(bearer(token(CLAIMS | claims))).subject == "ann"


@pytest.mark.parametrize("cached", [True, False])
def test_a_token_is_refused_from_its_exp_on(*, cached: bool) -> None:
    clock = Clock()
    own = verifier(now=clock)
    if cached:
        own.verify(bearer(GOOD))
    clock.now = math.nextafter(NOW + 60, 0)
    assert own.verify(bearer(GOOD)).subject == "ann"
    clock.now = NOW + 60
    assert [fault(bearer(GOOD), own) for _ in range(2)] == [REFUSED] * 2


def test_a_token_is_accepted_from_the_leeway_before_its_nbf_on() -> None:
    own = verifier(leeway_seconds=5)
    assert own.verify(bearer(token(CLAIMS | {"nbf": NOW + 5}))).subject == "ann"
    assert fault(bearer(token(CLAIMS | {"nbf": NOW + 5.001})), own) == REFUSED


def test_the_leeway_for_nbf_does_not_apply_to_exp() -> None:
    assert fault(bearer(token(CLAIMS | {"exp": NOW})), verifier(leeway_seconds=5)) == REFUSED


@pytest.mark.parametrize("cached", [True, False])
def test_a_token_is_accepted_until_the_leeway_after_its_exp(*, cached: bool) -> None:
    clock = Clock()
    own = verifier(now=clock, expiry_leeway_seconds=2)
    if cached:
        own.verify(bearer(GOOD))
    clock.now = math.nextafter(NOW + 62, 0)
    assert own.verify(bearer(GOOD)).expires_at == NOW + 62
    clock.now = NOW + 62
    assert fault(bearer(GOOD), own) == REFUSED


@pytest.mark.parametrize("issued_at", [0, NOW - 1e6, NOW, NOW + 1, NOW + 1e9])
def test_a_token_is_accepted_whatever_its_iat_is(issued_at: float) -> None:
    """RFC 7519, section 4.1.6: `iat` gives the age of a token; `nbf` gives the time from which it is valid."""
    assert verifier().verify(bearer(token(CLAIMS | {"iat": issued_at}))).subject == "ann"


def test_a_token_that_resembles_a_verified_one_is_refused() -> None:
    own = verifier()
    own.verify(bearer(GOOD))
    neighbours = [GOOD + "x", GOOD[:-1], GOOD.upper(), f"{GOOD}.", f"{HEAD}.{BODY}."]
    assert [fault(bearer(text), own) for text in neighbours] == [REFUSED] * 5


def test_a_token_refused_before_its_nbf_is_accepted_after_it() -> None:
    clock = Clock()
    own, early = verifier(now=clock), bearer(token(CLAIMS | {"nbf": NOW + 5}))
    assert fault(early, own) == REFUSED
    clock.now = NOW + 5
    assert own.verify(early).subject == "ann"


def test_the_cache_of_verified_tokens_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leasehold.access.token_verification.MAX_CACHED_TOKENS", 10)
    own = verifier()
    subjects = [own.verify(bearer(token(CLAIMS | {"sub": str(n)}))).subject for n in range(35)]
    assert (subjects, len(own._verified) <= 10) == ([str(n) for n in range(35)], True)


@pytest.mark.parametrize(
    ("claims", "is_good"),
    [
        ({"iss": "us", "aud": "leasehold"}, True),
        ({"iss": "us", "aud": ["other", "leasehold"]}, True),
        ({"iss": "us"}, False),
        ({"aud": "leasehold"}, False),
        ({"iss": "them", "aud": "leasehold"}, False),
        ({"iss": "us", "aud": "other"}, False),
        ({"iss": "us", "aud": []}, False),
        ({"iss": "us", "aud": ""}, False),
        ({"iss": "us", "aud": 1}, False),
        ({"iss": "us", "aud": ["leasehold", 1]}, False),
        ({"iss": ["us"], "aud": "leasehold"}, False),
        ({"iss": "US", "aud": "leasehold"}, False),
        ({"iss": "us", "aud": "lease"}, False),
    ],
)
def test_issuer_and_audience_must_match_when_they_are_configured(*, claims: dict[str, Any], is_good: bool) -> None:
    own = verifier(issuer="us", audience="leasehold")
    assert (fault(bearer(token(CLAIMS | claims)), own) != REFUSED) == is_good
