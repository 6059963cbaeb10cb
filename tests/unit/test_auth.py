"""Bearer tokens: which are good, which are not, and what a good one lets its bearer do."""

import base64
import hashlib
import hmac
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import example, given
from hypothesis import strategies as st

from leasehold.access.tokens import Principal, VerificationKey, Verifier, load_secret, mint, public_key, secret_key
from leasehold.errors import ServiceError
from leasehold.server.config import parse_duration

NOW = 1_800_000_000.0
SECRET = b"0123456789abcdef0123456789abcdef"
OTHER_SECRET = b"x" * 32
CLAIMS = {"sub": "ann", "exp": NOW + 60, "permissions": ["read", "write"]}
REFUSED = ("unauthenticated", "a valid bearer token is needed", {"WWW-Authenticate": "Bearer"})


class Clock:
    """Stands until it is set."""

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
    """A token with an HS256 signature, whatever its parts are."""
    head = json.dumps({"alg": "HS256", "typ": "JWT"} | header).encode() if raw_header is None else raw_header
    text = f"{segment(head)}.{segment(claims)}"
    return f"{text}.{segment(hmac.digest(secret, text.encode(), hashlib.sha256))}"


def fault(authorization: bytes | None, checked_by: Verifier | None = None) -> Any:
    """How a header is refused, or the principal if it is not."""
    try:
        return (checked_by or verifier()).verify(authorization)
    except ServiceError as error:
        return error.code, error.message, error.headers


def bearer(text: str) -> bytes:
    return b"Bearer " + text.encode()


# Good tokens --------------------------------------------------------------------------------------------------


def test_a_minted_token_is_verified() -> None:
    made = mint(SECRET, "ann", ["read"], prefixes=["a/", "b"], now=NOW, lifetime_seconds=60)
    expected = Principal("ann", frozenset({"read"}), ("a/", "b"), NOW + 60)
    assert verifier().verify(bearer(made)) == expected


def test_a_minted_token_has_the_claims_that_were_asked_for() -> None:
    made = mint(SECRET, "a", ["write"], prefixes=None, now=NOW, lifetime_seconds=1, issuer="i", audience="b")
    claims = jwt.decode(made, options={"verify_signature": False})
    assert claims == {
        "sub": "a",
        "permissions": ["write"],
        "iat": int(NOW),
        "exp": int(NOW) + 1,
        "iss": "i",
        "aud": "b",
    }


def test_a_minted_token_lasts_as_long_as_asked_and_never_shorter() -> None:
    made = mint(SECRET, "a", ["read"], prefixes=None, now=NOW + 0.5, lifetime_seconds=10)
    assert verifier().verify(bearer(made)).expires_at == NOW + 11


def test_no_prefixes_at_all_are_not_the_same_as_all_keys() -> None:
    made = mint(SECRET, "a", ["read"], prefixes=[], now=NOW, lifetime_seconds=10)
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
        mint(SECRET, subject, permissions, prefixes=prefixes, now=NOW, lifetime_seconds=60)
    assert refusal.value.code == "invalid_argument"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_has_no_case(scheme: str) -> None:
    assert verifier().verify(f"{scheme} {token()}".encode()).subject == "ann"


def test_claims_that_are_not_asked_about_do_no_harm() -> None:
    claims = CLAIMS | {"jti": "1", "scope": {"a": [1]}, "aud": "elsewhere", "iss": "somebody", "iat": NOW + 1e6}
    assert verifier().verify(bearer(token(claims))).subject == "ann"


def test_a_token_without_permissions_is_good_and_may_do_nothing() -> None:
    assert verifier().verify(bearer(token({"sub": "a", "exp": NOW + 1}))).permissions == frozenset()


def test_a_kid_is_no_fault() -> None:
    assert verifier().verify(bearer(token(kid="2026"))).subject == "ann"


# Several keys -------------------------------------------------------------------------------------------------

KEYS = [VerificationKey("HS256", secret) for secret in (SECRET, OTHER_SECRET, b"y" * 32)]


def several(*keys: VerificationKey, **options: Any) -> Verifier:
    return Verifier(keys, **({"now": Clock()} | options))


@pytest.mark.parametrize("secret", [SECRET, OTHER_SECRET, b"y" * 32])
def test_a_token_of_any_key_is_verified(secret: bytes) -> None:
    own = several(*KEYS)
    made = mint(secret, "ann", ["read"], prefixes=None, now=NOW, lifetime_seconds=60)
    assert [own.verify(bearer(made)).subject for _ in range(2)] == ["ann", "ann"]


def test_a_token_of_a_key_that_was_taken_away_is_refused() -> None:
    made = mint(SECRET, "ann", ["read"], prefixes=None, now=NOW, lifetime_seconds=60)
    assert fault(bearer(made), several(*KEYS[1:])) == REFUSED


def test_each_key_has_its_own_algorithm() -> None:
    """A public key is no secret: a token that is signed with its text, by HS256, is not one of ours."""
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
def test_the_claims_of_a_token_count_whichever_key_verifies_it(keys: list[VerificationKey]) -> None:
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
def test_the_log_may_say_why_a_token_is_refused(authorization: bytes | None, reason: str) -> None:
    with pytest.raises(ServiceError) as refusal:
        verifier().verify(authorization)
    assert (refusal.value.reason, fault(authorization)) == (reason, REFUSED)


# Kinds of keys ------------------------------------------------------------------------------------------------

PRIVATE_KEYS: dict[str, Any] = {
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "RS256": rsa.generate_private_key(65_537, 2_048),
}


def public_pem(private: Any) -> bytes:
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert isinstance(pem, bytes)
    return pem


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
def test_a_token_of_another_key_of_the_same_kind_is_refused(pem_file: Callable[[bytes], Path], algorithm: str) -> None:
    others: dict[str, Any] = {
        "EdDSA": ed25519.Ed25519PrivateKey.generate(),
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "RS256": rsa.generate_private_key(65_537, 2_048),
    }
    key = public_key(pem_file(public_pem(PRIVATE_KEYS[algorithm])))
    assert fault(bearer(jwt.encode(CLAIMS, others[algorithm], algorithm=algorithm)), verifier(key)) == REFUSED


@pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS256"])
def test_another_algorithm_of_the_right_key_is_refused(pem_file: Callable[[bytes], Path], algorithm: str) -> None:
    private = PRIVATE_KEYS["RS256"]
    key = public_key(pem_file(public_pem(private)))
    assert fault(bearer(jwt.encode(CLAIMS, private, algorithm=algorithm)), verifier(key)) == REFUSED


@pytest.mark.parametrize("algorithm", PRIVATE_KEYS)
def test_a_token_of_a_private_key_is_refused_where_a_secret_is_expected(algorithm: str) -> None:
    assert fault(bearer(jwt.encode(CLAIMS, PRIVATE_KEYS[algorithm], algorithm=algorithm))) == REFUSED


def private_pem(private: Any) -> bytes:
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert isinstance(pem, bytes)
    return pem


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
    "an algorithm that nobody knows": lambda: (
        b"-----BEGIN PUBLIC KEY-----\nMBIwCwYJKwYBBAGC3AwBAwMA/////w==\n-----END PUBLIC KEY-----\n"
    ),
}


@pytest.mark.parametrize("kind", WRONG_PUBLIC_KEYS)
def test_a_file_without_a_fitting_public_key_is_refused(pem_file: Callable[[bytes], Path], kind: str) -> None:
    with pytest.raises(ServiceError, match=r"^the public key") as refusal:
        public_key(pem_file(WRONG_PUBLIC_KEYS[kind]()))
    assert refusal.value.code == "unavailable"


@pytest.mark.parametrize("load", [public_key, secret_key])
def test_a_key_file_that_cannot_be_read_is_told_without_its_path(
    tmp_path: Path, load: Callable[[Path], VerificationKey]
) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(ServiceError, match="cannot be read") as refusal:
            load(path)
        assert str(tmp_path) not in refusal.value.message


# Secrets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n", b"\n\n"])
def test_a_secret_is_read_without_the_line_break_at_its_end(pem_file: Callable[[bytes], Path], ending: bytes) -> None:
    assert load_secret(pem_file(SECRET + ending)) == SECRET


@pytest.mark.parametrize("content", [b"", b"\n" * 40, SECRET[:31], SECRET[:31] + b"\r\n"])
def test_a_short_secret_is_refused(pem_file: Callable[[bytes], Path], content: bytes) -> None:
    with pytest.raises(ServiceError, match=r"^the secret must have at least 32 bytes$"):
        load_secret(pem_file(content))


def test_a_key_in_place_of_a_secret_is_refused(pem_file: Callable[[bytes], Path]) -> None:
    jwk = json.dumps({"kty": "oct", "k": segment(SECRET)}).encode()
    for content in (public_pem(PRIVATE_KEYS["EdDSA"]), private_pem(PRIVATE_KEYS["ES256"]), jwk):
        with pytest.raises(ServiceError, match=r"^the secret is a public or private key"):
            load_secret(pem_file(content))


# Bad tokens ---------------------------------------------------------------------------------------------------

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
def test_a_header_that_is_no_bearer_token_is_refused(kind: str) -> None:
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
def test_a_token_that_is_not_ours_is_refused(kind: str) -> None:
    assert fault(bearer(BAD_TOKENS[kind])) == REFUSED


@pytest.mark.parametrize("value", ["none", None, 0, True, ["HS256"], {"HS256": 1}, "hs256", "HS256 ", "HS384"])
def test_a_signed_token_that_names_another_algorithm_is_refused(value: Any) -> None:
    assert fault(bearer(token(alg=value))) == REFUSED


@pytest.mark.parametrize("name", ["crit", "jku", "jwk", "x5u", "x5c"])
@pytest.mark.parametrize("value", [None, [], ["exp"], "http://localhost/key", {"kty": "oct", "k": segment(SECRET)}])
def test_a_token_that_says_how_to_verify_it_is_refused(name: str, value: Any) -> None:
    assert fault(bearer(token(**{name: value}))) == REFUSED


def test_a_detached_payload_is_refused() -> None:
    assert fault(bearer(token(b64=False))) == REFUSED
    assert fault(bearer(token(b64=False, crit=["b64"]))) == REFUSED


def test_a_token_of_4_kib_is_taken_and_a_longer_one_refused() -> None:
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
def test_claims_that_are_wrong_are_refused(kind: str) -> None:
    claims = {name: value for name, value in (CLAIMS | BAD_CLAIMS[kind]).items() if value is not ABSENT}
    assert fault(bearer(token(claims))) == REFUSED


@pytest.mark.parametrize("claims", [{"nbf": NOW}, {"nbf": 0}, {"nbf": None}, {"exp": NOW + 0.001}, {"prefixes": None}])
def test_claims_at_the_edge_are_good(claims: dict[str, Any]) -> None:
    assert verifier().verify(bearer(token(CLAIMS | claims))).subject == "ann"


@pytest.mark.parametrize("cached", [True, False])
def test_a_token_ends_at_exp_exactly(*, cached: bool) -> None:
    clock = Clock()
    own = verifier(now=clock)
    if cached:
        own.verify(bearer(GOOD))
    clock.now = math.nextafter(NOW + 60, 0)
    assert own.verify(bearer(GOOD)).subject == "ann"
    clock.now = NOW + 60
    assert [fault(bearer(GOOD), own) for _ in range(2)] == [REFUSED] * 2


def test_a_token_is_taken_a_leeway_before_its_nbf() -> None:
    own = verifier(leeway_seconds=5)
    assert own.verify(bearer(token(CLAIMS | {"nbf": NOW + 5}))).subject == "ann"
    assert fault(bearer(token(CLAIMS | {"nbf": NOW + 5.001})), own) == REFUSED


def test_the_leeway_for_nbf_is_none_for_exp() -> None:
    assert fault(bearer(token(CLAIMS | {"exp": NOW})), verifier(leeway_seconds=5)) == REFUSED


@pytest.mark.parametrize("cached", [True, False])
def test_a_token_is_taken_a_leeway_after_its_exp_and_not_longer(*, cached: bool) -> None:
    clock = Clock()
    own = verifier(now=clock, expiry_leeway_seconds=2)
    if cached:
        own.verify(bearer(GOOD))
    clock.now = math.nextafter(NOW + 62, 0)
    assert own.verify(bearer(GOOD)).expires_at == NOW + 62
    clock.now = NOW + 62
    assert fault(bearer(GOOD), own) == REFUSED


@pytest.mark.parametrize("issued_at", [0, NOW - 1e6, NOW, NOW + 1, NOW + 1e9])
def test_when_a_token_was_issued_is_no_condition(issued_at: float) -> None:
    """RFC 7519, section 4.1.6: `iat` tells the age of a token; what it may not be used before is `nbf`."""
    assert verifier().verify(bearer(token(CLAIMS | {"iat": issued_at}))).subject == "ann"


def test_a_verified_token_says_nothing_about_its_neighbours() -> None:
    own = verifier()
    own.verify(bearer(GOOD))
    neighbours = [GOOD + "x", GOOD[:-1], GOOD.upper(), f"{GOOD}.", f"{HEAD}.{BODY}."]
    assert [fault(bearer(text), own) for text in neighbours] == [REFUSED] * 5


def test_a_token_that_was_refused_may_become_good_in_time() -> None:
    clock = Clock()
    own, early = verifier(now=clock), bearer(token(CLAIMS | {"nbf": NOW + 5}))
    assert fault(early, own) == REFUSED
    clock.now = NOW + 5
    assert own.verify(early).subject == "ann"


def test_many_tokens_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leasehold.access.tokens.MAX_CACHED_TOKENS", 10)
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
def test_issuer_and_audience_count_when_configured(*, claims: dict[str, Any], is_good: bool) -> None:
    own = verifier(issuer="us", audience="leasehold")
    assert (fault(bearer(token(CLAIMS | claims)), own) != REFUSED) == is_good


# What a bearer may see ----------------------------------------------------------------------------------------

NAMES = st.text(st.sampled_from("a/\U0001f98a"), min_size=1, max_size=3)
PREFIXES = st.none() | st.lists(NAMES, max_size=5).map(tuple)


def principal(prefixes: tuple[str, ...] | None) -> Principal:
    return Principal("ann", frozenset(), prefixes)


@given(PREFIXES, NAMES)
def test_a_name_is_covered_if_it_begins_with_a_prefix(prefixes: tuple[str, ...] | None, name: str) -> None:
    expected = prefixes is None or any(name[: len(prefix)] == prefix for prefix in prefixes)
    assert principal(prefixes).covers(name) == expected


@example(("a/", "a", "a/a"), "", ["a/a"])
@given(PREFIXES, st.just("") | NAMES, st.lists(NAMES))
def test_within_names_just_the_covered_part_of_a_prefix(
    prefixes: tuple[str, ...] | None, prefix: str, names: list[str]
) -> None:
    own = principal(prefixes)
    narrowed = own.within(prefix)
    listed = [name for part in narrowed for name in sorted(set(names)) if name.startswith(part)]
    assert listed == [name for name in sorted(set(names)) if name.startswith(prefix) and own.covers(name)]
    assert list(narrowed) == sorted(narrowed)


def test_what_is_not_covered_is_forbidden() -> None:
    principal(("a/",)).require("a/b")
    with pytest.raises(ServiceError) as refusal:
        principal(("a/",)).require("b")
    assert (refusal.value.code, refusal.value.message) == ("forbidden", "the token does not cover this key")


# Durations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("15m", 900), ("1h", 3_600), ("7d", 604_800), ("90", 90), ("007s", 7)]
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "h",
        "0",
        "0s",
        "-1h",
        "+1h",
        "1.5h",
        "1 h",
        " 1h",
        "1h ",
        "1w",
        "1H",
        "1h30m",
        "1_0s",
        "inf",
        "nan",
        "1e3",
        "²s",
        "१s",
        "9" * 10 + "d",
        "9" * 5_000,
        "s1",
    ],
)
def test_another_form_of_a_duration_is_refused(text: str) -> None:
    with pytest.raises(ServiceError) as refusal:
        parse_duration(text)
    assert refusal.value.code == "invalid_argument"
