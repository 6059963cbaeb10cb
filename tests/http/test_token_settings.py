"""The keys of tokens as settings: rotation, leeway, issuer and audience, and keys that are refused at the start."""

import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from callers import BOTH, CENTURY_SECONDS, SECRET, bearer, token
from running import leasehold, running


def test_tokens_of_the_old_secret_are_refused_after_a_restart_with_another_one(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(SECRET)
    with running(arguments=[f"--auth-secret-file={path}"]) as server:
        before = server.get("a", headers=BOTH).status_code
        path.write_bytes(b"another secret, of 32 bytes or more")
        server.restart()
        after = server.get("a", headers=BOTH).status_code
    assert (before, after) == (404, 401)


def test_valid_tokens_are_accepted_at_every_step_of_a_rotation_of_the_secret(tmp_path: Path) -> None:
    """The recipe of docs/operations.md, step by step."""
    old, new = tmp_path / "secret", tmp_path / "secret.new"
    old.write_bytes(SECRET)
    new.write_bytes(b"another secret, of 32 bytes or more")

    def made(*arguments: str) -> dict[str, str]:
        given = [*arguments, "--subject=ann", "--permission=read"]
        return bearer(leasehold("token", *given).stdout.strip())

    first = made(f"--auth-secret-file={old}", f"--auth-secret-file={new}")
    second = made(f"--auth-secret-file={new}", f"--auth-secret-file={old}")
    statuses = []
    for files in ([old], [old, new], [new, old], [new]):
        by_flags = [f"--auth-secret-file={path}" for path in files]
        with running(arguments=by_flags) as server:
            statuses.append([server.get("a", headers=headers).status_code for headers in (first, second)])
    assert statuses == [[404, 401], [404, 404], [404, 404], [401, 404]]


def test_several_secrets_may_be_in_the_environment_variable(tmp_path: Path, secret_file: Path) -> None:
    (tmp_path / "other").write_bytes(b"x" * 32)
    environment = {"LEASEHOLD_AUTH_SECRET_FILE": f"{tmp_path / 'other'},{secret_file}"}
    with running(environment=environment) as server:
        statuses = [
            server.get("a", headers=headers).status_code for headers in (BOTH, bearer(token("read", secret=b"x" * 32)))
        ]
        made = leasehold("token", "--subject=a", "--permission=read", environment=environment).stdout.strip()
        statuses.append(server.get("a", headers=bearer(made)).status_code)
    assert (statuses, jwt.decode(made, b"x" * 32, algorithms=["HS256"])["sub"]) == ([404] * 3, "a")


def test_several_public_keys_verify_while_a_provider_changes_its_key(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    old, new = generate_private_key(SECP256R1()), Ed25519PrivateKey.generate()
    arguments = []
    privates: list[Any] = [old, new]
    for number, private in enumerate(privates):
        path = tmp_path / f"{number}.pem"
        path.write_bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        arguments.append(f"--auth-public-key-file={path}")
    claims = {"sub": "a", "exp": time.time() + 60, "permissions": ["read"]}
    tokens = [jwt.encode(claims, old, algorithm="ES256"), jwt.encode(claims, new, algorithm="EdDSA")]
    with running(arguments=arguments) as server:
        assert [server.get("a", headers=bearer(made)).status_code for made in tokens] == [404, 404]


def test_a_token_is_accepted_within_the_leeway(secret_file: Path) -> None:
    """By much more than what a busy machine takes between making a token and sending it."""

    def signed(**claims: float) -> dict[str, str]:
        now = time.time()
        times = {name: now + seconds for name, seconds in claims.items()}
        return bearer(jwt.encode({"sub": "a", "permissions": ["read"], "exp": now + 600} | times, SECRET))

    arguments = [f"--auth-secret-file={secret_file}"]
    environment = {"LEASEHOLD_AUTH_LEEWAY_SECONDS": "300", "LEASEHOLD_AUTH_EXPIRY_LEEWAY_SECONDS": "300"}
    with running(arguments=arguments) as usual, running(arguments=arguments, environment=environment) as lenient:
        for server, statuses in ((usual, [404, 401, 401, 404]), (lenient, [404, 404, 404, 404])):
            sent = [signed(nbf=1), signed(nbf=150), signed(exp=-1), signed(iat=1e9)]
            assert [server.get("a", headers=headers).status_code for headers in sent] == statuses


def test_a_public_key_verifies_tokens_of_an_identity_provider(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    private = Ed25519PrivateKey.generate()
    path = tmp_path / "key.pem"
    path.write_bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    claims = {
        "sub": "a",
        "exp": time.time() + CENTURY_SECONDS,
        "permissions": ["read"],
        "iss": "https://id.example",
        "aud": "db",
    }
    environment = {"LEASEHOLD_AUTH_ISSUER": "https://id.example", "LEASEHOLD_AUTH_AUDIENCE": "db"}
    with running(environment=environment, arguments=[f"--auth-public-key-file={path}"]) as server:
        statuses = [
            server.get("a", headers=bearer(made)).status_code
            for made in (
                jwt.encode(claims, private, algorithm="EdDSA"),
                jwt.encode(claims | {"aud": "other"}, private, algorithm="EdDSA"),
                jwt.encode(claims | {"iss": "other"}, private, algorithm="EdDSA"),
                token("read"),
            )
        ]
    assert statuses == [404, 401, 401, 401]


def test_an_empty_issuer_and_audience_are_not_checked(secret_file: Path) -> None:
    environment = {"LEASEHOLD_AUTH_ISSUER": "", "LEASEHOLD_AUTH_AUDIENCE": ""}
    with running(environment=environment, arguments=[f"--auth-secret-file={secret_file}"]) as server:
        assert server.put("a", "1", headers=BOTH).status_code == 201


@pytest.mark.parametrize(
    ("flag", "content", "line"),
    [
        ("--auth-secret-file", b"short\n", "the secret must have at least 32 bytes"),
        ("--auth-secret-file", None, "the secret's file cannot be read: No such file or directory"),
        ("--auth-public-key-file", b"no key", "the public key's file has no public key in PEM"),
    ],
)
def test_the_service_does_not_start_with_an_invalid_key(
    tmp_path: Path, flag: str, content: bytes | None, line: str
) -> None:
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    result = leasehold("serve", "--store=memory:", "--port=0", f"{flag}={tmp_path / 'key'}")
    assert (result.returncode, result.stdout, result.stderr) == (1, "", f"leasehold: {line}\n")


def test_the_service_does_not_start_with_a_public_key_in_place_of_a_secret(tmp_path: Path) -> None:
    """In DER, which only cryptography recognizes. A service with a secret does not import it otherwise."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
    (tmp_path / "key").write_bytes(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    result = leasehold("serve", "--store=memory:", "--port=0", f"--auth-secret-file={tmp_path / 'key'}")
    line = "leasehold: the secret is a public or private key; use random bytes\n"
    assert (result.returncode, result.stdout, result.stderr) == (1, "", line)


def test_the_error_for_several_keys_names_the_invalid_one(tmp_path: Path, secret_file: Path) -> None:
    (tmp_path / "secret.new").write_bytes(b"short")
    files = [f"--auth-secret-file={path}" for path in (secret_file, tmp_path / "secret.new")]
    result = leasehold("serve", "--store=memory:", "--port=0", *files)
    line = "leasehold: secret.new: the secret must have at least 32 bytes\n"
    assert (result.returncode, result.stdout, result.stderr) == (1, "", line)


@pytest.mark.parametrize(
    "arguments", [["--auth-secret-file=a", "--auth-public-key-file=b"], ["--auth-secret-file="]], ids=str
)
def test_contradicting_or_empty_settings_of_keys_are_a_usage_error(arguments: list[str]) -> None:
    result = leasehold("serve", "--store=memory:", "--port=0", *arguments)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
