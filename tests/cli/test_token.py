"""`leasehold token` and `jwt-generator`."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import jwt
import pytest
from running import clean_environment, leasehold, running

SECRET = "a-secret-of-more-than-32-bytes-for-tests"
USAGE = 2
FAULT = 1

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def token(*arguments: str, environment: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    return leasehold("token", *arguments, environment=environment)


def jwt_generator(*arguments: str, environment: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    """The command as its script runs it, also where the script is not installed."""
    code = "import sys; from leasehold.cli.app import token_main; sys.argv[0] = 'jwt-generator'; token_main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env=clean_environment() | dict(environment or {}),
    )


both = pytest.mark.parametrize("run", [token, jwt_generator])


@pytest.fixture
def secret(tmp_path: Path) -> str:
    path = tmp_path / "secret"
    path.write_text(SECRET + "\n")
    return f"--auth-secret-file={path}"


# What is printed ----------------------------------------------------------------------------------------------


@both
def test_a_token_with_all_options_has_all_claims(run: Run, secret: str) -> None:
    options = "--subject=ann --permission=read --permission=write --prefix=a/ --prefix=ä --expires=15m"
    before = int(time.time())
    result = run(secret, *options.split(), "--issuer=us", "--audience=db")
    claims = jwt.decode(result.stdout.strip(), SECRET, algorithms=["HS256"], issuer="us", audience="db")
    issued = claims.pop("iat")
    lasts = claims.pop("exp") - issued
    expected = {"sub": "ann", "permissions": ["read", "write"], "prefixes": ["a/", "ä"], "iss": "us", "aud": "db"}
    assert claims == expected
    assert (before <= issued <= time.time(), lasts in (900, 901)) == (True, True)


@both
def test_standard_output_has_only_the_token(run: Run, secret: str) -> None:
    result = run(secret, "--subject=a", "--permission=read")
    assert (result.returncode, result.stderr, result.stdout.count("\n"), result.stdout.count(".")) == (0, "", 1, 2)


def test_a_token_without_prefixes_is_for_all_keys_and_expires_in_an_hour(secret: str) -> None:
    claims = jwt.decode(token(secret, "--subject=a", "--permission=read").stdout.strip(), SECRET, algorithms=["HS256"])
    assert (sorted(claims), claims["exp"] - claims["iat"] in (3_600, 3_601)) == (
        ["exp", "iat", "permissions", "sub"],
        True,
    )


@both
def test_the_file_with_the_secret_can_be_set_in_the_environment(run: Run, secret: str) -> None:
    environment = {"LEASEHOLD_AUTH_SECRET_FILE": secret.partition("=")[2]}
    assert run("--subject=a", "--permission=read", environment=environment).returncode == 0


def test_a_token_has_the_issuer_and_the_audience_of_the_service(secret: str) -> None:
    environment = {"LEASEHOLD_AUTH_ISSUER": "us", "LEASEHOLD_AUTH_AUDIENCE": "db"}
    own = token(secret, "--subject=a", "--permission=read", environment=environment)
    told = token(secret, "--subject=a", "--permission=read", "--audience=other", environment=environment)
    claims = [jwt.decode(made.stdout.strip(), options={"verify_signature": False}) for made in (own, told)]
    assert [(each["iss"], each["aud"]) for each in claims] == [("us", "db"), ("us", "other")]


@both
def test_help_is_printed(run: Run) -> None:
    result = run("--help")
    assert (result.returncode, "--auth-secret-file" in result.stdout, result.stderr) == (0, True, "")


# What is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["--subject=a"],
        ["--permission=read"],
        ["--subject=", "--permission=read"],
        ["--subject=a", "--permission=root"],
        ["--subject=a", "--permission=READ"],
        ["--subject=a", "--permission="],
        ["--subject=a", "--permission=read,write"],
        ["--subject=a", "--permission=read", "--prefix="],
        ["--subject=a", "--permission=read", f"--prefix={'x' * 4_000}"],
        ["--subject=a", "--permission=read", "--expires="],
        ["--subject=a", "--permission=read", "--expires=0"],
        ["--subject=a", "--permission=read", "--expires=-1h"],
        ["--subject=a", "--permission=read", "--expires=1w"],
        ["--subject=a", "--permission=read", "--expires=never"],
        ["--subject=a", "--permission=read", f"--expires={'9' * 5_000}"],
        ["--subject=a", "--permission=read", "extra"],
        ["--subject=a", "--permission=read", "--perfix=a"],
    ],
    ids=lambda arguments: " ".join(arguments)[:60],
)
def test_wrong_usage_ends_with_2_and_the_reason(secret: str, arguments: list[str]) -> None:
    result = token(secret, *arguments)
    seen = (result.returncode, result.stdout, result.stderr != "", "Traceback" in result.stderr)
    assert seen == (USAGE, "", True, False)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--subject=a", "--permission=root"], "permission 'root' is not one of read, write, admin"),
        (["--subject=a", "--permission=read,write"], "permission 'read,write' is not one of read, write, admin"),
        (["--subject=", "--permission=read"], "subject '' is empty or not valid text"),
        (["--subject=a", "--permission=read", "--prefix=x", "--prefix="], "prefix '' is empty or not valid text"),
        (
            ["--subject=a", "--permission=read", "--expires=1w"],
            "'1w' is not a duration; give one like 30s, 15m, 1h or 7d",
        ),
    ],
    ids=str,
)
def test_a_wrong_argument_is_reported_with_the_accepted_values(secret: str, arguments: list[str], line: str) -> None:
    assert token(secret, *arguments).stderr == f"leasehold: {line}\n"


def test_a_token_can_have_the_permission_admin(secret: str) -> None:
    made = token(secret, "--subject=a", "--permission=write", "--permission=admin").stdout.strip()
    assert jwt.decode(made, SECRET, algorithms=["HS256"])["permissions"] == ["write", "admin"]


@both
def test_a_subject_that_is_not_text_is_wrong_usage(run: Run, secret: str) -> None:
    result = run(secret, "--subject=" + os.fsdecode(b"\xff"), "--permission=read")
    assert (result.returncode, result.stdout, "Traceback" in result.stderr) == (USAGE, "", False)


@both
@pytest.mark.parametrize("arguments", [["--permission=root"], ["--permission=read", "--expires=1w"]], ids=str)
def test_wrong_usage_of_either_command_ends_with_2(run: Run, secret: str, arguments: list[str]) -> None:
    result = run(secret, "--subject=a", *arguments)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (USAGE, "", 1)


@both
def test_a_token_needs_a_file_with_the_secret(run: Run) -> None:
    assert run("--subject=a", "--permission=read").returncode == USAGE


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "the secret must have at least 32 bytes"),
        (b"short\n", "the secret must have at least 32 bytes"),
        (None, "the secret's file cannot be read: No such file or directory"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "the secret is a public or private key"),
    ],
)
def test_an_unusable_secret_ends_with_1_and_one_line(tmp_path: Path, content: bytes | None, line: str) -> None:
    if content is not None:
        (tmp_path / "bad").write_bytes(content)
    result = token(f"--auth-secret-file={tmp_path / 'bad'}", "--subject=a", "--permission=read")
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (FAULT, "", 1)
    assert result.stderr.startswith(f"leasehold: {line}")


# Use of the token ---------------------------------------------------------------------------------------------


@both
def test_a_service_with_the_same_secret_accepts_the_token(run: Run, secret: str) -> None:
    made = run(secret, "--subject=ann", "--permission=read", "--permission=write", "--prefix=a/").stdout.strip()
    headers = {"Authorization": f"Bearer {made}"}
    with running(arguments=[secret]) as server:
        statuses = [server.put(key, "1", headers=headers).status_code for key in ("a/1", "b/1")]
        statuses.append(server.put("a/1", "1").status_code)
    assert statuses == [201, 403, 401]
